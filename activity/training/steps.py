"""Train a model of time steps on films that are labelled over time.

A film is read as a whole at a fixed rate, also where nothing is labelled, by the frozen backbone; the head gives
probabilities for each step. It learns from windows of films, so that gradients go back no further than a window
(truncated back-propagation through time, Williams & Peng 1990).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import ClipSpec, TrainConfig, recipe_flag
from activity.datasets.dataset import Dataset
from activity.datasets.films import Film
from activity.datasets.samples import name_some
from activity.datasets.splits import inner_folds
from activity.datasets.steps import StepLabels, films_of, label_steps, labels_of_steps
from activity.errors import DatasetError, SettingError
from activity.evaluation.calibration import Calibration, calibrate
from activity.evaluation.linear import logistic_regression, predict_linear
from activity.files import lock_folder
from activity.models.backend import keras, ops
from activity.models.classifier import ActivityClassifier
from activity.models.heads import (
    FUSE,
    HEADS,
    adapt,
    build_head,
    member_predictions_of,
    member_predictions_of_prepared,
    prepared,
    with_members,
)
from activity.models.info import ModelInfo
from activity.models.network import join_steps
from activity.models.stack import HEAD
from activity.runtimes.features import extract_films
from activity.training.batches import StepBatches
from activity.training.fitting import StagePlan, class_weights, fit
from activity.training.preparation import (
    backbone_of,
    claim_work_dir,
    clips_of,
    compute_precision,
    head_options,
    is_frozen,
    merge_val,
    warn_once,
)
from activity.training.record import record_of
from activity.training.result import TrainingRun
from activity.training.stacking import Estimate, OutOfFold, through_windows
from activity.video.clips import window_starts

_NUM_STEPS = 64  # of a window
_RATES = (2.0, 12.5)  # the lowest and the highest, of steps a second
_MOST_OF_BASELINE = 5000  # steps that a baseline learns from
_THRESHOLD = 0.5  # of each of several labels at once


def train_steps(
    dataset: Dataset,
    config: TrainConfig,
    *,
    work_dir: Path,
    resume: bool = False,
    backbone: keras.Model | None = None,
    runtime: str = "auto",
    seconds_between_saves: float = 10.0,
) -> TrainingRun:
    """Train a model of steps; called by `activity.training.trainer.train` for `config.labels_per == "step"`.

    As there, further members of the head are each trained without a fold of the groups; they calibrate the model, and
    tell the accuracy of steps to expect. There is no stack.

    Raises:
        SettingError: the backbone would be trained, or there are feature files in its place.
        DatasetError: no film can be read, or too few labels are in the training films.
    """
    check_recipe(config)
    _say_what_is_idle(config)
    keras.utils.set_random_seed(config.seed)
    as_given, dataset = dataset, merge_val(dataset, config)
    spec, labels = step_spec(dataset), labels_of_steps(dataset, config)
    of_films = dataclasses.replace(dataset, spec=spec)
    backbone = backbone or backbone_of(dataset, config)
    films = read_films(of_films, backbone, ("train", "val"), labels, config, runtime)
    trained = [film for film in films if film.film.split == "train"]
    _check_films(trained, labels, dataset, config)
    folds = _folds_of(trained, config)
    of_fold = np.asarray([-1] * config.members + ([] if folds is None else list(range(folds.max() + 1))))
    options = dataclasses.replace(head_options(config), members=len(of_fold))

    def build() -> keras.Model:
        return build_head(
            config.head,
            options,
            num_features=backbone.output_shape[-1],
            num_streams=len(spec.streams),
            num_labels=len(labels),
            per_frame=True,
            multi_label=config.multi_label,
        )

    with lock_folder(work_dir, "train"), compute_precision(config.mixed_precision):
        head = build()
        adapt(head, [film.features for film in trained])
        claim_work_dir(work_dir, as_given, config, resume)
        of_fold = np.tile(of_fold, head.get_layer(FUSE).input.shape[1] // len(of_fold))  # (M,), of each stream
        plan = _plan(head, films, folds, of_fold, spec.num_frames, config)
        stages = [fit(plan, work_dir / "head", seconds_between_saves)]
    if config.mixed_precision:
        weights = head.get_weights()
        head = build()  # a float32 model: nothing of the precision of training
        head.set_weights(weights)
    estimate = calibration = None
    if folds is not None:
        if not config.multi_label:
            calibration, estimate = _out_of_folds(head, trained, folds, of_fold, labels, spec.num_frames, config)
        head = with_members(head, head_options(config), np.flatnonzero(of_fold < 0).tolist())
    info = ModelInfo(
        labels=labels,
        labels_per="step",
        state_size=config.units * config.members if HEADS[config.head].carries else 0,
        multi_label=config.multi_label,
        threshold=_THRESHOLD if config.multi_label else 0.0,
        **{**clips_of(of_films), "window_seconds": _usual_seconds(dataset)},
    )
    classifier = ActivityClassifier(backbone, head, info)
    if calibration:
        classifier.temperature = calibration.temperature
        classifier.info = dataclasses.replace(classifier.info, threshold=calibration.threshold)
    run = TrainingRun(classifier, stages, calibration, estimate)
    record = record_of(dataset, config, stages)
    classifier.info = dataclasses.replace(classifier.info, record=record).with_record(**run.facts)
    return run


def check_recipe(config: TrainConfig) -> None:
    """Raise `SettingError` if a recipe cannot learn labels per step."""
    if not is_frozen(config):
        expected = "clip where a backbone is trained: whole films are read by a frozen one"
        raise SettingError("labels_per", expected, config.labels_per)
    if config.features:  # which are files of segments, and say nothing of what lies between
        raise SettingError("labels_per", "clip with feature files: whole films are read from videos", config.labels_per)


def step_spec(dataset: Dataset) -> ClipSpec:
    """How the films of a data set are read: at its rate, or at one that suits its segments; windows of `_NUM_STEPS`."""
    spec = dataset.spec
    rate = spec.frames_per_second
    if rate is None:
        rate = float(np.clip(spec.num_frames / _usual_seconds(dataset), *_RATES))
    return dataclasses.replace(spec, frames_per_second=rate, num_frames=max(spec.num_frames, _NUM_STEPS))


def _usual_seconds(dataset: Dataset) -> float:
    """What three in four labelled segments last, or more."""
    lasting = [sample.duration_seconds for sample in dataset.samples if sample.label and sample.duration_seconds]
    return float(np.quantile(lasting or [1.0], 0.25))


# === Films ===


@dataclass(frozen=True)
class ReadFilm:
    """A film with its features and labels.

    Attributes:
        film: its rows in the manifest.
        features: `(N, S, D)` of its steps.
        steps: their labels.
    """

    film: Film
    features: np.ndarray
    steps: StepLabels


def read_films(
    dataset: Dataset,
    backbone: keras.Model,
    splits: Sequence[str],
    labels: Sequence[str],
    config: TrainConfig,
    runtime: str = "auto",
) -> list[ReadFilm]:
    """The films of some splits; those that cannot be read are left out, with a line.

    Args:
        dataset: of the spec of steps.
        backbone: computes the features; see `activity.runtimes.features.extract_films`.
        splits: names of splits.
        labels: names of the labels.
        config: how the labels are meant.
        runtime: what computes the features.
    """
    rate = dataset.spec.frames_per_second
    assert rate
    films = [film for film in films_of(dataset) if film.split in splits]
    wholes = [film.whole(rate) for film in films]
    features = extract_films(dataset, wholes, backbone, runtime=runtime)
    flags = {"background": config.background, "multi_label": config.multi_label}
    return [
        ReadFilm(film, stack, label_steps(film, len(stack), rate, labels, **flags))
        for film, whole in zip(films, wholes, strict=True)
        if (stack := features.get(whole.sample_id)) is not None
    ]


def _check_films(trained: Sequence[ReadFilm], labels: Sequence[str], dataset: Dataset, config: TrainConfig) -> None:
    """Raise `DatasetError` unless there are enough labels, and training films show all of them."""
    if not trained:
        hint = f"are the videos still in {dataset.videos_dir}?"
        raise DatasetError("no training film can be read", path=dataset.dataset_dir, hint=hint)
    shown = np.any([film.steps.targets[film.steps.known].any(axis=0) for film in trained], axis=0)  # (C,)
    if lost := [label for label, is_shown in zip(labels, shown, strict=True) if not is_shown]:
        where = "the training films show nothing of"
        raise DatasetError(f"{where} {name_some(lost)}", path=dataset.dataset_dir, hint="add films, or leave it out")
    if len(labels) < 2 - config.multi_label:
        raise DatasetError(
            f"expected two or more labels, received only {', '.join(labels)}",
            path=dataset.dataset_dir,
            hint="with --background, what lies between its segments is another",
        )


def _folds_of(trained: Sequence[ReadFilm], config: TrainConfig) -> np.ndarray | None:
    """The fold of each training film, by whole groups; `None` where there are too few groups."""
    rows = [(number, row) for number, film in enumerate(trained) for row in film.film.rows if row.label]
    of_rows = inner_folds([row for _, row in rows], seed=config.seed)
    if of_rows is None:
        return None
    of_films = dict(zip((number for number, _ in rows), of_rows.tolist(), strict=True))
    return np.asarray([of_films.get(number, 0) for number in range(len(trained))])


# === Training ===


def _plan(
    head: keras.Model,
    films: Sequence[ReadFilm],
    folds: np.ndarray | None,
    of_fold: np.ndarray,
    num_frames: int,
    config: TrainConfig,
) -> StagePlan:
    def batches(split: str) -> StepBatches | None:
        chosen = [film for film in films if film.film.split == split]
        if not chosen:
            return None
        targets, weights = [film.steps.targets for film in chosen], _weights_of(chosen, config)
        return StepBatches(
            prepared(head, [film.features for film in chosen]),
            targets,
            weights,
            folds=folds if split == "train" else None,
            num_frames=num_frames,
            batch_size=config.batch_size,
            training=split == "train",
            seed=config.seed,
        )

    train_batches = batches("train")
    assert train_batches
    return StagePlan(
        name="head",
        model=member_predictions_of_prepared(head),
        train_batches=train_batches,
        val_batches=batches("val"),
        num_epochs=config.epochs,
        optimizer=keras.optimizers.AdamW,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        loss=partial(loss_of_steps, of_fold=of_fold, multi_label=config.multi_label),
        accuracy=partial(accuracy_of_steps, multi_label=config.multi_label),
    )


def _weights_of(films: Sequence[ReadFilm], config: TrainConfig) -> list[np.ndarray]:
    """Of each step: 1 where its labels are known, or the inverse frequency of its label if classes are balanced."""
    known = [film.steps.known.astype(np.float32) for film in films]
    if config.class_weight == "none" or config.multi_label:
        return known
    targets = [film.steps.targets for film in films]
    of_classes = class_weights(np.concatenate([held[weight > 0] for held, weight in zip(targets, known, strict=True)]))
    return [weight * (held @ of_classes) for held, weight in zip(targets, known, strict=True)]


def loss_of_steps(targets: Any, member_predictions: Any, *, of_fold: np.ndarray, multi_label: bool) -> Any:
    """Cross-entropy of known steps: `(B, T, C+2)` and probabilities `(B, M, T, C)` to `(B,)`.

    The mean over the batch is that over its known steps. Targets are those of `activity.training.batches.StepBatches`;
    with `multi_label`, the cross-entropy is the mean of those of each label. A member learns nothing from the fold that
    it is trained without.
    """
    num_labels = member_predictions.shape[-1]
    held, weights, folds = targets[..., :num_labels], targets[..., num_labels], targets[..., num_labels + 1]
    held = ops.expand_dims(ops.cast(held, member_predictions.dtype), 1)  # (B, 1, T, C)
    likely = ops.log(ops.maximum(member_predictions, 1e-7))  # (B, M, T, C)
    if multi_label:
        unlikely = ops.log(ops.maximum(1 - member_predictions, 1e-7))
        losses = -ops.mean(held * likely + (1 - held) * unlikely, axis=-1)  # (B, M, T)
    else:
        losses = -ops.sum(held * likely, axis=-1)
    members = ops.reshape(ops.convert_to_tensor(of_fold.astype(np.float32)), (1, -1, 1))
    learns = ops.cast(ops.not_equal(ops.expand_dims(folds, 1), members), losses.dtype)  # (B, M, T)
    sums = ops.sum(losses * learns * ops.expand_dims(weights, 1), axis=(1, 2)) / len(of_fold)  # (B,)
    return sums / ops.maximum(ops.mean(ops.sum(weights, axis=1)), 1e-6)


def accuracy_of_steps(targets: Any, member_predictions: Any, *, multi_label: bool) -> Any:
    """Share of known steps that the fused members label as they are, `(B,)`; with `multi_label`, of all labels."""
    num_labels = member_predictions.shape[-1]
    held, weights = targets[..., :num_labels], targets[..., num_labels]
    known = ops.cast(ops.greater(weights, 0), "float32")
    fused = ops.mean(ops.log(ops.maximum(member_predictions, 1e-7)), axis=1)  # (B, T, C)
    if multi_label:
        fused -= ops.mean(ops.log(ops.maximum(1 - member_predictions, 1e-7)), axis=1)
        correct = ops.mean(ops.cast(ops.equal(fused > 0, held > 0), "float32"), axis=-1)  # (B, T)
    else:
        correct = ops.cast(ops.equal(ops.argmax(fused, axis=-1), ops.argmax(held, axis=-1)), "float32")
    return ops.sum(correct * known, axis=1) / ops.maximum(ops.mean(ops.sum(known, axis=1)), 1e-6)


def _out_of_folds(
    head: keras.Model,
    trained: Sequence[ReadFilm],
    folds: np.ndarray,
    of_fold: np.ndarray,
    labels: tuple[str, ...],
    num_frames: int,
    config: TrainConfig,
) -> tuple[Calibration | None, Estimate]:
    """What predictions for known steps tell, each by members that were trained without the fold of its film.

    Stretches of one label calibrate the model, as timelines are made of such: their probability is the mean over their
    steps. Steps count by themselves for the accuracy, groups as one draw each. The baseline is logistic regression on
    the principal components of each step alone.
    """
    members, rng = member_predictions_of(head), np.random.default_rng(config.seed)

    def out_of_fold(order: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """`(K, C)` logarithms of all known steps, and of the members that learn from all."""
        held_out, learned = [], []
        for film, fold, steps in zip(trained, folds, order, strict=True):
            _, (predicted,) = through_windows([members], [film.features[steps]], num_frames)  # (W, M, T, C)
            starts = window_starts(len(steps), num_frames)
            parts = [
                (start, np.moveaxis(clip[:, : len(steps) - start], 0, 1))  # (M, T, C) -> (n, M, C)
                for start, clip in zip(starts, predicted, strict=True)
            ]
            logs = np.log(np.maximum(join_steps(parts, len(steps)), 1e-7))[np.argsort(steps)]  # (N, M, C)
            held_out.append(logs[film.steps.known][:, of_fold == fold].mean(axis=1))
            learned.append(logs[film.steps.known][:, of_fold < 0].mean(axis=1))
        return np.concatenate(held_out), np.concatenate(learned)

    logs, learned = out_of_fold([np.arange(len(film.features)) for film in trained])
    shuffled, _ = out_of_fold([rng.permutation(len(film.features)) for film in trained])
    known = [film.steps.known for film in trained]
    owner = np.repeat(np.arange(len(trained)), [of_film.sum() for of_film in known])  # (K,) film of each known step
    label_ids = np.concatenate([film.steps.targets[film.steps.known].argmax(axis=1) for film in trained])
    steps = np.concatenate([np.flatnonzero(of_film) for of_film in known])
    begins = np.r_[True, (np.diff(owner) != 0) | (np.diff(label_ids) != 0) | (np.diff(steps) != 1)]
    stretches = np.cumsum(begins) - 1  # (K,)
    calibration = calibrate(logs, stretches, label_ids[begins], labels, precision=config.precision, out_of_fold=True)
    components = np.concatenate(
        [x[of_film] for x, of_film in zip(prepared(head, [film.features for film in trained]), known, strict=True)]
    ).reshape(len(steps), -1)  # (K, F)
    told = OutOfFold(
        labels=labels,
        logs={HEAD: logs},
        shuffled={HEAD: shuffled},
        baseline=_baseline(components, label_ids, folds[owner], len(labels), rng),
        owners=np.arange(len(steps)),
        label_ids=label_ids,
        groups=[trained[i].film.group for i in owner.tolist()],
        folds=folds[owner],
        train_accuracy=float((learned.argmax(axis=1) == label_ids).mean()),
    )
    return calibration, told.estimate()


def _baseline(
    components: np.ndarray, label_ids: np.ndarray, folds: np.ndarray, num_labels: int, rng: np.random.Generator
) -> np.ndarray:
    """Logarithms `(K, C)` of steps by logistic regression on `(K, F)`, learned without their fold."""
    logs = np.zeros((len(components), num_labels))
    for fold in np.unique(folds):
        others = rng.permutation(np.flatnonzero(folds != fold))[:_MOST_OF_BASELINE]
        kernel, bias = logistic_regression(components[others], label_ids[others], num_labels)
        logs[folds == fold] = predict_linear(components[folds == fold], kernel, bias)
    return logs


def _say_what_is_idle(config: TrainConfig) -> None:
    """Log which options have no effect on labels per step."""
    idle = ["mixup", "flip", "fine_tune_epochs", *(["class_weight", "precision"] if config.multi_label else [])]
    for name in idle:
        if getattr(config, name) != getattr(TrainConfig, name):
            warn_once(f"{recipe_flag(name)} does nothing with --labels-per step{' --multi-label' * config.multi_label}")
