"""activity agree: how far two annotations of the same films agree."""

from __future__ import annotations

import argparse
import json
import logging
import math
from pathlib import Path

from activity.cli.options import in_range, seconds
from activity.cli.output import say_error, say_result
from activity.errors import DatasetError

EXAMPLES = [
    "anna.csv ben.csv",
    "events.csv timelines --videos films --json",
    "anna/film_labels.csv ben/film_labels.csv --label-rate 25",
]

_WHAT = (
    "labels of BORIS, ELAN, Label Studio, ActivityNet, DeepEthogram or Create ML, a manifest.csv, a timeline of "
    "classify --out (JSON or CSV), a folder of these JSON files, or one with a manifest.csv"
)
_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Both annotations, and how they are read."""
    add = parser.add_argument
    add("a", type=Path, metavar="A", help=_WHAT)
    add("b", type=Path, metavar="B", help="the same of another person, or of a model; films are matched by their names")
    lengths = "without it, a film is compared up to the length that a file gives, else to the last end in either file"
    add("--videos", type=Path, metavar="DIR", help=f"folder of the films, for their lengths and frame rates; {lengths}")
    help = "seconds from moment to moment; default: %(default)s. Time without a label is background; time with several "
    add("--step", type=seconds, default=0.1, metavar="S", help=f"{help}is compared as all of them together")
    add("--tier", nargs="+", default=[], metavar="T", help="tiers of ELAN, or tags of Label Studio; default: all")
    rate = in_range(float, 0.001, 1000)
    add("--label-rate", type=rate, metavar="R", help="frames a second that frame numbers count")
    add("--point-seconds", type=seconds, metavar="S", help="length of events without one; default: they are left out")
    add("--json", action="store_true", help="print the scores as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Compare, and print; returns 1 if some labels could not be read."""
    from activity.datasets.annotations.matching import pair_films, read_labels
    from activity.datasets.samples import name_some
    from activity.evaluation.agreement import compare_films

    sides = [_files(arguments.a), _files(arguments.b)]
    options = {name: getattr(arguments, name) for name in ("label_rate", "point_seconds")}
    (a, b), num_wrong = read_labels(sides, arguments.videos, tiers=arguments.tier, **options)
    pairs = pair_films(a, b)
    for place, alone in ((arguments.a, a.keys() - pairs.keys()), (arguments.b, b.keys() - {*pairs.values()})):
        if alone:
            _logger.warning(
                "%s: no film of the other is surely the same, not compared: %s", place, name_some(alone, 20)
            )
    films = {}
    for name, other in pairs.items():
        if name.rpartition("/")[2] != other.rpartition("/")[2] or not (name.endswith(other) or other.endswith(name)):
            _logger.warning("%s (A) and %s (B) are taken for one film", name, other)
        spans = [*a[name].spans, *b[other].spans]
        length = a[name].seconds or b[other].seconds
        length = length or max((end for _, end, _ in spans if math.isfinite(end)), default=None)
        if length is None:
            _logger.warning("%s: its length is not known, not compared; --videos DIR tells it", name)
        else:
            films[name] = a[name].spans, b[other].spans, length
            if num := sum(_overlap(x.spans) for x in (a[name], b[other])):
                _logger.warning("%s: %d labels begin while another lasts; both together are compared", name, num)
    if not films:
        raise DatasetError(f"{arguments.a} and {arguments.b} have no film in common that can be compared")
    found = compare_films(films, step=arguments.step)
    if short := films.keys() - {*found.films}:
        _logger.warning("shorter than a step, not compared: %s", name_some(short))
    say_result(json.dumps(found.as_dict(), allow_nan=False) if arguments.json else found.as_text(), goes_on=False)
    if num_wrong:
        say_error(f"labels could not be read in {num_wrong} places; the scores are those of all others")
    return int(num_wrong > 0)


def _files(path: Path) -> list[Path]:
    """A file, or those of a folder: its manifest, as a data set has one, or JSON files."""
    if not path.is_dir():
        return [path]
    from activity.datasets.annotations.formats import WRITTEN
    from activity.datasets.folders import MANIFEST_NAME

    if (path / MANIFEST_NAME).is_file():
        _logger.info("%s: its %s is read", path, MANIFEST_NAME)
        return [path / MANIFEST_NAME]
    of_others = tuple(f".{format.ending}" for format in WRITTEN.values())  # what classify --format wrote beside them
    files = [file for file in sorted(path.glob("*.json")) if not file.name.startswith(".")]
    files = [file for file in files if not file.name.endswith(of_others)]
    if not files:
        expected = f"timelines of classify --out, or a {MANIFEST_NAME}, as a data set has one"
        raise DatasetError(f"a folder without JSON files; expected {expected}", path=path)
    return files


def _overlap(spans: list[tuple[float, float, str]]) -> int:
    """How many spans begin before the one before them has ended."""
    num, last = 0, 0.0
    for start, end, _ in sorted(spans):
        num += start < last - 1e-6
        last = max(last, end)
    return num
