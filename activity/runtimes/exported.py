"""Which library computes a network: Keras, or on a CPU OpenVINO or ONNX Runtime, which are faster there.

They read graphs exported from Keras. Those of a model file lie beside it, so that prediction needs no Keras at all:

    model.keras
    model.exported/openvino/   network.json, backbone.xml, backbone.bin, head.xml, head.bin
    model.exported/onnx/       network.json, backbone.onnx, head.onnx

They are made on first use, compared with Keras, and made again when the model file has changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from activity.config import RUNTIMES
from activity.errors import ActivityError, ModelFileError
from activity.models.info import ModelInfo
from activity.models.network import InferenceModel

if TYPE_CHECKING:
    import keras


Graph: TypeAlias = Callable[..., np.ndarray]  # arrays in, one array float32 out


FORMAT_VERSION = 2  # of the exported folder; raised when its parts change

_SUFFIXES = {"openvino": ".xml", "onnx": ".onnx"}

_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}

_OPENVINO_BATCH, _ONNX_BATCH = 4, 16  # images, or clips

_WORTH_AN_EXPORT = 1000  # images; an export takes as long as Keras takes for some hundreds

_TOLERANCE = 1e-3  # of probabilities, and of features relative to the largest; what is seen is 1e-5


_logger = logging.getLogger(__name__)


def load_inference_model(model_path: Path, *, runtime: str = "auto") -> InferenceModel:
    """The network of a model file, computed by a runtime.

    Args:
        model_path: a `.keras` file.
        runtime: one of `RUNTIMES`. With `auto`, it falls back to Keras where a runtime is missing or an export fails.

    Raises:
        ActivityError: the runtime that was asked for by name cannot be had, or does not compute what Keras does.
        ModelFileError: there is no such file, it is damaged, not ours, or of another version.
    """
    model_path = Path(model_path)
    if not model_path.is_file():
        raise ModelFileError("no such model file", path=model_path)
    chosen = choose(runtime)
    with _falling_back(runtime, chosen):
        if chosen != "keras":
            model = _kept_model(model_path, chosen) or _export_model(model_path, chosen)
            _say_once(f"{model_path}: computed by {describe(chosen)}")
            return model
    from activity.models.classifier import load_classifier

    classifier = load_classifier(model_path)
    _say_once(f"{model_path}: computed by {describe('keras')}")
    return classifier


def open_extractor(backbone: keras.Model, runtime: str, *, num_images: int, cache_dir: Path | None) -> Graph:
    """A function that computes features `(N, D)` float32 of images `(N, H, W, 3)` uint8.

    Args:
        backbone: in Keras.
        runtime: one of `RUNTIMES`. `auto` leaves a few images to Keras rather than export for them.
        num_images: to be computed.
        cache_dir: keeps the exported graph; `None` for a backbone that will not come again.
    """
    from activity.models.classifier import predict

    chosen, name = choose(runtime), f"{backbone.name}-{digest_of(backbone)}"
    folder = cache_dir / f"{name}.{_kind(chosen)}" if cache_dir else None
    key = (name, chosen)
    worth = (
        runtime != "auto" or num_images >= _WORTH_AN_EXPORT or key in _last_extractor or (folder and folder.is_dir())
    )
    with _falling_back(runtime, chosen):
        if chosen != "keras" and worth:
            if key not in _last_extractor:
                extract_features = _opened_extractor(backbone, chosen, folder)
                _last_extractor.clear()
                _last_extractor[key] = extract_features
                _say_once(f"{backbone.name}: computed by {describe(chosen)}")
            return _last_extractor[key]
    _say_once(f"{backbone.name}: computed by {describe('keras')}")
    return functools.partial(predict, backbone)


_last_extractor: dict[tuple[str, str], Graph] = {}  # a backbone computes one stream after the other


def digest_of(model: keras.Model) -> str:
    """What tells the weights and the input of a model from those of any other of this name."""
    digest = hashlib.blake2b(f"{model.input_shape}".encode(), digest_size=6)
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


# === Choice ===


def choose(runtime: str) -> str:
    """The runtime to use, one of `RUNTIMES` other than `auto`.

    Raises:
        ActivityError: that name is unknown, or what it needs is not here.
    """
    if runtime not in RUNTIMES:
        raise ActivityError(f"runtime must be one of {', '.join(RUNTIMES)}, received: {runtime}")
    if runtime == "auto":
        return next((name for name in _PACKAGES if _installed(name)), "keras") if not _has_gpu() else "keras"
    if runtime != "keras" and not _installed(runtime):
        package = _PACKAGES[_kind(runtime)]
        raise ActivityError(f"the runtime {runtime} needs {package}, which is not installed: pip install {package}")
    if runtime == "openvino-bf16":
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ActivityError("this CPU does not compute in bfloat16; use the runtime openvino")
    return runtime


def describe(runtime: str) -> str:
    """A runtime with its version and precision, for people."""
    if runtime == "keras":
        return "keras"
    return f"{runtime} {metadata.version(_PACKAGES[_kind(runtime)])}, {'bfloat16' if is_bf16(runtime) else 'float32'}"


def is_bf16(runtime: str) -> bool:
    """Whether features of this runtime differ visibly from those of the others."""
    return runtime.endswith("-bf16")


def _kind(runtime: str) -> str:
    return runtime.partition("-")[0]


def _installed(runtime: str) -> bool:
    return importlib.util.find_spec(_PACKAGES[_kind(runtime)]) is not None


def _has_gpu() -> bool:
    """Whether Keras would compute on a GPU; it is only asked, which takes seconds, where there may be one."""
    devices = Path("/dev")
    if not any([*devices.glob("nvidia[0-9]*"), *devices.glob("dxg"), *devices.glob("kfd")]):
        return False
    from activity.models.devices import gpu_names

    return bool(gpu_names())


@contextlib.contextmanager
def _falling_back(runtime: str, chosen: str) -> Iterator[None]:
    """Go on behind the block if it fails and `chosen` was not asked for by name."""
    try:
        yield
    except ModelFileError:
        raise
    except Exception as error:  # exporters and runtimes fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if runtime != "auto":
            raise ActivityError(f"{chosen} cannot compute this network: {reason}") from error
        _logger.warning("%s is not used: %s", chosen, reason)


@functools.cache
def _say_once(line: str) -> None:
    _logger.info(line)


# === Exported networks ===


class ExportedModel(InferenceModel):
    """The network in an exported folder.

    Args:
        folder: holds `model.json` and the graphs.
        runtime: computes them; the head, which costs next to nothing, always in float32.
    """

    def __init__(self, folder: Path, runtime: str) -> None:
        about = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self.info = ModelInfo.from_dict(about)
        self._backbone = _open_graph(folder / "backbone", runtime)
        self._head = _open_graph(folder / "head", _kind(runtime))

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        return self._backbone(images)

    def predict_features(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities `(B, C)` float32 of padded features `(B, T, S, D)` and their mask `(B, T)` bool."""
        return self._head(features, mask)


