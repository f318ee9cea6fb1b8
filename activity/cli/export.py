"""activity export: a model as one graph for programs without this package."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from activity.cli.options import add_choice, add_model, add_overwrite
from activity.errors import VideoError
from activity.files import check_output
from activity.models.info import read_info
from activity.runtimes.formats import FORMATS, check_export

_logger = logging.getLogger(__name__)

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
    about = _about(arguments.out)
    for path in (
        arguments.out,
        about,
        arguments.out.with_suffix(".bin"),
    ):
        check_output(path, overwrite=arguments.overwrite, ours=lambda _: _is_export(about), what="an exported model")
    read_info(arguments.model)
    clips = expand_sources(arguments.check)
    for clip in clips:
        if not Path(clip).is_file():
            raise VideoError("no such file; expected a video to compare on", path=clip)
    from activity.runtimes.exporting import export_classifier

    made = export_classifier(arguments.model, arguments.format, arguments.out, clips=clips or None)
    print(made.as_text())
    for path in made.files:
        _logger.info("wrote %s", path)


def _about(out: Path) -> Path:
    """The file that tells of an export what it is; it is in its folder or beside it."""
    return out / "network.json" if not out.suffix or out.is_dir() else out.with_name(f"{out.name}.json")


def _is_export(about: Path) -> bool:
    try:
        return "format_version" in json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
