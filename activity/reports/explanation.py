"""Explanations as images: importance over time and heat maps over the frames; or which frames each word looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from activity.errors import VideoError, printable
from activity.predictor.captioner import Description
from activity.predictor.explainer import Explanation
from activity.reports.figures import attention_figure
from activity.reports.style import BLUE, GREY, LIGHT_BLUE, VERMILION, plain_text, shortened
from activity.video.clips import TIMESTAMP_TOLERANCE_SECONDS
from activity.video.decoder import Check
from activity.video.download import local_path
from activity.video.images import open_video

# === Of a label ===

_LEFT, _RIGHT, _HEAD, _BARS, _GAP, _FOOT = 0.75, 0.35, 1.15, 1.4, 0.08, 0.45  # inches
_WIDEST, _TALLEST, _LEAST_WIDTH = 15.0, 2.4, 9.0  # all columns, an image, the figure
_MOST_COLUMNS, _MOST_PORTRAITS = 12, 16

_ABOUT = {
    "attention": "Bars: how much the model looks at each frame (attention, sum 1).",
    "occlusion": "Bars: how much the log-odds of the label drop when a frame is hidden; below 0 it speaks against.",
}

_ABOUT_HEAT = "Heat: where in each image the label is seen (Grad-CAM)."


@plain_text
def explanation_figure(explanation: Explanation) -> Figure:
    """Importance over time as bars, below them the frames, and below those where in each stream the label is seen.

    There is a bar for every frame. Of many frames, the most important of each few is shown; its bar is dark. Heat is
    drawn over grey images, its colour and strength by its fraction of the greatest in all of the figure.
    """
    e = explanation
    aspect = float(np.clip(e.aspect, 0.4, 2.5))  # a film strip would leave no room for anything
    most = _MOST_COLUMNS if aspect > 0.8 else _MOST_PORTRAITS
    each = -(-len(e.images) // most)  # frames to a column
    shown = [start + int(e.importance[start : start + each].argmax()) for start in range(0, len(e.images), each)]
    rows = [("frames", aspect, list(e.images[shown, 0]))] if e.streams[0] == "rgb" else []
    for number, stream in enumerate(e.streams):
        own = e.images.shape[3] / e.images.shape[2] if stream == "motion_crop" else aspect
        rows.append((stream, own, [_heated(e.images[i, number], e.heatmaps[i, number]) for i in shown]))
    # Placed by hand, in inches: bars and images must share their left and right edge.
    column = min(_WIDEST / len(shown), _TALLEST * aspect)
    inner = column * len(e.images) / each
    width = max(_LEFT + column * len(shown) + _RIGHT, _LEAST_WIDTH)
    height = _HEAD + _BARS + sum(column / own + _GAP for _, own, _ in rows) + _FOOT
    figure = Figure(figsize=(width, height))

    def panel(top: float, wide: float, tall: float) -> Axes:
        return figure.add_axes((_LEFT / width, 1 - (top + tall) / height, wide / width, tall / height))

    def write(x: float, top: float, text: str, **options: Any) -> None:
        figure.text(x / width, 1 - top / height, text, va="top", **options)

    write(_LEFT, 0.14, f"{shortened(e.label)}  {e.probability:.3f}", size=17, weight="bold")
    name = shortened(printable(Path(e.source).name), 60)
    seconds = "frames from {:.2f} to {:.2f} s".format(*e.timestamps_seconds[[0, -1]])
    write(width - _RIGHT, 0.16, f"{name}\n{seconds}", ha="right", linespacing=1.5)
    write(_LEFT, 0.6, f"{_ABOUT[e.importance_kind]}\n{_ABOUT_HEAT}", color=GREY, size=9, linespacing=1.4)
    _draw_importance(panel(_HEAD, inner, _BARS), e, shown)
    top = _HEAD + _BARS
    for name, own, images in rows:
        axes = panel(top + _GAP, column * len(shown), column / own)
        _draw_row(axes, name, images)
        top += column / own + _GAP
    axes.set_xticks(np.arange(len(shown)) + 0.5, [f"{e.timestamps_seconds[i]:.2f} s" for i in shown])
    return figure


def _draw_importance(axes: Axes, explanation: Explanation, shown: Sequence[int]) -> None:
    values = explanation.importance
    colours = [VERMILION if value < 0 else BLUE if i in shown else LIGHT_BLUE for i, value in enumerate(values)]
    axes.bar(np.arange(len(values)) + 0.5, values, width=0.86, color=colours)
    axes.set(xlim=(0, len(values)), xticks=[])
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_row(axes: Axes, name: str, images: Sequence[np.ndarray]) -> None:
    for column, image in enumerate(images):
        axes.imshow(image, extent=(column + 0.02, column + 0.98, 0, 1), aspect="auto", interpolation="antialiased")
    axes.set(xlim=(0, len(images)), ylim=(0, 1), xticks=[], yticks=[], ylabel=name)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image `(H, W, 3)` uint8 in grey, under its heat `(h, w)`, 0 to 1."""
    height, width = image.shape[:2]
    smooth = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)  # (h, w) -> (H, W)
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) / 255
    strength = np.minimum(1.6 * smooth, 0.75)[..., None]
    colour = colormaps["inferno"](0.3 + 0.7 * smooth)[..., :3]
    return np.rint(255 * (grey * (1 - strength) + colour * strength)).astype(np.uint8)


# === Of a sentence ===

_FRAME_HEIGHT = 160  # pixels


def attention_of(description: Description, *, check: Check | None = None) -> Figure:
    """Which frames of its video each word of the best sentence looked at, see `attention_figure`.

    The video is decoded again, up to the last of these frames.

    Args:
        description: of a video that is still there.
        check: called with the time of each frame that passes, in seconds; what it raises ends the work.

    Raises:
        VideoError: the video cannot be read any more.
    """
    times = description.timestamps_seconds
    return attention_figure(description.sentences[0], _frames_at(description.source, times, check), times)


def _frames_at(source: Path | str, timestamps_seconds: np.ndarray, check: Check | None) -> np.ndarray:
    """Frames of a video at N rising times, from its first frame on: `(N, H, W, 3)` uint8 RGB, small, all of one size.

    A frame that lasts may be asked for again and again.
    """
    due, start, frames = timestamps_seconds - TIMESTAMP_TOLERANCE_SECONDS, None, list[np.ndarray]()
    with open_video(local_path(source), num_threads=0, check=check) as reader:
        size = max(1, round(_FRAME_HEIGHT * reader.info.width / reader.info.height)), _FRAME_HEIGHT
        for _, timestamp in reader:
            start = timestamp if start is None else start
            copies = int(np.searchsorted(due, timestamp - start, side="right")) - len(frames)
            if copies > 0:
                frames += [cv2.resize(reader.retrieve(), size, interpolation=cv2.INTER_AREA)] * copies
            if len(frames) == len(due):
                return np.stack(frames)
    raise VideoError("has changed since it was described", path=source)
