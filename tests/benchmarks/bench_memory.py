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
from activity.datasets.dataset import stream_dir, write_stacks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames-per-second", type=float)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset_dir, spec = Path(folder), ClipSpec(frames_per_second=arguments.frames_per_second)
        for stream in spec.streams:
            stream_dir(dataset_dir, stream).mkdir()
        start = time.perf_counter()
        sampled = write_stacks(arguments.video, spec, dataset_dir, "sample")
        seconds = time.perf_counter() - start
        megabytes = sum(path.stat().st_size for path in dataset_dir.glob("*/*.npy")) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(
        f"{sampled.num_frames} frames decoded, {len(sampled.timestamps_seconds)} kept ({megabytes:.0f} MB): "
        f"{seconds:.0f} s, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
