"""Drawings on the frames of a video that show its timeline: a panel of probabilities, a strip of segments.

Sizes follow the shorter side of the frame, so that phones' upright videos and 4K look alike. All text is drawn by
Pillow, because OpenCV's fonts know ASCII only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw

from activity.datasets.samples import Segment
from activity.errors import VideoError
from activity.predictor.prediction import Prediction
from activity.predictor.timeline import Timeline
from activity.progress import progress_bar
from activity.reports.style import fitted, font_for, ink_on, label_colour, text_width
from activity.video.decoder import Check, VideoReader, why_unreadable
from activity.video.download import local_path
from activity.video.writer import Frames, write_playable

if TYPE_CHECKING:
    from activity.predictor.captioner import CaptionedSegment, Description

_TRACK = "#707070"  # what a bar may still fill


_HEADLINE, _ROW = 0.055, 0.036  # text heights, of the shorter side
_SMALLEST_TEXT = 9  # pixels
_NUM_ROWS = 3
_WIDEST = 0.5  # of the frame's width that the panel may take
_SMALLEST_SIDE = 64  # pixels; below there is no room for text
_PANEL_OPACITY, _STRIP_OPACITY = 0.7, 0.85


def lanes_of(segments: Sequence[Segment]) -> list[int]:
    """A lane for each segment, from 0, in which it overlaps no other: the first one that is free."""
    ends: list[float] = []
    lanes = []
    for segment in segments:
        free = (lane for lane, end in enumerate(ends) if end <= segment.start_seconds)
        lane = next(free, len(ends))
        ends[lane : lane + 1] = [segment.end_seconds]
        lanes.append(lane)
    return lanes


def num_lanes(segments: Sequence[Segment]) -> int:
    """How many lanes segments need, 1 at least."""
    return max(lanes_of(segments), default=0) + 1


class Overlay:
    """Draws the timeline of a video on its frames.

    On the left above, what happens in this segment and the three most probable activities of the moment; at the bottom
    a strip of all segments with a mark at the moment. Frames are of `height` and `width` in pixels.
    """

    def __init__(self, labels: tuple[str, ...], timeline: Timeline, *, height: int, width: int) -> None:
        self._labels, self._timeline, self._width = labels, timeline, width
        side = min(height, width)
        self._row_size = max(_SMALLEST_TEXT, round(_ROW * side))
        self._headline_size = max(_SMALLEST_TEXT + 3, round(_HEADLINE * side))
        self._line_width = max(1, side // 300)
        self._has_panel = side >= _SMALLEST_SIDE
        self._panel_width = self._fitting_width()
        self._strip = self._draw_strip(min(round(1.5 * self._row_size), max(1, height // 6)))
        self._panel_moment = -1  # none is drawn yet
        self._panel: tuple[np.ndarray, ...] = ()  # its colours, their opacity, and that of what is below

    def draw(self, frame: np.ndarray, timestamp_seconds: float) -> None:
        """Draw on a frame `(height, width, 3)` uint8 RGB, in place; its time is on the clock of the timeline."""
        edges = self._timeline.edges_seconds
        last = len(edges) - 2
        moment = int(np.clip(np.searchsorted(edges, timestamp_seconds, side="right") - 1, 0, last))
        if self._has_panel:
            self._blend_panel(frame, moment)
        strip = frame[-len(self._strip) :]
        cv2.addWeighted(self._strip, _STRIP_OPACITY, strip, 1 - _STRIP_OPACITY, 0, dst=strip)
        self._draw_cursor(strip, timestamp_seconds)

    def _blend_panel(self, frame: np.ndarray, moment: int) -> None:
        if moment != self._panel_moment:  # changes a few times a second only
            image = np.asarray(self._draw_panel(moment))  # (h, w, 4)
            opacity = image[..., 3].astype(np.float32) / 255
            self._panel = np.ascontiguousarray(image[..., :3]), opacity, 1 - opacity
            self._panel_moment = moment
        colours, opacity, transparency = self._panel
        margin = self._row_size // 2
        below = frame[margin : margin + len(colours), margin : margin + colours.shape[1]]
        rows, columns = below.shape[:2]
        below[:] = cv2.blendLinear(
            colours[:rows, :columns],
            np.ascontiguousarray(below),
            opacity[:rows, :columns],
            transparency[:rows, :columns],
        )

    def _fitting_width(self) -> int:
        """Width of the panel: room for the widest name that will be shown, so that it never changes."""
        shown = {int(i) for row in self._timeline.probabilities for i in np.argsort(-row)[:_NUM_ROWS]}
        names = {self._labels[i] for i in shown}
        headlines = {self._headline(moment) for moment in range(len(self._timeline.edges_seconds) - 1)}
        rows = [text_width(f"{name}  100%", self._row_size) for name in names]
        wide = [text_width(name, self._headline_size) for name in headlines]
        needed = max([*rows, *wide, 8 * self._row_size]) + 2 * self._row_size
        return min(round(needed), round(_WIDEST * self._width))

    def _labels_at(self, moment: int) -> list[str]:
        """The labels of a moment: one, or as many as hold at once."""
        middle = self._timeline.edges_seconds[moment : moment + 2].mean()
        return [x.label for x in self._timeline.segments if x.start_seconds <= middle < x.end_seconds]

    def _headline(self, moment: int) -> str:
        return " + ".join(self._labels_at(moment))

    def _draw_panel(self, moment: int) -> Image.Image:
        """The panel of a moment, with transparency."""
        size, pad = self._row_size, self._row_size // 3
        row_height, headline_height = round(1.35 * size), round(1.25 * self._headline_size)
        width, height = self._panel_width, headline_height + _NUM_ROWS * row_height + 2 * pad
        image = Image.new("RGBA", (width, height))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, width - 1, height - 1), pad, fill=(0, 0, 0, round(255 * _PANEL_OPACITY)))
        labels = self._labels_at(moment)
        if labels:
            draw.rectangle((0, pad, pad - 1, height - pad), fill=label_colour(labels[0], self._labels))
        left, right = 2 * pad, width - 2 * pad
        _write(draw, self._headline(moment), (left, pad + headline_height // 2), self._headline_size, room=right - left)
        probabilities = self._timeline.probabilities[moment]  # (C,)
        for row, label_id in enumerate(np.argsort(-probabilities, kind="stable")[:_NUM_ROWS]):
            name, probability = self._labels[label_id], float(probabilities[label_id])
            top, thickness = pad + headline_height + row * row_height, max(2, size // 5)
            bar = top + row_height - thickness, top + row_height - 1
            draw.rectangle((left, bar[0], right, bar[1]), fill=_TRACK)
            if length := round(probability * (right - left)):
                draw.rectangle((left, bar[0], left + length, bar[1]), fill=label_colour(name, self._labels))
            number = f"{probability:.0%}"
            draw.text((right, top), number, "white", font_for(number, size), "ra")
            _write(draw, name, (left, top), size, room=right - left - text_width(f" {number}", size), anchor="la")
        return image

    def _draw_strip(self, height: int) -> np.ndarray:
        """All segments side by side, `(height, width, 3)` uint8 RGB."""
        image = Image.new("RGB", (self._width, height))
        draw = ImageDraw.Draw(image)
        segments = self._timeline.segments
        tall = height / num_lanes(segments)
        size = min(self._row_size, round(0.8 * tall))
        for segment, lane in zip(segments, lanes_of(segments), strict=True):
            left, right = self._column(segment.start_seconds), self._column(segment.end_seconds)
            colour, top = label_colour(segment.label, self._labels), round(lane * tall)
            draw.rectangle((left, top, max(left, right - 1), round(top + tall)), fill=colour)
            if text_width(segment.label, size) < right - left - size // 2 and size >= _SMALLEST_TEXT:
                place = ((left + right) // 2, round(top + tall / 2))
                draw.text(place, segment.label, ink_on(colour), font_for(segment.label, size), "mm")
        return np.asarray(image)

    def _column(self, seconds: float) -> int:
        edges = self._timeline.edges_seconds
        return round((seconds - edges[0]) / (edges[-1] - edges[0]) * self._width)

    def _draw_cursor(self, strip: np.ndarray, timestamp_seconds: float) -> None:
        """A white line between two black ones: it shows on every colour."""
        thin = self._line_width
        column = min(self._column(timestamp_seconds), self._width - 2 * thin)
        strip[:, max(0, column - 2 * thin) : column + 2 * thin] = 0
        strip[:, max(0, column - thin) : column + thin] = 255


def _write(
    draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], size: int, *, room: float, anchor: str = "lm"
) -> None:
    """Draw a text, in white, without the end for which there is no room."""
    shown = fitted(text, size, room)
    draw.text(place, shown, "white", font_for(shown, size), anchor)


class Subtitles:
    """Draws on the frames of a video the sentence that is written of the part they are in.

    A sentence is centred at the bottom, in as many lines as it needs, over a dark band. Frames are of `height` and
    `width` in pixels.
    """

    def __init__(self, segments: Sequence[CaptionedSegment], *, height: int, width: int) -> None:
        self._segments = segments
        size = max(_SMALLEST_TEXT, round(_HEADLINE * min(height, width)))
        self._bands = [_band_of(segment.sentence.text, size, height=height, width=width) for segment in segments]

    def draw(self, frame: np.ndarray, timestamp_seconds: float) -> None:
        """Draw on a frame `(height, width, 3)` uint8 RGB, in place; its time is on the clock of the segments."""
        starts = [segment.start_seconds for segment in self._segments]
        number = max(0, int(np.searchsorted(starts, timestamp_seconds, side="right")) - 1)
        band, opacity = self._bands[number]  # (h, width, 3), (h, width)
        below = frame[-len(band) :]
        below[:] = cv2.blendLinear(band, np.ascontiguousarray(below), opacity, 1 - opacity)


def _band_of(text: str, size: int, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A text in lines on a dark band, `(h, width, 3)` uint8, and its opacity `(h, width)` float32."""
    lines, room, row = [""], 0.92 * width, round(1.35 * size)
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(fitted(word, size, room))
    lines = [line for line in lines if line][: max(1, height // row - 1)]
    band_height = min(height, len(lines) * row + size // 2) if lines else 1
    image = Image.new("RGBA", (width, band_height), (0, 0, 0, round(255 * _PANEL_OPACITY) if lines else 0))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((width // 2, size // 4 + number * row), line, "white", font_for(line, size), "ma")
    drawn = np.asarray(image)
    return np.ascontiguousarray(drawn[..., :3]), drawn[..., 3].astype(np.float32) / 255


def annotate(
    source: Path | str, prediction: Prediction | Description, out_path: Path | str, *, check: Check | None = None
) -> Path:
    """Write a video with its timeline drawn on it: the same frames, times, size, way up and, if it can be, sound.

        prediction = predictor.predict("a.mp4", timeline=True)
        annotate("a.mp4", prediction, "annotated/a.mp4")

    One frame after the other is read and written: memory does not grow with the length of the video.

    Args:
        source: the video.
        prediction: of this video, with its timeline; or a description with its segments, for subtitles.
        out_path: ends in `.mp4`; see `activity.video.writer.write_playable` for what becomes of it without PyAV.
        check: called with the time of each frame that passes, in seconds; what it raises ends the work.

    Returns:
        The path that was written.

    Raises:
        VideoError: the video cannot be read, or it is the file that would be written.
        ValueError: the prediction has no timeline.
    """
    source, out_path = local_path(source), Path(out_path)
    make: Callable[..., Overlay | Subtitles]
    if isinstance(prediction, Prediction):
        timeline = timeline_of(prediction)
        make, end = partial(Overlay, prediction.labels, timeline), float(timeline.edges_seconds[-1])
    else:
        segments = segments_of(prediction)
        make, end = partial(Subtitles, segments), segments[-1].end_seconds
    if out_path.exists() and out_path.samefile(source):
        raise VideoError("this is the video to annotate; expected another name for the annotated one", path=out_path)
    with VideoReader(source, num_threads=0, check=check) as reader:
        frames, rate = _annotated_frames(reader, make), reader.info.frames_per_second
        return write_playable(out_path, frames, frames_per_second=rate, source=source, end_seconds=end)


def _annotated_frames(reader: VideoReader, make: Callable[..., Overlay | Subtitles]) -> Frames:
    overlay, start, size = None, 0.0, (0, 0)
    total = reader.info.num_frames_claimed or None
    for _, timestamp in progress_bar(reader, total=total, desc=f"annotating {reader.path.name}", unit="frame"):
        try:
            frame = reader.retrieve()
        except VideoError:
            break  # damaged: the prediction, too, is of the frames before
        if overlay is None:
            start, size = timestamp, frame.shape[:2]
            overlay = make(height=size[0], width=size[1])
        if frame.shape[:2] != size:  # some streams change it
            frame = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
        overlay.draw(frame, timestamp - start)
        yield timestamp - start, frame
    if overlay is None:
        raise VideoError(f"{why_unreadable(reader.path)}", path=reader.path)


def segments_of(description: Description) -> tuple[CaptionedSegment, ...]:
    """The segments of a description; raises `ValueError` if it was made without."""
    if not description.segments:
        raise ValueError("expected a description with its segments: describe(source, timeline=True)")
    return description.segments


def timeline_of(prediction: Prediction) -> Timeline:
    """The timeline of a prediction; raises `ValueError` if it was made without."""
    if prediction.timeline is None:
        raise ValueError("expected a prediction with its timeline: predict(source, timeline=True)")
    return prediction.timeline
