"""From a video to clips: which frames, at what size, stacked, padded on the right, with their mask.

    video --sample_video--> stack (N, S, H, W, 3) --window_starts, pad_right--> clips (T, S, H, W, 3) + mask (T,)

S is the number of streams: what is made of each sampled frame, see `activity.video.streams`.

Evenly spread, a stack never holds more than T frames and gives one clip. At a fixed rate it holds the whole video at
that rate, N may exceed T, and windows of T cover all of it. The index plans are pure functions.

All this may be done with a span of a video: just as if it were cut out, and were a video of its own.
"""

from __future__ import annotations

import logging
import math
from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.video.clips import TIMESTAMP_TOLERANCE_SECONDS, WHOLE, Span, even_indices, num_times_due, resize_frame
from activity.video.decoder import Check, FrameIndex, SeekError, VideoInfo, VideoReader, index_frames, why_unreadable
from activity.video.streams import StreamMaker, compared_frames, gap_frames

_logger = logging.getLogger(__name__)

_INDEX_PAYS = 32  # frames that are skipped in a row; then most of a usual group of images need not be decoded


Take: TypeAlias = Callable[[np.ndarray], object]  # receives a sampled frame (S, H, W, 3)


@dataclass(frozen=True)
class SampledVideo:
    """What was read of a video, or of a span of it, while its frames were taken.

    Attributes:
        timestamps_seconds: of the taken frames, counted from the first frame of the video, also those of a span.
        num_frames: in the video or span, taken or not; decoded or, where that was skipped, found by the index.
        num_frames_claimed: according to the header, 0 when it does not say; of a span, as many of them as lie in it.
        duration_seconds: of the video or span, from its first frame to the end of its last.
        problem: what the user should know although frames could be used, or `None`.
    """

    timestamps_seconds: tuple[float, ...]
    num_frames: int
    num_frames_claimed: int
    duration_seconds: float
    problem: str | None


def sample_video(
    path: Path, spec: ClipSpec, take: Take, *, span: Span = WHOLE, num_threads: int = 1, check: Check | None = None
) -> SampledVideo:
    """Decode a video and hand its sampled frames, in order, to `take`.

    Where the sampled frames lie far apart, or a span begins late, what lies between is skipped from key frame to key
    frame. If the container cannot be trusted, every frame is decoded, up to the end of the span: the same frames,
    later. Of frames, at most T are held, and the neighbours of one, however long the video is.

    Args:
        path: a video file.
        spec: which frames and at what size.
        take: receives each frame, `(S, spec.height, spec.width, 3)` uint8 RGB, in the order of `spec.streams`.
        span: evenly, the frames in it are divided; at a rate, sample times are counted from its start.
        num_threads: decoding threads, 0 for FFmpeg's choice.
        check: called with the time of each frame that passes, taken or not; what it raises ends the reading.

    Raises:
        VideoError: not one frame can be decoded, or none lies in the span; the message says why.
    """
    sample_all = _sample_evenly if spec.frames_per_second is None else _sample_at_rate
    with VideoReader(path, num_threads=num_threads, check=check) as reader:
        frame_index = index_frames(reader.path) if _frames_skipped(spec, reader.info, span) > _INDEX_PAYS else None
        if frame_index is None:
            return sample_all(reader, spec, span, take)
        number = count()  # of the next frame that is handed over
        try:
            return _sample_by_index(reader, spec, span, lambda frame: (next(number), take(frame)), frame_index)
        except SeekError as error:
            _logger.info("%s: every frame is decoded instead", error)
    repeated = iter(range(next(number)))  # at a fixed rate; evenly, nothing is handed over before all is well
    with VideoReader(path, num_threads=num_threads, check=check) as reader:
        return sample_all(reader, spec, span, lambda frame: take(frame) if next(repeated, None) is None else None)


def read_stack(
    path: Path, spec: ClipSpec, *, span: Span = WHOLE, num_threads: int = 1
) -> tuple[np.ndarray, SampledVideo]:
    """The sampled frames of a video in memory, `(N, S, H, W, 3)` uint8 RGB, and what was read. See `sample_video`."""
    frames: list[np.ndarray] = []
    sampled = sample_video(path, spec, frames.append, span=span, num_threads=num_threads)
    return np.stack(frames), sampled


def _frames_skipped(spec: ClipSpec, info: VideoInfo, span: Span) -> float:
    """How many frames can be skipped in a row, before the span or between sampled frames, if the header is right."""
    part = _claimed_part(info, span)
    apart = (part.stop - part.first) / spec.num_frames
    if spec.frames_per_second is not None:
        apart = info.frames_per_second / spec.frames_per_second
    return max(apart, span[0] * info.frames_per_second)


