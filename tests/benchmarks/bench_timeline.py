"""Films whose segments are known, to measure timelines on: the clips of a data set, one after the other.

python tests/benchmarks/bench_timeline.py DATASET --out FILMS [--by COLUMN] [--seed 0]
activity preprocess FILMS --out FILMS_DATASET
activity cross-validate FILMS_DATASET --folds groups --json [--labels-per step [--head lstm_forward]] [--seed N]

DATASET is a folder made by `activity preprocess` of clips that are whole videos. Those of one group, or of one value of
another column of its manifest, become one film, in random order. FILMS gets a manifest with their times.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from activity.datasets.dataset import load_dataset
from activity.datasets.samples import Segment
from activity.video.decoder import VideoReader
from activity.video.writer import write_video


def join(clips, videos_dir, path):
    """Write clips one after the other; returns the true segments, of which neighbours differ."""
    truth, num_frames = [], 0

    def frames():
        nonlocal num_frames
        for sample in clips:
            first = num_frames
            with VideoReader(videos_dir / sample.path) as reader:
                for _ in reader:
                    num_frames += 1
                    yield reader.retrieve()
            if truth and truth[-1].label == sample.label:
                first = truth.pop().start_seconds * rate
            truth.append(Segment(first / rate, num_frames / rate, sample.label, 1.0))

    with VideoReader(videos_dir / clips[0].path) as reader:
        rate = reader.info.frames_per_second
    write_video(path, frames(), frames_per_second=rate)
    return truth


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--by", default="group", metavar="COLUMN")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dataset, random = load_dataset(arguments.dataset), np.random.default_rng(arguments.seed)
    of_films = defaultdict(list)
    for sample in dataset.samples:
        of_films[sample.group if arguments.by == "group" else sample.extra[arguments.by]].append(sample)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "group", "start_seconds", "end_seconds"))
        for name, samples in sorted(of_films.items()):
            path = arguments.out / f"{name}.avi"
            truth = join(random.permutation(samples).tolist(), dataset.videos_dir, path)
            table.writerows((path.name, x.label, name, x.start_seconds, x.end_seconds) for x in truth)
            print(f"{path}: {len(truth)} segments, {truth[-1].end_seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
