"""Keras models as graphs that other runtimes read. This needs Keras on TensorFlow; to run them does not."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from activity.errors import ActivityError
from activity.models.classifier import ActivityClassifier, versions
from activity.models.info import TrainingRecord


def export_graph(model: keras.Model, path: Path) -> None:
    """Write a model in float32: `.xml` and `.bin` for OpenVINO, `.onnx`, `.tflite`, or else the folder of a SavedModel.

    Inputs and outputs keep their names. The batch size is free; in `.tflite` it is 1.

    Raises:
        ActivityError: Keras does not compute with TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ActivityError(f"only models on TensorFlow can be exported, here Keras uses {keras.backend.backend()}")
    with _quiet("tensorflow", "tf2onnx"):  # what fails raises too
        {".xml": _write_openvino, ".onnx": _write_onnx, ".tflite": _write_litert}.get(path.suffix, _write)(model, path)


def about_model(classifier: ActivityClassifier, runtime: str) -> dict[str, Any]:
    """What stands beside an exported network, ready for JSON: all that prediction needs to know of the model.

    Args:
        classifier: what was exported.
        runtime: what it was exported for, with its version.
    """
    info = dataclasses.replace(classifier.info, record=TrainingRecord())  # others need not know the training videos
    return {**info.as_dict(), "versions": {**versions(), "runtime": runtime}}


def _write(model: keras.Model, path: Path, batch: int | None = None) -> None:
    def free(x: keras.KerasTensor) -> keras.InputSpec:
        return keras.InputSpec(x.dtype, (batch, *x.shape[1:]), name=x.name)

    model.export(str(path), verbose=False, input_signature=[keras.tree.map_structure(free, model.input)])


def _write_openvino(model: keras.Model, path: Path) -> None:
    import openvino

    # Not openvino.convert_model, as Keras does it: that takes ten times as long, leaves inner values of the graph
    # among its outputs, and reports its use over the network.
    with tempfile.TemporaryDirectory() as folder:
        _write(model, Path(folder))
        openvino.save_model(openvino.Core().read_model(folder), path, compress_to_fp16=False)


def _write_litert(model: keras.Model, path: Path) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        with _without_xla():
            _write(model, Path(folder), batch=1)
        # As nothing else is allowed, it takes the operators that every LiteRT has, or fails.
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def _write_onnx(model: keras.Model, path: Path) -> None:
    """As Keras does it, but there tf2onnx makes inputs out of constants such as the means of a `Normalization`."""
    import tensorflow as tf
    import tf2onnx
    from keras.src.export.tf2onnx_lib import patch_tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype, x.name), model.input)
    with _without_xla():
        traced = tf.function(functools.partial(model, training=False)).get_concrete_function(signature)
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (frozen.inputs, frozen.outputs))
    named = traced.structured_outputs if isinstance(traced.structured_outputs, dict) else model.output_names
    names = [*(name.removesuffix(":0") for name in inputs), *named]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx was written for NumPy 1
        patch_tf2onnx()
        _register_erfc()
        tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(),
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename=dict(zip([*inputs, *outputs], names, strict=True)),
            output_path=str(path),
        )


@functools.cache
def _register_erfc() -> None:
    """Show tf2onnx the complement of the error function, which `gelu` uses."""
    from tf2onnx.handler import tf_op
    from tf2onnx.utils import make_name

    class Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            dtypes = [ctx.get_dtype(node.output[0])]
            one = ctx.make_const(make_name("one"), np.ones((), np.float32)).output[0]
            ctx.remove_node(node.name)
            erf = ctx.make_node("Erf", node.input).output[0]
            ctx.make_node("Sub", [one, erf], outputs=node.output, dtypes=dtypes)

    tf_op("Erfc")(Erfc)


@contextlib.contextmanager
def _without_xla() -> Iterator[None]:
    """Keras leaves grouped convolutions to XLA, as TensorFlow on a CPU has none; other runtimes have, but not XLA.

    What XLA compiles is a function of its own inside the graph; run "eagerly", it becomes part of the graph.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


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
        """No mask, as behind all our layers: see `activity.models.layers`."""
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
