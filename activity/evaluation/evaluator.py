"""How good a classifier is on samples it was not trained on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, TypeVar

import numpy as np

from activity.datasets.arrays import StackTable
from activity.datasets.dataset import Dataset, time_columns
from activity.datasets.samples import Sample, name_some
from activity.datasets.splits import audit_leaks
from activity.errors import DatasetError, check_type, printable
from activity.evaluation.films import FilmEvaluation, evaluate_films, films_to_evaluate, join_films
from activity.evaluation.linear import baseline_probabilities
from activity.evaluation.metrics import Mean, Scores, compared, how_drawn, near_chance, share_of_largest
from activity.evaluation.steps import SegmentSteps
from activity.models.classifier import ActivityClassifier, predict
from activity.models.info import ModelInfo, unknown_name
from activity.models.network import LONG_CLIPS, InferenceModel
from activity.models.stack import is_stack, stacked_head
from activity.runtimes.features import extract_features

_Evaluation = TypeVar("_Evaluation", bound="Evaluation")

_BASELINE = "logistic regression on the mean feature of each video"
_FEWEST_ANSWERS = 30  # of fewer, a precision says little

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores, the samples they were computed on (in the same order), and all that a report says and draws of them.

    Attributes:
        samples: of one split.
        scores: of the classifier on them; they take the most probable label, however unlikely.
        baseline: scores of logistic regression on the mean feature of each video; `None` where it cannot be had.
        head_alone: scores of the head of a stack without its linear models; `None` for any other model.
        thresholds: `(N,)` probability below which the answer for each sample is "unknown"; `None`: always an answer.
        films: scores of whole films; `None` where no sample has times, or no film can be read.
    """

    title: ClassVar[str] = "Evaluation"

    samples: list[Sample]
    scores: Scores
    baseline: Scores | None = field(default=None, kw_only=True)
    head_alone: Scores | None = field(default=None, kw_only=True)
    thresholds: np.ndarray | None = field(default=None, kw_only=True)
    films: FilmEvaluation | None = field(default=None, kw_only=True)

    @property
    def groups(self) -> list[str]:
        """The group of each sample."""
        return [sample.group for sample in self.samples]

    @cached_property
    def accuracy(self) -> Mean:
        """Fraction of the samples whose most probable label is the true one."""
        return Mean.of(self.scores.correct, self.groups)

    @cached_property
    def lead(self) -> Mean | None:
        """Accuracy less that of the baseline, paired: how hard a sample is drops out. `None` without a baseline."""
        if self.baseline is None:
            return None
        return Mean.of(self.scores.correct.astype(int) - self.baseline.correct, self.groups, lowest=-1)

    @property
    def answered(self) -> np.ndarray:
        """`(N,)` bool: the answer is confident enough to be given."""
        return np.asarray(self.scores.confidences >= (0 if self.thresholds is None else self.thresholds))

    @cached_property
    def coverage(self) -> Mean:
        """Fraction of the samples that get an answer."""
        return Mean.of(self.answered, self.groups)

    @cached_property
    def precision(self) -> Mean | None:
        """Fraction of the given answers that is correct; `None` if there are none."""
        given = np.flatnonzero(self.answered)
        return Mean.of(self.scores.correct[given], [self.groups[i] for i in given]) if len(given) else None

    def as_dict(self) -> dict[str, Any]:
        """The scores, see `Scores.as_dict`, and what stands beside them (`None`: there is none); ready for JSON.

        Those of films, see `FilmEvaluation.as_dict`, are there only if there are films.
        """
        baseline, head, lead = self.baseline, self.head_alone, self.lead
        means = {"accuracy": self.accuracy, "lead": lead, "coverage": self.coverage, "precision": self.precision}
        return {
            **self.scores.as_dict(),
            "expected_calibration_error": self.scores.calibration_error,
            "num_groups": len(set(self.groups)),
            "baseline_accuracy": baseline and baseline.accuracy,
            "baseline_macro_f1": baseline and baseline.macro_f1,
            "lead": lead and {"accuracy": lead.value, "standard_error": lead.standard_error},
            "head_accuracy": head and head.accuracy,
            "head_macro_f1": head and head.macro_f1,
            "coverage": self.coverage.value,
            "precision": self.precision and self.precision.value,
            "intervals": {name: mean and [mean.low, mean.high] for name, mean in means.items()},
            **(self.films.as_dict() if self.films else {}),
        }

    def as_text(self) -> str:
        """The scores for a terminal."""
        return self.scores.as_text(self._notes())

    def _notes(self) -> list[str]:
        """A line on each thing that stands beside the accuracy."""
        lead = f"; lead over the baseline {self.lead.limits('+.3f')}" if self.lead else ""
        rows = {
            "95 % interval": f"accuracy {self.accuracy.limits()}{lead}; {self._method}",
            "baseline": self.baseline and f"{_brief(self.baseline)} ({_BASELINE})",
            "": self.verdict(),
            "chance": self.chance(),
            "head alone": self.head_alone and f"{_brief(self.head_alone)} (without the linear models of the stack)",
            "calibration": f"expected calibration error {self.scores.calibration_error:.3f}",
            "answers": self.on_answers(),
            **(self.films.notes() if self.films else {}),
        }
        return [f"{name:16} {text}" for name, text in rows.items() if text]

    @property
    def _method(self) -> str:
        of_answers = [] if self.thresholds is None else [self.coverage, self.precision]
        any_exact = any(mean.is_exact for mean in (self.accuracy, self.lead, *of_answers) if mean)
        return how_drawn(self.groups) + ("; exact (binomial) where all videos are alike" if any_exact else "")

    def chance(self) -> str:
        """Whether the model is near to answering always the same; empty if it is clearly better."""
        share = share_of_largest(self.scores.label_ids)
        return near_chance(self.accuracy.value, self.accuracy.standard_error, share)

    def verdict(self) -> str:
        """Whether the model is better than the baseline, and what to do if it is worse; empty without a baseline."""
        if self.lead is None:
            return ""
        lead, error = self.lead.value, self.lead.standard_error
        words = compared(lead, error, "the baseline", (self.lead.low, self.lead.high))
        advice = " Try --head pooled, more --epochs, or activity tune." if "worse than" in words else ""
        return f"The model is {words} ({lead:+.3f} +- {error:.3f}, {self._paired}).{advice}"

    @property
    def _paired(self) -> str:
        return f"paired over {len(self.samples)} videos"

    def on_answers(self) -> str:
        """How many answers a model with a threshold gives, and how many of these are correct; else empty."""
        if self.thresholds is None:
            return ""
        limits = self.thresholds[self.thresholds > 0]
        below = " to ".join(f"{limit:.3f}" for limit in sorted({limits.min(), limits.max()}))
        if always := len(self.thresholds) - len(limits):  # of folds whose models could not be calibrated
            below += f" (but for {always} videos, whose models have no threshold)"
        text = f'"{unknown_name(self.scores.labels)}" below {below}: {self.coverage.value:.0%} of the videos get an '
        text += f"answer (95 % interval {self.coverage.limits('.0%')})"
        if self.precision:
            text += f", {self.precision.value:.3f} of these are correct ({self.precision.limits()})"
        return f"{text}; {self._too_few}" if self._too_few else text

    @property
    def _too_few(self) -> str:
        count = int(self.answered.sum())
        return f"{count} answers are too few to judge the precision" if 0 < count < _FEWEST_ANSWERS else ""

    def headline(self) -> list[tuple[str, str, str]]:
        """The numbers that count most: the name, value and detail of each."""
        scores, num_samples, num_answers = self.scores, len(self.samples), int(self.answered.sum())

        def of(count: int, mean: Mean, form: str = ".3f") -> tuple[str, str]:
            return f"{mean.value:{form}}", f"{count} of {num_samples} videos, 95 %: {mean.limits(form)}"

        cards = [("accuracy", *of(int(scores.correct.sum()), self.accuracy))]
        if self.baseline and self.lead:
            detail = f"lead {self.lead.value:+.3f}, 95 %: {self.lead.limits('+.3f')}"
            cards.append(("baseline accuracy", f"{self.baseline.accuracy:.3f}", detail))
        if self.head_alone:
            cards.append(("accuracy of the head alone", f"{self.head_alone.accuracy:.3f}", "without the linear models"))
        cards.append(("macro-F1", f"{scores.macro_f1:.3f}", f"{len(scores.labels) - len(scores.absent)} labels"))
        cards += [(f"top-{k}", f"{scores.top_k_accuracy(k):.3f}", "") for k in (3, 5) if k < len(scores.labels)]
        if self.thresholds is not None:
            cards.append(("answered", *of(num_answers, self.coverage, ".0%")))
            if self.precision:
                detail = f"of {num_answers} answers, 95 %: {self.precision.limits()}"
                cards.append(("precision", f"{self.precision.value:.3f}", detail))
        cards += self.films.headline() if self.films else []
        return [*cards, ("expected calibration error", f"{scores.calibration_error:.3f}", "0 is best")]

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
        return [about, *left_out, *audit.sentences(), *self._on_intervals()]

    def _on_intervals(self) -> list[str]:
        """Sentences on the baseline, the intervals, the answers that are given, and whole films."""
        lines = [f"Intervals are of 95 %, {self._method}."]
        if self.lead:
            lines.insert(0, f"{self.verdict()} The baseline is {_BASELINE}.")
        if chance := self.chance():
            lines.append(f"The model is {chance}.")
        lines += [f"{answers}." for answers in [self.on_answers()] if answers]
        return lines + (self.films.sentences() if self.films else [])

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
        return dataclasses.replace(self, samples=samples, scores=scores, films=self.films and self.films.printable())

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
    baseline: bool = True,
    films: bool = True,
) -> Evaluation:
    """Evaluate a classifier on one split of a data set, beside a baseline that is trained on its other videos.

    Where samples are segments of videos, the whole videos are labelled too, see `activity.evaluation.films`. Nothing is
    written into the data set. Features of training videos are in its cache after a training with a frozen backbone;
    else, as after fine-tuning, the baseline takes the time to compute them.

    Args:
        classifier: from training or a model file.
        dataset: made by `preprocess` with the model's spec.
        split: `train`, `val` or `test`.
        shuffle_seed: put the frames of each video in a random order: what is left of the score does not need time.
        runtime: what computes the features; see `activity.runtimes.choice`.
        baseline: compute it where that is possible; where not, a line says why.
        films: label whole films, where there are any and their frames are not shuffled; this decodes them.

    Raises:
        SettingError: an argument is of another type, such as the name of a file.
        DatasetError: the split is empty, or the data set was made with another spec or has labels the model lacks.
    """
    check_type("classifier", classifier, ActivityClassifier, "a classifier, as train and load_classifier give it")
    check_type("dataset", dataset, Dataset, "a Dataset, as preprocess and load_dataset give it")
    dataset = dataset.labelled()
    check_fits(classifier, dataset)
    dataset = dataset.with_streams(classifier.spec.streams)
    samples = dataset.split(split)
    _warn_of_bias(classifier, dataset, samples)
    if classifier.info.labels_per == "step":
        of_segments = _evaluate_steps(classifier, dataset, samples, shuffle_seed, runtime, baseline)
        whole = films_to_evaluate(dataset, split) if films and shuffle_seed is None else []
        of_films = join_films([evaluate_films(classifier, dataset, whole, runtime=runtime)])
        return dataclasses.replace(of_segments, films=of_films)
    features = extract_features(dataset, samples, classifier.backbone, keep=False, runtime=runtime)
    of_baseline = _baseline_scores(classifier, dataset, samples, features, runtime) if baseline else None
    if shuffle_seed is not None:  # which leaves the means of the baseline as they are
        rng = np.random.default_rng(shuffle_seed)
        features = StackTable(stack[rng.permutation(len(stack))] for stack in features)
    label_ids, labels = _label_ids(classifier, samples), classifier.labels
    of_head = predict_head_alone(classifier, features)
    whole = films_to_evaluate(dataset, split) if films and shuffle_seed is None else []
    return Evaluation(
        samples,
        Scores(classifier.predict_stacks(features), label_ids, labels),
        baseline=of_baseline,
        head_alone=None if of_head is None else Scores(of_head, label_ids, labels),
        thresholds=np.full(len(samples), classifier.threshold) if classifier.threshold else None,
        films=join_films([evaluate_films(classifier, dataset, whole, runtime=runtime)]),
    )


