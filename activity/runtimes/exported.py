"""Exported models and backbones that compute without Keras, and the folders that keep them.

Those of a model file are beside it:

    model.keras
    model.exported/openvino/   network.json, backbone.xml, backbone.bin, head.xml, head.bin
    model.exported/onnx/       network.json, backbone.onnx, head.onnx

and of a captioner, in place of the head, those of `activity.runtimes.stepwise`: `encoder` and `step`. They are made on
first use, compared with Keras, and made again when the model file has changed or they are damaged.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from activity.errors import ActivityError, ModelFileError
from activity.files import (
    DAMAGED,
    DIGESTS_NAME,
    atomic_path,
    check_folder,
    digest_of,
    is_intact,
    lock_folder,
    of_system,
    remove_leftovers,
)
from activity.models.backend import keras
from activity.models.info import ModelInfo, read_info
from activity.models.network import InferenceModel, RunWithState
from activity.models.search import NUM_SPECIAL
from activity.models.sentences import InferenceCaptioner, Search
from activity.runtimes.choice import choose, describe, falling_back, format_of, is_bf16, tell_once
from activity.runtimes.formats import FORMATS, Graph, check_writable, write_graph
from activity.runtimes.stepwise import StepwiseDecoder, encoder_graph, step_graph

if TYPE_CHECKING:
    from activity.models.captioner import ActivityCaptioner
    from activity.models.classifier import ActivityClassifier

FORKED = "computes in the process that this one was forked from, and would hang here"
SPAWN = "start processes with multiprocessing.get_context('spawn'), or load the model in each of them only"
FORMAT_VERSION = 3  # of the exported folder; raised when its parts change
_WORTH_AN_EXPORT = 1000  # images; an export takes as long as Keras takes for some hundreds
_NUM_IMAGES = 17  # random ones to compare on; an odd batch too


_logger = logging.getLogger(__name__)


@overload
def load_inference_model(
    model_path: Path, *, runtime: str = "auto", task: Literal["classify"] = "classify"
) -> InferenceModel: ...
@overload
def load_inference_model(
    model_path: Path, *, runtime: str = "auto", task: Literal["describe"]
) -> InferenceCaptioner: ...
def load_inference_model(model_path: Path, *, runtime: str = "auto", task: str = "classify") -> InferenceModel:
    """A model file, ready to predict with a runtime; one of `describe` is an `InferenceCaptioner`.

    Args:
        model_path: a `.keras` file.
        runtime: one of `RUNTIMES`. With `auto`, it falls back to Keras where a runtime is missing or an export fails.
            Keras alone computes a model of feature files.
        task: `classify` or `describe`, which the model must be for.

    Raises:
        ActivityError: the runtime that was asked for by name is not installed, or does not compute what Keras does.
        ModelFileError: there is no such file, it is damaged, not ours, of another version, or for another
            task.
    """
    model_path = Path(model_path)
    if not model_path.is_file():
        raise ModelFileError("no such model file", path=model_path)
    chosen = choose(runtime)
    if read_info(model_path, task=task).spec.num_features:  # a head alone costs next to nothing
        if runtime not in ("auto", "keras"):
            raise ActivityError(f"a model of feature files is computed by keras, not by {runtime}", path=model_path)
        chosen = "keras"
    with falling_back(runtime, chosen):
        if chosen != "keras":
            model = _kept_model(model_path, chosen, task) or _export_model(model_path, chosen, task)
            tell_once(str(model_path), "predicting", chosen)
            return model
    in_keras = _load_in_keras(model_path, task)
    tell_once(str(model_path), "predicting", "keras")
    return in_keras


_keras_process: int | None = None  # in which models were loaded; its forks have them, but none of its threads


def _load_in_keras(model_path: Path, task: str) -> ActivityClassifier | ActivityCaptioner:
    global _keras_process
    if _keras_process not in (None, os.getpid()):
        raise ActivityError(f"Keras {FORKED}", path=model_path, hint=SPAWN)
    from activity.models.captioner import load_captioner
    from activity.models.classifier import load_classifier

    _keras_process = os.getpid()
    return load_captioner(model_path) if task == "describe" else load_classifier(model_path)


def open_extractor(
    backbone: keras.Model, runtime: str, *, num_images: int, cache_dir: Path | None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that computes features `(N, D)` float32 of images `(N, H, W, 3)` uint8.

    Args:
        backbone: in Keras.
        runtime: one of `RUNTIMES`. `auto` leaves a few images to Keras rather than export for them.
        num_images: to be computed.
        cache_dir: keeps the exported graph; `None` for a backbone that will not come again.
    """
    from activity.models.classifier import predict

    chosen, name = choose(runtime), f"{backbone.name}-{digest_of_model(backbone)}"
    folder = cache_dir / f"{name}.{format_of(chosen)}" if cache_dir else None
    key = (name, chosen)
    worth = (
        runtime != "auto" or num_images >= _WORTH_AN_EXPORT or key in _last_extractor or (folder and folder.is_dir())
    )
    with falling_back(runtime, chosen):
        if chosen != "keras" and worth:
            if key not in _last_extractor:
                extract_features = _opened_extractor(backbone, chosen, folder)
                _last_extractor.clear()
                _last_extractor[key] = extract_features
                tell_once(backbone.name, "computing features", chosen)
            return _last_extractor[key]
    tell_once(backbone.name, "computing features", "keras")
    return functools.partial(predict, backbone)


