"""Backbones: name -> function that builds a model from one uint8 RGB frame `(H, W, 3)` to its features `(D,)`.

Each is one flat functional model with its preprocessing inside, so "the last N layers" means what it says. (ConvNeXt
keeps four small blocks, which count as one layer each.)
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from activity.config import FEATURES
from activity.errors import ActivityError, ModelFileError, did_you_mean, one_line
from activity.models.backend import keras, keras_home


@dataclass(frozen=True)
class Backbone:
    """How a backbone is built; nothing of it imports Keras before.

    Args:
        build: frames `(batch, H, W, 3)` uint8 RGB as a Keras tensor, and weights (`imagenet`, `none`, or the path of a
            file), to a functional model with features `(batch, D)`.
        weights_file: pattern for the name of its ImageNet weights without top, as `keras.applications` stores them;
            empty where no such weights exist: it is trained from scratch.
    """

    build: Callable[[keras.KerasTensor, str], keras.Model]
    weights_file: str = ""


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
        ModelFileError: the weights are not available or do not fit.
    """
    weights = find_weights(name, weights)
    from activity.models.devices import prepare_gpus
    from activity.models.layers import make_model

    prepare_gpus()
    frames = keras.Input((height, width, 3), dtype="uint8", name="frames")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):  # Keras reports downloads on stdout
            # MobileNets differ by input size only in the name of the weights file; the weights fit every size
            warnings.filterwarnings("ignore", message=".*input_shape.*")
            warnings.filterwarnings("error", message="Skipping nested container")  # it would leave random weights
            model = BACKBONES[name].build(frames, weights)
    except (ValueError, UserWarning) as error:
        if weights in ("imagenet", "none"):
            raise ActivityError(f"{name} cannot take frames of {height}x{width}: {one_line(error)}") from error
        raise ModelFileError(f"these weights do not fit {name}: {one_line(error)}", path=weights) from error
    except OSError as error:
        raise ModelFileError(f"not a weights file that Keras can read: {one_line(error)}", path=weights) from error
    except Exception as error:
        if "fetch failure" not in str(error):  # how keras.utils.get_file says that a download failed
            raise
        raise ModelFileError(
            f"the ImageNet weights of {name} could not be downloaded to {weights_dir()}: {one_line(error)}",
            hint="connect to the network once, give a file with --weights PATH, or train from scratch: --weights none",
        ) from error
    return make_model(frames, model.output, name=name)


def build_identity(num_features: int) -> keras.Model:
    """The backbone of models of feature files, which another network has computed: rows `(batch, D)` as they are."""
    from activity.models.layers import make_model

    rows = keras.Input((num_features,), name="rows")
    return make_model(rows, keras.layers.Identity(dtype="float32")(rows), name=FEATURES)


