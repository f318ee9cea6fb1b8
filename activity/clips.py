"""From a video to clips: which frames, at what size, stacked, padded on the right, with their mask.

    video --sample_video--> stack (N, S, H, W, 3) --window_starts, pad_right--> clips (T, S, H, W, 3) + mask (T,)

S is the number of streams: what is made of each sampled frame, see `activity.motion`.

Evenly spread, a stack never holds more than T frames and gives one clip. At a fixed rate it holds the whole video at
that rate, N may exceed T, and windows of T cover all of it. The index plans are pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.motion import StreamMaker, compared_frames, gap_frames
from activity.video import VideoInfo, VideoReader, why_unreadable

# Containers round timestamps (Matroska to 1 ms), so a frame that is due may claim to be a little early.
_TIMESTAMP_TOLERANCE_SECONDS = 1e-3


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
    """Decode a video once from end to end and hand its sampled frames, in order, to `take`.

    Memory does not grow with the length of the video: at most T frames are held, and the neighbours of one.

    Args:
        path: a video file.
        spec: which frames and at what size.
        take: receives each frame, `(S, spec.height, spec.width, 3)` uint8 RGB, in the order of `spec.streams`.
        num_threads: decoding threads, 0 for FFmpeg's choice.

    Raises:
        VideoError: not one frame can be decoded; the message says why.
    """
    sample = _sample_evenly if spec.frames_per_second is None else _sample_at_rate
    return sample(Path(path), spec, take, num_threads)


def read_stack(path: Path, spec: ClipSpec, *, num_threads: int = 1) -> tuple[np.ndarray, SampledVideo]:
    """The sampled frames of a video in memory, `(N, S, H, W, 3)` uint8 RGB, and what was read. See `sample_video`."""
    frames: list[np.ndarray] = []
    sampled = sample_video(path, spec, frames.append, num_threads=num_threads)
    return np.stack(frames), sampled


def _scale(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    # Area averaging is the one that does not alias when shrinking; it is poor at enlarging.
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _sample_evenly(path: Path, spec: ClipSpec, take: Callable[[np.ndarray], object], num_threads: int) -> SampledVideo:
    # The plan needs the true count, which only decoding gives. Plan by the header's count for one pass, which is
    # enough when the header was right; otherwise read again with the count just found.
    with VideoReader(path, num_threads=num_threads) as reader:
        total = reader.info.num_frames_claimed
    planned = even_indices(total, spec.num_frames)
    for _ in range(2):
        frames: list[np.ndarray] = []
        wanted = dict.fromkeys(planned.tolist(), 1)
        sampled = _decode(path, spec, frames.append, partial(_copies_of, wanted), num_threads, wanted, total)
        needed = even_indices(sampled.num_frames, spec.num_frames)
        if np.array_equal(planned, needed):
            break
        planned, total = needed, sampled.num_frames
    for frame in frames:
        take(frame)
    return sampled


def _copies_of(wanted: dict[int, int], index: int, _: float) -> int:
    return wanted.get(index, 0)


def _sample_at_rate(path: Path, spec: ClipSpec, take: Callable[[np.ndarray], object], num_threads: int) -> SampledVideo:
    rate, num_taken = spec.frames_per_second or 0.0, 0

    def num_copies(_: int, seconds: float) -> int:
        nonlocal num_taken
        due = num_times_due(seconds, num_taken, rate)
        num_taken += due
        return due

    return _decode(path, spec, take, num_copies, num_threads)


def _decode(
    path: Path,
    spec: ClipSpec,
    take: Callable[[np.ndarray], object],
    num_copies: Callable[[int, float], int],
    num_threads: int,
    planned: Collection[int] = (),
    total: int = 0,
) -> SampledVideo:
    """One pass over every frame; `num_copies(index, seconds)` says how often a frame is taken.

    With `planned`, the indices that will be, and the `total` that the video is thought to have, frames that no stream
    compares with them need no conversion.
    """
    taken: list[float] = []
    num_frames, start, seconds = 0, 0.0, 0.0
    with VideoReader(path, num_threads=num_threads) as reader:
        gap = gap_frames(spec, reader.info.frames_per_second)
        near = {i for index in planned for i in (*compared_frames(index, gap, total - 1), max(0, index - gap), gap)}
        streams = StreamMaker(spec, gap, partial(resize_frame, spec=spec), take)
        for index, timestamp in reader:
            start = timestamp if index == 0 else start
            seconds = timestamp - start
            copies = num_copies(index, seconds)
            if copies or (gap and (not planned or index in near)):
                try:
                    frame = reader.retrieve()
                    streams.see(index, frame, copies)
                except (VideoError, cv2.error) as error:
                    if index:  # what came before is good, and what comes after would stand in its place
                        break
                    raise VideoError(f"{path}: its first frame cannot be decoded") from error
                taken += [seconds] * copies
            num_frames = index + 1
        streams.finish()
        info = reader.info
    if num_frames == 0:
        raise VideoError(f"{path}: {why_unreadable(path)}")
    duration = seconds + 1 / info.frames_per_second
    return SampledVideo(
        timestamps_seconds=tuple(taken),
        num_frames=num_frames,
        num_frames_claimed=info.num_frames_claimed,
        duration_seconds=duration,
        problem=_problem(num_frames, duration, info),
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
