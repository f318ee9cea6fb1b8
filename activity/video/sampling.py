"""From a video to clips: which frames, at what size, stacked, padded on the right, with their mask.

    video --iter_frames--> frames (S, H, W, 3) --window_starts, pad_right--> clips (T, S, H, W, 3) + mask (T,)

S is the number of streams: what is made of each sampled frame, see `activity.video.streams`.

Evenly spread, a video gives at most T frames and one clip. At a fixed rate it gives frames up to its end, and windows
of T cover all of them. Which frames are taken, a sampler says: `EvenSampler` or `RateSampler`.

All this may be done with a span of a video: just as if it were cut out, and were a video of its own.
"""

from __future__ import annotations

import logging
import math
import os
from array import array
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.video.clips import TIMESTAMP_TOLERANCE_SECONDS, WHOLE, Span, even_indices, num_times_due
from activity.video.decoder import Check, FrameIndex, SeekError, VideoInfo, VideoReader, index_frames, why_unreadable
from activity.video.diagnosis import video_tracks
from activity.video.images import IMAGES_PER_SECOND, ImageReader, open_video
from activity.video.streams import StreamMaker, compared_frames, gap_frames, shrink

_logger = logging.getLogger(__name__)

_INDEX_PAYS = 32  # frames that are skipped in a row; then most of a usual GOP need not be decoded


@dataclass(frozen=True)
class SampledVideo:
    """Facts of a video, or of a span of it, found while its frames were sampled.

    Attributes:
        timestamps_seconds: of the sampled frames, counted from the first frame of the video, also those of a span.
        num_frames: in the video or span, sampled or not; decoded or, where that was skipped, found by the index.
        num_frames_claimed: according to the header, 0 when it does not say; of a span, as many of them as lie in it.
        duration_seconds: of the video or span, from its first frame to the end of its last.
        edges_seconds: `(N + 1,)`, rising: frame `k` stands for the time `[edges[k], edges[k + 1])`. At a rate that is
            from its sample time to the next, however long frames last; evenly, the part whose middle it is. Of a
            single image both are 0.
        problem: what the user should know although frames could be used, or `None`.
    """

    timestamps_seconds: tuple[float, ...]
    num_frames: int
    num_frames_claimed: int
    duration_seconds: float
    edges_seconds: tuple[float, ...]
    problem: str | None


def iter_frames(
    path: Path,
    spec: ClipSpec,
    span: Span = WHOLE,
    *,
    num_threads: int = 1,
    check: Check | None = None,
    images_per_second: float = IMAGES_PER_SECOND,
) -> SampledFrames:
    """Sampled frames of a video, `(S, spec.height, spec.width, 3)` uint8 RGB each, decoded as they are asked for.

        frames = iter_frames(path, spec)
        for frame in frames:
            ...
        frames.sampled.num_frames

    Where the sampled frames lie far apart, or a span begins late, what lies between is skipped from key frame to key
    frame. If the container cannot be trusted, every frame is decoded, up to the end of the span: the same frames,
    later. At most T frames are held, and the neighbours of one, however long the video is.

    Args:
        path: a video file, a folder of numbered images, or a single image, which is a clip of one frame.
        spec: which frames, at what size; the order of `spec.streams` is that of the S images.
        span: evenly, the frames in it are divided; at a rate, sample times are counted from its start.
        num_threads: for decoding, and for aligning frames meanwhile; 0 for as many as help, 1 for neither beside this.
        check: called with the time of each frame that passes, sampled or not; what it raises ends the reading.
        images_per_second: of a folder of images.

    Raises:
        VideoError: while the frames are taken: not one can be decoded, or none lies in the span; it says why.
    """
    return SampledFrames(path, spec, span, num_threads, check, images_per_second)


def read_stack(
    path: Path, spec: ClipSpec, *, span: Span = WHOLE, num_threads: int = 1
) -> tuple[np.ndarray, SampledVideo]:
    """The sampled frames of a video in memory, `(N, S, H, W, 3)` uint8 RGB, and what was read; see `iter_frames`."""
    frames = iter_frames(path, spec, span, num_threads=num_threads)
    return np.stack(list(frames)), frames.sampled


