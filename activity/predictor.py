"""Label videos with a model: the one way for Python, the command line and whatever comes above.

Files are decoded ahead in threads while the network runs. Frames pass through the backbone once, in chunks, so that
memory does not grow with the length of a video; windows then slide over the features.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from activity.clips import SampledVideo, sample_video, window_starts
from activity.config import ClipSpec
from activity.decoding import Decoding, TooLongError, decoders
from activity.errors import VideoError
from activity.network import LONG_CLIPS, UNKNOWN, Network
from activity.runtimes import load_network
from activity.timeline import Timeline, Window, make_timeline
from activity.video import printable, probe

_logger = logging.getLogger(__name__)

_FRAMES_PER_CHUNK = 32  # of which a few wait for each video: 4 x 32 frames of 224x224 are 20 MB a stream
_MOST_THREADS = 16


def best_first(labels: Sequence[str], probabilities: np.ndarray, k: int) -> list[tuple[str, float]]:
    """The `k` most probable labels with their probabilities."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(labels[i], float(probabilities[i])) for i in order]


@dataclass(frozen=True)
class Prediction:
    """What a video shows.

    Attributes:
        source: as it was given.
        labels: names of the C activities.
        probabilities: `(C,)`, the mean over the windows; sums to 1.
        duration_seconds: of the video.
        windows: what the probabilities are the mean of, in order of time.
        threshold: probability below which the answer is "unknown".
        timeline: what happens when, if it was asked for.
    """

    source: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    duration_seconds: float
    windows: tuple[Window, ...]
    threshold: float = 0.0
    timeline: Timeline | None = None

    @property
    def label(self) -> str:
        """The most probable activity, or "unknown" if not even that is likely enough."""
        return self.labels[int(self.probabilities.argmax())] if self.probability >= self.threshold else UNKNOWN

    @property
    def probability(self) -> float:
        """Of the most probable activity, 0 to 1."""
        return float(self.probabilities.max())

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` most probable activities with their probabilities, best first."""
        return best_first(self.labels, self.probabilities, k)

    def as_dict(self, *, top_k: int = 5) -> dict[str, Any]:
        """`source`, `label`, `probability`, `top`, `duration_seconds`, with a timeline `segments`; ready for JSON."""
        segments = {"segments": [segment.as_dict() for segment in self.timeline.segments]} if self.timeline else {}
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top(top_k)],
            "duration_seconds": self.duration_seconds,
            **segments,
        }

    def as_text(self, *, top_k: int = 5) -> str:
        """One line: the source and its most probable activities; with a timeline one more for each segment."""
        answer = [UNKNOWN] if self.label == UNKNOWN else []
        line = "  ".join([self.source, *answer, *(f"{name} {share:.3f}" for name, share in self.top(top_k))])
        segments = self.timeline.segments if self.timeline else ()
        return "\n".join([line, *(segment.as_text() for segment in segments)])


@dataclass(frozen=True)
class Failure:
    """A source that gave no prediction, and why; `too_long` if it only lasts longer than was asked for."""

    source: str
    error: str
    too_long: bool = False

    def as_dict(self, *, top_k: int = 0) -> dict[str, Any]:
        """`source`, `error`; ready for JSON. There is nothing for `top_k` to list."""
        return {"source": self.source, "error": self.error}


class Predictor:
    """A model, loaded once, that labels any number of videos.

        predictor = Predictor.load("model.keras")
        print(predictor.predict("clip.mp4").label)

    Args:
        network: from `activity.runtimes.load_network`, `activity.classifier.load_classifier` or a training run.
        num_threads: videos decoded at a time, by default one per processor.
    """

    def __init__(self, network: Network, *, num_threads: int | None = None) -> None:
        self.network = network
        self.num_threads = num_threads or min(os.cpu_count() or 1, _MOST_THREADS)

    @classmethod
    def load(cls, model_path: Path | str, *, runtime: str = "auto", num_threads: int | None = None) -> Predictor:
        """Read a model file for one of `activity.config.RUNTIMES`.

        Raises:
            ModelFileError: it is missing, damaged or not ours.
            ActivityError: the runtime that was asked for by name cannot be had.
        """
        return cls(load_network(Path(model_path), runtime=runtime), num_threads=num_threads)

    def predict(self, source: Path | str, *, timeline: bool = False) -> Prediction:
        """Label one video file; raises `VideoError` if not one frame of it can be decoded."""
        (result,) = self.predict_many([source], timeline=timeline)
        if isinstance(result, Failure):
            raise VideoError(f"{source}: {result.error}")
        return result

    def predict_many(
        self,
        sources: Iterable[Path | str],
        *,
        timeline: bool = False,
        max_seconds: float = math.inf,
        timeout_seconds: float = math.inf,
    ) -> Iterator[Prediction | Failure]:
        """Label video files, in their order; one that fails does not stop the others.

        A few are decoded ahead of the network, no more: memory does not grow with the number of videos.

        Args:
            sources: files.
            timeline: also say what happens when. A short video is then decoded twice.
            max_seconds: a video with a frame after that fails, whatever its header says.
            timeout_seconds: so long, all together, the frames of a video are waited for before it fails.
        """
        names = [str(source) for source in sources]
        # Many videos keep the processors busy one each; a single one needs them all.
        threads_each = 1 if len(names) >= self.num_threads > 1 else 0
        stop = Event()
        limits = (stop, max_seconds, timeout_seconds)
        coming = (_Stream(name, self.network, timeline, threads_each, *limits) for name in names)
        ahead: deque[_Stream] = deque()
        with decoders(min(self.num_threads, len(names)), stop) as decode:

            def decode_next(num_videos: int) -> None:
                for stream in islice(coming, num_videos):
                    decode(stream)
                    ahead.append(stream)

            decode_next(2 * self.num_threads)
            while ahead:
                yield self._finish(ahead.popleft(), timeline)
                decode_next(1)

    def _finish(self, stream: _Stream, timeline: bool) -> Prediction | Failure:
        judges: dict[str, list[_Judge]] = {}
        half = max(1, self.network.spec.num_frames // 2)  # as where features come from a data set
        strides = [half, self.network.stride] if timeline else [half]
        for how, chunk in stream.items():
            features = self.network.extract(chunk)  # (n, S, D)
            for judge in judges.setdefault(how, [_Judge(self.network, stride) for stride in strides]):
                judge.see(features)
        if failure := stream.failure():
            return failure
        sampled = next(iter(stream.sampled.values()))
        if sampled.problem:
            _logger.warning("%s: %s", stream.source, sampled.problem)
        whole = _EVENLY if _EVENLY in stream.sampled else _AT_RATE
        moving = _AT_RATE if _AT_RATE in stream.sampled else _EVENLY
        windows = judges[whole][0].finish(edges_of(stream.sampled[whole]))
        prediction = Prediction(
            stream.source,
            self.network.labels,
            np.mean([window.probabilities for window in windows], axis=0),
            sampled.duration_seconds,
            windows,
            self.network.threshold,
        )
        if not timeline:
            return prediction
        edges = edges_of(stream.sampled[moving])
        steps = judges[moving][1].finish(edges)
        found = make_timeline(steps, edges, self.network.labels, threshold=self.network.threshold)
        return dataclasses.replace(prediction, timeline=found)


_EVENLY, _AT_RATE = "evenly", "at a rate"  # how frames of a video were taken


def edges_of(sampled: SampledVideo) -> tuple[float, ...]:
    """When each of N frames was, and at last the end of the video, in seconds."""
    return (*sampled.timestamps_seconds, sampled.duration_seconds)


class _Judge:
    """Judges the windows of a stack of features while it grows, and forgets what no window needs any more.

    Args:
        network: judges.
        stride: see `window_starts`.
    """

    def __init__(self, network: Network, stride: int) -> None:
        self._network, self._length, self._stride = network, network.spec.num_frames, stride
        self._features: np.ndarray | None = None  # (n, S, D), the last of those seen
        self._num_seen = 0
        self._judged: dict[int, np.ndarray] = {}  # by the first frame of the window: (C,)
        self._next = 0  # first frame of the next window

    def see(self, features: np.ndarray) -> None:
        """The next features `(n, S, D)`."""
        kept = features if self._features is None else np.concatenate([self._features, features])
        self._num_seen += len(features)
        self._judge(kept, range(self._next, self._num_seen - self._length + 1, self._stride))
        self._features = kept[-self._length :]

    def finish(self, edges_seconds: tuple[float, ...]) -> tuple[Window, ...]:
        """All windows, given the times of the N frames and of the end."""
        assert self._features is not None
        starts = window_starts(self._num_seen, self._length, self._stride)
        if starts[-1] not in self._judged:  # it ends with the video, off the stride, or is all there is
            self._judge(self._features, starts[-1:])
        ends = [min(start + self._length, self._num_seen) for start in starts]
        return tuple(
            Window(edges_seconds[start], edges_seconds[end], self._judged[start], start)
            for start, end in zip(starts, ends, strict=True)
        )

    def _judge(self, features: np.ndarray, starts: Sequence[int]) -> None:
        first = self._num_seen - len(features)
        if starts:
            judged = self._network.judge_windows([(features, start - first) for start in starts])  # (len(starts), C)
            self._judged.update(zip(starts, judged, strict=True))
            self._next = starts[-1] + self._stride


def read_window(network: Network, source: str, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The frames of one of `Prediction.windows`, and their times. The video is decoded again, in the same way.

    Returns:
        `(n, S, H, W, 3)` uint8 and `(n,)` float64, seconds from the first frame of the video; n is `spec.num_frames`,
        or less for a short video.

    Raises:
        VideoError: the video cannot be read any more.
    """
    stop = Event()
    stream = _Stream(source, network, False, 0, stop)
    first, end = window.first_frame, window.first_frame + network.spec.num_frames
    kept: dict[str, list[np.ndarray]] = {}
    num_seen = Counter[str]()
    with decoders(1, stop) as decode:
        decode(stream)
        for how, chunk in stream.items():
            start, num_seen[how] = num_seen[how], num_seen[how] + len(chunk)
            kept.setdefault(how, []).append(chunk[max(0, first - start) : max(0, end - start)].copy())
    if failure := stream.failure():
        raise VideoError(f"{source}: {failure.error}")
    ((how, sampled),) = stream.sampled.items()
    if num_seen[how] <= first:
        raise VideoError(f"{source}: has changed since it was classified")
    return np.concatenate(kept[how]), np.asarray(sampled.timestamps_seconds[first:end])


def distinct_names(sources: Iterable[Path | str]) -> list[str]:
    """A name for the output of each source: that of the file without its suffix, and with a number where it is taken.

    Names that differ only in case count as equal, as on some file systems.
    """
    stems = [Path(source).stem or "video" for source in sources]
    taken = {stem.casefold() for stem in stems}
    names: list[str] = []
    used: set[str] = set()
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in used or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{stem}-{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def _reason(error: Exception, source: str) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{printable(source)}: ") or type(error).__name__


class _Stream(Decoding[tuple[str, np.ndarray]]):
    """Chunks of sampled frames of one video: how they were taken, and stacks `(n, S, H, W, 3)` uint8 in order of time.

    Attributes:
        sampled: what was read, by how it was; complete after the last chunk.
    """

    def __init__(self, source: str, network: Network, timeline: bool, num_threads: int, *limits: Any) -> None:
        super().__init__(*limits)
        self.source = source
        self.sampled: dict[str, SampledVideo] = {}
        self._network, self._timeline, self._num_threads = network, timeline, num_threads

    def failure(self) -> Failure | None:
        """Why nothing could be read, if so; asked after the last chunk."""
        if isinstance(self.error, VideoError | OSError | MemoryError):
            return Failure(self.source, _reason(self.error, self.source), isinstance(self.error, TooLongError))
        if self.error:
            raise RuntimeError(f"decoding {self.source} failed") from self.error
        return None

    def read(self) -> None:
        """Evenly, unless the video is much longer than the clips of training: then at the rate of their windows."""
        spec, network, path = self._network.spec, self._network, Path(self.source)
        if spec.frames_per_second is not None:
            self._read(_AT_RATE, spec)
            return
        at_rate = dataclasses.replace(spec, frames_per_second=network.window_rate)
        long_seconds = LONG_CLIPS * network.clip_seconds
        if probe(path).duration_seconds_claimed <= long_seconds:
            seconds = self._read(_EVENLY, spec)
            if seconds > long_seconds:
                del self.sampled[_EVENLY]
                self._read(_AT_RATE, at_rate)
            elif self._timeline and seconds > network.window_seconds:
                self._read(_AT_RATE, at_rate)
        elif self._read(_AT_RATE, at_rate) <= long_seconds:  # the header claimed more than there is
            if not self._timeline:
                del self.sampled[_AT_RATE]
            self._read(_EVENLY, spec)

    def _read(self, how: str, spec: ClipSpec) -> float:
        """Decode the video once; returns its duration in seconds."""
        pending: list[np.ndarray] = []

        def hand_over() -> None:
            self.put((how, np.stack(pending)))
            pending.clear()

        def take(frame: np.ndarray) -> None:
            pending.append(frame)
            if len(pending) == _FRAMES_PER_CHUNK:
                hand_over()

        options: dict[str, Any] = {"num_threads": self._num_threads, "check": self.check}
        self.sampled[how] = sample_video(Path(self.source), spec, take, **options)
        if pending:
            hand_over()
        return self.sampled[how].duration_seconds
