"""How far two annotations of the same films agree: the fraction of time, Cohen's kappa, label by label.

Films are sampled at the middles of equal steps. Time that has no label is `background`, a label like any other; time
that has several is labelled with all of them, `eat + sit`, which agrees with the same labels only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activity.datasets.samples import name_some
from activity.errors import DatasetError, printable
from activity.evaluation.metrics import FEW_GROUPS, interval_over_films
from activity.progress import format_table

BACKGROUND = "background"  # the field's term for time without a label
_MOST_MOMENTS = 20_000_000  # of a film: 23 days at 0.1 s
_MOST_CONFUSIONS = 10  # that are listed

Span = tuple[float, float, str]  # start_seconds, end_seconds, label; the end may be infinite


def sample_labels(spans: Sequence[Span], seconds: float, step: float) -> list[tuple[int, str]]:
    """Runs of equal labels over the moments of a film, as the number of moments and the label of each.

    Moment k is at `(k + 0.5) * step`; a span has those from its start to before its end.

    Args:
        spans: that may overlap.
        seconds: length of the film.
        step: seconds from moment to moment.

    Raises:
        DatasetError: there would be too many moments.
    """
    if seconds / step > _MOST_MOMENTS:
        raise DatasetError(f"a film of {seconds:g} s has more than {_MOST_MOMENTS} moments; expected a longer --step")
    num = _first_moment(seconds, step)
    changes: dict[int, list[tuple[str, int]]] = {0: [], num: []}
    for start, end, label in spans:
        for moment, by in ((_first_moment(start, step), 1), (_first_moment(min(end, seconds), step), -1)):
            changes.setdefault(min(moment, num), []).append((label, by))
    active: Counter[str] = Counter()
    runs, moments = [], sorted(changes)
    for moment, following in zip(moments, moments[1:], strict=False):
        for label, by in changes[moment]:
            active[label] += by
        active = +active
        labels = sorted({*active} - {BACKGROUND})
        runs.append((following - moment, " + ".join(labels) or BACKGROUND))
    return runs


def _first_moment(seconds: float, step: float) -> int:
    """The first moment that is not before a time; rounding of the time does not count."""
    return max(0, math.ceil(seconds / step - 0.5 - 1e-6))


def confusion_of(
    runs: Sequence[tuple[int, str]], others: Sequence[tuple[int, str]], labels: Sequence[str]
) -> np.ndarray:
    """`(L, L)` int: moments of a film by the label of one annotator, and by that of the other.

    Args:
        runs: of one, as of `sample_labels`.
        others: of the other, of as many moments.
        labels: names of the L labels.
    """
    ids = {label: number for number, label in enumerate(labels)}
    a, b = (np.repeat([ids[label] for _, label in x], [num for num, _ in x]) for x in (runs, others))  # (K,)
    return np.bincount(a * len(labels) + b, minlength=len(labels) ** 2).reshape(len(labels), len(labels))


def cohens_kappa(confusion: np.ndarray) -> float:
    """Cohen's kappa (1960) of an `(L, L)` matrix of counts; NaN where both gave one and the same label always."""
    return float(_kappa(np.trace(confusion), confusion.sum(axis=1), confusion.sum(axis=0)))


