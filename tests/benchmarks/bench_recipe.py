"""What each part of the recipe is worth: accuracy on group-disjoint folds.

python tests/benchmarks/bench_recipe.py streams|training|heads DATASET:FOLDS... [--seeds 1] [--out DIR]

DATASET is a folder made by `activity preprocess`, FOLDS as for `activity cross-validate`. Prints a table of means over
seeds with their standard errors over the folds, in brackets the baseline, and seconds a run; --out also draws it.

`streams` is the default recipe on some of the streams. `training` and `heads` change one thing at a time in a recipe
that is quicker to train: one member, on the stream `motion_crop` alone.
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from keras import ops
from matplotlib.figure import Figure

from activity.config import TrainConfig
from activity.datasets.dataset import load_dataset
from activity.evaluation.metrics import mean_and_error
from activity.model_selection.cross_validation import cross_validate
from activity.models import heads, layers
from activity.reports.style import BLUE, VERMILION, plain_text, save_figure, shortened
from activity.training import fitting, trainer


def smoothed_loss(label_ids, member_predictions):
    """The loss of the members with 10 % of the truth spread over all labels."""
    uniform = -ops.mean(ops.log(ops.maximum(member_predictions, 1e-7)), axis=(1, 2))
    return 0.9 * plain_loss(label_ids, member_predictions) + 0.1 * uniform


plain_loss = fitting.loss_of_members


class Constant:
    """In the place of the schedule: the learning rate stays."""

    def __new__(cls, *_, warmup_target, **__):
        return warmup_target


# name -> (fields of TrainConfig that differ, streams or None for all, patches of what has no option)
STREAMS = {
    "all three (default)": ({}, None, ()),
    "rgb": ({}, ("rgb",), ()),
    "motion": ({}, ("motion",), ()),
    "motion_crop": ({}, ("motion_crop",), ()),
    "motion, motion_crop": ({}, ("motion", "motion_crop"), ()),
    "rgb, motion_crop": ({}, ("rgb", "motion_crop"), ()),
}


def quick(settings=(), patches=()):
    return {"members": 1, **dict(settings)}, ("motion_crop",), patches


TRAINING = {
    "default": quick(),
    "three members": quick({"members": 3}),
    "no dropout": quick({"dropout": 0.0}),
    "dropout 0.8": quick({"dropout": 0.8}),
    "no weight decay": quick({"weight_decay": 0.0}),
    "no square root": quick(patches=((layers, "_signed_root", lambda x, _: x),)),
    "features as they are": quick(patches=((trainer, "standardize", lambda *_: None),)),
    "constant learning rate": quick(patches=((fitting.keras.optimizers.schedules, "CosineDecay", Constant),)),
    "no warm-up": quick(patches=((fitting, "_WARM_UP", 0.0),)),
    "label smoothing 0.1": quick(patches=((fitting, "loss_of_members", smoothed_loss),)),
    "balanced class weights": quick({"class_weight": "balanced"}),
}
HEADS = {name: quick({"head": name}) for name in ("pooled", "chunks", *heads.HEADS)}
TABLES = {"streams": STREAMS, "training": TRAINING, "heads": HEADS}


def measure(path, folds, variant, seeds):
    """Accuracies by fold `(folds,)`, the mean over seeds; that of the baseline; seconds a run."""
    settings, streams, patches = variant
    dataset = load_dataset(path)
    dataset = dataset.with_streams(streams or dataset.spec.streams)
    runs, start = [], time.perf_counter()
    for seed in range(seeds):
        config = TrainConfig(**{**settings, "seed": seed})
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(mock.patch.object(*patch))
            work_dir = stack.enter_context(tempfile.TemporaryDirectory())
            runs.append(cross_validate(dataset, config, folds=folds, work_dir=Path(work_dir)))
    seconds = (time.perf_counter() - start) / seeds
    by_fold = np.mean([list(run.fold_accuracies.values()) for run in runs], axis=0)
    return by_fold, runs[0].baseline.accuracy, seconds


@plain_text
def ablation_figure(rows):
    """Effect of each change: a dot and its standard error per row, a panel per data set, the first row dashed.

    `rows` are a name, and data set -> (mean, standard error), the reference first; a row may lack data sets.
    """
    datasets = list(dict.fromkeys(name for _, scores in rows for name in scores))
    figure = Figure(figsize=(2.6 + 2.6 * len(datasets), 0.32 * len(rows) + 1.1), layout="constrained")
    panels = figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        for place, (_, scores) in enumerate(rows):
            if dataset in scores:
                mean, error = scores[dataset]
                colour = VERMILION if place == 0 else BLUE
                axes.errorbar(mean, place, xerr=error, fmt="o", color=colour, capsize=3)
        if dataset in rows[0][1]:
            axes.axvline(rows[0][1][dataset][0], color=VERMILION, linestyle="--", linewidth=1, zorder=0)
        axes.set_title(shortened(dataset), fontsize="medium")
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel("accuracy \N{PLUS-MINUS SIGN} standard error", fontsize="small")
    panels[0].set_yticks(np.arange(len(rows)), [shortened(name) for name, _ in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("datasets", nargs="+", metavar="DATASET:FOLDS")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", help="names of rows, separated by semicolons")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = TABLES[arguments.what]
    if arguments.only:
        rows = {name: rows[name] for name in arguments.only.split(";")}
    sets = [each.rpartition(":") for each in arguments.datasets]
    print("| | " + " | ".join(f"{Path(path).name} | s" for path, _, _ in sets) + " |", flush=True)
    print("|---|" + "---|---|" * len(sets), flush=True)
    figure_rows = []
    for name, variant in rows.items():
        cells, scores = [], {}
        for path, _, folds in sets:
            by_fold, baseline, seconds = measure(Path(path), folds, variant, arguments.seeds)
            mean, error = scores[Path(path).name] = mean_and_error(by_fold)
            cells += [f"{mean:.3f} +- {error:.3f} ({baseline:.3f})", f"{seconds:.0f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        figure_rows.append((name, scores))
    if arguments.out:
        print(save_figure(ablation_figure(figure_rows), arguments.out / f"{arguments.what}.png"))


if __name__ == "__main__":
    main()
