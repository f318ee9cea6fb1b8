"""`activity preprocess`: one worker against two, the whole against pure decoding and resizing, and a second run.

python tests/benchmarks/bench_preprocess.py [--clips 120] [--finished 1000] [--rounds 3] [--streams rgb]

"pure" is one process that decodes every frame and resizes the sampled ones, and writes nothing; with W workers it could
take 1/W of that at best. Clips are synthetic MPEG-4, 320x240, 8 seconds.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from activity.config import ClipSpec
from activity.datasets.preprocessing import preprocess
from activity.video.sampling import read_stack
from activity.video.writer import write_video


def make_clips(folder, num_clips, *, num_frames, height, width):
    """Videos of a noise image that is panned, each along another way, in two classes."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (2 * height, 2 * width, 3), dtype=np.uint8), (0, 0), 3)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    for clip in range(num_clips):
        path = folder / "ab"[clip % 2] / f"{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        ways = rng.uniform(0, 1, 4)
        steps = np.linspace(0, 1, num_frames)
        tops = (height * (ways[0] + (ways[1] - ways[0]) * steps)).astype(int)
        lefts = (width * (ways[2] + (ways[3] - ways[2]) * steps)).astype(int)
        frames = (scene[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True))
        write_video(path, frames, frames_per_second=25)


def seconds(function, *arguments, **options):
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def pure(videos, spec):
    for path in sorted(videos.glob("*/*")):
        read_stack(path, spec)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--finished", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", nargs="+", default=["rgb"])
    arguments = parser.parse_args()
    spec = ClipSpec(streams=tuple(arguments.streams))
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_clips(folder / "videos", arguments.clips, num_frames=200, height=240, width=320)
        times = {"pure": [], "1 worker": [], "2 workers": []}
        for round_ in range(arguments.rounds):
            times["pure"].append(seconds(pure, folder / "videos", spec))
            for workers, name in ((1, "1 worker"), (2, "2 workers")):
                out = folder / f"out{round_}{workers}"
                times[name].append(seconds(preprocess, folder / "videos", out, spec, num_workers=workers))
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        for name, median in medians.items():
            print(f"{name:12} {median:6.2f} s   {arguments.clips / median:6.1f} clips/s")
        print(f"2 workers against 1: {medians['1 worker'] / medians['2 workers']:.2f} times as fast")
        print(f"1 worker against pure: {medians['1 worker'] / medians['pure']:.2f} times the time")
        print(f"2 workers against half of pure: {2 * medians['2 workers'] / medians['pure']:.2f} times the time")
        make_clips(folder / "many", arguments.finished, num_frames=12, height=64, width=64)
        small = ClipSpec(num_frames=4, height=32, width=32, streams=spec.streams)
        first = seconds(preprocess, folder / "many", folder / "finished", small, num_workers=2)
        again = seconds(preprocess, folder / "many", folder / "finished", small, num_workers=2)
        print(f"{arguments.finished} small clips: first run {first:.2f} s, second run {again:.2f} s")
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"peak memory: this process {peaks[0]:.0f} MB, the largest worker {peaks[1]:.0f} MB")


if __name__ == "__main__":
    main()
