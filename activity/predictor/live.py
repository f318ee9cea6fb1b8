"""Label a live source: one decision for each step of the window, with its time and a stable label.

    Capture --frames--> streams --backbone--> the last T features --head--> window --LiveLabels--> Decision

A model of steps that carries its state on needs no window: it decides with each frame.

Memory is that of a window or two, however long it lasts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import numpy as np

from activity.errors import printable
from activity.models.info import check_takes_videos, unknown_name
from activity.models.network import InferenceModel, StateReader
from activity.predictor.prediction import best_first
from activity.predictor.timeline import LiveLabels
from activity.video.capture import Capture, Frame, stream_maker, ticks

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Decision:
    """The label of a stream at a moment.

    Attributes:
        source: as it was given, without a password.
        labels: names of the C activities.
        label: the stable answer, one of them or "unknown".
        probabilities: `(C,)`, smoothed over the last windows or steps; sums to 1, but for several labels at once.
        time_seconds: of the newest frame, since the first of all.
        time: when that frame came, ISO 8601 in UTC.
        latency_seconds: from then to this decision.
        changed: whether the label differs from that of the decision before.
    """

    source: str
    labels: tuple[str, ...]
    label: str
    probabilities: np.ndarray
    time_seconds: float
    time: str
    latency_seconds: float
    changed: bool

    @property
    def probability(self) -> float:
        """Of the label; of an unknown one, that of the most probable label, which was not probable enough."""
        is_answered = self.label in self.labels
        return float(self.probabilities[self.labels.index(self.label)] if is_answered else self.probabilities.max())

    def as_dict(self, *, top_k: int = 5) -> dict[str, Any]:
        """`source`, `label`, `probability`, `top`, `time_seconds`, `time`, `latency_seconds`; ready for JSON."""
        best = best_first(self.labels, self.probabilities, top_k)
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in best],
            "time_seconds": self.time_seconds,
            "time": self.time,
            "latency_seconds": self.latency_seconds,
        }

    def as_text(self) -> str:
        """One line: when, label, probability."""
        return f"{self.time}  {self.time_seconds:9.2f} s  {printable(self.label)} {self.probability:.3f}"


def watch(
    model: InferenceModel, source: str, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Generator[Decision, None, None]:
    """Label a camera, a network stream, or a file that is still being written, as its frames come.

    Args:
        model: from `activity.runtimes.exported.load_inference_model`.
        source: the number of a camera, a URL, or a file, which may still grow.
        timeout_seconds: without a frame, after which a stream is lost (and opened again) and a file at its end.

    Raises:
        VideoError: there never was a frame.
        ActivityError: the model takes feature files.
    """
    check_takes_videos(model.info, "a live source")
    names, shown = (*model.labels, unknown_name(model.labels)), None
    _warm_up(model)
    with Capture(source, model.spec, model.window_rate, timeout_seconds) as capture:
        for window in _windows(model, capture.frames()):
            if window.starts:
                live_labels = LiveLabels(model.threshold, multi_label=model.info.multi_label)
            label_id, probabilities = live_labels.next(window.probabilities)
            label, late = names[label_id], time.monotonic() - window.arrived
            yield Decision(
                source=capture.name,
                labels=model.labels,
                label=label,
                probabilities=probabilities,
                time_seconds=round(window.seconds, 3),
                time=(datetime.now(timezone.utc) - timedelta(seconds=late)).isoformat(timespec="milliseconds"),
                latency_seconds=round(late, 3),
                changed=label != shown,
            )
            shown = label


def _warm_up(model: InferenceModel) -> None:
    """The first call compiles, which must not make a stream wait."""
    spec = model.spec
    images = np.zeros((1, len(spec.streams), spec.height, spec.width, 3), np.uint8)
    features = model.extract_stack_features(images)
    if model.info.state_size:
        StateReader(model).see(features)
    else:
        model.predict_windows([(features, 0)])


class _WindowPrediction(NamedTuple):
    """A window or step: `seconds` and `arrived` of its newest frame, whether it begins a stretch, and `(C,)`."""

    seconds: float
    arrived: float
    starts: bool
    probabilities: np.ndarray


def _windows(model: InferenceModel, frames: Iterable[Frame]) -> Iterator[_WindowPrediction]:
    stretch = None
    for frame in frames:
        if frame.starts or stretch is None:
            if stretch:
                yield from stretch.finish()  # what the last connection gave, if it gave no whole window
            stretch = _Stretch(model, frame.seconds)
        yield from stretch.see(frame)
    if stretch:
        yield from stretch.finish()


class _Stretch:
    """The windows of a stretch of a stream without a gap, as its frames come."""

    def __init__(self, model: InferenceModel, start_seconds: float) -> None:
        self._model, self._start = model, start_seconds
        self._times: deque[tuple[float, float]] = deque()  # seconds and arrived of what the maker holds
        self._features: deque[np.ndarray] = deque(maxlen=model.spec.num_frames)  # (S, D) each
        self._states = StateReader(model) if model.info.state_size else None  # then no windows are needed
        self._num_new = 0  # features since the last window
        self._num_predicted = 0
        self._maker = stream_maker(model.spec)

    def see(self, frame: Frame) -> Iterator[_WindowPrediction]:
        """The windows that are complete with this frame."""
        self._times.extend([(frame.seconds, frame.arrived)] * frame.copies)
        yield from self._windows(self._maker.see(ticks(frame.seconds - self._start), frame.seen, frame.copies))

    def finish(self) -> Iterator[_WindowPrediction]:
        """The last windows; the very last ends with the stretch, and may be shorter if it is the only one."""
        yield from self._windows(self._maker.finish())
        if self._num_new:
            yield self._predict()

    def _windows(self, images: Iterable[np.ndarray]) -> Iterator[_WindowPrediction]:
        for image in images:  # (S, H, W, 3)
            features = self._model.extract_stack_features(image[None])  # (1, S, D)
            if self._states:
                yield self._window(self._times.popleft(), self._states.see(features)[0])
                continue
            self._features.append(features[0])
            self._newest = self._times.popleft()
            self._num_new += 1
            if len(self._features) == self._features.maxlen and self._num_new >= self._model.stride:
                yield self._predict()

    def _predict(self) -> _WindowPrediction:
        windows = [(np.stack(self._features), 0)]
        self._num_new = 0
        if self._model.info.labels_per == "step":  # what comes after is not in view: the newest steps are
            steps = self._model.predict_window_steps(windows)[0]  # (n, C)
            return self._window(self._newest, steps[-self._model.stride :].mean(axis=0))
        return self._window(self._newest, self._model.predict_windows(windows)[0])

    def _window(self, newest: tuple[float, float], probabilities: np.ndarray) -> _WindowPrediction:
        self._num_predicted += 1
        return _WindowPrediction(*newest, self._num_predicted == 1, probabilities)
