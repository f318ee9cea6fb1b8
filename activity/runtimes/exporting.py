"""The whole classifier as one graph for programs without this package, checked against Keras before it is handed over.

    frames  (batch, T, S, H, W, 3) uint8 RGB    --\
                                                    > probabilities (batch, C) float32, in the order of the labels
    mask    (batch, T) bool, True = real frame  --/

The formats are those of `activity.runtimes.formats`. Beside the graph is a JSON file with all that a program must know:
`<file>.json`, in a SavedModel `network.json`. It names the labels, how a video becomes frames (`spec`), and the shapes.
The scripts `tests/examples/classify_*.py` use it in a few lines, with NumPy, OpenCV and the runtime alone, for a model
whose one stream is `rgb`. The images of `motion` and `motion_crop` are made outside the graph, by
`activity.video.streams`: for a model with these streams, a program needs this package
(`activity.video.sampling.read_stack`), or the stacks that `activity preprocess` saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
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
from activity.errors import ActivityError, VideoError, one_line
from activity.files import atomic_path
from activity.models.backend import keras
from activity.models.classifier import ActivityClassifier, load_classifier, predict, versions
from activity.models.info import TrainingRecord, check_takes_videos, read_info
from activity.runtimes.formats import FORMATS, Graph, check_export, write_graph
from activity.runtimes.loops import with_plain_loops
from activity.video.clips import pad_right, window_starts
from activity.video.sampling import read_stack

Clip: TypeAlias = tuple[np.ndarray, np.ndarray]  # frames (T, S, H, W, 3) uint8 and their mask (T,) bool


FORMAT_VERSION = 1  # of the JSON beside the graph; raised when a reader must change

_STREAMS = {
    "rgb": "the frame, scaled as spec.resize says",
    "motion": "how the frame differs from that of 0.08 s before: made by activity.video.streams",
    "motion_crop": "three differences around what moves: made by activity.video.streams",
}

_TOLERANCE = 1e-3  # of probabilities, and of features relative to the largest; measured differences are about 1e-5
_BATCH = 2  # clips at a time in the check


@dataclass(frozen=True)
class Export:
    """What `export_classifier` wrote, and how far it is from Keras.

    Attributes:
        files: the graph first, then those beside it.
        difference: the largest between two probabilities, over all labels of all clips.
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


def export_classifier(model_path: Path, format: str, out: Path, *, clips: Sequence[Path | str] | None = None) -> Export:
    """Write a model file as one graph of another format. An older export is replaced once the new one is checked.

    Args:
        model_path: a `.keras` file.
        format: a key of `FORMATS`.
        out: the file, or for `savedmodel` the folder, to write.
        clips: videos to compare on; by default some synthetic ones and noise, and noise alone if it is empty.

    Raises:
        ActivityError: the packages for this format are not installed, `out` has a name it cannot have, the model
            takes feature files, cannot be expressed in it, or gives other probabilities there.
        ModelFileError: the model file is missing, damaged or not ours.
        VideoError: one of `clips` cannot be read.
    """
    check_export(format, out)
    check_takes_videos(read_info(model_path), "export")
    classifier = load_classifier(model_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Path(folder)
        graph = _open_new(classifier, format, made / out.name)
        try:
            difference, kinds = _compare(classifier, graph, clips)
        except VideoError:
            raise
        except ActivityError as error:
            raise ActivityError(f"the export to {format} is refused: {error}") from error
        note = (made / out.name / "network.json") if not FORMATS[format].suffix else made / f"{out.name}.json"
        note.write_text(json.dumps(_about(classifier, format), indent=2, allow_nan=False), encoding="utf-8")
        # All are on the disk before the first takes its name; the graph takes it last: as long as it is the old one or
        # absent, nobody takes what is beside it for its own.
        files = sorted(made.iterdir(), key=lambda file: (file.name != out.name, file == note))
        with contextlib.ExitStack() as stack:
            for file in files:
                shutil.move(file, stack.enter_context(atomic_path(out.parent / file.name)))
    return Export(tuple(out.parent / file.name for file in files), difference, kinds)


def _about(classifier: ActivityClassifier, format: str) -> dict[str, Any]:
    """The JSON beside a graph: that of an exported folder, and the inputs and outputs of the graph."""
    spec, batch = classifier.spec, FORMATS[format].batch
    frames = [batch, spec.num_frames, len(spec.streams), spec.height, spec.width, 3]
    return {
        "format_version": FORMAT_VERSION,
        "format": format,
        **about_model(classifier, FORMATS[format].version),
        "inputs": {
            "frames": {"dtype": "uint8", "shape": frames, "axes": "batch time streams height width rgb"},
            "mask": {"dtype": "bool", "shape": [batch, spec.num_frames], "axes": "batch time"},
        },
        "outputs": {
            "probabilities": {"dtype": "float32", "shape": [batch, len(classifier.labels)], "axes": "batch labels"}
        },
        "streams": {name: _STREAMS[name] for name in spec.streams},
    }


def about_model(classifier: ActivityClassifier, runtime: str) -> dict[str, Any]:
    """The content of the JSON file beside a model exported for a runtime: all that prediction needs to know."""
    info = dataclasses.replace(classifier.info, record=TrainingRecord())  # others need not know the training videos
    return {**info.as_dict(), "versions": {**versions(), "runtime": runtime}}


# === The graph ===


def _open_new(classifier: ActivityClassifier, format: str, path: Path) -> Graph:
    """Export, and open what was written."""
    head = with_plain_loops(classifier.head, classifier.spec.num_frames)
    whole = ActivityClassifier(classifier.backbone, head, classifier.info)
    try:
        write_graph(keras.Model(whole.input, {"probabilities": whole.output}), format, path)
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
    if not are_features and (expected.argmax(axis=1) != received.argmax(axis=1)).any():
        raise ActivityError("it gives another label than Keras")
    return difference


def _compare(
    classifier: ActivityClassifier, graph: Graph, videos: Sequence[Path | str] | None
) -> tuple[float, dict[str, int]]:
    """The largest difference of a probability, and how many clips of which kind there were."""
    difference, kinds = 0.0, dict[str, int]()
    for kind, clips in _clips(classifier.spec, videos).items():
        kinds[kind] = 0
        while batch := list(islice(clips, _BATCH)):
            frames, mask = (np.stack(parts) for parts in zip(*batch, strict=True))  # (B, T, S, H, W, 3), (B, T)
            expected = predict(classifier, {"frames": frames, "mask": mask})  # (B, C)
            difference = max(difference, check_parity(expected, graph(frames, mask)))
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
