"""activity classify: labels for video files, or for a camera or stream as it comes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activity.cli.checks import check_places, check_runtime
from activity.cli.options import add_model, add_overwrite, add_runtime, in_range, positive_int
from activity.cli.output import say_error, say_result, say_written
from activity.datasets.annotations.formats import WRITTEN
from activity.errors import ActivityError, ModelFileError, VideoError
from activity.files import csv_rows, noted_results
from activity.models.info import ModelInfo, check_takes_videos, read_info
from activity.progress import video_bar

if TYPE_CHECKING:
    from tqdm import tqdm

    from activity.predictor.prediction import Failure, Prediction
    from activity.predictor.predictor import Predictor

EXAMPLES = [
    "model.keras clip.mp4",
    "model.keras folder 'more/*.mov' --csv labels.csv",
    "model.keras match.mp4 --timeline --out timelines --annotate videos --explain why",
    "model.keras films --statistics budget.csv",
    "model.keras films --out labels --format eaf --format csv",
    "model.keras 0                             (the first camera; Ctrl-C ends it)",
    "model.keras rtsp://camera.local/stream --json",
    "model.keras features/clip.npy --timeline  (a model of feature files)",
]

_FORMATS = ("json", "csv", "srt", "png")  # of `reports.timeline`, which takes long to import; a test compares them
_KNOWN_BY_NAME = ("per-frame", "activitynet")  # formats in which a film has no folder
_COLUMNS = "source,label,probability,duration_seconds,error"
_LIVE_COLUMNS = "time,time_seconds,label,probability"
_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the sources, and what is written beside the labels."""
    add_model(parser)
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files, folders, 'glob*' patterns, the number of a camera, or the URL of a stream; for a model of feature "
        "files, .npy files or folders of them",
    )
    add("--top-k", type=positive_int, default=5, metavar="K", help="labels shown; default: %(default)s")
    rate = in_range(float, 1e-3, 1e4)
    add("--rows-per-second", type=rate, metavar="R", help="of feature files; default: as in the training of the model")
    add_runtime(parser, "the model; another than keras is exported beside the model file, once")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--csv", type=Path, metavar="FILE", help="also write a table")
    add_overwrite(parser)
    add("--follow", action="store_true", help="the file is still being written: label it as it grows")
    add("--explain", type=Path, metavar="DIR", help="also draw an explanation of each label there, as NAME.png")
    add("--timeline", action="store_true", help="also tell which label each part of a video has")
    help = "model of train --task order: also tell how unusual the order of the parts is, in nats an activity"
    add("--surprise", type=Path, metavar="ORDER.keras", help=help)
    add(
        "--statistics",
        type=_csv_path,
        metavar="FILE.csv",
        help="write a table of each label's bouts, seconds, fraction and latency in each video and over all, and "
        "FILE.transitions.csv, what follows what",
    )
    add("--out", type=Path, metavar="DIR", help="write each timeline there, as NAME.json, .csv, .srt and .png")
    add(
        "--format",
        action="append",
        choices=[*_FORMATS, *WRITTEN],
        help="write only this there, for another tool too (NAME.boris, NAME.label-studio.json ...); repeatable",
    )
    add(
        "--annotate",
        type=Path,
        metavar="DIR",
        help="write each video there, as NAME.mp4, with its timeline drawn on it",
    )