def _kept_model(model_path: Path, runtime: str) -> InferenceModel | None:
    """What was exported earlier of just this model file, if that can be read."""
    folder = _export_dir(model_path, runtime)
    try:
        about = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        if about["source"] == _source(model_path) and about["format_version"] == FORMAT_VERSION:
            return ExportedModel(folder, runtime)
    except FileNotFoundError:
        return None
    except Exception as error:  # damage shows in any way
        _logger.warning("%s: damaged (%s), it is made again", folder, " ".join(str(error).split())[:100])
    return None


def _export_model(model_path: Path, runtime: str) -> InferenceModel:
    from activity.models.classifier import load_classifier
    from activity.runtimes.formats import about_model, export_graph, with_plain_loops

    _check_exporter(runtime)
    classifier = load_classifier(model_path)
    _logger.info("%s: exporting for %s, once", model_path, _kind(runtime))
    about = {
        "format_version": FORMAT_VERSION,
        "source": _source(model_path),
        **about_model(classifier, describe(_kind(runtime))),
    }
    with _kept_folder(_export_dir(model_path, runtime)) as folder:
        export_graph(classifier.backbone, _graph_path(folder / "backbone", runtime))
        head = with_plain_loops(classifier.head, classifier.spec.num_frames)
        export_graph(head, _graph_path(folder / "head", runtime))
        (folder / "network.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
        _check_model(classifier, ExportedModel(folder, _kind(runtime)))
        return ExportedModel(folder, runtime)


def _export_dir(model_path: Path, runtime: str) -> Path:
    return model_path.with_suffix(".exported") / _kind(runtime)


def _source(model_path: Path) -> str:
    """What tells the content of a model file from any other: the checksums that its zip keeps of its parts."""
    try:
        with zipfile.ZipFile(model_path) as file:
            parts = [(part.filename, part.CRC, part.file_size) for part in file.infolist()]
    except zipfile.BadZipFile:
        return ""  # whoever loads it says what is wrong
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _opened_extractor(backbone: keras.Model, runtime: str, folder: Path | None) -> Graph:
    if folder and folder.is_dir():
        with contextlib.suppress(Exception):  # damaged: it is made again
            return _open_graph(folder / "backbone", runtime)
    from activity.models.classifier import predict
    from activity.runtimes.formats import export_graph

    _check_exporter(runtime)
    _logger.info("%s: exporting for %s", backbone.name, _kind(runtime))
    with _kept_folder(folder) as made:
        export_graph(backbone, _graph_path(made / "backbone", runtime))
        images = _random_images(backbone.input_shape[1:])
        _check_features(predict(backbone, images), _open_graph(made / "backbone", _kind(runtime))(images))
        return _open_graph(made / "backbone", runtime)


def _check_exporter(runtime: str) -> None:
    if runtime == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise ActivityError("to export, it needs tf2onnx and onnx, which are not installed: pip install tf2onnx onnx")


@contextlib.contextmanager
def _kept_folder(folder: Path | None) -> Iterator[Path]:
    """A new folder, which takes the name `folder` if the block ends well. Where none can be made, it is not kept."""
    try:
        if folder:
            folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.parent if folder else None
        temporary = tempfile.TemporaryDirectory(dir=beside, prefix=".", ignore_cleanup_errors=True)
    except OSError as error:
        _logger.warning("%s: cannot be written (%s), so the export is for this run only", folder, error.strerror)
        temporary, folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True), None
    with temporary as name:
        made = Path(name, "made")
        made.mkdir()
        yield made
        if folder:
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, Path(name, "old"))
            with contextlib.suppress(OSError):  # another process has just put its own there
                os.replace(made, folder)


