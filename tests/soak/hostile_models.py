"""Read hostile model files: each must be refused in one line, or do no harm.

    python tests/soak/hostile_models.py --count 60 --seed 0

The files are made of a small good one: code in place of layers, parts that unpack to hundreds of megabytes, weights in
other files, links, fields of wrong types, impossible numbers; and, beyond those that are listed here, random values at
random places of the config. `info` and `classify` read each in a process that reads them all. There must be no
traceback, no hang, no advice to turn safe mode off, at most 400 MB more memory, and no file written or changed. It
prints one line of figures and exits with 1 if any file did harm. A file takes about a second.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import pickle
import random
import select
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from activity.config import ClipSpec, TrainConfig
from activity.datasets.synthetic import write_videos
from activity.models.backbones import build_backbone
from activity.models.classifier import ActivityClassifier
from activity.models.heads import HeadOptions, build_head
from activity.models.info import ModelInfo, TrainingRecord
from activity.models.saving import save_model

MOST_MEGABYTES = 400  # more memory than before the file was read
MOST_SECONDS = 60
_PACKAGE = Path(__file__).parents[2]
_FLOOD = 600 << 20  # bytes
Parts = dict[str, bytes]  # of the zip


def good_model(path: Path) -> Parts:
    """Write a small model with a full record; returns the parts of its file."""
    backbone = build_backbone("small_cnn", height=32, width=32, weights="none")
    head = build_head("lstm", HeadOptions(units=4), num_features=128, num_labels=2)
    splits = {"train": 2, "val": 1, "test": 1}
    record = TrainingRecord(
        training=TrainConfig(backbone="small_cnn", weights="none"),
        dataset="dataset",
        num_videos=splits,
        counts={"jump": splits, "sit": splits},
        num_groups=splits,
        num_split_groups=0,
        calibration={
            "temperature": 1.0,
            "num_videos": 4,
            "expected_calibration_error": {"before": 0.1, "after": 0.1},
        },  # fmt: skip
        history=({"stage": "scratch", "epoch": 0, "loss": 1.0, "accuracy": 0.5},),
        command="activity train dataset --out m.keras",
        versions={"activity": "0"},
    )
    spec = ClipSpec(num_frames=4, height=32, width=32, streams=("rgb",))
    info = ModelInfo(spec=spec, labels=("jump", "sit"), clip_seconds=2.0, window_seconds=1.0, record=record)
    save_model(ActivityClassifier(backbone, head, info), path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


# === What is hostile: a function writes a file of the parts of the good one, given the folder that must not change ===


def _config(change: Callable[[dict[str, Any], Path], object]) -> Callable[[Path, Parts, Path], None]:
    """Another config; `change` gets the whole of it, and may give another."""

    def write(path: Path, parts: Parts, victim: Path) -> None:
        config = json.loads(parts["config.json"])
        changed = change(config, victim)
        _zip(path, {**parts, "config.json": json.dumps(changed if isinstance(changed, dict) else config).encode()})

    return write


def _field(keys: str, value: object) -> Callable[[Path, Parts, Path], None]:
    def change(config: dict[str, Any], _: Path) -> None:
        *way, last = keys.split(".")
        place = config["config"]
        for key in way:
            place = place[key]
        place[last] = value

    return _config(change)


def _head(make: Callable[[Path], object]) -> Callable[[Path, Parts, Path], None]:
    """Something else in place of the head; the path is that of a file it might write."""

    def change(config: dict[str, Any], victim: Path) -> None:
        config["config"]["head"] = make(victim / "written")

    return _config(change)


def _layer(name: str, **config: object) -> dict[str, object]:
    return {"module": "keras.layers", "class_name": name, "config": {"name": "x", **config}, "registered_name": None}


def _in_model(layer: object) -> dict[str, object]:
    start = _layer("InputLayer", batch_shape=[None, 4], dtype="float32")
    inside = {"name": "s", "trainable": True, "dtype": "float32", "layers": [start, layer]}
    return {"module": "keras", "class_name": "Sequential", "config": inside, "registered_name": None}


def _function(path: Path) -> dict[str, object]:
    code = f"__import__('pathlib').Path({str(path)!r}).touch()"
    return {"class_name": "__lambda__", "config": {"value": code, "defaults": None, "closure": None}}


def _object(module: str, name: str, config: object, registered: str | None = None) -> dict[str, object]:
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def _weights(change: Callable[[h5py.File, str, Path], None]) -> Callable[[Path, Parts, Path], None]:
    """Other weights; `change` gets the file and the name of one array in it."""

    def write(path: Path, parts: Parts, victim: Path) -> None:
        buffer = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, part: names.append(name) if getattr(part, "size", 0) > 100 else None)
            change(file, names[0], victim)
        _zip(path, {**parts, "model.weights.h5": buffer.getvalue()})

    return write


def _replaced(name: str, **options: Any) -> Callable[[h5py.File, str, Path], None]:
    def change(file: h5py.File, found: str, victim: Path) -> None:
        shape = file[found].shape
        del file[found]
        if name == "link":
            file[found] = options["link"]
        elif name == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(victim / "other.h5"), "x", shape=shape)
            file.create_virtual_dataset(found, layout)
        else:
            file.create_dataset(found, **{"shape": shape, "dtype": "f4", **options})

    return change


def _parts(change: Callable[[Parts], Parts]) -> Callable[[Path, Parts, Path], None]:
    return lambda path, parts, _: _zip(path, change(dict(parts)))


def _bytes(make: Callable[[Path, Parts], bytes]) -> Callable[[Path, Parts, Path], None]:
    return lambda path, parts, victim: path.write_bytes(make(victim / "written", parts)) and None


def _zip(path: Path, parts: Parts) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def _link(path: Path, parts: Parts, victim: Path) -> None:
    _zip(path, parts)
    link = zipfile.ZipInfo("assets/link")
    link.external_attr, link.create_system = (stat.S_IFLNK | 0o777) << 16, 3
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, str(victim))
        file.writestr("assets/link/written", b"x")


def _units(config: dict[str, Any], _: Path) -> None:
    for layer in config["config"]["head"]["config"]["layers"]:
        layer.pop("build_config", None)
        if "units" in layer["config"]:
            layer["config"]["units"] = 200_000_000


def _input(config: dict[str, Any], _: Path) -> None:
    config["config"]["backbone"]["config"]["layers"][0]["config"]["batch_shape"] = [None, 100_000, 100_000, 3]


def _deep(config: dict[str, Any], _: Path) -> None:
    inner: dict[str, Any] = {}
    config["config"]["record"]["updates"] = [inner]
    for _ in range(900):
        inner["a"] = {}
        inner = inner["a"]


def _pickled(path: Path) -> bytes:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(path), "w")

    return pickle.dumps(Touch())


def _crc(path: Path, parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 1
    return bytes(content)


CASES: dict[str, Callable[[Path, Parts, Path], None]] = {
    # code
    "a lambda in a layer": _head(lambda path: _in_model(_layer("Lambda", function=_function(path), arguments={}))),
    "a lambda layer": _head(lambda path: _layer("Lambda", function=_function(path), arguments={})),
    "a lambda": _head(_function),
    "a lambda as activation": _head(lambda path: _in_model(_layer("Activation", activation=_function(path)))),
    "os.system": _head(lambda path: _object("os", "system", f"touch {path}")),
    "os.system as a function": _head(lambda path: _object("os", "function", "system", "system")),
    "eval": _head(lambda path: _object("builtins", "eval", {"source": f"open({str(path)!r}, 'w')"})),
    "safe mode off": _head(lambda path: _object("keras.config", "enable_unsafe_deserialization", {})),
    "a download": _head(
        lambda path: _object("keras.utils", "get_file", {"fname": path.name, "origin": f"file://{__file__}"})
    ),
    "a SavedModel": _head(lambda path: _in_model(_layer("TFSMLayer", filepath=str(path.parent)))),
    "a JAX function": _head(lambda path: _in_model(_layer("JaxLayer", call_fn=_function(path)))),
    "a pickled module": _head(
        lambda path: _in_model(
            _layer("TorchModuleWrapper", module={"class_name": "__bytes__", "value": _pickled(path).hex()})
        )
    ),
    "a vocabulary file": _head(lambda path: _in_model(_layer("StringLookup", vocabulary="/etc/passwd"))),
    "a lambda on compiling": _config(
        lambda config, victim: config.update(
            compile_config={"optimizer": "adam", "loss": _function(victim / "written")}
        )
    ),
    "a layer that does not exist": _head(lambda path: _in_model(_layer("NoSuchLayer"))),
    "a head that is a list": _head(lambda path: [1, 2]),
    # floods
    "a flood of JSON": _parts(lambda parts: {**parts, "config.json": b" " * _FLOOD}),
    "a flood of weights": _parts(lambda parts: {**parts, "model.weights.h5": bytes(_FLOOD)}),
    "a flood beside": _parts(lambda parts: {**parts, "zeros.bin": bytes(_FLOOD)}),
    "many weights": _config(_units),
    "a large input": _config(_input),
    "a large build": _config(lambda config, _: config.update(build_config={"input_shape": [10**9, 10**9]})),
    "many frames": _field("spec.num_frames", 10**9),
    "deep lists": _parts(lambda parts: {**parts, "config.json": b"[" * 200_000 + b"]" * 200_000}),
    "deep objects": _config(_deep),
    "a large array": _weights(_replaced("data", shape=(10**6, 10**6), chunks=(1000, 1000))),
    "a compressed array": _weights(_replaced("data", shape=(20_000, 20_000), compression="gzip", fillvalue=1.0)),
    # other files
    "a path upwards": _parts(lambda parts: {**parts, "../../written": b"x"}),
    "an absolute path": _parts(lambda parts: {**parts, "/tmp/written-by-a-model": b"x"}),
    "assets": _parts(lambda parts: {**parts, "assets/../../written": b"x"}),
    "a link": _link,
    "weights by a link": _weights(_replaced("link", link=h5py.ExternalLink("/etc/other.h5", "x"))),
    "weights by a name": _weights(_replaced("link", link=h5py.SoftLink("/nothing"))),
    "weights of a file": _weights(_replaced("data", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])),
    "weights of parts": _weights(_replaced("virtual")),
    "weights in a circle": _weights(lambda file, name, _: file.__setitem__("again", file["/"])),
    "weights that are text": _weights(_replaced("data", dtype=h5py.string_dtype())),
    "weights that are no numbers": _weights(lambda file, name, _: file[name].__setitem__(..., np.nan)),
    # no model files
    "nothing": _bytes(lambda path, parts: b""),
    "text": _bytes(lambda path, parts: b"hello" * 1000),
    "a pickle": _bytes(lambda path, parts: _pickled(path)),
    "an HDF5 file": _bytes(lambda path, parts: parts["model.weights.h5"]),
    "a wrong checksum": _bytes(_crc),
    "no config": _parts(lambda parts: {name: content for name, content in parts.items() if name != "config.json"}),
    "no weights": _parts(lambda parts: {name: content for name, content in parts.items() if "weights" not in name}),
    "noise as weights": _parts(lambda parts: {**parts, "model.weights.h5": random.Random(0).randbytes(9999)}),
    # fields
    "labels that are a number": _field("labels", 5),
    "labels that attack a terminal": _field(
        "labels", ["\x1b]0;x\x07\x1b[31m<script>alert(1)</script>", "=cmd|'/c'!A1"]
    ),
    "labels twice": _field("labels", ["a", "a"]),
    "a threshold of text": _field("threshold", "x"),
    "clips without end": _field("clip_seconds", float("inf")),
    "windows of no length": _field("window_seconds", 0),
    "no record": _field("record", None),
    "a record that is a list": _field("record", [1]),
    "weights of the system": _field("record.training.weights", "/etc/passwd"),
    "a command that attacks": _field("record.command", "rm -rf ~ # \x1b[2J"),
    "counts of text": _field("record.counts", {"a": "b"}),
    "a version of text": _field("format_version", "3"),
}


def mutated(config: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A config with another value at a random place."""
    values: list[object] = [None, -1, 0, 1e308, 10**30, float("nan"), "", "x", [], {}, True, [[[]]], "\x00", [None]]
    config = copy.deepcopy(config)
    place: Any = config
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.85:
            place = inner
            continue
        place[key] = rng.choice(values)
        return config


