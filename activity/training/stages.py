"""The stages of a training: which there are, what clips each sees, and how a plan is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import Dataset, Stacks
from activity.datasets.samples import Sample
from activity.errors import ActivityError
from activity.models.backbones import choose_weights, split_backbone
from activity.models.backend import keras
from activity.models.heads import adapt, prepared
from activity.runtimes.features import cache_activations, extract_features
from activity.training.batches import ClipBatches, FeatureBatches, FrameBatches
from activity.training.fitting import AnyBatches, LayerwiseAdamW, Optimizer, StagePlan

_FINE_TUNE_LEARNING_RATE = 0.1  # of the head's: pretrained weights should move a little
_LAYER_DECAY = 0.9  # each layer of the backbone learns so much slower than the one above it
_NUMBERS_AT_ONCE = 96 * 224 * 224 * 3  # that go into the trained layers; all of MobileNetV2 then takes about 6 GB


def stage_names(config: TrainConfig) -> list[str]:
    """The stages of a run, in their order; raises `ActivityError` for what cannot be fine-tuned."""
    if config.features:
        return ["head"]
    if not config.encoder and choose_weights(config.backbone, config.weights) == "none":
        if config.fine_tune:
            hint = f"without, all of {config.backbone} is trained"
            raise ActivityError("--fine-tune needs pretrained weights", hint=hint)
        return ["scratch"]
    return ["head", "fine_tune"] if config.fine_tune else ["head"]


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """What the clips of a stage are, and how the stage learns from them.

    Args:
        encoder: the part of the backbone that is trained, whose inputs the clips are; `None`: they are features, as the
            first layers of the head or encoder prepare them.
        stacks: gives the stack of each of some samples.
        make: batches of stacks.
        optimizer: AdamW, or made like it.
        config: of this stage.
    """

    encoder: keras.Model | None
    stacks: Callable[[Sequence[Sample]], Iterable[Any]]
    make: Callable[..., ClipBatches]
    optimizer: Optimizer = keras.optimizers.AdamW
    config: TrainConfig


def clip_source(
    stage: str,
    reader: keras.Model,
    backbone: keras.Model,
    dataset: Dataset,
    config: TrainConfig,
    *,
    runtime: str,
    mixup: float = 0.0,
    fresh: bool = True,
) -> ClipSource:
    """The clips of a stage.

    Args:
        stage: `head`: features that are computed once. `fine_tune`: frames, or what the layers below the trained ones
            make of them, which is computed once. `scratch`: frames.
        reader: of features: a head, or an encoder of `activity.models.captioner`.
        backbone: whose last layers are made trainable for `fine_tune`.
        dataset: whose samples are trained on.
        config: of the training.
        runtime: what computes what is computed once.
        mixup: of features; see `FeatureBatches`.
        fresh: the reader first takes the statistics of the features of the train split.
    """
    if stage == "head":

        def features(samples: Sequence[Sample]) -> Sequence[np.ndarray]:
            return extract_features(dataset, samples, backbone, runtime=runtime)

        if fresh:
            adapt(reader, features(dataset.split("train")))
        return ClipSource(
            encoder=None,
            stacks=lambda samples: prepared(reader, features(samples)),
            make=partial(FeatureBatches, mixup=mixup),
            config=config,
        )
    frames = ClipSource(
        encoder=backbone,
        stacks=lambda samples: Stacks(dataset.frames, samples, dataset.spec.streams),
        make=partial(FrameBatches, augment=dataset.spec.streams, flip=config.flip),
        config=config,
    )
    if stage == "scratch":
        return frames
    unfreeze(backbone, config.fine_tune)
    trained = [layer for layer in backbone.layers if layer.trainable_variables]
    rates = {v.path: _LAYER_DECAY**depth for depth, layer in enumerate(trained[::-1], 1) for v in layer.variables}
    rate = config.learning_rate * _FINE_TUNE_LEARNING_RATE
    slower = dataclasses.replace(
        frames,
        config=dataclasses.replace(config, epochs=config.fine_tune_epochs, learning_rate=rate),
        optimizer=partial(LayerwiseAdamW, rates=rates),
    )
    below, above = split_backbone(backbone)
    if below is None:
        return slower
    return dataclasses.replace(
        slower,
        encoder=above,
        stacks=lambda samples: cache_activations(dataset, samples, below, runtime),  # once is enough for all epochs
        make=FrameBatches,
    )


def unfreeze(backbone: keras.Model, num_layers: int) -> None:
    """Make the last `num_layers` layers that can learn trainable, all others not, BatchNormalization never.

    Batch statistics of a few clips would destroy what was learned from ImageNet, and only `trainable=False` keeps the
    moving averages still in `fit` (Keras issue 20285). Compile again after this.
    """
    backbone.trainable = True
    able = [x for x in backbone.layers if x.weights and not isinstance(x, keras.layers.BatchNormalization)]
    trained = able[max(0, len(able) - num_layers) :]
    for layer in backbone.layers:
        layer.trainable = layer in trained


def plan_stage(
    name: str,
    model: keras.Model,
    source: ClipSource,
    dataset: Dataset,
    *,
    targets: Callable[[Sequence[Sample]], Any],
    folds: np.ndarray | None = None,
    finish: Callable[[ClipBatches, Sequence[Sample]], AnyBatches] = lambda clips, samples: clips,
    **more: Any,
) -> StagePlan:
    """A stage whose clips are windows of the stacks of samples.

    Where frames go through the backbone, a step takes a few clips at a time and adds up their gradients:
    BatchNormalization is frozen or absent, so this gives the same step in less memory.

    Args:
        name: of the stage.
        model: that is trained, on what `source.encoder` takes.
        source: from `clip_source`.
        dataset: whose train split is learned from, and whose val split, if there is one, is evaluated on.
        targets: of samples, as `ClipBatches` takes them.
        folds: of the training samples; see `ClipBatches`.
        finish: makes the batches that the model takes of batches of clips of some samples.
        more: further fields of the plan.
    """
    config = source.config
    num_numbers = int(np.prod(model.input["frames"].shape[1:])) if "frames" in model.input else 0
    parts = max(1, min(-(-config.batch_size * num_numbers // _NUMBERS_AT_ONCE), config.batch_size))

    def batches(split: str) -> AnyBatches | None:
        samples = [sample for sample in dataset.samples if sample.split == split]
        if not samples:
            return None
        clips = source.make(
            source.stacks(samples),
            targets(samples),
            folds=folds if split == "train" else None,
            num_frames=dataset.spec.num_frames,
            batch_size=-(-config.batch_size // parts),
            training=split == "train",
            seed=config.seed,
        )
        return finish(clips, samples)

    train_batches = batches("train")
    assert train_batches is not None
    return StagePlan(
        name=name,
        model=model,
        train_batches=train_batches,
        val_batches=batches("val"),
        num_epochs=config.epochs,
        optimizer=partial(source.optimizer, gradient_accumulation_steps=parts) if parts > 1 else source.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        **more,
    )