def split_backbone(backbone: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Split a backbone into the layers below its first trainable one, and the rest. Both share its weights.

    The cut is where everything passes through one layer, so never inside a residual block.

    Returns:
        `(below, above)`; `below` is `None`, and `above` the whole backbone, if there is nothing to cut off.
    """
    from activity.models.layers import make_model

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
    below = make_model(backbone.input, cut, name=f"{backbone.name}_below")
    return below, make_model(cut, backbone.output, name=f"{backbone.name}_above")


def split_at_maps(backbone: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a backbone after its last feature maps. Both models share its weights.

    Returns:
        `(feature_map_model, pooling_model)`: frames `(B, H, W, 3)` uint8 -> `[maps (B, h, w, c), features (B, D)]`,
        and maps -> features.
    """
    from activity.models.layers import make_model

    # What is pooled or flattened last. Not the output of the layer before: if that is a model, it is of another graph.
    single = [layer for layer in backbone.layers if not isinstance(layer.input, list)]
    maps = next(x.input for x in reversed(single) if len(x.input.shape) == 4 and len(x.output.shape) < 4)
    feature_map_model = make_model(backbone.input, [maps, backbone.output], name=f"{backbone.name}_feature_maps")
    return feature_map_model, make_model(maps, backbone.output, name=f"{backbone.name}_pooling")


def choose_weights(name: str, weights: str | None) -> str:
    """The weights that a backbone gets: those named, else `imagenet` where it has them, else `none`.

    Of feature files, in place of a backbone, `none`.

    Raises:
        ActivityError: no such backbone.
    """
    if name == FEATURES:
        return "none"
    if name not in BACKBONES:
        expected = f"expected one of {', '.join(BACKBONES)}"
        raise ActivityError(f"no backbone '{name}'; {expected}", hint=did_you_mean(name, BACKBONES))
    return weights or ("imagenet" if BACKBONES[name].weights_file else "none")


def find_weights(name: str, weights: str | None) -> str:
    """As `choose_weights`, for a backbone that is about to be built; asked before Keras is imported.

    Raises:
        ActivityError: no such backbone.
        ModelFileError: it has no ImageNet weights, or there is no such file.
    """
    weights = choose_weights(name, weights)
    if weights == "imagenet" and not BACKBONES[name].weights_file:
        raise ModelFileError(f"{name} has no ImageNet weights", hint="use --weights none or a path")
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ModelFileError("no such weights file; expected a path, imagenet or none", path=weights)
    return weights


def weights_dir() -> Path:
    """Where Keras keeps downloaded weights."""
    return keras_home() / "models"


def _application(frames: keras.KerasTensor, weights: str, *, builder: str, mode: str, **options: Any) -> keras.Model:
    """A model of `keras.applications`; `mode` is the preprocessing that it was trained with."""
    from activity.models.layers import Preprocess

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

    It ends in a dense layer, not in a global average, because where the figure is belongs to the activity.
    """
    from activity.models.layers import Preprocess

    x = Preprocess("tf", name="preprocess")(frames)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(frames, keras.layers.Dense(128, activation="relu")(x))
    if weights != "none":
        model.load_weights(weights)
    return model


# Modes: the input that each was trained on (keras.applications; "none" carries its own preprocessing in the graph).
BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone(partial(_application, builder="VGG16", mode="caffe"), "vgg16_*_notop.h5"),
    "vgg19": Backbone(partial(_application, builder="VGG19", mode="caffe"), "vgg19_*_notop.h5"),
    "mobilenet": Backbone(partial(_application, builder="MobileNet", mode="tf"), "mobilenet_1_0_*_no_top.h5"),
    "mobilenet_v2": Backbone(partial(_application, builder="MobileNetV2", mode="tf"), "mobilenet_v2_*_1.0_*_no_top.h5"),
    "mobilenet_v2_035": Backbone(
        partial(_application, builder="MobileNetV2", mode="tf", alpha=0.35), "mobilenet_v2_*_0.35_*_no_top.h5"
    ),
    "mobilenet_v3_small": Backbone(
        partial(_application, builder="MobileNetV3Small", mode="none"),
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    ),
    "mobilenet_v3_large": Backbone(
        partial(_application, builder="MobileNetV3Large", mode="none"),
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    ),
    "efficientnet_v2_b0": Backbone(
        partial(_application, builder="EfficientNetV2B0", mode="none"), "efficientnetv2-b0_notop.h5"
    ),
    "resnet50": Backbone(partial(_application, builder="ResNet50", mode="caffe"), "resnet50_*_notop.h5"),
    "densenet121": Backbone(partial(_application, builder="DenseNet121", mode="torch"), "densenet121_*_notop.h5"),
    "inception_v3": Backbone(partial(_application, builder="InceptionV3", mode="tf"), "inception_v3_*_notop.h5"),
    "convnext_tiny": Backbone(partial(_application, builder="ConvNeXtTiny", mode="none"), "convnext_tiny_notop.h5"),
    "small_cnn": Backbone(_small_cnn),
}
