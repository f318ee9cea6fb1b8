"""Continue training a model with new videos and, if need be, new labels, and measure forgetting.

Old and new are told apart by content: the record of a model lists the videos it was trained on and those held out
then. So the same data set folder can be brought up to date with new videos and used here as it is.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample, content_of, labels_of, name_some
from activity.errors import ActivityError, DatasetError, ModelFileError, SettingError
from activity.evaluation.evaluator import check_spec
from activity.models.backend import keras
from activity.models.classifier import ActivityClassifier
from activity.models.info import TrainingRecord
from activity.models.stack import is_stack, stacked_head
from activity.progress import format_table
from activity.runtimes.features import extract_features
from activity.training.preparation import merge_val
from activity.training.record import when
from activity.training.result import TrainingRun
from activity.training.schemes import UPDATE_SCHEMES
from activity.training.trainer import build_classifier, train, train_on

# Of the recipe's. Measured on drawn videos of other people, 3 seeds, new-only with two new labels: at 1 the accuracy on
# old videos falls by 0.10; at 0.3 it stays, and of the new ones far more are learned than at 0.1.
_LEARNING_RATE = 0.3
_FEWEST_REPLAYED = 5  # of a label, where nothing else is asked for
_AGAIN = "train it again"


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Predictions for the same videos by the model before and after its update.

    Attributes:
        split: `test`, or `val` where there are none in test; empty if there are no videos.
        labels: true label of each of the V videos.
        before, after: `(V,)` bool, whether the answer was right. Of a label that a model does not know, it is wrong.
        reason: why there are no videos; empty if there are.
    """

    split: str
    labels: list[str]
    before: np.ndarray
    after: np.ndarray
    reason: str = ""

    @property
    def standard_error(self) -> float:
        """Binomial, of the accuracy: that of the mean of before and after, so that it is rarely 0."""
        fraction = (self.before.mean() + self.after.mean()) / 2
        return float(np.sqrt(fraction * (1 - fraction) / len(self.labels)))

    @property
    def fell(self) -> bool:
        """Whether the accuracy fell by more than one standard error."""
        return bool(self.labels and self.before.mean() - self.after.mean() > self.standard_error)

    @property
    def worse_labels(self) -> list[str]:
        """Labels of which fewer answers are right than before, the greatest loss first."""
        loss = dict.fromkeys(sorted(self.labels), 0)
        for label, before, after in zip(self.labels, self.before.tolist(), self.after.tolist(), strict=True):
            loss[label] += before - after
        return sorted((label for label in loss if loss[label] > 0), key=lambda label: -loss[label])

    def as_dict(self) -> dict[str, Any]:
        """`split`, `num_videos`, accuracy `before` and `after`, or the `reason` that there are none."""
        if not self.labels:
            return {"num_videos": 0, "reason": self.reason}
        scores = {"before": float(self.before.mean()), "after": float(self.after.mean())}
        return {"split": self.split, "num_videos": len(self.labels), **scores}

    def cells(self) -> tuple[str, ...]:
        """The number of videos, accuracy before and after, and the reason that there are none; for a table."""
        if not self.labels:
            return "0", "-", "-", f"({self.reason})"
        return str(len(self.labels)), f"{self.before.mean():.3f}", f"{self.after.mean():.3f}", ""


