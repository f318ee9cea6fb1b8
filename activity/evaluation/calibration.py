"""How sure a model may be: a temperature for its probabilities, and a threshold below which it does not answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activity.evaluation.metrics import Scores
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
        out_of_fold: they are training videos, each predicted without its group; else those of the val split.
    """

    temperature: float
    threshold: float
    before: Scores
    after: Scores
    out_of_fold: bool = False

    @property
    def errors(self) -> tuple[float, float]:
        """Expected calibration error before and after."""
        return self.before.calibration_error, self.after.calibration_error

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
            "out_of_fold": self.out_of_fold,
            "expected_calibration_error": {"before": before, "after": after},
        }

    def as_text(self, counted: str = "training videos") -> str:
        """One line for a terminal; `counted` is what was predicted out of fold."""
        before, after = self.errors
        videos = f"{counted} out of fold" if self.out_of_fold else "validation videos"
        text = (
            f"{'calibration':16} temperature {self.temperature:.2f}, by {len(self.after.label_ids)} {videos}; "
            f"expected calibration error {before:.3f} before, {after:.3f} after calibration"
        )
        if self.threshold:
            answered = f"{self.coverage:.0%} of them get an answer"
            text += f'; "{unknown_name(self.after.labels)}" below {self.threshold:.3f}: {answered}'
        return text


def calibrate(
    logs: np.ndarray,
    owners: np.ndarray,
    label_ids: np.ndarray,
    labels: Sequence[str],
    *,
    precision: float | None = None,
    out_of_fold: bool = False,
) -> Calibration | None:
    """The temperature and the threshold of a classifier, by videos it was not trained on.

    Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599) changes how confident the model is, never
    which label is the most probable for a clip.

    Args:
        logs: `(W, C)` logarithms of the probabilities of windows at temperature 1, up to a constant for each window.
        owners: `(W,)` index of the video of each window.
        label_ids: `(V,)` true label ids of the videos.
        labels: names of the C labels.
        precision: fraction of correct answers wanted among those given, 0 to 1; `None` for a model that always answers.
        out_of_fold: the videos are training videos, each predicted by a model that was trained without its group.

    Returns:
        What was found; `None` if there are fewer than 10 videos.
    """
    if len(label_ids) < FEWEST_VIDEOS:
        kind = "training" if out_of_fold else "validation"
        _logger.warning("%d %s videos are too few to calibrate the probabilities", len(label_ids), kind)
        return None

    def scores(temperature: float) -> Scores:
        return Scores(of_videos(logs, owners, len(label_ids), temperature), label_ids, labels)

    temperature = best_temperature(logs, owners, label_ids)
    after = scores(temperature)
    threshold = threshold_for(after.confidences, after.correct, precision) if precision else 0.0
    return Calibration(temperature, threshold, scores(1.0), after, out_of_fold)


def of_videos(logs: np.ndarray, owners: np.ndarray, num_videos: int, temperature: float = 1.0) -> np.ndarray:
    """Probabilities `(V, C)` of V videos, the mean over the windows of each; the other arguments as in `calibrate`."""
    from scipy.special import softmax

    probabilities = softmax(logs / temperature, axis=1)
    sums = np.zeros((num_videos, probabilities.shape[1]))
    np.add.at(sums, owners, probabilities)
    return sums / np.bincount(owners, minlength=num_videos)[:, None]


def best_temperature(logs: np.ndarray, owners: np.ndarray, label_ids: np.ndarray) -> float:
    """The most probable temperature: the likelihood of the true labels, times a prior around 1; as for `calibrate`."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        of_video = of_videos(logs, owners, len(label_ids), np.exp(log_temperature))
        losses = -np.log(np.maximum(of_video[np.arange(len(label_ids)), label_ids], 1e-12))
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
