"""Backbones: name -> function that builds a model from one uint8 RGB frame `(H, W, 3)` to its features `(D,)`.

Each is one flat functional model with its preprocessing inside, so "the last N layers" means what it says. (ConvNeXt
keeps four small blocks, which count as one layer each.)
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras

from activity.errors import ActivityError, ModelFileError
from activity.models.devices import prepare_gpus
from activity.models.layers import Preprocess, uses_jit


def build_backbone(name: str, *, height: int, width: int, weights: str | None = None) -> keras.Model:
    """A backbone with its weights.

    Args:
        name: a key of `BACKBONES`.
        height: of a frame in pixels.
        width: of a frame in pixels.
        weights: `imagenet` (downloaded on first use into `KERAS_HOME`, by default `~/.keras`), `none` (random), or the
            path of a weights file without top. `None` means ImageNet where the backbone has it, else random.

    Returns:
        A model `(batch, H, W, 3)` uint8 -> `(batch, D)`, named after the backbone.

    Raises:
        ActivityError: no such backbone, or it cannot take frames of this size.
        ModelFileError: the weights cannot be had or do not fit.
    """
    if name not in BACKBONES:
        raise ActivityError(f"no backbone '{name}'; expected one of {', '.join(BACKBONES)}")
    weights = weights or default_weights(name)
    if weights == "imagenet" and name in FROM_SCRATCH:
        raise ModelFileError(f"{name} has no ImageNet weights; use --weights none or a path")
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ModelFileError("no such weights file; expected a path, imagenet or none", path=weights)
    prepare_gpus()
    frames = keras.Input((height, width, 3), dtype="uint8", name="frames")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):  # Keras tells of downloads on stdout
            # MobileNets are told apart by input size only in the name of the file; its weights fit every size
            warnings.filterwarnings("ignore", message=".*input_shape.*")
            warnings.filterwarnings("error", message="Skipping nested container")  # it would leave random weights
            model = BACKBONES[name](frames, weights)
    except (ValueError, UserWarning) as error:
        if weights in ("imagenet", "none"):
            raise ActivityError(f"{name} cannot take frames of {height}x{width}: {_first_line(error)}") from error
        raise ModelFileError(f"these weights do not fit {name}: {_first_line(error)}", path=weights) from error
    except OSError as error:
        raise ModelFileError(f"not a weights file that Keras can read: {_first_line(error)}", path=weights) from error
    except Exception as error:
        if "fetch failure" not in str(error):  # how keras.utils.get_file says that a download failed
            raise
        raise ModelFileError(
            f"the ImageNet weights of {name} could not be downloaded to {weights_dir()}: {_first_line(error)}. "
            "Three ways out: connect to the network once, give a file with --weights PATH, or train from scratch with "
            "--weights none"
        ) from error
    backbone = keras.Model(frames, model.output, name=name)
    backbone.jit_compile = uses_jit()
    return backbone


def split_backbone(backbone: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """A backbone in two: what lies below its first trainable layer, and the rest. They share its weights.

    The cut is where everything passes through one layer, so never inside a residual block.

    Returns:
        `(below, above)`; `below` is `None`, and `above` the whole backbone, if there is nothing to cut off.
    """
    layers = backbone.layers
    index = {id(layer): i for i, layer in enumerate(layers)}
    first = min(i for i, layer in enumerate(layers) if layer.trainable_variables)
    reach = [0] * len(layers)  # up to which layer the output of this one or of an earlier one is read
    for i, layer in enumerate(layers):
        for tensor in keras.tree.flatten(layer.input):
            parent = index[id(tensor._keras_history.operation)] if i else 0
            reach[parent] = max(reach[parent], i)
    with_weights = min(i for i, layer in enumerate(layers) if layer.weights)  # to cut off less would save nothing
    cuts = [i for i in range(with_weights, first) if max(reach[:i]) <= i]
    if not cuts:
        return None, backbone
    cut = layers[cuts[-1]].output
    below = keras.Model(backbone.input, cut, name=f"{backbone.name}_below")
    above = keras.Model(cut, backbone.output, name=f"{backbone.name}_above")
    below.jit_compile = above.jit_compile = uses_jit()
    return below, above


def split_at_maps(backbone: keras.Model) -> tuple[keras.Model, keras.Model]:
    """A backbone that also gives its last feature maps, and what it makes of them. They share its weights.

    Returns:
        `(feature_map_model, pooling_model)`: frames `(B, H, W, 3)` uint8 -> `[maps (B, h, w, c), features (B, D)]`,
        and maps -> features.
    """
    # What is pooled or flattened last. Not the output of the layer before: if that is a model, it is of another graph.
    single = [layer for layer in backbone.layers if not isinstance(layer.input, list)]
    maps = next(x.input for x in reversed(single) if len(x.input.shape) == 4 and len(x.output.shape) < 4)
    feature_map_model = keras.Model(backbone.input, [maps, backbone.output], name=f"{backbone.name}_looker")
    pooling_model = keras.Model(maps, backbone.output, name=f"{backbone.name}_reader")
    feature_map_model.jit_compile = pooling_model.jit_compile = uses_jit()
    return feature_map_model, pooling_model


def default_weights(name: str) -> str:
    """`imagenet` for a backbone that has such weights, else `none`."""
    return "none" if name in FROM_SCRATCH else "imagenet"


def weights_dir() -> Path:
    """Where Keras keeps downloaded weights."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _application(frames: keras.KerasTensor, weights: str, *, builder: str, mode: str, **options: Any) -> keras.Model:
    build: Callable[..., keras.Model] = getattr(keras.applications, builder)
    return build(
        include_top=False,
        weights=None if weights == "none" else weights,
        input_tensor=Preprocess(mode, name="preprocess")(frames),
        input_shape=frames.shape[1:],
        pooling="avg",
        **options,
    )


def _small_cnn(frames: keras.KerasTensor, weights: str) -> keras.Model:
    """Three convolutions that each halve the size, for small frames and training from scratch on a CPU.

    It ends in a dense layer, not in a global average, because where the figure stands is part of the activity.
    """
    x = Preprocess("tf", name="preprocess")(frames)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(frames, keras.layers.Dense(128, activation="relu")(x))
    if weights != "none":
        model.load_weights(weights)
    return model


# Modes: what each was trained on (keras.applications; "none" carries its own preprocessing in the graph).
BACKBONES: dict[str, Callable[[keras.KerasTensor, str], keras.Model]] = {
    "vgg16": partial(_application, builder="VGG16", mode="caffe"),
    "vgg19": partial(_application, builder="VGG19", mode="caffe"),
    "mobilenet": partial(_application, builder="MobileNet", mode="tf"),
    "mobilenet_v2": partial(_application, builder="MobileNetV2", mode="tf"),
    "mobilenet_v2_035": partial(_application, builder="MobileNetV2", mode="tf", alpha=0.35),
    "mobilenet_v3_small": partial(_application, builder="MobileNetV3Small", mode="none"),
    "mobilenet_v3_large": partial(_application, builder="MobileNetV3Large", mode="none"),
    "efficientnet_v2_b0": partial(_application, builder="EfficientNetV2B0", mode="none"),
    "resnet50": partial(_application, builder="ResNet50", mode="caffe"),
    "densenet121": partial(_application, builder="DenseNet121", mode="torch"),
    "inception_v3": partial(_application, builder="InceptionV3", mode="tf"),
    "convnext_tiny": partial(_application, builder="ConvNeXtTiny", mode="none"),
    "small_cnn": _small_cnn,
}

FROM_SCRATCH = ("small_cnn",)  # no ImageNet weights exist
