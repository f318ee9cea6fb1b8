"""The command line: parse, one library call, print. Results go to stdout, progress and logs to stderr.

Keras and OpenCV are imported only by the commands that need them: `activity --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from activity import __version__
from activity.config import RESIZE_MODES, ClipSpec, TrainConfig
from activity.errors import ActivityError

_Config = TypeVar("_Config", ClipSpec, TrainConfig)

_logger = logging.getLogger(__name__)


def run() -> None:
    """The program: `main` without the lines that TensorFlow's C++ writes to stderr, which no setting silences.

    Python keeps the terminal; what C++ writes goes nowhere, unless `-v` is given. Its errors come back as exceptions.
    """
    if not {"-v", "--verbose"} & set(sys.argv):
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file need not be valid UTF-8
    gc.set_threshold(100_000)  # importing Keras makes objects that all stay: to look for garbage among them costs 0.7 s
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 an error in one line, 2 usage, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.INFO, format="%(message)s", force=True)
    for library in ("matplotlib", "h5py", "tensorflow", "jax", "PIL"):
        logging.getLogger(library).setLevel(logging.ERROR)  # their advice is for programmers
    try:
        return arguments.run(arguments) or 0
    except (ActivityError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output had enough, as `| head` does
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (Python flushes stdout once more at exit)
            return 1
        if arguments.verbose:
            raise
        _say_error(_of_system(error) if isinstance(error, OSError) else str(error))
        return 1
    except KeyboardInterrupt:
        _say_error(f"stopped{_HOW_TO_GO_ON.get(arguments.command, '')}")
        return 130


_HOW_TO_GO_ON = {
    "preprocess": "; the same command goes on from here",
    "train": "; the same command with --resume goes on from here",
}


# === Commands ===


def _demo(arguments: argparse.Namespace) -> None:
    from activity.demo import run_demo

    run_demo(arguments.out, say=print)


def _preprocess(arguments: argparse.Namespace) -> None:
    height, width = arguments.size
    spec = _settings(ClipSpec, arguments, height=height, width=width)
    from activity.preprocessing import preprocess

    dataset = preprocess(
        arguments.videos,
        arguments.out,
        spec,
        split_files=arguments.split_files,
        num_workers=arguments.workers,
        seconds_per_video=arguments.time_limit,
        seed=arguments.seed,
    )
    print(dataset.as_text())


def _train(arguments: argparse.Namespace) -> None:
    config = _settings(TrainConfig, arguments)
    from activity.classifier import check_model_path, save_classifier
    from activity.plots import curves_figure, save_figure
    from activity.store import load_dataset
    from activity.training import train

    check_model_path(arguments.out)
    work_dir = arguments.out.with_suffix(".training")
    run = train(load_dataset(arguments.dataset), config, work_dir=work_dir, resume=arguments.resume)
    save_classifier(run.classifier, arguments.out)
    curves = save_figure(curves_figure(run.history), work_dir / "learning_curves.png")
    print(run.as_text())
    print(f"model            {arguments.out}\nlearning curves  {curves}")


def _evaluate(arguments: argparse.Namespace) -> None:
    from activity.classifier import load_classifier
    from activity.evaluation import evaluate
    from activity.plots import save_report
    from activity.store import load_dataset

    _check_folder(arguments.out)
    dataset = load_dataset(arguments.dataset)
    evaluation = evaluate(load_classifier(arguments.model), dataset, split=arguments.split)
    print(json.dumps(evaluation.as_dict()) if arguments.json else evaluation.as_text())
    if arguments.out:
        _say_written(save_report(evaluation, dataset, arguments.out))


def _cross_validate(arguments: argparse.Namespace) -> None:
    config = _settings(TrainConfig, arguments)
    from activity.evaluation import cross_validate
    from activity.plots import save_report
    from activity.store import load_dataset

    _check_folder(arguments.out)
    dataset = load_dataset(arguments.dataset)
    with tempfile.TemporaryDirectory() as work_dir:
        result = cross_validate(dataset, config, folds=arguments.folds, work_dir=Path(work_dir))
    print(json.dumps(result.as_dict()) if arguments.json else result.as_text())
    if arguments.out:
        _say_written(save_report(result, dataset, arguments.out))


def _classify(arguments: argparse.Namespace) -> int:
    from activity.dataset import expand_sources

    sources = expand_sources(arguments.sources)
    if arguments.csv and not arguments.csv.parent.is_dir():
        raise ActivityError(f"{arguments.csv}: there is no folder {arguments.csv.parent}")
    from activity.predictor import Failure, Predictor

    predictor = Predictor.load(arguments.model)
    failed = False
    with _csv_rows(arguments.csv) as write_row:
        for result in predictor.predict_many(sources):
            failed |= isinstance(result, Failure)
            write_row(result.as_dict())
            if arguments.json:
                print(json.dumps(result.as_dict(top_k=arguments.top_k)), flush=True)
            elif isinstance(result, Failure):
                _say_error(f"{result.source}: {result.error}")
            else:
                print(result.as_text(top_k=arguments.top_k), flush=True)
    return int(failed)


def _doctor(arguments: argparse.Namespace) -> int:
    from activity.doctor import examine, format_checks

    checks = examine(expect_gpu=arguments.expect_gpu)
    print(format_checks(checks))
    return int(any(check.required and not check.ok for check in checks))


# === Parsing ===


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show details, and tracebacks of errors")
    parser = argparse.ArgumentParser(
        prog="activity",
        description="Learn to recognise the activities in a folder of labelled videos, then label any new video.",
        epilog="A first try, without any videos: activity demo",
    )
    parser.add_argument("--version", action="version", version=f"activity {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, help_: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            parents=[common],
            help=help_,
            description=f"{help_[0].upper()}{help_[1:]}.",
            epilog=f"Example: {example}",
        )
        added.set_defaults(run=run, usage_error=added.error)
        return added

    demo = command("demo", _demo, "draw small videos, learn from them, label new ones; offline", "activity demo")
    demo.add_argument("--out", type=Path, default=Path("activity-demo"), metavar="DIR", help="default: %(default)s")

    example = "activity preprocess videos/ --out dataset/"
    _add_preprocess(command("preprocess", _preprocess, "decode labelled videos into a data set folder", example))

    train = command("train", _train, "teach a model", "activity train dataset/ --out model.keras")
    train.add_argument("dataset", type=Path, metavar="DATASET", help="folder made by preprocess")
    train.add_argument("--out", type=Path, required=True, metavar="MODEL.keras", help="model file to write")
    train.add_argument("--resume", action="store_true", help="go on where a stopped run with these settings was")
    _add_recipe(train)

    example = "activity evaluate model.keras dataset/ --out report/"
    evaluate = command("evaluate", _evaluate, "measure a model on videos it was not taught with", example)
    evaluate.add_argument("model", type=Path, metavar="MODEL.keras")
    evaluate.add_argument("dataset", type=Path, metavar="DATASET")
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: %(default)s")
    _add_report(evaluate)

    example = "activity cross-validate dataset/ --folds groups"
    cross = command("cross-validate", _cross_validate, "teach and measure once per fold of groups", example)
    cross.add_argument("dataset", type=Path, metavar="DATASET")
    cross.add_argument(
        "--folds", default="5", help="K, 'groups' to leave one group out, or a manifest column; default: 5"
    )
    _add_report(cross)
    _add_recipe(cross)

    example = "activity classify model.keras holiday.mp4 clips/"
    classify = command("classify", _classify, "label videos with a model", example)
    classify.add_argument("model", type=Path, metavar="MODEL.keras")
    classify.add_argument("sources", nargs="+", metavar="SOURCE", help="files, folders or 'glob*' patterns")
    classify.add_argument(
        "--top-k", type=_positive_int, default=5, metavar="K", help="labels shown; default: %(default)s"
    )
    classify.add_argument("--json", action="store_true", help="print one JSON object a line")
    classify.add_argument("--csv", type=Path, metavar="FILE", help="also write a table")

    doctor = command("doctor", _doctor, "check versions, devices, codecs and weights", "activity doctor --expect-gpu")
    doctor.add_argument("--expect-gpu", action="store_true", help="fail if no GPU can be used")
    return parser


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
    add("--backbone", default=config.backbone, metavar="NAME", help=f"{_BACKBONES_HELP}; default: %(default)s")
    add("--weights", metavar="imagenet|none|PATH", help="of the backbone; default: imagenet where it has them")
    add("--head", default=config.head, metavar="NAME", help=f"{_HEADS_HELP}; default: %(default)s")
    add("--units", type=int, default=config.units, help="width of the head; default: %(default)s")
    add("--dropout", type=float, default=config.dropout, help="default: %(default)s")
    add("--fine-tune", type=int, default=0, metavar="N", help="also teach the last N backbone layers that have weights")
    add("--epochs", type=int, default=config.epochs, help="at most; default: %(default)s")
    add("--patience", type=int, default=config.patience, help="epochs without progress; default: %(default)s")
    add("--batch-size", type=int, default=config.batch_size, metavar="N", help="clips; default: %(default)s")
    add("--learning-rate", type=float, default=config.learning_rate, metavar="R", help="default: %(default)s")
    add("--weight-decay", type=float, default=config.weight_decay, metavar="R", help="default: %(default)s")
    add("--class-weight", choices=("none", "balanced"), default="none", help="balanced helps rare classes")
    add("--flip", action="store_true", help="mirror clips at random while teaching a backbone (not for left/right)")
    add("--seed", type=_seed, default=config.seed, help="default: %(default)s")
    add("--mixed-precision", action="store_true", help="float16 on a GPU")


_HEADS_HELP = "lstm, backward, stacked, bidirectional, gru, attention, lstm_cnn, pooled, segments"
_BACKBONES_HELP = (
    "vgg16, vgg19, mobilenet, mobilenet_v2, mobilenet_v2_035, mobilenet_v3_small, mobilenet_v3_large, "
    "efficientnet_v2_b0, resnet50, densenet121, inception_v3, convnext_tiny, small_cnn"
)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write pictures and tables there")
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object")


def _settings(config: type[_Config], arguments: argparse.Namespace, **values: Any) -> _Config:
    """The options as a configuration; a value that it refuses is wrong usage, and the message names the option."""
    names = config.__dataclass_fields__
    try:
        return config(**{name: values[name] if name in values else getattr(arguments, name) for name in names})
    except ActivityError as error:
        name, _, problem = str(error).partition(" ")
        flag = f"size: {name}" if name in values else name.replace("_", "-")
        arguments.usage_error(f"--{flag} {problem}")
        raise


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


# === Output ===


@contextlib.contextmanager
def _csv_rows(path: Path | None) -> Iterator[Any]:
    """A function that writes the result of one source as a row, or does nothing without a path."""
    if path is None:
        yield lambda _: None
        return
    columns = ("source", "label", "probability", "duration_seconds", "error")
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


def _check_folder(folder: Path | None) -> None:
    """Raise `ActivityError` if results could not be written there; asked before the work."""
    if folder is None:
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ActivityError(f"{existing}: a file has this name; expected a folder, or a new name for one")


def _of_system(error: OSError) -> str:
    """Without the number, and with the name the user knows where a temporary one should have taken it."""
    what = error.strerror or " ".join(map(str, error.args))
    path = error.filename2 or error.filename
    return f"{what}: {path}" if path else what


def _say_error(text: str) -> None:
    print("activity:", " ".join(text.split()), file=sys.stderr)


def _say_written(paths: Sequence[Path]) -> None:
    for path in paths:
        _logger.info("wrote %s", path)


if __name__ == "__main__":
    run()
