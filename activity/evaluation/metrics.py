"""From probabilities to numbers; scikit-learn does the arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from activity.datasets.samples import name_some
from activity.progress import format_table


@dataclass(frozen=True)
class Scores:
    """How well probabilities match the truth.

    Args:
        probabilities: `(N, C)`, each row sums to 1.
        label_ids: `(N,)` true label ids, 0 to C-1.
        labels: names of the C labels.
    """

    probabilities: np.ndarray
    label_ids: np.ndarray
    labels: Sequence[str]

    def __post_init__(self) -> None:
        expected = (len(self.label_ids), len(self.labels))
        if self.probabilities.shape != expected or not len(self.label_ids):
            raise ValueError(f"expected probabilities {expected} with N >= 1, received {self.probabilities.shape}")

    @cached_property
    def predicted_ids(self) -> np.ndarray:
        """`(N,)` most probable label ids."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidences(self) -> np.ndarray:
        """`(N,)` probabilities of the most probable labels."""
        return self.probabilities.max(axis=1)

    @cached_property
    def correct(self) -> np.ndarray:
        """`(N,)` bool: the most probable label is the true one."""
        return self.predicted_ids == self.label_ids

    @property
    def accuracy(self) -> float:
        """Share of samples whose most probable label is right (top-1)."""
        return float(np.mean(self.correct))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, see `expected_calibration_error`."""
        return expected_calibration_error(self.confidences, self.correct)

    def top_k_accuracy(self, k: int) -> float:
        """Share of samples whose true label is among the `k` most probable; of equal ones the first counts first."""
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]  # (N, k)
        return float(np.mean(np.any(best == np.asarray(self.label_ids)[:, None], axis=1)))

    @cached_property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Label -> `precision`, `recall`, `f1`, `support` (number of samples); 0 where undefined."""
        from sklearn.metrics import precision_recall_fscore_support

        columns = precision_recall_fscore_support(
            self.label_ids, self.predicted_ids, labels=np.arange(len(self.labels)), zero_division=0.0
        )
        return {
            label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for label, p, r, f, n in zip(self.labels, *columns, strict=True)
        }

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over the labels that have videos here: rare ones count like frequent ones.

        A label without videos has no recall, and an F1 of 0 would say that it is never found. Videos that are wrongly
        taken for it still count against their true labels.
        """
        return float(np.mean([row["f1"] for row in self.per_class.values() if row["support"]]))

    @property
    def absent(self) -> list[str]:
        """The labels without videos here, which the macro-F1 leaves out."""
        return [label for label, row in self.per_class.items() if not row["support"]]

    @cached_property
    def confusion(self) -> np.ndarray:
        """`(C, C)` int counts; rows are true, columns predicted."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.label_ids, self.predicted_ids, labels=np.arange(len(self.labels)))

    def as_dict(self) -> dict[str, Any]:
        """`accuracy`, `top_k` (k -> accuracy), `macro_f1`, `per_class`, `labels`, `confusion`; ready for JSON."""
        return {
            "accuracy": self.accuracy,
            "top_k": {str(k): self.top_k_accuracy(k) for k in (1, 3, 5) if k < len(self.labels)},
            "macro_f1": self.macro_f1,
            "per_class": self.per_class,
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }

    def as_text(self, notes: Sequence[str] = ()) -> str:
        """The scores, notes on them, the report per class and the confusion matrix for a terminal."""
        top_k = "".join(f"   top-{k} {self.top_k_accuracy(k):.3f}" for k in (3, 5) if k < len(self.labels))
        scores = [
            (label, *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")), row["support"])
            for label, row in self.per_class.items()
        ]
        ids = range(len(self.labels))
        counts = [
            (label, *(count or "." for count in row), i)
            for i, label, row in zip(ids, self.labels, self.confusion.tolist(), strict=True)
        ]
        absent = [f"macro-F1 leaves out labels without videos: {name_some(self.absent)}"] if self.absent else []
        return "\n".join(
            [
                f"accuracy {self.accuracy:.3f}{top_k}   macro-F1 {self.macro_f1:.3f}   ({len(self.label_ids)} videos)",
                *absent,
                *notes,
                "",
                *format_table([("label", "precision", "recall", "f1", "videos"), *scores], align="lr"),
                "",
                "confusion (rows true, columns predicted)",
                *format_table([("", *ids, ""), *counts], align="lr"),
            ]
        )


# === Calibration ===


@dataclass(frozen=True)
class ReliabilityBin:
    """Samples of like confidence.

    Attributes:
        low, high: limits of the confidence; `high` belongs to the bin, `low` does not.
        num_samples: in the bin, 1 or more.
        confidence: their mean confidence.
        accuracy: share of them that is right.
    """

    low: float
    high: float
    num_samples: int
    confidence: float
    accuracy: float


def reliability_bins(confidences: np.ndarray, correct: np.ndarray, *, num_bins: int = 10) -> list[ReliabilityBin]:
    """Bins of equal width that hold samples, from the least confident (Guo et al. 2017, arxiv.org/abs/1706.04599).

    Args:
        confidences: `(N,)` probabilities of the predicted labels, 0 to 1.
        correct: `(N,)` bool, whether the predictions were right.
        num_bins: that divide 0 to 1.

    Raises:
        ValueError: the shapes differ, there are no samples, or a confidence is outside of 0 to 1.
    """
    confidences, correct = np.asarray(confidences, float), np.asarray(correct, bool)
    if confidences.ndim != 1 or confidences.shape != correct.shape or not len(confidences):
        raise ValueError(f"expected two (N,) arrays with N >= 1, received {confidences.shape} and {correct.shape}")
    if not (confidences.min() >= 0 and confidences.max() <= 1 + 1e-5):  # a float32 softmax may pass 1 by a hair
        raise ValueError(f"confidences must be 0 to 1, received {confidences.min()} to {confidences.max()}")
    edges = np.arange(num_bins + 1) / num_bins
    bin_ids = np.digitize(confidences, edges[1:-1], right=True)  # (N,), 0 to num_bins-1
    return [
        ReliabilityBin(
            float(edges[i]),
            float(edges[i + 1]),
            int(np.sum(bin_ids == i)),
            float(confidences[bin_ids == i].mean()),
            float(correct[bin_ids == i].mean()),
        )
        for i in np.unique(bin_ids)
    ]


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, *, num_bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their samples; 0 is calibrated.

    It depends on the number of bins, and few samples in a bin make it larger than it is: compare like with like. See
    `reliability_bins` for the arguments and errors.
    """
    bins = reliability_bins(confidences, correct, num_bins=num_bins)
    return sum(b.num_samples * abs(b.accuracy - b.confidence) for b in bins) / len(confidences)


# === How far a score can be trusted ===

_NUM_DRAWS = 2000
_TAIL = 0.025  # on each side of an interval of 95 %
FEW_GROUPS = 5  # with fewer, an interval over groups holds the truth in clearly less than 95 % of the cases


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of two or more values, one a fold, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


@dataclass(frozen=True)
class Mean:
    """A mean over videos and how far it can be trusted; videos of a group count as one draw.

    Attributes:
        value: the mean.
        standard_error: of the mean.
        low, high: limits of its interval of 95 %.
        is_exact: the interval is no bootstrap, but that of a binomial distribution: all videos are alike.
    """

    value: float
    standard_error: float
    low: float
    high: float
    is_exact: bool = False

    @classmethod
    def of(cls, values: np.ndarray, groups: Sequence[str], *, lowest: float = 0.0, highest: float = 1.0) -> Mean:
        """That of `(N,)` values, by `error_by_group` and `interval_by_group`, which see for the arguments."""
        values = np.asarray(values, float)
        low, high = interval_by_group(values, groups, lowest=lowest, highest=highest)
        return cls(float(values.mean()), error_by_group(values, groups), low, high, bool((values == values[0]).all()))

    def limits(self, form: str = ".3f") -> str:
        """The interval as text, such as "0.850 to 1.000"."""
        return f"{self.low:{form}} to {self.high:{form}}"


def error_by_group(values: np.ndarray, groups: Sequence[str]) -> float:
    """Standard error of the mean of `(N,)` values, of which those of a group count as one draw (cluster-robust).

    Where all are of one group, each counts for itself. Of fewer than 5 groups, it is never smaller than that of single
    videos: a few groups may be alike by chance.
    """
    errors = []
    for ids in (_group_ids(groups), np.arange(len(values))):
        sums = np.bincount(ids, weights=values - values.mean())  # of each group
        errors.append(float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)) / len(values)))
    return max(errors) if len(set(groups)) < FEW_GROUPS else errors[0]


def interval_by_group(
    values: np.ndarray, groups: Sequence[str], *, lowest: float = 0.0, highest: float = 1.0
) -> tuple[float, float]:
    """Interval that holds the true mean in about 95 % of the cases, by bootstrap over whole groups.

    Groups are drawn with replacement (Field & Welsh 2007, cluster bootstrap), 2,000 times with a fixed seed. The
    percentiles lie farther out than 2.5 and 97.5 where groups are few (Hesterberg 2015, expanded percentile interval).
    It is never narrower than that of single videos: a few groups may be alike by chance. Where all values are the same,
    a bootstrap says nothing; then it is the exact one of a binomial distribution (Clopper & Pearson 1934).

    Args:
        values: `(N,)`, such as 1 for each correct answer; N >= 1.
        groups: of the N values; where all are of one group, each counts for itself.
        lowest: what a value may be at least. -1 for a difference of answers.
        highest: what it may be at most.
    """
    values = np.asarray(values, float)
    if (values == values[0]).all():
        others = 1 - _TAIL ** (1 / len(values))  # as many may be otherwise
        return float(values[0] - others * (values[0] - lowest)), float(values[0] + others * (highest - values[0]))
    lows, highs = zip(*(_percentiles(values, ids) for ids in (_group_ids(groups), np.arange(len(values)))), strict=True)
    return min(lows), max(highs)


def interval_over_films(statistic: Callable[[np.ndarray], np.ndarray], num_films: int) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the interval of 95 % of any statistic of films, by bootstrap over whole films, as `interval_by_group`.

    Args:
        statistic: of `(D, F)` how often each film is drawn, gives `(D,)` or `(D, L)`; NaN where it is undefined, which
            counts for nothing.
        num_films: F, two or more.

    Returns:
        Low and high, of shape `()` or `(L,)`; NaN where the statistic is undefined in all draws.
    """
    weights = np.random.default_rng(0).multinomial(num_films, np.full(num_films, 1 / num_films), size=_NUM_DRAWS)
    values = np.asarray(statistic(weights), float)
    values = np.where(np.isnan(values).all(axis=0), np.inf, values)  # else NumPy would warn of them
    low, high = (np.nanquantile(values, tail, axis=0, method="nearest") for tail in _tails(num_films))
    return np.where(np.isinf(low), np.nan, low), np.where(np.isinf(high), np.nan, high)


def how_drawn(groups: Sequence[str]) -> str:
    """Words on what `interval_by_group` draws from, and whether that is enough."""
    num_groups = len(set(groups))
    if num_groups == 1:
        return f"by bootstrap over {len(groups)} videos of a single group: other groups may lie outside"
    rough = ", rough with so few" if num_groups < FEW_GROUPS else ""
    return f"by bootstrap over {num_groups} groups{rough}"


def jackknife_error(statistic: Callable[[np.ndarray], float], groups: Sequence[str]) -> float | None:
    """Standard error of any statistic of films, by leaving out one group after the other (Efron & Stein 1981).

    Where all are of one group, each film counts for itself. `None` for a single film.

    Args:
        statistic: of `(F,)` bool, which films are taken.
        groups: of the F films.
    """
    ids = _group_ids(groups)
    num = len(set(ids))
    if num < 2:
        return None
    values = np.asarray([statistic(ids != left_out) for left_out in np.unique(ids)])
    return float(np.sqrt((num - 1) / num * np.square(values - values.mean()).sum()))


def _group_ids(groups: Sequence[str]) -> np.ndarray:
    """`(N,)` number of the group of each, or of each itself where all are of one."""
    ids = np.unique(np.asarray(groups), return_inverse=True)[1]
    return ids if ids.any() else np.arange(len(ids))


def _percentiles(values: np.ndarray, ids: np.ndarray) -> tuple[float, float]:
    sums, sizes = np.bincount(ids, weights=values), np.bincount(ids)  # (G,)
    num_groups, rng, means = len(sums), np.random.default_rng(0), []
    for part in np.array_split(np.arange(_NUM_DRAWS), -(-_NUM_DRAWS * num_groups // 2**22)):  # memory has an end
        drawn = rng.integers(num_groups, size=(len(part), num_groups))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), _tails(num_groups))
    return float(low), float(high)


def share_of_largest(label_ids: np.ndarray) -> float:
    """The accuracy of always answering with the most frequent of the true labels `(V,)`, 0 to 1."""
    return float(np.bincount(label_ids).max() / len(label_ids))


def near_chance(accuracy: float, error: float, share: float) -> str:
    """Words on an accuracy, with its standard error, that is not clearly above `share_of_largest`; else empty."""
    if accuracy - share > 2 * error:
        return ""
    return f"hardly better than always answering with the most frequent label ({share:.3f})"


def compared(lead: float, error: float, other: str, interval: tuple[float, float] | None = None) -> str:
    """Words on a lead in accuracy, such as "significantly better than the baseline", where it is beyond its error.

    Args:
        lead: difference of two accuracies on the same videos.
        error: its standard error.
        other: what the other one is called.
        interval: of the lead, of 95 %; by default two standard errors on either side. A lead whose interval includes 0
            is not significant.
    """
    interval = interval or (lead - 2 * error, lead + 2 * error)
    if abs(lead) <= error + 1e-9 or not lead:  # of few videos, both may be the same fraction
        return f"not significantly better than {other}: the difference is within one standard error"
    words = f"{'better' if lead > 0 else 'worse'} than {other}"
    if interval[0] <= 0 <= interval[1]:
        return f"{words} by more than one standard error, but not significantly: the 95 % interval includes 0"
    return f"significantly {words}, by more than one standard error"


def _tails(num_groups: int) -> tuple[float, float]:
    """The quantiles of an expanded percentile interval."""
    from scipy.stats import norm, t

    tail = float(norm.cdf(t.ppf(_TAIL, num_groups - 1) * np.sqrt(num_groups / (num_groups - 1))))
    return tail, 1 - tail
