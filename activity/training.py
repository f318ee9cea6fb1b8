"""Teach a classifier: the head on cached features, then, if asked, the last layers of the backbone on frames.

A run keeps its state in a folder, one sub-folder a stage, so that it can be killed at any point and resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from activity.backbones import build_backbone, default_weights
from activity.batches import ClipBatches
from activity.checkpoint import BEFORE_FIRST_EPOCH, Checkpoint
from activity.classifier import ActivityClassifier
from activity.config import TrainConfig, as_dict
from activity.dataset import Sample, content_of
from activity.devices import gpu_names
from activity.errors import ActivityError, DatasetError
from activity.heads import build_head
from activity.layers import uses_jit
from activity.progress import progress_bar
from activity.store import Dataset, FrameStacks, atomic_file, extract_features

_FINE_TUNE_LEARNING_RATE = 0.1  # of the head's: pretrained weights should move a little

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What one stage of training did.

    Attributes:
        name: `head`, `fine_tune` or `scratch`.
        rows: one an epoch: `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy`.
        best_epoch: whose weights were kept; `BEFORE_FIRST_EPOCH` if none was better than what the stage began with.
    """

    name: str
    rows: list[dict[str, float]]
    best_epoch: int

    def as_text(self) -> str:
        """One line for a terminal. The validation score has helped to choose the weights, so it flatters."""
        if self.best_epoch == BEFORE_FIRST_EPOCH:
            return (
                f"{self.name:16} {len(self.rows)} epochs; none better than what it began with, its changes are dropped"
            )
        best = self.rows[self.best_epoch]
        return (
            f"{self.name:16} {len(self.rows)} epochs; best at epoch {self.best_epoch + 1}: validation loss "
            f"{best['val_loss']:.3f}, accuracy {best['val_accuracy']:.3f} (training {best['accuracy']:.3f})"
        )


