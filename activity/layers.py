"""The few Keras layers we own. All are registered, so that model files load with `safe_mode` on."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

PREPROCESS_MODES = ("tf", "caffe", "torch", "none")


def uses_jit() -> bool:
    """Whether to compile models with XLA: JAX is nothing without it; with TensorFlow on a CPU it is 10 times slower."""
    return keras.backend.backend() == "jax"


@keras.saving.register_keras_serializable(package="activity")
class TimeDistributed(keras.layers.TimeDistributed):
    """`keras.layers.TimeDistributed` with time folded into the batch: one call of the layer for all frames.

    The stock layer loops over time in Python, which makes a graph T times as large (Keras issues 21179 and 21208).
    The result is the same for every layer that treats the items of a batch alike. The mask is not given to the
    wrapped layer, which sees single frames; it goes to the head, explicitly.

    Call arguments:
        inputs: `(batch, time, ...)`; returns `(batch, time, ...)` of the wrapped layer's output.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Fold, call the wrapped layer once, unfold."""
        batch, time = ops.shape(inputs)[:2]
        frames = ops.reshape(inputs, (-1, *inputs.shape[2:]))  # (B, T, ...) -> (B*T, ...)
        outputs = self.layer(frames, training=training) if self._takes_training else self.layer(frames)
        return ops.reshape(outputs, (batch, time, *outputs.shape[1:]))  # (B*T, ...) -> (B, T, ...)

    @property
    def _takes_training(self) -> bool:
        return bool(getattr(self.layer, "_call_has_training_arg", False))


@keras.saving.register_keras_serializable(package="activity")
class Preprocess(keras.layers.Layer):
    """uint8 RGB to what a backbone was trained on, inside the graph, so that no caller can forget or repeat it.

    The cast comes first: on a uint8 tensor `preprocess_input` wraps around silently (keras-applications issue 128).

    Args:
        mode: `tf` (-1 to 1), `caffe` (BGR minus the ImageNet means), `torch` (ImageNet mean and deviation), or
            `none` (0 to 255, for backbones that carry their own preprocessing).
    """

    def __init__(self, mode: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in PREPROCESS_MODES:
            raise ValueError(f"mode must be one of {', '.join(PREPROCESS_MODES)}, received: {mode}")
        self.mode = mode

    def call(self, inputs: Any) -> Any:
        """`(batch, H, W, 3)` uint8 to the same shape in the compute dtype."""
        frames = ops.cast(inputs, self.compute_dtype)
        if self.mode == "none":
            return frames
        return keras.applications.imagenet_utils.preprocess_input(frames, data_format="channels_last", mode=self.mode)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """The shape stays; the dtype becomes that of the computation."""
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The mode."""
        return {**super().get_config(), "mode": self.mode}