def _evaluate_steps(
    classifier: ActivityClassifier,
    dataset: Dataset,
    samples: list[Sample],
    shuffle_seed: int | None,
    runtime: str,
    baseline: bool,
) -> Evaluation:
    """The same of a model of steps: a segment is predicted within its film, from its steps alone."""
    spec, backbone = classifier.spec, classifier.backbone
    segments = SegmentSteps.of(dataset, samples, spec, backbone, keep=False, runtime=runtime)
    if not segments.samples:
        raise DatasetError(f"none of its films can be read from {dataset.videos_dir}", path=dataset.dataset_dir)
    of_baseline = None
    if baseline:
        of_baseline = _baseline_scores(classifier, dataset, segments.samples, segments.stacks, runtime)
    if shuffle_seed is not None:
        segments = segments.shuffled(np.random.default_rng(shuffle_seed))
    label_ids, labels = _label_ids(classifier, segments.samples), classifier.labels
    return Evaluation(
        segments.samples,
        Scores(segments.predict(classifier, range(len(segments.samples))), label_ids, labels),
        baseline=of_baseline,
        thresholds=np.full(len(label_ids), classifier.threshold) if classifier.threshold else None,
    )


def predict_head_alone(classifier: ActivityClassifier, stacks: Iterable[np.ndarray]) -> np.ndarray | None:
    """Probabilities `(V, C)` of feature stacks `(N, S, D)` by the head of a stack without its linear models.

    They are not calibrated. `None` for any other classifier.
    """
    return _HeadAlone(classifier).predict_stacks(stacks) if is_stack(classifier.head) else None


