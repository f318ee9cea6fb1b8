"""The stack: a head and linear base models of the same features, in one Keras graph.

    features --+-- head ------------------------------+
               +-- pooling over time -- base models --+-- weighted product -- temperature -- probabilities

Stacked generalization (Wolpert 1992): models of different kinds make different mistakes, and weights that were found on
videos which none of them was trained on tell how far each can be trusted on the data at hand. The base models have a
closed form or a convex loss, so they add little to the time of training; `activity.training.stacking` fits them.

Shapes in the comments: B clips, T frames, S streams, D features, P principal components, F pooled features, R models
(the head and the base models), C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from activity.models.backend import keras, ops
from activity.models.heads import FUSE, NUM_CHUNKS, PROJECT, STANDARDIZE, fixed_layers

_NUM_COMPONENTS = 64  # of each stream, for the base model `cosines`
_NUM_COSINES = 5
_BASE = "base_"  # begins the name of the layer of each base model
_STACK, _POOLING = "stack", "pooling"  # names of models
HEAD = "head"  # among the weights


def build_pooling(*, num_features: int, num_streams: int, names: Sequence[str] | None = None) -> keras.Model:
    """Features and mask of clips to what the base models read, `(B, F)` each, by the name of the base model.

    - `mean`: the mean over time of all streams, as they are: the baseline.
    - `chunks_S`: the means of the chunks of the clip, of stream S.
    - `cosines_S`: the first coefficients of a cosine transform over time of the principal components of stream S.

    Args:
        num_features: D.
        num_streams: S.
        names: of base models; by default all.
    """
    from activity.models.layers import ChunkMeans, CosineMeans, Project, Standardize, make_model

    features = keras.Input((None, num_streams, num_features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    flat = keras.layers.Reshape((-1, num_streams * num_features))(features)  # (B, T, S*D)
    standard = Standardize(name=STANDARDIZE)(features)  # (B, T, S, D)
    components = Project(min(_NUM_COMPONENTS, num_features), name=PROJECT)(standard)  # (B, T, S*P)
    pooled = {"mean": ChunkMeans(1)(flat, mask=mask)}
    for s, x in enumerate(ops.unstack(standard, num_streams, axis=2)):  # (B, T, D) each
        pooled[f"chunks_{s}"] = ChunkMeans(NUM_CHUNKS)(x, mask=mask)
    for s, x in enumerate(ops.split(components, num_streams, axis=2)):  # (B, T, P) each
        pooled[f"cosines_{s}"] = CosineMeans(_NUM_COSINES)(x, mask=mask)
    chosen = {name: x for name, x in pooled.items() if names is None or name in names}
    return make_model({"features": features, "mask": mask}, chosen, name=_POOLING)


def build_stack(
    head: keras.Model,
    pooling: keras.Model,
    linear: Mapping[str, tuple[np.ndarray, np.ndarray]],
    weights: Mapping[str, float],
) -> keras.Model:
    """A head and base models as one head.

    Args:
        head: made by `activity.models.heads.build_head`, for whole clips.
        pooling: made by `build_pooling`.
        linear: kernel `(F, C)` and bias `(C,)` of each base model, by its name.
        weights: 0 or more, of each base model by its name, and of the head as `HEAD`. What has 0 is left out.
    """
    from activity.models.layers import Fuse, MemberPredictions, make_model

    num_streams, num_features = head.input["features"].shape[2:]
    inputs = {
        "features": keras.Input((None, num_streams, num_features), name="features"),
        "mask": keras.Input((None,), dtype="bool", name="mask"),
    }
    names = sorted(name for name in linear if weights[name])
    predicted = [head(inputs)]  # R x (B, C)
    if names:
        smaller = build_pooling(num_features=num_features, num_streams=num_streams, names=names)
        for name in fixed_layers(smaller):
            smaller.get_layer(name).set_weights(pooling.get_layer(name).get_weights())
        pooled = smaller(inputs)
    for name in names:
        kernel, bias = linear[name]
        layer = keras.layers.Dense(len(bias), activation="softmax", dtype="float32", trainable=False, name=_BASE + name)
        predicted.append(layer(pooled[name]))  # (B, F) -> (B, C)
        layer.set_weights([kernel, bias])
    fuse = Fuse(weighted=True, name=FUSE, dtype="float32")
    probabilities = fuse(MemberPredictions(name="predictions")(predicted))  # (B, R, C) -> (B, C)
    fuse.member_weights.assign([weights[name] for name in (HEAD, *names)])
    return make_model(inputs, probabilities, name=_STACK)


def stacked_head(head: keras.Model) -> keras.Model:
    """The head inside a stack; any other head itself."""
    if not is_stack(head):
        return head
    return next(x for x in head.layers if isinstance(x, keras.Model) and x.name != _POOLING)


def weights_of(stack: keras.Model) -> dict[str, float]:
    """The weights of a stack, as `build_stack` takes them, but for those that are 0."""
    names = sorted(layer.name.removeprefix(_BASE) for layer in stack.layers if layer.name.startswith(_BASE))
    return dict(zip((HEAD, *names), np.asarray(stack.get_layer(FUSE).member_weights).tolist(), strict=True))


def is_stack(head: keras.Model) -> bool:
    """Whether it was made by `build_stack`."""
    return bool(head.name == _STACK)


def stack_fractions(head: keras.Model, streams: Sequence[str]) -> dict[str, float]:
    """How much each model of a stack counts, by its name for people; the sum is 1. Empty if it is not a stack.

    Args:
        head: of a classifier.
        streams: names of the S streams.
    """
    if not is_stack(head):
        return {}
    weights = weights_of(head)
    return {
        stacked_head(head).name if name == HEAD else _shown(name, streams): weight / sum(weights.values())
        for name, weight in weights.items()
    }


def _shown(name: str, streams: Sequence[str]) -> str:
    kind, _, stream = name.partition("_")
    return f"{kind} of {streams[int(stream)]}" if stream else kind
