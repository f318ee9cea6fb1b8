"""Streams: the images that are made of a video's frames, one of each stream for every sampled frame.

    rgb          the frame itself
    motion       what changed since 80 ms ago (at the start: in the first 80 ms), in colour: 127.5 + 2 (after - before)
    motion_crop  three consecutive differences of 80 ms in grey, as the three channels, cut out around what moves

A backbone that learned photographs reads all three: grey is no motion, edges are moving contours. In `motion_crop` the
movement of the camera is taken out first (sparse optical flow, Lucas & Kanade 1981; a similarity transform by RANSAC,
Fischler & Bolles 1981), so a small figure that a shaking camera follows fills the image. The idea that differences of
frames carry the activity is that of two-stream networks (Simonyan & Zisserman 2014, with optical flow) and of temporal
segment networks (Wang et al. 2016, with RGB differences).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import cv2
import numpy as np

from activity.config import ClipSpec
from activity.video.clips import resize_frame

GAP_SECONDS = 0.08  # between two frames that are compared; 0.12 is worse on tennis strokes, and no better on Weizmann
_GAIN = 2.0  # a change of 64 grey levels or more saturates
_WORKING_SIZE = 640  # pixels, the longer side of what motion crops are cut from
_TRACKING_SIZE = 160  # pixels, the longer side of what is looked at to find where something moves


def compared_frames(index: int, gap: int, last: int | None = None) -> list[int]:
    """The four frames whose three differences make the motion crop of a frame: two before it, itself, one after.

    Near the first and the last frame of a video they are the nearest four that lie within it.

    Args:
        index: of the frame.
        gap: see `gap_frames`.
        last: index of the last frame of the video, if it is known.
    """
    first = max(0, index - 2 * gap if last is None else min(index - 2 * gap, last - 3 * gap))
    return [first + k * gap for k in range(4)]


def gap_frames(spec: ClipSpec, frames_per_second: float) -> int:
    """How many frames apart two frames are that are compared; 0 if the streams of `spec` compare none."""
    return 0 if spec.streams == ("rgb",) else max(1, round(GAP_SECONDS * frames_per_second))


@dataclass
class Seen:
    """A frame, in the sizes that the streams need."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    grey: np.ndarray | None  # (h, w) uint8


def shrink(frame: np.ndarray, spec: ClipSpec) -> Seen:
    """Keep of a decoded frame, `(h, w, 3)` uint8 BGR, only what the streams need."""
    image = cv2.cvtColor(resize_frame(frame, spec), cv2.COLOR_BGR2RGB)
    return Seen(image, _working_grey(frame) if "motion_crop" in spec.streams else None)


T = TypeVar("T")
_Coming: TypeAlias = Callable[[], T]  # gives what is computed in another thread, or was already
# Of a sampled frame: its images but for the motion crop; for that, three differences (h, w) float32 and the energy
_Compared: TypeAlias = tuple[dict[str, np.ndarray], list[_Coming[np.ndarray]], _Coming[np.ndarray] | None]


