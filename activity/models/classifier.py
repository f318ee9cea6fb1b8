"""The model in Keras: backbone + head + info, in one `.keras` file that needs nothing beside it."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from activity._version import __version__
from activity.errors import ModelFileError, one_line
from activity.files import atomic_path, remove_leftovers
from activity.models.backend import keras
from activity.models.devices import prepare_gpus
from activity.models.heads import FUSE, member_predictions_of
from activity.models.info import (
    FORMAT_VERSION,
    WEIGHTS_NAME,
    ModelInfo,
    check_model_path,
    is_model,
    read_config,
    read_info,
)
from activity.models.layers import TimeDistributed, uses_jit
from activity.models.network import InferenceModel


@keras.saving.register_keras_serializable(package="activity")
class ActivityClassifier(InferenceModel, keras.Model):
    """Clips to probabilities: `{"frames": (batch, T, S, H, W, 3) uint8, "mask": (batch, T) bool}` -> `(batch, C)`.

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
        features = _extract_features(backbone, frames)  # (B, T, S, H, W, 3) -> (B, T, S, D)
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
        member_predictions = member_predictions_of(self.head)(
            {"features": _extract_features(encoder, frames), "mask": mask}
        )
        return keras.Model({"frames": frames, "mask": mask}, member_predictions)

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        return predict(self.backbone, images)

    def predict_features(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities `(B, C)` float32 of padded features `(B, T, S, D)` and their mask `(B, T)` bool."""
        return predict(self.head, {"features": features, "mask": mask})


def _extract_features(encoder: keras.Model, frames: keras.KerasTensor) -> keras.KerasTensor:
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


def save_classifier(classifier: ActivityClassifier, path: Path) -> Path:
    """Write one `.keras` file; an older file is replaced only once the new file is whole.

    Raises:
        ModelFileError: the name does not end in `.keras`, a file has it that is not a model of ours, or a weight is
            not a finite number.
    """
    path = Path(path)
    check_model_path(path)
    if path.exists() and not is_model(path):
        raise ModelFileError("exists and is not a model file of ours, so it is not replaced", path=path)
    check_finite(classifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with atomic_path(path) as temporary:
        classifier.save(temporary)
    return path


def load_classifier(path: Path) -> ActivityClassifier:
    """Read a model file; nothing else is needed. It may come from a stranger: nothing in it is run.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, of a newer version, or holds a weight that is
            not a finite number.
    """
    path = Path(path)
    read_info(path)  # says what is wrong
    prepare_gpus()
    # Not by `keras.saving.load_model`: it would also carry out what the file says on compiling, and unpack assets.
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as file:
        if WEIGHTS_NAME not in file.namelist():
            raise ModelFileError("damaged, there are no weights in it", path=path)
        weights_path = Path(file.extract(WEIGHTS_NAME, folder))
        try:
            classifier = _built(read_config(path), most_weights=_count_numbers(weights_path))
            classifier.load_weights(weights_path)
            check_finite(classifier)
        except Exception as error:  # Keras fails in any way on a file whose parts do not fit together
            raise ModelFileError(_reason_of(error), path=path) from error
    return classifier


def _reason_of(error: Exception) -> str:
    if isinstance(error, ModelFileError):
        return error.reason
    if "safe_mode" in str(error) or "unsafe_deserialization" in str(error):
        return "holds code that it wants to be run; models of ours hold none"  # not Keras' advice to let it
    text = one_line(error).rpartition("Exception encountered: ")[2]  # Keras puts it last
    return f"damaged, or made by another version of activity or Keras: {type(error).__name__}: {text}"


def _count_numbers(weights_path: Path) -> int:
    """How many numbers a weights file holds; raises `ModelFileError` if it does not hold all that it names."""
    sizes: dict[int, int] = {}  # of each object by its place in the file, where several names may have one
    num_bytes = 0
    with h5py.File(weights_path) as file:
        groups = [file]
        while groups:
            group = groups.pop()
            for name in group:
                part: Any = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
                is_data = isinstance(part, h5py.Dataset) and not part.external and not part.is_virtual
                if not is_data and not isinstance(part, h5py.Group):
                    raise ModelFileError(f"its weights {group.name}/{name} are not inside it")
                place = h5py.h5o.get_info(part.id).addr
                if place not in sizes and not is_data:
                    groups.append(part)
                elif place not in sizes:
                    num_bytes += part.nbytes
                sizes[place] = part.size if is_data else 0
    if num_bytes > weights_path.stat().st_size:
        raise ModelFileError(f"its weights would unpack to {num_bytes:,} bytes; models of ours are not compressed")
    return sum(sizes.values())


def _built(config: dict[str, Any], *, most_weights: int) -> ActivityClassifier:
    """The classifier of a config with fresh weights.

    Raises:
        ModelFileError: it needs more weights than that, of which none is made; or has not one output for each label.
    """
    scope = keras.StatelessScope(initialize_variables=False)  # in it, weights have shapes but take no memory
    try:
        with scope:
            classifier = ActivityClassifier.from_config(config)
            if classifier.count_params() > most_weights:
                raise ModelFileError(f"needs {classifier.count_params():,} weights, but holds {most_weights:,}")
            num_labels, num_outputs = len(classifier.labels), classifier.output_shape[-1]
            if num_labels != num_outputs:
                raise ModelFileError(f"damaged: {num_labels} labels, but {num_outputs} outputs")
            scope.initialize_variables = True
    except Exception:
        keras.utils.clear_session()  # else the next model would make those weights too
        raise
    return classifier


def check_finite(model: keras.Model) -> None:
    """Raise `ModelFileError` if a weight is not a finite number, with which every answer would be `nan`."""
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ModelFileError(f"its weights {weight.path} are not finite numbers", hint="train it again")
