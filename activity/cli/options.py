"""Types of arguments, and options that several commands share. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

from activity.config import MERGE_MODES, RUNTIMES, STREAMS, TrainConfig
from activity.errors import did_you_mean

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
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected S or HxW in pixels, such as 224 or 180x320, received {text}"
        ) from None


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
    """Names of streams, separated by commas."""
    return tuple(map(one_of(STREAMS), text.split(",")))


# === Options ===

Group: TypeAlias = argparse.ArgumentParser | argparse._ArgumentGroup


def add_choice(parser: Group, flag: str, names: Collection[str], **options: Any) -> None:
    """An option that takes one of some names, such as the keys of a table."""
    parser.add_argument(flag, type=one_of(names), choices=tuple(names), **options)


def add_model(parser: Group) -> None:
    """The model file that a command reads."""
    parser.add_argument("model", type=Path, metavar="MODEL.keras", help="model file made by train or update")


def add_dataset(parser: Group, help: str = "folder made by preprocess") -> None:
    """The data set folder that a command reads."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help=help)


def add_runtime(parser: Group, what: str) -> None:
    """Which library computes `what`."""
    add_choice(
        parser,
        "--runtime",
        RUNTIMES,
        default=RUNTIMES[0],
        help=f"what computes {what}; auto, the default: keras on a GPU, else openvino or onnx where installed",
    )


def add_report(parser: Group) -> None:
    """Where scores are written, and how they are printed."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write report.html, figures and tables there")
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The fields of `TrainConfig`, shared by all commands that train."""
    config = TrainConfig()
    group = parser.add_argument_group("recipe")
    add = group.add_argument
    add("--streams", type=stream_names, metavar="NAMES", help=f"some of {','.join(STREAMS)}; default: all there are")
    add_choice(group, "--backbone", BACKBONES, default=config.backbone, metavar="NAME", help=_listing(BACKBONES))
    add("--weights", metavar="imagenet|none|PATH", help="weights of the backbone; default: imagenet where they exist")
    add_choice(group, "--head", HEADS, default=config.head, metavar="NAME", help=_listing(HEADS))
    add("--units", type=int, default=config.units, help="hidden units of a recurrent head; default: %(default)s")
    add(
        "--layers",
        type=int,
        default=config.layers,
        metavar="N",
        help="number of LSTM layers (head `stacked` only); default: %(default)s",
    )
    add_choice(
        group,
        "--merge-mode",
        MERGE_MODES,
        default=config.merge_mode,
        help="how the two directions of a bidirectional head are merged; default: %(default)s",
    )
    add(
        "--members",
        type=int,
        default=config.members,
        metavar="N",
        help="ensemble members per stream; default: %(default)s",
    )
    add("--dropout", type=float, default=config.dropout, help="fraction of the features dropped; default: %(default)s")
    add("--fine-tune", type=int, default=0, metavar="N", help="also train the last N backbone layers with weights")
    add(
        "--fine-tune-epochs",
        type=int,
        default=config.fine_tune_epochs,
        metavar="N",
        help="epochs of that; default: %(default)s",
    )
    add("--epochs", type=int, default=config.epochs, help="passes over the training clips; default: %(default)s")
    add("--batch-size", type=int, default=config.batch_size, metavar="N", help="clips per step; default: %(default)s")
    add(
        "--learning-rate",
        type=float,
        default=config.learning_rate,
        metavar="R",
        help="peak learning rate of the head; default: %(default)s",
    )
    add(
        "--weight-decay",
        type=float,
        default=config.weight_decay,
        metavar="R",
        help="decoupled weight decay (AdamW); default: %(default)s",
    )
    add_choice(group, "--class-weight", CLASS_WEIGHTS, default="none", help="balanced helps rare classes")
    add("--flip", action="store_true", help="mirror clips at random while training a backbone (not for left/right)")
    add("--precision", type=float, metavar="P", help='answer "unknown" where fewer than this fraction would be correct')
    add("--seed", type=seed, default=config.seed, help="random seed for weights and order; default: %(default)s")
    add("--mixed-precision", action="store_true", help="compute in float16 on a GPU")
    add_runtime(group, "the features of a frozen backbone")


def _listing(names: Collection[str]) -> str:
    return f"{', '.join(names)}; default: %(default)s"


CLASS_WEIGHTS = ("none", "balanced")

HEADS = ("lstm", "backward", "stacked", "bidirectional", "gru", "attention", "lstm_cnn", "pooled", "segments")

BACKBONES = (
    "vgg16",
    "vgg19",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v2_035",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_v2_b0",
    "resnet50",
    "densenet121",
    "inception_v3",
    "convnext_tiny",
    "small_cnn",
)