def _csv_path(text: str) -> Path:
    """A path that ends in .csv: another file gets a name beside it."""
    if not text.lower().endswith(".csv"):
        raise argparse.ArgumentTypeError(f"expected the name of a file that ends in .csv, received: {text}")
    return Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Label the sources, in their order; one that cannot be read does not stop the others."""
    from activity.predictor.sources import expand_sources
    from activity.video.capture import live_source

    if "" in arguments.sources:  # as of a variable of the shell that is not set; for Python it is the folder here
        arguments.parser.error("a SOURCE must not be empty")
    if arguments.model.is_dir() and arguments.sources[0].endswith(".keras"):
        swapped = f"activity classify {arguments.sources[0]} {arguments.model}"
        arguments.parser.error(f"model and source are swapped; expected: {swapped}")
    sources = expand_sources(arguments.sources, features=_takes_features(arguments.model))
    live = live_source(sources, follow=arguments.follow)
    of_whole = ("explain", "timeline", "out", "annotate", "surprise", "statistics")
    if live and any(getattr(arguments, name) for name in of_whole):
        whole = (
            "--explain, --timeline, --out, --annotate, --surprise and --statistics need a whole file, not a live source"
        )
        arguments.parser.error(whole)
    if arguments.format and not arguments.out:
        arguments.parser.error("--format says how timelines are written; expected --out DIR beside it")
    if arguments.surprise:
        read_info(arguments.surprise, task="order")
    _check_places(arguments, sources)
    _check_features(arguments, read_info(arguments.model), live)
    check_runtime(arguments.runtime)
    return _classify_live(arguments, live) if live else _classify_files(arguments, sources)


def _takes_features(model: Path) -> bool:
    """Whether a model is one of feature files; where it cannot be read, what is typed is checked first."""
    with contextlib.suppress(ModelFileError):
        return bool(read_info(model).spec.num_features)
    return False


def _check_features(arguments: argparse.Namespace, info: ModelInfo, live: str | None) -> None:
    """Refuse what a model of feature files cannot do, and what only such a model can; say how long their rows last."""
    if not info.spec.num_features:
        if arguments.rows_per_second:
            arguments.parser.error("--rows-per-second is for models of feature files; this one takes videos")
        return
    films = next((format for format in arguments.format or () if format in WRITTEN), "")
    for task, asked in (
        *(("a live source", live), ("--explain", arguments.explain), ("--annotate", arguments.annotate)),
        (f"--format {films}", films),
    ):
        if asked:
            check_takes_videos(info, task)
    if not arguments.rows_per_second:
        advice = "the median of training; --rows-per-second R if they were made at another rate"
        _logger.info("feature files: %.3g rows are taken for a second, %s", info.rows_per_second, advice)


def _check_places(arguments: argparse.Namespace, sources: Sequence[str]) -> None:
    """Raise `ActivityError` if results could not be written, or would replace something."""
    from activity.predictor.sources import check_apart, distinct_names

    tables = [path for path in (arguments.csv, arguments.statistics) if path]
    for table in tables:
        if not table.parent.is_dir():
            raise ActivityError(f"there is no folder {table.parent}", path=table)
        if table.is_dir():
            raise ActivityError("a folder has this name; give the table another", path=table)
    for folder in filter(None, (arguments.out, arguments.annotate)):
        check_apart(folder, sources)
    places = [("a table of predictions", arguments.csv)] if arguments.csv else []
    if arguments.statistics:
        from activity.reports.statistics import transitions_path

        places.append(("a time budget", arguments.statistics))
        places.append(("a table of transitions", transitions_path(arguments.statistics)))
    for source, name in zip(sources, distinct_names(sources), strict=True):
        by_name = [format for format in arguments.format or () if format in _KNOWN_BY_NAME]
        if by_name and Path(source).stem != name:
            text = (
                "%s: written as %s, another video has its name; %s knows a film by its name, and will not find it again"
            )
            _logger.warning(text, source, name, ", ".join(by_name))
        if arguments.out:
            from activity.reports.timeline import timeline_endings

            endings = timeline_endings(arguments.format or ()).values()
            places += [("a timeline", arguments.out / f"{name}.{ending}") for ending in endings]
        if arguments.annotate:
            places.append(("an annotated video", arguments.annotate / f"{name}.mp4"))
        if arguments.explain:
            places.append(("an explanation", arguments.explain / f"{name}.png"))
    for table in tables:
        if any(table.resolve() in path.resolve().parents for _, path in places):
            raise ActivityError("both a table and a folder would have this name; expected two places", path=table)
    check_places(arguments, places)


def _classify_live(arguments: argparse.Namespace, source: str) -> int:
    from activity.predictor.live import watch
    from activity.runtimes.exported import load_inference_model

    decisions = watch(load_inference_model(arguments.model, runtime=arguments.runtime), source)
    columns = f"{_LIVE_COLUMNS},{_top_columns(arguments)}"
    with contextlib.closing(decisions), csv_rows(arguments.csv, columns) as write_row:
        for decision in decisions:
            write_row(_row(decision.as_dict(top_k=arguments.top_k)))
            if arguments.json:
                say_result(json.dumps(decision.as_dict(top_k=arguments.top_k), allow_nan=False), goes_on=False)
            elif decision.changed:
                say_result(decision.as_text(), goes_on=False)
    return 0


def _classify_files(arguments: argparse.Namespace, sources: Sequence[str]) -> int:
    from activity.predictor.prediction import Failure
    from activity.predictor.predictor import Predictor
    from activity.predictor.sources import distinct_names

    predictor = Predictor.load(arguments.model, runtime=arguments.runtime)
    if arguments.rows_per_second:
        predictor.model.info = dataclasses.replace(predictor.model.info, rows_per_second=arguments.rows_per_second)
    explain = _explaining(arguments, predictor)
    surprise = _surprising(arguments, predictor.model.labels)
    timeline = any((arguments.timeline, arguments.out, arguments.annotate, arguments.surprise, arguments.statistics))
    files = any((arguments.csv, arguments.out, arguments.annotate, arguments.explain, arguments.statistics))
    failed, films, repeats = False, dict[object, tuple[Any, ...]](), []
    columns = f"{_COLUMNS},{_top_columns(arguments)}"
    with csv_rows(arguments.csv, columns) as write_row:
        results = _predict(predictor, sources, timeline=timeline, keep_frames=bool(arguments.explain))
        for result, name in zip(results, distinct_names(sources), strict=True):
            failed |= isinstance(result, Failure)
            write_row(_row(result.as_dict(top_k=arguments.top_k)))
            unusual = {} if isinstance(result, Failure) else surprise(result)
            if arguments.json:
                values = {**result.as_dict(top_k=arguments.top_k), **unusual}
                say_result(json.dumps(values, allow_nan=False), goes_on=files)
            elif isinstance(result, Failure):
                say_error(f"{result.source}: {result.error}")
            else:
                lines = [f"  surprise {nats:.3f} nats an activity" for nats in unusual.values() if nats is not None]
                say_result("\n".join([result.as_text(top_k=arguments.top_k), *lines]), goes_on=files)
            if not isinstance(result, Failure):
                if arguments.statistics and result.timeline:
                    film = (result.source, result.timeline.segments, result.duration_seconds)
                    if films.setdefault(_file_of(result.source), film) is not film:
                        repeats.append(result.source)
                try:
                    explain(result, name)
                    _write_timeline(arguments, result, name)
                except VideoError as error:  # it could be read a moment ago; the others follow
                    failed = True
                    say_error(str(error))
    if arguments.statistics:
        from activity.datasets.samples import name_some
        from activity.reports.statistics import FilmSegments, save_statistics

        if not films:
            _logger.warning("%s has no rows: no source has a timeline", arguments.statistics)
        if repeats:
            text = "%s: files that other sources are too count once; left out: %s"
            _logger.warning(text, arguments.statistics, name_some(repeats))
        of_films = [FilmSegments(*film) for film in films.values()]
        say_written(save_statistics(of_films, predictor.model.labels, arguments.statistics))
    return int(failed)


def _file_of(source: str) -> object:
    """What tells a file from all others, however it is called."""
    try:
        file = os.stat(source)
    except OSError:  # it could be read a moment ago
        return source
    return file.st_dev, file.st_ino


def _top_columns(arguments: argparse.Namespace) -> str:
    """The columns of `--top-k`, after those that every table has."""
    most = min(arguments.top_k, len(read_info(arguments.model).labels))
    return ",".join(f"top_{rank}_label,top_{rank}_probability" for rank in range(1, most + 1))


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """A result with its most probable labels in columns."""
    for rank, best in enumerate(result.get("top", []), start=1):
        result |= {f"top_{rank}_label": best["label"], f"top_{rank}_probability": best["probability"]}
    return result


def _predict(predictor: Predictor, sources: Sequence[str], **options: Any) -> Iterator[Prediction | Failure]:
    """The result of each source as it comes; until then a single video shows how far it is.

    Several show it by their results, and a feature file takes no time.
    """
    from activity.datasets.feature_files import is_feature_file
    from activity.video.download import local_path, without_password
    from activity.video.images import probe

    if len(sources) > 1 or is_feature_file(sources[0]):
        yield from predictor.predict_many(sources, **options)
        return
    with contextlib.ExitStack() as stack:
        bars: list[tqdm] = []

        def watch(source: str, seconds: float) -> None:
            if not bars:  # with the first frame, when a URL has been fetched
                name = Path(without_password(source)).name
                bars.append(stack.enter_context(video_bar(name, probe(local_path(source)).duration_seconds_claimed)))
            bars[0].update(max(0.0, seconds - bars[0].n))

        results = list(predictor.predict_many(sources, watch=watch, **options))
    yield from results  # when the bar has gone from its line


def _surprising(
    arguments: argparse.Namespace, labels: Sequence[str]
) -> Callable[[Prediction], dict[str, float | None]]:
    """A function that gives the `surprise` of a timeline by the model of `--surprise`; nothing without one.

    It is `None` for a timeline without a part whose order is known.
    """
    if not arguments.surprise:
        return lambda prediction: {}
    from activity.models.captioner import load_captioner
    from activity.predictor.order import surprise

    order = load_captioner(arguments.surprise, task="order")
    known = set(order.info.words)
    if unknown := sorted(set(labels) - known):
        text = "%s: knows nothing of the order of %s; parts with these labels are left out"
        _logger.warning(text, arguments.surprise, ", ".join(unknown))

    def of(prediction: Prediction) -> dict[str, float | None]:
        assert prediction.timeline
        told = [segment.label for segment in prediction.timeline.segments if segment.label in known]
        merged = [label for label, _ in itertools.groupby(told)]
        return {"surprise": surprise(order, merged) if merged else None}

    return of


def _explaining(arguments: argparse.Namespace, predictor: Predictor) -> Callable[[Prediction, str], None]:
    """A function that draws the explanation of a prediction, or does nothing without `--explain`."""
    if not arguments.explain:
        return lambda prediction, name: None
    from activity.models.classifier import ActivityClassifier
    from activity.predictor.explainer import Explainer
    from activity.reports.explanation import explanation_figure
    from activity.reports.style import save_figure

    if isinstance(predictor.model, ActivityClassifier):
        explainer = Explainer(predictor.model)
    else:
        _logger.info("%s: explained by keras, which computes gradients", arguments.model)
        explainer = Explainer.load(arguments.model)

    def explain(prediction: Prediction, name: str) -> None:
        figure = explanation_figure(explainer.explain(prediction))
        with noted_results():
            say_written([save_figure(figure, arguments.explain / f"{name}.png")])

    return explain


def _write_timeline(arguments: argparse.Namespace, result: Prediction, name: str) -> None:
    """Write what `--out` and `--annotate` ask for."""
    if arguments.out:
        from activity.reports.timeline import save_timeline

        with noted_results():
            options = {"top_k": arguments.top_k, "formats": arguments.format or ()}
            say_written(save_timeline(result, arguments.out, name, **options))
    if arguments.annotate:
        from activity.reports.annotation import annotate

        with noted_results():
            say_written([annotate(result.source, result, arguments.annotate / f"{name}.mp4")])
