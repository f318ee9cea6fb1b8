"""What the recipe and each part of it are worth: accuracy on group-disjoint folds, beside the baseline.

python tests/benchmarks/bench_recipe.py recipe|readers|lstm|streams|training|heads|backbones DATASET:FOLDS... \\
    [--seeds 3] [--only ROWS] [--out DIR]

DATASET is a folder made by `activity preprocess`, FOLDS as for `activity cross-validate`. Prints a table: accuracy over
all clips, pooled over the folds, the mean over seeds, with the standard error over the folds. Each fold is written down
in DIR/results.jsonl as it ends; the same command later goes on with what is missing there.

- `recipe`: the default (a stack), its head alone, the head that was the default before, and the baseline; and what the
  answers are worth that a model gives which was trained with `--precision 0.9`.
- `readers`: each model of the stack alone, and the stack without it.
- `lstm`, `heads`: a head alone, not calibrated; of `lstm` with one setting changed at a time.
- `streams`, `training`, `backbones`: the default recipe, one setting changed at a time.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from activity.config import TrainConfig
from activity.datasets.dataset import load_dataset
from activity.evaluation.linear import baseline_probabilities, predict_linear
from activity.evaluation.metrics import expected_calibration_error, interval_by_group, mean_and_error
from activity.model_selection.cross_validation import divide_folds
from activity.models.classifier import ActivityClassifier
from activity.models.heads import HEADS
from activity.models.stack import stack_fractions, stacked_head
from activity.reports.style import BLUE, VERMILION, plain_text, save_figure, shortened
from activity.runtimes.features import extract_features
from activity.training.stacking import fit_base_models, pooling_of, through_windows
from activity.training.trainer import build_classifier, train

ALONE = {"stack": False, "val_split": True}  # a head alone; nothing asks for folds, so it trains in a third of the time
PRECISION = 0.9  # asked for; it sets a threshold, and changes no probability

# table -> row -> (fields of TrainConfig that differ from the default, streams or None for all)
TABLES = {
    "recipe": {
        "stack (default)": ({}, None),
        "before: chunks": ({"head": "chunks", "mixup": 0.0, **ALONE}, None),
    },
    "readers": {"stack (default)": ({}, None)},
    "lstm": {
        "lstm": (ALONE, None),
        "32 units": ({"units": 32, **ALONE}, None),
        "128 units": ({"units": 128, **ALONE}, None),
        "one member": ({"members": 1, **ALONE}, None),
        "no dropout": ({"dropout": 0.0, **ALONE}, None),
        "no mixup": ({"mixup": 0.0, **ALONE}, None),
        "weight decay 0.1": ({"weight_decay": 0.1, **ALONE}, None),
        "batches of 32": ({"batch_size": 32, **ALONE}, None),
        "25 epochs": ({"epochs": 25, **ALONE}, None),
    },
    "streams": {
        "all three (default)": ({}, None),
        "rgb": ({}, ("rgb",)),
        "motion": ({}, ("motion",)),
        "motion_crop": ({}, ("motion_crop",)),
        "motion, motion_crop": ({}, ("motion", "motion_crop")),
    },
    "training": {
        "stack (default)": ({}, None),
        "one member": ({"members": 1}, None),
        "no dropout": ({"dropout": 0.0}, None),
        "no mixup": ({"mixup": 0.0}, None),
        "weight decay 0.01": ({"weight_decay": 0.01}, None),
        "balanced class weights": ({"class_weight": "balanced"}, None),
    },
    "heads": {name: ({"head": name, **ALONE}, None) for name in HEADS},
    "backbones": {name: ({"backbone": name}, None) for name in ("mobilenet_v2", "mobilenet", "mobilenet_v2_035")},
}


def run_fold(part, config, backbone):
    """Train on all folds but one; for a JSON line: what each model says about the videos of that one."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work_dir:
        asked = dataclasses.replace(config, precision=PRECISION)
        classifier = train(part, asked, work_dir=Path(work_dir), backbone=backbone).classifier
    seconds = time.perf_counter() - start
    labels = list(classifier.labels)
    label_ids = np.asarray([labels.index(sample.label) for sample in part.samples])
    test = np.asarray([sample.split == "test" for sample in part.samples])
    stacks = extract_features(part, part.samples, backbone)
    held = [stacks[i] for i in np.flatnonzero(test)]
    rng = np.random.default_rng(config.seed)
    alone = ActivityClassifier(backbone, stacked_head(classifier.head), classifier.info)
    predicted = {
        "model": classifier.predict_stacks(held),
        "head alone": alone.predict_stacks(held),
        "frames shuffled": classifier.predict_stacks([stack[rng.permutation(len(stack))] for stack in held]),
        "baseline": baseline_probabilities(stacks, label_ids, test, len(labels)),
    }
    if config.stack:
        predicted |= readers(classifier, stacks, label_ids, test)
    return {
        "label_ids": label_ids[test].tolist(),
        "seconds": round(seconds, 1),
        "threshold": classifier.threshold,
        "groups": [sample.group for sample, held_out in zip(part.samples, test, strict=True) if held_out],
        "weights": stack_fractions(classifier.head, classifier.spec.streams),
        "predicted": {name: np.round(p, 4).tolist() for name, p in predicted.items()},
    }