@dataclass(frozen=True)
class Update:
    """What `update` gives.

    Attributes:
        classifier: the new model.
        run: how it was trained.
        scheme: one of `UPDATE_SCHEMES`.
        added: labels the old model did not know.
        num_new: training videos that the old model did not know.
        num_old: training videos that it was trained on and that were used again.
        old, new: scores on videos it knew of at the time but was not trained on, and on those it did not know.
    """

    classifier: ActivityClassifier
    run: TrainingRun
    scheme: str
    added: list[str]
    num_new: int
    num_old: int
    old: Comparison
    new: Comparison

    def as_dict(self) -> dict[str, Any]:
        """The counts and scores; ready for JSON."""
        return {
            "scheme": self.scheme,
            "labels": list(self.classifier.labels),
            "added": self.added,
            "num_new": self.num_new,
            "num_old": self.num_old,
            "old": self.old.as_dict(),
            "new": self.new.as_dict(),
            "forgot": self.old.fell,
        }

    def as_text(self) -> str:
        """The same for a terminal."""
        what = f"{self.num_new} new training videos, {self.num_old} old ones"
        if self.added:
            what += f"; new labels: {', '.join(self.added)}"
        rows = {"old": self.old, "new": self.new}
        header = ("accuracy", "videos", "before", "after", "")
        table = [header, *((f"{name} videos", *comparison.cells()) for name, comparison in rows.items())]
        lines = [self.run.as_text(), f"{self.scheme:16} {what}", "", *format_table(table, align="lrrrl")]
        lines += [
            f"The {name} videos are those of the validation split: there are none in the test split."
            for name, comparison in rows.items()
            if comparison.split == "val"
        ]
        if set(self.added) & set(self.new.labels):
            lines.append("Before, an answer on a video of a new label counts as wrong.")
        if self.old.fell:
            fall = self.old.before.mean() - self.old.after.mean()
            lines.append(
                f"Accuracy on old classes dropped (forgetting): by {fall:.3f} on old videos, more than one standard "
                f"error ({self.old.standard_error:.3f}); worse on: {', '.join(self.old.worse_labels)}."
            )
        return "\n".join(lines)


def update(
    classifier: ActivityClassifier,
    dataset: Dataset,
    *,
    work_dir: Path,
    scheme: str = "replay",
    replay: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    runtime: str = "auto",
) -> Update:
    """Train a model further on new videos of a data set, but not its test split; the given model stays as it is.

    - `replay`: the head goes on learning from the new training videos and from some of the old ones, which keeps it
      from forgetting (Rebuffi et al. 2017, iCaRL, arxiv.org/abs/1611.07725). They are drawn at random: with a memory
      that small, this does as well as cleverer choices (Chaudhry et al. 2019, arxiv.org/abs/1902.10486).
    - `new-only`: the head goes on learning from the new training videos alone, and forgets.
    - `retrain`: the recipe of the model, from fresh weights, on all training videos, as `train` does it.

    With the first two, the backbone and the statistics of its features stay as they are, and new labels stand behind
    the old ones.

    Args:
        classifier: the old model, with its record.
        dataset: made by `preprocess` with the model's settings.
        work_dir: folder for the state of the run and its log; another run's state in it is replaced.
        scheme: one of `UPDATE_SCHEMES`.
        replay: old videos of each label that `replay` uses, 1 or more; by default as many as the labels with new
            training videos have of them at the median, and at least 5.
        epochs: passes over the training clips; by default those of the model's recipe.
        learning_rate: at its highest; by default that of the model's recipe for `retrain`, else less.
        seed: of everything random; by default that of the model's recipe.
        runtime: what computes the features; see `activity.runtimes.choice`.

    Raises:
        DatasetError: it does not fit the model, or lacks new videos, or those old ones that the scheme needs.
        ModelFileError: the record does not tell how and on what the model was trained.
    """
    if scheme not in UPDATE_SCHEMES:
        raise SettingError("scheme", f"one of {', '.join(UPDATE_SCHEMES)}", scheme)
    if replay is not None and (scheme != "replay" or replay < 1):
        raise SettingError("replay", "1 or more videos a label, with the scheme replay", replay)
    if classifier.info.labels_per == "step":
        hint = "train it again, on all films"
        raise ActivityError("a model of steps is not updated; expected one with a label per clip", hint=hint)
    recipe = _recipe(classifier)
    if recipe.features and dataset.features:  # which need not be where those of the old model were
        recipe = dataclasses.replace(recipe, features=str(dataset.features.features_dir))
    fraction = 1.0 if scheme == "retrain" else _LEARNING_RATE
    config = dataclasses.replace(
        recipe,
        epochs=recipe.epochs if epochs is None else epochs,
        learning_rate=recipe.learning_rate * fraction if learning_rate is None else learning_rate,
        seed=recipe.seed if seed is None else seed,
    )
    dataset = dataset.labelled()
    check_spec(classifier, dataset)
    videos = _Videos(classifier, dataset.with_streams(classifier.spec.streams), runtime)
    added = sorted(set(dataset.labels) - set(classifier.labels))
    new, old = videos.new("train"), videos.trained("train")
    if scheme == "retrain":
        _check_old_labels(classifier, dataset)
        run = train(videos.dataset, config, work_dir=work_dir, runtime=runtime)
        record = run.classifier.info.record
    else:
        _check_new_videos(dataset, new, added)
        old = _replayed(classifier, dataset, old, new, replay, config.seed) if scheme == "replay" else []
        part = dataclasses.replace(videos.dataset, samples=[*new, *old, *videos.of("val")])
        keras.utils.set_random_seed(config.seed)  # of the fresh columns
        wide, stack = expand_labels(classifier, part, added), classifier.head if is_stack(classifier.head) else None
        run = train_on(wide, part, config, work_dir=work_dir, stack=stack, runtime=runtime)
        record = videos.record_after(part.samples, run)
    update = Update(run.classifier, run, scheme, added, len(new), len(old), *videos.compare(run.classifier))
    told = {**update.as_dict(), **{name: getattr(config, name) for name in ("epochs", "learning_rate", "seed")}}
    del told["labels"]  # the model has them
    told.update(when(run.stages), dataset=str(dataset.dataset_dir))
    record = dataclasses.replace(record, updates=(*classifier.info.record.updates, told))
    run.classifier.info = dataclasses.replace(run.classifier.info, record=record)
    return update


