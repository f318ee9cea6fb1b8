"""Linear classifiers of pooled features: closed form or convex, so that nothing about them is chance."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
from threadpoolctl import threadpool_limits

from activity.datasets.arrays import Mapped, RowWriter, rows_where

# Threads of BLAS wait for each other, spinning, longer than they compute on matrices of up to some thousand rows.
_in_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
_ABSENT = -30.0  # logit of a label without training videos
_LEAST_CHANGE = 1e-6  # deviation of a feature, as a share of its mean


@_in_one_thread
def logistic_regression(
    features: np.ndarray, label_ids: np.ndarray, num_labels: int, *, is_balanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression on standardized features, with a penalty of 1 on the squares of its weights.

    Args:
        features: `(N, F)`.
        label_ids: `(N,)`, of two labels or more.
        num_labels: C.
        is_balanced: a label weighs by the inverse of its number of videos.

    Returns:
        Kernel `(F, C)` and bias `(C,)` float32: `softmax(features @ kernel + bias)` are the probabilities.
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation = _moments(features)
    # of a feature that does not change, rounding is left, which must not be scaled up: models run in float32
    changes = deviation > _LEAST_CHANGE * np.abs(mean)
    scale = changes / np.where(changes, deviation, 1.0)
    writer = RowWriter()
    for part in Mapped(features).parts():
        writer.write((part - mean) * scale)
    standard = writer.array()
    # the penalty keeps the weights in the span of the videos, of which there are fewer than features
    rotation = _span(standard) if len(features) < features.shape[1] else None
    class_weight = "balanced" if is_balanced else None
    model = LogisticRegression(max_iter=1000, tol=1e-6, class_weight=class_weight).fit(
        standard if rotation is None else standard @ rotation.T, label_ids
    )
    weights = model.coef_ if rotation is None else model.coef_ @ rotation
    return _softmax_form(weights * scale, model.intercept_ - weights @ (mean * scale), model.classes_, num_labels)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of `(N, F)`, `(F,)` float64 each."""
    mapped = Mapped(features)
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in mapped.parts()) / len(features)
    squares = sum(((part - mean) ** 2).sum(axis=0) for part in mapped.parts())
    return mean, np.sqrt(squares / len(features))


def _span(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows `(R, F)` with the span of N rows `(N, F)`, by the products of these: for N far below F."""
    squares, directions = np.linalg.eigh(rows @ rows.T)  # (N,), (N, N)
    kept = squares >= 1e-10 * squares[-1]  # all, where no feature varies
    squares = np.maximum(squares, 1e-300)
    return (directions[:, kept] / np.sqrt(squares[kept])).T @ rows


@_in_one_thread
def discriminant_analysis(
    features: np.ndarray, label_ids: np.ndarray, num_labels: int, *, is_balanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminant analysis (Fisher 1936) with the covariance shrunk as Ledoit & Wolf (2004) found best.

    Arguments and result are those of `logistic_regression`, which takes its place where each label has one video.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    num_trained = len(np.unique(label_ids))
    if len(features) <= num_trained:  # there is no deviation within a label
        return logistic_regression(features, label_ids, num_labels, is_balanced=is_balanced)
    priors = np.full(num_trained, 1 / num_trained) if is_balanced else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels with one video; the covariance is that of all labels
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors).fit(features, label_ids)
    return _softmax_form(model.coef_, model.intercept_, model.classes_, num_labels)


def baseline_probabilities(
    features: Iterable[np.ndarray], label_ids: np.ndarray, test: np.ndarray, num_labels: int
) -> np.ndarray:
    """Probabilities `(n, C)` by logistic regression on the mean feature of each video: what any head has to beat.

    The features are those of the model: if its backbone was fine-tuned, the baseline gains from that too.

    Args:
        features: `(N, S, D)` of each of V videos.
        label_ids: `(V,)`.
        test: `(V,)` bool, the n videos that are predicted; the others are trained on.
        num_labels: C.
    """
    writer = RowWriter()
    for stack in features:
        writer.write(stack.mean(axis=0).reshape(1, -1))
    means = writer.array()  # (V, S*D)
    linear = logistic_regression(rows_where(means, ~test), label_ids[~test], num_labels)
    return np.exp(predict_linear(rows_where(means, test), *linear))


def predict_linear(features: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, `(N, C)`."""
    from scipy.special import log_softmax

    return log_softmax(features @ kernel + bias, axis=1)


def _softmax_form(
    weights: np.ndarray, intercept: np.ndarray, classes: np.ndarray, num_labels: int
) -> tuple[np.ndarray, np.ndarray]:
    if len(classes) == 2:  # scikit-learn keeps the difference of the two alone
        weights, intercept = (np.stack([-x[0] / 2, x[0] / 2]) for x in (weights, intercept))
    kernel = np.zeros((weights.shape[1], num_labels), np.float32)
    bias = np.full(num_labels, _ABSENT, np.float32)
    kernel[:, classes], bias[classes] = weights.T, intercept
    return kernel, bias