# === Reading them ===


def serve() -> None:
    """Run the commands that come on stdin, one as JSON a line, and answer with what they say and the memory so far."""
    import resource

    from activity.cli.main import main as run

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status: object = run(json.loads(line))
            except BaseException as error:
                status = f"{type(error).__name__}: {error}"[:200]
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answers.write(json.dumps([status, said.getvalue(), megabytes]) + "\n")
        answers.flush()


class Reader:
    """A process that reads one file after the other; a new one after each that ended it."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join([str(_PACKAGE), os.environ.get("PYTHONPATH", "")])
        self._environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "100"}
        self._folder, self._process, self._megabytes = folder, None, 0.0

    def run(self, *words: str) -> str:
        """What is wrong with how a command ends, or nothing."""
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            command = [sys.executable, __file__, "--serve"]
            self._process = subprocess.Popen(command, env=self._environment, cwd=self._folder, **pipes)
            self._megabytes = float("inf")
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], MOST_SECONDS)
        answer = self._process.stdout.readline() if ready else ""
        if not answer:
            status = self._process.poll() if ready else None
            self.end()
            return f"it ends the process ({status})" if ready else "it hangs"
        status, said, megabytes = json.loads(answer)
        grown, self._megabytes = megabytes - self._megabytes, megabytes
        if status not in (0, 1) or "Traceback" in said:
            return f"{status}: {said[-300:]}"
        if status and len([line for line in said.splitlines() if line.startswith("activity: ")]) != 1:
            return f"not one line: {said[-300:]}"
        if "safe_mode" in said or "unsafe" in said:
            return f"advice of Keras: {said[-300:]}"
        return f"{grown:.0f} MB more memory" if grown > MOST_MEGABYTES else ""

    def end(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def state_of(folder: Path) -> dict[str, bytes]:
    """The content of all files of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def soak(count: int, seed: int) -> tuple[str, list[str]]:
    """Read so many files, first those that are listed; returns one line of figures, and what went wrong."""
    rng, failures, num_harmful = random.Random(seed), list[str](), 0
    names = rng.sample(sorted(CASES), len(CASES))
    with tempfile.TemporaryDirectory() as name:
        folder, victim = Path(name), Path(name, "victim")
        write_videos(victim, num_performers=1, num_takes=1, height=32, width=32)
        video = str(next(victim.glob("*/*.mp4")))
        parts = good_model(folder / "good.keras")
        reader = Reader(victim)
        if wrong := reader.run("classify", str(folder / "good.keras"), video, "--runtime", "keras"):
            return "the good model does not work", [wrong]
        before, path = state_of(victim), folder / "m.keras"
        for index in range(count):
            case = names[index] if index < len(names) else f"mutation {index}"
            if index < len(names):
                CASES[case](path, parts, victim)
            else:
                config = json.dumps(mutated(json.loads(parts["config.json"]), rng))
                _zip(path, {**parts, "config.json": config.encode()})
            commands = [("info", str(path)), ("classify", str(path), video, "--runtime", "keras")]
            found = [f"{case}, {words[0]}: {wrong}" for words in commands if (wrong := reader.run(*words))]
            if state_of(victim) != before or sorted(x.name for x in folder.iterdir()) != [
                "good.keras",
                path.name,
                "victim",
            ]:
                found.append(f"{case}: it writes files")
            failures, num_harmful = failures + found, num_harmful + bool(found)
            path.unlink()
        reader.end()
    return f"{count} hostile model files, seed {seed}: {num_harmful} did harm", failures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60, help="files; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of their order and values; default: %(default)s")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    if arguments.pop("serve"):
        serve()
        return 0
    figures, failures = soak(**arguments)
    print("\n".join([*failures, figures]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