# === Samplers: which frames are taken, and how often ===


class Part(NamedTuple):
    """The frames of a span: from the index `first` to before `stop`."""

    first: int
    stop: int


@dataclass(init=False)
class EvenSampler:
    """Takes frames spread evenly over a part of a video, each once.

    Args:
        part: of which they are taken.
        num_frames: so many; all of a shorter part.
        gap: see `gap_frames`.

    Attributes:
        taken: their indices.
        needed: these, and those that the streams compare with them.
    """

    taken: set[int]
    needed: set[int]

    def __init__(self, part: Part, num_frames: int, gap: int) -> None:
        self.taken = set((part.first + even_indices(part.stop - part.first, num_frames)).tolist())
        self.needed = _with_compared(self.taken, gap, part)

    def copies(self, index: int, seconds: float) -> int:
        """How often a frame is taken: once or never, whatever its time."""
        return int(index in self.taken)


class RateSampler:
    """Takes frames of a span at a fixed rate, asked frame by frame in the order of time.

    Args:
        rate: frames a second.
        span: what lies outside is not taken.
        gap: see `gap_frames`.

    Attributes:
        needed: the frames that are needed beside the taken ones; `None`: any may be.
    """

    def __init__(self, rate: float, span: Span, gap: int) -> None:
        self._rate, self._span, self._gap, self._num_taken = rate, span, gap, 0
        self.needed: Collection[int] | None = None if gap else ()

    def look_ahead(self, part: Part, seconds: np.ndarray) -> None:
        """Find out what is needed, of a video whose frames have these times."""
        taken = [index for index in range(*part) if self.copies(index, float(seconds[index]))]
        self.needed, self._num_taken = _with_compared(taken, self._gap, part), 0

    def copies(self, index: int, seconds: float) -> int:
        """How often the next frame is taken: more than once if the video is slower than the rate."""
        begin, end = _edges(self._span)
        due = num_times_due(seconds - self._span[0], self._num_taken, self._rate) if begin <= seconds < end else 0
        self._num_taken += due
        return due


def _with_compared(indices: Collection[int], gap: int, part: Part) -> set[int]:
    """Frames of a part, and those that the streams compare with them."""
    if not gap:
        return set(indices)
    first, last = part.first, part.stop - 1 - part.first
    own = [index - first for index in indices]
    near = {i for index in own for i in (index, *compared_frames(index, gap, last), max(0, index - gap), gap)}
    return {first + min(i, last) for i in near}


# === Decoding ===


