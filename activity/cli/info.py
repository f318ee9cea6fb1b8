"""activity info: what a model file tells about the model."""

from __future__ import annotations

import argparse
import json

from activity.cli.options import add_model

EXAMPLES = ["model.keras", "model.keras --markdown > card.md"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and the form of the card."""
    add_model(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--markdown", action="store_true", help="print a page to share")


def run(arguments: argparse.Namespace) -> None:
    """Print the card."""
    from activity.reports.card import model_card

    card = model_card(arguments.model)
    if arguments.json:
        print(json.dumps(card.as_dict(), allow_nan=False))
    else:
        print(card.as_markdown() if arguments.markdown else card.as_text())