def expand_labels(classifier: ActivityClassifier, dataset: Dataset, added: Sequence[str]) -> ActivityClassifier:
    """A model that knows more labels: all weights of the old one, and fresh columns for the new labels.

    What the probabilities of the old labels are to each other does not change. The backbone is shared.

    Args:
        classifier: the old model with its record; it stays as it is.
        dataset: with the new videos, which may last longer than those of the old model.
        added: the new labels; they stand behind the old ones.

    Raises:
        ModelFileError: the head is not that of the recipe in the record.
    """
    labels = [*classifier.labels, *added]
    wide = build_classifier(dataset, _recipe(classifier), classifier.backbone, labels)
    old, new = stacked_head(classifier.head).weights, wide.head.weights

    def expanded(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], len(labels)) if shape[-1:] == (len(classifier.labels),) else shape

    if len(old) != len(new) or any(b.shape not in (a.shape, expanded(a.shape)) for a, b in zip(old, new, strict=True)):
        raise ModelFileError("the head of this model is not that of the recipe in its record", hint=_AGAIN)
    for source, target in zip(old, new, strict=True):
        values = np.array(target)
        values[tuple(slice(length) for length in source.shape)] = np.asarray(source)
        target.assign(values)
    wide.info = dataclasses.replace(
        wide.info,
        clip_seconds=max(classifier.clip_seconds, wide.clip_seconds),
        window_seconds=min(classifier.window_seconds, wide.window_seconds),
        threshold=classifier.threshold,
    )
    return wide


def _recipe(classifier: ActivityClassifier) -> TrainConfig:
    """The settings that the model was trained with."""
    record = classifier.info.record
    if not record.training or not record.trained:
        raise ModelFileError("this model does not tell how and on which videos it was trained", hint=_AGAIN)
    return record.training


# === Which videos ===


