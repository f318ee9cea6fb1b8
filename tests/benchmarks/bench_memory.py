"""Time and peak memory of decoding one video into a frame stack, as a preprocessing worker does it.

python tests/benchmarks/bench_memory.py VIDEO [--frames-per-second R]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2

from activity.config import ClipSpec
from activity.store import write_stack


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames-per-second", type=float)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.npy"
        start = time.perf_counter()
        sampled = write_stack(arguments.video, ClipSpec(frames_per_second=arguments.frames_per_second), path)
        seconds, megabytes = time.perf_counter() - start, path.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(
        f"{sampled.num_frames} frames decoded, {len(sampled.timestamps_seconds)} kept ({megabytes:.0f} MB): "
        f"{seconds:.0f} s, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
