"""Types of arguments, and options that several commands share. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

from activity.config import (
    CLASS_WEIGHTS,
    LABELS_PER,
    OF_SENTENCES,
    STREAMS,
    TASKS,
    TrainConfig,
    current_streams,
    recipe_flag,
)
from activity.errors import did_you_mean
from activity.executors.choice import EXECUTORS
from activity.models.backbones import BACKBONES
from activity.models.heads import HEADS, MERGE_MODES
from activity.runtimes.choice import RUNTIMES

# === Types ===


def in_range(number: type, lowest: float, highest: float) -> Callable[[str], Any]:
    """A type of numbers from `lowest` to `highest`."""

    def parse(text: str) -> Any:
        value = number(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"must be {lowest} to {highest}, received: {text}")
        return value

    parse.__name__ = number.__name__
    return parse


positive_int = in_range(int, 1, 10**6)

seed = in_range(int, 0, 2**32 - 1)  # what NumPy takes

seconds = in_range(float, 0.001, 10**6)


def frame_size(text: str) -> tuple[int, int]:
    """Height and width in pixels, of `S` or `HxW`."""
    size = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    if size is None:
        raise argparse.ArgumentTypeError(f"expected S or HxW in pixels, such as 224 or 180x320, received {text}")
    return int(size[1]), int(size[2] or size[1])


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """A type of words that must be among `names`; the message on any other names the nearest."""

    def parse(text: str) -> str:
        if text not in names:
            hint = did_you_mean(text, names)
            raise argparse.ArgumentTypeError(
                f"invalid choice: '{text}' (choose from {', '.join(names)}){hint and f'; {hint}'}"
            )
        return text

    return parse


def stream_names(text: str) -> tuple[str, ...]:
    """Names of streams, separated by commas; also those of earlier versions, which `ClipSpec` translates."""
    names = text.split(",")
    for name in current_streams(names):
        one_of(STREAMS)(name)
    return tuple(names)


# === Options ===

Group: TypeAlias = argparse.ArgumentParser | argparse._ArgumentGroup


def add_choice(parser: Group, flag: str, names: Collection[str], *, help: str = "", **options: Any) -> None:
    """An option that takes one of some names, such as the keys of a table; many names are listed in its help."""
    if len(names) > 6:
        options["metavar"], help = "NAME", f"{help}: {', '.join(names)}"
    if options.get("default"):
        help += "; default: %(default)s"
    parser.add_argument(flag, type=one_of(names), choices=tuple(names), help=help.lstrip("; "), **options)


def add_model(parser: Group) -> None:
    """The model file that a command reads."""
    parser.add_argument("model", type=Path, metavar="MODEL.keras", help="model file made by train or update")


def add_dataset(parser: Group, help: str = "folder made by preprocess") -> None:
    """The data set folder that a command reads."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help=help)


def add_features(parser: Group) -> None:
    """The feature files of a data set, for a model that was trained with `--features`."""
    parser.add_argument(
        "--features", type=Path, metavar="DIR", help="of a model of feature files: folder of those of the data set"
    )


def add_runtime(parser: Group, what: str) -> None:
    """Which library computes `what`."""
    few = " and for few images" if "features" in what else ""  # to export would take longer
    help = f"what computes {what}; auto: keras on a GPU{few}, else openvino or onnx where installed"
    add_choice(parser, "--runtime", RUNTIMES, default="auto", help=help)


def add_executor(parser: Group, what: str) -> None:
    """Where `what` is done side by side; `checks.check_executor` sees that these options fit together."""
    help = f"where {what}: processes of this machine, or of a Ray cluster (pip install '.[ray]')"
    add_choice(parser, "--executor", EXECUTORS, default="local", help=help)
    parser.add_argument("--workers", type=positive_int, metavar="N", help="processes; default: one per CPU")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of a running Ray cluster that this machine is a node of, or auto; default: one is started here",
    )


def add_films(parser: Group) -> None:
    """Whether whole films are labelled, where a data set has the times of segments."""
    help = "do not label whole films, where labels have times; it takes as long as classify --timeline"
    parser.add_argument("--no-films", action="store_true", help=help)


def add_report(parser: Group) -> None:
    """Where scores are written, and how they are printed."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write report.html, figures and tables there")
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object")


def add_overwrite(parser: Group) -> None:
    """Whether results of an earlier run may be replaced; what this program did not write never is."""
    parser.add_argument("--overwrite", action="store_true", help="replace results of an earlier run")


def add_recipe(parser: argparse.ArgumentParser, *, tasks: Collection[str] = ("classify",)) -> None:
    """An option for each field of `TrainConfig`, with what its docstring says of the field; and the streams.

    Args:
        parser: of the command.
        tasks: that the command trains for; fields of others get no option, and keep their defaults.
    """
    group = parser.add_argument_group("recipe")
    of_sentences = (
        parser.add_argument_group("recipe of what is written (--task describe, order)") if "describe" in tasks else None
    )
    some = f"some of {','.join(STREAMS)}; default: all of the data set"
    group.add_argument("--streams", type=stream_names, metavar="NAMES", help=some)
    about = dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", TrainConfig.__doc__ or "", re.MULTILINE))
    for field in dataclasses.fields(TrainConfig):
        flag = recipe_flag(field.name)
        help = " ".join(about.get(field.name, "").rstrip(".").split()).partition(", a key of")[0]
        into = of_sentences if field.name in OF_SENTENCES else group
        if into is None or (field.name == "task" and len(tasks) == 1):
            parser.set_defaults(**{field.name: field.default})
            continue
        if field.type == "bool":
            action = "store_false" if field.default else "store_true"
            into.add_argument(flag, dest=field.name, action=action, help="do not " * bool(field.default) + help)
        elif field.name in _TABLES:
            add_choice(into, flag, _TABLES[field.name], default=field.default, help=help)
        else:
            type_, metavar = _TYPES[field.type.removesuffix(" | None")]
            metavar = {"features": "DIR", "encoder": "MODEL.keras"}.get(field.name, metavar)
            help += "" if field.default is None else "; default: %(default)s"
            into.add_argument(flag, type=type_, default=field.default, metavar=metavar, help=help)
    add_runtime(group, "the features of a frozen backbone")


_TYPES = {"int": (int, "N"), "float": (float, "X"), "str": (str, None)}

_TABLES: dict[str, Collection[str]] = {
    "task": TASKS,
    "labels_per": LABELS_PER,
    "backbone": BACKBONES,
    "head": HEADS,
    "merge_mode": MERGE_MODES,
    "class_weight": CLASS_WEIGHTS,
}
