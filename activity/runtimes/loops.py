"""Recurrent layers as plain loops, which every runtime can read."""

from __future__ import annotations

from typing import Any

from activity.models.backend import keras, ops


def with_plain_loops(head: keras.Model, num_frames: int) -> keras.Model:
    """A copy of a head for clips of T frames without TensorFlow's lists of tensors in its loops; weights are shared.

    OpenVINO knows no such lists, and tf2onnx takes twice as long over them.
    """
    inputs = {
        name: keras.Input((num_frames, *x.shape[2:]), dtype=x.dtype, name=x.name) if name in ("features", "mask") else x
        for name, x in head.input.items()
    }

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):  # the head in a stack, or its pooling
            return with_plain_loops(layer, num_frames)
        return _PlainLoop(layer) if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional) else layer

    return keras.models.clone_model(head, input_tensors=inputs, clone_function=replace)


class _PlainLoop(keras.layers.Layer):
    """A recurrent layer, or one in each direction, as in inference with its mask; it uses the cells of that layer."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=layer.name)
        self._layer = layer

    def call(self, inputs: Any, mask: Any, initial_state: Any = None) -> Any:
        """`(B, T, D)` -> `(B, T, U)`, and of a layer that returns its states, the last ones `(B, U)` too."""
        layer = self._layer
        if not isinstance(layer, keras.layers.Bidirectional):
            sequence, *states = _loop(layer, inputs, mask, initial_state)
            return [sequence, *states] if layer.return_state else sequence
        forward, *_ = _loop(layer.forward_layer, inputs, mask)
        backward, *_ = _loop(layer.backward_layer, inputs, mask)
        return _MERGE[layer.merge_mode](forward, ops.flip(backward, axis=1))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """No mask, as after all layers of this package: see `activity.models.layers`."""
        return None


def _loop(layer: keras.layers.RNN, inputs: Any, mask: Any, initial_state: Any = None) -> list[Any]:
    if layer.go_backwards:
        inputs, mask = ops.flip(inputs, axis=1), ops.flip(mask, axis=1)
    num_frames = inputs.shape[1]
    steps = ops.reshape(ops.arange(num_frames), (1, -1, 1))  # (1, T, 1)
    batch, widths = ops.shape(inputs)[0], layer.cell.state_size
    states = initial_state or [
        ops.zeros((batch, width)) for width in (widths if isinstance(widths, list | tuple) else [widths])
    ]

    def step(i: Any, sequence: Any, *states: Any) -> tuple[Any, ...]:
        output, new = layer.cell(ops.take(inputs, i, axis=1), list(states), training=False)  # (B, U)
        real = ops.expand_dims(ops.take(mask, i, axis=1), -1)  # (B, 1)
        sequence = ops.where(steps == i, ops.expand_dims(output, 1), sequence)  # (B, T, U)
        return (i + 1, sequence, *(ops.where(real, after, before) for after, before in zip(new, states, strict=True)))

    sequence = ops.zeros((batch, num_frames, layer.cell.output_size))
    _, *results = ops.while_loop(lambda i, *_: i < num_frames, step, (0, sequence, *states))
    return results


_MERGE = {
    "concat": lambda forward, backward: ops.concatenate([forward, backward], axis=-1),
    "sum": ops.add,
    "mul": ops.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
}