_last_extractor: dict[
    tuple[str, str], Callable[[np.ndarray], np.ndarray]
] = {}  # a backbone computes one stream after the other


def digest_of_model(model: keras.Model) -> str:
    """What tells the weights and the input of a model from those of any other of this name."""
    weights = (np.ascontiguousarray(weight).data for weight in model.get_weights())
    return digest_of(f"{model.input_shape}".encode(), *weights, size=6)


# === Exported models ===


class ExportedModel(InferenceModel):
    """The model in an exported folder.

    Args:
        folder: holds `network.json` and the graphs.
        runtime: computes them; the head, which costs next to nothing, always in float32.
    """

    def __init__(self, folder: Path, runtime: str) -> None:
        about = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self.info = ModelInfo.from_dict(about)
        self._backbone = _open_part(folder, "backbone", runtime)
        self._head = _open_part(folder, "head", format_of(runtime))

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        (features,) = self._backbone(images)
        return features

    def run_head(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities `(B, C)`, or of steps `(B, T, C)`, of padded features `(B, T, S, D)` and mask `(B, T)`."""
        if self.info.state_size:
            zeros = np.zeros((len(features), self.info.state_size), np.float32)
            return self.open_states()(features, mask, zeros, zeros)[0]
        (probabilities,) = self._head(features, mask)
        return probabilities

    def open_states(self) -> RunWithState:
        """The exported head, which takes and gives its state."""

        def run(features: np.ndarray, mask: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, ...]:
            next_cell, next_hidden, probabilities = self._head(cell, features, hidden, mask)
            return probabilities, next_hidden, next_cell

        return run


class ExportedCaptioner(InferenceCaptioner):
    """The captioner in an exported folder; the arguments are those of `ExportedModel`."""

    def __init__(self, folder: Path, runtime: str) -> None:
        about = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self.info = ModelInfo.from_dict(about)
        self._backbone = _open_part(folder, "backbone", runtime)
        self.decoder = StepwiseDecoder(*(_open_part(folder, part, format_of(runtime)) for part in ("encoder", "step")))

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        (features,) = self._backbone(images)
        return features

    @functools.cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """`(S, D)` of a frame."""
        images = np.zeros((1, self.spec.height, self.spec.width, 3), np.uint8)
        return len(self.spec.streams), self.extract_features(images).shape[-1]

    def build_search(self, *, num_beams: int, sampled: bool) -> Search:
        """The search in NumPy, which asks the decoder for each word."""
        num_words = len(self.info.words) + NUM_SPECIAL
        options = {"num_words": num_words, "num_beams": num_beams, "max_words": self.info.max_words}

        def search(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
            drawn = {name: x for name, x in inputs.items() if name not in ("features", "mask")}
            return self.decoder.search(inputs["features"], inputs["mask"], **options, **drawn)

        return search


def _kept_model(model_path: Path, runtime: str, task: str) -> InferenceModel | None:
    """The earlier export of just this model file, if it can be read."""
    folder = _export_dir(model_path, runtime)
    try:
        about = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        is_current = about["source"] == _source(model_path) and about["format_version"] == FORMAT_VERSION
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        is_current = True  # but damaged
    return _KINDS[task](folder, runtime) if is_current and _is_whole(folder) else None


_KINDS: dict[str, type[ExportedModel | ExportedCaptioner]] = {"classify": ExportedModel, "describe": ExportedCaptioner}


def _is_whole(folder: Path) -> bool:
    """Whether an export is as it was written; if not, a line says that it is made again."""
    if (folder / DIGESTS_NAME).is_file() and is_intact(folder):
        return True
    _logger.warning("%s: %s; it is made again", folder, DAMAGED)
    return False


def _export_model(model_path: Path, runtime: str, task: str) -> InferenceModel:
    from activity.runtimes.exporting import about_model

    kind = format_of(runtime)
    check_writable(kind)
    model = _load_in_keras(model_path, task)
    _logger.info("%s: exporting for %s, once", model_path, kind)
    about = {
        "format_version": FORMAT_VERSION,
        "source": _source(model_path),
        **about_model(model, describe(kind)),
    }
    with _new_export(_export_dir(model_path, runtime)) as folder:
        for part, graph in _parts_of(model).items():
            write_graph(graph, kind, _part_path(folder, part, kind))
        (folder / "network.json").write_text(json.dumps(about, indent=2, allow_nan=False), encoding="utf-8")
        _check_model(model, _KINDS[task](folder, kind))
        return _KINDS[task](folder, runtime)


def _parts_of(model: ActivityClassifier | ActivityCaptioner) -> dict[str, keras.Model]:
    """What is exported of a model, by the names of the files."""
    from activity.models.classifier import ActivityClassifier
    from activity.models.heads import carrying
    from activity.runtimes.loops import with_plain_loops

    if isinstance(model, ActivityClassifier):
        head = carrying(model.head) if model.info.state_size else model.head
        return {"backbone": model.backbone, "head": with_plain_loops(head, model.spec.num_frames)}
    return {"backbone": model.backbone, "encoder": encoder_graph(model), "step": step_graph(model)}


def _part_path(folder: Path, part: str, runtime: str) -> Path:
    return folder / f"{part}{FORMATS[format_of(runtime)].suffix}"


def _open_part(folder: Path, part: str, runtime: str) -> Graph:
    options = {"bf16": True} if is_bf16(runtime) else {}
    return FORMATS[format_of(runtime)].open(_part_path(folder, part, runtime), **options)


def _export_dir(model_path: Path, runtime: str) -> Path:
    return model_path.with_suffix(".exported") / format_of(runtime)


def _source(model_path: Path) -> str:
    """What tells the content of a model file from any other: the checksums that its zip keeps of its parts."""
    try:
        with zipfile.ZipFile(model_path) as file:
            parts = [(part.filename, part.CRC, part.file_size) for part in file.infolist()]
    except zipfile.BadZipFile:
        return ""  # whoever loads it says what is wrong
    return digest_of(parts, size=16)


def _opened_extractor(backbone: keras.Model, runtime: str, folder: Path | None) -> Callable[[np.ndarray], np.ndarray]:
    def opened(folder: Path, runtime: str) -> Callable[[np.ndarray], np.ndarray]:
        graph = _open_part(folder, "backbone", runtime)
        return lambda images: graph(images)[0]

    if folder and folder.is_dir() and _is_whole(folder):
        return opened(folder, runtime)
    from activity.models.classifier import predict
    from activity.runtimes.exporting import check_parity

    kind = format_of(runtime)
    check_writable(kind)
    _logger.info("%s: exporting for %s", backbone.name, kind)
    with _new_export(folder) as made:
        write_graph(backbone, kind, _part_path(made, "backbone", kind))
        images = _random_images(backbone.input_shape[1:])
        check_parity(predict(backbone, images), opened(made, kind)(images), quantity="features")
        return opened(made, runtime)


_OUR_STEMS = {"network", "backbone", "head", "encoder", "step", Path(DIGESTS_NAME).stem}  # of the files of an export


@contextlib.contextmanager
def _new_export(folder: Path | None) -> Iterator[Path]:
    """A temporary folder, copied to `folder` if the block ends well; where that cannot be, it is for this run only."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        yield Path(made)
        if folder:
            try:
                check_folder(folder)
                with lock_folder(folder.parent, "an export"), atomic_path(folder, sync=False, digest=True) as copy:
                    for path in folder.glob("*"):
                        if path.stem not in _OUR_STEMS:
                            raise ActivityError(f"it holds {path.name}, which is not of an export")
                    remove_leftovers(folder.parent)
                    copy.mkdir()
                    for file in Path(made).iterdir():
                        shutil.copyfile(file, copy / file.name)
            except (OSError, ActivityError) as error:
                place, reason = (folder, of_system(error)) if isinstance(error, OSError) else (error.path, error.reason)
                _logger.warning(
                    "%s: cannot be written (%s), so the export is for this run only", place or folder, reason
                )


def _check_model(model: ActivityClassifier | ActivityCaptioner, exported: InferenceModel) -> None:
    """Raise `ActivityError` unless features and probabilities agree, also of padded clips."""
    from activity.runtimes.exporting import check_parity, check_words

    spec, rng = model.spec, np.random.default_rng(0)
    images = _random_images((spec.height, spec.width, 3))
    features = model.extract_features(images)  # (N, D)
    check_parity(features, exported.extract_features(images), quantity="features")
    lengths = sorted({1, -(-spec.num_frames // 2), spec.num_frames})
    shape = (len(lengths), spec.num_frames, len(spec.streams))
    mask = np.arange(spec.num_frames) < np.array(lengths)[:, None]  # (B, T)
    clips = features[rng.integers(0, len(features), shape)] * mask[:, :, None, None]  # (B, T, S, D)
    if isinstance(exported, ExportedCaptioner):
        check_words(model, exported.decoder, clips, mask)
    else:
        check_parity(model.run_head(clips, mask), exported.run_head(clips, mask))


def _random_images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (_NUM_IMAGES, *shape), np.uint8)
