"""Windows that slide over the features of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Event

import numpy as np

from activity.errors import VideoError
from activity.models.network import InferenceModel
from activity.predictor.sources import FrameStream
from activity.predictor.timeline import Window
from activity.video.clips import window_starts
from activity.video.prefetch import decoders
from activity.video.sampling import SampledVideo


def edges_of(sampled: SampledVideo) -> tuple[float, ...]:
    """When each of N frames was, and at last the end of the video, in seconds."""
    return (*sampled.timestamps_seconds, sampled.duration_seconds)


class WindowPredictor:
    """Judges the windows of a stack of features while it grows, and forgets what no window needs any more.

    Args:
        model: predicts.
        stride: see `window_starts`.
    """

    def __init__(self, model: InferenceModel, stride: int) -> None:
        self._model, self._length, self._stride = model, model.spec.num_frames, stride
        self._features: np.ndarray | None = None  # (n, S, D), the last of those seen
        self._num_seen = 0
        self._predicted: dict[int, np.ndarray] = {}  # by the first frame of the window: (C,)
        self._next = 0  # first frame of the next window

    def see(self, features: np.ndarray) -> None:
        """The next features `(n, S, D)`."""
        kept = features if self._features is None else np.concatenate([self._features, features])
        self._num_seen += len(features)
        self._predict(kept, range(self._next, self._num_seen - self._length + 1, self._stride))
        self._features = kept[-self._length :]

    def finish(self, edges_seconds: tuple[float, ...]) -> tuple[Window, ...]:
        """All windows, given the times of the N frames and of the end."""
        assert self._features is not None
        starts = window_starts(self._num_seen, self._length, self._stride)
        if starts[-1] not in self._predicted:  # it ends with the video, off the stride, or is all there is
            self._predict(self._features, starts[-1:])
        ends = [min(start + self._length, self._num_seen) for start in starts]
        return tuple(
            Window(edges_seconds[start], edges_seconds[end], self._predicted[start], start)
            for start, end in zip(starts, ends, strict=True)
        )

    def _predict(self, features: np.ndarray, starts: Sequence[int]) -> None:
        first = self._num_seen - len(features)
        if starts:
            predicted = self._model.predict_windows([(features, start - first) for start in starts])  # (len(starts), C)
            self._predicted.update(zip(starts, predicted, strict=True))
            self._next = starts[-1] + self._stride


def read_window(model: InferenceModel, source: str, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The frames of one of `Prediction.windows`, and their times. The video is decoded again, in the same way.

    Returns:
        `(n, S, H, W, 3)` uint8 and `(n,)` float64, seconds from the first frame of the video; n is `spec.num_frames`,
        or less for a short video.

    Raises:
        VideoError: the video cannot be read any more.
    """
    stop = Event()
    stream = FrameStream(source, model, False, 0, stop)
    first, end = window.first_frame, window.first_frame + model.spec.num_frames
    kept: dict[str, list[np.ndarray]] = {}
    num_seen = Counter[str]()
    with decoders(1, stop) as decode:
        decode(stream)
        for how, chunk in stream.items():
            start, num_seen[how] = num_seen[how], num_seen[how] + len(chunk)
            kept.setdefault(how, []).append(chunk[max(0, first - start) : max(0, end - start)].copy())
    if failure := stream.failure():
        raise VideoError(f"{failure.error}", path=source)
    ((how, sampled),) = stream.sampled.items()
    if num_seen[how] <= first:
        raise VideoError("has changed since it was classified", path=source)
    return np.concatenate(kept[how]), np.asarray(sampled.timestamps_seconds[first:end])
