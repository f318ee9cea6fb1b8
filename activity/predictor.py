"""Label videos with a model: the one way for Python, the command line and whatever comes above.

Files are decoded ahead in threads while the network runs. Frames pass through the backbone once, in chunks, so that
memory does not grow with the length of a video; windows then slide over the features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Full, Queue
from threading import Event
from typing import Any

import numpy as np

from activity.clips import SampledVideo, read_stack, sample_video, window_starts
from activity.config import ClipSpec
from activity.errors import VideoError
from activity.network import LONG_CLIPS, UNKNOWN, Network
from activity.runtimes import load_network
from activity.video import printable, probe

_logger = logging.getLogger(__name__)

_MIN_FRAMES_PER_CHUNK = 32
_MOST_THREADS = 16
_CHUNKS_AHEAD = 4  # per video; bounds memory: 4 x 34 frames of 224x224 are 20 MB a stream


@dataclass(frozen=True)
class Window:
    """Probabilities `(C,)` of `[start_seconds, end_seconds)` of a video."""

    start_seconds: float
    end_seconds: float
    probabilities: np.ndarray


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
    """

    source: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    duration_seconds: float
    windows: tuple[Window, ...]
    threshold: float = 0.0

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
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.labels[i], float(self.probabilities[i])) for i in order]

    def as_dict(self, *, top_k: int = 5) -> dict[str, Any]:
        """`source`, `label`, `probability`, `top`, `duration_seconds`; ready for JSON."""
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top(top_k)],
            "duration_seconds": self.duration_seconds,
        }

    def as_text(self, *, top_k: int = 5) -> str:
        """One line: the source and its most probable activities."""
        answer = [UNKNOWN] if self.label == UNKNOWN else []
        return "  ".join([self.source, *answer, *(f"{name} {share:.3f}" for name, share in self.top(top_k))])


@dataclass(frozen=True)
class Failure:
    """A source that gave no prediction, and why."""

    source: str
    error: str

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

    def predict(self, source: Path | str) -> Prediction:
        """Label one video file; raises `VideoError` if not one frame of it can be decoded."""
        (result,) = self.predict_many([source])
        if isinstance(result, Failure):
            raise VideoError(f"{source}: {result.error}")
        return result

    def predict_many(self, sources: Iterable[Path | str]) -> Iterator[Prediction | Failure]:
        """Label video files, in their order; one that fails does not stop the others.

        A few are decoded ahead of the network, no more: memory does not grow with the number of videos.
        """
        names = [str(source) for source in sources]
        # Many videos keep the processors busy one each; a single one needs them all.
        threads_each = 1 if len(names) >= self.num_threads > 1 else 0
        stop = Event()
        coming = (_Stream(name, self.network.spec, self.network.clip_seconds, threads_each, stop) for name in names)
        ahead: deque[_Stream] = deque()
        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode") as pool:

            def decode_next(num_videos: int) -> None:
                for stream in islice(coming, num_videos):
                    pool.submit(stream.decode)
                    ahead.append(stream)

            try:
                decode_next(2 * self.num_threads)
                while ahead:
                    yield self._finish(ahead.popleft())
                    decode_next(1)
            finally:
                stop.set()  # the consumer may stop early: let the decoders end too

    def _finish(self, stream: _Stream) -> Prediction | Failure:
        features = [self.network.extract(chunk) for chunk in stream.chunks()]
        if isinstance(stream.error, VideoError | OSError | MemoryError):
            return Failure(stream.source, _reason(stream.error, stream.source))
        sampled = stream.sampled
        if sampled is None:
            raise RuntimeError(f"decoding {stream.source} failed") from stream.error
        if sampled.problem:
            _logger.warning("%s: %s", stream.source, sampled.problem)
        stack = np.concatenate(features)  # (N, S, D)
        num_frames = self.network.spec.num_frames
        starts = window_starts(len(stack), num_frames)
        judged = self.network.judge_windows([(stack, start) for start in starts])  # (num_windows, C)
        times = [*sampled.timestamps_seconds, sampled.duration_seconds]
        windows = tuple(
            Window(times[start], times[min(start + num_frames, len(stack))], probabilities)
            for start, probabilities in zip(starts, judged, strict=True)
        )
        return Prediction(
            stream.source,
            self.network.labels,
            judged.mean(axis=0),
            sampled.duration_seconds,
            windows,
            self.network.threshold,
        )


def _reason(error: Exception, source: str) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{printable(source)}: ") or type(error).__name__


class _Stream:
    """Chunks of sampled frames of one video, made in a decoding thread, taken by the thread of the network."""

    def __init__(self, source: str, spec: ClipSpec, clip_seconds: float, num_threads: int, stop: Event) -> None:
        self.source = source
        self.sampled: SampledVideo | None = None
        self.error: Exception | None = None
        self._spec, self._clip_seconds, self._stop = spec, clip_seconds, stop
        self._num_threads = num_threads
        self._pending: list[np.ndarray] = []
        # Larger than a video that is not long, so that one which proves short can still be sampled anew.
        self._chunk = max(_MIN_FRAMES_PER_CHUNK, int(LONG_CLIPS * spec.num_frames) + 2)
        self._queue: Queue[np.ndarray | None] = Queue(_CHUNKS_AHEAD)

    def chunks(self) -> Iterator[np.ndarray]:
        """Stacks `(n, H, W, 3)` uint8 in order of time, as they are ready; afterwards `sampled` or `error` is set."""
        while (chunk := self._queue.get()) is not None:
            yield chunk

    def decode(self) -> None:
        """Fill the queue; run in a thread."""
        try:
            self.sampled = self._sample()
            if self._pending:
                self._put(np.stack(self._pending))
        except Exception as error:  # handed to the other thread, which tells a bad video from a bug
            self.error = error
        finally:
            self._put(None)

    def _sample(self) -> SampledVideo:
        """Evenly, unless the video is much longer than the clips of training: then at their rate."""
        spec, path = self._spec, Path(self.source)
        if spec.frames_per_second is not None:
            return sample_video(path, spec, self._take, num_threads=self._num_threads)
        long_seconds = LONG_CLIPS * self._clip_seconds
        if probe(path).duration_seconds_claimed <= long_seconds:
            stack, sampled = read_stack(path, spec, num_threads=self._num_threads)
            if sampled.duration_seconds <= long_seconds:
                self._pending = list(stack)
                return sampled
        rate = min(spec.num_frames / self._clip_seconds, 1000.0)  # clips of training may have been single frames
        at_rate = dataclasses.replace(spec, frames_per_second=rate)
        sampled = sample_video(path, at_rate, self._take, num_threads=self._num_threads)
        if sampled.duration_seconds > long_seconds:
            return sampled
        stack, sampled = read_stack(path, spec, num_threads=self._num_threads)  # the header claimed more than there is
        self._pending = list(stack)
        return sampled

    def _take(self, frame: np.ndarray) -> None:
        self._pending.append(frame)
        if len(self._pending) == self._chunk:
            self._put(np.stack(self._pending))
            self._pending = []

    def _put(self, chunk: np.ndarray | None) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(Full):
                self._queue.put(chunk, timeout=0.1)
                return
        raise VideoError(f"{self.source}: stopped")