class SampledFrames:
    """An iterable of the sampled frames of a video, made by `iter_frames`; each loop decodes the video again.

    Attributes:
        timestamps_seconds: of the frames so far; some may be there before their frame.
        sampled: all that was found; there is none before the last frame was taken.
    """

    sampled: SampledVideo

    def __init__(
        self, path: Path, spec: ClipSpec, span: Span, num_threads: int, check: Check | None, images_per_second: float
    ) -> None:
        self._path, self._spec, self._span = path, spec, span
        self._num_threads, self._check, self._images_per_second = num_threads, check, images_per_second
        self.timestamps_seconds: list[float] = []
        self._passed = array("d")  # the times of all frames of this pass

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._num_threads == 1:
            yield from self._frames(None)
            return
        with ThreadPoolExecutor(self._num_threads or os.cpu_count(), "align") as executor:
            yield from self._frames(executor)

    def _frames(self, executor: Executor | None) -> Iterator[np.ndarray]:
        num_given, self._executor = 0, executor
        with self._open() as reader:
            skips = not isinstance(reader, ImageReader) and self._frames_skipped(reader.info) > _INDEX_PAYS
            frame_index = index_frames(reader.path) if skips else None
            try:
                coming = self._by_index(reader, frame_index) if frame_index else self._by_decoding(reader)
                for frame in coming:
                    num_given += 1
                    yield frame
                return
            except SeekError as error:
                _logger.info("%s: every frame is decoded instead", error)
        with self._open() as reader:  # at a fixed rate, some were given; evenly, none is before all is well
            yield from islice(self._by_decoding(reader), num_given, None)

    def _open(self) -> VideoReader:
        return open_video(
            self._path,
            num_threads=self._num_threads,
            check=self._check,
            images_per_second=self._images_per_second,
        )

    def _frames_skipped(self, info: VideoInfo) -> float:
        """How many frames can be skipped in a row, before the span or between samples, if the header is right."""
        part = _claimed_part(info, self._span)
        apart = (part.stop - part.first) / self._spec.num_frames
        if self._spec.frames_per_second is not None:
            apart = info.frames_per_second / self._spec.frames_per_second
        return max(apart, self._span[0] * info.frames_per_second)

    def _sampler(self, info: VideoInfo, part: Part) -> EvenSampler | RateSampler:
        gap, rate = gap_frames(self._spec, info.frames_per_second), self._spec.frames_per_second
        if rate is None:
            return EvenSampler(part, self._spec.num_frames, gap)
        return RateSampler(rate, self._span, gap)

    def _by_index(self, reader: VideoReader, frame_index: FrameIndex) -> Iterator[np.ndarray]:
        """Only what is needed is decoded; raises `SeekError` if that cannot be trusted."""
        seconds = frame_index.timestamps_seconds
        part = _found_part(reader, seconds, self._span)
        sampler = self._sampler(reader.info, part)
        if isinstance(sampler, RateSampler):
            sampler.look_ahead(part, seconds)
        # where an edit list hides packets, or a file was cut off, the first or last frame is not where it should be
        visited = sorted({*(sampler.needed or ()), 0, part.first, part.stop - 1})
        coming = self._decode(reader, reader.visit(visited, frame_index), sampler)
        held = list(coming) if isinstance(sampler, EvenSampler) else []
        yield from coming
        if len(self._passed) < len(visited):
            raise SeekError(f"frame {visited[len(self._passed)]} cannot be decoded", path=reader.path)
        yield from held
        self._note_sampled(reader, seconds)

    def _by_decoding(self, reader: VideoReader) -> Iterator[np.ndarray]:
        sampler = self._sampler(reader.info, _claimed_part(reader.info, self._span))
        coming = self._decode(reader, reader, sampler)
        # Even samples need the true count, which only decoding gives. The header's count does for one pass, which is
        # enough when it was right; otherwise the video is read again with the count just found.
        held = list(coming) if isinstance(sampler, EvenSampler) else []
        yield from coming
        passed = np.array(self._passed)  # the next pass may get past a frame that could not be decoded
        if isinstance(sampler, EvenSampler):
            truth = self._sampler(reader.info, _found_part(reader, passed, self._span))
            if truth != sampler:
                held.clear()
                with self._open() as again:
                    held = list(self._decode(again, again, truth))
        yield from held
        self._note_sampled(reader, passed)

    def _decode(
        self, reader: VideoReader, frames: Iterable[tuple[int, float]], sampler: EvenSampler | RateSampler
    ) -> Iterator[np.ndarray]:
        """One pass over frames of a reader, `(index, timestamp_seconds)`, to the first one after the span.

        The first one of the span must be among them; times begin with the video or at 0.
        """
        self.timestamps_seconds, self._passed = [], array("d")
        start, first, (begin, end) = 0.0, None, _edges(self._span)
        gap = gap_frames(self._spec, reader.info.frames_per_second)
        streams = StreamMaker(self._spec, gap, executor=self._executor)
        for index, timestamp in frames:
            start = timestamp if index == 0 else start
            seconds = timestamp - start
            if seconds >= end:
                self._passed.append(seconds)
                break
            if first is None and seconds >= begin:
                first = index
            copies = sampler.copies(index, seconds)
            if first is not None and (copies or sampler.needed is None or index in sampler.needed):
                try:
                    seen = shrink(reader.retrieve_bgr(), self._spec)
                except (VideoError, cv2.error) as error:
                    if index:  # what came before is good, and what comes after would take its place
                        break
                    raise VideoError("its first frame cannot be decoded", path=reader.path) from error
                self.timestamps_seconds += [seconds] * copies
                yield from streams.see(index - first, seen, copies)
            self._passed.append(seconds)
        yield from streams.finish()

    def _note_sampled(self, reader: VideoReader, seconds: np.ndarray) -> None:
        """Note what was found in a video whose frames have these times."""
        part, claimed = _found_part(reader, seconds, self._span), _claimed_part(reader.info, self._span)
        end = _end(seconds[: part.stop], reader.info)
        self.sampled = SampledVideo(
            timestamps_seconds=tuple(self.timestamps_seconds),
            num_frames=part.stop - part.first,
            num_frames_claimed=claimed.stop - claimed.first,
            duration_seconds=end - float(seconds[part.first]),
            edges_seconds=(*self._starts(seconds[slice(*part)]), end),
            problem=_problem(part, _end(seconds, reader.info), self._span, reader),
        )

    def _starts(self, seconds: np.ndarray) -> list[float]:
        """When each sampled frame begins to stand for the video or span, whose frames have these times."""
        num_sampled, rate = len(self.timestamps_seconds), self._spec.frames_per_second
        if rate:
            return np.round(self._span[0] + np.arange(num_sampled) / rate, 6).tolist()
        return seconds[np.arange(num_sampled) * len(seconds) // num_sampled].tolist()


def _edges(span: Span) -> Span:
    """The times between which frames count as inside."""
    return span[0] - TIMESTAMP_TOLERANCE_SECONDS, span[1] - TIMESTAMP_TOLERANCE_SECONDS


def _claimed_part(info: VideoInfo, span: Span) -> Part:
    """The frames of a span as the header has it."""
    edges = np.ceil(np.multiply(_edges(span), info.frames_per_second))
    first, stop = np.clip(edges, 0, info.num_frames_claimed).astype(int).tolist()
    return Part(first, stop)


def _found_part(reader: VideoReader, seconds: np.ndarray, span: Span) -> Part:
    """The frames of a span, of a video whose frames have these times; raises `VideoError` if there are none."""
    if not len(seconds):
        raise VideoError(why_unreadable(reader.path), path=reader.path)
    first, stop = np.searchsorted(seconds, _edges(span)).tolist()
    if first == len(seconds):
        ends = round(_end(seconds, reader.info), 2)
        raise VideoError(f"the segment starts at {span[0]} s, but the video ends at {ends} s", path=reader.path)
    if first == stop:
        raise VideoError(f"there is no frame from {span[0]} s to {span[1]} s", path=reader.path)
    return Part(first, stop)


def _end(seconds: np.ndarray, info: VideoInfo) -> float:
    """When the last frame ends: after a nominal one, or with the video, as its header has it, where that is earlier.

    Where frames last unequally long, the nominal rate is that of the mean.
    """
    last, claimed = float(seconds[-1]), info.duration_seconds_claimed
    end = last + (0.0 if info.is_image else 1 / info.frames_per_second)
    return claimed if last < claimed < end - TIMESTAMP_TOLERANCE_SECONDS else end


def _problem(part: Part, video_end: float, span: Span, reader: VideoReader) -> str | None:
    info = reader.info
    if info.is_image:
        return reader.note
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
    shown_seconds = max((track.edited_seconds for track in video_tracks(reader.path)), default=0.0) or claimed_seconds
    ends_early = video_end + reader.jumped_seconds < 0.9 * min(claimed_seconds, shown_seconds)
    if ends_early and part.stop < 0.9 * info.num_frames_claimed:
        return f"{reader.note}; " * bool(reader.note) + (
            f"ends after {part.stop} frames ({video_end:.2f} s) of a claimed {info.num_frames_claimed} "
            f"({claimed_seconds:.2f} s): cut off or damaged; the frames before that are used"
        )
    return reader.note
