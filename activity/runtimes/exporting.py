"""The whole classifier as one graph for programs without this package, checked against Keras before it is handed over.

    frames  (batch, T, S, H, W, 3) uint8 RGB    --\
                                                    > probabilities (batch, C) float32, in the order of the labels
    mask    (batch, T) bool, True = real frame  --/

    format      is written as               is read by
    savedmodel  a folder                    TensorFlow
    onnx        .onnx                       ONNX Runtime
    openvino    .xml and .bin               OpenVINO
    litert      .tflite, batch size 1       LiteRT (TensorFlow Lite), with its builtin operators only

What a program must know stands beside it in JSON: `<file>.json`, in a SavedModel `model.json`. It names the labels,
how a video becomes frames (`spec`), and the shapes. The scripts `tests/examples/classify_*.py` do that in a few lines,
with NumPy, OpenCV and the runtime alone, for a model whose one stream is `rgb`. The images of `motion` and
`motion_crop` are made outside the graph, by `activity.video.streams`: for a model with these streams, a program needs
this package (`activity.video.sampling.read_stack`), or the stacks that `activity preprocess` saves.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from activity.config import EXPORT_FORMATS, ClipSpec
from activity.datasets.synthetic import write_videos
from activity.errors import ActivityError
from activity.video.clips import pad_right, window_starts
from activity.video.sampling import read_stack

if TYPE_CHECKING:
    from activity.models.classifier import ActivityClassifier

Clip: TypeAlias = tuple[np.ndarray, np.ndarray]  # frames (T, S, H, W, 3) uint8 and their mask (T,) bool

Graph: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]  # a batch of both -> probabilities (B, C)


FORMAT_VERSION = 1  # of the JSON beside the graph; raised when a reader must change

_SUFFIXES = {"savedmodel": "", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}

_MODULES = {
    "savedmodel": (),
    "onnx": ("tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
}

_READERS = {"savedmodel": "tensorflow", "onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}

_STREAMS = {
    "rgb": "the frame, scaled as spec.resize says",
    "motion": "how the frame differs from that of 0.08 s before: made by activity.video.streams",
    "motion_crop": "three differences around what moves: made by activity.video.streams",
}

_TOLERANCE = 1e-3  # of probabilities; what is seen is 1e-6

_BATCH = 2  # of the check, where the batch is free


@dataclass(frozen=True)
class Export:
    """What `export_classifier` wrote, and how far it is from Keras.

    Attributes:
        files: the graph first, then what stands beside it.
        difference: the largest between two probabilities, over all labels of all clips.
        clips: how many clips that were of each kind, such as `{"drawn": 8, "of noise": 3}`.
    """

    files: tuple[Path, ...]
    difference: float
    clips: dict[str, int]

    @property
    def num_bytes(self) -> int:
        """Of all files together."""
        below = [path for file in self.files for path in (file.rglob("*") if file.is_dir() else [file])]
        return sum(path.stat().st_size for path in below if path.is_file())

    def as_text(self) -> str:
        """One line for a terminal."""
        kinds = " and ".join(f"{number} {kind}" for kind, number in self.clips.items())
        return (
            f"{self.files[0]}: {self.num_bytes / 1e6:.1f} MB; on {kinds} its probabilities differ from those of Keras "
            f"by at most {self.difference:.1g}, and it gives the same labels"
        )


def export_classifier(model_path: Path, format: str, out: Path, *, clips: Sequence[Path | str] = ()) -> Export:
    """Write a model file as one graph of another format. What stood there is replaced once the new one is checked.

    Args:
        model_path: a `.keras` file.
        format: one of `EXPORT_FORMATS`.
        out: the file, or for `savedmodel` the folder, to write.
        clips: videos to compare on; by default some are drawn, and noise is added.

    Raises:
        ActivityError: the packages for this format are not installed, `out` has a name it cannot have, the network
            cannot be expressed in it, or gives other probabilities there.
        ModelFileError: the model file is missing, damaged or not ours.
        VideoError: one of `clips` cannot be read.
    """
    check_request(format, out)
    from activity.models.classifier import load_classifier

    classifier = load_classifier(model_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-", ignore_cleanup_errors=True) as folder:
        made = Path(folder, "made")
        made.mkdir()
        graph = _open_new(classifier, format, made / out.name)
        difference, kinds = _compare(classifier, graph, format, clips)
        note = (made / out.name / "network.json") if format == "savedmodel" else made / f"{out.name}.json"
        note.write_text(json.dumps(_about(classifier, format), indent=2), encoding="utf-8")
        # the graph last: as long as it is the old one or absent, nobody takes what is beside it for its own
        files = sorted(made.iterdir(), key=lambda file: file.name == out.name)
        for file in files:
            if (out.parent / file.name).is_dir():
                os.replace(out.parent / file.name, Path(folder, "old"))
            os.replace(file, out.parent / file.name)
    return Export(tuple(out.parent / file.name for file in reversed(files)), difference, kinds)


def check_request(format: str, out: Path) -> None:
    """Raise `ActivityError` if a model cannot be exported so, whatever it is; asked before Keras is imported."""
    if format not in EXPORT_FORMATS:
        raise ActivityError(f"format must be one of {', '.join(EXPORT_FORMATS)}, received: {format}")
    for module in _MODULES[format]:
        if importlib.util.find_spec(module) is None:
            raise ActivityError(
                f"to export to {format}, {module} must be installed; pip install '.[{format}]' in the project's folder "
                "brings it"
            )
    suffix = _SUFFIXES[format]
    if suffix and out.suffix != suffix:
        raise ActivityError(f"the name of a file for {format} must end in {suffix}", path=out)
    if suffix and out.is_dir():
        raise ActivityError("a folder has this name; give the file another", path=out)
    if not suffix and out.suffix in _SUFFIXES.values() and out.suffix:
        raise ActivityError(f"a SavedModel is a folder, whose name must not end in {out.suffix}", path=out)
    if not suffix and out.exists() and not _is_replaceable(out):
        raise ActivityError("holds something else than a SavedModel of ours; name a new folder", path=out)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "network.json").is_file() or not any(folder.iterdir()))


def _about(classifier: ActivityClassifier, format: str) -> dict[str, Any]:
    """The JSON beside a graph: that of an exported runtime, and how the graph is fed."""
    from activity.runtimes.formats import about_model

    spec, batch = classifier.spec, 1 if format == "litert" else None
    reader = importlib.import_module(_READERS[format])  # asked itself: packages such as tensorflow-cpu have other names
    frames = [batch, spec.num_frames, len(spec.streams), spec.height, spec.width, 3]
    return {
        "format_version": FORMAT_VERSION,
        "format": format,
        **about_model(classifier, f"{_READERS[format]} {reader.__version__.partition('-')[0]}"),
        "inputs": {
            "frames": {"dtype": "uint8", "shape": frames, "axes": "batch time streams height width rgb"},
            "mask": {"dtype": "bool", "shape": [batch, spec.num_frames], "axes": "batch time"},
        },
        "outputs": {
            "probabilities": {"dtype": "float32", "shape": [batch, len(classifier.labels)], "axes": "batch labels"}
        },
        "streams": {name: _STREAMS[name] for name in spec.streams},
    }


# === The graph ===


def _open_new(classifier: ActivityClassifier, format: str, path: Path) -> Graph:
    """Export, and open what was written."""
    import keras

    from activity.models.classifier import ActivityClassifier
    from activity.runtimes.formats import export_graph, with_plain_loops

    head = with_plain_loops(classifier.head, classifier.spec.num_frames)
    whole = ActivityClassifier(classifier.backbone, head, classifier.info)
    try:
        export_graph(keras.Model(whole.input, {"probabilities": whole.output}), path)
        return _OPEN[format](path)
    except ActivityError:
        raise
    except Exception as error:  # exporters and runtimes fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ActivityError(f"this network cannot be exported to {format}: {reason}") from error


def _open_savedmodel(path: Path) -> Graph:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # its functions live only as long as it does
    return lambda frames, mask: loaded.signatures["serving_default"](
        frames=tf.constant(frames), mask=tf.constant(mask)
    )["probabilities"].numpy()


def _open_onnx(path: Path) -> Graph:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames, mask: session.run(["probabilities"], {"frames": frames, "mask": mask})[0]


def _open_openvino(path: Path) -> Graph:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frames, mask: compiled({"frames": frames, "mask": mask})["probabilities"]


def _open_litert(path: Path) -> Graph:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    return lambda frames, mask: run(frames=frames, mask=mask)["probabilities"]


_OPEN: dict[str, Callable[[Path], Graph]] = {
    "savedmodel": _open_savedmodel,
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "litert": _open_litert,
}


# === Does it compute the same? ===


def _compare(
    classifier: ActivityClassifier, graph: Graph, format: str, videos: Sequence[Path | str]
) -> tuple[float, dict[str, int]]:
    """The largest difference of a probability, and how many clips of which kind there were."""
    from activity.models.classifier import predict

    difference, kinds = 0.0, dict[str, int]()
    for kind, clips in _clips(classifier.spec, videos).items():
        kinds[kind] = 0
        while batch := list(islice(clips, 1 if format == "litert" else _BATCH)):
            frames, mask = (np.stack(parts) for parts in zip(*batch, strict=True))  # (B, T, S, H, W, 3), (B, T)
            expected, received = predict(classifier, {"frames": frames, "mask": mask}), graph(frames, mask)  # (B, C)
            off = float(np.abs(expected - received).max())
            if not off <= _TOLERANCE:  # nor is it if nothing can be compared with it
                raise ActivityError(
                    f"the export to {format} gives other probabilities than Keras: they differ by {off:.1e}"
                )
            if (expected.argmax(axis=1) != received.argmax(axis=1)).any():
                raise ActivityError(f"the export to {format} gives another label than Keras")
            difference, kinds[kind] = max(difference, off), kinds[kind] + len(batch)
    return difference, kinds


def _clips(spec: ClipSpec, videos: Sequence[Path | str]) -> dict[str, Iterator[Clip]]:
    if videos:
        return {f"clips of {len(videos)} videos": _clips_of(videos, spec)}
    return {"drawn clips": _drawn_clips(spec), "of noise": _noise(spec)}


def _clips_of(videos: Iterable[Path | str], spec: ClipSpec) -> Iterator[Clip]:
    for video in videos:
        stack, _ = read_stack(Path(video), spec, num_threads=0)
        for start in window_starts(len(stack), spec.num_frames):
            yield pad_right(stack[start : start + spec.num_frames], spec.num_frames)


def _drawn_clips(spec: ClipSpec) -> Iterator[Clip]:
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder), num_performers=1, num_takes=1)
        yield from _clips_of(sorted(Path(folder).glob("*/*")), spec)


def _noise(spec: ClipSpec) -> Iterator[Clip]:
    """Of one frame, about half of the frames, all frames; noise also where there is no real frame."""
    rng = np.random.default_rng(0)
    shape = (spec.num_frames, len(spec.streams), spec.height, spec.width, 3)
    for length in sorted({1, -(-spec.num_frames // 2), spec.num_frames}):
        yield rng.integers(0, 256, shape, np.uint8), np.arange(spec.num_frames) < length
