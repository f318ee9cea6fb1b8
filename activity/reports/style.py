"""The look of everything that is drawn: colours, fonts, the lengths of texts, and how a figure becomes a file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from PIL import ImageFont

from activity.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of Okabe and Ito's colours, which the colour-blind tell apart (jfly.uni-koeln.de/color), with a lighter blue
BLUE, LIGHT_BLUE, ORANGE, VERMILION, GREY = "#0072b2", "#a6cee3", "#e69f00", "#d55e00", "#666666"

# Okabe and Ito's seven colours (jfly.uni-koeln.de/color), then one after the other what is farthest in CIELAB from all
# before it, also to the eyes of the red- and green-blind (the method of Glasbey et al. 2007; Machado et al. 2009), and
# from the grey of "unknown".
_COLOURS = (
    "#0072b2 #e69f00 #009e73 #d55e00 #cc79a7 #56b4e9 #f0e442 #5a5ae1 #69ff87 #c3003c #a5a55a #870078 "
    "#a5f0e1 #ffb4a5 #4b4b1e #693c5a #7896ff #874b00 #f0d2ff #a5e15a #1e4ba5 #00b4c3 #f04b3c #0fffc3"
).split()

_UNKNOWN_COLOUR = "#808080"
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_P = ParamSpec("_P")
_T = TypeVar("_T")


# === Figures ===


def plain_text(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """A decorator of a function that draws: a $ in a label or path is no formula."""

    @wraps(draw)
    def draw_plainly(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return draw_plainly


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(figure_png(figure))
    return path


def figure_png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of characters that no font has, and of labels without room
        figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


# === Colours ===


def label_colour(label: str, labels: tuple[str, ...]) -> str:
    """The colour `#rrggbb` of one of a model's labels, everywhere the same; grey of no answer. They repeat after 24."""
    return _UNKNOWN_COLOUR if label not in labels else _COLOURS[labels.index(label) % len(_COLOURS)]


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour `#rrggbb` (relative luminance of WCAG 2)."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in values]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.18 else "white"


# === Texts ===


def shortened(name: str, longest: int = 32) -> str:
    """A name without its middle, if it has more characters than `longest`: the ends tell names apart."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}{_ELLIPSIS}{name[-half:]}"


def fitted(text: str, size: int, room: float) -> str:
    """A text without the end for which there is no room, both in pixels; the font is that of `text_width`."""
    while len(text) > 1 and text_width(text, size) > room:
        text = f"{text.rstrip(_ELLIPSIS)[:-1]}{_ELLIPSIS}"
    return text


def text_width(text: str, size: int) -> float:
    """Width of a text in pixels, in a font of so many pixels."""
    return font_for(text, size).getlength(text)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of so many pixels that has all characters of a text."""
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
