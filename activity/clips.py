"""From a video to clips: which frames, at what size, stacked, padded on the right, with their mask.

    video --sample_video--> stack (N, S, H, W, 3) --window_starts, pad_right--> clips (T, S, H, W, 3) + mask (T,)

S is the number of streams: what is made of each sampled frame, see `activity.motion`.

Evenly spread, a stack never holds more than T frames and gives one clip. At a fixed rate it holds the whole video at
that rate, N may exceed T, and windows of T cover all of it. The index plans are pure functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.motion import StreamMaker, compared_frames, gap_frames
from activity.video import FrameIndex, SeekError, VideoInfo, VideoReader, index_frames, why_unreadable

_logger = logging.getLogger(__name__)

# Containers round timestamps (Matroska to 1 ms), so a frame that is due may claim to be a little early.
_TIMESTAMP_TOLERANCE_SECONDS = 1e-3
_INDEX_PAYS = 32  # frames between two that are taken; then most of a usual group of pictures can be skipped


@dataclass(frozen=True)
class SampledVideo:
    """What was read of a video while its frames were taken.

    Attributes:
        timestamps_seconds: of the taken frames, counted from the first frame of the video.
        num_frames: decoded in all, taken or not.
        num_frames_claimed: according to the header, 0 when it does not say.
        duration_seconds: from the first frame to the end of the last.
        problem: what the user should know although frames could be used, or `None`.
    """

    timestamps_seconds: tuple[float, ...]
    num_frames: int
    num_frames_claimed: int
    duration_seconds: float
    problem: str | None


def even_indices(num_frames_total: int, num_frames: int) -> np.ndarray:
    """Rising, distinct indices spread evenly over a video: the middles of `num_frames` equal parts.

    Returns:
        `(min(num_frames_total, num_frames),)` int64; a shorter video gives all of its frames.
    """
    if num_frames_total <= num_frames:
        return np.arange(num_frames_total)
    # (2 i + 1) n / 2 T in integers: floats would round differently from one machine to the next
    return (2 * np.arange(num_frames) + 1) * num_frames_total // (2 * num_frames)


def num_times_due(timestamp_seconds: float, num_taken: int, frames_per_second: float) -> int:
    """How many of the sample times 0, 1/R, 2/R, ... a frame at this time has to serve.

    Each sample time gets the first frame at or after it; a video slower than the rate repeats its frames, so that
    time runs alike in every clip, also under a variable frame rate.

    Args:
        timestamp_seconds: of the frame, counted from the first frame.
        num_taken: sample times already served.
        frames_per_second: the rate R asked for.
    """
    tolerance = min(_TIMESTAMP_TOLERANCE_SECONDS * frames_per_second, 0.5)  # in sample times
    num_reached = int(timestamp_seconds * frames_per_second + tolerance) + 1
    return max(0, num_reached - num_taken)


def window_starts(num_frames_total: int, num_frames: int, stride: int | None = None) -> list[int]:
    """First frames of the windows of `num_frames` that cover a stack from its first frame to its last.

    Args:
        num_frames_total: frames in the stack, at least 1.
        num_frames: frames in a window.
        stride: frames from one start to the next; half a window by default. The last window ends with the stack.
    """
    stride = stride or max(1, num_frames // 2)
    last = max(0, num_frames_total - num_frames)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def pad_right(values: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Bring `(N, ...)` with 1 <= N <= `length` to `(length, ...)` with zeros, and the mask `(length,)` bool."""
    if not 1 <= len(values) <= length:
        raise ValueError(f"expected 1 to {length} real frames, received {len(values)}")
    padded = np.zeros((length, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded, np.arange(length) < len(values)


def resize_frame(frame: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """Bring `(h, w, 3)` uint8 to `(spec.height, spec.width, 3)` in the way `spec.resize` says."""
    height, width = frame.shape[:2]
    if spec.resize == "stretch":
        return _scale(frame, spec.height, spec.width)
    fits = min if spec.resize == "letterbox" else max
    scale = fits(spec.height / height, spec.width / width)
    scaled = _scale(frame, max(1, round(height * scale)), max(1, round(width * scale)))
    if spec.resize == "crop":
        top, left = (scaled.shape[0] - spec.height) // 2, (scaled.shape[1] - spec.width) // 2
        return np.ascontiguousarray(scaled[top : top + spec.height, left : left + spec.width])
    canvas = np.zeros((spec.height, spec.width, 3), np.uint8)
    top, left = (spec.height - scaled.shape[0]) // 2, (spec.width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas


def sample_video(
    path: Path, spec: ClipSpec, take: Callable[[np.ndarray], object], *, num_threads: int = 1
) -> SampledVideo:
    """Decode a video and hand its sampled frames, in order, to `take`.

    Where the sampled frames lie far apart, what lies between is skipped from key frame to key frame. If the container
    cannot be trusted, every frame is decoded: the same frames, later. Memory does not grow with the length of the
    video: at most T frames are held, and the neighbours of one.

    Args:
        path: a video file.
        spec: which frames and at what size.
        take: receives each frame, `(S, spec.height, spec.width, 3)` uint8 RGB, in the order of `spec.streams`.
        num_threads: decoding threads, 0 for FFmpeg's choice.

    Raises:
        VideoError: not one frame can be decoded; the message says why.
    """
    sample_all = _sample_evenly if spec.frames_per_second is None else _sample_at_rate
    with VideoReader(path, num_threads=num_threads) as reader:
        frame_index = index_frames(reader.path) if _frames_apart(spec, reader.info) > _INDEX_PAYS else None
        if frame_index is None:
            return sample_all(reader, spec, take)
        num_taken = 0

        def count(frame: np.ndarray) -> None:
            nonlocal num_taken
            num_taken += 1
            take(frame)

        try:
            return _sample_by_index(reader, spec, count, frame_index)
        except SeekError as error:
            _logger.info("%s: every frame is decoded instead", error)
    repeated = iter(range(num_taken))  # at a fixed rate; evenly, nothing is handed over before all is well
    with VideoReader(path, num_threads=num_threads) as reader:
        return sample_all(reader, spec, lambda frame: take(frame) if next(repeated, None) is None else None)


def read_stack(path: Path, spec: ClipSpec, *, num_threads: int = 1) -> tuple[np.ndarray, SampledVideo]:
    """The sampled frames of a video in memory, `(N, S, H, W, 3)` uint8 RGB, and what was read. See `sample_video`."""
    frames: list[np.ndarray] = []
    sampled = sample_video(path, spec, frames.append, num_threads=num_threads)
    return np.stack(frames), sampled


def _scale(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    # Area averaging is the one that does not alias when shrinking, and fast at halving; linear interpolation does what
    # is left, unless that is more than another half (of an odd number of pixels).
    while any(halves := [n >= 2 * to and n % 2 == 0 for n, to in zip(frame.shape, (height, width), strict=False)]):
        rows, columns = (n // 2 if half else n for n, half in zip(frame.shape, halves, strict=False))
        frame = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA)
    near = frame.shape[0] <= 2 * height and frame.shape[1] <= 2 * width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR if near else cv2.INTER_AREA)


def _frames_apart(spec: ClipSpec, info: VideoInfo) -> float:
    """How far apart sampled frames lie in a video, if its header is right."""
    if spec.frames_per_second is None:
        return info.num_frames_claimed / spec.num_frames
    return info.frames_per_second / spec.frames_per_second


def _sample_by_index(
    reader: VideoReader, spec: ClipSpec, take: Callable[[np.ndarray], object], frame_index: FrameIndex
) -> SampledVideo:
    total, timestamps = len(frame_index.milliseconds), frame_index.timestamps_seconds.tolist()
    frames: list[np.ndarray] = []
    if spec.frames_per_second is None:
        copies = _evenly(total, spec)
    else:
        due = _DueCopies(spec.frames_per_second)
        copies = {index: n for index, seconds in enumerate(timestamps) if (n := due(index, seconds))}
    needed = _needed(copies, spec, reader.info, total)
    # The last frame is not where it should be if a file was cut off, or if an edit list hides some of its packets.
    visited = needed | {total - 1}
    hand_over = frames.append if spec.frames_per_second is None else take
    passed = _decode(reader, reader.visit(sorted(visited), frame_index), spec, hand_over, _by_plan(copies), needed)
    if passed.num_frames <= max(visited):
        raise SeekError(f"{reader.path}: frame {passed.num_frames} cannot be decoded")
    for frame in frames:
        take(frame)
    return _sampled(reader, passed.taken, total, timestamps[-1])


def _sample_evenly(reader: VideoReader, spec: ClipSpec, take: Callable[[np.ndarray], object]) -> SampledVideo:
    # The plan needs the true count, which only decoding gives. Plan by the header's count for one pass, which is
    # enough when the header was right; otherwise read again with the count just found.
    claimed = reader.info.num_frames_claimed
    frames, sampled = _sample_as_if(claimed, reader, spec)
    if _evenly(sampled.num_frames, spec) != _evenly(claimed, spec):
        with VideoReader(reader.path, num_threads=reader.num_threads) as again:
            frames, sampled = _sample_as_if(sampled.num_frames, again, spec)
    for frame in frames:
        take(frame)
    return sampled


def _sample_as_if(total: int, reader: VideoReader, spec: ClipSpec) -> tuple[list[np.ndarray], SampledVideo]:
    frames: list[np.ndarray] = []
    copies = _evenly(total, spec)
    needed = _needed(copies, spec, reader.info, total)
    passed = _decode(reader, reader, spec, frames.append, _by_plan(copies), needed)
    return frames, _sampled(reader, *passed)


def _sample_at_rate(reader: VideoReader, spec: ClipSpec, take: Callable[[np.ndarray], object]) -> SampledVideo:
    assert spec.frames_per_second is not None
    due = _DueCopies(spec.frames_per_second)
    needed = None if gap_frames(spec, reader.info.frames_per_second) else ()  # any may be compared, or none
    return _sampled(reader, *_decode(reader, reader, spec, take, due, needed))


def _evenly(total: int, spec: ClipSpec) -> dict[int, int]:
    """Index -> how often it is taken."""
    return dict.fromkeys(even_indices(total, spec.num_frames).tolist(), 1)


def _by_plan(copies: dict[int, int]) -> Callable[[int, float], int]:
    return lambda index, _: copies.get(index, 0)


class _DueCopies:
    """How often each frame is taken at a fixed rate, asked frame by frame."""

    def __init__(self, rate: float) -> None:
        self._rate, self._num_taken = rate, 0

    def __call__(self, index: int, seconds: float) -> int:
        due = num_times_due(seconds, self._num_taken, self._rate)
        self._num_taken += due
        return due


def _needed(copies: Collection[int], spec: ClipSpec, info: VideoInfo, total: int) -> set[int]:
    """The frames that are taken, and those that the streams compare with them."""
    gap = gap_frames(spec, info.frames_per_second)
    if not gap:
        return set(copies)
    near = {i for index in copies for i in (index, *compared_frames(index, gap, total - 1), max(0, index - gap), gap)}
    return {min(i, total - 1) for i in near}


class _Passed(NamedTuple):
    """What one pass over a video saw: the times of the taken frames, the count, the time of the last."""

    taken: tuple[float, ...]
    num_frames: int
    seconds: float


def _decode(
    reader: VideoReader,
    frames: Iterable[tuple[int, float]],
    spec: ClipSpec,
    take: Callable[[np.ndarray], object],
    num_copies: Callable[[int, float], int],
    needed: Collection[int] | None,
) -> _Passed:
    """One pass over frames of a reader.

    Args:
        reader: gives their pictures.
        frames: `(index, timestamp_seconds)`; times are counted from the first frame of the video, or from frame 0.
        spec: what is made of them.
        take: see `sample_video`.
        num_copies: how often the frame of an index and time is taken.
        needed: frames that are converted because a stream compares them; `None`: any may be.
    """
    taken: list[float] = []
    num_frames, start, seconds = 0, 0.0, 0.0
    streams = StreamMaker(spec, gap_frames(spec, reader.info.frames_per_second), partial(resize_frame, spec=spec), take)
    for index, timestamp in frames:
        start = timestamp if index == 0 else start
        seconds = timestamp - start
        copies = num_copies(index, seconds)
        if copies or needed is None or index in needed:
            try:
                streams.see(index, reader.retrieve_bgr(), copies)
            except (VideoError, cv2.error) as error:
                if index:  # what came before is good, and what comes after would stand in its place
                    break
                raise VideoError(f"{reader.path}: its first frame cannot be decoded") from error
            taken += [seconds] * copies
        num_frames = index + 1
    streams.finish()
    return _Passed(tuple(taken), num_frames, seconds)


def _sampled(reader: VideoReader, taken: tuple[float, ...], num_frames: int, seconds: float) -> SampledVideo:
    if num_frames == 0:
        raise VideoError(f"{reader.path}: {why_unreadable(reader.path)}")
    duration = seconds + 1 / reader.info.frames_per_second
    return SampledVideo(
        timestamps_seconds=taken,
        num_frames=num_frames,
        num_frames_claimed=reader.info.num_frames_claimed,
        duration_seconds=duration,
        problem=_problem(num_frames, duration, reader.info),
    )


def _problem(num_frames: int, duration_seconds: float, info: VideoInfo) -> str | None:
    if num_frames == 1:
        return "holds one frame only, so nothing moves in it (a picture?); that frame is used"
    # Compare times, not counts: for a variable frame rate the header's count is rate times duration, a guess.
    claimed_seconds = info.duration_seconds_claimed
    if duration_seconds < 0.9 * claimed_seconds and num_frames < 0.9 * info.num_frames_claimed:
        return (
            f"ends after {num_frames} frames ({duration_seconds:.2f} s) of a claimed {info.num_frames_claimed} "
            f"({claimed_seconds:.2f} s): cut off or damaged; the frames before that are used"
        )
    return None
