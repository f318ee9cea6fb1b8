"""activity evaluate: the scores of a model on one split of a data set."""

from __future__ import annotations

import argparse
import json
import logging
from typing import TYPE_CHECKING

from activity.cli.checks import check_order, check_report, check_runtime, open_dataset
from activity.cli.options import (
    add_choice,
    add_dataset,
    add_features,
    add_films,
    add_model,
    add_report,
    add_runtime,
)
from activity.cli.output import say_result, say_written
from activity.files import lock_folder, noted_results, remove_stale_results
from activity.models.info import read_info

if TYPE_CHECKING:
    from activity.datasets.dataset import Dataset
    from activity.evaluation.captioning import CaptionEvaluation
    from activity.evaluation.evaluator import Evaluation
    from activity.evaluation.ordering import OrderEvaluation

_logger = logging.getLogger(__name__)

EXAMPLES = ["model.keras dataset --out report", "model.keras dataset --json"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the data set, its split, and the report."""
    add_model(parser)
    add_dataset(parser)
    add_choice(parser, "--split", ("train", "val", "test"), default="test", help="of the data set")
    add_features(parser)
    add_runtime(parser, "the features")
    parser.add_argument(
        "--no-baseline",
        action="store_true",
        help="do not compare with the baseline: after fine-tuning, it needs the features of all training videos anew",
    )
    add_films(parser)
    add_report(parser)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, print the scores, and write the report."""
    check_order(arguments)
    check_report(arguments)
    task = read_info(arguments.model, task=None).task if arguments.model.is_file() else "classify"
    dataset = open_dataset(arguments, task=task)
    dataset.split(arguments.split)  # raises if it is empty
    read_info(arguments.model, task=task)
    check_runtime(arguments.runtime)
    {"classify": _evaluate_classifier, "describe": _evaluate_captioner, "order": _evaluate_order}[task](
        arguments, dataset
    )


def _evaluate_order(arguments: argparse.Namespace, dataset: Dataset) -> None:
    from activity.evaluation.ordering import evaluate_order
    from activity.models.captioner import load_captioner

    for flag in ("out", "no_baseline", "no_films", "features"):
        if getattr(arguments, flag):
            arguments.parser.error(f"--{flag.replace('_', '-')} is not for a model of the order of activities")
    _say(arguments, evaluate_order(load_captioner(arguments.model, task="order"), dataset, split=arguments.split))


def _evaluate_captioner(arguments: argparse.Namespace, dataset: Dataset) -> None:
    from activity.evaluation.captioning import evaluate_captions
    from activity.models.captioner import load_captioner
    from activity.reports.report import save_caption_report

    for flag in ("no_baseline", "no_films"):
        if getattr(arguments, flag):
            _logger.warning("--%s does nothing for a model that writes sentences", flag.replace("_", "-"))
    captioner = load_captioner(arguments.model)
    evaluation = evaluate_captions(captioner, dataset, split=arguments.split, runtime=arguments.runtime)
    _say(arguments, evaluation)
    if arguments.out:
        about = {"model": arguments.model, **captioner.info.record.as_dict()}
        with lock_folder(arguments.out, "evaluate"), noted_results():
            written = save_caption_report(evaluation, dataset, arguments.out, about=about)
            remove_stale_results(arguments.out, written)
            say_written(written)


def _say(arguments: argparse.Namespace, evaluation: Evaluation | CaptionEvaluation | OrderEvaluation) -> None:
    text = json.dumps(evaluation.as_dict(), allow_nan=False) if arguments.json else evaluation.as_text()
    say_result(text, goes_on=bool(arguments.out))


def _evaluate_classifier(arguments: argparse.Namespace, dataset: Dataset) -> None:
    from activity.evaluation.evaluator import evaluate
    from activity.models.classifier import load_classifier
    from activity.reports.report import figures_of_model, save_report

    classifier = load_classifier(arguments.model)
    evaluation = evaluate(
        classifier,
        dataset,
        split=arguments.split,
        runtime=arguments.runtime,
        baseline=not arguments.no_baseline,
        films=not arguments.no_films,
    )
    _say(arguments, evaluation)
    if arguments.out:
        about = {"model": arguments.model, **classifier.info.record.as_dict()}
        figures = figures_of_model(classifier, evaluation, dataset)
        with lock_folder(arguments.out, "evaluate"), noted_results():
            written = save_report(evaluation, dataset, arguments.out, about=about, figures=figures)
            remove_stale_results(arguments.out, written)
            say_written(written)
