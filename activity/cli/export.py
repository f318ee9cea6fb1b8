"""activity export: a model as a graph for programs without this package."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from activity.cli.options import add_choice, add_model, add_overwrite
from activity.cli.output import say_written
from activity.errors import VideoError
from activity.files import check_output, foreign_in, noted_results
from activity.models.info import read_info
from activity.runtimes.formats import FORMATS, check_export

EXAMPLES = [
    "model.keras --format onnx --out model.onnx",
    "model.keras --format litert --out model.tflite --check clips/*.mp4",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the format, and what the graph is compared on."""
    add_model(parser)
    add_choice(parser, "--format", FORMATS, required=True)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help=", ".join(f"{entry.suffix or 'a folder'} for {name}" for name, entry in FORMATS.items()),
    )
    parser.add_argument(
        "--check",
        nargs="+",
        default=[],
        metavar="CLIP",
        help="videos on which it must give what Keras gives; default: synthetic ones, and noise",
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, and print how near the graph is to Keras."""
    from activity.predictor.sources import expand_sources

    check_export(arguments.format, arguments.out)
    out = arguments.out
    replaced = partial(foreign_in, hidden=True)  # a folder is replaced as a whole
    second = out.with_name(f"{out.stem}.step{out.suffix}")  # of a captioner
    written = (out, out.with_name(f"{out.name}.json"), out.with_suffix(".bin"), second, second.with_suffix(".bin"))
    for path in written:  # the format tells which there are
        check_output(path, overwrite=arguments.overwrite, foreign=replaced, what="an exported model")
    read_info(arguments.model, task=None)
    clips = expand_sources(arguments.check)
    for clip in clips:
        if not Path(clip).is_file():
            raise VideoError("no such file; expected a video to compare on", path=clip)
    from activity.runtimes.exporting import export_model

    with noted_results():
        made = export_model(arguments.model, arguments.format, arguments.out, clips=clips or None)
    print(made.as_text())
    say_written(made.files)
