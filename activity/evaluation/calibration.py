"""How sure a model may be: a temperature for its probabilities, and a threshold below which it does not answer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activity.evaluation.metrics import Scores, expected_calibration_error
from activity.models.classifier import ActivityClassifier
from activity.models.info import unknown_name

_TEMPERATURES = (0.2, 20.0)

# Of the logarithm of a temperature, before any video was seen. A few videos that happen to be all right would by
# themselves ask for a temperature of 0: sure of everything.
_PRIOR_DEVIATION = 0.5
FEWEST_VIDEOS = 10


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found, on videos whose number is small: read it as a hint.

    Attributes:
        temperature: what log-probabilities are divided by; above 1 the model was too sure.
        threshold: probability below which the answer is "unknown"; 0 if it always answers.
        before, after: scores on the videos, before and after the temperature.
    """

    temperature: float
    threshold: float
    before: Scores
    after: Scores

    @property
    def errors(self) -> tuple[float, float]:
        """Expected calibration error before and after."""
        before, after = (
            expected_calibration_error(scores.confidences, scores.correct) for scores in (self.before, self.after)
        )
        return before, after

    @property
    def coverage(self) -> float:
        """Share of the videos that get an answer."""
        return float(np.mean(self.after.confidences >= self.threshold))

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        before, after = self.errors
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "coverage": self.coverage,
            "num_videos": len(self.after.label_ids),
            "expected_calibration_error": {"before": before, "after": after},
        }

    def as_text(self) -> str:
        """One line for a terminal."""
        before, after = self.errors
        text = (
            f"{'calibration':16} temperature {self.temperature:.2f}, by {len(self.after.label_ids)} validation videos; "
            f"expected calibration error {before:.3f} before, {after:.3f} after calibration"
        )
        if self.threshold:
            answered = f"{self.coverage:.0%} of the validation videos get an answer"
            text += f'; "{unknown_name(self.after.labels)}" below {self.threshold:.3f}: {answered}'
        return text


def calibrate(
    classifier: ActivityClassifier,
    stacks: Sequence[np.ndarray],
    label_ids: np.ndarray,
    *,
    precision: float | None = None,
) -> Calibration | None:
    """Set the temperature and the threshold of a classifier by videos it was not trained on.

    Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599) changes how sure the model is, never which
    label is the most probable for a clip.

    Args:
        classifier: changed in place.
        stacks: features `(N, S, D)` of each video.
        label_ids: `(V,)` their true label ids.
        precision: share of right answers wanted among those given, 0 to 1; `None` for a model that always answers.

    Returns:
        What was found; `None`, and nothing is changed, if there are fewer than 10 videos.
    """
    if len(stacks) < FEWEST_VIDEOS:
        _logger.warning("%d validation videos are too few to calibrate the probabilities", len(stacks))
        return None
    classifier.temperature = 1.0
    before = Scores(classifier.predict_stacks(stacks), label_ids, classifier.labels)
    classifier.temperature = _best_temperature(classifier, stacks, label_ids)
    after = Scores(classifier.predict_stacks(stacks), label_ids, classifier.labels)
    threshold = threshold_for(after.confidences, after.correct, precision) if precision else 0.0
    classifier.info = dataclasses.replace(classifier.info, threshold=threshold)
    return Calibration(classifier.temperature, threshold, before, after)


def _best_temperature(classifier: ActivityClassifier, stacks: Sequence[np.ndarray], label_ids: np.ndarray) -> float:
    """The most probable temperature: the likelihood of the true labels, times a prior around 1."""
    from scipy.optimize import minimize_scalar
    from scipy.special import softmax

    member_predictions, owners = classifier.predict_windows_of(stacks)  # at temperature 1
    logs = np.log(np.maximum(member_predictions, 1e-12))

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logs / np.exp(log_temperature), axis=1)
        of_video = np.stack([probabilities[owners == i].mean(axis=0) for i in range(len(stacks))])
        losses = -np.log(np.maximum(of_video[np.arange(len(stacks)), label_ids], 1e-12))
        return float(losses.sum() + 0.5 * (log_temperature / _PRIOR_DEVIATION) ** 2)

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def threshold_for(confidences: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """The lowest confidence from which on at least this share of the answers is right.

    Args:
        confidences: `(V,)` probability of each answer.
        correct: `(V,)` bool, whether it was.
        precision: 0 to 1.

    Returns:
        A probability; above 1, so that nothing is answered, if no confidence will do.
    """
    order = np.argsort(-confidences, kind="stable")
    fractions = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    sorted_confidences = confidences[order]
    last_of_equals = np.append(sorted_confidences[1:] < sorted_confidences[:-1], True)
    good = np.flatnonzero((fractions >= precision) & last_of_equals)
    if not len(good):
        _logger.warning("no threshold gives a precision of %g: this model will never answer", precision)
        return 1.01
    return float(sorted_confidences[good[-1]])
