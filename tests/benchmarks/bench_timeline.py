"""How well a timeline finds what happens when: clips joined to long videos, by models that never saw the group.

python tests/benchmarks/bench_timeline.py DATASET:FOLDS [--seed 0] [--runtime auto]

DATASET is a folder made by `activity preprocess`, FOLDS as for `activity cross-validate`. For each fold a model is
trained on all others, and the clips of each group in the fold become one video, in random order, so that the boundaries
are known. Prints frame accuracy and segment F1 at 50 % overlap (Lea et al. 2017) of each video and their means, and the
same for windows as long as the longest clip of training instead of a short one.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import load_dataset
from activity.datasets.samples import Segment
from activity.evaluation.segments import frame_accuracy, segment_f1
from activity.model_selection.cross_validation import divide_folds
from activity.predictor.predictor import Predictor
from activity.training.trainer import train
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


def scores(predictor, path, truth):
    segments = predictor.predict(path, timeline=True).timeline.segments
    return frame_accuracy(truth, segments), segment_f1(truth, segments, overlap=0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET:FOLDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", default="auto")
    arguments = parser.parse_args()
    folder, _, folds = arguments.dataset.rpartition(":")
    dataset = load_dataset(Path(folder))
    config = TrainConfig(seed=arguments.seed)
    random = np.random.default_rng(arguments.seed)
    print("| video | clips | seconds | frame accuracy | segment F1 | ... with long windows | |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for part in divide_folds(dataset, folds, seed=arguments.seed).values():
        with tempfile.TemporaryDirectory() as work_dir:
            classifier = train(part, config, work_dir=Path(work_dir, "training"), runtime=arguments.runtime).classifier
            tested = [sample for sample in part.samples if sample.split == "test"]
            for group in dict.fromkeys(sample.group for sample in tested):
                clips = random.permutation([sample for sample in tested if sample.group == group]).tolist()
                path = Path(work_dir, "joined.avi")
                truth = join(clips, dataset.videos_dir, path)
                short = scores(Predictor(classifier), path, truth)
                info = classifier.info
                classifier.info = dataclasses.replace(info, window_seconds=info.clip_seconds)
                rows.append((*short, *scores(Predictor(classifier), path, truth)))
                classifier.info = info
                cells = " | ".join(f"{score:.3f}" for score in rows[-1])
                print(f"| {group} | {len(clips)} | {truth[-1].end_seconds:.1f} | {cells} |", flush=True)
    print("| mean | | | " + " | ".join(f"**{mean:.3f}**" for mean in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main()
