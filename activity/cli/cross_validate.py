"""activity cross-validate: train and evaluate once per fold."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from activity.cli.checks import check_report, open_dataset, read_recipe
from activity.cli.options import add_dataset, add_films, add_recipe, add_report
from activity.cli.output import say_result, say_written
from activity.config import as_dict
from activity.files import lock_folder, noted_results, remove_stale_results
from activity.models.backbones import choose_weights

EXAMPLES = ["dataset --folds groups --out report"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, its folds, the report and the recipe."""
    add_dataset(parser)
    parser.add_argument(
        "--folds", default="5", help="K, 'groups' to leave one group out, or a manifest column; default: %(default)s"
    )
    add_films(parser)
    add_report(parser)
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> None:
    """Cross-validate, print the scores, and write the report."""
    config = read_recipe(arguments)
    check_report(arguments)
    from activity.datasets.splits import assign_folds

    dataset = open_dataset(arguments, labels_per=config.labels_per)
    assign_folds(dataset.samples, arguments.folds, seed=config.seed)  # raises if it cannot
    from activity.model_selection.cross_validation import cross_validate
    from activity.reports.report import save_report

    with tempfile.TemporaryDirectory() as work_dir:
        result = cross_validate(
            dataset,
            config,
            folds=arguments.folds,
            work_dir=Path(work_dir),
            runtime=arguments.runtime,
            films=not arguments.no_films,
        )
    text = json.dumps(result.as_dict(), allow_nan=False) if arguments.json else result.as_text()
    say_result(text, goes_on=bool(arguments.out))
    if arguments.out:
        weights = choose_weights(config.backbone, config.weights)
        about = {"folds": arguments.folds, **as_dict(config), "weights": weights}
        with lock_folder(arguments.out, "cross-validate"), noted_results():
            written = save_report(result, dataset, arguments.out, about=about)
            remove_stale_results(arguments.out, written)
            say_written(written)
