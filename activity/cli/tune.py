"""activity tune: a search for a better recipe."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from activity.cli.checks import check_results, open_dataset, read_recipe
from activity.cli.options import add_dataset, add_overwrite, add_recipe, positive_int, seconds
from activity.cli.output import say_written
from activity.config import recipe_arguments
from activity.files import check_folder, lock_folder, noted_results, write_csv

EXAMPLES = ["dataset --trials 30 --out search"]
_RESULTS = ("search.png", "trials.csv")
CONTINUE = ["the same command continues from here"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, the extent of the search, and the recipe where it begins."""
    add_dataset(parser)
    add = parser.add_argument
    add(
        "--trials", type=positive_int, default=30, metavar="N", help="trials in all, earlier ones included; default: 30"
    )
    add("--folds", default="3", help="folds of train and val, as for cross-validate; default: %(default)s")
    add("--study", type=Path, metavar="FILE", help="search to begin or continue; default: DATASET/tuning.log")
    add("--timeout", type=seconds, metavar="SECONDS", help="begin no trial after this time")
    add("--out", type=Path, metavar="DIR", help="also write a figure and a table of all trials there")
    add("--json", action="store_true", help="print the search as one JSON object")
    add_overwrite(parser)
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> None:
    """Search, and print the best trials and the command that trains with the best recipe."""
    config = read_recipe(arguments)
    if arguments.out:
        check_results(arguments, "a result of a search", *(arguments.out / name for name in _RESULTS))
    check_folder(arguments.study and arguments.study.parent)
    dataset = open_dataset(arguments)
    from activity.datasets.dataset import load_dataset
    from activity.datasets.splits import assign_folds

    tried = [sample for sample in dataset.samples if sample.split in ("train", "val")]
    assign_folds(tried, arguments.folds, seed=config.seed)  # raises if it cannot
    from activity.model_selection.tuning import tune

    search = tune(
        dataset,
        config,
        num_trials=arguments.trials,
        folds=arguments.folds,
        study_path=arguments.study,
        timeout_seconds=arguments.timeout,
        runtime=arguments.runtime,
    )
    all_streams = config.features or search.best.streams == load_dataset(arguments.dataset).spec.streams
    recipe = recipe_arguments(search.best.config, None if all_streams else search.best.streams)
    recipe += [] if arguments.runtime == "auto" else ["--runtime", arguments.runtime]
    command = shlex.join(["activity", "train", str(arguments.dataset), "--out", "model.keras", *recipe])
    if arguments.json:
        print(json.dumps({**search.as_dict(), "command": command}, allow_nan=False))
    else:
        print(f"{search.as_text()}\n\n{command}")
    if arguments.out:
        from activity.reports.figures import search_figure
        from activity.reports.style import save_figure

        rows = [trial.as_dict() for trial in search.trials]
        with lock_folder(arguments.out, "tune"), noted_results():
            figure, table = (arguments.out / name for name in _RESULTS)
            save_figure(search_figure(search), figure)
            write_csv(table, list(dict.fromkeys(name for row in rows for name in row)), rows)
        say_written([figure, table])
