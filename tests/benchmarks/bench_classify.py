"""`activity classify` of a folder against decoding alone and the network alone; and of one long video.

python tests/benchmarks/bench_classify.py MODEL.keras CLIP... [--rounds 3] [--runtime auto] [--long VIDEO]

Where decoding and network share the processor, no overlap makes the whole faster than the processor time of both over
the number of its cores.
"""

import argparse
import resource
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from activity.predictor.predictor import Predictor
from activity.video.sampling import read_stack


def timed(function):
    """Wall and processor seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--long", type=Path)
    arguments = parser.parse_args()
    predictor = Predictor.load(arguments.model, runtime=arguments.runtime)
    model, clips = predictor.model, arguments.clips
    if clips:
        stacks = [read_stack(path, model.spec)[0] for path in clips]
        list(predictor.predict_many(clips[:3]))  # the first call makes graphs

        def decode():
            with ThreadPoolExecutor(predictor.num_threads) as pool:
                list(pool.map(lambda path: read_stack(path, model.spec), clips))

        def compute():
            for stack in stacks:
                model.predict_windows([(model.extract_stack_features(stack), 0)])

        ways = {"decode": decode, "network": compute, "classify": lambda: list(predictor.predict_many(clips))}
        times = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                times[name].append(timed(way))
        walls = {name: statistics.median(wall for wall, _ in taken) for name, taken in times.items()}
        cpus = {name: statistics.median(cpu for _, cpu in taken) for name, taken in times.items()}
        for name in ways:
            print(f"{name:10} {walls[name]:7.2f} s   {len(clips) / walls[name]:6.2f} clips/s   cpu {cpus[name]:7.2f} s")
        print(f"classify against the slower alone: {walls['classify'] / max(walls['decode'], walls['network']):.2f}")
        print(f"classify against both in turn: {walls['classify'] / (walls['decode'] + walls['network']):.2f}")
        print(f"its processor time against both: {cpus['classify'] / (cpus['decode'] + cpus['network']):.2f}")
    if arguments.long:
        num_images, extract_features = 0, model.extract_features

        def counting(images: np.ndarray):
            nonlocal num_images
            num_images += len(images)
            return extract_features(images)

        model.extract_features = counting
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        prediction = predictor.predict(arguments.long)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{arguments.long.name}: {prediction.duration_seconds:.0f} s of video in {seconds:.1f} s "
            f"({prediction.duration_seconds / seconds:.1f} times as fast as it plays), {len(prediction.windows)} "
            f"windows, {num_images} images through the backbone, peak memory {before:.0f} -> {peak:.0f} MB"
        )


if __name__ == "__main__":
    main()
