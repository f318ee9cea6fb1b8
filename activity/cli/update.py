"""activity update: continue training a model with new videos and, if need be, new labels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from activity.cli.checks import check_new_model, check_order, check_runtime, open_dataset
from activity.cli.options import (
    add_choice,
    add_dataset,
    add_features,
    add_model,
    add_overwrite,
    add_runtime,
    in_range,
    positive_int,
    seed,
)
from activity.cli.output import save_run, state_dir
from activity.errors import SettingError
from activity.models.info import read_info
from activity.training.schemes import UPDATE_SCHEMES

EXAMPLES = ["model.keras dataset --out new.keras"]
_OPTIONS = ("scheme", "replay", "epochs", "learning_rate", "seed", "runtime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Both models, the data set, and what differs from the recipe of the old model."""
    add_model(parser)
    add_dataset(parser, "that of the model, with new videos, or another")
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="NEW.keras", help="model file to write")
    add_choice(
        parser,
        "--scheme",
        UPDATE_SCHEMES,
        default=UPDATE_SCHEMES[0],
        help="continue with the new videos and some old ones, with the new ones only, or train again with all",
    )
    add(
        "--replay",
        type=positive_int,
        metavar="N",
        help="old videos of each label to use again; default: as many as a label has new ones (median), at least 5",
    )
    add("--epochs", type=positive_int, metavar="N", help="default: those of the model")
    rate = in_range(float, 1e-9, 9.9)
    add("--learning-rate", type=rate, metavar="X", help="default: that of the model for retrain, else less")
    add("--seed", type=seed, help="default: that of the model")
    add_features(parser)
    add_runtime(parser, "the features")
    add_overwrite(parser)
    add("--json", action="store_true", help="print the counts and scores as one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Train, write the new model file, and print what was gained and what was lost."""
    check_order(arguments)
    if arguments.replay and arguments.scheme != "replay":
        raise SettingError("replay", "1 or more videos a label, with the scheme replay", arguments.replay)
    check_new_model(arguments.out, overwrite=arguments.overwrite)
    read_info(arguments.model)
    dataset = open_dataset(arguments)
    check_runtime(arguments.runtime)
    from activity.models.classifier import load_classifier
    from activity.training.updating import update

    options = {name: getattr(arguments, name) for name in _OPTIONS}
    result = update(load_classifier(arguments.model), dataset, work_dir=state_dir(arguments.out), **options)
    info = result.classifier.info
    *before, update_ = info.record.updates
    result.classifier.info = info.with_record(updates=(*before, {**update_, "command": arguments.command_line}))
    written = save_run(result.run, arguments.out)
    print(json.dumps(result.as_dict(), allow_nan=False) if arguments.json else f"{result.as_text()}\n{written}")