class StreamMaker:
    """Makes the images of all streams while a video is decoded; memory does not grow with its length.

    Args:
        spec: which streams, at what size.
        gap: see `gap_frames`.
        block: motion crops are made so many at a time, by default a clip; the square follows what moves in the clip
            that ends there.
        executor: frames are aligned in its threads while others are decoded; by default in the caller's.
    """

    def __init__(self, spec: ClipSpec, gap: int, *, block: int | None = None, executor: Executor | None = None) -> None:
        self._spec, self._gap, self._executor = spec, gap, executor
        self._block = block or spec.num_frames
        self._crops = "motion_crop" in spec.streams
        self._seen: dict[int, Seen] = {}  # by index, the last few
        self._due: list[int] = []  # sampled frames that wait for the frame after them
        self._aligned: dict[tuple[int, int], _Coming[np.ndarray]] = {}  # by their indices, differences of those seen
        # Sampled frames that wait for the rest of their block: the other images, and the differences
        self._waiting: list[tuple[dict[str, np.ndarray], list[_Coming[np.ndarray]]]] = []
        self._energies: list[_Coming[np.ndarray]] = []  # of those that wait, and before them of the rest of a clip
        self._compared: tuple[tuple[int, int | None], _Compared] | None = None  # the last, for more copies of it

    def see(self, index: int, seen: Seen, copies: int) -> Iterator[np.ndarray]:
        """Take in the next decoded frame, and give the sampled frames that are complete with it.

        Args:
            index: of the frame, rising.
            seen: the frame.
            copies: how often it is sampled; 0: it is only compared with others.

        Returns:
            Sampled frames, `(S, H, W, 3)` uint8 in the order of `spec.streams`; they must all be taken.
        """
        self._seen[index] = seen
        self._due += [index] * copies
        while self._due and self._newest(self._due[0]) <= index:
            yield from self._make(self._due.pop(0), None)
        oldest = min(self._due[:1] + [index]) - 3 * self._gap
        for known in [i for i in self._seen if i < oldest]:
            del self._seen[known]
        for pair in [pair for pair in self._aligned if pair[0] < oldest]:
            del self._aligned[pair]

    def finish(self) -> Iterator[np.ndarray]:
        """Give the sampled frames that still wait, after the last decoded one."""
        for index in self._due:
            yield from self._make(index, max(self._seen))
        self._due = []
        yield from self._make_crops()

    def _newest(self, index: int) -> int:
        """The last frame that the images of a frame need."""
        return compared_frames(index, self._gap)[-1] if self._crops else max(index, self._gap)

    def _make(self, index: int, last: int | None) -> Iterator[np.ndarray]:
        if self._compared is None or self._compared[0] != (index, last):
            self._compared = (index, last), self._compare(index, last)
        images, differences, energy = self._compared[1]
        if energy is None:
            yield self._stacked(images)
            return
        self._waiting.append((images, differences))
        self._energies.append(energy)
        if len(self._waiting) == self._block:
            yield from self._make_crops()

    def _compare(self, index: int, last: int | None) -> _Compared:
        images = {"rgb": self._at(index).image}
        if "motion" in self._spec.streams:
            before = max(0, index - self._gap)
            change = self._at(before + self._gap).image.astype(np.float32) - self._at(before).image
            images["motion"] = as_image(change)
        if not self._crops:
            return images, [], None
        steps = [self._nearest(i) for i in compared_frames(index, self._gap, last)]
        differences = [self._align(*pair) for pair in itertools.pairwise(steps)]
        # Executors begin what they are given in its order, so the difference is on its way before its energy waits
        return images, differences, self._begin(lambda: motion_energy(differences[1]()))

    def _align(self, before: int, after: int) -> _Coming[np.ndarray]:
        """The difference of two frames, computed once for all sampled frames near them."""
        if (before, after) not in self._aligned:
            greys = self._seen[before].grey, self._seen[after].grey
            self._aligned[before, after] = self._begin(lambda: aligned_difference(*greys))  # type: ignore[arg-type]
        return self._aligned[before, after]

    def _begin(self, compute: Callable[[], T]) -> _Coming[T]:
        if self._executor:
            return self._executor.submit(compute).result
        result = compute()
        return lambda: result

    def _at(self, index: int) -> Seen:
        return self._seen[self._nearest(index)]

    def _nearest(self, index: int) -> int:
        """The frame of an index, or the nearest: there is none before the first, nor between those of a live stream."""
        return min(self._seen, key=lambda known: abs(known - index))

    def _make_crops(self) -> Iterator[np.ndarray]:
        """Give the frames that wait, with their motion crops."""
        if not self._waiting:
            return
        energies, size = [energy() for energy in self._energies], (self._spec.height, self._spec.width)
        scale = self._waiting[0][1][0]().shape[0] / energies[0].shape[0]
        squares = track_motion(energies, scale)[-len(self._waiting) :]
        for (images, differences), square in zip(self._waiting, squares, strict=True):
            channels = [as_image(cut_square(difference(), square, *size)) for difference in differences]
            yield self._stacked({**images, "motion_crop": cv2.merge(channels)})
        self._waiting = []
        self._energies = self._energies[max(0, len(self._energies) - self._spec.num_frames + self._block) :]

    def _stacked(self, images: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([images[stream] for stream in self._spec.streams])


def as_image(difference: np.ndarray) -> np.ndarray:
    """Signed differences of grey levels, any shape, as uint8: 127.5 + 2 d, saturated."""
    grey = np.multiply(difference, _GAIN, dtype=np.result_type(difference, np.float32))
    grey += 127.5
    return np.clip(np.rint(grey, out=grey), 0, 255, out=grey).astype(np.uint8)


def aligned_difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`after - before` once the movement of the camera is taken out; `(h, w)` uint8 twice to `(h, w)` float32.

    Where no movement of the whole image can be told, the plain difference; 0 where `before` does not reach.
    """
    transform = _camera_movement(before, after)
    if transform is None:
        return after.astype(np.float32) - before
    size = (before.shape[1], before.shape[0])
    moved = cv2.warpAffine(before.astype(np.float32), transform, size, flags=cv2.INTER_LINEAR)
    reached = cv2.warpAffine(np.ones_like(moved), transform, size, flags=cv2.INTER_LINEAR)
    inside = cv2.erode((reached > 0.99).view(np.uint8), np.ones((3, 3)))
    return cv2.subtract(after, moved, mask=inside, dtype=cv2.CV_32F)


def _camera_movement(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """The `(2, 3)` similarity transform from one grey frame to the next, `None` if too few points agree on one."""
    corners = cv2.goodFeaturesToTrack(before, maxCorners=200, qualityLevel=0.01, minDistance=6)
    if corners is None or len(corners) < 12:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)  # type: ignore[call-overload]
    good = found.ravel() == 1
    if good.sum() < 12:
        return None
    transform, agree = cv2.estimateAffinePartial2D(
        corners[good], moved[good], method=cv2.RANSAC, ransacReprojThreshold=1.5, maxIters=500
    )
    if transform is None or agree.sum() < max(10, 0.35 * good.sum()):
        return None
    return transform if 0.8 < np.hypot(transform[0, 0], transform[1, 0]) < 1.25 else None


def motion_energy(difference: np.ndarray) -> np.ndarray:
    """How much moves where: `(h, w)` float32 differences to a small `(th, tw)` float32 map, 0 where little moves.

    One flash must not outweigh a figure, so strong changes are capped; noise and a restless background lie below the
    85th percentile; the subject of a film is rather in the middle.
    """
    height, width = difference.shape
    scale = _TRACKING_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.abs(cv2.resize(difference, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
    small = cv2.GaussianBlur(np.minimum(small, 40), (0, 0), 2)
    x, y = (np.arange(n) / n - 0.5 for n in size)
    middle = np.exp(-0.5 * ((x / 0.35)[None] ** 2 + (y / 0.455)[:, None] ** 2))
    return (np.maximum(small - max(np.percentile(small, 85), 3), 0) * middle).astype(np.float32)


def track_motion(energies: Sequence[np.ndarray], scale: float) -> list[tuple[float, float, float]]:
    """The square around what moves, in each frame of a clip: `(x, y, side)`, its centre and size in pixels.

    The square follows smoothly and keeps its size through the clip, so that coming nearer and going away show. The
    energies are those of `motion_energy`; `scale` is pixels of the frame to one of them.
    """
    num, (height, width) = len(energies), energies[0].shape
    smooth = np.stack([np.mean(energies[max(0, i - 2) : i + 3], axis=0) for i in range(num)])  # (n, th, tw)
    totals = smooth.sum(axis=(1, 2))
    if totals.sum() < 1e-3:
        return [(width * scale / 2, height * scale / 2, min(height, width) * scale)] * num
    moving = np.flatnonzero(totals >= 0.05 * totals.max())
    columns, rows = smooth[moving].sum(axis=1), smooth[moving].sum(axis=2)  # (m, tw), (m, th)
    frames = np.arange(num)
    x, y = (
        _smooth(np.interp(frames, moving, [(_quantile(v, 0.1) + _quantile(v, 0.9)) / 2 for v in profile]))
        for profile in (columns, rows)
    )
    spreads = [max(_quantile(v, 0.95) - _quantile(v, 0.05) for v in pair) for pair in zip(columns, rows, strict=True)]
    side = float(np.clip(1.25 * np.median(spreads), 0.3 * height, 1.1 * height))
    return [(scale * cx, scale * cy, scale * side) for cx, cy in zip(x.tolist(), y.tolist(), strict=True)]


def _quantile(profile: np.ndarray, fraction: float) -> int:
    """The position below which this fraction of a profile lies."""
    return int(np.searchsorted(np.cumsum(profile) / profile.sum(), fraction))


def _smooth(track: np.ndarray) -> np.ndarray:
    """A running median against jumps, then a running mean."""
    reach = max(2, len(track) // 6)
    median = np.array([np.median(track[max(0, i - reach) : i + reach + 1]) for i in range(len(track))])
    half = reach // 2
    return np.array([median[max(0, i - half) : i + half + 1].mean() for i in range(len(track))])


def cut_square(image: np.ndarray, square: tuple[float, float, float], height: int, width: int) -> np.ndarray:
    """The square `(x, y, side)` of an image, `(h, w)` or `(h, w, 3)`, of that height and width; its rim fills up."""
    x, y, side = square
    fx, fy = width / side, height / side
    transform = np.array([[fx, 0, width / 2 - fx * x], [0, fy, height / 2 - fy * y]])
    return cv2.warpAffine(image, transform, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _working_grey(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = _WORKING_SIZE / max(grey.shape)
    if scale >= 1:
        return grey
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
