"""Train a model of the order of activities: which follow each other in films with labelled segments.

It is a captioner that is shown nothing, and whose words are the labels: its decoder alone is a language model (Graves
2013, generating sequences), which says how probable each next activity is after all before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activity.config import FEATURES, ClipSpec, TrainConfig
from activity.datasets.dataset import Dataset
from activity.datasets.samples import films_of
from activity.errors import DatasetError, SettingError, check_type
from activity.files import lock_folder
from activity.models.backbones import build_identity
from activity.models.backend import keras
from activity.models.captioner import ActivityCaptioner, build_encoder
from activity.models.decoder import Decoder
from activity.models.heads import HeadOptions
from activity.models.info import ModelInfo
from activity.models.search import NUM_SPECIAL
from activity.training.batches import CaptionBatches, FeatureBatches
from activity.training.captioning import CaptioningRun, words_are_judged
from activity.training.fitting import StagePlan, fit
from activity.training.preparation import claim_work_dir, merge_val
from activity.training.record import record_of

_NOTHING = ClipSpec(num_frames=1, streams=(FEATURES,), num_features=1)  # what the model is shown


def train_order(
    dataset: Dataset,
    config: TrainConfig,
    *,
    work_dir: Path | str,
    resume: bool = False,
    seconds_between_saves: float = 10.0,
) -> CaptioningRun:
    """Train a model of the order of activities on the films of the train split; the test split is not touched.

    It learns the rest of each film from each of its segments on, as films begin anywhere.

    Args:
        dataset: made by `preprocess` of a manifest with segments (`start_seconds`, `end_seconds`).
        config: how to train; its task is `order`.
        work_dir: folder for the state of the run and its log; another run's state in it is replaced.
        resume: continue where a killed run with the same configuration stopped.
        seconds_between_saves: of the state of the run.

    Raises:
        SettingError: an argument is of another type or task.
        DatasetError: no video of the train split has two or more segments.
        ActivityError: what would be replaced in `work_dir` is not of a training.
    """
    check_type("dataset", dataset, Dataset, "a Dataset, as preprocess and load_dataset give it")
    check_type("config", config, TrainConfig, "a TrainConfig")
    if config.task != "order":
        raise SettingError("task", "order", config.task)
    work_dir, dataset = Path(work_dir), dataset.labelled()
    keras.utils.set_random_seed(config.seed)
    dataset = dataclasses.replace(merge_val(dataset, config), spec=_NOTHING)
    films = {split: list(films_of(s for s in dataset.samples if s.split == split).values()) for split in _SPLITS}
    if not films["train"]:
        reason = "no video of the train split has two or more labelled segments, so it tells no order"
        hint = "write start_seconds and end_seconds into the manifest that preprocess reads"
        raise DatasetError(reason, path=dataset.dataset_dir, hint=hint)
    labels = sorted({label for film in films["train"] for label in film})
    model = build_order(labels, config)
    with lock_folder(work_dir, "train"):
        claim_work_dir(work_dir, dataset, config, resume)
        stage = fit(_plan(model, films, config), work_dir / "head", seconds_between_saves)
    run, record = CaptioningRun(model, [stage]), record_of(dataset, config, [stage])
    model.info = dataclasses.replace(model.info, record=record).with_record(history=tuple(run.history))
    return run


_SPLITS = ("train", "val")


def build_order(labels: Sequence[str], config: TrainConfig) -> ActivityCaptioner:
    """An untrained model of the order of some labels."""
    encoder = build_encoder(HeadOptions(units=1), num_features=1, num_streams=1)
    decoder = Decoder(len(labels) + NUM_SPECIAL, config.units, config.dropout)
    names = tuple(labels)
    info = ModelInfo(
        spec=_NOTHING,
        labels=names,
        words=names,
        max_words=config.max_words,
        clip_seconds=1.0,
        window_seconds=1.0,
        rows_per_second=1.0,
    )
    return ActivityCaptioner(build_identity(1), encoder, decoder, info)


def _plan(model: ActivityCaptioner, films: dict[str, list[list[str]]], config: TrainConfig) -> StagePlan:
    numbers = {label: number for number, label in enumerate(model.info.words, NUM_SPECIAL)}

    def batches(split: str) -> CaptionBatches | None:
        known = [[numbers[label] for label in film if label in numbers] for film in films[split]]
        rests = [np.asarray(film[start:]) for film in known for start in range(len(film) - (split == "train"))]
        if not rests:
            return None
        clips = FeatureBatches(
            [np.zeros((1, 1), np.float32)] * len(rests),
            [[number] for number in range(len(rests))],
            num_frames=1,
            batch_size=config.batch_size,
            training=split == "train",
            seed=config.seed,
        )
        return CaptionBatches(
            clips,
            [[rest] for rest in rests],
            max_words=config.max_words,
            num_epochs=config.epochs,
            scheduled_sampling=config.scheduled_sampling,
            withheld=1.0,
        )

    train_batches = batches("train")
    assert train_batches is not None
    return StagePlan(
        name="head",
        model=model.to_be_trained(sampled=config.scheduled_sampling > 0),
        train_batches=train_batches,
        val_batches=batches("val"),
        num_epochs=config.epochs,
        optimizer=keras.optimizers.AdamW,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        **words_are_judged(config),
    )
