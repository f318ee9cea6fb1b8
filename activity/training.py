"""Teach a classifier: the head on cached features, then, if asked, the last layers of the backbone on frames.

A run keeps its state in a folder, one sub-folder a stage, so that it can be killed at any point and resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from activity.backbones import build_backbone, default_weights
from activity.batches import ClipBatches
from activity.classifier import ActivityClassifier
from activity.config import TrainConfig, as_dict
from activity.dataset import Sample
from activity.devices import gpu_names
from activity.errors import ActivityError, DatasetError
from activity.heads import build_head
from activity.layers import uses_jit
from activity.store import Dataset, atomic_file, extract_features, read_csv

_BEFORE_FIRST_EPOCH = -1
_FINE_TUNE_LEARNING_RATE = 0.1  # of the head's: pretrained weights should move a little

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """What `train` gives.

    Attributes:
        classifier: with the weights of the epoch that had the lowest validation loss.
        history: one row an epoch: `stage`, `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy`.
    """

    classifier: ActivityClassifier
    history: list[dict[str, Any]]

    def as_text(self) -> str:
        """What was learned, for a terminal; the validation score has helped to choose the weights, so it flatters."""
        lines = []
        for stage in dict.fromkeys(row["stage"] for row in self.history):
            rows = [row for row in self.history if row["stage"] == stage]
            best = min(rows, key=lambda row: row["val_loss"])
            lines.append(
                f"{stage:16} {len(rows)} epochs; best at epoch {best['epoch'] + 1:.0f}: validation loss "
                f"{best['val_loss']:.3f}, accuracy {best['val_accuracy']:.3f} (training {best['accuracy']:.3f})"
            )
        return "\n".join(lines)


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
    _check_labels(dataset)
    _claim_work_dir(work_dir, config, resume)
    keras.utils.set_random_seed(config.seed)
    with _precision(config.mixed_precision):
        classifier = build_classifier(dataset, config)
        stages = _stages(config)
        for stage in stages:
            _STAGES[stage](classifier, dataset, config, work_dir / stage)
    history = [{"stage": stage, **row} for stage in stages for row in _read_log(work_dir / stage)]
    return TrainingRun(_finished(classifier, dataset, config), history)


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
        clip_seconds = max(sample.duration_seconds for sample in dataset.split("train"))
    return ActivityClassifier(backbone, head, spec=spec, labels=dataset.labels, clip_seconds=clip_seconds)


def unfreeze(backbone: keras.Model, num_layers: int) -> None:
    """Make the last `num_layers` layers trainable, all others not, BatchNormalization never.

    Batch statistics of a few clips would destroy what ImageNet taught, and only `trainable=False` keeps the moving
    averages still in `fit` (Keras issue 20285). Compile again after this.
    """
    backbone.trainable = True
    first = max(0, len(backbone.layers) - num_layers)
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= first and not isinstance(layer, keras.layers.BatchNormalization)


# === Stages ===


def _stages(config: TrainConfig) -> list[str]:
    if (config.weights or default_weights(config.backbone)) == "none":
        if config.fine_tune:
            raise ActivityError(f"--fine-tune needs pretrained weights; without, all of {config.backbone} is taught")
        return ["scratch"]
    return ["head", "fine_tune"] if config.fine_tune else ["head"]


def _teach_head(classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path) -> None:
    def batches(split: str) -> ClipBatches:
        samples = dataset.split(split)
        features = extract_features(dataset, samples, classifier.backbone)
        return _batches(dataset, samples, features, "features", config, training=split == "train")

    _fit(classifier.head, batches("train"), batches("val"), config, config.learning_rate, stage_dir)


def _teach_last_layers(classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path) -> None:
    unfreeze(classifier.backbone, config.fine_tune)
    _teach_all(classifier, dataset, config, stage_dir, config.learning_rate * _FINE_TUNE_LEARNING_RATE)


def _teach_from_scratch(classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path) -> None:
    _teach_all(classifier, dataset, config, stage_dir, config.learning_rate)


def _teach_all(
    classifier: ActivityClassifier, dataset: Dataset, config: TrainConfig, stage_dir: Path, learning_rate: float
) -> None:
    def batches(split: str) -> ClipBatches:
        samples = dataset.split(split)
        stacks = [dataset.frames(sample) for sample in samples]
        return _batches(dataset, samples, stacks, "frames", config, training=split == "train")

    _fit(classifier, batches("train"), batches("val"), config, learning_rate, stage_dir)


_STAGES = {"head": _teach_head, "fine_tune": _teach_last_layers, "scratch": _teach_from_scratch}


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
) -> None:
    """Fit until the validation loss no longer falls; leaves the model with its best weights."""
    best = _BestWeights(stage_dir, config.patience)
    if best.done:
        _logger.info("%s: finished earlier, its best weights are used", stage_dir.name)
        best.restore(model)
        return
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=config.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=uses_jit())
    model.optimizer.build(model.trainable_variables)  # weights files hold its state too
    stage_dir.mkdir(parents=True, exist_ok=True)
    best.begin(model, val_batches)
    model.fit(
        train_batches,
        validation_data=val_batches,
        epochs=config.epochs,
        shuffle=False,  # ClipBatches does, reproducibly
        class_weight=_class_weight(train_batches.label_ids) if config.class_weight == "balanced" else None,
        verbose=0,
        callbacks=[
            _Progress(train_batches, config.epochs, stage_dir.name),
            keras.callbacks.CSVLogger(stage_dir / "log.csv", append=True),
            best,
            keras.callbacks.BackupAndRestore(stage_dir / "backup", delete_checkpoint=True),
        ],
    )


def _class_weight(label_ids: np.ndarray) -> dict[int, float]:
    from sklearn.utils.class_weight import compute_class_weight

    classes = np.unique(label_ids)
    weights = compute_class_weight("balanced", classes=classes, y=label_ids)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


class _BestWeights(keras.callbacks.EarlyStopping):
    """Early stopping that keeps its state and the best weights on disk, so that a resumed run remembers them.

    The weights a stage begins with compete too: no stage leaves the model worse than it found it, or with NaN.
    """

    def __init__(self, stage_dir: Path, patience: int) -> None:
        super().__init__(monitor="val_loss", mode="min", patience=patience)
        self._state_path, self._weights_path = stage_dir / "state.json", stage_dir / "best.weights.h5"
        self._state = json.loads(self._state_path.read_text()) if self._state_path.is_file() else {}

    @property
    def done(self) -> bool:
        return bool(self._state.get("done"))

    def begin(self, model: keras.Model, val_batches: ClipBatches) -> None:
        if not self._state:
            loss = model.evaluate(val_batches, verbose=0, return_dict=True)["loss"]
            model.save_weights(self._weights_path)
            self._state = {"best": loss, "wait": 0, "best_epoch": _BEFORE_FIRST_EPOCH}

    def restore(self, model: keras.Model) -> None:
        model.load_weights(self._weights_path)

    def on_train_begin(self, logs: dict | None = None) -> None:
        super().on_train_begin(logs)
        self.best, self.wait, self.best_epoch = (self._state[name] for name in ("best", "wait", "best_epoch"))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.wait == 0:
            self.model.save_weights(self._weights_path)
        self._write_state(done=False)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.best_epoch == _BEFORE_FIRST_EPOCH:
            stage = self._state_path.parent.name
            _logger.warning(
                "%s: no epoch improved the validation loss, %.3f; its changes are dropped", stage, self.best
            )
        self.restore(self.model)
        self._write_state(done=True)

    def _write_state(self, *, done: bool) -> None:
        state = {"best": float(self.best), "wait": self.wait, "best_epoch": self.best_epoch, "done": done}
        with atomic_file(self._state_path, "w") as file:
            json.dump(state, file)


class _Progress(keras.callbacks.Callback):
    """A bar on stderr, one step an epoch, with the accuracy so far."""

    def __init__(self, batches: ClipBatches, num_epochs: int, stage: str) -> None:
        super().__init__()
        self._batches, self._num_epochs, self._stage = batches, num_epochs, stage

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._bar = tqdm(total=self._num_epochs, desc=f"training {self._stage}", unit="epoch", disable=None)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._batches.start_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        self._bar.update(epoch + 1 - self._bar.n)
        self._bar.set_postfix_str(f"train {logs['accuracy']:.3f}, val {logs['val_accuracy']:.3f}")

    def on_train_end(self, logs: dict | None = None) -> None:
        self._bar.close()


# === Before and after ===


def _check_labels(dataset: Dataset) -> None:
    absent = sorted(set(dataset.labels) - {sample.label for sample in dataset.split("train")})
    if absent:
        raise DatasetError(
            f"{dataset.dataset_dir}: no training videos of {', '.join(absent)}; add videos of them, or leave them out"
        )
    dataset.split("val")


def _claim_work_dir(work_dir: Path, config: TrainConfig, resume: bool) -> None:
    note = work_dir / "config.json"
    if resume and note.is_file():
        previous = json.loads(note.read_text(encoding="utf-8"))
        changed = [f"{k} was {previous.get(k)}, now {v}" for k, v in as_dict(config).items() if previous.get(k) != v]
        if changed:
            raise ActivityError(f"{work_dir}: cannot resume with other settings: {'; '.join(changed)}")
        return
    if resume:
        _logger.info("nothing to resume in %s, training starts anew", work_dir)
    for stage in _STAGES:
        shutil.rmtree(work_dir / stage, ignore_errors=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    with atomic_file(note, "w") as file:
        json.dump(as_dict(config), file, indent=2)


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
    fresh.record = {"training": as_dict(config), "num_videos": counts}
    return fresh


def _read_log(stage_dir: Path) -> list[dict[str, float]]:
    rows = [{name: float(value) for name, value in row.items()} for row in read_csv(stage_dir / "log.csv")]
    return list({row["epoch"]: row for row in rows}.values())  # a kill between log and backup repeats an epoch
