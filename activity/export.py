"""Keras models as graphs that OpenVINO and ONNX Runtime read. This needs Keras on TensorFlow; to run them does not."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
from keras import ops

from activity.errors import ActivityError


def export_graph(model: keras.Model, path: Path) -> None:
    """Write a model in float32, batch size free: `.xml` and `.bin` for OpenVINO, or `.onnx`.

    Raises:
        ActivityError: Keras does not compute with TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ActivityError(f"only models on TensorFlow can be exported, here Keras uses {keras.backend.backend()}")
    with _quiet("tensorflow", "tf2onnx"):  # what fails raises too
        if path.suffix == ".onnx":
            inputs = keras.tree.map_structure(lambda x: keras.InputSpec(x.dtype, x.shape, name=x.name), model.input)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tf2onnx was written for NumPy 1
                model.export(str(path), format="onnx", verbose=False, input_signature=[inputs])
            return
        import openvino

        # Not openvino.convert_model, as Keras does it: that takes ten times as long, leaves inner values of the graph
        # among its outputs, and reports its use over the network.
        with tempfile.TemporaryDirectory() as folder:
            model.export(folder, verbose=False)
            openvino.save_model(openvino.Core().read_model(folder), path, compress_to_fp16=False)


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Loggers of libraries say nothing for a while."""
    import tensorflow as tf

    levels = {name: logging.getLogger(name).level for name in names}
    tf.get_logger()  # when it is first made, in a notebook, it sets its level itself
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def with_plain_loops(head: keras.Model, num_frames: int) -> keras.Model:
    """The same head, sharing all weights, for clips of T frames, without TensorFlow's lists of tensors in its loops.

    OpenVINO knows no such lists, and tf2onnx takes twice as long over them.
    """
    features, mask = head.input["features"], head.input["mask"]
    inputs = {
        "features": keras.Input((num_frames, *features.shape[2:]), name=features.name),
        "mask": keras.Input((num_frames,), dtype="bool", name=mask.name),
    }

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _PlainLoop(layer) if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional) else layer

    return keras.models.clone_model(head, input_tensors=inputs, clone_function=replace)


class _PlainLoop(keras.layers.Layer):
    """What a recurrent layer, or one in each direction, does in inference with its mask; it uses that layer's cells."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=layer.name)
        self._layer = layer

    def call(self, inputs: Any, mask: Any) -> Any:
        """`(B, T, D)` -> `(B, T, U)`, and from one direction the last states `(B, U)` too."""
        layer = self._layer
        if not isinstance(layer, keras.layers.Bidirectional):
            return _loop(layer, inputs, mask)
        forward, *_ = _loop(layer.forward_layer, inputs, mask)
        backward, *_ = _loop(layer.backward_layer, inputs, mask)
        return _MERGE[layer.merge_mode](forward, ops.flip(backward, axis=1))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """No mask, as behind all our layers: see `activity.layers`."""
        return None


def _loop(layer: keras.layers.RNN, inputs: Any, mask: Any) -> list[Any]:
    if layer.go_backwards:
        inputs, mask = ops.flip(inputs, axis=1), ops.flip(mask, axis=1)
    num_frames = inputs.shape[1]
    steps = ops.reshape(ops.arange(num_frames), (1, -1, 1))  # (1, T, 1)
    batch, widths = ops.shape(inputs)[0], layer.cell.state_size
    states = [ops.zeros((batch, width)) for width in (widths if isinstance(widths, list | tuple) else [widths])]

    def step(i: Any, sequence: Any, *states: Any) -> tuple[Any, ...]:
        output, new = layer.cell(ops.take(inputs, i, axis=1), list(states), training=False)  # (B, U)
        real = ops.expand_dims(ops.take(mask, i, axis=1), -1)  # (B, 1)
        sequence = ops.where(steps == i, ops.expand_dims(output, 1), sequence)  # (B, T, U)
        return (i + 1, sequence, *(ops.where(real, after, before) for after, before in zip(new, states, strict=True)))

    sequence = ops.zeros((batch, num_frames, layer.units))
    _, *results = ops.while_loop(lambda i, *_: i < num_frames, step, (0, sequence, *states))
    return results


_MERGE = {
    "concat": lambda forward, backward: ops.concatenate([forward, backward], axis=-1),
    "sum": ops.add,
    "mul": ops.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
}
