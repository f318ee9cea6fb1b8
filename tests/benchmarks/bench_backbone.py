"""The backbone over time, each thing beside what it is measured against, taking turns in one run.

python tests/benchmarks/bench_backbone.py [--backbone mobilenet_v2] [--size 112] [--num-frames 32] [--rounds 3]
python tests/benchmarks/bench_backbone.py --only distributed --backbone mobilenet_v2_035 --size 64

    distributed  our folded `TimeDistributed` against the stock one: first call, and each further call.
    bare         the folded one against the backbone alone on the same frames; one batch against a call for each frame.
    padding      extracting features of clips with half of their frames missing against full ones, three streams.
    odd          what it costs that the last batch has another number of frames: the first such call, and later ones.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from activity.config import ClipSpec
from activity.datasets.dataset import Dataset, stack_path
from activity.datasets.samples import Sample
from activity.models.backbones import build_backbone
from activity.models.layers import TimeDistributed, uses_jit
from activity.runtimes.features import extract_features

LAYERS = {"stock": keras.layers.TimeDistributed, "folded": TimeDistributed}
PARTS = ("distributed", "bare", "padding", "odd")


def backbone_of(arguments):
    return build_backbone(arguments.backbone, height=arguments.size, width=arguments.size, weights="none")


def over_time(layer, backbone, arguments):
    frames = keras.Input((arguments.num_frames, arguments.size, arguments.size, 3), dtype="uint8")
    model = keras.Model(frames, layer(backbone)(frames))
    model.jit_compile = uses_jit()
    return model


def random_frames(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def seconds(function, *arguments, **options):
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def in_turns(ways, num_rounds):
    """Median seconds of each way: the machine's speed drifts, so they take turns. The first round does not count."""
    times = {name: [] for name in ways}
    for _ in range(num_rounds + 1):
        for name, function in ways.items():
            times[name].append(seconds(function))
    return {name: statistics.median(of_way[1:]) for name, of_way in times.items()}


def measure_distributed(arguments):
    clips = random_frames(2, arguments.num_frames, arguments.size, arguments.size, 3)
    first, steady = ({name: [] for name in LAYERS} for _ in range(2))
    for _ in range(arguments.rounds):
        models = {name: over_time(layer, backbone_of(arguments), arguments) for name, layer in LAYERS.items()}
        for name, model in models.items():
            first[name].append(seconds(model.predict_on_batch, clips))
        for _ in range(10):
            for name, model in models.items():
                steady[name].append(seconds(model.predict_on_batch, clips))
        keras.backend.clear_session()
    for what, times in (("first call", first), ("each further call", steady)):
        stock, folded = (statistics.median(times[name]) for name in LAYERS)
        print(
            f"{what:32} stock {stock:7.3f} s   folded {folded:7.3f} s   stock/folded {stock / folded:5.1f}", flush=True
        )


def measure_bare(arguments):
    backbone = backbone_of(arguments)
    folded = over_time(TimeDistributed, backbone, arguments)
    clips = random_frames(2, arguments.num_frames, arguments.size, arguments.size, 3)
    frames = clips.reshape(-1, *clips.shape[2:])  # (2, T, H, W, 3) -> (2*T, H, W, 3)
    ways = {
        "bare": lambda: backbone.predict_on_batch(frames),
        "folded": lambda: folded.predict_on_batch(clips),
        "frame by frame": lambda: [backbone.predict(frame[None], verbose=0) for frame in frames[:8]],
    }
    times = in_turns(ways, 5 * arguments.rounds)
    rates = {name: (8 if name == "frame by frame" else len(frames)) / taken for name, taken in times.items()}
    print(
        f"{'frames/s':32} bare {rates['bare']:8.1f}     folded {rates['folded']:8.1f}     "
        f"folded/bare {rates['folded'] / rates['bare']:5.2f}"
    )
    print(
        f"{'frames/s':32} one batch {rates['bare']:8.1f}   predict for each frame {rates['frame by frame']:8.1f}   "
        f"ratio {rates['bare'] / rates['frame by frame']:5.1f}",
        flush=True,
    )


def synthetic_dataset(folder, spec, num_clips, num_real):
    """A data set whose clips have `num_real` frames each."""
    samples = []
    for i in range(num_clips):
        samples.append(Sample(path=f"{i}.avi", label="a", group=str(i), sample_id=f"{num_real}-{i}"))
        for stream in spec.streams:
            path = stack_path(folder, samples[-1].sample_id, stream)
            path.parent.mkdir(exist_ok=True)
            np.save(path, random_frames(num_real, spec.height, spec.width, 3))
    return Dataset(folder, folder, spec, samples, [])


def measure_padding(arguments):
    backbone = backbone_of(arguments)
    spec = ClipSpec(num_frames=16, height=arguments.size, width=arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            name: synthetic_dataset(Path(folder), spec, 24, num_real) for name, num_real in (("full", 16), ("half", 8))
        }
        ways = {
            name: lambda dataset=dataset: extract_features(dataset, dataset.samples, backbone, keep=False)
            for name, dataset in sets.items()
        }
        times = in_turns(ways, arguments.rounds)
    full, half = 24 * 16 * 3 / times["full"], 24 * 8 * 3 / times["half"]
    print(
        f"{'24 clips of 16 frames, of 8':32} full {times['full']:7.3f} s    half {times['half']:7.3f} s     "
        f"half/full {times['half'] / times['full']:5.2f}   real frames/s {full:.1f} and {half:.1f}",
        flush=True,
    )


def measure_odd(arguments):
    first, later, whole = [], [], []
    frames = random_frames(32, arguments.size, arguments.size, 3)
    for _ in range(arguments.rounds):
        backbone = backbone_of(arguments)
        backbone.predict_on_batch(frames)
        whole.append(seconds(backbone.predict_on_batch, frames))
        first.append(seconds(backbone.predict_on_batch, frames[:19]))
        later.append(seconds(backbone.predict_on_batch, frames[:11]))
        keras.backend.clear_session()
    whole, first, later = (statistics.median(times) for times in (whole, first, later))
    print(
        f"{'batches of 32, then of 19 and 11':32} full {whole:7.3f} s   first odd {first:7.3f} s   "
        f"next odd {later:7.3f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="new models each, where first calls count")
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    print(
        f"{arguments.backbone}, {arguments.size} px, T={arguments.num_frames}, Keras {keras.__version__} on "
        f"{keras.backend.backend()}; medians of {arguments.rounds} rounds"
    )
    parts = dict(zip(PARTS, (measure_distributed, measure_bare, measure_padding, measure_odd), strict=True))
    for name, measure in parts.items():
        if arguments.only in (None, name):
            measure(arguments)


if __name__ == "__main__":
    main()
