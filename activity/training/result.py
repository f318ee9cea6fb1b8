"""What a training gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from activity.evaluation.calibration import Calibration
from activity.models.classifier import ActivityClassifier
from activity.models.info import stack_as_text
from activity.models.stack import stack_fractions
from activity.training.fitting import Stage, without_times
from activity.training.stacking import Estimate


@dataclass(frozen=True)
class TrainingRun:
    """What `train` gives.

    Attributes:
        classifier: trained, and calibrated where there are videos to calibrate it by.
        stages: in their order.
        calibration: how confident it may be; `None` without such videos.
        estimate: the accuracy to expect, from out-of-fold predictions; `None` where there are none.
    """

    classifier: ActivityClassifier
    stages: list[Stage]
    calibration: Calibration | None
    estimate: Estimate | None = None

    @property
    def model(self) -> ActivityClassifier:
        """The classifier, by the name that all runs have for what they trained."""
        return self.classifier

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of all stages, each with the name of its `stage`; without times, so the same again for a seed."""
        return [{"stage": stage.name, **row} for stage in self.stages for row in without_times(stage.rows)]

    @property
    def facts(self) -> dict[str, Any]:
        """How well it learned, as a `TrainingRecord` holds it."""
        return {
            "calibration": self.calibration.as_dict() if self.calibration else None,
            "estimate": dataclasses.asdict(self.estimate) if self.estimate else None,
            "stack": self.stack,
            "history": tuple(self.history),
        }

    @property
    def stack(self) -> dict[str, float]:
        """How much the head and the base models count, by name; the sum is 1. Empty without a stack."""
        return stack_fractions(self.classifier.head, self.classifier.spec.streams)

    def as_text(self) -> str:
        """A line a stage, and what the answers rest on, for a terminal."""
        lines = [stage.as_text() for stage in self.stages]
        if self.stack:
            lines.append(f"{'stack':16} {stack_as_text(self.stack)}")
        of_steps = self.classifier.info.labels_per == "step"
        calibrated = "stretches of one label in training films" if of_steps else "training videos"
        if of_steps:
            lines.append(f"{'steps':16} {self.classifier.info.on_steps()}")
        if self.estimate:
            lines.append(self.estimate.as_text("steps" if of_steps else "videos"))
        return "\n".join([*lines, *([self.calibration.as_text(calibrated)] if self.calibration else [])])
