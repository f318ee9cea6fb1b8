"""Damage files of a data set and its caches: it must never be used in silence.

    python tests/soak/damaged_files.py --count 300 --seed 0

Each trial flips a bit, zeroes a page or cuts the end of one file: a frame stack, cached features, a table of the data
set, the notes of decoding, the table of digests, or a model file. What reads it must then give the right result, or end
with an error of ours, or say that the file is damaged. It prints one line of figures and exits with 1 if any damage was
silent. A trial takes about a tenth of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import keras

from activity.config import ClipSpec, TrainConfig
from activity.datasets import preprocessing
from activity.datasets.dataset import load_dataset
from activity.datasets.synthetic import write_videos
from activity.errors import ActivityError
from activity.models.backbones import build_backbone
from activity.models.classifier import load_classifier
from activity.models.saving import save_model
from activity.runtimes.features import extract_features
from activity.training.trainer import build_classifier

SPEC = ClipSpec(num_frames=4, height=32, width=32, streams=("rgb", "motion"))


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        files: patterns below the folder.
        use: reads the folder and gives what depends on the files; it is compared with the same of whole files.
    """

    files: tuple[str, ...]
    use: Callable[[Path], object]


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit, anywhere."""
    damaged = bytearray(content)
    damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def zero(content: bytes, rng: random.Random) -> bytes:
    """A page of zeros, as a crash of the system leaves it."""
    at = rng.randrange(0, len(content), 4096)
    length = min(4096, len(content) - at)
    return content[:at] + bytes(length) + content[at + length :]


def cut(content: bytes, rng: random.Random) -> bytes:
    """The beginning only."""
    return content[: rng.randrange(len(content))]


@contextlib.contextmanager
def warnings() -> Iterator[list[str]]:
    """The warnings that are logged in the block."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Keeper(logging.WARNING)
    logging.getLogger("activity").addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger("activity").removeHandler(handler)


def one_by_one(todo: dict, work: preprocessing._Work, *_: object) -> Iterator[tuple[str, preprocessing._Outcome]]:
    """Decode in this process: to start others takes longer than all the rest."""
    for id_, (path, span) in todo.items():
        yield id_, preprocessing._Outcome(preprocessing._decode_one(id_, path, span, work))


def prepare(folder: Path) -> dict[str, Kind]:
    """Make the folder, and name the kinds of its files."""
    keras.utils.set_random_seed(0)
    write_videos(folder / "videos", num_performers=4, num_takes=1, height=32, width=32)
    (folder / "videos" / "broken.mp4").write_bytes(b"")
    with (folder / "videos" / "manifest.csv").open("a") as manifest:
        manifest.write("broken.mp4,jump,p09\n")

    def preprocess(place: Path) -> object:
        dataset = preprocessing.preprocess(place / "videos", place / "dataset", SPEC)
        stacks = [dataset.frames(s, x).tobytes() for s in dataset.samples for x in SPEC.streams]
        return [dataset.samples, dataset.problems, stacks]

    preprocess(folder)
    backbone = build_backbone("small_cnn", height=32, width=32, weights="none")

    def features(place: Path) -> object:
        dataset = load_dataset(place / "dataset")
        return [x.round(4).tolist() for x in extract_features(dataset, dataset.samples[:8], backbone, runtime="keras")]

    def frames(place: Path) -> object:
        dataset = load_dataset(place / "dataset")
        return [dataset.frames(sample, stream).tobytes() for sample in dataset.samples for stream in SPEC.streams]

    def table(place: Path) -> object:
        dataset = load_dataset(place / "dataset")
        return [dataset.samples, dataset.problems, dataset.spec, dataset.videos_dir.name]

    def model(place: Path) -> object:
        classifier = load_classifier(place / "model.keras")
        return [[weight.tolist() for weight in classifier.get_weights()], classifier.info]

    features(folder)
    config = TrainConfig(backbone="small_cnn", weights="none", units=8, head="pooled", members=1)
    save_model(build_classifier(load_dataset(folder / "dataset"), config), folder / "model.keras")
    return {
        "stack, read": Kind(("dataset/frames/*.npy", "dataset/motion/*.npy"), frames),
        "stack, preprocess again": Kind(("dataset/frames/*.npy", "dataset/motion/*.npy"), preprocess),
        "features": Kind(("dataset/features/*/*.npy", "dataset/features/*/*.csv"), features),
        "table": Kind(("dataset/manifest.csv", "dataset/problems.csv", "dataset/dataset.json"), table),
        "notes": Kind(("dataset/decoded.csv",), preprocess),
        "digests": Kind(("dataset/**/digests.txt",), lambda place: [features(place), preprocess(place)]),
        "model": Kind(("model.keras",), model),
    }


def trial(folder: Path, place: Path, kind: Kind, expected: object, rng: random.Random) -> tuple[str, str]:
    """Damage a file in a copy of the folder and use it; returns `correct`, `error`, `said` or `SILENT`, and what."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    path = rng.choice(sorted(path for pattern in kind.files for path in place.glob(pattern)))
    content, spoil = path.read_bytes(), rng.choice((flip, zero, cut))
    if (damaged := spoil(content, rng)) == content:
        damaged = flip(content, rng)
    path.write_bytes(damaged)
    what = f"{path.relative_to(place)}, {spoil.__name__}"
    with warnings() as said:
        try:
            found = kind.use(place)
        except ActivityError:
            return "error", what
        except Exception as error:
            return "TRACEBACK", f"{what}: {error!r:.200}"
    if found == expected:
        return "correct", what
    return ("said" if any(str(path) in line for line in said) else "SILENT"), what


def soak(count: int, seed: int) -> tuple[str, list[str]]:
    """Run the trials; returns one line of figures, and what went wrong."""
    rng, failures, verdicts = random.Random(seed), [], Counter[str]()
    with tempfile.TemporaryDirectory() as name, mock.patch.object(preprocessing, "_decode_all", one_by_one):
        folder = Path(name, "whole")
        kinds = prepare(folder)
        expected = {kind: kinds[kind].use(folder) for kind in kinds}
        for index in range(count):
            kind = list(kinds)[index % len(kinds)]
            verdict, what = trial(folder, Path(name, str(index)), kinds[kind], expected[kind], rng)
            verdicts[verdict] += 1
            if verdict.isupper():
                failures.append(f"{verdict}: {kind}: {what}")
            shutil.rmtree(Path(name, str(index)))
    figures = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
    return f"{count} damaged files of {len(kinds)} kinds, seed {seed}: {figures}", failures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="damaged files; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the damage; default: %(default)s")
    figures, failures = soak(**vars(parser.parse_args()))
    print("\n".join([*failures, figures]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