def readers(classifier, stacks, label_ids, test):
    """Probabilities `(n, C)` of the test videos by each base model alone."""
    pooling, num_frames = pooling_of(classifier.head, stacks), classifier.spec.num_frames
    owners, (pooled,) = through_windows([pooling], stacks, num_frames)
    trained = ~test[owners]
    found = {}
    fitted = fit_base_models(
        {name: x[trained] for name, x in pooled.items()}, label_ids[owners][trained], len(classifier.labels)
    )
    for name, (kernel, bias) in fitted.items():
        p = np.exp(predict_linear(pooled[name], kernel, bias))
        found[name] = np.stack([p[owners == i].mean(axis=0) for i in np.flatnonzero(test)])
    return found


class Results:
    """Folds that are done, in a file of JSON lines."""

    def __init__(self, path):
        self.path = path
        lines = path.read_text().splitlines() if path and path.is_file() else []
        self.done = {tuple(key): result for key, result in map(json.loads, lines)}

    def of(self, path, folds, variant, seeds):
        """seed -> fold -> result, of a row of a table on a data set."""
        settings, streams = variant
        dataset = load_dataset(path)
        dataset = dataset.with_streams(streams or dataset.spec.streams)
        backbone, found = None, {}
        for seed in range(seeds):
            config = TrainConfig(**{**settings, "seed": seed})
            for fold, part in divide_folds(dataset, folds, seed=seed).items():
                key = (path.name, json.dumps(settings, sort_keys=True), ",".join(streams or ()), seed, fold)
                if key not in self.done:
                    backbone = backbone or build_classifier(part, config).backbone
                    self.add(key, run_fold(part, config, backbone))
                found.setdefault(seed, {})[fold] = self.done[key]
        return found

    def add(self, key, result):
        """Remember a fold, on disk too."""
        self.done[key] = result
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps([key, result]) + "\n")


def scores(found, name):
    """Accuracy over all clips, standard error over the folds, calibration error: the mean over the seeds of each."""
    rows = []
    for of_fold in found.values():
        p = [np.asarray(result["predicted"][name]) for result in of_fold.values()]
        ids = [np.asarray(result["label_ids"]) for result in of_fold.values()]
        correct = [x.argmax(axis=1) == y for x, y in zip(p, ids, strict=True)]
        error = mean_and_error([c.mean() for c in correct])[1]
        confident, correct = np.concatenate([x.max(axis=1) for x in p]), np.concatenate(correct)
        rows.append((correct.mean(), error, expected_calibration_error(confident, correct)))
    return np.mean(rows, axis=0)


def lead(found, name, other):
    """Mean over folds of the accuracy less that of another model, and its standard error (paired)."""
    by_seed = []
    for of_fold in found.values():
        by_fold = []
        for result in of_fold.values():
            ids = np.asarray(result["label_ids"])
            a, b = (np.mean(np.asarray(result["predicted"][x]).argmax(axis=1) == ids) for x in (name, other))
            by_fold.append(a - b)
        by_seed.append(by_fold)
    return mean_and_error(np.mean(by_seed, axis=0))


