"""Train from more features than memory holds: peak memory, and time beside the same from memory, in turns.

python tests/benchmarks/bench_features.py [--clips N] [--no-stack] [--memory]
python tests/benchmarks/bench_features.py --clips N --batches

It makes a data set of features alone: clips of 16 frames, 3 streams and 1280 features, 245,760 bytes each in float32,
written as training writes them. Each training is a process of its own. Of its memory, pages of mapped files are told
apart: the system takes them back where it needs them. With `--memory`, the same is trained with all in memory. With
`--batches`, nothing is trained: batches are made of what the head `lstm` reads, from disk and from memory in turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from activity._version import __version__
from activity.config import ClipSpec, TrainConfig, as_dict
from activity.datasets import arrays
from activity.datasets.dataset import FORMAT_VERSION, MANIFEST_COLUMNS, load_dataset
from activity.datasets.parts import PackedArrays
from activity.files import write_csv

SPEC, NUM_FEATURES, NUM_LABELS, NUM_GROUPS = ClipSpec(num_frames=16), 1280, 8, 40


def make_dataset(folder, num_clips):
    """The tables of a data set."""
    rows = [
        {
            "sample_id": f"{i:06d}-{i:016x}",
            "path": f"{i}.mp4",
            "label": f"label{i % NUM_LABELS}",
            "group": f"g{i // NUM_LABELS % NUM_GROUPS}",
            "split": "train",
            "num_frames": SPEC.num_frames,
            "duration_seconds": 2.0,
        }
        for i in range(num_clips)
    ]
    write_csv(folder / "manifest.csv", MANIFEST_COLUMNS, rows)
    about = {"format_version": FORMAT_VERSION, "spec": as_dict(SPEC), "videos_dir": str(folder), "version": __version__}
    (folder / "dataset.json").write_text(json.dumps(about))


def make_features(dataset, backbone):
    """Features of a few hundred modes, as those of videos have; labels differ in the order of two of them."""
    from activity.runtimes.features import _cache_dirs

    rng = np.random.default_rng(0)
    modes = rng.random((200, NUM_FEATURES), np.float32)
    start = time.perf_counter()
    for cache_dir in _cache_dirs(dataset, backbone, "keras").values():
        cached = PackedArrays(cache_dir)
        for sample in dataset.samples:
            weights = rng.random((SPEC.num_frames, len(modes)), np.float32) ** 8
            label = int(sample.label.removeprefix("label"))
            weights[: SPEC.num_frames // 2, label] += 0.2
            weights[SPEC.num_frames // 2 :, (label + 1) % NUM_LABELS] += 0.2
            with threadpool_limits(limits=1, user_api="blas"):  # its threads would wait longer than they compute
                features = weights @ modes
            cached.write(sample.sample_id, features)
        cached.pack()
    files = [path for path in dataset.dataset_dir.glob("features/*/*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e9
    seconds = time.perf_counter() - start
    print(f"{len(dataset.samples)} clips: {size:.2f} GB of features in {len(files)} files, written in {seconds:.0f} s")


def build_stand_in():
    """A backbone of so many features, which is never computed."""
    from activity.models.backend import keras

    keras.utils.set_random_seed(0)
    images = keras.Input((SPEC.height, SPEC.width, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(NUM_FEATURES)(mean), name="stand_in")


def status(name):
    """A number of bytes that the kernel tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


