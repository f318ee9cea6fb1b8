"""What is drawn on the frames of a video to show its timeline: a panel of probabilities, a strip of segments.

Sizes follow the shorter side of the frame, so that phones' upright videos and 4K look alike. All text is drawn by
Pillow, because OpenCV's fonts know ASCII only.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from activity.timeline import Timeline

# Okabe and Ito's seven colours (jfly.uni-koeln.de/color), then one after the other what is farthest in CIELAB from all
# before it, also to the eyes of the red- and green-blind (the method of Glasbey et al. 2007; Machado et al. 2009), and
# from the grey of "unknown".
_COLOURS = (
    "#0072b2 #e69f00 #009e73 #d55e00 #cc79a7 #56b4e9 #f0e442 #5a5ae1 #69ff87 #c3003c #a5a55a #870078 "
    "#a5f0e1 #ffb4a5 #4b4b1e #693c5a #7896ff #874b00 #f0d2ff #a5e15a #1e4ba5 #00b4c3 #f04b3c #0fffc3"
).split()
_GREY = "#808080"
_TRACK = "#707070"  # what a bar may still fill

_HEADLINE, _ROW = 0.055, 0.036  # text heights, of the shorter side
_SMALLEST_TEXT = 9  # pixels
_NUM_ROWS = 3
_WIDEST = 0.5  # of the frame's width that the panel may take
_SMALLEST_SIDE = 64  # pixels; below there is no room for text
_PANEL_OPACITY, _STRIP_OPACITY = 0.7, 0.85
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def label_colour(label: str, labels: tuple[str, ...]) -> str:
    """The colour `#rrggbb` of one of a model's labels, everywhere the same; grey of "unknown". They repeat after 24."""
    return _GREY if label not in labels else _COLOURS[labels.index(label) % len(_COLOURS)]


class Overlay:
    """Draws the timeline of a video on its frames.

    On the left above, what happens in this segment and the three most probable activities of the moment; at the bottom
    a strip of all segments with a mark at the moment.

    Args:
        labels: names of the C activities.
        timeline: of the video.
        height: of a frame in pixels.
        width: of a frame in pixels.
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
        """Draw on a frame `(height, width, 3)` uint8 RGB, in place.

        Args:
            frame: to draw on.
            timestamp_seconds: of the frame, on the clock of the timeline.
        """
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
            picture = np.asarray(self._draw_panel(moment))  # (h, w, 4)
            opacity = picture[..., 3].astype(np.float32) / 255
            self._panel = np.ascontiguousarray(picture[..., :3]), opacity, 1 - opacity
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
        """Of the panel: what the widest name that will be shown needs, so that it never changes."""
        shown = {int(i) for row in self._timeline.probabilities for i in np.argsort(-row)[:_NUM_ROWS]}
        names = {self._labels[i] for i in shown}
        headlines = {segment.label for segment in self._timeline.segments}
        rows = [text_width(f"{name}  100%", self._row_size) for name in names]
        wide = [text_width(name, self._headline_size) for name in headlines]
        needed = max([*rows, *wide, 8 * self._row_size]) + 2 * self._row_size
        return min(round(needed), round(_WIDEST * self._width))

    def _draw_panel(self, moment: int) -> Image.Image:
        """The panel of a moment, with transparency."""
        size, pad = self._row_size, self._row_size // 3
        row_height, headline_height = round(1.35 * size), round(1.25 * self._headline_size)
        width, height = self._panel_width, headline_height + _NUM_ROWS * row_height + 2 * pad
        image = Image.new("RGBA", (width, height))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, width - 1, height - 1), pad, fill=(0, 0, 0, round(255 * _PANEL_OPACITY)))
        middle = self._timeline.edges_seconds[moment : moment + 2].mean()
        label = next(segment.label for segment in self._timeline.segments if middle < segment.end_seconds)
        draw.rectangle((0, pad, pad - 1, height - pad), fill=label_colour(label, self._labels))
        left, right = 2 * pad, width - 2 * pad
        _write(draw, label, (left, pad + headline_height // 2), self._headline_size, room=right - left)
        probabilities = self._timeline.probabilities[moment]  # (C,)
        for row, label_id in enumerate(np.argsort(-probabilities, kind="stable")[:_NUM_ROWS]):
            name, share = self._labels[label_id], float(probabilities[label_id])
            top, thickness = pad + headline_height + row * row_height, max(2, size // 5)
            bar = top + row_height - thickness, top + row_height - 1
            draw.rectangle((left, bar[0], right, bar[1]), fill=_TRACK)
            if length := round(share * (right - left)):
                draw.rectangle((left, bar[0], left + length, bar[1]), fill=label_colour(name, self._labels))
            number = f"{share:.0%}"
            draw.text((right, top), number, "white", _font(number, size), "ra")
            _write(draw, name, (left, top), size, room=right - left - text_width(f" {number}", size), anchor="la")
        return image

    def _draw_strip(self, height: int) -> np.ndarray:
        """All segments side by side, `(height, width, 3)` uint8 RGB."""
        image = Image.new("RGB", (self._width, height))
        draw = ImageDraw.Draw(image)
        size = min(self._row_size, round(0.8 * height))
        for segment in self._timeline.segments:
            left, right = self._column(segment.start_seconds), self._column(segment.end_seconds)
            colour = label_colour(segment.label, self._labels)
            draw.rectangle((left, 0, max(left, right - 1), height), fill=colour)
            if text_width(segment.label, size) < right - left - size // 2 and size >= _SMALLEST_TEXT:
                place = ((left + right) // 2, height // 2)
                draw.text(place, segment.label, ink_on(colour), _font(segment.label, size), "mm")
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


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour `#rrggbb` (relative luminance of WCAG 2)."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.18 else "white"


def _write(
    draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], size: int, *, room: float, anchor: str = "lm"
) -> None:
    """Draw a text, in white, without the end for which there is no room."""
    shown = shortened(text, size, room)
    draw.text(place, shown, "white", _font(shown, size), anchor)


def shortened(text: str, size: int, room: float) -> str:
    """A text without the end for which there is no room: it has so many pixels, the font as in `text_width`."""
    while len(text) > 1 and text_width(text, size) > room:
        text = f"{text.rstrip(_ELLIPSIS)[:-1]}{_ELLIPSIS}"
    return text


def text_width(text: str, size: int) -> float:
    """Of a text in pixels, in a font of so many pixels."""
    return _font(text, size).getlength(text)


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    return _open_font(font_file(text), size)


@cache
def _open_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def font_file(text: str) -> str:
    """A font that has all characters of a text: matplotlib's DejaVu Sans, or else the first such that is installed."""
    from matplotlib import get_data_path

    bundled = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    needed = {ord(character) for character in text if not character.isspace()}
    if needed <= _characters_of(bundled):
        return bundled
    from matplotlib.font_manager import fontManager

    real = (font for font in fontManager.ttflist if "LastResort" not in font.fname)  # which has but boxes, for all
    others = sorted(real, key=lambda font: (font.style != "normal", font.weight != 400, font.fname))
    return next((font.fname for font in others if needed <= _characters_of(font.fname)), bundled)


@cache
def _characters_of(font_path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(font_path).get_charmap())
    except (OSError, RuntimeError):  # gone since matplotlib listed it, or of an odd kind
        return frozenset()
