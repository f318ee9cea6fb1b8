"""How soon a stream shows a new activity, and what that costs in accuracy, by models that never saw the group.

python tests/benchmarks/bench_latency.py DATASET:FOLDS [--only FOLD ...] [--models DIR] [--seed 0] [--runtime auto]

DATASET is a folder made by `activity preprocess` of films with labelled segments, FOLDS as for `cross-validate`. For
each fold (or each that is named) two models are trained on all others: of windows (the default recipe), and of steps
that carry a state on (`--labels-per step --head lstm_forward`). Then the films of the fold are read as `activity
classify --follow` reads a stream. Models are kept in DIR, `FOLD-windows.keras` and `FOLD-steps.keras`, and trained only
where they are not there.

Printed of each model, over all films: the seconds from a true change of the label until the stream shows the new one
(median and quartiles; the length of the segment where it never does), the same in windows of the first model, the
number of changes and how many are never shown; the frame accuracy of the answers as they come, the same moved back by
the median delay, and that of the timeline of the whole film. Computing takes its time beside: see `latency_seconds`.
"""

import argparse
import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np

from activity.config import TrainConfig
from activity.datasets.dataset import load_dataset
from activity.datasets.films import films_in
from activity.datasets.samples import Segment
from activity.evaluation.segments import frame_accuracy, until
from activity.model_selection.cross_validation import divide_folds
from activity.models.saving import save_model
from activity.predictor.live import watch
from activity.predictor.predictor import Predictor
from activity.runtimes.exported import load_inference_model
from activity.training.trainer import train
from activity.video.streams import GAP_SECONDS, gap_frames

RECIPES = {"windows": {}, "steps": {"labels_per": "step", "head": "lstm_forward"}}
FRAMES_PER_SECOND = 100.0  # any that is high


def answers(model, path):
    """What a stream shows, as segments: from the moment that all frames of a decision are there to the next one."""
    late = GAP_SECONDS if gap_frames(model.spec, FRAMES_PER_SECOND) else 0.0  # a motion stream waits for a later frame
    decisions = [(one.time_seconds + late, one.label) for one in watch(model, str(path), timeout_seconds=0.5)]
    ends = [start for start, _ in decisions[1:]]
    return [Segment(start, end, label, 1.0) for (start, label), end in zip(decisions, [*ends, np.inf], strict=True)]


def delays(truth, shown):
    """Seconds until each true segment but the first, of another label than the one before it, and its length."""
    found = []
    for before, segment in itertools.pairwise(truth):
        if before.label != segment.label:
            starts = (x.start_seconds for x in until(shown, segment.end_seconds)
                      if x.label == segment.label and x.end_seconds > segment.start_seconds)  # fmt: skip
            length = segment.end_seconds - segment.start_seconds
            found.append((max(0.0, next(starts, segment.end_seconds) - segment.start_seconds), length))
    return found


def moved(segments, seconds):
    return [dataclasses.replace(x, start_seconds=x.start_seconds - seconds, end_seconds=x.end_seconds - seconds)
            for x in segments]  # fmt: skip


def accuracy(pairs):
    """Fraction of the time of all films, `(truth, found)` each, that has the correct label."""
    seconds = [sum(x.end_seconds - x.start_seconds for x in truth) for truth, _ in pairs]
    return np.average([frame_accuracy(truth, found) for truth, found in pairs], weights=seconds)


def quartiles(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def row(name, films, window_seconds):
    """A line of the table; films are `(truth, shown, timeline)` each, and `window_seconds` one for each of them."""
    of_films = [np.array(delays(truth, shown)) for truth, shown, _ in films]  # (n, 2) each
    seconds, lengths = np.concatenate(of_films).T
    windows = np.concatenate([of_film[:, 0] / window for of_film, window in zip(of_films, window_seconds, strict=True)])
    live = accuracy([(truth, shown) for truth, shown, _ in films])
    back = accuracy([(truth, moved(shown, np.median(seconds))) for truth, shown, _ in films])
    whole = accuracy([(truth, timeline) for truth, _, timeline in films])
    counts = f"{len(seconds)} | {(seconds >= lengths).sum()}"
    return (
        f"| {name} | {quartiles(seconds)} | {quartiles(windows)} | {counts} | {live:.3f} | {back:.3f} | {whole:.3f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET:FOLDS")
    parser.add_argument("--only", nargs="+", metavar="FOLD", help="default: all")
    parser.add_argument("--models", type=Path, default=None, metavar="DIR", help="default: a temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", default="auto")
    arguments = parser.parse_args()
    folder, _, folds = arguments.dataset.rpartition(":")
    dataset = load_dataset(Path(folder))
    parts = divide_folds(dataset, folds, seed=arguments.seed)
    films, window_seconds = {name: [] for name in RECIPES}, []
    with tempfile.TemporaryDirectory() as temporary:
        for fold in arguments.only or parts:
            tested = [film for film in films_in(parts[fold].split("test")) if film.segments]
            for name, recipe in RECIPES.items():
                model_path = (arguments.models or Path(temporary)) / f"{fold}-{name}.keras"
                if not model_path.exists():
                    config = TrainConfig(seed=arguments.seed, **recipe)
                    work_dir = Path(temporary, f"{fold}-{name}")
                    save_model(train(parts[fold], config, work_dir=work_dir).classifier, model_path)
                model = load_inference_model(model_path, runtime=arguments.runtime)
                if name == "windows":
                    window_seconds += [model.window_seconds] * len(tested)
                for film in tested:
                    path = dataset.videos_dir / film.path
                    whole = Predictor(model).predict(path, timeline=True)
                    truth, timeline = until(film.segments, whole.duration_seconds), whole.timeline.segments
                    films[name].append((truth, until(answers(model, path), whole.duration_seconds), timeline))
    print("| | seconds | windows | changes | never shown | accuracy | moved back | of the timeline |")
    print("|---|---|---|---|---|---|---|---|")
    for name in RECIPES:
        print(row(name, films[name], window_seconds))


if __name__ == "__main__":
    main()
