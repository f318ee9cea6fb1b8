"""What comes before a training: checks, the data as it is trained on, the folder of its state."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import TrainConfig, as_dict, changes, current_settings, recipe_flag, stored_streams
from activity.datasets.dataset import Dataset
from activity.datasets.samples import name_some
from activity.errors import ActivityError, DatasetError
from activity.evaluation.calibration import FEWEST_VIDEOS
from activity.files import atomic_file, digest_of, digest_of_file, remove_leftovers
from activity.models.backbones import build_backbone, build_identity, choose_weights
from activity.models.backend import keras
from activity.models.devices import gpu_names
from activity.models.heads import HEADS, HeadOptions
from activity.training.stages import stage_names
from activity.training.state import SETTINGS_NAME, STAGES, check_state
from activity.video.images import IMAGES_PER_SECOND

_WINDOW_QUANTILE = 0.25  # of the clips' durations: three in four clips are longer than a window of a long video
_SIDES = "left|right|clockwise|links|rechts"  # in labels


_logger = logging.getLogger(__name__)


def with_given_features(dataset: Dataset, config: TrainConfig) -> Dataset:
    """The data set with the feature files that a configuration names.

    Raises:
        DatasetError: they do not fit the data set, or it has others already.
    """
    given = dataset.features
    if given and (not config.features or Path(config.features) != given.features_dir):
        reason = f"the data set has these feature files, and the configuration names {config.features or 'none'}"
        raise DatasetError(reason, path=given.features_dir, hint="name the same")
    return dataset.with_features(config.features) if config.features else dataset


def is_frozen(config: TrainConfig) -> bool:
    """Whether the backbone stays as it is, so that features are computed once."""
    return stage_names(config) == ["head"]


def has_folds(config: TrainConfig) -> bool:
    """Whether training videos are predicted out of fold: for a stack, or for a head that no val split calibrates."""
    return is_frozen(config) and (config.stack or not config.val_split)


def merge_val(dataset: Dataset, config: TrainConfig) -> Dataset:
    """The data set as it is trained on: where nothing needs the val split, its videos are in the train split."""
    if config.val_split or not is_frozen(config):
        return dataset
    samples = [dataclasses.replace(x, split="train") if x.split == "val" else x for x in dataset.samples]
    return dataclasses.replace(dataset, samples=samples)


def num_val(dataset: Dataset) -> int:
    """How many videos the val split has."""
    return sum(sample.split == "val" for sample in dataset.samples)


def backbone_of(dataset: Dataset, config: TrainConfig) -> keras.Model:
    """The backbone of a recipe, with its weights, for the frames of a data set or for its feature files."""
    spec = dataset.spec
    if spec.num_features:
        return build_identity(spec.num_features)
    return build_backbone(config.backbone, height=spec.height, width=spec.width, weights=config.weights)


def clips_of(dataset: Dataset) -> dict[str, Any]:
    """What a model of a data set knows of the clips it was trained on, as `ModelInfo` holds it."""
    spec = dataset.spec
    if spec.frames_per_second:
        clip_seconds = window_seconds = spec.num_frames / spec.frames_per_second
    else:
        # images last no time, and say nothing of how long an activity does
        durations = [x.duration_seconds for x in dataset.samples if x.duration_seconds] or [1 / IMAGES_PER_SECOND]
        clip_seconds, window_seconds = max(durations), float(np.quantile(durations, _WINDOW_QUANTILE))
    return {
        "spec": spec,
        "clip_seconds": clip_seconds,
        "window_seconds": window_seconds,
        "rows_per_second": dataset.features.rows_per_second if dataset.features else None,
    }


def head_options(config: TrainConfig) -> HeadOptions:
    """Those of a recipe."""
    return HeadOptions(**{name: getattr(config, name) for name in HeadOptions.__dataclass_fields__})


def check_labels(dataset: Dataset, *, fewest: int = 2) -> None:
    """Raise `DatasetError` unless there are so many labels or more, each with training videos."""
    trained = {sample.label for sample in dataset.split("train")} - {""}
    absent = sorted(set(dataset.labels) - trained)
    if absent:
        raise DatasetError(
            f"no training videos of {', '.join(absent)}",
            path=dataset.dataset_dir,
            hint="add videos of them, or leave them out",
        )
    if len(trained) < fewest:
        raise DatasetError(f"expected two or more labels, received only {', '.join(trained)}", path=dataset.dataset_dir)


def say_what_is_idle(dataset: Dataset, config: TrainConfig) -> None:
    """Log which options have no effect together with the others, or with this data set."""
    reads = HEADS[config.head].reads if config.head in HEADS else ()
    idle = {name: f"with the head {config.head}" for name in ("units", "layers", "merge_mode") if name not in reads}
    if not config.fine_tune:
        idle["fine_tune_epochs"] = "without --fine-tune"
    if is_frozen(config):
        idle["flip"] = "here: it needs --fine-tune, or a backbone trained from scratch"
    else:
        if not config.fine_tune:
            idle["mixup"] = "here: it needs a backbone with pretrained weights"
        needed = "here: it needs a frozen backbone with pretrained weights"
        idle |= {"stack": needed, "val_split": f"{needed}; without, the validation split is kept"}
    if is_frozen(config) and config.val_split and not num_val(dataset):
        if config.stack:
            idle["val_split"] = "here: there are no validation videos"
        else:  # a way to train without folds, as in a cross-validation
            warn_once("no validation videos: with --val-split nothing calibrates the model", logging.INFO)
    for name, why in idle.items():
        if getattr(config, name) != getattr(TrainConfig, name):
            warn_once(f"{recipe_flag(name)} does nothing {why}")
    if not config.flip:
        return
    told = {*dataset.labels, *(caption for sample in dataset.samples for caption in sample.captions)}
    sided = [x for x in sorted(told) if re.search(rf"(?<![a-z])({_SIDES})(?![a-z])", x.lower())]
    if sided:
        warn_once(f"--flip mirrors videos, which makes one of the other out of: {name_some(sided)}")


def say_if_nothing_calibrates(dataset: Dataset, config: TrainConfig, folds: np.ndarray | None) -> None:
    """Log that a precision was asked for in vain."""
    count, videos = num_val(dataset), "validation videos"
    if has_folds(config) and count < FEWEST_VIDEOS:
        count = 0 if folds is None else len(folds)
        videos = "training videos predicted out of fold"
    if count < FEWEST_VIDEOS:
        needed = f"it needs {FEWEST_VIDEOS} or more {videos}, and there are {count}"
        warn_once(f"--precision does nothing here: {needed}")


@functools.cache
def warn_once(text: str, level: int = logging.WARNING) -> None:
    """Log a line, once a process: a search trains hundreds of times."""
    _logger.log(level, text)


def claim_work_dir(work_dir: Path, dataset: Dataset, config: TrainConfig, resume: bool) -> None:
    """Make the folder that of this run, or check that it is."""
    check_state(work_dir)
    for folder in (work_dir, *(work_dir / stage for stage in STAGES)):
        remove_leftovers(folder)
    note = work_dir / SETTINGS_NAME
    rows = [(sample.sample_id, sample.label, sample.split) for sample in dataset.samples]
    spec = {**as_dict(dataset.spec), "streams": stored_streams(dataset.spec.streams)}
    settings = {**as_dict(config), "dataset": digest_of([spec, rows], size=8)}
    for name in ("weights", "encoder"):  # another file may have taken the name
        if (path := getattr(config, name)) and Path(path).is_file():
            settings[f"{name}_digest"] = digest_of_file(Path(path))
    settings["groups_digest"] = digest_of([sample.group for sample in dataset.samples], size=8)  # they make the folds
    if config.task == "describe":
        settings["captions_digest"] = digest_of([sample.captions for sample in dataset.samples], size=8)
    if dataset.features:
        settings["features_digest"] = dataset.features.digest()
    try:
        previous = json.loads(note.read_text(encoding="utf-8")) if resume else None
    except (OSError, ValueError):
        previous = None
        _logger.info("nothing to resume in %s, training starts from the beginning", work_dir)
    if previous is not None:
        previous = current_settings(previous)
        if not previous.get("weights"):  # as earlier versions noted those that are chosen by default
            previous["weights"] = choose_weights(config.backbone, None)
        for name in set(settings) - set(as_dict(config)) - {"dataset"}:  # digests that earlier versions did not note
            previous.setdefault(name, settings[name])
        if changed := changes(previous, settings):
            raise ActivityError(f"cannot resume with other settings: {changed}", path=work_dir)
        return
    for stage in STAGES:
        shutil.rmtree(work_dir / stage, ignore_errors=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    with atomic_file(note, "w") as file:
        json.dump(settings, file, indent=2, allow_nan=False)


@contextlib.contextmanager
def compute_precision(mixed: bool) -> Iterator[None]:
    """Build and train models in float16, where a GPU gains by it."""
    if mixed and not gpu_names():
        _logger.warning("mixed precision gains nothing on a CPU, training in float32")
        mixed = False
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if mixed else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