class _Videos:
    """The videos of a data set as a model knows them.

    Those that it was trained on or calibrated by are `trained`; those that were in the test split then are held out.
    """

    def __init__(self, classifier: ActivityClassifier, dataset: Dataset, runtime: str) -> None:
        self.classifier, self.dataset, self._runtime = classifier, merge_val(dataset, _recipe(classifier)), runtime
        self._trained, self._held_out = map(set, (classifier.info.record.trained, classifier.info.record.held_out))

    def of(self, split: str) -> list[Sample]:
        return [sample for sample in self.dataset.samples if sample.split == split]

    def trained(self, split: str) -> list[Sample]:
        return [sample for sample in self.of(split) if content_of(sample) in self._trained]

    def held_out(self, split: str) -> list[Sample]:
        return [sample for sample in self.of(split) if content_of(sample) in self._held_out]

    def new(self, split: str) -> list[Sample]:
        return [sample for sample in self.of(split) if content_of(sample) not in self._trained | self._held_out]

    def record_after(self, trained: Sequence[Sample], run: TrainingRun) -> TrainingRecord:
        """The record of a model that was trained on some samples beside those it knew."""
        all_trained = self._trained | {content_of(sample) for sample in trained}
        held_out = self._held_out | {content_of(sample) for sample in self.of("test")}
        return dataclasses.replace(
            self.classifier.info.record,
            trained=tuple(sorted(all_trained)),
            held_out=tuple(sorted(held_out - all_trained)),
            **run.facts,
        )

    def compare(self, after: ActivityClassifier) -> tuple[Comparison, Comparison]:
        """Both models on old and on new videos that neither was trained on."""
        moved = self.trained("test") + self.held_out("train") + self.held_out("val")
        if moved:
            _logger.warning(
                "%s: %d videos are in other splits than when the model was trained; they are not used to evaluate it",
                self.dataset.dataset_dir,
                len(moved),
            )
        nothing = "the data set has none in test or val"
        reason = "the data set is divided otherwise than that of the model" if moved else nothing
        old = self._compare(after, self.held_out("test"), [] if moved else self.trained("val"), reason)
        return old, self._compare(after, self.new("test"), self.new("val"), nothing)

    def _compare(
        self, after: ActivityClassifier, test: Sequence[Sample], val: Sequence[Sample], reason: str
    ) -> Comparison:
        samples = test or val
        if not samples:
            return Comparison("", [], np.zeros(0, bool), np.zeros(0, bool), reason)
        before, now = (self._answers(classifier, samples) for classifier in (self.classifier, after))
        labels = [sample.label for sample in samples]
        return Comparison("test" if test else "val", labels, before == labels, now == labels)

    def _answers(self, classifier: ActivityClassifier, samples: Sequence[Sample]) -> np.ndarray:
        """`(V,)` the most probable label of each sample."""
        features = extract_features(self.dataset, samples, classifier.backbone, runtime=self._runtime)
        return np.asarray(classifier.labels)[classifier.predict_stacks(features).argmax(axis=1)]


def _replayed(
    classifier: ActivityClassifier,
    dataset: Dataset,
    old: Sequence[Sample],
    new: Sequence[Sample],
    most: int | None,
    seed: int,
) -> list[Sample]:
    """Some of the old samples of each label, drawn at random."""
    if not old:
        raise DatasetError(
            "has none of the videos that the model was trained on, so none to replay",
            path=dataset.dataset_dir,
            hint="add new videos to the old ones and run preprocess again, or use --scheme new-only",
        )
    lost = sorted(set(classifier.labels) - set(labels_of(old)))
    if lost:
        _logger.warning("the data set has no old videos of %s; the model may forget them", name_some(lost))
    if most is None:
        most = max(_FEWEST_REPLAYED, int(np.median(list(Counter(sample.label for sample in new).values()))))
    rng = np.random.default_rng(seed)
    shuffled = [old[i] for i in rng.permutation(len(old))]
    return [x for label in labels_of(old) for x in [sample for sample in shuffled if sample.label == label][:most]]


def _check_new_videos(dataset: Dataset, new: Sequence[Sample], added: Sequence[str]) -> None:
    if not new:
        raise DatasetError(
            "has no new training videos: the model knows all of its train split", path=dataset.dataset_dir
        )
    absent = sorted(set(added) - set(labels_of(new)))
    if absent:
        raise DatasetError(f"has no new training videos of {', '.join(absent)}", path=dataset.dataset_dir)


def _check_old_labels(classifier: ActivityClassifier, dataset: Dataset) -> None:
    absent = sorted(set(classifier.labels) - set(dataset.labels))
    if absent:
        raise DatasetError(
            f"has no videos of {', '.join(absent)}, which the model knows",
            path=dataset.dataset_dir,
            hint="to retrain, all old labels must be in the data set",
        )
