"""The formats of exported models: how each is written from Keras and how it is run.

    format      is written as               is read by
    savedmodel  a folder                    TensorFlow
    onnx        .onnx                       ONNX Runtime
    openvino    .xml and .bin               OpenVINO
    litert      .tflite, batch size 1       LiteRT (TensorFlow Lite), with its builtin operators only

To write needs Keras on TensorFlow; to run, only the runtime. The table itself needs neither: the command line reads it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import logging
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from activity.errors import ActivityError, SettingError
from activity.models.backend import keras

if TYPE_CHECKING:
    import numpy as np

# Arrays, in the order of the names of the inputs -> arrays, in the order of the names of the outputs
Graph: TypeAlias = "Callable[..., tuple[np.ndarray, ...]]"

_OPENVINO_BATCH, _ONNX_BATCH = 4, 16  # images, or clips


@dataclass(frozen=True)
class Format:
    """One format of the table.

    Args:
        suffix: of the file; empty for a folder.
        reader: the module that runs it.
        write: a Keras model, in float32 and with the names of its inputs and outputs, to a path.
        open: a path to a function of its inputs, for any batch size.
        writers: further modules that writing needs.
        batch: the size of a batch that the file takes; `None`: any.
    """

    suffix: str
    reader: str
    write: Callable[[keras.Model, Path], None]
    open: Callable[..., Graph]
    writers: tuple[str, ...] = ()
    batch: int | None = None

    @property
    def is_readable(self) -> bool:
        """Whether its reader is installed."""
        return importlib.util.find_spec(self.reader) is not None

    @property
    def version(self) -> str:
        """Name and version of its reader."""
        module = importlib.import_module(self.reader)  # packages such as tensorflow-cpu have other names
        return f"{self.reader} {module.__version__.partition('-')[0]}"


def check_writable(name: str) -> None:
    """Raise `ActivityError` unless all is installed that an export to a format needs."""
    for module in (*FORMATS[name].writers, FORMATS[name].reader):
        if importlib.util.find_spec(module) is None:
            hint = f"pip install '.[{name}]' in the project's folder brings it"
            raise ActivityError(f"to export to {name}, {module} must be installed", hint=hint)


def check_export(name: str, out: Path) -> None:
    """Refuse to export to a format, into the file or folder `out`, what could not be written; loads no model.

    Raises:
        ActivityError: no such format, what it needs is not installed, or `out` has a name it cannot have.
    """
    if name not in FORMATS:
        raise SettingError("format", f"one of {', '.join(FORMATS)}", name)
    check_writable(name)
    suffix = FORMATS[name].suffix
    if suffix and out.suffix != suffix:
        raise ActivityError(f"the name of a file for {name} must end in {suffix}", path=out)
    if suffix and out.is_dir():
        raise ActivityError("a folder has this name", path=out, hint="give the file another")
    if not suffix and out.suffix in {entry.suffix for entry in FORMATS.values()} - {suffix}:
        raise ActivityError(f"a SavedModel is a folder, whose name must not end in {out.suffix}", path=out)
    if not suffix and out.exists() and not _is_replaceable(out):
        raise ActivityError("holds something else than a SavedModel of ours", path=out, hint="name a new folder")


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "network.json").is_file() or not any(folder.iterdir()))


def step_path(out: Path) -> Path:
    """Where the second graph of a captioner is; in a SavedModel, which is a folder, a folder in it."""
    return out.with_name(f"{out.stem}.step{out.suffix}") if out.suffix else out / "step"


def note_path(out: Path) -> Path:
    """Where the JSON beside a graph is."""
    return out.with_name(f"{out.name}.json")


def exported_step(out: Path) -> Path | None:
    """The second graph of the captioner that is exported to a file, as the JSON beside that says, if it is one."""
    step = step_path(out)
    if not step.is_file() or note_path(step).exists():  # which is another model's
        return None
    try:
        about = json.loads(note_path(out).read_text(encoding="utf-8"))
        return step if about["step"]["file"] == step.name else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_graph(model: keras.Model, name: str, path: Path) -> None:
    """Write a model in a format, without what libraries log while they do.

    Args:
        model: of any inputs and outputs; several have names.
        name: a key of `FORMATS`.
        path: of the file or folder.

    Raises:
        ActivityError: Keras does not compute with TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ActivityError(f"only models on TensorFlow can be exported, here Keras uses {keras.backend.backend()}")
    with _quiet("tensorflow", "tf2onnx"):  # what fails raises too
        FORMATS[name].write(model, path)


