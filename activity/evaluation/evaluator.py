"""How good a classifier is on samples it was not trained on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from activity.datasets.dataset import Dataset, time_columns
from activity.datasets.samples import Sample, name_some
from activity.datasets.splits import audit_leaks
from activity.errors import DatasetError, printable
from activity.evaluation.metrics import Scores, expected_calibration_error
from activity.models.classifier import ActivityClassifier
from activity.models.network import LONG_CLIPS
from activity.runtimes.features import extract_features

_Evaluation = TypeVar("_Evaluation", bound="Evaluation")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores, the samples they were computed on (in the same order), and all that a report says and draws of them.

    Attributes:
        samples: of one split.
        scores: of the classifier on them; they take the most probable label, however unlikely.
    """

    title: ClassVar[str] = "Evaluation"

    samples: list[Sample]
    scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """The scores, see `Scores.as_dict`; ready for JSON."""
        return self.scores.as_dict()

    def as_text(self) -> str:
        """The scores for a terminal."""
        return self.scores.as_text()

    def headline(self) -> list[tuple[str, str, str]]:
        """The numbers that count most: the name, value and detail of each."""
        scores = self.scores
        error = expected_calibration_error(scores.confidences, scores.correct)
        return [
            ("accuracy", f"{scores.accuracy:.3f}", f"{scores.correct.sum()} of {len(scores.correct)} videos"),
            ("macro-F1", f"{scores.macro_f1:.3f}", f"{len(scores.labels) - len(scores.absent)} labels"),
            *((f"top-{k}", f"{scores.top_k_accuracy(k):.3f}", "") for k in (3, 5) if k < len(scores.labels)),
            ("expected calibration error", f"{error:.3f}", "0 is best"),
        ]

    def sentences(self, dataset: Dataset, trained: Iterable[str] = ()) -> list[str]:
        """Sentences on what was evaluated, and on whether the scores can be believed.

        Args:
            dataset: that the samples are of.
            trained: contents of the training videos, as for `activity.datasets.splits.audit_leaks`.
        """
        audit = audit_leaks(dataset.samples, scored=self.samples, trained=trained)
        splits = " + ".join(sorted({sample.split for sample in self.samples}))
        about = f"{len(self.samples)} videos of {audit.num_groups} groups of the split {splits}; {dataset.spec}."
        absent = self.scores.absent
        left_out = [f"No videos of {name_some(absent)}: the macro-F1 leaves out these labels."] if absent else []
        return [about, *left_out, *audit.sentences()]

    def figures(self, dataset: Dataset) -> dict[str, tuple[Any, ...]]:
        """Figure -> the arguments that it is drawn from; the report knows how to draw each, and in which order.

        `classes` and `confusion`: the scores. `confidence`: confidences and correctness, `(N,)` each. `mistakes`: the
        evaluation and the data set.
        """
        scores = self.scores
        confidence = (scores.confidences, scores.correct)
        return {"classes": (scores,), "confusion": (scores,), "confidence": confidence, "mistakes": (self, dataset)}

    def rows(self) -> list[dict[str, object]]:
        """A row for each sample, in their order: `path`, times of segments, `label`, `predicted`, `probability`."""
        columns = ("path", *time_columns(self.samples), "label")
        predicted = [self.scores.labels[best] for best in self.scores.predicted_ids]
        return [
            {**{name: getattr(sample, name) for name in columns}, "predicted": label, "probability": confidence}
            for sample, label, confidence in zip(self.samples, predicted, self.scores.confidences.tolist(), strict=True)
        ]

    def printable(self: _Evaluation) -> _Evaluation:
        """A copy with names that fonts and UTF-8 take: bytes of names that are not UTF-8 are spelled out."""
        samples = [dataclasses.replace(s, path=printable(s.path), label=printable(s.label)) for s in self.samples]
        scores = dataclasses.replace(self.scores, labels=[printable(label) for label in self.scores.labels])
        return dataclasses.replace(self, samples=samples, scores=scores)

    def above(self, threshold: float) -> tuple[float, float]:
        """Fraction of the answers with at least this confidence, and fraction of them that is correct (`nan`: none)."""
        given = self.scores.confidences >= threshold
        return float(given.mean()), float(self.scores.correct[given].mean()) if given.any() else float("nan")

    def ranking(self) -> list[int]:
        """Indices of all samples: mistakes from the most confident, then correct answers from the least confident."""
        correct, confidences = self.scores.correct, self.scores.confidences
        return np.lexsort((np.where(correct, confidences, -confidences), correct)).tolist()

    def worst_mistakes(self, most: int = 12) -> list[int]:
        """Indices of wrong answers, the most confident first."""
        return [index for index in self.ranking() if not self.scores.correct[index]][:most]


def evaluate(
    classifier: ActivityClassifier,
    dataset: Dataset,
    *,
    split: str = "test",
    shuffle_seed: int | None = None,
    runtime: str = "auto",
) -> Evaluation:
    """Evaluate a classifier on one split of a data set.

    Args:
        classifier: from training or a model file.
        dataset: made by `preprocess` with the model's spec.
        split: `train`, `val` or `test`.
        shuffle_seed: put the frames of each video in a random order: what is left of the score does not need time.
        runtime: what computes the features; see `activity.runtimes.choice`.

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
    audit = audit_leaks(dataset.samples, scored=samples, trained=classifier.info.record.trained)
    if audit.on_videos:
        _logger.warning(audit.on_videos)
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
    expected, held, same = classifier.spec, dataset.spec, ["streams"]
    hint = "run preprocess with the model's settings"
    if bool(expected.num_features) != bool(held.num_features):
        hint = "name their folder with --features" if expected.num_features else "leave out --features"
    elif expected.num_features != held.num_features:
        hint = "give the features of the network that it was trained with"
    elif expected.num_features:
        same += ["height", "width", "resize"]  # rows have none
    fits = set(expected.streams) <= set(held.streams)
    if not fits or dataclasses.replace(held, **{name: getattr(expected, name) for name in same}) != expected:
        raise DatasetError(
            f"does not fit this model, which expects {expected}; the data set holds {held}; {hint}",
            path=dataset.dataset_dir,
        )