def on_answers(found):
    """Words on the answers of the folds of all seeds that are not below the threshold of their model."""
    answered, correct, groups = [], [], []
    for of_fold in found.values():
        for result in of_fold.values():
            if "threshold" in result:  # which earlier versions of this script did not write down
                p = np.asarray(result["predicted"]["model"])
                answered.append(p.max(axis=1) >= result["threshold"])
                correct.append(p.argmax(axis=1) == result["label_ids"])
                groups += result["groups"]
    if not answered:
        return "no thresholds"
    answered, correct = np.concatenate(answered), np.concatenate(correct)
    chosen = np.flatnonzero(answered)
    text = f"asked for a precision of {PRECISION}: {len(chosen)} of {len(answered)} videos get an answer"
    if not len(chosen):
        return text
    low, high = interval_by_group(correct[chosen], [groups[i] for i in chosen])
    return f"{text}, {correct[chosen].mean():.3f} of these are correct (95 % interval {low:.3f} to {high:.3f})"


def without(found, left_out):
    """The stack, its weights as they are but for one model: of folds whose weights are known by name for people."""
    changed = {}
    for seed, of_fold in found.items():
        for fold, result in of_fold.items():
            logs = {name: np.log(np.maximum(p, 1e-7)) for name, p in result["predicted"].items()}
            total = sum(
                weight * np.asarray(logs["head alone" if name in HEADS else column_of(name)])
                for name, weight in result["weights"].items()
                if name != left_out
            )
            changed.setdefault(seed, {})[fold] = {**result, "predicted": {"without": np.exp(total).tolist()}}
    return changed


def column_of(name):
    """The key of a base model, of its name for people."""
    kind, _, stream = name.partition(" of ")
    return f"{kind}_{('rgb', 'motion', 'motion_crop').index(stream)}" if stream else kind


def lines_of(table, name, found):
    """(row of the printed table, results, model) of one row of a table."""
    if table == "recipe" and "default" in name:
        return [
            (name, found, "model"),
            ("its head alone", found, "head alone"),
            ("its frames shuffled", found, "frames shuffled"),
            ("baseline", found, "baseline"),
        ]
    if table == "readers":
        first = next(iter(next(iter(found.values())).values()))
        keys = [key for key in first["predicted"] if key not in ("model", "frames shuffled", "baseline")]
        names = sorted({x for of_fold in found.values() for r in of_fold.values() for x in r["weights"]})
        return [
            (name, found, "model"),
            *((key if key == "head alone" else f"{key} alone", found, key) for key in keys),
            *((f"stack without {x}", without(found, x), "without") for x in names),
        ]
    return [(name, found, "model")]


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
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.out / "results.jsonl" if arguments.out else None)
    sets = [(Path(path), folds) for path, _, folds in (each.rpartition(":") for each in arguments.datasets)]
    table, paired = {}, {}
    for path, folds in sets:
        for name, variant in rows.items():
            found = results.of(path, folds, variant, arguments.seeds)
            for line, of_line, model in lines_of(arguments.what, name, found):
                table.setdefault(line, {})[path.name] = scores(of_line, model)
                if "baseline" in next(iter(next(iter(of_line.values())).values()))["predicted"]:
                    paired.setdefault(line, {})[path.name] = lead(of_line, model, "baseline")
            seconds = [result["seconds"] for of_fold in found.values() for result in of_fold.values()]
            print(f"{path.name}, {name}: {np.median(seconds):.0f} s to train a fold (median)", flush=True)
            print(f"{path.name}, {name}: {on_answers(found)}", flush=True)
    print("\n| | " + " | ".join(f"{path.name} | to baseline | ECE" for path, _ in sets) + " |")
    print("|---|" + "---|---|---|" * len(sets))
    for line, by_set in table.items():
        cells = []
        for path, _ in sets:
            accuracy, error, calibration = by_set[path.name]
            ahead = paired.get(line, {}).get(path.name)
            cells += [f"{accuracy:.3f} +- {error:.3f}", f"{ahead[0]:+.3f} +- {ahead[1]:.3f}" if ahead else ""]
            cells += [f"{calibration:.3f}"]
        print(f"| {line} | " + " | ".join(cells) + " |")
    if arguments.out:
        figure_rows = [(line, {name: tuple(x[:2]) for name, x in by_set.items()}) for line, by_set in table.items()]
        print(save_figure(ablation_figure(figure_rows), arguments.out / f"{arguments.what}.png"))


if __name__ == "__main__":
    main()
