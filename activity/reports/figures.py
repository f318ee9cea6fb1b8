"""Figures of training and evaluation, drawn by matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy.stats import binomtest

from activity.datasets.dataset import Dataset
from activity.datasets.samples import Sample
from activity.evaluation.captioning import CaptionEvaluation
from activity.evaluation.evaluator import Evaluation
from activity.evaluation.metrics import ReliabilityBin, Scores, expected_calibration_error, reliability_bins
from activity.model_selection.tuning import SETTINGS, Search, Trial
from activity.models.sentences import Sentence
from activity.reports.style import BLUE, GREY, LIGHT_BLUE, ORANGE, VERMILION, plain_text, shortened

_PANELS = 4  # in a row


@plain_text
def confusion_figure(scores: Scores) -> Figure:
    """The confusion matrix: rows actual, columns predicted, colour by fraction of the row; counts up to 40 labels."""
    counts = scores.confusion
    few = len(scores.labels) <= 40  # with more there is no room for numbers
    size = max(4.5, (0.5 if few else 0.16) * len(scores.labels) + 2.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Where no numbers are written, a few confusions must show too.
    axes.imshow(fractions, cmap="Blues", norm=PowerNorm(1 if few else 0.5, 0, 1))
    ticks = np.arange(len(scores.labels))
    names = [shortened(label) for label in scores.labels]
    text_size = "medium" if few else 7
    axes.set_xticks(ticks, names, rotation=45 if few else 90, fontsize=text_size)
    for text in axes.get_xticklabels():
        text.set(ha="right", va="top" if few else "center", rotation_mode="anchor")
    axes.set_yticks(ticks, names, fontsize=text_size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(f"accuracy {scores.accuracy:.3f}, macro-F1 {scores.macro_f1:.3f}, {len(scores.label_ids)} videos")
    if few:
        for row, column in zip(*np.nonzero(counts), strict=True):
            shade = "white" if fractions[row, column] > 0.6 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)
    return figure


@plain_text
def per_class_figure(scores: Scores) -> Figure:
    """F1 of each class as a bar, the best on top, its precision and recall as marks, and its number of videos."""
    rows = sorted(scores.per_class.items(), key=lambda item: (-item[1]["f1"], item[0]))
    places = np.arange(len(rows))
    figure = Figure(figsize=(8, 0.24 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    values = {name: [row[name] for _, row in rows] for name in ("precision", "recall", "f1")}
    axes.barh(places, values["f1"], color=LIGHT_BLUE, height=0.75, label="F1")
    axes.hlines(places, values["precision"], values["recall"], color=GREY, linewidth=1, zorder=2)
    axes.scatter(values["precision"], places, color=BLUE, marker="D", s=42, label="precision", zorder=3)
    axes.scatter(values["recall"], places, color=VERMILION, marker="o", s=18, label="recall", zorder=4)
    for place, (_, row) in zip(places, rows, strict=True):
        axes.annotate(
            f"{row['support']}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            va="center",
            textcoords="offset points",
            fontsize="small",
            color=GREY,
            annotation_clip=False,
        )
    axes.set_yticks(places, [shortened(label) for label, _ in rows], fontsize="small")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", alpha=0.3)
    axes.set_title("videos", loc="right", color=GREY, fontsize="small")
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


@plain_text
def reliability_figure(
    confidences: np.ndarray,
    correct: np.ndarray,
    *,
    title: str = "",
    before: tuple[np.ndarray, np.ndarray] | None = None,
    num_bins: int = 10,
) -> Figure:
    """Reliability diagram: accuracy against confidence, with the samples of each bin below.

    The bars are 95 % Wilson intervals: with few samples in a bin, its distance from the diagonal says little.

    Args:
        confidences: `(N,)` probabilities of the predicted labels.
        correct: `(N,)` bool, whether the predictions were correct.
        title: of the figure.
        before: the same two arrays before calibration (temperature scaling), drawn beside.
        num_bins: of equal width.

    Raises:
        ValueError: as `activity.evaluation.metrics.reliability_bins`.
    """
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    series = [("after" if before else "model", BLUE, "o", confidences, correct)]
    if before:
        series.insert(0, ("before", ORANGE, "s", *before))
    width = 0.9 / num_bins / len(series)
    for number, (name, colour, marker, confidence, is_correct) in enumerate(series):
        bins = reliability_bins(confidence, is_correct, num_bins=num_bins)
        error = expected_calibration_error(confidence, is_correct, num_bins=num_bins)
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        name = f"{name}: expected calibration error {error:.3f}"
        upper.errorbar(x, y, yerr=_distances_to_limits(bins), color=colour, marker=marker, capsize=2, label=name)
        middles = np.array([(b.low + b.high) / 2 for b in bins]) + (number - (len(series) - 1) / 2) * width
        bars = lower.bar(middles, [b.num_samples for b in bins], width, color=colour)
        lower.bar_label(bars, fontsize=7, padding=1)
    upper.set(title=title, ylabel="accuracy", ylim=(-0.02, 1.02))
    lower.set(xlabel=f"confidence ({num_bins} bins)", ylabel="videos", xlim=(0, 1.02))
    lower.margins(y=0.2)
    upper.grid(alpha=0.3)
    figure.legend(loc="outside upper left", fontsize="small", frameon=False)
    return figure


def _distances_to_limits(bins: Sequence[ReliabilityBin]) -> np.ndarray:
    """How far the limits of the 95 % intervals are below and above the accuracies, `(2, B)`."""
    tests = [binomtest(round(b.accuracy * b.num_samples), b.num_samples) for b in bins]
    limits = np.transpose([test.proportion_ci(method="wilson") for test in tests])  # (B, 2) -> (2, B)
    return np.abs(limits - [b.accuracy for b in bins])


@plain_text
def folds_figure(accuracies: Mapping[str, float], baseline: Mapping[str, float]) -> Figure:
    """Accuracy of the model and of the baseline in each fold, joined by a line, and their means over the folds.

    Args:
        accuracies: fold -> accuracy of the model.
        baseline: the same folds -> accuracy of the baseline.
    """
    places = np.arange(len(accuracies))
    many = len(places) > 60  # no room for names
    figure = Figure(figsize=(8, (0.12 if many else 0.28) * min(len(places), 120) + 1.5), layout="constrained")
    axes = figure.subplots()
    ours, theirs = list(accuracies.values()), [baseline[fold] for fold in accuracies]
    axes.hlines(places, ours, theirs, color="#bbbbbb", linewidth=2, zorder=1)
    for name, values, colour, marker in (("baseline", theirs, ORANGE, "s"), ("model", ours, BLUE, "o")):
        mean = float(np.mean(values))
        axes.scatter(values, places, color=colour, marker=marker, s=36, zorder=3, label=f"{name}, mean {mean:.3f}")
        axes.axvline(mean, color=colour, linestyle="--", linewidth=1.2, zorder=2)
    axes.set_yticks([] if many else places, [] if many else [shortened(fold) for fold in accuracies], fontsize="small")
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set(xlabel="accuracy", ylabel=f"fold ({len(places)})" if many else "fold")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure


@plain_text
def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and accuracy by epoch, training and, if there is any, validation; lines set the stages apart."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[name] for row in history], color=GREY, label="train")
        if f"val_{name}" in history[0]:
            axes.plot(epochs, [row[f"val_{name}"] for row in history], color=BLUE, label="validation")
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.grid(alpha=0.3)
        _mark_stages(axes, [str(row["stage"]) for row in history])
        axes.legend()
    return figure


def _mark_stages(axes: Axes, stages: Sequence[str]) -> None:
    for i in range(1, len(stages)):
        if stages[i] != stages[i - 1]:
            axes.axvline(i + 0.5, color="black", linestyle=":")
            axes.annotate(f" {stages[i]}", (i + 0.5, 1), xycoords=("data", "axes fraction"), va="top", fontsize="small")


@plain_text
def mistakes_figure(evaluation: Evaluation, dataset: Dataset, *, most: int = 10, num_columns: int = 8) -> Figure:
    """The most confident mistakes, one row each: frames from first to last, with actual and predicted label.

    Without a mistake it shows the least confident of the correct answers.

    Args:
        evaluation: on samples of the data set.
        dataset: whose frames are shown.
        most: rows, 1 or more.
        num_columns: frames in a row, 1 or more.
    """
    scores = evaluation.scores
    chosen = evaluation.worst_mistakes(most)
    title = "most confident mistakes"
    if not chosen:
        chosen = np.argsort(scores.confidences, kind="stable")[:most].tolist()
        title = "no mistakes; the least confident correct answers"
    rows = []
    for i in chosen:
        sample, predicted = evaluation.samples[i], scores.labels[scores.predicted_ids[i]]
        name, about = shortened(sample.label), f"{scores.confidences[i]:.2f}   {shortened(sample.name, 40)}"
        if not scores.correct[i]:
            name = f"predicted {shortened(predicted)}, actual {name}"
        rows.append((sample, f"{name} ", BLUE if scores.correct[i] else VERMILION, about))
    figure = _strips_figure(dataset, rows, num_columns)
    figure.suptitle(title)
    return figure


@plain_text
def search_figure(search: Search) -> Figure:
    """The accuracy of each trial of a search and the best so far, and below against each setting; crosses are pruned.

    A pruned trial is drawn at the accuracy over the folds that it was evaluated on.
    """
    trials = [trial for trial in search.trials if not np.isnan(trial.accuracy)]
    names = [name for name in SETTINGS if len({trial.settings.get(name) for trial in trials} - {None}) > 1]
    num_rows = -(-len(names) // _PANELS)
    figure = Figure(figsize=(10, 3.2 + 2.6 * num_rows), layout="constrained")
    grid = figure.add_gridspec(1 + num_rows, _PANELS)
    upper = figure.add_subplot(grid[0, :])
    _draw_trials(upper, trials, [trial.number for trial in trials])
    ranked = [max((t for t in search.ranking if t.number <= trial.number), key=lambda t: t.score) for trial in trials]
    numbers = [trial.number for trial in trials]
    upper.step(numbers, [t.accuracy for t in ranked], where="post", color=BLUE, label="best so far", zorder=1)
    upper.axhline(search.first.accuracy, color=VERMILION, linestyle="--", linewidth=1, label="given recipe", zorder=0)
    upper.set(xlabel="trial", ylabel="accuracy")
    upper.xaxis.set_major_locator(MaxNLocator(integer=True))
    upper.grid(alpha=0.3)
    figure.legend(loc="outside upper left", ncols=4, frameon=False)
    for place, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + place // _PANELS, place % _PANELS], sharey=upper)
        chosen = [trial for trial in trials if name in trial.settings]
        _draw_trials(axes, chosen, _show_setting(axes, name, [trial.settings[name] for trial in chosen]))
        axes.set_title(name, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.tick_params(labelleft=place % _PANELS == 0)
        axes.set_ylabel("" if place % _PANELS else "accuracy")
    return figure


def _show_setting(axes: Axes, name: str, values: list[Any]) -> list[Any]:
    """Prepare the horizontal axis for the values of a setting, and give their places on it."""
    if isinstance(values[0], str):
        kinds = sorted(set(values), key=lambda kind: (len(kind.split(",")), kind))
        values = [kinds.index(value) for value in values]
        axes.set_xticks(range(len(kinds)), [shortened(kind) for kind in kinds], rotation=40, ha="right", fontsize=7)
        axes.set_xlim(-0.5, len(kinds) - 0.5)
    elif name == "learning_rate":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    elif isinstance(values[0], int):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return values


def _draw_trials(axes: Axes, trials: Sequence[Trial], x: Sequence[Any]) -> None:
    for pruned, marker, colour, name in ((False, "o", BLUE, "trial"), (True, "x", GREY, "stopped early")):
        some = [i for i, trial in enumerate(trials) if trial.pruned is pruned]
        accuracies = [trials[i].accuracy for i in some]
        axes.scatter([x[i] for i in some], accuracies, s=24, color=colour, marker=marker, label=name, alpha=0.8)


@plain_text
def captions_figure(
    evaluation: CaptionEvaluation, dataset: Dataset, chosen: Sequence[int], *, num_columns: int = 8
) -> Figure:
    """Some samples, one row each: frames from first to last, the sentence of the model and a reference.

    Args:
        evaluation: on samples of the data set.
        dataset: whose frames are shown.
        chosen: places of the samples in the evaluation, one or more.
        num_columns: frames in a row, 1 or more.
    """
    rows = []
    for i in chosen:
        sample, sentence, exact = evaluation.samples[i], evaluation.sentences[i], evaluation.scores.exact_each[i]
        reference = "" if exact else f"\nreference: {shortened(sample.captions[0], 100)}"
        rows.append((sample, shortened(sentence.text, 110) + reference, BLUE if exact else VERMILION, ""))
    return _strips_figure(dataset, rows, num_columns)


@plain_text
def attention_figure(sentence: Sentence, frames: np.ndarray, timestamps_seconds: np.ndarray) -> Figure:
    """Which frames each word of a sentence looked at: a row a word, a column a frame, the darker the more.

    Args:
        sentence: of a clip, with its attention `(words, N)`.
        frames: `(N, H, W, 3)` uint8 RGB, shown above the columns.
        timestamps_seconds: `(N,)` of the frames.
    """
    num_words, num_frames = sentence.attention.shape
    ratio = frames.shape[1] / frames.shape[2]
    column = min(max(10 / num_frames, 0.3), 1.2)  # inches
    heights = column * ratio, 0.3 * num_words
    figure = Figure(figsize=(column * num_frames + 1.5, sum(heights) + 0.9), layout="constrained")
    top, axes = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    for i, frame in enumerate(frames):
        top.imshow(frame, extent=(i - 0.48, i + 0.48, 0, ratio), aspect="auto")
    top.set(xlim=(-0.5, num_frames - 0.5), ylim=(0, ratio))
    top.set_axis_off()
    axes.imshow(sentence.attention, aspect="auto", cmap="Blues", vmin=0, vmax=max(float(sentence.attention.max()), 0.1))
    axes.set_yticks(range(num_words), [shortened(word) for word in sentence.words])
    axes.set_xticks(range(num_frames), [f"{seconds:.2f}" for seconds in timestamps_seconds], rotation=60)
    axes.set_xlabel("seconds")
    return figure


@plain_text
def samples_figure(dataset: Dataset, *, per_label: int = 1, num_columns: int = 8, split: str = "train") -> Figure:
    """A few samples of each label as strips of frames, to see what a data set holds.

    Args:
        dataset: with samples in the split.
        per_label: samples of each label, 1 or more.
        num_columns: frames of each, 1 or more.
        split: `train`, `val` or `test`.
    """
    rows = []
    for label in dataset.labels:
        for sample in [s for s in dataset.samples if s.label == label and s.split == split][:per_label]:
            about = f"{shortened(sample.name, 60)}   {sample.duration_seconds:.1f} s"
            rows.append((sample, shortened(label), "black", about))
    return _strips_figure(dataset, rows, num_columns)


def _strips_figure(dataset: Dataset, rows: Sequence[tuple[Sample, str, str, str]], num_columns: int) -> Figure:
    """A row for each sample: frames side by side, under a name in a colour and more about it in grey."""
    strips = [_strip(dataset.frames(sample), num_columns) for sample, *_ in rows]
    ratio = strips[0].shape[0] / strips[0].shape[1]
    figure = Figure(figsize=(10, len(rows) * (10 * ratio + 0.42) + 0.4), layout="constrained")
    panels = np.ravel(figure.subplots(len(rows), 1, squeeze=False))
    for strip, (_, name, colour, about), axes in zip(strips, rows, panels, strict=True):
        axes.imshow(strip)
        axes.set_axis_off()
        axes.set_title(name, loc="left", color=colour, fontsize="medium")
        axes.set_title(about, loc="right", color=GREY, fontsize="small")
    return figure


def _strip(frames: np.ndarray, num_columns: int) -> np.ndarray:
    """Frames of a stack from first to last, side by side: `(H, num_columns * W, 3)`."""
    chosen = np.linspace(0, len(frames) - 1, num_columns).round().astype(int)
    return np.concatenate(list(np.asarray(frames[chosen])), axis=1)  # (columns, H, W, 3) -> (H, columns*W, 3)
