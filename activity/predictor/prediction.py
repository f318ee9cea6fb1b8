"""The prediction for a video: probabilities, label, windows, and a timeline if it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activity.errors import printable
from activity.models.info import unknown_name
from activity.predictor.timeline import Timeline, Window


def best_first(labels: Sequence[str], probabilities: np.ndarray, k: int) -> list[tuple[str, float]]:
    """The `k` most probable labels with their probabilities."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(labels[i], float(probabilities[i])) for i in order]


@dataclass(frozen=True)
class WindowFrames:
    """Frames of a window of a video, as a model takes them; n is `spec.num_frames`, or less for a short video."""

    images: np.ndarray  # (n, S, H, W, 3) uint8 RGB
    timestamps_seconds: np.ndarray  # (n,), from the first frame of the video


@dataclass(frozen=True)
class Prediction:
    """The prediction for a video.

    Attributes:
        source: as it was given.
        labels: names of the C activities.
        probabilities: `(C,)`, the mean over the windows; sums to 1. Of a model of several labels at once, the fraction
            of the steps in which each holds; see `activity.predictor.timeline.held_labels`.
        duration_seconds: of the video.
        windows: in order of time, with the probabilities of each.
        threshold: probability below which the answer is "unknown"; of several labels at once, that of a single step.
        timeline: what happens when, if it was asked for.
        frames_per_second: at which the frames of the windows were sampled; `None`: spread evenly over the video.
        frames: those of the only window, if they were asked for. `activity.predictor.windows.read_window` gives the
            frames of any window.
    """

    source: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    duration_seconds: float
    windows: tuple[Window, ...]
    threshold: float = 0.0
    timeline: Timeline | None = None
    frames_per_second: float | None = None
    frames: WindowFrames | None = None

    @property
    def label(self) -> str:
        """The most probable activity, or "unknown" if not even that is likely enough.

        Of several labels at once it is the one that holds longest, "unknown" if none ever does.
        Of a model with a class `unknown`, that answer is "no answer".
        """
        best = self.labels[int(self.probabilities.argmax())]
        return best if self.is_answered else unknown_name(self.labels)

    @property
    def is_answered(self) -> bool:
        """Whether the label is one of `labels`."""
        return self.probability >= self.threshold

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
        answer = [] if self.is_answered else [self.label]
        scores = (f"{name} {fraction:.3f}" for name, fraction in self.top(top_k))
        line = printable("  ".join([self.source, *answer, *scores]))
        segments = self.timeline.segments if self.timeline else ()
        return "\n".join([line, *(segment.as_text() for segment in segments)])


@dataclass(frozen=True)
class Failure:
    """A source that gave no prediction, and why."""

    source: str
    error: str

    def as_dict(self, *, top_k: int = 0) -> dict[str, Any]:
        """`source`, `error`; ready for JSON. There is nothing for `top_k` to list."""
        return {"source": self.source, "error": self.error}

    def as_text(self, *, top_k: int = 0) -> str:
        """One line: the source, and why there is no prediction."""
        return printable(f"{self.source}: {self.error}")
