"""How time and memory grow with the number of clips, the length of a video, the frames of a clip, and the workers.

pip install '.[bench]' && python tests/benchmarks/bench_growth.py [--clips 100 1000 10000] [--out growth.png]

Each measurement runs in a process of its own, whose peak memory is that of its largest process. Clips are small and
synthetic (64x64, 12 frames), so what is seen is the cost of handling them; long videos are 320x240 H.264, GOP 250.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import bench_decode
import bench_preprocess
from matplotlib import pyplot as plt

from activity.config import ClipSpec, TrainConfig
from activity.datasets.dataset import load_dataset
from activity.datasets.preprocessing import preprocess
from activity.runtimes.features import extract_features
from activity.video.sampling import iter_frames

SMALL = ClipSpec(num_frames=8, height=32, width=32, streams=("rgb",))


# === What is measured: each runs in a process of its own ===


def decode(folder, *, workers, small=True):
    preprocess(folder / "videos", folder / "dataset", SMALL if small else ClipSpec(), num_workers=workers)


def features(folder):
    from activity.models.backbones import build_backbone

    dataset = load_dataset(folder / "dataset")
    backbone = build_backbone("mobilenet_v2_035", height=32, width=32, weights="none")
    extract_features(dataset, dataset.samples, backbone)


def head(folder):
    """Five epochs over cached features, one member."""
    import keras

    from activity.training.trainer import train

    keras.utils.set_random_seed(0)
    weights = folder / "backbone.weights.h5"
    if not weights.exists():
        from activity.models.backbones import build_backbone

        build_backbone("mobilenet_v2_035", height=32, width=32, weights="none").save_weights(weights)
    config = TrainConfig(backbone="mobilenet_v2_035", weights=str(weights), epochs=5, members=1)
    train(load_dataset(folder / "dataset"), config, work_dir=folder / "work")


def one_video(path, *, num_frames=16, rate=None, streams=("rgb",)):
    spec = ClipSpec(num_frames=num_frames, frames_per_second=rate, streams=tuple(streams))
    for _ in iter_frames(path, spec, num_threads=0):
        pass


MEASURED = {function.__name__: function for function in (decode, features, head, one_video)}


def measure(name, path, **options):
    """`(seconds, MB)` of one of the functions above, in a fresh process."""
    command = [sys.executable, __file__, "--one", json.dumps([name, str(path), options])]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def answer(text):
    name, path, options = json.loads(text)
    if name in ("features", "head"):
        import activity.training.trainer  # noqa: F401  (the import of Keras is no growth)
    start = time.perf_counter()
    MEASURED[name](Path(path), **options)
    seconds = time.perf_counter() - start
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([seconds, max(peaks)]))


# === The table ===


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return answer(arguments.one)
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.6), layout="constrained", sharey=True)
    with tempfile.TemporaryDirectory() as temporary:
        against_clips(Path(temporary), arguments.clips, axes[0])
        videos = {seconds: Path(temporary) / f"{seconds}.mp4" for seconds in arguments.seconds}
        for seconds, path in videos.items():
            bench_decode.make_video(path, 320, 240, 25 * seconds, "libx264", bench_decode.X264)
        against_length(videos, axes[1])
        against_frames(videos[min(videos)], axes[2])
        against_workers(Path(temporary), axes[3])
    axes[0].set_ylabel("seconds")
    figure.savefig(arguments.out, dpi=120)


def show(axis, title, numbers, rows):
    """One part of the table, and its panel: rows are name -> [(seconds, MB)], one for each number."""
    print(f"\n{title:34}" + "".join(f"{number:>20}" for number in numbers))
    for name, measured in rows.items():
        print(f"{name:34}" + "".join(f"{seconds:10.2f} s {peak:5.0f} MB" for seconds, peak in measured))
        axis.loglog(numbers, [seconds for seconds, _ in measured], marker="o", label=name)
    axis.set(xlabel=title, xticks=numbers, xticklabels=numbers)
    axis.minorticks_off()
    axis.legend(fontsize=8)


def against_clips(folder, numbers, axis):
    rows = {"preprocess": [], "preprocess again": [], "features": [], "head, 5 epochs": []}
    for number in numbers:
        here = folder / str(number)
        bench_preprocess.make_clips(here / "videos", number, num_frames=12, height=64, width=64)
        rows["preprocess"].append(measure("decode", here, workers=2))
        rows["preprocess again"].append(measure("decode", here, workers=2))
        rows["features"].append(measure("features", here))
        measure("head", here)  # fills the cache
        rows["head, 5 epochs"].append(measure("head", here))
    show(axis, "number of clips", numbers, rows)


def against_length(videos, axis):
    every = {"num_frames": 16, "rate": 8}
    rows = {
        "16 frames of all": [measure("one_video", path) for path in videos.values()],
        "16 frames, all streams": [
            measure("one_video", path, streams=["rgb", "motion", "motion_crop"]) for path in videos.values()
        ],
        "8 frames a second": [measure("one_video", path, **every) for path in videos.values()],
        "8 a second, all streams": [
            measure("one_video", path, **every, streams=["rgb", "motion", "motion_crop"]) for path in videos.values()
        ],
    }
    show(axis, "seconds of one video", list(videos), rows)


def against_frames(path, axis):
    numbers = [8, 16, 32, 64]
    rows = {
        streams: [measure("one_video", path, num_frames=number, streams=streams.split(", ")) for number in numbers]
        for streams in ("rgb", "rgb, motion, motion_crop")
    }
    show(axis, "frames of a clip", numbers, rows)


def against_workers(folder, axis):
    """Clips of a usual size: small ones take as long to hand to a worker as to decode."""
    numbers, measured = [1, 2], []
    for workers in numbers:
        here = folder / f"workers{workers}"
        bench_preprocess.make_clips(here / "videos", 100, num_frames=200, height=240, width=320)
        measured.append(measure("decode", here, workers=workers, small=False))
    show(axis, "workers", numbers, {"preprocess 100 clips, all streams": measured})


if __name__ == "__main__":
    main()