def _edges(span: Span) -> Span:
    """The times between which frames count as inside."""
    return span[0] - TIMESTAMP_TOLERANCE_SECONDS, span[1] - TIMESTAMP_TOLERANCE_SECONDS


class _Part(NamedTuple):
    """The frames of a span: from the index `first` to before `stop`."""

    first: int
    stop: int


def _claimed_part(info: VideoInfo, span: Span) -> _Part:
    """The frames of a span as the header has it."""
    edges = np.ceil(np.multiply(_edges(span), info.frames_per_second))
    first, stop = np.clip(edges, 0, info.num_frames_claimed).astype(int).tolist()
    return _Part(first, stop)


def _found_part(reader: VideoReader, seconds: np.ndarray, span: Span) -> _Part:
    """The frames of a span, of a video whose frames have these times; raises `VideoError` if there are none."""
    if not len(seconds):
        raise VideoError(f"{why_unreadable(reader.path)}", path=reader.path)
    first, stop = np.searchsorted(seconds, _edges(span)).tolist()
    if first == len(seconds):
        ends = round(_end(seconds, reader.info), 2)
        raise VideoError(f"the segment starts at {span[0]} s, but the video ends at {ends} s", path=reader.path)
    if first == stop:
        raise VideoError(f"there is no frame from {span[0]} s to {span[1]} s", path=reader.path)
    return _Part(first, stop)


def _end(seconds: np.ndarray, info: VideoInfo) -> float:
    """When the last frame ends."""
    return float(seconds[-1]) + 1 / info.frames_per_second


def _sample_by_index(
    reader: VideoReader, spec: ClipSpec, span: Span, take: Take, frame_index: FrameIndex
) -> SampledVideo:
    seconds = frame_index.timestamps_seconds
    part = _found_part(reader, seconds, span)
    frames: list[np.ndarray] = []
    if spec.frames_per_second is None:
        copies, needed = _plan_evenly(part, spec, reader.info)
    else:
        due = _DueCopies(spec.frames_per_second, span)
        copies = {i: n for i in range(part.first, part.stop) if (n := due(i, float(seconds[i])))}
        needed = _needed(copies, spec, reader.info, part)
    # Where an edit list hides packets, or a file was cut off, the first frame or the last is not where it should be.
    visited = sorted(needed | {0, part.first, part.stop - 1})
    hand_over = frames.append if spec.frames_per_second is None else take
    passed = _decode(reader, reader.visit(visited, frame_index), spec, span, hand_over, _by_plan(copies), needed)
    if len(passed.seconds) < len(visited):
        raise SeekError(f"frame {visited[len(passed.seconds)]} cannot be decoded", path=reader.path)
    for frame in frames:
        take(frame)
    return _sampled(reader, _Passed(passed.taken, seconds), span)


def _sample_evenly(reader: VideoReader, spec: ClipSpec, span: Span, take: Take) -> SampledVideo:
    # The plan needs the true count, which only decoding gives. Plan by the header's count for one pass, which is
    # enough when the header was right; otherwise read again with the count just found.
    plan = _plan_evenly(_claimed_part(reader.info, span), spec, reader.info)
    frames, passed = _sample_by_plan(*plan, reader, spec, span)
    true_plan = _plan_evenly(_found_part(reader, passed.seconds, span), spec, reader.info)
    if true_plan != plan:
        with VideoReader(reader.path, num_threads=reader.num_threads, check=reader.check) as again:
            frames, passed = _sample_by_plan(*true_plan, again, spec, span)
    sampled = _sampled(reader, passed, span)
    for frame in frames:
        take(frame)
    return sampled


def _sample_by_plan(
    copies: dict[int, int], needed: set[int], reader: VideoReader, spec: ClipSpec, span: Span
) -> tuple[list[np.ndarray], _Passed]:
    frames: list[np.ndarray] = []
    return frames, _decode(reader, reader, spec, span, frames.append, _by_plan(copies), needed)


def _sample_at_rate(reader: VideoReader, spec: ClipSpec, span: Span, take: Take) -> SampledVideo:
    assert spec.frames_per_second is not None
    due = _DueCopies(spec.frames_per_second, span)
    needed = None if gap_frames(spec, reader.info.frames_per_second) else ()  # any may be compared, or none
    return _sampled(reader, _decode(reader, reader, spec, span, take, due, needed), span)


def _plan_evenly(part: _Part, spec: ClipSpec, info: VideoInfo) -> tuple[dict[int, int], set[int]]:
    """Index -> how often it is taken; and the frames that are needed for that."""
    copies = dict.fromkeys((part.first + even_indices(part.stop - part.first, spec.num_frames)).tolist(), 1)
    return copies, _needed(copies, spec, info, part)


