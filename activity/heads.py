"""Heads: name -> function that builds a model from features and mask to probabilities.

Every head takes `{"features": (batch, T, D), "mask": (batch, T) bool}` and gives `(batch, C)` that sum to 1. The mask
goes to each layer by name: implicit masks are lost on the way and are leaving Keras. T is free, so the same head reads
whole clips and windows.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from activity.errors import ActivityError
from activity.layers import uses_jit


def build_head(name: str, *, num_features: int, num_labels: int, units: int, dropout: float) -> keras.Model:
    """A head with random weights.

    Args:
        name: a key of `HEADS`.
        num_features: D, width of the backbone's output.
        num_labels: C.
        units: width of the head.
        dropout: share dropped of the features and of the head's state, in training only.

    Raises:
        ActivityError: no such head.
    """
    if name not in HEADS:
        raise ActivityError(f"no head '{name}'; expected one of {', '.join(HEADS)}")
    features = keras.Input((None, num_features), name="features")
    mask = keras.Input((None,), dtype="bool", name="mask")
    state = HEADS[name](features, mask, units, dropout)  # (batch, units)
    state = keras.layers.Dropout(dropout)(state)
    # float32 also under mixed precision: a float16 softmax loses small probabilities
    probabilities = keras.layers.Dense(num_labels, activation="softmax", dtype="float32", name="probabilities")(state)
    head = keras.Model({"features": features, "mask": mask}, probabilities, name=name)
    head.jit_compile = uses_jit()
    return head


def _lstm(features: keras.KerasTensor, mask: keras.KerasTensor, units: int, dropout: float) -> keras.KerasTensor:
    """Long short-term memory over the real frames; its last state (Hochreiter & Schmidhuber, 1997)."""
    x = keras.layers.LayerNormalization()(features)
    x = keras.layers.Dropout(dropout)(x)
    return keras.layers.LSTM(units)(x, mask=mask)  # (batch, T, D) -> (batch, units)


HEADS: dict[str, Callable[[keras.KerasTensor, keras.KerasTensor, int, float], keras.KerasTensor]] = {
    "lstm": _lstm,
}
