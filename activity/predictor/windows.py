"""Windows that slide over the features of a video, and the frames of one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice

import numpy as np

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.models.network import InferenceModel
from activity.predictor.prediction import Prediction, WindowFrames
from activity.predictor.timeline import Window
from activity.video.clips import window_starts
from activity.video.download import local_path
from activity.video.prefetch import Prefetch
from activity.video.sampling import iter_frames


class WindowPredictor:
    """Predictions of the windows of a stack of features while it grows; what no window needs any more is dropped.

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
