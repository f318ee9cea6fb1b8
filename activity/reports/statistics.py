"""Time budgets, what an analyst publishes of timelines: how often, how long, when first, and what follows what.

The terms are those of the time budget of BORIS (boris.readthedocs.io, "Time budget"): number of occurrences, total and
mean duration, mean duration of the intervals between them, fraction of the length of the film. The latency is the start
of the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from activity.datasets.samples import Segment
from activity.evaluation.metrics import interval_over_films
from activity.files import noted_results, write_csv

ALL = "all"  # the source of the rows over all films
COLUMNS = (
    *("source", "label", "num_bouts", "total_seconds", "mean_seconds", "fraction", "latency_seconds"),
    *("mean_gap_seconds", "fraction_low", "fraction_high"),
)
_TRANSITION_COLUMNS = ("from", "to", "count", "probability")


@dataclass(frozen=True)
class FilmSegments:
    """A film with its segments.

    Attributes:
        source: its name.
        segments: in order of time; those of one label do not overlap.
        seconds: its length.
    """

    source: str
    segments: Sequence[Segment]
    seconds: float


def time_budget(films: Sequence[FilmSegments], labels: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each film and label, then one for each label over all films, with `source` `all`.

    A label that a film does not have has a row of no bouts there; means and the latency are `None` where there is
    nothing to be the mean of. Over all films, a mean is that of all their bouts or gaps, the fraction is that of all
    their time, and the latency is the mean over the films that have the label. Of two or more films, `fraction_low` and
    `fraction_high` are the limits of the 95 % interval of that fraction, by bootstrap over films.

    Args:
        films: one or more, that last longer than 0 s.
        labels: of all rows, such as those of a model; further ones of segments, such as "unknown", come after them.
    """
    labels = [*labels, *sorted({segment.label for film in films for segment in film.segments} - {*labels})]
    rows, totals = [], np.zeros((len(films), len(labels)))
    for number, film in enumerate(films):
        for label_id, label in enumerate(labels):
            row = _row(film.source, label, [film])
            totals[number, label_id] = row["total_seconds"]
            rows.append(row)
    over_all = [_row(ALL, label, films) for label in labels]
    if len(films) > 1:
        seconds = np.array([film.seconds for film in films])  # (F,)
        limits = interval_over_films(lambda drawn: drawn @ totals / (drawn @ seconds)[:, None], len(films))  # (D, L)
        for row, low, high in zip(over_all, *limits, strict=True):
            row |= {"fraction_low": float(low), "fraction_high": float(high)}
    return rows + over_all


def _row(source: str, label: str, films: Sequence[FilmSegments]) -> dict[str, Any]:
    bouts = [[segment for segment in film.segments if segment.label == label] for film in films]
    durations = [bout.end_seconds - bout.start_seconds for own in bouts for bout in own]
    gaps = [after.start_seconds - before.end_seconds for own in bouts for before, after in pairwise(own)]
    return {
        "source": source,
        "label": label,
        "num_bouts": len(durations),
        "total_seconds": float(sum(durations)),
        "mean_seconds": _mean(durations),
        "fraction": sum(durations) / sum(film.seconds for film in films),
        "latency_seconds": _mean([own[0].start_seconds for own in bouts if own]),
        "mean_gap_seconds": _mean(gaps),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def transitions(films: Sequence[FilmSegments]) -> list[dict[str, Any]]:
    """How often each label follows each other within a film: `from`, `to`, `count`, `probability`; those that occur.

    The probability is that of `to` after `from`, where anything follows.
    """
    counts = Counter((a.label, b.label) for film in films for a, b in pairwise(film.segments))
    sums = Counter[str]()
    for (before, _), count in counts.items():
        sums[before] += count
    return [
        {"from": before, "to": after, "count": count, "probability": count / sums[before]}
        for (before, after), count in sorted(counts.items())
    ]


def transitions_path(path: Path) -> Path:
    """Where the transitions stand beside a time budget: `FILE.transitions.csv` beside `FILE.csv`."""
    return path.with_suffix(".transitions.csv")


def save_statistics(films: Sequence[FilmSegments], labels: Sequence[str], path: Path) -> list[Path]:
    """Write `time_budget` as a CSV, and `transitions` beside it; returns both paths."""
    with noted_results():
        write_csv(path, COLUMNS, time_budget(films, labels) if films else [])
        write_csv(transitions_path(path), _TRANSITION_COLUMNS, transitions(films))
    return [path, transitions_path(path)]
