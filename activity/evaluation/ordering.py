"""How well a model of the order of activities predicts films it was not trained on, beside simpler models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activity.datasets.dataset import Dataset
from activity.datasets.samples import films_of, name_some
from activity.errors import DatasetError
from activity.evaluation.metrics import mean_and_error
from activity.models.captioner import ActivityCaptioner
from activity.predictor.order import surprises
from activity.progress import format_table

_PSEUDO_COUNT = 1.0  # of each label (Laplace): what never followed in training is not impossible


@dataclass(frozen=True)
class OrderEvaluation:
    """Mean negative log-probability an activity, in nats, of each film.

    Attributes:
        paths: of the F films.
        model: `(F,)` by the model.
        last: `(F,)` by how often each activity followed the one before it (bigrams).
        frequency: `(F,)` by how frequent each activity is.
    """

    paths: list[str]
    model: np.ndarray
    last: np.ndarray
    frequency: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """`surprise` of the model, the baselines, the lead over the better one, all in nats; ready for JSON."""
        lead, error = self._lead()
        return {
            "surprise": float(self.model.mean()),
            "baselines": {"last_activity": float(self.last.mean()), "frequency": float(self.frequency.mean())},
            "lead": {"value": lead, "standard_error": error if error < np.inf else None},
            "num_films": len(self.paths),
        }

    def _lead(self) -> tuple[float, float]:
        """How much less than the better baseline, and the standard error over films (infinite for a single one)."""
        better = min(self.last, self.frequency, key=np.mean)
        differences = better - self.model
        if len(differences) < 2:
            return float(differences.mean()), float("inf")
        mean, error = mean_and_error(differences)
        return float(mean), float(error)

    def as_text(self) -> str:
        """The scores for a terminal."""
        rows = [
            ("negative log-probability an activity", "nats", "perplexity"),
            *(
                (name, f"{values.mean():.3f}", f"{np.exp(values.mean()):.2f}")
                for name, values in (
                    ("model", self.model),
                    ("by the activity before", self.last),
                    ("by frequency", self.frequency),
                )
            ),
        ]
        lead, error = self._lead()
        films = f"{len(self.paths)} films"
        ahead = f"{abs(lead):.3f}" + (f" +- {error:.3f}" if error < np.inf else "")
        words = f"the model needs {ahead} nats {'less' if lead > 0 else 'more'} than the better of these"
        advice = "" if lead > 0 else ": it has seen too few films, or their order tells nothing"
        return "\n".join([*format_table(rows, align="lr"), f"{films}: {words}{advice}"])


def evaluate_order(order: ActivityCaptioner, dataset: Dataset, *, split: str = "test") -> OrderEvaluation:
    """Evaluate a model on the films of a split beside two baselines, which count in its other films, but for the test.

    Args:
        order: a model of the order of activities.
        dataset: made by `preprocess` of a manifest with segments.
        split: `train`, `val` or `test`.

    Raises:
        DatasetError: there are no films in the split or to count in, or they show activities that the model lacks.
    """
    labels, path = order.info.words, dataset.dataset_dir
    films = films_of(sample for sample in dataset.samples if sample.split == split)
    others = (sample for sample in dataset.samples if sample.split in ("train", "val") and sample.split != split)
    trained = list(films_of(others).values())
    for found, where in ((films, f"of the split {split}"), (trained, "of the splits train and val beside it")):
        if not found:
            raise DatasetError(f"no video {where} has two or more labelled segments", path=path)
    if unknown := {label for film in films.values() for label in film} - set(labels):
        raise DatasetError(f"shows activities that the model has not seen: {name_some(unknown)}", path=path)
    pairs = Counter(pair for film in trained for pair in zip(film, film[1:], strict=False))
    counts = Counter(label for film in trained for label in film)
    total = sum(counts.values())

    def by_frequency(label: str) -> float:
        return (counts[label] + _PSEUDO_COUNT) / (total + _PSEUDO_COUNT * len(labels))

    def by_last(before: str, label: str) -> float:
        followed = sum(count for (first, _), count in pairs.items() if first == before)
        return (pairs[before, label] + len(labels) * by_frequency(label)) / (followed + len(labels))

    def of(film: Sequence[str]) -> tuple[float, float, float]:
        frequency = [-np.log(by_frequency(label)) for label in film]
        last = [frequency[0], *(-np.log(by_last(a, b)) for a, b in zip(film, film[1:], strict=False))]
        return float(surprises(order, film).mean()), float(np.mean(last)), float(np.mean(frequency))

    model, last, frequency = np.asarray([of(film) for film in films.values()]).T
    return OrderEvaluation(list(films), model, last, frequency)
