"""Explanation of a label: which frames of a video, and which places in them, speak for it.

    explainer = Explainer.load("model.keras")
    explanation = explainer.explain(predictor.predict("clip.mp4"))
    save_figure(explanation_figure(explanation), Path("why.png"))

What speaks for a label is measured by its log-odds: the logarithm of its probability over that of all the others. It
still rises where the probability is already close to 1, and has a slope there.

*When*: a head with attention says itself how much it looks at each frame (Bahdanau et al. 2015; what it looks at need
not be what decides, Jain & Wallace 2019). Of any other head each frame is hidden in turn (occlusion, Zeiler & Fergus
2014): its features are replaced by the mean of those of the other frames, as by a grey patch in an image, and the drop
of the log-odds counts. Frames are not left out, since then the others would move to other places in time, to which
heads such as `chunks` listen; nor do they become like their neighbours, which mostly show the same.

*Where*: Grad-CAM (Selvaraju et al. 2017) on the last feature maps of the backbone, for each frame and stream: the maps
times the slope of the log-odds, summed over the channels, and what speaks against is left out. The slope is not
averaged over the image first. Before a global average it is the same everywhere, so that makes no difference; before
a dense layer, which knows places, the average would be wrong (HiResCAM, Draelos & Carin 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from activity.errors import ActivityError
from activity.models.backbones import split_at_maps
from activity.models.backend import ops
from activity.models.classifier import ActivityClassifier, load_classifier
from activity.models.devices import gradient
from activity.models.heads import attention_weights, has_attention
from activity.models.info import check_takes_videos
from activity.predictor.prediction import Prediction
from activity.predictor.windows import read_window
from activity.video.clips import pad_right
from activity.video.download import local_path
from activity.video.images import probe

_IMAGES_PER_BATCH = 64
_CLIPS_PER_BATCH = 16
_LEAST = 1e-30  # probability, in a logarithm


@dataclass(frozen=True)
class Explanation:
    """Evidence for a label in N frames of a video; S streams, see `activity.video.streams`.

    Attributes:
        source: the video, as it was given.
        label: what is explained.
        probability: of the label in these frames, computed by Keras, 0 to 1.
        timestamps_seconds: `(N,)`, from the first frame of the video.
        images: `(N, S, H, W, 3)` uint8 RGB: what the model saw.
        streams: names of the S streams.
        importance: `(N,)` float32. Of `attention` weights with sum 1; of `occlusion` by how much the log-odds of the
            label drop without the frame, below 0 where the frame speaks against it.
        importance_kind: `attention` or `occlusion`.
        heatmaps: `(N, S, h, w)` float32, 0 to 1: where in each image the label is seen. One scale for all, so that
            frames and streams compare; all 0 if nothing speaks for the label.
        aspect: width over height of the video, for images that were stretched.
    """

    source: str
    label: str
    probability: float
    timestamps_seconds: np.ndarray
    images: np.ndarray
    streams: tuple[str, ...]
    importance: np.ndarray
    importance_kind: str
    heatmaps: np.ndarray
    aspect: float


class Explainer:
    """A model that says why. It needs Keras, whatever computed the predictions.

    Args:
        classifier: from `activity.models.classifier.load_classifier` or a training run.

    Raises:
        ActivityError: it takes feature files, of which there is nothing to see.
    """

    def __init__(self, classifier: ActivityClassifier) -> None:
        check_takes_videos(classifier.info, "an explanation")
        self.classifier = classifier
        self._feature_map_model, self._pooling_model = split_at_maps(classifier.backbone)

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
        frames = read_window(self.classifier.spec, prediction, window)
        info = probe(local_path(prediction.source))
        return self.explain_frames(
            frames.images,
            label=label,
            source=prediction.source,
            timestamps_seconds=frames.timestamps_seconds,
            aspect=info.width / info.height,
        )

    def explain_frames(
        self,
        images: np.ndarray,
        *,
        label: str,
        source: str,
        timestamps_seconds: np.ndarray,
        aspect: float | None = None,
    ) -> Explanation:
        """Explain why the frames of one clip show an activity; see `Explanation` for the arguments.

        There may be 1 to `spec.num_frames` images; the aspect is by default theirs.

        Raises:
            ActivityError: the model has no such label.
        """
        spec, label_id = self.classifier.spec, self._label_id(label)
        maps, features = self._feature_maps(images)  # (N*S, h, w, c), (N, S, D)
        clip, mask = pad_right(features, spec.num_frames)  # (T, S, D), (T,)
        real = ops.convert_to_tensor(mask[None])

        def log_odds(clip: Any) -> Any:
            probabilities = self.classifier.head({"features": clip, "mask": real}, training=False)
            if self.classifier.info.labels_per == "step":
                probabilities = ops.mean(probabilities[:, : len(features)], axis=1)  # (1, T, C) -> (1, C)
            return _log_odds(probabilities, label_id)[0]

        slope = gradient(log_odds, clip[None])[0, : len(features)]  # (N, S, D)
        probability = self.classifier.predict_features(clip[None], mask[None])[0, label_id]
        return Explanation(
            source=source,
            label=label,
            probability=float(probability),
            timestamps_seconds=np.asarray(timestamps_seconds),
            images=images,
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

    def _feature_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps `(N*S, h, w, c)` and features `(N, S, D)`."""
        folded = images.reshape(-1, *images.shape[2:])  # (N, S, H, W, 3) -> (N*S, H, W, 3)
        looked = [self._feature_map_model.predict_on_batch(part) for part in _parts(folded, _IMAGES_PER_BATCH)]
        maps, features = (np.concatenate(arrays).astype(np.float32) for arrays in zip(*looked, strict=True))
        return maps, features.reshape(*images.shape[:2], -1)  # (N*S, D) -> (N, S, D)

    def _importance(self, features: np.ndarray, label_id: int) -> np.ndarray:
        """`(N,)` of features `(N, S, D)`."""
        num_frames, length = len(features), self.classifier.spec.num_frames
        clip, mask = pad_right(features, length)
        if has_attention(self.classifier.head):
            return attention_weights(self.classifier.head, clip[None], mask[None])[0, :num_frames]
        if num_frames == 1:
            return np.zeros(1, np.float32)  # there is nothing to replace it
        others = (features.sum(axis=0) - features) / (num_frames - 1)  # (N, S, D): the mean without each frame
        predicted = [self.classifier.predict_features(clip[None], mask[None])]
        for hidden in _parts(np.arange(num_frames), _CLIPS_PER_BATCH):
            clips = np.repeat(clip[None], len(hidden), axis=0)  # (B, T, S, D)
            clips[np.arange(len(hidden)), hidden] = others[hidden]
            predicted.append(self.classifier.predict_features(clips, np.repeat(mask[None], len(hidden), axis=0)))
        log_odds = ops.convert_to_numpy(
            _log_odds(ops.convert_to_tensor(np.concatenate(predicted)), label_id)
        )  # (1 + N,)
        return log_odds[0] - log_odds[1:]

    def _heat(self, maps: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """`(N, S, h, w)` of maps `(N*S, h, w, c)` and the slope `(N, S, D)` of the log-odds by their features."""
        num_frames, num_streams, _ = slope.shape
        slopes = slope.reshape(num_frames * num_streams, -1)  # (N, S, D) -> (N*S, D)
        slopes = slopes / (np.abs(slopes).max() or 1)  # float16 has no numbers as small as slopes are
        heatmaps = np.zeros(maps.shape[:3], np.float32)  # (N*S, h, w)
        for part in _parts(np.arange(len(maps)), _IMAGES_PER_BATCH):

            def along(x: Any, part: np.ndarray = part) -> Any:
                return ops.sum(ops.multiply(ops.cast(self._pooling_model(x, training=False), "float32"), slopes[part]))

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