class PeakOfOwn(threading.Thread):
    """The most memory that is not of mapped files, looked at 50 times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0

    def run(self):
        while True:
            self.peak = max(self.peak, status("RssAnon"))
            time.sleep(0.02)


def train_once(folder, in_memory, options):
    """In a process of its own: print what it took as JSON."""
    from activity.training.trainer import train

    if in_memory:
        arrays.MOST_IN_MEMORY = float("inf")
    dataset, backbone = load_dataset(folder), build_stand_in()
    if not (folder / "features").exists():
        make_features(dataset, backbone)
        return
    own = PeakOfOwn()
    before = status("RssAnon")
    own.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work_dir:
        run = train(dataset, TrainConfig(**options), work_dir=work_dir, backbone=backbone)
    seconds = time.perf_counter() - start
    rows = run.stages[0].rows
    found = {
        "seconds": seconds,
        "epoch": statistics.median(row["seconds"] for row in rows[1:]),
        "waiting": sum(row["waiting_seconds"] for row in rows) / sum(row["seconds"] for row in rows),
        "loss": rows[-1]["loss"],
        "before": before,
        "own": own.peak,
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "weights": [float(np.abs(weight).sum(dtype=np.float64)) for weight in run.classifier.head.get_weights()],
    }
    print(json.dumps(found))


def measure_batches(num_clips, repeats):
    """Seconds to make the batches of an epoch, and the memory that their table takes."""
    from activity.training.batches import FeatureBatches

    shape, targets = (SPEC.num_frames, len(SPEC.streams) * 64), np.eye(NUM_LABELS)[np.arange(num_clips) % NUM_LABELS]
    options = {"num_frames": SPEC.num_frames, "batch_size": TrainConfig.batch_size, "training": True, "mixup": 0.2}
    feeds = {}
    for where, limit in {"disk": None, "memory": float("inf")}.items():
        before = status("RssAnon")
        stacks = (np.random.default_rng(i).random(shape, np.float32) for i in range(num_clips))
        feeds[where] = FeatureBatches(stacks, targets, most_in_memory=limit, **options)
        print(f"{where:8}table {np.prod(shape) * num_clips * 4 / 1e9:.2f} GB,", end=" ")
        print(f"own memory {(status('RssAnon') - before) / 1e9:+.2f} GB", flush=True)
    seconds = {where: [] for where in feeds}
    for number in range(repeats):
        for where, feed in feeds.items():
            start = time.perf_counter()
            num_batches = sum(1 for _ in feed.epoch(number))
            seconds[where].append(time.perf_counter() - start)
    for where, of in seconds.items():
        print(f"{where:8}{num_batches} batches: {statistics.median(of):.2f} s, {min(of):.2f} s at best")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-stack", action="store_true", help="train the head alone, without folds")
    parser.add_argument("--head", default=TrainConfig.head)
    parser.add_argument("--memory", action="store_true", help="in turns with the same from memory")
    parser.add_argument("--folder", type=Path, help="for the data set, which is kept; by default a temporary one")
    parser.add_argument("--once", choices=("disk", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--batches", action="store_true", help="make batches alone")
    arguments = parser.parse_args()
    if arguments.batches:
        measure_batches(arguments.clips, arguments.repeats)
        return
    options = {"epochs": arguments.epochs, "head": arguments.head, "stack": not arguments.no_stack}
    options["val_split"] = arguments.no_stack  # of which there is none: no folds
    if arguments.once:
        train_once(arguments.folder, arguments.once == "memory", options)
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = arguments.folder or Path(temporary)
        command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder)]
        if not (folder / "manifest.csv").exists():
            folder.mkdir(exist_ok=True)
            make_dataset(folder, arguments.clips)
            subprocess.run([*command, "--once", "disk"], check=True)
        print("from      training    epoch   waiting   peak: own   resident   weights")
        for _ in range(arguments.repeats):
            for where in ("disk", "memory") if arguments.memory else ("disk",):
                quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
                done = subprocess.run([*command, "--once", where], check=True, stdout=subprocess.PIPE, env=quiet)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{where:8}{found['seconds']:8.1f} s{found['epoch']:7.2f} s{found['waiting']:9.0%}"
                    f"{found['own'] / 1e9:9.2f} GB{found['resident'] / 1e9:8.2f} GB   {sum(found['weights']):.6f}"
                    f"   ({found['before'] / 1e9:.2f} GB before)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
