"""Out-of-fold predictions, and what is learned from them: the weights of a stack, calibration, an honest estimate.

The training videos are divided into folds by whole groups. Each video is predicted by models that were trained without
its fold, so that no clip is given up to a validation split (Wolpert 1992; van der Laan et al. 2007, super learner). The
mean, the deviation and the principal components of the features, for which no label counts, are those of all folds.

Shapes in the comments: W windows of the videos, V videos, R models (the head, then base models), F features, C labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from activity.datasets.arrays import RowWriter, rows_where
from activity.evaluation.calibration import best_temperature, of_videos
from activity.evaluation.linear import discriminant_analysis, logistic_regression, predict_linear
from activity.evaluation.metrics import compared, error_by_group, near_chance, share_of_largest
from activity.models.backend import keras
from activity.models.heads import adapt
from activity.models.network import cover
from activity.models.stack import HEAD, build_pooling
from activity.video.clips import pad_right

Linear = tuple[np.ndarray, np.ndarray]  # kernel (F, C) and bias (C,)

_FIT = {"mean": logistic_regression, "chunks": logistic_regression, "cosines": discriminant_analysis}
BASELINE = "mean"  # the base model that is the baseline of an evaluation
_LEAST = 1e-7  # probability; so the fused product does, see `activity.models.layers.Fuse`
_PRIOR = 25.0  # of the squared distance of the weights from equal ones: a normal one with a deviation of 0.14
_NEGLIGIBLE = 0.01  # of the sum of the weights
_LEAST_SUM = 0.01  # of the weights; below, the models say nothing about other groups
_WINDOWS_PER_BATCH = 64


def through_windows(
    models: Sequence[keras.Model], stacks: Iterable[np.ndarray], num_frames: int
) -> tuple[np.ndarray, list[Any]]:
    """What heads or the pooling give for the windows that cover feature stacks, each of which is read once.

    Args:
        models: of features and mask.
        stacks: `(N, S, D)` each.
        num_frames: of a window.

    Returns:
        `(W,)` the number of the stack of each window, and of each model `(W, ...)`, or such by name: in a file, where
        that is too large for memory.
    """
    owners = list[int]()
    coming = cover(stacks, num_frames, owners)
    writers: list[dict[str, RowWriter]] = [defaultdict(RowWriter) for _ in models]
    while batch := list(islice(coming, _WINDOWS_PER_BATCH)):
        clips = [pad_right(stack[start : start + num_frames], num_frames) for stack, start in batch]
        features, mask = (np.stack(parts) for parts in zip(*clips, strict=True))  # (B, T, S, D), (B, T)
        for model, of_model in zip(models, writers, strict=True):
            found = model.predict_on_batch({"features": features, "mask": mask})
            for name, rows in (found if isinstance(found, Mapping) else {"": found}).items():
                of_model[name].write(rows)
    arrays = [{name: writer.array() for name, writer in of_model.items()} for of_model in writers]
    return np.asarray(owners), [x[""] if "" in x else x for x in arrays]


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for the training videos by models that were trained without them.

    Attributes:
        labels: names of the C labels.
        logs: logarithms of the probabilities, `(W, C)` of the windows, by the name of each model that is fused.
        shuffled: the same by the same models, for the videos with their frames in a random order.
        baseline: the same of the base model `BASELINE`.
        owners: `(W,)` index of the video of each window.
        label_ids: `(V,)` true labels of the videos.
        groups: of the videos.
        folds: `(V,)` number of the fold of each video.
        train_accuracy: of the head on the videos that it was trained on, 0 to 1.
    """

    labels: tuple[str, ...]
    logs: Mapping[str, np.ndarray]
    shuffled: Mapping[str, np.ndarray]
    baseline: np.ndarray
    owners: np.ndarray
    label_ids: np.ndarray
    groups: Sequence[str]
    folds: np.ndarray
    train_accuracy: float

    def fused(self, logs: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """`(W, C)` logarithms of the probabilities of the stack, up to a constant for each window.

        The weights for a fold come from the other folds: from its own videos, the score would be too optimistic.

        Args:
            logs: to fuse, by default those of the videos as they are; the weights always come from these.
        """
        logs = self.logs if logs is None else logs
        fused = np.zeros((len(self.owners), len(self.labels)))
        folds = self.folds[self.owners]  # (W,)
        for fold in np.unique(folds):
            held, weights = folds == fold, self.best_weights(folds != fold)
            fused[held] = sum(weight * logs[name][held] for name, weight in weights.items())
        return fused

    def best_weights(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        """Weights of the models, 0 or more: the most probable ones, before any video was seen equal ones.

        The fewer videos, the nearer to equal they stay: of a few dozen, the best weights are mostly chance.
        What is equal are models at their own best temperatures: a discriminant analysis may be ten times as sure as a
        regression, and would drown it. Where no model is better than chance, all weigh the same.

        Args:
            chosen: `(W,)` bool, the windows that count; by default all.
        """
        from scipy.optimize import minimize
        from scipy.special import log_softmax

        names, chosen = list(self.logs), np.ones(len(self.owners), bool) if chosen is None else chosen
        if len(names) == 1:
            return {names[0]: 1.0}
        kept, owners = np.unique(self.owners[chosen], return_inverse=True)
        label_ids, of_models = self.label_ids[kept], [self.logs[name][chosen] for name in names]
        temperatures = np.asarray([best_temperature(logs, owners, label_ids) for logs in of_models])  # (R,)
        logs = np.stack(of_models, axis=1) / temperatures[:, None]  # (W, R, C)
        ids = label_ids[owners]  # (W,)
        fraction = 1 / np.bincount(owners)[owners] / len(kept)  # (W,): each video counts once
        equal, penalty = np.full(len(names), 1 / len(names)), _PRIOR / len(kept)

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            predicted = log_softmax(np.einsum("r,wrc->wc", weights, logs), axis=1)  # (W, C)
            error = np.exp(predicted)
            error[np.arange(len(ids)), ids] -= 1
            far = weights - equal
            value = -(fraction * predicted[np.arange(len(ids)), ids]).sum() + penalty * (far @ far)
            return value, np.einsum("w,wc,wrc->r", fraction, error, logs) + 2 * penalty * far

        found = minimize(loss, equal, jac=True, bounds=[(0, None)] * len(names), method="L-BFGS-B").x
        if found.sum() < _LEAST_SUM:  # which would make one answer of all
            found = equal
        found[found < _NEGLIGIBLE * found.sum()] = 0
        return dict(zip(names, (found / temperatures).tolist(), strict=True))

    def estimate(self) -> Estimate:
        """The accuracy of the stack, beside the baseline."""
        correct, head, baseline = (self._correct(logs) for logs in (self.fused(), self.logs[HEAD], self.baseline))
        return Estimate(
            num_videos=len(correct),
            num_groups=len(set(self.groups)),
            accuracy=float(correct.mean()),
            standard_error=error_by_group(correct, self.groups),
            head_accuracy=float(head.mean()),
            baseline_accuracy=float(baseline.mean()),
            shuffled_accuracy=float(self._correct(self.fused(self.shuffled)).mean()),
            lead=float((correct - baseline).mean()),
            lead_standard_error=error_by_group(correct - baseline, self.groups),
            train_accuracy=self.train_accuracy,
            share_of_largest=share_of_largest(self.label_ids),
        )

    def _correct(self, logs: np.ndarray) -> np.ndarray:
        """`(V,)` 0 or 1, of `(W, C)`: whether the mean over the windows of each video is highest at its label."""
        probabilities = of_videos(logs, self.owners, len(self.label_ids))
        return (probabilities.argmax(axis=1) == self.label_ids).astype(float)


@dataclass(frozen=True)
class Estimate:
    """The accuracy to expect on videos of other groups, from out-of-fold predictions of the training videos.

    Attributes:
        num_videos, num_groups: that were predicted.
        accuracy, standard_error: of the model; groups count as one draw each.
        head_accuracy: of the head alone.
        baseline_accuracy: of logistic regression on the mean features.
        shuffled_accuracy: of the model on the same videos with their frames in a random order: what is left without it.
        lead, lead_standard_error: of the model before the baseline, on the same videos.
        train_accuracy: of the head on the videos that it was trained on.
        share_of_largest: the accuracy of always answering with the most frequent label.
    """

    num_videos: int
    num_groups: int
    accuracy: float
    standard_error: float
    head_accuracy: float
    baseline_accuracy: float
    shuffled_accuracy: float
    lead: float
    lead_standard_error: float
    train_accuracy: float
    share_of_largest: float

    def as_text(self, counted: str = "videos") -> str:
        """Two lines for a terminal: the numbers, and what to make of them; `counted` is what was predicted."""
        return (
            f"{'out of fold':16} accuracy {self.accuracy:.3f} +- {self.standard_error:.3f} on {self.num_videos} "
            f"{counted} of {self.num_groups} groups, each predicted without its group; "
            f"head alone {self.head_accuracy:.3f}, "
            f"baseline {self.baseline_accuracy:.3f}, frames shuffled {self.shuffled_accuracy:.3f}\n"
            f"{'':16} {self.advice()}"
        )

    def advice(self) -> str:
        """A sentence: better, level or worse than the baseline, and what would help."""
        verdict = compared(self.lead, self.lead_standard_error, "the baseline")
        text = f"The model is {verdict} ({self.lead:+.3f} +- {self.lead_standard_error:.3f})"
        if chance := near_chance(self.accuracy, self.standard_error, self.share_of_largest):
            return f"{text}; it is {chance}: what tells the labels apart may not be in view, or needs more videos."
        if self.train_accuracy - self.head_accuracy > _OVERFIT:
            return (
                f"{text}; it overfits ({self.train_accuracy:.2f} on its training videos): more groups would help most."
            )
        if self.train_accuracy < _UNDERFIT:
            hint = "more --epochs or another --backbone may help"
            return f"{text}; it underfits ({self.train_accuracy:.2f} on its training videos): {hint}."
        return f"{text}."


_OVERFIT, _UNDERFIT = 0.15, 0.85  # difference of accuracies; accuracy


def fit_base_models(
    pooled: Mapping[str, np.ndarray], label_ids: np.ndarray, num_labels: int, *, is_balanced: bool = False
) -> dict[str, Linear]:
    """The base models by name, of pooled features `(W, F)` and the label ids `(W,)` of their windows.

    The baseline always minds how frequent a label is, as does that of an evaluation.
    """
    return {
        name: _FIT[name.partition("_")[0]](x, label_ids, num_labels, is_balanced=is_balanced and name != BASELINE)
        for name, x in pooled.items()
    }


def base_predictions(
    pooled: Mapping[str, np.ndarray],
    predicted: Sequence[Mapping[str, np.ndarray]],
    label_ids: np.ndarray,
    folds: np.ndarray,
    num_labels: int,
    *,
    is_balanced: bool = False,
) -> list[dict[str, np.ndarray]]:
    """Out-of-fold logarithms `(W, C)` of the base models by name, for each of `predicted`.

    Args:
        pooled: features `(W, F)` that the base models are trained on, by name.
        predicted: such features of the same windows, as they are or changed.
        label_ids: `(W,)`.
        folds: `(W,)`; those of a fold are predicted by models that were trained without it.
        num_labels: C.
        is_balanced: see `fit_base_models`.
    """
    logs = [{name: np.zeros((len(label_ids), num_labels)) for name in pooled} for _ in predicted]
    for name, x in pooled.items():
        for fold in np.unique(folds):
            held = folds == fold
            known = {name: rows_where(x, ~held)}
            linear = fit_base_models(known, label_ids[~held], num_labels, is_balanced=is_balanced)[name]
            for found, given in zip(logs, predicted, strict=True):
                found[name][held] = np.maximum(predict_linear(rows_where(given[name], held), *linear), np.log(_LEAST))
    return logs


def head_predictions(members: np.ndarray, folds: np.ndarray, of_fold: np.ndarray) -> np.ndarray:
    """Out-of-fold logarithms `(W, C)` of a head, of the probabilities `(W, M, C)` of its members.

    Args:
        members: predictions for the windows.
        folds: `(W,)` of the windows.
        of_fold: `(M,)` the fold that each member was trained without; below 0 for none.
    """
    logs = np.log(np.maximum(members, _LEAST))
    chosen = [logs[i, of_fold == fold].mean(axis=0) for i, fold in enumerate(folds)]
    return np.stack(chosen)


def pooling_of(head: keras.Model, stacks: Sequence[np.ndarray], names: Sequence[str] | None = None) -> keras.Model:
    """The pooling for base models with these names, by default all, adapted to features `(N, S, D)` of a head."""
    num_streams, num_features = head.input["features"].shape[2:]
    pooling = build_pooling(num_features=num_features, num_streams=num_streams, names=names)
    adapt(pooling, stacks)
    return pooling
