"""Train and evaluate once per fold of groups, beside a baseline on the same features."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.samples import name_some
from activity.datasets.splits import assign_folds, audit_leaks
from activity.datasets.steps import labels_of_steps
from activity.errors import DatasetError, printable
from activity.evaluation.evaluator import Evaluation, predict_head_alone
from activity.evaluation.films import FilmEvaluation, evaluate_films, films_to_evaluate, join_films
from activity.evaluation.linear import baseline_probabilities
from activity.evaluation.metrics import Mean, Scores, mean_and_error
from activity.evaluation.steps import SegmentSteps
from activity.models.backend import keras
from activity.progress import progress_bar
from activity.runtimes.features import extract_features
from activity.training.preparation import backbone_of, check_labels, with_given_features
from activity.training.stages import stage_names
from activity.training.steps import check_recipe, step_spec
from activity.training.trainer import train

_CrossValidation = TypeVar("_CrossValidation", bound="CrossValidation")


@dataclass(frozen=True)
class CrossValidation(Evaluation):
    """Pooled scores of all folds, each sample predicted once.

    Spreads and standard errors are over the folds, two or more, so that clips of one group count as one: `deviation /
    sqrt(K)`; intervals are over the groups. Folds share training videos, so the true error is rather larger; no
    unbiased estimate of it exists (Bengio and Grandvalet 2004, jmlr.org/papers/v5/grandvalet04a.html).

    Attributes:
        baseline: scores of mean features and logistic regression in the same folds.
        folds: name of the fold of each sample.
    """

    title: ClassVar[str] = "Cross-validation"

    baseline: Scores = field()
    folds: list[str]

    @property
    def fold_accuracies(self) -> dict[str, float]:
        """Fold -> accuracy on its samples."""
        return {fold: scores.accuracy for fold, scores in self._by_fold(self.scores).items()}

    @property
    def fold_macro_f1(self) -> dict[str, float]:
        """Fold -> macro-F1 on its samples, over the labels that occur there."""
        return {fold: scores.macro_f1 for fold, scores in self._by_fold(self.scores).items()}

    @property
    def baseline_fold_accuracies(self) -> dict[str, float]:
        """Fold -> accuracy of the baseline on its samples."""
        return {fold: scores.accuracy for fold, scores in self._by_fold(self.baseline).items()}

    @property
    def standard_error(self) -> float:
        """Standard error of the mean of `fold_accuracies`."""
        return mean_and_error(list(self.fold_accuracies.values()))[1]

    @cached_property
    def lead(self) -> Mean:
        """Mean over folds of the accuracy less that of the baseline, and the standard error of this paired difference.

        Both are scored on the same samples, so how hard a fold is drops out of the difference. The interval is that of
        all samples, over their groups.
        """
        ours, theirs, pooled = self.fold_accuracies, self.baseline_fold_accuracies, super().lead
        assert pooled is not None
        mean, error = mean_and_error([ours[fold] - theirs[fold] for fold in ours])
        return dataclasses.replace(pooled, value=mean, standard_error=error)

    @property
    def _paired(self) -> str:
        return f"paired over {len(self.fold_accuracies)} folds"

    def as_dict(self) -> dict[str, Any]:
        """The pooled scores, accuracy (`folds`) and macro-F1 by fold, and the baseline; ready for JSON."""
        return {
            **super().as_dict(),
            "folds": self.fold_accuracies,
            "fold_macro_f1": self.fold_macro_f1,
            "standard_error": self.standard_error,
            "baseline_folds": self.baseline_fold_accuracies,
        }

    def as_text(self) -> str:
        """The same for a terminal."""
        accuracies, f1s = list(self.fold_accuracies.values()), list(self.fold_macro_f1.values())
        return (
            f"{super().as_text()}\n\n"
            f"{len(accuracies)} folds: mean {np.mean(accuracies):.3f}, "
            f"standard deviation {np.std(accuracies, ddof=1):.3f}, standard error {self.standard_error:.3f}, "
            f"lowest {min(accuracies):.3f}, highest {max(accuracies):.3f}\n"
            f"macro-F1 over the folds: mean {np.mean(f1s):.3f}, standard deviation {np.std(f1s, ddof=1):.3f}"
        )

    def headline(self) -> list[tuple[str, str, str]]:
        """The numbers that count most, also over the folds: the name, value and detail of each."""
        *pooled, calibration = super().headline()
        over_folds = []
        for name, by_fold in (("accuracy", self.fold_accuracies), ("macro-F1", self.fold_macro_f1)):
            values = list(by_fold.values())
            spread = f"{np.mean(values):.3f} \N{PLUS-MINUS SIGN} {np.std(values, ddof=1):.3f}"
            over_folds.append((f"{name} over folds", spread, f"standard deviation, {len(values)} folds"))
        return [*pooled, *over_folds, calibration]

    def sentences(self, dataset: Dataset, trained: Iterable[str] = ()) -> list[str]:
        """Sentences on what was evaluated, on whether the scores can be believed, and on the baseline."""
        audit = audit_leaks(self.samples, self.folds, trained=trained)
        return [
            f"{len(self.samples)} videos of {audit.num_groups} groups in {len(self.fold_accuracies)} folds, each "
            f"predicted by a model that was trained without it; {dataset.spec}.",
            *audit.sentences(),
            *self._on_intervals(),
            f"Standard error of the accuracy over the folds: {self.standard_error:.3f}.",
        ]

    def figures(self, dataset: Dataset) -> dict[str, tuple[Any, ...]]:
        """Figure -> the arguments that it is drawn from, also `folds`: accuracies of model and baseline by fold."""
        return {**super().figures(dataset), "folds": (self.fold_accuracies, self.baseline_fold_accuracies)}

    def rows(self) -> list[dict[str, object]]:
        """A row for each sample, with its `fold`."""
        return [{**row, "fold": fold} for row, fold in zip(super().rows(), self.folds, strict=True)]

    def printable(self: _CrossValidation) -> _CrossValidation:
        """A copy with names that fonts and UTF-8 take."""
        return dataclasses.replace(super().printable(), folds=list(map(printable, self.folds)))

    def _by_fold(self, scores: Scores) -> dict[str, Scores]:
        folds = np.asarray(self.folds)
        return {
            fold: Scores(scores.probabilities[folds == fold], scores.label_ids[folds == fold], scores.labels)
            for fold in sorted(set(self.folds))
        }


def cross_validate(
    dataset: Dataset,
    config: TrainConfig,
    *,
    folds: str = "5",
    work_dir: Path,
    runtime: str = "auto",
    films: bool = True,
) -> CrossValidation:
    """Train and evaluate a classifier once per fold, so that each sample is predicted by one that never saw its group.

    The splits of the data set are not used: nothing is chosen by a validation split, so all other folds are trained on.

    Args:
        dataset: made by `preprocess`.
        config: how to train.
        folds: a number K of group folds, `groups` (leave one group out), or a column of the manifest.
        work_dir: for the state of the runs.
        runtime: what computes the features; see `activity.runtimes.exported`.
        films: label whole films too, where samples are segments of them, each by the model that never saw its group.

    Raises:
        DatasetError: the folds cannot be made.
    """
    if config.labels_per == "step":  # rows without a label tell what is not known of a film
        check_recipe(config)
        dataset = with_given_features(dataset, config)
        labels, samples = list(labels_of_steps(dataset, config)), [x for x in dataset.samples if x.label]
    else:
        dataset = with_given_features(dataset.labelled(), config)
        labels, samples = dataset.labels, dataset.samples
    parts = divide_folds(
        dataset, folds, seed=config.seed, fewest_labels=2 - (len(labels) - len(dataset.labels)) - config.multi_label
    )
    probabilities, baseline, of_head = np.zeros((3, len(samples), len(labels)))
    thresholds, are_stacks = np.zeros(len(samples)), True
    label_ids = np.asarray([labels.index(sample.label) for sample in samples])
    assigned = [""] * len(samples)
    films = films and bool(films_to_evaluate(dataset))
    of_films: list[FilmEvaluation] = []
    predicted = evaluate_folds(parts, config, work_dir=work_dir, runtime=runtime, films=films)
    for fold in progress_bar(predicted, total=len(parts), desc="cross-validation", unit="fold"):
        probabilities[fold.test] = fold.probabilities
        baseline[fold.test] = baseline_probabilities(fold.features, label_ids, fold.test, len(labels))
        thresholds[fold.test] = fold.threshold
        of_films += [fold.films] if fold.films else []
        if fold.head_alone is None:
            are_stacks = False
        else:
            of_head[fold.test] = fold.head_alone
        for index in np.flatnonzero(fold.test):
            assigned[index] = fold.name
    return CrossValidation(
        samples,
        Scores(probabilities, label_ids, labels),
        Scores(baseline, label_ids, labels),
        assigned,
        head_alone=Scores(of_head, label_ids, labels) if are_stacks else None,
        thresholds=thresholds if thresholds.any() else None,
        films=join_films(of_films),
    )


@dataclass(frozen=True)
class FoldResult:
    """Predictions for one fold of a cross-validation, by a classifier that was trained on all the others.

    Attributes:
        name: of the fold.
        test: `(N,)` bool, the samples of the fold among all N that have a label.
        probabilities: `(n, C)` of those n samples.
        features: `(T, S, D)` of all N samples, by the backbone of that classifier.
        threshold: of that classifier.
        head_alone: probabilities `(n, C)` by its head alone, if it is a stack.
        films: whole films of the fold, if they were asked for.
    """

    name: str
    test: np.ndarray
    probabilities: np.ndarray
    features: Sequence[np.ndarray]
    threshold: float = 0.0
    head_alone: np.ndarray | None = None
    films: FilmEvaluation | None = None


def divide_folds(dataset: Dataset, folds: str, *, seed: int = 0, fewest_labels: int = 2) -> dict[str, Dataset]:
    """For each fold the data set with that fold as its test split and all other samples as its train split.

    The splits of the data set do not count; `folds` is as for `cross_validate`.

    Raises:
        DatasetError: the folds cannot be made, or one leaves a label without training videos.
    """
    assigned = assign_folds(dataset.samples, folds, seed=seed)
    pairs = list(zip(dataset.samples, assigned, strict=True))
    parts = {}
    for fold in sorted(set(assigned)):
        samples = [dataclasses.replace(x, split="test" if of == fold else "train") for x, of in pairs]
        parts[fold] = dataclasses.replace(dataset, samples=samples)
        try:
            check_labels(parts[fold], fewest=fewest_labels)  # all before the first is trained
        except DatasetError as error:
            raise DatasetError(f"fold {fold}: {error}") from error
    return parts


def evaluate_folds(
    parts: Mapping[str, Dataset],
    config: TrainConfig,
    *,
    work_dir: Path,
    backbone: keras.Model | None = None,
    runtime: str = "auto",
    films: bool = False,
) -> Iterator[FoldResult]:
    """Train and evaluate one fold after the other; the caller may stop early.

    Args:
        parts: made by `divide_folds`.
        config: how to train.
        work_dir: for the state of the runs.
        backbone: that of `config`, if it is available; it must stay frozen.
        runtime: what computes the features; see `activity.runtimes.exported`.
        films: label the whole films of each fold too.
    """
    stacks: Sequence[np.ndarray]
    features = segments = None
    if stage_names(config) == ["head"]:  # the backbone stays as it is, so once is enough for all folds
        dataset = next(iter(parts.values()))
        backbone = backbone or backbone_of(dataset, config)
        if config.labels_per == "step":
            segments = _read_segments(dataset, backbone, runtime)
        else:
            features = extract_features(dataset, dataset.samples, backbone, runtime=runtime)
    for number, (fold, part) in enumerate(parts.items()):
        with _graphs_freed():
            run = train(part, config, work_dir=work_dir / str(number), backbone=backbone, runtime=runtime)
            classifier = run.classifier
            test = np.asarray([sample.split == "test" for sample in part.samples if sample.label])
            held_out = np.flatnonzero(test).tolist()
            if segments:
                probabilities, of_head, stacks = segments.predict(classifier, held_out), None, segments.stacks
            else:
                stacks = features or extract_features(
                    part, part.samples, classifier.backbone, keep=False, runtime=runtime
                )
                probabilities = classifier.predict_stacks(stacks[i] for i in held_out)
                of_head = predict_head_alone(classifier, (stacks[i] for i in held_out))
            of_films = None
            if films:
                whole = films_to_evaluate(part, "test")
                of_films = evaluate_films(classifier, part, whole, runtime=runtime, fold=fold)
            result = FoldResult(fold, test, probabilities, stacks, classifier.threshold, of_head, of_films)
            del run, classifier
        yield result


def _read_segments(dataset: Dataset, backbone: keras.Model, runtime: str) -> SegmentSteps:
    """All labelled segments of a data set, in its order; raises `DatasetError` if a film cannot be read."""
    segments = SegmentSteps.of(dataset, dataset.samples, step_spec(dataset), backbone, runtime=runtime)
    if absent := {sample.path for sample in dataset.samples if sample.label} - set(segments.films):
        hint = "run the same preprocess command again, which lists them"
        raise DatasetError(f"films cannot be read: {name_some(absent)}", path=dataset.videos_dir, hint=hint)
    return segments


@contextlib.contextmanager
def _graphs_freed() -> Iterator[None]:
    """Let go of the graphs of a fold, and with them of its features: a search has hundreds of folds.

    Keras lets go of its own. TensorFlow, up to 2.21 at least, keeps each graph with a custom gradient, as Keras'
    optimizers make one (github.com/tensorflow/tensorflow/issues/97697).
    """
    gradients: dict[str, Any] = {}
    if keras.backend.backend() == "tensorflow":
        with contextlib.suppress(ImportError, AttributeError):  # it is TensorFlow's own, and may move
            from tensorflow.python.framework.ops import gradient_registry

            gradients = gradient_registry._registry
    before = set(gradients)
    yield
    for name in set(gradients) - before:
        if name.startswith("CustomGradient-"):
            del gradients[name]
    keras.utils.clear_session()