# === Do they compute the same? ===


def _check_model(classifier: InferenceModel, exported: InferenceModel) -> None:
    """Raise `ActivityError` unless features and probabilities agree, also of padded clips."""
    spec, rng = classifier.spec, np.random.default_rng(0)
    images = _random_images((spec.height, spec.width, 3))
    features = classifier.extract_features(images)  # (N, D)
    _check_features(features, exported.extract_features(images))
    lengths = sorted({1, -(-spec.num_frames // 2), spec.num_frames})
    shape = (len(lengths), spec.num_frames, len(spec.streams))
    mask = np.arange(spec.num_frames) < np.array(lengths)[:, None]  # (B, T)
    clips = features[rng.integers(0, len(features), shape)] * mask[:, :, None, None]  # (B, T, S, D)
    difference = float(np.abs(classifier.predict_features(clips, mask) - exported.predict_features(clips, mask)).max())
    _logger.debug("probabilities differ by at most %.1e", difference)
    if not difference <= _TOLERANCE:
        raise ActivityError(f"its probabilities differ from those of Keras by {difference:.1e}")


def _check_features(expected: np.ndarray, received: np.ndarray) -> None:
    difference = float(np.abs(expected - received).max()) / (float(np.abs(expected).max()) or 1.0)
    _logger.debug("features differ by at most %.1e of the largest", difference)
    if not difference <= _TOLERANCE:
        raise ActivityError(f"its features differ from those of Keras by {difference:.1e} of the largest")


def _random_images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (_ONNX_BATCH + 1, *shape), np.uint8)  # an odd batch too


# === Graphs ===


def _graph_path(path: Path, runtime: str) -> Path:
    return path.with_suffix(_SUFFIXES[_kind(runtime)])


def _open_graph(path: Path, runtime: str) -> Graph:
    path = _graph_path(path, runtime)
    return _open_onnx(path) if runtime == "onnx" else _open_openvino(path, bf16=is_bf16(runtime))


def _open_openvino(path: Path, *, bf16: bool) -> Graph:
    import openvino

    # By itself OpenVINO would take bfloat16 wherever the CPU has it. A few images at a time, which stay in the caches
    # of their core, on all cores at once take a fifth less time than all cores on all images.
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT",
    }
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(path, "CPU", settings))

    def run(*arrays: np.ndarray) -> np.ndarray:
        results: dict[int, np.ndarray] = {}

        def take(request: Any, start: int) -> None:
            results[start] = request.get_output_tensor().data.copy()

        queue.set_callback(take)
        for start in range(0, len(arrays[0]), _OPENVINO_BATCH):
            queue.start_async([x[start : start + _OPENVINO_BATCH] for x in arrays], start)
        queue.wait_all()
        return np.concatenate([results[start] for start in sorted(results)])

    return run


def _open_onnx(path: Path) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # while it waits, decoding needs the cores
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*arrays: np.ndarray) -> np.ndarray:
        starts = range(0, len(arrays[0]), _ONNX_BATCH)
        parts = [[x[start : start + _ONNX_BATCH] for x in arrays] for start in starts]
        return np.concatenate([session.run(None, dict(zip(names, part, strict=True)))[0] for part in parts])

    return run
