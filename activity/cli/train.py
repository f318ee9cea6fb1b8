"""activity train: from a data set folder to a model file."""

from __future__ import annotations

import argparse
from pathlib import Path

from activity.cli.checks import check_new_model, open_dataset, read_recipe
from activity.cli.options import add_dataset, add_overwrite, add_recipe
from activity.cli.output import save_run, state_dir

EXAMPLES = [
    "dataset --out model.keras",
    "dataset --out model.keras --streams motion,motion_crop --precision 0.9",
    "dataset --out model.keras --backbone vgg16 --head bidirectional --fine-tune 4",
]

CONTINUE = ["the same command with --resume continues from here"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, the model file and the recipe."""
    add_dataset(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="MODEL.keras", help="model file to write")
    parser.add_argument("--resume", action="store_true", help="continue a stopped run that had the same settings")
    add_overwrite(parser)
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, write the model file, and print the scores."""
    config = read_recipe(arguments)
    check_new_model(arguments.out, overwrite=arguments.overwrite, resume=arguments.resume)
    dataset = open_dataset(arguments)
    from activity.training.trainer import train

    work_dir = state_dir(arguments.out)
    result = train(dataset, config, work_dir=work_dir, resume=arguments.resume, runtime=arguments.runtime)
    result.classifier.info = result.classifier.info.with_record(command=arguments.command_line)
    print(f"{result.as_text()}\n{save_run(result, arguments.out)}")
