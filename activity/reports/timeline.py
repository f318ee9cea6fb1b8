"""Timelines as files: an image, subtitles and tables of which label each part of a video has."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from activity.config import ClipSpec
from activity.datasets.annotations.formats import WRITTEN
from activity.datasets.annotations.records import LabelledFilm
from activity.datasets.feature_files import is_feature_file
from activity.datasets.samples import Segment
from activity.errors import printable
from activity.files import atomic_file, write_csv
from activity.models.info import unknown_name
from activity.predictor.prediction import Prediction
from activity.reports.annotation import lanes_of, num_lanes, segments_of, timeline_of
from activity.reports.style import (
    GREY,
    fitted,
    font_file,
    ink_on,
    label_colour,
    plain_text,
    save_figure,
    shortened,
    text_width,
)
from activity.video.decoder import index_frames, is_url
from activity.video.download import local_path, without_password
from activity.video.images import probe
from activity.video.sampling import read_stack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from activity.evaluation.films import EvaluatedFilm
    from activity.predictor.captioner import Description

_WIDTH, _THUMBNAIL_HEIGHT, _STRIP_HEIGHT, _NAME_ROW = 10.4, 1.0, 0.45, 0.21  # inches
_THUMBNAIL_PIXELS = 160
_MOST_THUMBNAILS = 24
_NAME_POINTS = 9
_CLOCK_FROM = 120  # seconds, from which an axis shows minutes

_logger = logging.getLogger(__name__)


def save_timeline(
    prediction: Prediction, out_dir: Path, name: str, *, top_k: int = 5, formats: Sequence[str] = ()
) -> list[Path]:
    """Write the timeline of a video into a folder, in each format as `<name>.<ending>`, see `timeline_endings`.

    Args:
        prediction: with its timeline. Its source is read for the thumbnails, unless it is a feature file.
        out_dir: made if need be.
        name: of the files, without an ending.
        top_k: activities in the JSON file, 1 or more.
        formats: names in `TIMELINE_FORMATS`, or in `activity.datasets.annotations.formats.WRITTEN`, which are those of
            other tools and need a film; by default all of the former.

    Returns:
        The paths that were written.

    Raises:
        VideoError: the source can no longer be read.
        ValueError: the prediction has no timeline.
    """
    timeline_of(prediction)
    out_dir.mkdir(parents=True, exist_ok=True)
    endings = timeline_endings(formats)
    paths = [out_dir / f"{name}.{ending}" for ending in endings.values()]
    film = None
    for format, path in zip(endings, paths, strict=True):
        if format in TIMELINE_FORMATS:
            TIMELINE_FORMATS[format](prediction, path, top_k)
            continue
        film = film or labelled_film(prediction)
        write_labels = WRITTEN[format].write
        assert write_labels is not None
        with atomic_file(path, "w") as file:
            file.write(write_labels(film, path.resolve()))
    return paths


def timeline_endings(formats: Sequence[str] = ()) -> dict[str, str]:
    """Format -> the ending of its files, without a dot in front; of none, those of all `TIMELINE_FORMATS`."""
    return {
        format: format if format in TIMELINE_FORMATS else WRITTEN[format].ending
        for format in formats or TIMELINE_FORMATS
    }


def labelled_film(prediction: Prediction) -> LabelledFilm:
    """What a format of another tool is written from: the segments that have a label, and the film's frames.

    Frames are counted in the file. Where that fails, or they last unequally long, there are as many as its length has
    at its nominal rate, and unequal ones are warned of.

    Raises:
        VideoError: the source can no longer be read.
        ValueError: the prediction has no timeline.
    """
    path, source = local_path(prediction.source), prediction.source
    info, index, seconds = probe(path), index_frames(path), prediction.duration_seconds
    rate = info.frames_per_second
    num_frames = max(1, round(seconds * rate))
    if index:
        times = index.timestamps_seconds
        if np.abs(times - np.arange(len(times)) / rate).max() <= 1 / rate:
            num_frames = len(times)
        else:
            text = "%s: its frames last unequally long; where a format counts frames, they are counted at %g a second"
            _logger.warning(text, printable(without_password(source)), rate)
    unknown = unknown_name(prediction.labels)
    return LabelledFilm(
        address=without_password(source) if is_url(source) else os.path.abspath(source),
        seconds=seconds,
        rate=rate,
        num_frames=num_frames,
        labels=prediction.labels,
        segments=tuple(x for x in timeline_of(prediction).segments if x.label != unknown),
    )


def save_captions(description: Description, out_dir: Path, name: str, *, top_k: int = 1) -> list[Path]:
    """Write the sentences of the parts of a video into a folder in all formats of `CAPTION_FORMATS`.

    Args:
        description: with its segments.
        out_dir: made if need be.
        name: of the files, without an ending.
        top_k: sentences of the whole video in the JSON file, 1 or more.

    Returns:
        The paths that were written.

    Raises:
        ValueError: the description has no segments.
    """
    segments = segments_of(description)
    rows = [segment.as_dict() for segment in segments]
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / f"{name}.{ending}" for ending in CAPTION_FORMATS]
    with atomic_file(paths[0], "w") as file:
        file.write(json.dumps(description.as_dict(top_k=top_k), indent=1, allow_nan=False) + "\n")
    write_csv(paths[1], list(rows[0]), rows)
    with atomic_file(paths[2], "w") as file:
        file.write(_cues((x.start_seconds, x.end_seconds, x.sentence.text) for x in segments))
    return paths


CAPTION_FORMATS = ("json", "csv", "srt")


def _write_json(prediction: Prediction, path: Path, top_k: int) -> None:
    with atomic_file(path, "w") as file:
        file.write(json.dumps(prediction.as_dict(top_k=top_k), indent=1, allow_nan=False) + "\n")


def _write_csv(prediction: Prediction, path: Path, _: int) -> None:
    rows = [segment.as_dict() for segment in timeline_of(prediction).segments]
    write_csv(path, list(rows[0]), rows)


def _write_srt(prediction: Prediction, path: Path, _: int) -> None:
    with atomic_file(path, "w") as file:
        segments = timeline_of(prediction).segments
        # Players take an empty file for a damaged one
        file.write(as_srt(segments, prediction.labels) or _cues(map(_cue_of, segments)))


def _write_png(prediction: Prediction, path: Path, _: int) -> None:
    save_figure(timeline_figure(prediction), path)


# Ending of the file -> writes the timeline of a prediction to a path; the number is that of the labels to list.
TIMELINE_FORMATS: dict[str, Callable[[Prediction, Path, int], None]] = {
    "json": _write_json,
    "csv": _write_csv,
    "srt": _write_srt,
    "png": _write_png,
}


def as_srt(segments: tuple[Segment, ...], labels: tuple[str, ...] = ()) -> str:
    """Subtitles in the SubRip format, a label while its segment lasts; none while it is unknown.

    Lines end as SubRip ends them, in CR LF, which every player takes. The labels of the model tell a class `unknown`
    from an unknown segment.
    """
    return _cues(_cue_of(segment) for segment in segments if segment.label != unknown_name(labels))


def _cue_of(segment: Segment) -> tuple[float, float, str]:
    return segment.start_seconds, segment.end_seconds, segment.label


def _cues(told: Iterable[tuple[float, float, str]]) -> str:
    """Start and end in seconds, and text, of each."""
    cues = (
        f"{number}\n{_srt_time(start)} --> {_srt_time(end)}\n{' '.join(text.split())}\n\n"
        for number, (start, end, text) in enumerate(told, 1)
    )
    return "".join(cues).replace("\n", "\r\n")


def _srt_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{milliseconds:03}"


@plain_text
def timeline_figure(prediction: Prediction) -> Figure:
    """Images of a video from its beginning to its end, above a strip of its segments over time.

    Of a feature file, the strip alone.

    Raises:
        VideoError: the source can no longer be read.
        ValueError: the prediction has no timeline.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Patch

    timeline, labels = timeline_of(prediction), prediction.labels
    end, name = float(timeline.edges_seconds[-1]), printable(Path(prediction.source).name)
    shown = sorted({s.label for s in timeline.segments}, key=[*labels, unknown_name(labels)].index)
    families = ["DejaVu Sans", *(FontProperties(fname=font_file(text)).get_name() for text in (*shown, name))]
    named = {segment.label for segment in timeline.segments if _has_room(segment, end)}
    names = {label: fitted(label, _NAME_POINTS, _WIDTH * 72 / 5) for label in shown if label not in named}
    widest = max((text_width(text, _NAME_POINTS) for text in names.values()), default=0)
    num_columns = int(_WIDTH * 72 / (widest + 4 * _NAME_POINTS))
    bottom = _NAME_ROW * -(-len(names) // num_columns) + 0.55  # inches, of the strip
    images = 0.0 if is_feature_file(prediction.source) else _THUMBNAIL_HEIGHT
    width, height = _WIDTH + 0.6, bottom + _STRIP_HEIGHT + images + 0.4
    with rc_context({"font.family": list(dict.fromkeys(families))}):  # what DejaVu Sans lacks, others have
        figure = Figure(figsize=(width, height))
        strip, *thumbnails = (
            figure.add_axes((0.3 / width, low / height, _WIDTH / width, tall / height))
            for low, tall in ((bottom, _STRIP_HEIGHT), (bottom + _STRIP_HEIGHT + 0.05, images))
            if tall
        )
        (thumbnails or [strip])[0].set_title(name, loc="left", fontsize="medium")
        for axes in thumbnails:
            _draw_thumbnails(axes, local_path(prediction.source), end)
        _draw_segments(strip, timeline.segments, labels, end)
        _show_seconds(strip, end)
        if names:
            patches = [Patch(color=label_colour(label, labels), label=text) for label, text in names.items()]
            figure.legend(handles=patches, loc="lower center", ncols=num_columns, frameon=False, fontsize=_NAME_POINTS)
    return figure


@plain_text
def comparison_figure(film: EvaluatedFilm, labels: Sequence[str]) -> Figure:
    """The true segments of a film above the predicted ones, over time; where nothing is labelled, it is empty.

    Segments that overlap are drawn below each other.

    Args:
        film: with its timeline.
        labels: names of the labels of the model, which have the colours that they have in its timelines.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Patch

    ordered, end = (*labels, film.unknown), film.duration_seconds
    bands = {"true": film.truth, "predicted": film.timeline}
    shown = sorted({segment.label for band in bands.values() for segment in band}, key=ordered.index)
    families = ["DejaVu Sans", *(FontProperties(fname=font_file(text)).get_name() for text in (*shown, film.path))]
    names = {label: fitted(label, _NAME_POINTS, _WIDTH * 72 / 5) for label in shown}
    widest = max(text_width(text, _NAME_POINTS) for text in names.values())
    num_columns = int(_WIDTH * 72 / (widest + 4 * _NAME_POINTS))
    bottom = _NAME_ROW * -(-len(names) // num_columns) + 0.55  # inches, of the lower band
    heights = [_STRIP_HEIGHT * max(1, 0.6 * num_lanes(band)) for band in bands.values()]
    margin, gap = 0.95, 0.08
    width, height = _WIDTH + margin + 0.3, bottom + sum(heights) + gap + 0.4
    scores = f"frame accuracy {film.scores.frame_accuracy:.3f}, segment F1 {film.scores.segment_f1['50']:.3f}"
    with rc_context({"font.family": list(dict.fromkeys(families))}):  # what DejaVu Sans lacks, others have
        figure = Figure(figsize=(width, height))
        lows = [bottom + heights[1] + gap, bottom]
        for (name, band), low, tall in zip(bands.items(), lows, heights, strict=True):
            axes = figure.add_axes((margin / width, low / height, _WIDTH / width, tall / height))
            _draw_segments(axes, band, labels, end)
            _show_seconds(axes, end)
            axes.set_yticks([0.5], [name])
            axes.tick_params(axis="y", length=0)
        upper, _ = figure.axes
        upper.set(xticks=(), xlabel="")
        upper.set_title(shortened(film.path, 80), loc="left", fontsize="medium")
        upper.set_title(scores, loc="right", fontsize="small", color=GREY)
        patches = [Patch(color=label_colour(label, tuple(labels)), label=text) for label, text in names.items()]
        figure.legend(handles=patches, loc="lower center", ncols=num_columns, frameon=False, fontsize=_NAME_POINTS)
    return figure


def _show_seconds(axes: Axes, end_seconds: float) -> None:
    """Prepare an axis of time, in seconds or as a clock."""
    from matplotlib.ticker import MaxNLocator

    clock = end_seconds >= _CLOCK_FROM
    axes.set(xlim=(0, end_seconds), ylim=(0, 1), yticks=(), xlabel="minutes:seconds" if clock else "seconds")
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=(1.5, 3, 6, 10) if clock else (1, 2, 5, 10)))
    if clock:
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds // 60:.0f}:{seconds % 60:02.0f}")


def _has_room(segment: Segment, end_seconds: float) -> bool:
    points = (segment.end_seconds - segment.start_seconds) / end_seconds * _WIDTH * 72
    return text_width(segment.label, _NAME_POINTS) < 0.9 * points


def _draw_segments(axes: Axes, segments: Sequence[Segment], labels: Sequence[str], end_seconds: float) -> None:
    """Draw a strip of segments in order of time, with their names where there is room."""
    height = 1 / num_lanes(segments)
    for segment, lane in zip(segments, lanes_of(segments), strict=True):
        colour, seconds = label_colour(segment.label, tuple(labels)), segment.end_seconds - segment.start_seconds
        middle = 1 - (lane + 0.5) * height
        axes.barh(middle, seconds, height, segment.start_seconds, color=colour)
        if _has_room(segment, end_seconds):
            axes.text(
                segment.start_seconds + seconds / 2,
                middle,
                segment.label,
                ha="center",
                va="center",
                fontsize=_NAME_POINTS,
                color=ink_on(colour),
            )


def _draw_thumbnails(axes: Axes, source: Path, end_seconds: float) -> None:
    """Draw as many frames as fit side by side, each where its part of the video lies on the axis of time."""
    info = probe(source)
    width = _THUMBNAIL_HEIGHT * info.width / info.height  # inches
    most = min(max(1, int(_WIDTH / width)), _MOST_THUMBNAILS)
    pixels = min(max(16, round(_THUMBNAIL_PIXELS * width)), 1024)
    rate = min(2 * most / end_seconds, 1000.0)
    spec = ClipSpec(height=_THUMBNAIL_PIXELS, width=pixels, streams=("rgb",), frames_per_second=rate)
    frames, _ = read_stack(source, spec, num_threads=0)  # at the beginning and in the middle of each part
    half = width / _WIDTH * end_seconds / 2
    for number, frame in enumerate(frames[1::2]):
        middle = (number + 0.5) / most * end_seconds
        axes.imshow(frame[0], extent=(middle - half, middle + half, 0, 1), aspect="auto")  # (1, H, W, 3) -> (H, W, 3)
    axes.set(xlim=(0, end_seconds), ylim=(0, 1))
    axes.set_axis_off()
