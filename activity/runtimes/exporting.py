"""A whole model as a graph for programs without this package, checked against Keras before it is handed over.

    frames  (batch, T, S, H, W, 3) uint8 RGB    --\
                                                    > probabilities (batch, C) float32, in the order of the labels
    mask    (batch, T) bool, True = real frame  --/

A captioner is two: frames and mask to what the decoder begins with, and one step of it (`activity.runtimes.stepwise`).

The formats are those of `activity.runtimes.formats`. Beside the graph is a JSON file with all that a program must know:
`<file>.json`, in a SavedModel `network.json`. It names the labels, how a video becomes frames (`spec`), and the shapes.
The scripts `tests/examples/*.py` use it in a few lines, with NumPy, OpenCV and the runtime alone, for a model
whose one stream is `rgb`. The images of `motion` and `motion_crop` are made outside the graph, by
`activity.video.streams`: for a model with these streams, a program needs this package
(`activity.video.sampling.read_stack`), or the stacks that `activity preprocess` saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from activity.config import ClipSpec
from activity.datasets.synthetic import write_videos
from activity.errors import ActivityError, SettingError, VideoError, one_line
from activity.files import atomic_path
from activity.models.backend import keras
from activity.models.captioner import ActivityCaptioner, load_captioner
from activity.models.classifier import ActivityClassifier, load_classifier, predict, versions
from activity.models.info import TrainingRecord, check_takes_videos, read_info
from activity.models.search import END, NUM_SPECIAL, PADDING, UNKNOWN
from activity.runtimes.formats import FORMATS, Graph, check_export, exported_step, note_path, step_path, write_graph
from activity.runtimes.loops import with_plain_loops
from activity.runtimes.stepwise import StepwiseDecoder, encoder_graph, random_words, step_graph
from activity.video.clips import pad_right, window_starts
from activity.video.sampling import read_stack

Clip: TypeAlias = tuple[np.ndarray, np.ndarray]  # frames (T, S, H, W, 3) uint8 and their mask (T,) bool

_logger = logging.getLogger(__name__)

FORMAT_VERSION = 1  # of the JSON beside the graph; raised when a reader must change

_STREAMS = {
    "rgb": "the frame, scaled as spec.resize says",
    "motion": "how the frame differs from that of 0.08 s before: made by activity.video.streams",
    "motion_crop": "three differences around what moves: made by activity.video.streams",
}

_TOLERANCE = 1e-3  # of probabilities, and of features relative to the largest; measured differences are about 1e-5
_BATCH = 2  # clips at a time in the check
_WORDS = 8  # of a sentence in it
_LOADERS = {"classify": load_classifier, "describe": load_captioner}
_Model: TypeAlias = "ActivityClassifier | ActivityCaptioner"


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote, and how far it is from Keras.

    Attributes:
        files: the graph first, then those beside it.
        difference: the largest between two probabilities, over all labels (or words) of all clips.
        clips: how many clips of each kind were compared, such as `{"synthetic": 8, "noise": 3}`.
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
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.clips.items())
        return (
            f"{self.files[0]}: {self.num_bytes / 1e6:.1f} MB; matches Keras on {sum(self.clips.values())} test clips "
            f"({kinds}; largest difference {self.difference:.1g})"
        )


def export_model(model_path: Path, format: str, out: Path, *, clips: Sequence[Path | str] | None = None) -> Export:
    """Write a model file as a graph of another format, a captioner as two.

    An older export is replaced once the new one is checked; the second graph of a captioner is removed with it.

    Args:
        model_path: a `.keras` file.
        format: a key of `FORMATS`.
        out: the file, or for `savedmodel` the folder, to write.
        clips: videos to compare on; by default some synthetic ones and noise, and noise alone if it is empty.

    Raises:
        ActivityError: the packages for this format are not installed, `out` has a name it cannot have, the model
            takes feature files or is of orders, cannot be expressed in it, or gives other probabilities there.
        ModelFileError: the model file is missing, damaged or not ours.
        VideoError: one of `clips` cannot be read.
    """
    check_export(format, out)
    info = read_info(model_path, task=None)
    if info.task not in _LOADERS:
        raise ActivityError(
            "expected a model of videos to export; this one is of orders of activities", path=model_path
        )
    check_takes_videos(info, "export")
    if info.task == "describe" and FORMATS[format].batch:
        others = ", ".join(name for name, entry in FORMATS.items() if not entry.batch)
        raise SettingError("format", f"one of {others} for a captioner", format)
    model = _LOADERS[info.task](model_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Path(folder)
        graphs = {
            made / path.name if path.parent == out.parent else made / out.name / path.name: graph
            for path, graph in _graphs_of(model, out).items()
        }
        opened = [_open_new(graph, format, path) for path, graph in graphs.items()]
        try:
            difference, kinds = _compare(model, opened, clips)
        except VideoError:
            raise
        except ActivityError as error:
            raise ActivityError(f"the export to {format} is refused: {error}") from error
        note = (made / out.name / "network.json") if not FORMATS[format].suffix else note_path(made / out.name)
        note.write_text(json.dumps(_about(model, format, graphs), indent=2, allow_nan=False), encoding="utf-8")
        # All are on the disk before the first takes its name; the graph takes it last: as long as it is the old one or
        # absent, nobody takes what is beside it for its own.
        files = sorted(made.iterdir(), key=lambda file: (file.name != out.name, file == note))
        old_step = exported_step(out) if len(graphs) == 1 else None
        with contextlib.ExitStack() as stack:
            for file in files:
                shutil.move(file, stack.enter_context(atomic_path(out.parent / file.name)))
        if old_step:
            for suffix in [file.suffix for file in files if file.stem == out.stem]:
                removed = old_step.with_suffix(suffix)
                removed.unlink(missing_ok=True)
                _logger.info("removed %s: it was of the model exported there before", removed)
    return Export(tuple(out.parent / file.name for file in files), difference, kinds)


def _about(model: _Model, format: str, graphs: dict[Path, keras.Model]) -> dict[str, Any]:
    """The JSON beside a graph: that of an exported folder, and the inputs and outputs of the graphs."""
    batch = FORMATS[format].batch
    (first, *others), (_, *paths) = graphs.values(), graphs
    described = {
        "format_version": FORMAT_VERSION,
        "format": format,
        **about_model(model, FORMATS[format].version),
        **_arrays(first, batch),
        "streams": {name: _STREAMS[name] for name in model.spec.streams},
    }
    for path, step in zip(paths, others, strict=True):
        described["step"] = {"file": path.name, **_arrays(step, batch)}
        described["special_words"] = {"padding": PADDING, "unknown": UNKNOWN, "end": END}
        described["first_word"] = NUM_SPECIAL  # the number of words[0]
    return described


def _arrays(graph: keras.Model, batch: int | None) -> dict[str, Any]:
    """`inputs` and `outputs` of a graph, by name: dtype, shape, and what the axes are."""

    def described(x: keras.KerasTensor, name: str) -> dict[str, Any]:
        if name == "probabilities" and len(x.shape) == 3:
            return {"dtype": x.dtype, "shape": [batch, *x.shape[1:]], "axes": "batch time labels"}
        axes = _AXES[name] if len(x.shape) == len(_AXES[name].split()) else f"batch sentences {_AXES[name][6:]}"
        return {"dtype": x.dtype, "shape": [batch, *x.shape[1:]], "axes": axes}

    return {
        kind: {name: described(x, name) for name, x in sorted(tensors.items())}
        for kind, tensors in (("inputs", graph.input), ("outputs", graph.output))
    }


_AXES = {  # those of the states of one sentence; a step has them for each of several
    "frames": "batch time streams height width rgb",
    "mask": "batch time",
    "probabilities": "batch labels",
    "memory": "batch time width",
    "keys": "batch time units",
    "hidden": "batch units",
    "cell": "batch units",
    "next_hidden": "batch sentences units",
    "next_cell": "batch sentences units",
    "words": "batch sentences",
    "logits": "batch sentences words",
    "attention": "batch sentences time",
}


def about_model(model: _Model, runtime: str) -> dict[str, Any]:
    """The content of the JSON file beside a model exported for a runtime: all that prediction needs to know."""
    info = dataclasses.replace(model.info, record=TrainingRecord())  # others need not know the training videos
    return {**info.as_dict(), "versions": {**versions(), "runtime": runtime}}


# === The graph ===


def _graphs_of(model: _Model, out: Path) -> dict[Path, keras.Model]:
    """Each graph of a model by its path."""
    if isinstance(model, ActivityCaptioner):
        return {out: encoder_graph(model, of_frames=True), step_path(out): step_graph(model)}
    whole = ActivityClassifier(model.backbone, with_plain_loops(model.head, model.spec.num_frames), model.info)
    return {out: keras.Model(whole.input, {"probabilities": whole.output})}


def _open_new(graph: keras.Model, format: str, path: Path) -> Graph:
    """Export, and open what was written."""
    try:
        write_graph(graph, format, path)
        return FORMATS[format].open(path)
    except ActivityError:
        raise
    except Exception as error:  # exporters and runtimes fail in any way
        raise ActivityError(f"this model cannot be exported to {format}: {one_line(error)}") from error


# === Does it compute the same? ===


def check_parity(expected: np.ndarray, received: np.ndarray, *, quantity: str = "probabilities") -> float:
    """The largest difference between what Keras and an exported model compute from the same inputs.

    Args:
        expected: by Keras, `(B, ...)`.
        received: from the exported model, of the same shape.
        quantity: `probabilities`, whose most probable labels must be the same too, or `features`, whose differences
            are relative to the largest.

    Raises:
        ActivityError: they do not agree.
    """
    are_features = quantity == "features"
    scale = float(np.abs(expected).max()) or 1.0 if are_features else 1.0
    difference = float(np.abs(expected - received).max()) / scale
    if not difference <= _TOLERANCE:  # nor is it if nothing can be compared with it
        of = " of the largest" if are_features else ""
        raise ActivityError(f"its {quantity} differ from those of Keras by {difference:.1e}{of}")
    if (
        quantity == "probabilities"
        and expected.ndim == 2
        and (expected.argmax(axis=1) != received.argmax(axis=1)).any()
    ):
        raise ActivityError("it gives another label than Keras")
    return difference


def check_words(model: ActivityCaptioner, exported: StepwiseDecoder, clips: np.ndarray, mask: np.ndarray) -> float:
    """The largest difference of the probability of a word, after random ones, between Keras and an exported captioner.

    Args:
        model: in Keras.
        exported: its graphs.
        clips: `(B, T, ...)`, frames or features, whichever the graphs begin with.
        mask: `(B, T)` bool.

    Raises:
        ActivityError: they do not agree.
    """
    num_words = len(model.info.words) + NUM_SPECIAL
    words = random_words(len(mask), min(model.info.max_words, _WORDS), num_words)
    if clips.dtype == np.uint8:
        expected = predict(model, {"frames": clips, "mask": mask, "words": words})  # (B, L, V)
    else:
        memory = model.encoder.predict_on_batch({"features": clips, "mask": mask})
        expected = keras.ops.convert_to_numpy(model.decoder(words, memory, mask))
    received = exported.logits(clips, mask, words)
    difference = float(np.abs(_softmax(expected) - _softmax(received)).max())
    if not difference <= _TOLERANCE:
        raise ActivityError(f"its probabilities of words differ from those of Keras by {difference:.1e}")
    return difference


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _compare(
    model: _Model, graphs: Sequence[Graph], videos: Sequence[Path | str] | None
) -> tuple[float, dict[str, int]]:
    """The largest difference of a probability, and how many clips of which kind there were."""

    def differ(frames: np.ndarray, mask: np.ndarray) -> float:
        if isinstance(model, ActivityCaptioner):
            return check_words(model, StepwiseDecoder(*graphs), frames, mask)
        (received,) = graphs[0](frames, mask)
        return check_parity(predict(model, {"frames": frames, "mask": mask}), received)  # (B, C)

    difference, kinds = 0.0, dict[str, int]()
    for kind, clips in _clips(model.spec, videos).items():
        kinds[kind] = 0
        while batch := list(islice(clips, _BATCH)):
            frames, mask = (np.stack(parts) for parts in zip(*batch, strict=True))  # (B, T, S, H, W, 3), (B, T)
            difference = max(difference, differ(frames, mask))
            kinds[kind] += len(batch)
    return difference, kinds


def _clips(spec: ClipSpec, videos: Sequence[Path | str] | None) -> dict[str, Iterator[Clip]]:
    if videos:
        return {f"of {len(videos)} videos": _clips_of(videos, spec)}
    return {**({"synthetic": _synthetic_clips(spec)} if videos is None else {}), "noise": _noise(spec)}


def _clips_of(videos: Iterable[Path | str], spec: ClipSpec) -> Iterator[Clip]:
    for video in videos:
        stack, _ = read_stack(Path(video), spec, num_threads=0)
        for start in window_starts(len(stack), spec.num_frames):
            yield pad_right(stack[start : start + spec.num_frames], spec.num_frames)


def _synthetic_clips(spec: ClipSpec) -> Iterator[Clip]:
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder), num_performers=1, num_takes=1)
        yield from _clips_of(sorted(Path(folder).glob("*/*")), spec)


def _noise(spec: ClipSpec) -> Iterator[Clip]:
    """Clips of one frame, about half of the frames, and all frames; noise also where there is no real frame."""
    rng = np.random.default_rng(0)
    shape = (spec.num_frames, len(spec.streams), spec.height, spec.width, 3)
    for length in sorted({1, -(-spec.num_frames // 2), spec.num_frames}):
        yield rng.integers(0, 256, shape, np.uint8), np.arange(spec.num_frames) < length