class _HeadAlone(InferenceModel):
    def __init__(self, classifier: ActivityClassifier) -> None:
        self.info: ModelInfo = classifier.info
        self._head = stacked_head(classifier.head)

    def run_head(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return predict(self._head, {"features": features, "mask": mask})


def _baseline_scores(
    classifier: ActivityClassifier,
    dataset: Dataset,
    samples: Sequence[Sample],
    features: Sequence[np.ndarray],
    runtime: str,
) -> Scores | None:
    """Scores on samples by logistic regression on the mean features of the training videos; `None`, with a line why."""
    rest: Sequence[np.ndarray]
    try:
        training = training_samples(classifier, dataset, samples)
        if classifier.info.labels_per == "step":
            read = SegmentSteps.of(dataset, training, classifier.spec, classifier.backbone, keep=False, runtime=runtime)
            training, rest = read.samples, read.stacks
        else:
            rest = extract_features(dataset, training, classifier.backbone, keep=False, runtime=runtime)
    except DatasetError as error:  # the model itself does not need these videos
        _logger.warning("no baseline: %s", error)
        return None
    label_ids = _label_ids(classifier, [*samples, *training])
    is_scored = np.arange(len(label_ids)) < len(samples)
    probabilities = baseline_probabilities(chain(features, rest), label_ids, is_scored, len(classifier.labels))
    return Scores(probabilities, label_ids[is_scored], classifier.labels)


def training_samples(model: InferenceModel, dataset: Dataset, samples: Sequence[Sample]) -> list[Sample]:
    """What a baseline learns from: the splits `train` and `val` without the one that is scored.

    Raises:
        DatasetError: the model was trained on the scored samples, or these videos do not show all of their labels.
    """
    record, split = model.info.record, samples[0].split
    num_known = audit_leaks(dataset.samples, scored=samples, trained=record.trained).num_trained
    if split == "train" or (split == "val" and num_known and not record.num_videos.get("val")):
        raise DatasetError(f"the model was trained on the split {split}")
    training = [sample for sample in dataset.samples if sample.split in ("train", "val") and sample.split != split]
    absent = {sample.label for sample in samples} - {sample.label for sample in training}
    if not training or (model.labels and absent):
        raise DatasetError(f"the data set has no training videos of {name_some(absent) or 'anything'}")
    if model.labels and len({sample.label for sample in training}) < 2:
        raise DatasetError(f"all training videos of the data set are of {training[0].label}")
    num_new = len(training) - audit_leaks(training, trained=record.trained).num_trained
    if num_new and record.trained:
        _logger.warning(
            "the baseline is trained on %d videos of this data set, and the model was not trained on %d of them",
            len(training),
            num_new,
        )
    return training


def _label_ids(classifier: ActivityClassifier, samples: Sequence[Sample]) -> np.ndarray:
    return np.asarray([classifier.labels.index(sample.label) for sample in samples])


def _brief(scores: Scores) -> str:
    return f"accuracy {scores.accuracy:.3f}, macro-F1 {scores.macro_f1:.3f}"


def _warn_of_bias(classifier: ActivityClassifier, dataset: Dataset, samples: Sequence[Sample]) -> None:
    audit = audit_leaks(dataset.samples, scored=samples, trained=classifier.info.record.trained)
    if audit.on_videos:
        _logger.warning(audit.on_videos)
    longest = LONG_CLIPS * classifier.clip_seconds
    too_long = [sample for sample in samples if sample.duration_seconds > longest]
    if too_long and dataset.spec.frames_per_second is None and classifier.info.labels_per == "clip":
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


def check_spec(model: InferenceModel, dataset: Dataset) -> None:
    """Raise `DatasetError` unless the data set holds the input that the model expects."""
    expected, held, same = model.spec, dataset.spec, ["streams"]
    if model.info.labels_per == "step":  # reads whole films at a rate of its own
        same += ["num_frames", "frames_per_second"]
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
