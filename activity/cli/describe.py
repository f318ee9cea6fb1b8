"""activity describe: a sentence for each video or image."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from activity.cli.checks import check_places, check_runtime
from activity.cli.options import add_model, add_overwrite, add_runtime, in_range, positive_int, seed
from activity.cli.output import say_error, say_result, say_written
from activity.errors import ActivityError, VideoError
from activity.files import csv_rows, noted_results
from activity.models.info import read_info

if TYPE_CHECKING:
    from activity.predictor.captioner import Description

_logger = logging.getLogger(__name__)

EXAMPLES = [
    "captioner.keras clip.mp4 picture.jpg folder",
    "captioner.keras match.mp4 --timeline --out captions --annotate videos",
    "captioner.keras clip.mp4 --temperature 0.8 --top-p 0.9 --seed 1",
]

_COLUMNS = "source,caption,log_probability,duration_seconds,error"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the sources, the search, and what is written."""
    add_model(parser)
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="videos, images, folders, 'glob*' patterns, or URLs of files")
    add("--beams", type=in_range(int, 1, 100), default=5, metavar="K", help="of the search; default: %(default)s")
    add("--top-k", type=positive_int, default=1, metavar="K", help="sentences shown, --beams at most; default: 1")
    help = "draw words at random: below 1 nearer to the most probable ones, above 1 wilder"
    add("--temperature", type=in_range(float, 1e-3, 100), metavar="X", help=help)
    help = "of random words: only the most probable ones that together have this probability; default: %(default)s"
    add("--top-p", type=in_range(float, 1e-6, 1), default=1.0, metavar="X", help=help)
    add("--seed", type=seed, default=0, metavar="N", help="of random words; default: %(default)s")
    add("--timeline", action="store_true", help="also write a sentence for each part of a video")
    add("--out", type=Path, metavar="DIR", help="write these sentences there, as NAME.json, .csv and .srt")
    add("--annotate", type=Path, metavar="DIR", help="write each video there, as NAME.mp4, with them as subtitles")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--csv", type=Path, metavar="FILE", help="also write a table")
    add_overwrite(parser)
    add_runtime(parser, "the model")


def run(arguments: argparse.Namespace) -> int:
    """Describe the sources, in their order; one that cannot be read does not stop the others."""
    if "" in arguments.sources:
        arguments.parser.error("a SOURCE must not be empty")
    if arguments.temperature is None:
        for name in ("top_p", "seed"):
            if getattr(arguments, name) != arguments.parser.get_default(name):
                arguments.parser.error(f"--{name.replace('_', '-')} is of random words; expected --temperature too")
    elif arguments.beams != arguments.parser.get_default("beams"):
        arguments.parser.error("--beams is of the search for the most probable words; --temperature draws them")
    elif arguments.top_k > 1:
        arguments.parser.error(f"--temperature draws one sentence, so --top-k must be 1, received {arguments.top_k}")
    if arguments.top_k > arguments.beams:
        searched = f"the sentences that --beams {arguments.beams} finds"
        arguments.parser.error(f"--top-k must be 1 to {arguments.beams}, {searched}, received {arguments.top_k}")
    if arguments.csv and not arguments.csv.parent.is_dir():
        raise ActivityError(f"there is no folder {arguments.csv.parent}", path=arguments.csv)
    info = read_info(arguments.model, task="describe")
    check_runtime(arguments.runtime)
    from activity.predictor.captioner import Captioner
    from activity.predictor.prediction import Failure
    from activity.predictor.sources import check_apart, distinct_names, expand_sources
    from activity.reports.timeline import CAPTION_FORMATS

    sources = expand_sources(arguments.sources, features=bool(info.spec.num_features), images=True)
    captioner = Captioner.load(
        arguments.model,
        runtime=arguments.runtime,
        num_beams=arguments.beams,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
    )
    places = [("a table of captions", arguments.csv)] if arguments.csv else []
    names = distinct_names(sources)
    for folder, endings, what in (
        (arguments.out, CAPTION_FORMATS, "the sentences of a video"),
        (arguments.annotate, ["mp4"], "an annotated video"),
    ):
        if folder:
            check_apart(folder, sources)
            places += [(what, folder / f"{name}.{ending}") for name in names for ending in endings]
    check_places(arguments, places)
    timeline = bool(arguments.timeline or arguments.out or arguments.annotate)
    goes_on = bool(arguments.csv or arguments.out or arguments.annotate)
    failed = False
    with csv_rows(arguments.csv, _COLUMNS) as write_row:
        results = captioner.describe_many(sources, timeline=timeline)
        for result, name in zip(results, names, strict=True):
            failed |= isinstance(result, Failure)
            values = result.as_dict(top_k=arguments.top_k)
            write_row(values)
            if arguments.json:
                say_result(json.dumps(values, allow_nan=False), goes_on=goes_on)
            elif isinstance(result, Failure):
                say_error(f"{result.source}: {result.error}")
            else:
                say_result(result.as_text(top_k=arguments.top_k), goes_on=goes_on)
            if not isinstance(result, Failure):
                try:
                    _write(arguments, result, name)
                except VideoError as error:  # it could be read a moment ago; the others follow
                    failed = True
                    say_error(str(error))
    return int(failed)


def _write(arguments: argparse.Namespace, result: Description, name: str) -> None:
    """Write what `--out` and `--annotate` ask for; an image lasts no time, and has nothing to write."""
    if (arguments.out or arguments.annotate) and not result.segments:
        _logger.warning("%s: an image lasts no time, so --out and --annotate write nothing of it", result.source)
        return
    if arguments.out:
        from activity.reports.timeline import save_captions

        with noted_results():
            say_written(save_captions(result, arguments.out, name, top_k=arguments.top_k))
    if arguments.annotate:
        from activity.reports.annotation import annotate

        with noted_results():
            say_written([annotate(result.source, result, arguments.annotate / f"{name}.mp4")])