def _kappa(same: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Of the sum of the diagonal `(...)`, and the sums of rows and columns `(..., L)`."""
    total = np.asarray(rows, float).sum(axis=-1)
    chance = (np.asarray(rows, float) * columns).sum(axis=-1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (same / total - chance) / (1 - chance), np.nan)


@dataclass(frozen=True)
class Agreement:
    """How far two annotations agree.

    Attributes:
        labels: names of the L labels, `background` the last of them where it occurs.
        films: names of the F films that were compared.
        counts: `(F, L, L)` moments; rows are the labels of A, columns those of B.
        step: seconds of a moment.
    """

    labels: tuple[str, ...]
    films: tuple[str, ...]
    counts: np.ndarray
    step: float

    @property
    def confusion(self) -> np.ndarray:
        """`(L, L)` seconds of all films."""
        return self.counts.sum(axis=0) * self.step

    @property
    def agreement(self) -> float:
        """Fraction of the time in which both have the same label."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of all moments of all films; `None` where both have one and the same label always."""
        return _known(cohens_kappa(self.counts.sum(axis=0)))

    def interval(self) -> tuple[float, float] | None:
        """Limits of the 95 % interval of kappa by bootstrap over films; `None` of one film, or without a kappa."""
        if len(self.films) < 2 or self.kappa is None:
            return None
        same = np.trace(self.counts, axis1=1, axis2=2)  # (F,)
        rows, columns = self.counts.sum(axis=2), self.counts.sum(axis=1)  # (F, L)
        low, high = interval_over_films(
            lambda drawn: _kappa(drawn @ same, drawn @ rows, drawn @ columns), len(self.films)
        )
        return float(low), float(high)

    @property
    def per_label(self) -> dict[str, dict[str, float]]:
        """Label -> `agreement`, `seconds_a`, `seconds_b`, `seconds_both`.

        The agreement is the specific one (Fleiss 1981): twice the time by both, over that by A plus that by B, 0 to 1.
        """
        matrix = self.confusion
        return {
            label: {
                "agreement": float(2 * matrix[i, i] / (matrix[i].sum() + matrix[:, i].sum())),
                "seconds_a": round(float(matrix[i].sum()), 6),
                "seconds_b": round(float(matrix[:, i].sum()), 6),
                "seconds_both": round(float(matrix[i, i]), 6),
            }
            for i, label in enumerate(self.labels)
        }

    def as_dict(self) -> dict[str, Any]:
        """`kappa`, `kappa_interval`, `agreement`, `per_label`, `labels`, `confusion` (seconds), `films`; for JSON."""
        interval = self.interval()
        return {
            "kappa": self.kappa,
            "kappa_interval": interval and list(interval),
            "agreement": self.agreement,
            "per_label": self.per_label,
            "labels": list(self.labels),
            "confusion": self.confusion.round(6).tolist(),
            "films": list(self.films),
            "step_seconds": self.step,
        }

    def as_text(self) -> str:
        """The scores, a table of the labels, and the largest confusions, for a terminal."""
        interval, kappa = self.interval(), self.kappa
        drawn = f"by bootstrap over {len(self.films)} films{', rough with so few' * (len(self.films) < FEW_GROUPS)}"
        limits = f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f} ({drawn})" if interval else ""
        undefined = "undefined (one label alone)"
        rows = [
            (printable(label), f"{x['agreement']:.3f}", *(f"{x[f'seconds_{who}']:.1f}" for who in ("a", "b", "both")))
            for label, x in self.per_label.items()
        ]
        matrix, films = self.confusion, f"films ({len(self.films)}): {name_some(self.films)}"
        pairs = sorted(zip(*np.nonzero(matrix - np.diag(np.diag(matrix))), strict=True), key=lambda ij: -matrix[ij])
        confusions = [
            f"{matrix[i, j]:9.1f} s  {printable(self.labels[i])} (A), {printable(self.labels[j])} (B)"
            for i, j in pairs[:_MOST_CONFUSIONS]
        ]
        return "\n".join(
            [
                f"kappa {undefined if kappa is None else f'{kappa:.3f}'}{limits}",
                f"agreement {self.agreement:.3f} of {matrix.sum():.1f} s; {films}",
                "",
                *format_table([("label", "agreement", "A (s)", "B (s)", "both (s)"), *rows], align="lr"),
                *(["", "largest confusions", *confusions] if confusions else []),
            ]
        )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def compare_films(films: Mapping[str, tuple[Sequence[Span], Sequence[Span], float]], *, step: float = 0.1) -> Agreement:
    """How far two annotations of some films agree.

    Args:
        films: name -> the spans of A, those of B, and the length in seconds; one or more films.
        step: seconds from moment to moment.

    Raises:
        DatasetError: no film has a moment, or one has too many.
    """
    runs = {
        name: (sample_labels(a, seconds, step), sample_labels(b, seconds, step))
        for name, (a, b, seconds) in films.items()
    }
    runs = {name: both for name, both in runs.items() if both[0]}
    if not runs:
        raise DatasetError(f"no film is as long as a step of {step:g} s, so nothing can be compared")
    found = {label for both in runs.values() for side in both for _, label in side}
    labels = sorted(found, key=lambda label: (label == BACKGROUND, label))
    counts = np.stack([confusion_of(a, b, labels) for a, b in runs.values()])  # (F, L, L)
    return Agreement(tuple(labels), tuple(runs), counts, step)