# === Writing ===


def _write_savedmodel(model: keras.Model, path: Path, batch: int | None = None) -> None:
    def free(x: keras.KerasTensor) -> keras.InputSpec:
        return keras.InputSpec(x.dtype, (batch, *x.shape[1:]), name=x.name)

    model.export(str(path), verbose=False, input_signature=[keras.tree.map_structure(free, model.input)])


def _write_openvino(model: keras.Model, path: Path) -> None:
    import openvino

    # Not openvino.convert_model, as Keras does it: that takes ten times as long, leaves inner values of the graph
    # among its outputs, and reports its use over the network.
    with tempfile.TemporaryDirectory() as folder:
        _write_savedmodel(model, Path(folder))
        openvino.save_model(openvino.Core().read_model(folder), path, compress_to_fp16=False)


def _write_litert(model: keras.Model, path: Path) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        with _without_xla():
            _write_savedmodel(model, Path(folder), batch=1)
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
    several = isinstance(traced.structured_outputs, dict)
    named = sorted(traced.structured_outputs) if several else model.output_names  # as TensorFlow orders them
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
    import numpy as np
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


# === Running ===


def _open_savedmodel(path: Path) -> Graph:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # its functions live only as long as it does

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        signature = loaded.signatures["serving_default"]
        names = sorted(signature.structured_input_signature[1])
        outputs = signature(**{name: tf.constant(x) for name, x in zip(names, arrays, strict=True)})
        return tuple(outputs[name].numpy() for name in sorted(outputs))

    return run


def _open_openvino(path: Path, *, bf16: bool = False) -> Graph:
    import openvino

    # By itself OpenVINO would take bfloat16 wherever the CPU has it. A few images at a time, which stay in the caches
    # of their core, on all cores at once take a fifth less time than all cores on all images.
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    order, outputs = (
        sorted(range(len(ports)), key=lambda i: ports[i].any_name) for ports in (compiled.inputs, compiled.outputs)
    )
    queue, lock = openvino.AsyncInferQueue(compiled), threading.Lock()

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        with lock:  # a queue serves one caller at a time, on all cores
            return run_alone(*arrays)

    def run_alone(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        results: dict[int, list[np.ndarray]] = {}

        def take(request: Any, start: int) -> None:
            results[start] = [request.get_output_tensor(i).data.copy() for i in outputs]

        queue.set_callback(take)
        for start in range(0, len(arrays[0]), _OPENVINO_BATCH):
            part = (x[start : start + _OPENVINO_BATCH] for x in arrays)
            queue.start_async(dict(zip(order, part, strict=True)), start)
        queue.wait_all()
        return _joined(results[start] for start in sorted(results))

    return run


def _open_onnx(path: Path) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # while it waits, decoding needs the cores
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names, outputs = (
        sorted(value.name for value in values) for values in (session.get_inputs(), session.get_outputs())
    )

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        starts = range(0, len(arrays[0]), _ONNX_BATCH)
        parts = [[x[start : start + _ONNX_BATCH] for x in arrays] for start in starts]
        return _joined(session.run(outputs, dict(zip(names, part, strict=True))) for part in parts)

    return run


def _open_litert(path: Path) -> Graph:
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(str(path)).get_signature_runner()
    names = sorted(signature.get_input_details())

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        items = ([x[i : i + 1] for x in arrays] for i in range(len(arrays[0])))
        results = (signature(**dict(zip(names, item, strict=True))) for item in items)
        return _joined([result[name] for name in sorted(result)] for result in results)

    return run


def _joined(parts: Iterable[Sequence[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Outputs of parts of a batch -> those of the batch."""
    import numpy as np

    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


FORMATS: dict[str, Format] = {
    "savedmodel": Format("", "tensorflow", _write_savedmodel, _open_savedmodel),
    "onnx": Format(".onnx", "onnxruntime", _write_onnx, _open_onnx, writers=("tf2onnx",)),
    "openvino": Format(".xml", "openvino", _write_openvino, _open_openvino),
    "litert": Format(".tflite", "ai_edge_litert", _write_litert, _open_litert, batch=1),
}
