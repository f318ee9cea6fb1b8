"""activity train: from a data set folder to a model file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activity.cli.checks import check_new_model, open_dataset, read_recipe
from activity.cli.options import add_dataset, add_overwrite, add_recipe
from activity.cli.output import save_run, state_dir
from activity.config import TASKS, TrainConfig

if TYPE_CHECKING:
    from activity.datasets.dataset import Dataset
    from activity.training.captioning import CaptioningRun
    from activity.training.result import TrainingRun

EXAMPLES = [
    "dataset --out model.keras",
    "dataset --out model.keras --streams motion,motion_crop --precision 0.9",
    "dataset --out model.keras --backbone vgg16 --head bidirectional --fine-tune 4",
    "dataset --out steps.keras --labels-per step --background    (what happens when, of films with segments)",
    "dataset --out captioner.keras --task describe          (sentences, of a manifest with captions)",
    "dataset --out order.keras --task order                 (what follows what, of films with segments)",
]

CONTINUE = ["the same command with --resume continues from here"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, the model file and the recipe."""
    add_dataset(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="MODEL.keras", help="model file to write")
    parser.add_argument("--resume", action="store_true", help="continue a stopped run that had the same settings")
    add_overwrite(parser)
    add_recipe(parser, tasks=TASKS)


def run(arguments: argparse.Namespace) -> None:
    """Train, write the model file, and print the scores."""
    config = read_recipe(arguments)
    check_new_model(arguments.out, overwrite=arguments.overwrite, resume=arguments.resume)
    dataset = open_dataset(arguments, task=config.task, labels_per=config.labels_per)
    options = {"work_dir": state_dir(arguments.out), "resume": arguments.resume, "runtime": arguments.runtime}
    run = _TRAIN[config.task](dataset, config, options)
    run.model.info = run.model.info.with_record(command=arguments.command_line)
    print(f"{run.as_text()}\n{save_run(run, arguments.out)}")


def _classifier(dataset: Dataset, config: TrainConfig, options: dict[str, Any]) -> TrainingRun:
    from activity.training.trainer import train

    return train(dataset, config, **options)


def _order(dataset: Dataset, config: TrainConfig, options: dict[str, Any]) -> CaptioningRun:
    from activity.training.ordering import train_order

    del options["runtime"]  # nothing is read but labels
    return train_order(dataset, config, **options)


def _captioner(dataset: Dataset, config: TrainConfig, options: dict[str, Any]) -> CaptioningRun:
    from activity.training.captioning import train_captioner

    return train_captioner(dataset, config, **options)


_TRAIN: dict[str, Callable[[Dataset, TrainConfig, dict[str, Any]], TrainingRun | CaptioningRun]] = {
    "classify": _classifier,
    "describe": _captioner,
    "order": _order,
}
