"""Labelled segments as a model of steps sees them: parts of whole films, with what comes before and after in view."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activity.config import ClipSpec
from activity.datasets.arrays import StackTable
from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample
from activity.datasets.steps import films_of
from activity.models.backend import keras
from activity.models.network import InferenceModel
from activity.runtimes.features import extract_films


@dataclass(frozen=True)
class SegmentSteps:
    """Segments, and the features of the films that they are parts of.

    Attributes:
        samples: with a label, of films that could be read.
        films: features `(N, S, D)` of the steps of each film, by its path.
        parts: the steps of each sample in its film; one at least.
    """

    samples: list[Sample]
    films: dict[str, np.ndarray]
    parts: list[slice]

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        samples: Sequence[Sample],
        spec: ClipSpec,
        backbone: keras.Model,
        *,
        keep: bool = True,
        runtime: str = "auto",
    ) -> SegmentSteps:
        """Read the films of some samples; see `activity.runtimes.features.extract_films`.

        Args:
            dataset: of the samples, or of some of their films alone.
            samples: those without a label are left out, as are, with a line, those of films that cannot be read.
            spec: of the model of steps.
            backbone: computes the features.
            keep: write them into the data set folder.
            runtime: what computes them.
        """
        rate, paths = spec.frames_per_second, {sample.path for sample in samples}
        assert rate
        wholes = [film.whole(rate) for film in films_of(dataset) if film.path in paths]
        at_rate = dataclasses.replace(dataset, spec=spec)
        by_id = extract_films(at_rate, wholes, backbone, keep=keep, runtime=runtime)
        films = {film.path: by_id[film.sample_id] for film in wholes if film.sample_id in by_id}
        kept = [sample for sample in samples if sample.label and sample.path in films]
        return cls(kept, films, [_part(sample, len(films[sample.path]), rate) for sample in kept])

    @property
    def stacks(self) -> list[np.ndarray]:
        """Features `(n, S, D)` of the steps of each sample."""
        return [self.films[sample.path][part] for sample, part in zip(self.samples, self.parts, strict=True)]

    def shuffled(self, rng: np.random.Generator) -> SegmentSteps:
        """The same with the steps of each sample in a random order."""
        orders = {path: np.arange(len(stack)) for path, stack in self.films.items()}
        for sample, part in zip(self.samples, self.parts, strict=True):
            orders[sample.path][part] = rng.permutation(orders[sample.path][part])
        table = StackTable(self.films[path][order] for path, order in orders.items())
        return dataclasses.replace(self, films={path: table[i] for i, path in enumerate(orders)})

    def predict(self, model: InferenceModel, chosen: Sequence[int]) -> np.ndarray:
        """Probabilities `(len(chosen), C)` of some samples: the mean over their steps; rows sum to 1."""
        steps = functools.cache(lambda path: model.predict_film(self.films[path]))
        means = np.stack([steps(self.samples[i].path)[self.parts[i]].mean(axis=0) for i in chosen])
        return means / means.sum(axis=1, keepdims=True)  # several labels at once, too, share the whole


def _part(sample: Sample, num_steps: int, rate: float) -> slice:
    """The steps whose middles lie in a sample; the nearest one if there are none."""
    start, end = sample.span
    middles = (np.arange(num_steps) + 0.5) / rate
    first, stop = np.searchsorted(middles, [start, end]).tolist()
    if first == stop:
        first = min(first, num_steps - 1)
        stop = first + 1
    return slice(first, stop)
