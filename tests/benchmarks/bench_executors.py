"""`activity preprocess` in processes of this machine against a Ray cluster on it, in turns.

python tests/benchmarks/bench_executors.py [--clips 2000] [--rounds 2] [--workers 2]

Both times are of the whole command, with the start of Python, and of the cluster. Clips are synthetic MPEG-4, 160x120,
2 seconds; frames are 64x64, rgb and motion. The folders of each round are compared.
"""

import argparse
import filecmp
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_preprocess import make_clips


def preprocess(videos, out, *options):
    """Run the command; returns its seconds."""
    words = [videos, "--out", out, "--size", "64", "--streams", "rgb,motion", *options]
    start = time.perf_counter()
    command = [sys.executable, "-m", "activity", "preprocess", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def are_equal(one, other):
    """Whether two folders hold the same files, byte by byte."""
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in (one, other)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(one, other, names[0], shallow=False)[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_clips(folder / "videos", arguments.clips, num_frames=50, height=120, width=160)
        times, equal = {"local": [], "ray": []}, []
        for round_ in range(arguments.rounds):
            for name in ("local", "ray") if round_ % 2 == 0 else ("ray", "local"):
                options = ("--executor", name, "--workers", arguments.workers)
                taken = preprocess(folder / "videos", folder / name, *options)
                times[name].append(taken)
                print(f"{name:6} {taken:6.1f} s   load {os.getloadavg()[0]:.1f}", flush=True)
            equal.append(are_equal(folder / "local", folder / "ray"))
            for name in times:
                shutil.rmtree(folder / name)
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        few = folder / "few"
        make_clips(few, 2 * arguments.workers, num_frames=50, height=120, width=160)
        starts = {name: preprocess(few, folder / f"few {name}", "--executor", name) for name in times}
        print(f"{arguments.clips} clips: ray takes {medians['ray'] / medians['local']:.2f} times the time of local")
        print(f"{2 * arguments.workers} clips: local {starts['local']:.1f} s, ray {starts['ray']:.1f} s")
        print(f"the folders are equal: {all(equal)}")


if __name__ == "__main__":
    main()
