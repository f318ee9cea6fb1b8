"""What a video shows when, as a video to watch, an image, subtitles and tables."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from activity.config import ClipSpec
from activity.datasets.samples import Segment
from activity.errors import printable
from activity.files import atomic_file, write_csv
from activity.models.network import UNKNOWN
from activity.predictor.prediction import Prediction
from activity.reports.style import font_file, ink_on, label_colour, shortened, text_width
from activity.video.decoder import probe
from activity.video.sampling import sample_video

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from activity.reports.annotation import timeline_of

_WIDTH, _THUMBNAIL_HEIGHT, _STRIP_HEIGHT, _NAME_ROW = 10.4, 1.0, 0.45, 0.21  # inches

_THUMBNAIL_PIXELS = 160

_MOST_THUMBNAILS = 24

_NAME_POINTS = 9

_CLOCK_FROM = 120  # seconds, from which an axis shows minutes


def save_timeline(prediction: Prediction, out_dir: Path, name: str, *, top_k: int = 5) -> list[Path]:
    """Write the timeline of a video into a folder as `<name>.json`, `.csv`, `.srt` (subtitles) and `.png`.

    Args:
        prediction: with its timeline. Its source is read for the thumbnails.
        out_dir: made if need be.
        name: of the files, without an ending.
        top_k: activities in the JSON file.

    Returns:
        The paths that were written.

    Raises:
        VideoError: the source can no longer be read.
        ValueError: the prediction has no timeline.
    """
    segments = timeline_of(prediction).segments
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / f"{name}.{kind}" for kind in ("json", "csv", "srt", "png")]
    with atomic_file(paths[0], "w") as file:
        file.write(json.dumps(prediction.as_dict(top_k=top_k), indent=1) + "\n")
    write_csv(paths[1], list(segments[0].as_dict()), [segment.as_dict() for segment in segments])
    with atomic_file(paths[2], "w") as file:
        file.write(as_srt(segments))
    figure = timeline_figure(prediction)
    with atomic_file(paths[3]) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of characters that no font here has
        figure.savefig(file, format="png", dpi=110)
    return paths


def as_srt(segments: tuple[Segment, ...]) -> str:
    """Subtitles in the SubRip format, a label while its segment lasts; none while it is unknown.

    Lines end as SubRip ends them, in CR LF, which every player takes.
    """
    known = [segment for segment in segments if segment.label != UNKNOWN]
    cues = (
        f"{number}\n{_srt_time(segment.start_seconds)} --> {_srt_time(segment.end_seconds)}\n"
        f"{' '.join(segment.label.split())}\n\n"
        for number, segment in enumerate(known, 1)
    )
    return "".join(cues).replace("\n", "\r\n")


def _srt_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{milliseconds:03}"


def timeline_figure(prediction: Prediction) -> Figure:
    """Images of a video from its beginning to its end, above a strip of its segments over time.

    Raises:
        VideoError: the source can no longer be read.
        ValueError: the prediction has no timeline.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    timeline, labels = timeline_of(prediction), prediction.labels
    end, name = float(timeline.edges_seconds[-1]), printable(Path(prediction.source).name)
    shown = sorted({s.label for s in timeline.segments}, key=[*labels, UNKNOWN].index)
    families = ["DejaVu Sans", *(FontProperties(fname=font_file(text)).get_name() for text in (*shown, name))]
    named = {segment.label for segment in timeline.segments if _has_room(segment, end)}
    names = {label: shortened(label, _NAME_POINTS, _WIDTH * 72 / 5) for label in shown if label not in named}
    widest = max((text_width(text, _NAME_POINTS) for text in names.values()), default=0)
    num_columns = int(_WIDTH * 72 / (widest + 4 * _NAME_POINTS))
    num_rows = -(-len(names) // num_columns)
    # A $ in a label is no formula; and what DejaVu Sans lacks is taken from other fonts.
    with rc_context({"text.parse_math": False, "font.family": list(dict.fromkeys(families))}):
        height = _NAME_ROW * num_rows + 0.55 + _STRIP_HEIGHT + _THUMBNAIL_HEIGHT + 0.4
        figure = Figure(figsize=(_WIDTH + 0.6, height))

        def axes_at(bottom: float, tall: float) -> Axes:
            return figure.add_axes((0.3 / (_WIDTH + 0.6), bottom / height, _WIDTH / (_WIDTH + 0.6), tall / height))

        strip = axes_at(_NAME_ROW * num_rows + 0.55, _STRIP_HEIGHT)
        thumbnails = axes_at(_NAME_ROW * num_rows + 0.6 + _STRIP_HEIGHT, _THUMBNAIL_HEIGHT)
        thumbnails.set_title(name, loc="left", fontsize="medium")
        _draw_thumbnails(thumbnails, Path(prediction.source), end)
        _draw_segments(strip, timeline.segments, labels)
        clock = end >= _CLOCK_FROM
        strip.set(xlim=(0, end), ylim=(0, 1), yticks=(), xlabel="minutes:seconds" if clock else "seconds")
        strip.xaxis.set_major_locator(MaxNLocator(12, steps=(1.5, 3, 6, 10) if clock else (1, 2, 5, 10)))
        if clock:
            strip.xaxis.set_major_formatter(lambda seconds, _: f"{seconds // 60:.0f}:{seconds % 60:02.0f}")
        if names:
            patches = [Patch(color=label_colour(label, labels), label=text) for label, text in names.items()]
            figure.legend(handles=patches, loc="lower center", ncols=num_columns, frameon=False, fontsize=_NAME_POINTS)
    return figure


def _has_room(segment: Segment, end_seconds: float) -> bool:
    points = (segment.end_seconds - segment.start_seconds) / end_seconds * _WIDTH * 72
    return text_width(segment.label, _NAME_POINTS) < 0.9 * points


def _draw_segments(axes: Axes, segments: tuple[Segment, ...], labels: tuple[str, ...]) -> None:
    """A strip of segments, with their names where there is room."""
    for segment in segments:
        colour, seconds = label_colour(segment.label, labels), segment.end_seconds - segment.start_seconds
        axes.barh(0.5, seconds, 1.0, segment.start_seconds, color=colour)
        if _has_room(segment, segments[-1].end_seconds):
            axes.text(
                segment.start_seconds + seconds / 2,
                0.5,
                segment.label,
                ha="center",
                va="center",
                fontsize=_NAME_POINTS,
                color=ink_on(colour),
            )


def _draw_thumbnails(axes: Axes, source: Path, end_seconds: float) -> None:
    """As many as fit side by side, each where its part of the video lies on the axis of time."""
    info = probe(source)
    width = _THUMBNAIL_HEIGHT * info.width / info.height  # inches
    most = min(max(1, int(_WIDTH / width)), _MOST_THUMBNAILS)
    pixels = min(max(16, round(_THUMBNAIL_PIXELS * width)), 1024)
    spec = ClipSpec(num_frames=most, height=_THUMBNAIL_PIXELS, width=pixels, streams=("rgb",), resize="stretch")
    frames: list[np.ndarray] = []
    sample_video(source, spec, frames.append, num_threads=0)
    half = width / _WIDTH * end_seconds / 2
    for number, frame in enumerate(frames):
        middle = (number + 0.5) / len(frames) * end_seconds
        axes.imshow(frame[0], extent=(middle - half, middle + half, 0, 1), aspect="auto")  # (1, H, W, 3) -> (H, W, 3)
    axes.set(xlim=(0, end_seconds), ylim=(0, 1))
    axes.set_axis_off()
