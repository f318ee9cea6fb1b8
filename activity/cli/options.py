"""The arguments of the command line. Nothing heavy is imported here: `activity --help` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from activity._version import __version__
from activity.config import (
    EXPORT_FORMATS,
    MERGE_MODES,
    RESIZE_MODES,
    RUNTIMES,
    STREAMS,
    UPDATE_SCHEMES,
    ClipSpec,
    TrainConfig,
)

_EPILOG = """\
a first try, without any videos of your own:
  activity demo

from a folder per activity to labels for new videos:
  activity preprocess videos --out dataset
  activity train dataset --out model.keras
  activity evaluate model.keras dataset --out report
  activity classify model.keras new.mp4

exit status: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 stopped
"""


_EXAMPLES = {  # by command, without its name
    "demo": ["", "--out /tmp/demo"],
    "preprocess": [
        "videos --out dataset",
        "videos/manifest.csv --out dataset --num-frames 32 --size 160",
        "UCF-101 --out dataset --split-files ucfTrainTestlist/*list01.txt",
    ],
    "train": [
        "dataset --out model.keras",
        "dataset --out model.keras --streams motion,closeup --precision 0.9",
        "dataset --out model.keras --backbone vgg16 --head bidirectional --fine-tune 4",
    ],
    "update": ["model.keras dataset --out new.keras"],
    "evaluate": ["model.keras dataset --out report", "model.keras dataset --json"],
    "cross-validate": ["dataset --folds groups --out report"],
    "tune": ["dataset --trials 30 --out search"],
    "classify": [
        "model.keras clip.mp4",
        "model.keras folder 'more/*.mov' --csv labels.csv",
        "model.keras match.mp4 --timeline --out timelines --annotate videos --explain why",
        "model.keras 0                             (the first camera; Ctrl-C ends it)",
        "model.keras rtsp://camera.local/stream --json",
    ],
    "export": [
        "model.keras --format onnx --out model.onnx",
        "model.keras --format litert --out model.tflite --check clips/*.mp4",
    ],
    "info": ["model.keras", "model.keras --markdown > card.md"],
    "serve": ["model.keras", "model.keras --port 8000 --examples good.mp4 bad.mp4"],
    "doctor": ["", "--expect-gpu"],
    "completion": [
        "bash > ~/.local/share/bash-completion/completions/activity",
        "zsh > ~/.zfunc/_activity",
    ],
}


def parser() -> argparse.ArgumentParser:
    """The parser of the whole program; `command` of what it returns names the command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show details, and tracebacks of errors")
    program = argparse.ArgumentParser(
        prog="activity",
        description="Learn to recognise the activities in a folder of labelled videos, then label any new video.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.add_argument("--version", action="version", version=f"activity {__version__}")
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            parents=[common],
            help=help_,
            description=f"{help_[0].upper()}{help_[1:]}.",
            epilog="\n".join(["examples:", *(f"  activity {name} {words}".rstrip() for words in _EXAMPLES[name])]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(usage_error=added.error)
        return added

    demo = command("demo", "draw small videos, learn from them, label new ones; offline")
    demo.add_argument("--out", type=Path, default=Path("activity-demo"), metavar="DIR", help="default: %(default)s")

    _add_preprocess(command("preprocess", "decode labelled videos into a data set folder"))

    train = command("train", "teach a model")
    train.add_argument("dataset", type=Path, metavar="DATASET", help="folder made by preprocess")
    train.add_argument("--out", type=Path, required=True, metavar="MODEL.keras", help="model file to write")
    train.add_argument("--resume", action="store_true", help="go on where a stopped run with these settings was")
    _add_recipe(train)

    _add_update(command("update", "teach a model new videos and labels, and see what it forgot"))

    evaluate = command("evaluate", "measure a model on videos it was not taught with")
    evaluate.add_argument("model", type=Path, metavar="MODEL.keras")
    evaluate.add_argument("dataset", type=Path, metavar="DATASET")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: %(default)s")
    _add_runtime(evaluate, "the features")
    _add_report(evaluate)

    cross = command("cross-validate", "teach and measure once per fold of groups")
    cross.add_argument("dataset", type=Path, metavar="DATASET")
    cross.add_argument(
        "--folds", default="5", help="K, 'groups' to leave one group out, or a manifest column; default: 5"
    )
    _add_report(cross)
    _add_recipe(cross)

    tune = command("tune", "search for a better recipe, without the test split")
    tune.add_argument("dataset", type=Path, metavar="DATASET")
    tune.add_argument(
        "--trials",
        type=_positive_int,
        default=30,
        metavar="N",
        help="in total, with earlier ones; default: %(default)s",
    )
    tune.add_argument("--folds", default="3", help="of train and val, as for cross-validate; default: %(default)s")
    tune.add_argument(
        "--study", type=Path, metavar="FILE", help="log to begin or go on from; default: DATASET/tuning.log"
    )
    tune.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="begin no trial after this time")
    tune.add_argument("--out", type=Path, metavar="DIR", help="also write a picture and a table of all trials there")
    tune.add_argument("--json", action="store_true", help="print the search as one JSON object")
    _add_recipe(tune)  # where the search begins

    classify = command("classify", "label videos with a model")
    classify.add_argument("model", type=Path, metavar="MODEL.keras")
    classify.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files, folders, 'glob*' patterns, the number of a camera, or the URL of a stream",
    )
    classify.add_argument(
        "--top-k", type=_positive_int, default=5, metavar="K", help="labels shown; default: %(default)s"
    )
    _add_runtime(classify, "the network; another than keras is exported beside the model file, once")
    classify.add_argument("--json", action="store_true", help="print one JSON object a line")
    classify.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")
    classify.add_argument("--follow", action="store_true", help="the file is still being written: label it as it grows")
    classify.add_argument("--explain", type=Path, metavar="DIR", help="also draw why: a picture of each video")
    classify.add_argument("--timeline", action="store_true", help="also say what happens when")
    classify.add_argument(
        "--out", type=Path, metavar="DIR", help="write each timeline there, as NAME.json, .csv, .srt and .png"
    )
    classify.add_argument(
        "--annotate",
        type=Path,
        metavar="DIR",
        help="write each video there, as NAME.mp4, with its timeline drawn on it",
    )

    export = command("export", "write a model as one graph for programs of your own")
    export.add_argument("model", type=Path, metavar="MODEL.keras")
    export.add_argument("--format", choices=EXPORT_FORMATS, required=True)
    export.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help=".onnx, .xml for openvino or .tflite for litert; a folder for savedmodel",
    )
    export.add_argument(
        "--check",
        nargs="+",
        default=[],
        metavar="CLIP",
        help="videos on which it must give what Keras gives; default: some that are drawn, and noise",
    )

    info = command("info", "say what a model knows and how it was taught")
    info.add_argument("model", type=Path, metavar="MODEL.keras")
    form = info.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--markdown", action="store_true", help="print a page to share")

    _add_serve(command("serve", "show a web page where a video gets its labels"))

    doctor = command("doctor", "check versions, devices, codecs and weights")
    doctor.add_argument("--expect-gpu", action="store_true", help="fail if no GPU can be used")

    completion = command("completion", "print a script that completes the words of these commands in a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return program


def complete_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments name files."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                complete_files(child)
        elif action.type is Path or action.dest == "sources":
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def _add_preprocess(parser: argparse.ArgumentParser) -> None:
    spec = ClipSpec()
    parser.add_argument(
        "videos", type=Path, metavar="VIDEOS", help="a folder per class, or with a manifest.csv, or that CSV"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DATASET", help="folder to make or to bring up to date"
    )
    parser.add_argument(
        "--num-frames", type=int, default=spec.num_frames, metavar="T", help="in a clip; default: %(default)s"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=(spec.height, spec.width),
        metavar="S|HxW",
        help="of a frame in pixels; default: 224",
    )
    parser.add_argument(
        "--frames-per-second", type=float, metavar="R", help="take frames at this rate; default: evenly over the video"
    )
    parser.add_argument("--resize", choices=RESIZE_MODES, default=spec.resize, help="default: %(default)s")
    parser.add_argument(
        "--streams", type=_names, default=spec.streams, metavar="NAMES", help=f"default: {','.join(STREAMS)}"
    )
    parser.add_argument(
        "--split-files", type=Path, nargs="+", default=[], metavar="FILE", help="official lists of UCF101 or HMDB51"
    )
    parser.add_argument("--workers", type=_positive_int, metavar="N", help="decoding processes; default: one per CPU")
    parser.add_argument(
        "--time-limit", type=_seconds, default=600, metavar="SECONDS", help="for one video; default: %(default)s"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of the split; default: %(default)s")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """The fields of `TrainConfig`, shared by all commands that teach."""
    config = TrainConfig()
    group = parser.add_argument_group("recipe")
    add = group.add_argument
    add("--streams", type=_names, metavar="NAMES", help=f"some of {','.join(STREAMS)}; default: all of the data set")
    add("--backbone", default=config.backbone, metavar="NAME", help=f"{_BACKBONES_HELP}; default: %(default)s")
    add("--weights", metavar="imagenet|none|PATH", help="of the backbone; default: imagenet where it has them")
    add("--head", default=config.head, metavar="NAME", help=f"{_HEADS_HELP}; default: %(default)s")
    add("--units", type=int, default=config.units, help="width of a recurrent head; default: %(default)s")
    add("--layers", type=int, default=config.layers, metavar="N", help="of the head stacked; default: %(default)s")
    add("--merge-mode", choices=MERGE_MODES, default=config.merge_mode, help="of both directions; default: %(default)s")
    add("--members", type=int, default=config.members, metavar="N", help="heads a stream, fused; default: %(default)s")
    add("--dropout", type=float, default=config.dropout, help="default: %(default)s")
    add("--fine-tune", type=int, default=0, metavar="N", help="also teach the last N backbone layers that have weights")
    add("--fine-tune-epochs", type=int, default=config.fine_tune_epochs, metavar="N", help="default: %(default)s")
    add("--epochs", type=int, default=config.epochs, help="default: %(default)s")
    add("--batch-size", type=int, default=config.batch_size, metavar="N", help="clips; default: %(default)s")
    add("--learning-rate", type=float, default=config.learning_rate, metavar="R", help="default: %(default)s")
    add("--weight-decay", type=float, default=config.weight_decay, metavar="R", help="default: %(default)s")
    add("--class-weight", choices=("none", "balanced"), default="none", help="balanced helps rare classes")
    add("--flip", action="store_true", help="mirror clips at random while teaching a backbone (not for left/right)")
    add("--precision", type=float, metavar="P", help='answer "unknown" where less than this share would be right')
    add("--seed", type=_seed, default=config.seed, help="default: %(default)s")
    add("--mixed-precision", action="store_true", help="float16 on a GPU")
    _add_runtime(group, "the features of a frozen backbone")


def _add_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.keras")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="that of the model, with new videos, or another")
    parser.add_argument("--out", type=Path, required=True, metavar="NEW.keras", help="model file to write")
    parser.add_argument(
        "--scheme",
        choices=UPDATE_SCHEMES,
        default=UPDATE_SCHEMES[0],
        help="go on with the new videos and some old ones, with the new ones only, or start afresh with all; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--replay",
        type=_positive_int,
        metavar="N",
        help="old videos of each label to use again; default: as many as a label has new ones (median), at least 5",
    )
    parser.add_argument("--epochs", type=_positive_int, metavar="N", help="default: as the model was taught")
    parser.add_argument(
        "--learning-rate", type=float, metavar="R", help="default: as the model was taught for retrain, else less"
    )
    parser.add_argument("--seed", type=_seed, help="default: as the model was taught")
    _add_runtime(parser, "the features")
    parser.add_argument("--json", action="store_true", help="print the counts and scores as one JSON object")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.keras")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; default: %(default)s, this computer only. 0.0.0.0 lets anyone in who can reach it",
    )
    parser.add_argument("--port", type=_in_range(int, 1, 65535), default=7860, help="default: %(default)s")
    parser.add_argument(
        "--max-seconds", type=_seconds, default=600.0, metavar="S", help="longest video taken; default: %(default)g"
    )
    parser.add_argument(
        "--max-megabytes", type=_positive_int, default=500, metavar="N", help="largest file taken; default: %(default)s"
    )
    parser.add_argument("--examples", type=Path, nargs="+", default=[], metavar="VIDEO", help="to try, on the page")
    _add_runtime(parser, "the network")


def _add_runtime(parser: argparse.ArgumentParser | argparse._ArgumentGroup, what: str) -> None:
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=RUNTIMES[0],
        help=f"what computes {what}; auto, the default: keras on a GPU, else what is installed of openvino and onnx",
    )


_HEADS_HELP = "lstm, backward, stacked, bidirectional, gru, attention, lstm_cnn, pooled, segments"

_BACKBONES_HELP = (
    "vgg16, vgg19, mobilenet, mobilenet_v2, mobilenet_v2_035, mobilenet_v3_small, mobilenet_v3_large, "
    "efficientnet_v2_b0, resnet50, densenet121, inception_v3, convnext_tiny, small_cnn"
)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write report.html, pictures and tables there")
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected S or HxW in pixels, such as 224 or 180x320, received {text}"
        ) from None


def _in_range(number: type, lowest: float, highest: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = number(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"must be {lowest} to {highest}, received: {text}")
        return value

    parse.__name__ = number.__name__
    return parse


_positive_int = _in_range(int, 1, 10**6)

_seed = _in_range(int, 0, 2**32 - 1)  # what NumPy takes

_seconds = _in_range(float, 0.001, 10**6)
