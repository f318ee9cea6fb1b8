"""Windows that slide over the features of a video, and the frames of one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.models.network import InferenceModel, StateReader, join_steps
from activity.predictor.prediction import Prediction, WindowFrames
from activity.predictor.timeline import Window
from activity.video.clips import window_starts
from activity.video.download import local_path
from activity.video.prefetch import Prefetch
from activity.video.sampling import iter_frames

_Result = TypeVar("_Result")


class WindowReader(Generic[_Result]):
    """What a model tells of the windows of a stack of features while it grows; what no window needs is dropped.

    Args:
        read: gives a result for each of some windows, each a feature stack `(N, S, D)` and its first frame; such as
            `InferenceModel.predict_windows`.
        num_frames: in a window.
        stride: see `window_starts`.
    """

    def __init__(
        self, read: Callable[[Sequence[tuple[np.ndarray, int]]], Iterable[_Result]], num_frames: int, stride: int
    ) -> None:
        self._read, self._length, self._stride = read, num_frames, stride
        self._features: np.ndarray | None = None  # (n, S, D), the last of those seen
        self._num_seen = 0
        self._results: dict[int, _Result] = {}  # by the first frame of the window
        self._next = 0  # first frame of the next window

    def see(self, features: np.ndarray) -> None:
        """The next features `(n, S, D)`."""
        kept = features if self._features is None else np.concatenate([self._features, features])
        self._num_seen += len(features)
        self._read_windows(kept, range(self._next, self._num_seen - self._length + 1, self._stride))
        self._features = kept[-self._length :]

    def finish(self, edges_seconds: tuple[float, ...]) -> list[tuple[float, float, _Result, int]]:
        """Start and end in seconds, result and first frame of all windows, given the times of N frames and the end."""
        assert self._features is not None
        starts = window_starts(self._num_seen, self._length, self._stride)
        if starts[-1] not in self._results:  # it ends with the video, off the stride, or is all there is
            self._read_windows(self._features, starts[-1:])
        ends = [min(start + self._length, self._num_seen) for start in starts]
        return [
            (edges_seconds[start], edges_seconds[end], self._results[start], start)
            for start, end in zip(starts, ends, strict=True)
        ]

    def _read_windows(self, features: np.ndarray, starts: Sequence[int]) -> None:
        first = self._num_seen - len(features)
        if starts:
            results = self._read([(features, start - first) for start in starts])
            self._results.update(zip(starts, results, strict=True))
            self._next = starts[-1] + self._stride


class StepReader:
    """The probabilities of the steps of a film, by a model of steps, while its features come.

    The model goes on from its state where it can; else it reads windows, half of each in the next, which are joined.

    Attributes:
        steps: `(N, C)`, after `finish`.
    """

    steps: np.ndarray

    def __init__(self, model: InferenceModel) -> None:
        self._length, self._multi_label = model.spec.num_frames, model.info.multi_label
        self._parts: list[np.ndarray] = []
        self._states = StateReader(model) if model.info.state_size else None
        self._windows = WindowReader(model.predict_window_steps, self._length, max(1, self._length // 2))

    def see(self, features: np.ndarray) -> None:
        """The next features `(n, S, D)`."""
        if self._states:
            self._parts.append(self._states.see(features))
        else:
            self._windows.see(features)

    def finish(self, edges_seconds: tuple[float, ...]) -> list[tuple[float, float, np.ndarray, int]]:
        """Start and end in seconds, mean probabilities and first step of the windows, given the times of N steps."""
        num_steps = len(edges_seconds) - 1
        if self._states:
            self.steps = np.concatenate(self._parts)
        else:
            windows = [(first, steps) for *_, steps, first in self._windows.finish(edges_seconds)]
            self.steps = join_steps(windows, num_steps, multi_label=self._multi_label)
        starts = window_starts(num_steps, self._length)
        ends = [min(start + self._length, num_steps) for start in starts]
        return [
            (edges_seconds[a], edges_seconds[b], self.steps[a:b].mean(axis=0), a)
            for a, b in zip(starts, ends, strict=True)
        ]


def read_window(spec: ClipSpec, prediction: Prediction, window: Window) -> WindowFrames:
    """Frames of a window; unless the prediction kept them, the video is decoded again, up to the end of the window.

    Args:
        spec: of the model that made the prediction.
        prediction: of a video that is still there.
        window: one of `prediction.windows`.

    Raises:
        VideoError: the video cannot be read any more.
    """
    if prediction.frames:
        return prediction.frames
    spec = dataclasses.replace(spec, frames_per_second=prediction.frames_per_second)
    frames = iter_frames(local_path(prediction.source), spec, num_threads=0)
    first, end = window.first_frame, window.first_frame + spec.num_frames
    with Prefetch(islice(frames, first, end), num_ahead=spec.num_frames) as coming:  # Ctrl-C ends it, come what may
        images = list(coming)
    if not images:
        raise VideoError("has changed since it was classified", path=prediction.source)
    return WindowFrames(np.stack(images), np.array(frames.timestamps_seconds[first:end]))
