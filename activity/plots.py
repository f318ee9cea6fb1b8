"""Pictures of training and evaluation, drawn by matplotlib without a screen."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from activity.evaluation import Evaluation
from activity.metrics import Scores
from activity.store import Dataset, atomic_file, write_csv

_RIGHT, _WRONG, _GREY = "#2a7f62", "#c0392b", "#888888"
_plain_text = rc_context({"text.parse_math": False})  # a $ in a label or path is no formula


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of characters that the font lacks, and of labels without room
        figure.savefig(file, format="png", dpi=110)
    return path


def save_report(evaluation: Evaluation, dataset: Dataset, out: Path) -> list[Path]:
    """Write `scores.json`, `report.txt`, `predictions.csv`, `confusion.png` and `mistakes.png` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    scores = evaluation.scores
    with atomic_file(out / "scores.json", "w") as file:
        json.dump(evaluation.as_dict(), file, indent=2)
    with atomic_file(out / "report.txt", "w") as file:
        file.write(evaluation.as_text() + "\n")
    rows = [
        {"path": sample.path, "label": sample.label, "predicted": scores.labels[best], "probability": float(row[best])}
        for sample, row, best in zip(evaluation.samples, scores.probabilities, scores.predicted_ids, strict=True)
    ]
    write_csv(out / "predictions.csv", ("path", "label", "predicted", "probability"), rows)
    save_figure(confusion_figure(scores), out / "confusion.png")
    save_figure(mistakes_figure(evaluation, dataset), out / "mistakes.png")
    names = ("scores.json", "report.txt", "predictions.csv", "confusion.png", "mistakes.png")
    return [out / name for name in names]


@_plain_text
def confusion_figure(scores: Scores) -> Figure:
    """The confusion matrix: rows true, columns predicted, colour by share of the row, counts written in."""
    counts = scores.confusion
    size = max(4.5, 0.5 * len(scores.labels) + 2.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    ticks = np.arange(len(scores.labels))
    axes.set_xticks(ticks, scores.labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, scores.labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {scores.accuracy:.3f}, macro-F1 {scores.macro_f1:.3f}, {len(scores.label_ids)} videos")
    if len(ticks) <= 40:  # more would be unreadable
        for row, column in zip(*np.nonzero(counts), strict=True):
            shade = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)
    return figure


@_plain_text
def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and accuracy by epoch, training and validation; stages follow each other and are set apart by lines."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = np.arange(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[name] for row in history], color=_GREY, label="train")
        axes.plot(epochs, [row[f"val_{name}"] for row in history], color=_RIGHT, label="validation")
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


@_plain_text
def mistakes_figure(evaluation: Evaluation, dataset: Dataset, *, most: int = 10, num_columns: int = 8) -> Figure:
    """The most confident mistakes, one row each: frames from first to last, with true and predicted label.

    Without a mistake it shows the least certain of the right answers.
    """
    scores = evaluation.scores
    chosen = evaluation.worst_mistakes(most)
    title = "most confident mistakes"
    if not chosen:
        chosen = np.argsort(scores.probabilities.max(axis=1), kind="stable")[:most].tolist()
        title = "no mistakes; the least certain right answers"
    strips = [_strip(dataset.frames(evaluation.samples[i]), num_columns) for i in chosen]
    ratio = strips[0].shape[0] / strips[0].shape[1]
    figure = Figure(figsize=(10, len(chosen) * (10 * ratio + 0.42) + 0.4), layout="constrained")
    figure.suptitle(title)
    for i, strip, axes in zip(chosen, strips, np.ravel(figure.subplots(len(chosen), 1, squeeze=False)), strict=True):
        sample, predicted = evaluation.samples[i], scores.predicted_ids[i]
        wrong = predicted != scores.label_ids[i]
        axes.imshow(strip)
        axes.set_axis_off()
        axes.set_title(
            f"{sample.label} taken for {scores.labels[predicted]} " if wrong else f"{sample.label} ",
            loc="left",
            color=_WRONG if wrong else _RIGHT,
            fontsize="medium",
        )
        axes.set_title(
            f"{scores.probabilities[i, predicted]:.2f}   {sample.path}", loc="right", color=_GREY, fontsize="small"
        )
    return figure


@_plain_text
def samples_figure(dataset: Dataset, *, per_label: int = 1, num_columns: int = 8, split: str = "train") -> Figure:
    """A few samples of each label as strips of frames, to see what a data set holds."""
    rows = [
        sample
        for label in dataset.labels
        for sample in [s for s in dataset.samples if s.label == label and s.split == split][:per_label]
    ]
    strips = [_strip(dataset.frames(sample), num_columns) for sample in rows]
    ratio = strips[0].shape[0] / strips[0].shape[1]
    figure = Figure(figsize=(10, len(rows) * (10 * ratio + 0.35)), layout="constrained")
    for sample, strip, axes in zip(rows, strips, np.ravel(figure.subplots(len(rows), 1, squeeze=False)), strict=True):
        axes.imshow(strip)
        axes.set_axis_off()
        axes.set_title(sample.label, loc="left", fontsize="medium")
        axes.set_title(f"{sample.path}   {sample.duration_seconds:.1f} s", loc="right", color=_GREY, fontsize="small")
    return figure


def _strip(frames: np.ndarray, num_columns: int) -> np.ndarray:
    """Frames of a stack from first to last, side by side: `(H, num_columns * W, 3)`."""
    chosen = np.linspace(0, len(frames) - 1, num_columns).round().astype(int)
    return np.concatenate(list(np.asarray(frames[chosen])), axis=1)  # (columns, H, W, 3) -> (H, columns*W, 3)
