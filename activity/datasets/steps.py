"""Labels of time steps: whole films, and what a model that gives probabilities for each step learns of them.

The rows of a manifest are segments of videos. Of all rows of one video, its whole length is read at a fixed rate, and
step `k` has the labels of the segments that hold its middle, `(k + 0.5) / rate` seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.films import BACKGROUND, Film, films_in
from activity.datasets.samples import labels_of, name_some
from activity.errors import DatasetError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepLabels:
    """The labels of steps of a film.

    Attributes:
        targets: `(N, C)` float32, 1 where a label holds.
        known: `(N,)` bool; nothing is known of other steps, so nothing is learned from them.
    """

    targets: np.ndarray
    known: np.ndarray


def films_of(dataset: Dataset) -> list[Film]:
    """The films of a data set, in the order of their paths.

    Raises:
        DatasetError: segments of one video are in several groups or splits.
    """
    films = films_in(dataset.samples)
    for film in films:
        for name in ("group", "split"):
            if len(found := {getattr(row, name) for row in film.rows}) > 1:
                reason = (
                    f"segments of {film.path} are in the {name}s {name_some(found)}; expected one {name} for a film"
                )
                raise DatasetError(reason, path=dataset.dataset_dir)
    return films


def labels_of_steps(dataset: Dataset, config: TrainConfig) -> tuple[str, ...]:
    """Names of the labels of a model of steps, in alphabetical order."""
    return tuple(sorted({*labels_of(dataset.samples), *([BACKGROUND] if config.background else [])}))


def label_steps(
    film: Film,
    num_steps: int,
    rate: float,
    labels: Sequence[str],
    *,
    background: bool = False,
    multi_label: bool = False,
) -> StepLabels:
    """The labels of the steps of a film.

    Between the first and the last labelled segment, a step without a label is of `BACKGROUND` with `background`, has no
    label with `multi_label`, and is unknown else; so are those in rows without a label, and all before and after. With
    two labels at once, a step is unknown unless `multi_label`; a line says so.

    Args:
        film: of a data set.
        num_steps: N.
        rate: steps a second.
        labels: names of the C labels.
        background: see `TrainConfig`.
        multi_label: see `TrainConfig`.
    """
    middles = (np.arange(num_steps) + 0.5) / rate  # (N,)
    targets, between = np.zeros((num_steps, len(labels)), np.float32), np.zeros(num_steps, bool)
    for segment in film.segments:
        inside = (middles >= segment.start_seconds) & (middles < segment.end_seconds)
        targets[inside, labels.index(segment.label)] = 1
    for start, end in film.gaps:
        between |= (middles >= start) & (middles < end)
    count = targets.sum(axis=1)  # (N,)
    if multi_label:
        return StepLabels(targets, (count > 0) | between)
    if background:
        targets[between, labels.index(BACKGROUND)] = 1
    if (clashes := count > 1).any():
        _logger.warning(
            "%s: %.1f s from %.1f s on have several labels at once (%s); nothing is learned from them without "
            "--multi-label",
            film.path,
            clashes.sum() / rate,
            clashes.argmax() / rate,
            name_some(labels[i] for i in np.flatnonzero(targets[clashes].any(axis=0)).tolist()),
        )
    return StepLabels(targets, targets.sum(axis=1) == 1)
