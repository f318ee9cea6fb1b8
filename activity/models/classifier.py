"""The model in Keras: backbone + head + info, in one `.keras` file that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from activity._version import __version__
from activity.models.backend import keras
from activity.models.heads import FUSE, carrying, member_predictions_of
from activity.models.info import FORMAT_VERSION, ModelInfo
from activity.models.layers import TimeDistributed, uses_jit
from activity.models.network import InferenceModel, RunWithState
from activity.models.saving import load_model


@keras.saving.register_keras_serializable(package="activity")
class ActivityClassifier(InferenceModel, keras.Model):
    """Clips to probabilities: `{"frames": (batch, T, S, H, W, 3) uint8, "mask": (batch, T) bool}` -> `(batch, C)`.

    Of a model of steps, probabilities are `(batch, T, C)`; see `ModelInfo.labels_per`.
    Of a model of feature files, frames are their rows `(batch, T, 1, D)` float32, which its backbone gives as they are.

    The two parts can be called on their own, which gives the same probabilities: `backbone` on real frames only, then
    `head` on padded features.

    Args:
        backbone: one image `(H, W, 3)` uint8 RGB to features `(D,)`; from `activity.models.backbones`. All streams
            share it.
        head: features and mask to probabilities; from `activity.models.heads`.
        info: spec, labels and all else that the model file tells.
    """

    def __init__(self, backbone: keras.Model, head: keras.Model, info: ModelInfo, **kwargs: Any) -> None:
        spec = info.spec
        # === Layers ===
        shape = (spec.num_frames, len(spec.streams), *spec.item_shape)
        frames = keras.Input(shape, dtype=spec.item_dtype, name="frames")
        mask = keras.Input((spec.num_frames,), dtype="bool", name="mask")
        # === Functional model ===
        features = extracted(backbone, frames)  # (B, T, S, H, W, 3) -> (B, T, S, D)
        probabilities = head({"features": features, "mask": mask})  # (B, T, S, D) -> (B, C)
        super().__init__(inputs={"frames": frames, "mask": mask}, outputs=probabilities, **kwargs)
        # === Config ===
        self.backbone = backbone
        self.head = head
        self.info = info
        self.jit_compile = uses_jit()  # the default "auto" would choose XLA on a CPU

    def get_config(self) -> dict[str, Any]:
        """Everything `from_config` needs, as plain values."""
        info = self.info.with_record(num_parameters=self.count_params(), versions=versions())
        return {
            "name": self.name,
            "format_version": FORMAT_VERSION,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            **info.as_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ActivityClassifier:
        """The classifier that `get_config` describes, with fresh weights."""
        backbone, head = (
            keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects, safe_mode=True)
            for name in ("backbone", "head")
        )
        return cls(backbone, head, ModelInfo.from_dict(config), name=config["name"])

    @property
    def temperature(self) -> float:
        """The number that log-probabilities are divided by; see `activity.evaluation.calibration`."""
        return float(self.head.get_layer(FUSE).temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        self.head.get_layer(FUSE).temperature.assign(value)

    def member_predictions(self, encoder: keras.Model) -> keras.Model:
        """The model from `encoder` up to the predictions `(B, M, C)` of the members of its head, to be trained.

        The encoder is the backbone, or its upper part: then the input `(B, T, S, ...)` is the output of the lower part.
        """
        time, streams, item = self.spec.num_frames, len(self.spec.streams), encoder.input_shape[1:]
        frames = keras.Input((time, streams, *item), dtype=encoder.input.dtype, name="frames")
        mask = keras.Input((time,), dtype="bool", name="mask")
        member_predictions = member_predictions_of(self.head)({"features": extracted(encoder, frames), "mask": mask})
        return keras.Model({"frames": frames, "mask": mask}, member_predictions)

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        return predict(self.backbone, images)

    def run_head(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities `(B, C)`, or of steps `(B, T, C)`, of padded features `(B, T, S, D)` and mask `(B, T)`."""
        return predict(self.head, {"features": features, "mask": mask})

    def open_states(self) -> RunWithState:
        """The head in a graph that takes and gives its state."""
        graph = carrying(self.head)

        def run(features: np.ndarray, mask: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, ...]:
            outputs = graph.predict_on_batch({"features": features, "mask": mask, "hidden": hidden, "cell": cell})
            return outputs["probabilities"], outputs["next_hidden"], outputs["next_cell"]

        return run


def extracted(encoder: keras.Model, frames: keras.KerasTensor) -> keras.KerasTensor:
    """An encoder of single images on all frames of all streams: `(B, T, S, ...)` -> `(B, T, S, D)`."""
    time, streams, *item = frames.shape[1:]
    x = keras.layers.Reshape((time * streams, *item))(frames)  # (B, T, S, ...) -> (B, T*S, ...)
    x = TimeDistributed(encoder)(x)  # (B, T*S, ...) -> (B, T*S, D)
    return keras.layers.Reshape((time, streams, -1))(x)  # (B, T*S, D) -> (B, T, S, D)


def predict(model: keras.Model, inputs: Any) -> np.ndarray:
    """One batch through a model in inference mode, as float32 in NumPy."""
    return np.asarray(model.predict_on_batch(inputs), np.float32)


def versions() -> dict[str, str]:
    """Versions that a model or data set was made with."""
    return {"activity": __version__, "keras": keras.__version__, "backend": keras.backend.backend()}


def load_classifier(path: Path) -> ActivityClassifier:
    """Read a model file of `train` or `update`; raises as `activity.models.saving.load_model`."""
    return load_model(path, ActivityClassifier, task="classify")
