"""Why a label: which frames of a video, and which places in them, speak for it.

    explainer = Explainer.load("model.keras")
    explanation = explainer.explain(predictor.predict("clip.mp4"))
    save_figure(explanation_figure(explanation), Path("why.png"))

What speaks for a label is measured by its log-odds: the logarithm of its probability over that of all the others. It
goes on rising where the probability is already close to 1, and has a slope there.

*When*: a head with attention says itself how much it looks at each frame (Bahdanau et al. 2015; what it looks at need
not be what decides, Jain & Wallace 2019). Of any other head each frame is hidden in turn (occlusion, Zeiler & Fergus
2014): its features give way to the mean of those of the other frames, as a grey patch does in a picture, and the drop
of the log-odds counts. Frames are not left out, since then the others would move to other places in time, to which
heads such as `segments` listen; nor do they become like their neighbours, which mostly show the same.

*Where*: Grad-CAM (Selvaraju et al. 2017) on the last feature maps of the backbone, for each frame and stream: the maps
times the slope of the log-odds, summed over the channels, and what speaks against is left out. The slope is not
averaged over the picture first. Behind a global average it is the same everywhere, so that makes no difference; behind
a dense layer, which knows places, the average would be wrong (HiResCAM, Draelos & Carin 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from keras import ops
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from activity.backbones import split_at_maps
from activity.classifier import ActivityClassifier, load_classifier
from activity.clips import pad_right
from activity.devices import gradient
from activity.errors import ActivityError
from activity.heads import attention_weights, has_attention
from activity.plots import plain_text, shortened
from activity.predictor import Prediction, read_window
from activity.video import printable, probe

_PICTURES_PER_BATCH = 64
_CLIPS_PER_BATCH = 16
_LEAST = 1e-30  # probability, in a logarithm


@dataclass(frozen=True)
class Explanation:
    """What speaks for a label in N frames of a video; S streams, see `activity.motion`.

    Attributes:
        source: the video, as it was given.
        label: what is explained.
        probability: of the label in these frames, computed by Keras, 0 to 1.
        timestamps_seconds: `(N,)`, from the first frame of the video.
        pictures: `(N, S, H, W, 3)` uint8 RGB: what the model saw.
        streams: names of the S streams.
        importance: `(N,)` float32. Of `attention` weights with sum 1; of `occlusion` by how much the log-odds of the
            label drop without the frame, below 0 where the frame speaks against it.
        importance_kind: `attention` or `occlusion`.
        heatmaps: `(N, S, h, w)` float32, 0 to 1: where in each picture the label is seen. One scale for all, so that
            frames and streams compare; all 0 if nothing speaks for the label.
        aspect: width over height of the video, for pictures that were stretched.
    """

    source: str
    label: str
    probability: float
    timestamps_seconds: np.ndarray
    pictures: np.ndarray
    streams: tuple[str, ...]
    importance: np.ndarray
    importance_kind: str
    heatmaps: np.ndarray
    aspect: float


class Explainer:
    """A model that says why. It needs Keras, whatever computed the predictions.

    Args:
        classifier: from `activity.classifier.load_classifier` or a training run.
    """

    def __init__(self, classifier: ActivityClassifier) -> None:
        self.classifier = classifier
        self._looker, self._reader = split_at_maps(classifier.backbone)

    @classmethod
    def load(cls, model_path: Path | str) -> Explainer:
        """Read a model file; raises `ModelFileError` if it is missing, damaged or not ours."""
        return cls(load_classifier(Path(model_path)))

    def explain(self, prediction: Prediction, *, label: str | None = None) -> Explanation:
        """Why a video shows an activity. Of a long video, the window where the label is most probable is explained.

        Args:
            prediction: of this model, by any runtime.
            label: by default the most probable, also if the answer was "unknown".

        Raises:
            ActivityError: the model has no such label.
            VideoError: the video cannot be read any more.
        """
        label = prediction.top(1)[0][0] if label is None else label
        label_id = self._label_id(label)
        window = max(prediction.windows, key=lambda window: window.probabilities[label_id])
        pictures, timestamps = read_window(self.classifier, prediction.source, window)
        info = probe(Path(prediction.source))
        aspect = info.width / info.height
        return self.explain_frames(
            pictures, label=label, source=prediction.source, timestamps_seconds=timestamps, aspect=aspect
        )

    def explain_frames(
        self,
        pictures: np.ndarray,
        *,
        label: str,
        source: str,
        timestamps_seconds: np.ndarray,
        aspect: float | None = None,
    ) -> Explanation:
        """The same of the frames of one clip.

        Args:
            pictures: `(N, S, H, W, 3)` uint8 RGB, N from 1 to `spec.num_frames`.
            label: what is explained.
            source: their video.
            timestamps_seconds: `(N,)`, from the first frame of the video.
            aspect: width over height of the video; by default that of the pictures.

        Raises:
            ActivityError: the model has no such label.
        """
        spec, label_id = self.classifier.spec, self._label_id(label)
        maps, features = self._look(pictures)  # (N*S, h, w, c), (N, S, D)
        clip, mask = pad_right(features, spec.num_frames)  # (T, S, D), (T,)
        real = ops.convert_to_tensor(mask[None])

        def log_odds(clip: Any) -> Any:
            return _log_odds(self.classifier.head({"features": clip, "mask": real}, training=False), label_id)[0]

        slope = gradient(log_odds, clip[None])[0, : len(features)]  # (N, S, D)
        probability = self.classifier.judge(clip[None], mask[None])[0, label_id]
        return Explanation(
            source=source,
            label=label,
            probability=float(probability),
            timestamps_seconds=np.asarray(timestamps_seconds),
            pictures=pictures,
            streams=spec.streams,
            importance=self._importance(features, label_id),
            importance_kind="attention" if has_attention(self.classifier.head) else "occlusion",
            heatmaps=self._heat(maps, slope),
            aspect=aspect if aspect and spec.resize == "stretch" else spec.width / spec.height,
        )

    def _label_id(self, label: str) -> int:
        labels = self.classifier.labels
        if label not in labels:
            raise ActivityError(f"no label '{label}'; expected one of {', '.join(labels)}")
        return labels.index(label)

    def _look(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps `(N*S, h, w, c)` and features `(N, S, D)`."""
        folded = pictures.reshape(-1, *pictures.shape[2:])  # (N, S, H, W, 3) -> (N*S, H, W, 3)
        looked = [self._looker.predict_on_batch(part) for part in _parts(folded, _PICTURES_PER_BATCH)]
        maps, features = (np.concatenate(arrays).astype(np.float32) for arrays in zip(*looked, strict=True))
        return maps, features.reshape(*pictures.shape[:2], -1)  # (N*S, D) -> (N, S, D)

    def _importance(self, features: np.ndarray, label_id: int) -> np.ndarray:
        """`(N,)` of features `(N, S, D)`."""
        num_frames, length = len(features), self.classifier.spec.num_frames
        clip, mask = pad_right(features, length)
        if has_attention(self.classifier.head):
            return attention_weights(self.classifier.head, clip[None], mask[None])[0, :num_frames]
        if num_frames == 1:
            return np.zeros(1, np.float32)  # there is nothing that could stand for it
        others = (features.sum(axis=0) - features) / (num_frames - 1)  # (N, S, D): the mean without each frame
        judged = [self.classifier.judge(clip[None], mask[None])]
        for hidden in _parts(np.arange(num_frames), _CLIPS_PER_BATCH):
            clips = np.repeat(clip[None], len(hidden), axis=0)  # (B, T, S, D)
            clips[np.arange(len(hidden)), hidden] = others[hidden]
            judged.append(self.classifier.judge(clips, np.repeat(mask[None], len(hidden), axis=0)))
        log_odds = ops.convert_to_numpy(_log_odds(ops.convert_to_tensor(np.concatenate(judged)), label_id))  # (1 + N,)
        return log_odds[0] - log_odds[1:]

    def _heat(self, maps: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """`(N, S, h, w)` of maps `(N*S, h, w, c)` and the slope `(N, S, D)` of the log-odds by their features."""
        num_frames, num_streams, _ = slope.shape
        slopes = slope.reshape(num_frames * num_streams, -1)  # (N, S, D) -> (N*S, D)
        slopes = slopes / (np.abs(slopes).max() or 1)  # float16 has no numbers as small as slopes are
        heatmaps = np.zeros(maps.shape[:3], np.float32)  # (N*S, h, w)
        for part in _parts(np.arange(len(maps)), _PICTURES_PER_BATCH):

            def along(x: Any, part: np.ndarray = part) -> Any:
                return ops.sum(ops.multiply(ops.cast(self._reader(x, training=False), "float32"), slopes[part]))

            heatmaps[part] = np.maximum((maps[part] * gradient(along, maps[part])).sum(axis=-1), 0)
        heatmaps /= heatmaps.max() or 1
        return heatmaps.reshape(num_frames, num_streams, *maps.shape[1:3])  # (N*S, h, w) -> (N, S, h, w)


def _log_odds(probabilities: Any, label_id: int) -> Any:
    """`(B, C)` -> `(B,)`. One minus a probability near 1 would be 0 in float32, so the others are summed."""
    others = np.arange(probabilities.shape[-1]) != label_id
    rest = ops.sum(ops.multiply(probabilities, others.astype(np.float32)), axis=-1)
    return ops.log(ops.maximum(probabilities[:, label_id], _LEAST)) - ops.log(ops.maximum(rest, _LEAST))


def _parts(array: np.ndarray, size: int) -> list[np.ndarray]:
    return [array[start : start + size] for start in range(0, len(array), size)]


# === The picture ===

_LEFT, _RIGHT, _HEAD, _BARS, _GAP, _FOOT = 0.75, 0.35, 1.15, 1.4, 0.08, 0.45  # inches
_WIDEST, _TALLEST, _LEAST_WIDTH = 15.0, 2.4, 9.0  # all columns, a picture, the figure
_MOST_COLUMNS, _MOST_PORTRAITS = 12, 16
_FOR, _FOR_SHOWN, _AGAINST, _GREY = "#a6cee3", "#0072b2", "#d55e00", "#555555"
_ABOUT = {
    "attention": "Bars: how much the model looks at each frame (attention, sum 1).",
    "occlusion": "Bars: how much the log-odds of the label drop when a frame is hidden; below 0 it speaks against.",
}
_ABOUT_HEAT = "Heat: where in each picture the label is seen (Grad-CAM)."


@plain_text
def explanation_figure(explanation: Explanation) -> Figure:
    """Importance over time as bars, below them the frames, and below those where in each stream the label is seen.

    There is a bar for every frame. Of many frames, the most important of each few is shown; its bar is dark. Heat is
    drawn over grey pictures, its colour and strength by its share of the greatest in all of the figure.
    """
    e = explanation
    aspect = float(np.clip(e.aspect, 0.4, 2.5))  # a film strip would leave no room for anything
    most = _MOST_COLUMNS if aspect > 0.8 else _MOST_PORTRAITS
    each = -(-len(e.pictures) // most)  # frames to a column
    shown = [start + int(e.importance[start : start + each].argmax()) for start in range(0, len(e.pictures), each)]
    rows = [("frames", aspect, list(e.pictures[shown, 0]))] if e.streams[0] == "rgb" else []
    for number, stream in enumerate(e.streams):
        own = e.pictures.shape[3] / e.pictures.shape[2] if stream == "closeup" else aspect
        rows.append((stream, own, [_heated(e.pictures[i, number], e.heatmaps[i, number]) for i in shown]))
    # Placed by hand, in inches: bars and pictures must share their left and right edge.
    column = min(_WIDEST / len(shown), _TALLEST * aspect)
    inner = column * len(e.pictures) / each
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
    write(_LEFT, 0.6, f"{_ABOUT[e.importance_kind]}\n{_ABOUT_HEAT}", color=_GREY, size=9, linespacing=1.4)
    _draw_importance(panel(_HEAD, inner, _BARS), e, shown)
    top = _HEAD + _BARS
    for name, own, pictures in rows:
        axes = panel(top + _GAP, column * len(shown), column / own)
        _draw_row(axes, name, pictures)
        top += column / own + _GAP
    axes.set_xticks(np.arange(len(shown)) + 0.5, [f"{e.timestamps_seconds[i]:.2f} s" for i in shown])
    return figure


def _draw_importance(axes: Axes, explanation: Explanation, shown: Sequence[int]) -> None:
    values = explanation.importance
    colours = [_AGAINST if value < 0 else _FOR_SHOWN if i in shown else _FOR for i, value in enumerate(values)]
    axes.bar(np.arange(len(values)) + 0.5, values, width=0.86, color=colours)
    axes.set(xlim=(0, len(values)), xticks=[])
    axes.axhline(0, color=_GREY, linewidth=0.8)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_row(axes: Axes, name: str, pictures: Sequence[np.ndarray]) -> None:
    for column, picture in enumerate(pictures):
        axes.imshow(picture, extent=(column + 0.02, column + 0.98, 0, 1), aspect="auto", interpolation="antialiased")
    axes.set(xlim=(0, len(pictures)), ylim=(0, 1), xticks=[], yticks=[], ylabel=name)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _heated(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture `(H, W, 3)` uint8 in grey, under its heat `(h, w)`, 0 to 1."""
    height, width = picture.shape[:2]
    smooth = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)  # (h, w) -> (H, W)
    grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) / 255
    strength = np.minimum(1.6 * smooth, 0.75)[..., None]
    colour = colormaps["inferno"](0.3 + 0.7 * smooth)[..., :3]
    return np.rint(255 * (grey * (1 - strength) + colour * strength)).astype(np.uint8)