@dataclass(frozen=True)
class TrainingRun:
    """What `train` gives.

    Attributes:
        classifier: with the weights of the epoch that had the lowest validation loss.
        stages: in their order.
    """

    classifier: ActivityClassifier
    stages: list[Stage]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of all stages, each with the name of its `stage`."""
        return [{"stage": stage.name, **row} for stage in self.stages for row in stage.rows]

    def as_text(self) -> str:
        """A line a stage, for a terminal."""
        return "\n".join(stage.as_text() for stage in self.stages)


def train(dataset: Dataset, config: TrainConfig, *, work_dir: Path, resume: bool = False) -> TrainingRun:
    """Teach a classifier on the train split, watching the val split; the test split is not touched.

    A backbone with pretrained weights stays frozen while the head learns from cached features; `config.fine_tune` then
    teaches its last layers. A backbone without pretrained weights learns together with the head.

    Args:
        dataset: made by `preprocess`.
        config: how to teach.
        work_dir: folder for the state of the run and its log; another run's state in it is replaced.
        resume: go on where a killed run with the same configuration stopped.

    Raises:
        DatasetError: a split is empty, or a label has no training videos.
        ModelFileError: the weights of the backbone cannot be had.
    """
    check_labels(dataset)
    keras.utils.set_random_seed(config.seed)
    with _precision(config.mixed_precision):
        names, classifier = _stages(config), build_classifier(dataset, config)
        _claim_work_dir(work_dir, dataset, config, resume)  # last: what cannot run must not replace what did
        stages = [_STAGES[name](classifier, dataset, config, work_dir / name) for name in names]
    return TrainingRun(_finished(classifier, dataset, config), stages)


def build_classifier(dataset: Dataset, config: TrainConfig) -> ActivityClassifier:
    """An untaught classifier for a data set: the backbone with its weights, the head with random ones."""
    spec = dataset.spec
    backbone = build_backbone(config.backbone, height=spec.height, width=spec.width, weights=config.weights)
    head = build_head(
        config.head,
        num_features=backbone.output_shape[-1],
        num_labels=len(dataset.labels),
        units=config.units,
        dropout=config.dropout,
    )
    if spec.frames_per_second:
        clip_seconds = spec.num_frames / spec.frames_per_second
    else:
        clip_seconds = max(sample.duration_seconds for sample in dataset.samples)
    return ActivityClassifier(backbone, head, spec=spec, labels=dataset.labels, clip_seconds=clip_seconds)


def unfreeze(backbone: keras.Model, num_layers: int) -> None:
    """Make the last `num_layers` layers that can learn trainable, all others not, BatchNormalization never.

    Batch statistics of a few clips would destroy what ImageNet taught, and only `trainable=False` keeps the moving
    averages still in `fit` (Keras issue 20285). Compile again after this.
    """
    backbone.trainable = True
    able = [x for x in backbone.layers if x.weights and not isinstance(x, keras.layers.BatchNormalization)]
    taught = able[max(0, len(able) - num_layers) :]
    for layer in backbone.layers:
        layer.trainable = layer in taught


# === Stages ===


def _stages(config: TrainConfig) -> list[str]:
    if (config.weights or default_weights(config.backbone)) == "none":
        if config.fine_tune:
            raise ActivityError(f"--fine-tune needs pretrained weights; without, all of {config.backbone} is taught")
        return ["scratch"]
    return ["head", "fine_tune"] if config.fine_tune else ["head"]


def _teach_head(classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path) -> Stage:
    def batches(split: str) -> ClipBatches:
        samples = dataset.split(split)
        features = extract_features(dataset, samples, classifier.backbone)
        return _batches(dataset, samples, features, "features", config, training=split == "train")

    return _fit(classifier.head, batches("train"), batches("val"), config, config.learning_rate, stage_dir)


def _teach_last_layers(classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path) -> Stage:
    unfreeze(classifier.backbone, config.fine_tune)
    return _teach_frames(classifier, dataset, config, stage_dir, config.learning_rate * _FINE_TUNE_LEARNING_RATE)


def _teach_everything(classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path) -> Stage:
    return _teach_frames(classifier, dataset, config, stage_dir, config.learning_rate)


def _teach_frames(
    classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path, learning_rate: float
) -> Stage:
    def batches(split: str) -> ClipBatches:
        samples = dataset.split(split)
        return _batches(dataset, samples, FrameStacks(dataset, samples), "frames", config, training=split == "train")

    return _fit(classifier, batches("train"), batches("val"), config, learning_rate, stage_dir)


_STAGES = {"head": _teach_head, "fine_tune": _teach_last_layers, "scratch": _teach_everything}


def _batches(
    dataset: Dataset,
    samples: Sequence[Sample],
    stacks: Sequence[np.ndarray],
    name: str,
    config: TrainConfig,
    *,
    training: bool,
) -> ClipBatches:
    label_ids = {label: i for i, label in enumerate(dataset.labels)}
    return ClipBatches(
        stacks,
        [label_ids[sample.label] for sample in samples],
        num_frames=dataset.spec.num_frames,
        name=name,
        batch_size=config.batch_size,
        training=training,
        augment=training and name == "frames",
        flip=config.flip,
        seed=config.seed,
    )


def _fit(
    model: keras.Model,
    train_batches: ClipBatches,
    val_batches: ClipBatches,
    config: TrainConfig,
    learning_rate: float,
    stage_dir: Path,
) -> Stage:
    """Fit until the validation loss no longer falls; leaves the model with its best weights."""
    checkpoint = Checkpoint(stage_dir, config.patience)
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=config.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=uses_jit())
    first_epoch = checkpoint.begin(model, val_batches if stage_dir.name == "fine_tune" else None)
    if checkpoint.finished(config.epochs):
        _logger.info("%s: finished earlier, its best weights are used", stage_dir.name)
    else:
        model.fit(
            train_batches,
            validation_data=val_batches,
            initial_epoch=first_epoch,
            epochs=config.epochs,
            shuffle=False,  # ClipBatches does, reproducibly
            class_weight=_class_weight(train_batches.label_ids) if config.class_weight == "balanced" else None,
            verbose=0,
            callbacks=[_Progress(train_batches, config.epochs, stage_dir.name), checkpoint],
        )
    checkpoint.restore(model)
    return Stage(stage_dir.name, checkpoint.state["rows"], checkpoint.state["best_epoch"])


def _class_weight(label_ids: np.ndarray) -> dict[int, float]:
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(label_ids)
    weights = compute_class_weight("balanced", classes=classes, y=label_ids)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


class _Progress(keras.callbacks.Callback):
    """A bar on stderr, one step an epoch, with the accuracy so far."""

    def __init__(self, batches: ClipBatches, num_epochs: int, stage: str) -> None:
        super().__init__()
        self._batches, self._num_epochs, self._stage = batches, num_epochs, stage

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._bar = progress_bar(total=self._num_epochs, desc=f"training {self._stage}", unit="epoch")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._batches.start_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        self._bar.set_postfix_str(f"train {logs['accuracy']:.3f}, val {logs['val_accuracy']:.3f}", refresh=False)
        self._bar.update(epoch + 1 - self._bar.n)

    def on_train_end(self, logs: dict | None = None) -> None:
        self._bar.close()


# === Before and after ===


def check_labels(dataset: Dataset) -> None:
    """Raise `DatasetError` unless there are two labels, each with training videos, and videos for validation."""
    taught = {sample.label for sample in dataset.split("train")}
    absent = sorted(set(dataset.labels) - taught)
    if absent:
        raise DatasetError(
            f"{dataset.dataset_dir}: no training videos of {', '.join(absent)}; add videos of them, or leave them out"
        )
    if len(taught) < 2:
        raise DatasetError(f"{dataset.dataset_dir}: expected two or more labels, received only {', '.join(taught)}")
    dataset.split("val")


def _claim_work_dir(work_dir: Path, dataset: Dataset, config: TrainConfig, resume: bool) -> None:
    """Make the folder that of this run, or check that it is, up to settings that only say when to stop."""
    note = work_dir / "config.json"
    rows = [(sample.sample_id, sample.label, sample.split) for sample in dataset.samples]
    digest = hashlib.blake2b(json.dumps([as_dict(dataset.spec), rows]).encode(), digest_size=8).hexdigest()
    settings = {**as_dict(config), "dataset": digest}
    try:
        previous = json.loads(note.read_text(encoding="utf-8")) if resume else None
    except (OSError, ValueError):
        previous = None
        _logger.info("nothing to resume in %s, training starts anew", work_dir)
    if previous is not None:
        changed = [
            f"{name} was {previous.get(name)}, now {value}"
            for name, value in settings.items()
            if previous.get(name) != value and name not in ("epochs", "patience")
        ]
        if changed:
            raise ActivityError(f"{work_dir}: cannot resume with other settings: {'; '.join(changed)}")
        return
    for stage in _STAGES:
        shutil.rmtree(work_dir / stage, ignore_errors=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    with atomic_file(note, "w") as file:
        json.dump(settings, file, indent=2)


@contextlib.contextmanager
def _precision(mixed: bool) -> Iterator[None]:
    if mixed and not gpu_names():
        _logger.warning("mixed precision gains nothing on a CPU, training in float32")
        mixed = False
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if mixed else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _finished(taught: ActivityClassifier, dataset: Dataset, config: TrainConfig) -> ActivityClassifier:
    """The taught weights in a fresh float32 model: no optimizer, nothing of the training's precision."""
    fresh = build_classifier(dataset, dataclasses.replace(config, weights="none"))
    fresh.set_weights(taught.get_weights())
    counts = {split: len([s for s in dataset.samples if s.split == split]) for split in ("train", "val", "test")}
    fresh.record = {
        "training": as_dict(config),
        "num_videos": counts,
        "taught": sorted({content_of(s) for s in dataset.samples if s.split in ("train", "val")}),
    }
    return fresh
