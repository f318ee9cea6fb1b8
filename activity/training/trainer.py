"""Train a classifier: the head on cached features, then, if asked, the last layers of the backbone on frames.

A run keeps its state in a folder, one sub-folder a stage, so that it can be killed at any point and resumed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample, name_some
from activity.datasets.splits import inner_folds
from activity.errors import SettingError, check_type
from activity.evaluation.calibration import FEWEST_VIDEOS, Calibration, calibrate
from activity.files import lock_folder
from activity.models.backbones import choose_weights
from activity.models.backend import keras
from activity.models.classifier import ActivityClassifier
from activity.models.heads import (
    FUSE,
    build_head,
    member_predictions_of,
    member_predictions_of_prepared,
    with_members,
)
from activity.models.info import ModelInfo
from activity.models.stack import HEAD, build_stack, weights_of
from activity.runtimes.features import extract_features
from activity.training.fitting import StagePlan, fit
from activity.training.preparation import (
    backbone_of,
    check_labels,
    claim_work_dir,
    clips_of,
    compute_precision,
    has_folds,
    head_options,
    is_frozen,
    merge_val,
    num_val,
    say_if_nothing_calibrates,
    say_what_is_idle,
    with_given_features,
)
from activity.training.record import record_of
from activity.training.result import TrainingRun
from activity.training.stacking import (
    BASELINE,
    Estimate,
    OutOfFold,
    base_predictions,
    fit_base_models,
    head_predictions,
    pooling_of,
    through_windows,
)
from activity.training.stages import clip_source, plan_stage, stage_names
from activity.training.steps import train_steps

_logger = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    config: TrainConfig,
    *,
    work_dir: Path | str,
    resume: bool = False,
    backbone: keras.Model | None = None,
    runtime: str = "auto",
    seconds_between_saves: float = 10.0,
) -> TrainingRun:
    """Train a classifier on the train split; the test split is not touched.

    A backbone with pretrained weights stays frozen while the head learns from cached features; `config.fine_tune` then
    fine-tunes its last layers. A backbone without pretrained weights learns together with the head.

    With a frozen backbone, further members of the head are each trained without a fold of the groups: so each training
    video is predicted by models that do not know its group. That calibrates the model and tells the accuracy to expect;
    with `config.stack` it also gives the weights of a stack of the head and linear models (see
    `activity.training.stacking`). The val split is not needed, and its videos are trained on too. `config.val_split`
    keeps it, to calibrate; without a stack there are no folds then. With a backbone that is trained, folds would take
    as many trainings: there, the val split calibrates, and there is no stack.

    With `config.labels_per == "step"`, whole films are learned from: see `activity.training.steps.train_steps`.

    How long it learns is fixed: the learning rate rises and falls once (Loshchilov & Hutter 2017) and the last weights
    are kept. On small sets that is better than to stop at the lowest validation loss, which is mostly chance there.

    Args:
        dataset: made by `preprocess`.
        config: how to train.
        work_dir: folder for the state of the run and its log; another run's state in it is replaced.
        resume: continue where a killed run with the same configuration stopped.
        backbone: that of `config`, if it is available; it must stay frozen.
        runtime: what computes the features of a frozen backbone; see `activity.runtimes.exported`.
        seconds_between_saves: of the state of the run.

    Raises:
        SettingError: an argument is of another type, such as the name of a folder, or the task is another.
        DatasetError: a split is empty, or a label has no training videos.
        ModelFileError: the weights of the backbone cannot be had.
        ActivityError: what would be replaced in `work_dir` is not of a training.
    """
    check_type("dataset", dataset, Dataset, "a Dataset, as preprocess and load_dataset give it")
    check_type("config", config, TrainConfig, "a TrainConfig")
    if config.task != "classify":
        raise SettingError("task", "classify (sentences: activity.training.captioning.train_captioner)", config.task)
    work_dir = Path(work_dir)
    dataset = with_given_features(dataset if config.labels_per == "step" else dataset.labelled(), config)
    config = dataclasses.replace(config, weights=choose_weights(config.backbone, config.weights))
    if config.labels_per == "step":
        return train_steps(
            dataset,
            config,
            work_dir=work_dir,
            resume=resume,
            backbone=backbone,
            runtime=runtime,
            seconds_between_saves=seconds_between_saves,
        )
    check_labels(dataset)
    say_what_is_idle(dataset, config)
    keras.utils.set_random_seed(config.seed)
    as_given, dataset = dataset, merge_val(dataset, config)
    folds = inner_folds(dataset.split("train"), seed=config.seed) if has_folds(config) else None
    if config.precision is not None:
        say_if_nothing_calibrates(dataset, config, folds)
    with lock_folder(work_dir, "train"), compute_precision(config.mixed_precision):
        names, classifier = stage_names(config), build_classifier(dataset, config, backbone, num_more=_num_folds(folds))
        claim_work_dir(work_dir, as_given, config, resume)  # last: what cannot run must not replace what did
        stages = [
            fit(_plan(name, classifier, dataset, config, runtime, folds), work_dir / name, seconds_between_saves)
            for name in names
        ]
        if config.fine_tune:
            classifier.backbone.trainable = False
    if config.mixed_precision:
        trained = classifier
        config_of_same = dataclasses.replace(config, weights="none")
        classifier = build_classifier(dataset, config_of_same, num_more=_num_folds(folds))
        classifier.set_weights(trained.get_weights())  # a float32 model: nothing of the precision of training
    estimate = calibration = None
    if has_folds(config):
        classifier, calibration, estimate = _out_of_folds(classifier, dataset, config, runtime, folds)
    if not has_folds(config) or num_val(dataset) >= FEWEST_VIDEOS:
        calibration = _calibrate(classifier, dataset, config, runtime)
    run = TrainingRun(classifier, stages, calibration, estimate)
    record = record_of(dataset, config, stages)
    classifier.info = dataclasses.replace(classifier.info, record=record).with_record(**run.facts)
    return run


def _num_folds(folds: np.ndarray | None) -> int:
    return 0 if folds is None else int(folds.max()) + 1


def _out_of_folds(
    classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, runtime: str, folds: np.ndarray | None
) -> tuple[ActivityClassifier, Calibration | None, Estimate | None]:
    """The classifier without the members of the folds, in a stack if one is wanted; and what those members tell.

    Args:
        classifier: its head has the members that stay, and one for each fold (for each stream that it reads apart).
        dataset: with the training videos in `train`.
        config: how to train.
        runtime: what computes the features.
        folds: `(V,)` of the training videos; `None`: there are no such members.
    """
    if folds is None and not config.stack:
        return classifier, None, None
    samples, labels = dataset.split("train"), classifier.labels
    stacks = extract_features(dataset, samples, classifier.backbone, runtime=runtime)
    head, num_frames = classifier.head, classifier.spec.num_frames
    pooling = pooling_of(head, stacks, None if config.stack else [BASELINE])
    models = [pooling, *([] if folds is None else [member_predictions_of(head)])]
    owners, (pooled, *of_members) = through_windows(models, stacks, num_frames)
    label_ids = np.asarray([labels.index(sample.label) for sample in samples])
    of_windows = label_ids[owners]  # (W,)
    out_of_fold, balanced = None, config.class_weight == "balanced"
    if folds is not None:
        of_fold, in_folds = _folds_of_members(classifier, config, _num_folds(folds)), folds[owners]
        (members,) = of_members  # (W, M, C)
        rng = np.random.default_rng(config.seed)
        shuffled = (stack[rng.permutation(len(stack))] for stack in stacks)
        _, (pooled_shuffled, members_shuffled) = through_windows(models, shuffled, num_frames)
        full = np.log(np.maximum(members[:, of_fold < 0], 1e-7)).mean(axis=1).argmax(axis=1)
        base, base_shuffled = base_predictions(
            pooled, [pooled, pooled_shuffled], of_windows, in_folds, len(labels), is_balanced=balanced
        )
        out_of_fold = OutOfFold(
            labels=labels,
            logs={HEAD: head_predictions(members, in_folds, of_fold), **(base if config.stack else {})},
            shuffled={
                HEAD: head_predictions(members_shuffled, in_folds, of_fold),
                **(base_shuffled if config.stack else {}),
            },
            baseline=base[BASELINE],
            owners=owners,
            label_ids=label_ids,
            groups=[sample.group for sample in samples],
            folds=folds,
            train_accuracy=float((full == of_windows).mean()),
        )
        head = with_members(head, head_options(config), np.flatnonzero(of_fold < 0).tolist())
    if config.stack:
        equal = dict.fromkeys((HEAD, *pooled), 1 / (1 + len(pooled)))
        weights = out_of_fold.best_weights() if out_of_fold else equal
        fitted = fit_base_models(pooled, of_windows, len(labels), is_balanced=balanced)
        head = build_stack(head, pooling, fitted, weights)
    classifier = ActivityClassifier(classifier.backbone, head, classifier.info)
    if not out_of_fold:
        return classifier, None, None
    calibration = calibrate(
        out_of_fold.fused(), owners, label_ids, labels, precision=config.precision, out_of_fold=True
    )
    _apply(classifier, calibration)
    return classifier, calibration, out_of_fold.estimate()


def _stacked_again(
    classifier: ActivityClassifier, stack: keras.Model, dataset: Dataset, config: TrainConfig, runtime: str
) -> ActivityClassifier:
    """A classifier in a stack of the weights and the temperature of another one.

    Args:
        classifier: whose head has been trained further.
        stack: of the classifier before.
        dataset: its train split is what the base models learn from; it has all labels.
        config: how to train.
        runtime: what computes the features.
    """
    samples = dataset.split("train")
    stacks = extract_features(dataset, samples, classifier.backbone, runtime=runtime)
    weights = weights_of(stack)
    pooling = pooling_of(classifier.head, stacks, [name for name in weights if name != HEAD])
    owners, (pooled,) = through_windows([pooling], stacks, classifier.spec.num_frames)
    label_ids = np.asarray([classifier.labels.index(sample.label) for sample in samples])[owners]
    fitted = fit_base_models(pooled, label_ids, len(classifier.labels), is_balanced=config.class_weight == "balanced")
    head = build_stack(classifier.head, pooling, fitted, weights)
    again = ActivityClassifier(classifier.backbone, head, classifier.info)
    again.temperature = float(stack.get_layer(FUSE).temperature)
    return again


def _folds_of_members(classifier: ActivityClassifier, config: TrainConfig, num_folds: int) -> np.ndarray:
    """The fold that each member of a head is trained without, -1 for those that stay: `(M,)`."""
    of_stream = [-1] * config.members + list(range(num_folds))
    num_members = member_predictions_of(classifier.head).output_shape[1]
    return np.asarray(of_stream * (num_members // len(of_stream)))


def _apply(classifier: ActivityClassifier, calibration: Calibration | None) -> None:
    if calibration:
        classifier.temperature = calibration.temperature
        classifier.info = dataclasses.replace(classifier.info, threshold=calibration.threshold)


def train_on(
    classifier: ActivityClassifier,
    dataset: Dataset,
    config: TrainConfig,
    *,
    work_dir: Path,
    stack: keras.Model | None = None,
    runtime: str = "auto",
) -> TrainingRun:
    """Train the head of a trained classifier further on the train split of a data set; calibrate it by the val split.

    Its backbone and the statistics of its features stay as they are, and so does its record; without a val split, also
    its temperature and its threshold.

    Args:
        classifier: knows all labels of the data set; changed in place.
        dataset: of the classifier's spec.
        config: how to train.
        work_dir: folder for the state of the run and its log; another run's state in it is replaced.
        stack: the one that its head was in; its linear models are fitted again, its weights stay. It is left out, with
            a warning, where a label has no training videos.
        runtime: what computes the features; see `activity.runtimes.exported`.
    """
    say_what_is_idle(dataset, config)
    keras.utils.set_random_seed(config.seed)
    with lock_folder(work_dir, "update"):
        claim_work_dir(work_dir, dataset, config, resume=False)
        stage = fit(_plan("head", classifier, dataset, config, runtime, fresh=False), work_dir / "head")
    if stack is not None:
        lost = sorted(set(classifier.labels) - {sample.label for sample in dataset.split("train")})
        if lost:
            _logger.warning(
                "the linear models of the stack are left out: no training videos of %s; without them "
                "the probabilities are not calibrated",
                name_some(lost),
            )
        else:
            classifier = _stacked_again(classifier, stack, dataset, config, runtime)
    calibration = _calibrate(classifier, dataset, config, runtime)
    if classifier.threshold and calibration is None:
        _logger.warning(
            "the threshold, %.3f, and the temperature are those of before: expected %d or more validation videos to "
            "find them again, received %d",
            classifier.threshold,
            FEWEST_VIDEOS,
            num_val(dataset),
        )
    return TrainingRun(classifier, [stage], calibration)


def build_classifier(
    dataset: Dataset,
    config: TrainConfig,
    backbone: keras.Model | None = None,
    labels: Sequence[str] | None = None,
    *,
    num_more: int = 0,
) -> ActivityClassifier:
    """An untrained classifier for a data set: the backbone with its weights, the head with random ones.

    It knows the labels of the data set, if no others are given, and has `num_more` members than the recipe asks for.
    """
    spec, labels = dataset.spec, labels or dataset.labels
    backbone = backbone or backbone_of(dataset, config)
    head = build_head(
        config.head,
        dataclasses.replace(head_options(config), members=config.members + num_more),
        num_features=backbone.output_shape[-1],
        num_streams=len(spec.streams),
        num_labels=len(labels),
    )
    info = ModelInfo(
        labels=tuple(labels),
        **clips_of(dataset),
    )
    return ActivityClassifier(backbone, head, info)


def _plan(
    name: str,
    classifier: ActivityClassifier,
    dataset: Dataset,
    config: TrainConfig,
    runtime: str,
    folds: np.ndarray | None = None,
    *,
    fresh: bool = True,
) -> StagePlan:
    """A stage of a classifier.

    A `fresh` head first takes the mean, deviation and principal components of the features of the train split. With the
    `folds` of the training videos `(V,)`, its last members are each trained without one.
    """
    head, labels = classifier.head, classifier.labels
    source = clip_source(
        name, head, classifier.backbone, dataset, config, runtime=runtime, mixup=config.mixup, fresh=fresh
    )

    def shares(samples: Sequence[Sample]) -> np.ndarray:
        return np.eye(len(labels), dtype=np.float32)[[labels.index(sample.label) for sample in samples]]  # (V, C)

    return plan_stage(
        name,
        classifier.member_predictions(source.encoder)
        if source.encoder is not None
        else member_predictions_of_prepared(head),
        source,
        dataset,
        targets=shares,
        folds=folds,
        is_balanced=config.class_weight == "balanced",
        of_fold=None if folds is None else _folds_of_members(classifier, config, _num_folds(folds)),
    )


def _calibrate(
    classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, runtime: str
) -> Calibration | None:
    samples = [sample for sample in dataset.samples if sample.split == "val"]
    if not samples:
        return None
    features = extract_features(dataset, samples, classifier.backbone, keep=is_frozen(config), runtime=runtime)
    label_ids = np.asarray([classifier.labels.index(sample.label) for sample in samples])
    classifier.temperature = 1.0
    predicted, owners = classifier.predict_windows_of(features)
    logs = np.log(np.maximum(predicted, 1e-12))
    calibration = calibrate(logs, owners, label_ids, classifier.labels, precision=config.precision)
    _apply(classifier, calibration)
    return calibration
