"""activity export: a model as a graph for programs without this package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from activity.cli.options import add_choice, add_model, add_overwrite
from activity.cli.output import say_written
from activity.errors import ActivityError, VideoError
from activity.files import check_output, foreign_in, noted_results
from activity.models.info import read_info
from activity.runtimes.formats import FORMATS, check_export, exported_step, note_path, step_path

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
    is_captioner = read_info(arguments.model, task=None).task == "describe"
    graphs = [out, step_path(out)] if out.suffix and (is_captioner or exported_step(out)) else [out]
    written = (*graphs, note_path(out), *(graph.with_suffix(".bin") for graph in graphs))
    for path in written:  # the format tells which there are
        check_output(path, overwrite=arguments.overwrite, foreign=replaced, what="an exported model")
    _check_whose(graphs)
    clips = expand_sources(arguments.check)
    for clip in clips:
        if not Path(clip).is_file():
            raise VideoError("no such file; expected a video to compare on", path=clip)
    from activity.runtimes.exporting import export_model

    with noted_results():
        made = export_model(arguments.model, arguments.format, arguments.out, clips=clips or None)
    print(made.as_text())
    say_written(made.files)


def _check_whose(graphs: Sequence[Path]) -> None:
    """Raise `ActivityError` if a graph to be replaced is that of another model, whose note would then be wrong."""
    out, *others = graphs
    notes = {graph: note_path(graph) for graph in others}  # a step has none of its own
    first = out.with_name(f"{out.stem.removesuffix('.step')}{out.suffix}")
    if step_path(first) == out and not note_path(out).exists():
        notes[out] = note_path(first)
    for graph, note in notes.items():
        if graph.exists() and note.exists():
            reason = f"a graph of another model, that of {note.name}"
            raise ActivityError(reason, path=graph, hint="choose another name")
