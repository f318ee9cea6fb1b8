"""How good a classifier is on samples it was not trained on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample, content_of, file_of
from activity.errors import DatasetError
from activity.evaluation.metrics import Scores
from activity.models.classifier import ActivityClassifier
from activity.models.network import LONG_CLIPS
from activity.runtimes.features import extract_features

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores and the samples they were made on, in the same order.

    Attributes:
        samples: of one split.
        scores: of the classifier on them; they take the most probable label, however unlikely.
    """

    samples: list[Sample]
    scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """The scores, see `Scores.as_dict`; ready for JSON."""
        return self.scores.as_dict()

    def as_text(self) -> str:
        """The scores for a terminal."""
        return self.scores.as_text()

    def above(self, threshold: float) -> tuple[float, float]:
        """Of the answers at least so sure: their share of all, and the share of them that is right (`nan` of none)."""
        given = self.scores.confidences >= threshold
        return float(given.mean()), float(self.scores.correct[given].mean()) if given.any() else float("nan")

    def worst_mistakes(self, most: int = 12) -> list[int]:
        """Indices of wrong answers, the most confident first."""
        wrong = np.flatnonzero(~self.scores.correct)
        return wrong[np.argsort(-self.scores.confidences[wrong], kind="stable")][:most].tolist()


def evaluate(
    classifier: ActivityClassifier,
    dataset: Dataset,
    *,
    split: str = "test",
    shuffle_seed: int | None = None,
    runtime: str = "auto",
) -> Evaluation:
    """Judge one split of a data set.

    Args:
        classifier: from training or a model file.
        dataset: made by `preprocess` with the model's spec.
        split: `train`, `val` or `test`.
        shuffle_seed: put the frames of each video in a random order: what is left of the score does not need time.
        runtime: what computes the features; see `activity.runtimes.exported`.

    Raises:
        DatasetError: the split is empty, or the data set was made with another spec or has labels the model lacks.
    """
    check_fits(classifier, dataset)
    dataset = dataset.with_streams(classifier.spec.streams)
    samples = dataset.split(split)
    _warn_of_bias(classifier, dataset, samples)
    features = extract_features(dataset, samples, classifier.backbone, keep=False, runtime=runtime)
    if shuffle_seed is not None:
        rng = np.random.default_rng(shuffle_seed)
        features = [stack[rng.permutation(len(stack))] for stack in features]
    probabilities = classifier.predict_stacks(features)
    label_ids = [classifier.labels.index(sample.label) for sample in samples]
    return Evaluation(samples, Scores(probabilities, np.asarray(label_ids), classifier.labels))


def _warn_of_bias(classifier: ActivityClassifier, dataset: Dataset, samples: Sequence[Sample]) -> None:
    trained = set(map(file_of, classifier.record.get("taught", ())))
    known = [sample for sample in samples if file_of(content_of(sample)) in trained]
    if known:
        _logger.warning(
            "%d of these %d videos are training videos of this model: the score is too optimistic",
            len(known),
            len(samples),
        )
    longest = LONG_CLIPS * classifier.clip_seconds
    too_long = [sample for sample in samples if sample.duration_seconds > longest]
    if too_long and dataset.spec.frames_per_second is None:
        _logger.warning(
            "%d of these %d videos are longer than %.1f s, twice the longest of training; classify reads such videos "
            "in windows and may answer otherwise",
            len(too_long),
            len(samples),
            longest,
        )


def check_fits(classifier: ActivityClassifier, dataset: Dataset) -> None:
    """Raise `DatasetError` unless the data set holds the input that the model expects, and only labels it knows."""
    check_spec(classifier, dataset)
    unknown = sorted(set(dataset.labels) - set(classifier.labels))
    if unknown:
        raise DatasetError(
            f"has labels the model does not know: {', '.join(unknown)}; it knows {', '.join(classifier.labels)}",
            path=dataset.dataset_dir,
        )


def check_spec(classifier: ActivityClassifier, dataset: Dataset) -> None:
    """Raise `DatasetError` unless the data set holds the input that the model expects."""
    lacks = set(classifier.spec.streams) - set(dataset.spec.streams)
    if lacks or dataclasses.replace(dataset.spec, streams=classifier.spec.streams) != classifier.spec:
        raise DatasetError(
            f"does not fit this model, which expects {classifier.spec}; the data set holds "
            f"{dataset.spec}; run preprocess with the model's settings",
            path=dataset.dataset_dir,
        )