def _by_plan(copies: dict[int, int]) -> Callable[[int, float], int]:
    return lambda index, _: copies.get(index, 0)


class _DueCopies:
    """How often each frame of a span is taken at a fixed rate, asked frame by frame."""

    def __init__(self, rate: float, span: Span) -> None:
        self._rate, self._span, self._num_taken = rate, span, 0

    def __call__(self, index: int, seconds: float) -> int:
        begin, end = _edges(self._span)
        due = num_times_due(seconds - self._span[0], self._num_taken, self._rate) if begin <= seconds < end else 0
        self._num_taken += due
        return due


def _needed(copies: Collection[int], spec: ClipSpec, info: VideoInfo, part: _Part) -> set[int]:
    """The frames that are taken, and those that the streams compare with them."""
    gap, last = gap_frames(spec, info.frames_per_second), part.stop - 1 - part.first
    if not gap:
        return set(copies)
    indices = [index - part.first for index in copies]
    near = {i for index in indices for i in (index, *compared_frames(index, gap, last), max(0, index - gap), gap)}
    return {part.first + min(i, last) for i in near}


class _Passed(NamedTuple):
    """What one pass over a video saw: the times of the taken frames, and `(N,)` of all that came by."""

    taken: tuple[float, ...]
    seconds: np.ndarray


def _decode(
    reader: VideoReader,
    frames: Iterable[tuple[int, float]],
    spec: ClipSpec,
    span: Span,
    take: Take,
    num_copies: Callable[[int, float], int],
    needed: Collection[int] | None,
) -> _Passed:
    """One pass over frames of a reader, to the first one behind a span.

    Args:
        reader: gives their images.
        frames: `(index, timestamp_seconds)`, the first one of the span among them; times begin with the video or at 0.
        spec: what is made of them.
        span: see `sample_video`.
        take: see `sample_video`.
        num_copies: how often the frame of an index and time is taken.
        needed: frames that are converted because a stream compares them; `None`: any may be.
    """
    taken: list[float] = []
    passed = array("d")
    start, first, (begin, end) = 0.0, None, _edges(span)
    streams = StreamMaker(spec, gap_frames(spec, reader.info.frames_per_second), partial(resize_frame, spec=spec), take)
    for index, timestamp in frames:
        start = timestamp if index == 0 else start
        seconds = timestamp - start
        if seconds >= end:
            passed.append(seconds)
            break
        if first is None and seconds >= begin:
            first = index
        copies = num_copies(index, seconds)
        if first is not None and (copies or needed is None or index in needed):
            try:
                streams.see(index - first, streams.shrink(reader.retrieve_bgr()), copies)
            except (VideoError, cv2.error) as error:
                if index:  # what came before is good, and what comes after would stand in its place
                    break
                raise VideoError("its first frame cannot be decoded", path=reader.path) from error
            taken += [seconds] * copies
        passed.append(seconds)
    streams.finish()
    return _Passed(tuple(taken), np.array(passed))


def _sampled(reader: VideoReader, passed: _Passed, span: Span) -> SampledVideo:
    part = _found_part(reader, passed.seconds, span)
    claimed = _claimed_part(reader.info, span)
    return SampledVideo(
        timestamps_seconds=passed.taken,
        num_frames=part.stop - part.first,
        num_frames_claimed=claimed.stop - claimed.first,
        duration_seconds=_end(passed.seconds[: part.stop], reader.info) - float(passed.seconds[part.first]),
        problem=_problem(part, _end(passed.seconds, reader.info), span, reader.info),
    )


def _problem(part: _Part, video_end: float, span: Span, info: VideoInfo) -> str | None:
    if part.stop - part.first == 1:
        return "holds one frame only, so nothing moves in it (an image?); that frame is used"
    if span[1] < math.inf:
        if span[1] <= video_end + 1 / info.frames_per_second:
            return None
        return (
            f"the segment ends at {span[1]} s, but the video ends at {video_end:.2f} s; the frames before that are used"
        )
    # Compare times, not counts: for a variable frame rate the header's count is rate times duration, a guess.
    claimed_seconds = info.duration_seconds_claimed
    if video_end < 0.9 * claimed_seconds and part.stop < 0.9 * info.num_frames_claimed:
        return (
            f"ends after {part.stop} frames ({video_end:.2f} s) of a claimed {info.num_frames_claimed} "
            f"({claimed_seconds:.2f} s): cut off or damaged; the frames before that are used"
        )
    return None
