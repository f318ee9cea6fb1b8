"""activity generate: random sentences of a model without a video, or random orders of activities."""

from __future__ import annotations

import argparse
import json
from typing import Any

from activity.cli.options import add_model, in_range, seed
from activity.cli.output import say_result
from activity.errors import printable
from activity.models.info import read_info

EXAMPLES = ["captioner.keras --num 5 --temperature 0.8 --seed 1", "order.keras --num 3"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, how many sentences, and how they are drawn."""
    add_model(parser)
    add = parser.add_argument
    add("--num", type=in_range(int, 1, 100_000), default=5, metavar="N", help="sentences; default: %(default)s")
    help = "below 1 nearer to the most probable words, above 1 wilder; default: %(default)s"
    add("--temperature", type=in_range(float, 1e-3, 100), default=1.0, metavar="X", help=help)
    help = "only the most probable words that together have this probability; default: %(default)s"
    add("--top-p", type=in_range(float, 1e-6, 1), default=1.0, metavar="X", help=help)
    add("--seed", type=seed, default=0, metavar="N", help="the same sentences for the same; default: %(default)s")
    add("--json", action="store_true", help="print one JSON object a line")


def run(arguments: argparse.Namespace) -> None:
    """Print the sentences."""
    task = read_info(arguments.model, task=None).task
    if task == "classify":
        read_info(arguments.model, task="describe")  # says what it is
    from activity.models.captioner import load_captioner
    from activity.predictor.captioner import Captioner

    options = {name: getattr(arguments, name) for name in ("temperature", "top_p", "seed")}
    captioner = Captioner(load_captioner(arguments.model, task=task), **options)
    for sentence in captioner.generate(arguments.num):
        values: dict[str, Any] = {"caption": sentence.text}
        if task == "order":
            values = {"labels": sentence.words}
        values["log_probability"] = sentence.log_probability
        text = ", ".join(sentence.words) if task == "order" else sentence.text
        say_result(json.dumps(values, allow_nan=False) if arguments.json else printable(text), goes_on=False)
