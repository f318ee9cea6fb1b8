"""One evaluation as a folder: a page for people that needs nothing but itself, and the files it is made of."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from activity.datasets.dataset import Dataset, Stacks, time_columns
from activity.datasets.samples import Sample, content_of, file_of
from activity.evaluation.evaluator import Evaluation
from activity.evaluation.metrics import expected_calibration_error
from activity.files import atomic_file, write_csv
from activity.model_selection.cross_validation import CrossValidation
from activity.models.classifier import ActivityClassifier
from activity.predictor.explainer import Explainer, Explanation
from activity.reports import figures as plots
from activity.reports.explanation import explanation_figure
from activity.training.trainer import TrainingRun

_PAGE = Path(__file__).with_name("report.html")

_MOST_ROWS = 50  # a longer table is folded

_LARGE = 1000  # pixels; a wider image scrolls on a narrow screen, else its text would be too small

_MOST_VALUES = 12  # of a longer list in `about`, such as that of all training videos, only the length is shown


_NOTES = {
    "Classes": "The best F1 first. Precision: how many of the videos given this label have it. Recall: how many of the "
    "videos that have it were given it.",
    "Confusion": "Rows are true, columns predicted. The darker, the larger the share of the row.",
    "Folds": "A line joins model and baseline on the same videos. Dashed: the means over the folds.",
    "Confidence": "On the diagonal, answers of confidence 0.8 are right 8 times in 10; below it, less often than they "
    "promise. Bars are 95 % intervals. With few videos the calibration error comes out too large.",
}


def save_report(
    evaluation: Evaluation,
    dataset: Dataset,
    out: Path,
    *,
    about: Mapping[str, object] | None = None,
    figures: Mapping[str, Figure] | None = None,
) -> list[Path]:
    """Write `report.html`, `scores.json`, `report.txt`, `predictions.csv` and the images (PNG) into a folder.

    The page holds its images, runs no script and loads nothing from the network.

    Args:
        evaluation: of one split, or the result of a cross-validation.
        dataset: what it was made on.
        out: folder, made if need be.
        about: what to say of the model, such as its file and its `record`.
        figures: title -> a further image for the page.

    Returns:
        The paths of the files.
    """
    evaluation = _printable(evaluation)
    scores = evaluation.scores
    drawn = {"Classes": plots.per_class_figure(scores), "Confusion": plots.confusion_figure(scores)}
    if isinstance(evaluation, CrossValidation):
        drawn["Folds"] = plots.folds_figure(evaluation.fold_accuracies, evaluation.baseline_fold_accuracies)
    drawn["Confidence"] = plots.reliability_figure(scores.confidences, scores.correct)
    drawn["Mistakes"] = plots.mistakes_figure(evaluation, dataset)
    images = [(title, plots.save_figure(figure, out / f"{title.lower()}.png")) for title, figure in drawn.items()]
    for number, (title, figure) in enumerate((figures or {}).items(), start=1):  # a title may not do for a file name
        images.append((title, plots.save_figure(figure, out / f"figure_{number}.png")))
    with atomic_file(out / "scores.json", "w") as file:
        json.dump(evaluation.as_dict(), file, indent=2)
    with atomic_file(out / "report.txt", "w") as file:
        file.write(evaluation.as_text() + "\n")
    columns = ("path", *time_columns(evaluation.samples), "label")
    rows = [
        {
            **{name: getattr(sample, name) for name in columns},
            "predicted": scores.labels[best],
            "probability": float(confidence),
        }
        for sample, best, confidence in zip(evaluation.samples, scores.predicted_ids, scores.confidences, strict=True)
    ]
    write_csv(out / "predictions.csv", (*columns, "predicted", "probability"), rows)
    with atomic_file(out / "report.html", "w") as file:
        file.write(_page(evaluation, dataset, about or {}, images))
    files = [out / name for name in ("report.html", "scores.json", "report.txt", "predictions.csv")]
    return files + [path for _, path in images]


def figures_of_model(classifier: ActivityClassifier, evaluation: Evaluation, dataset: Dataset) -> dict[str, Figure]:
    """Title -> figure of what only the model knows: how it learned, and why it answered as it did.

    Explained are the answers to the most confident mistakes and the most confident correct answers, by the first clip
    of each.
    """
    figures = {}
    if history := classifier.record.get("history"):
        figures["Learning"] = plots.curves_figure(history)
    scores, explainer = evaluation.scores, Explainer(classifier)
    most_confident = np.argsort(-np.where(scores.correct, scores.confidences, 0), kind="stable")[:2].tolist()
    for number, i in enumerate(dict.fromkeys([*evaluation.worst_mistakes(2), *most_confident]), start=1):
        sample, answer = evaluation.samples[i], scores.labels[scores.predicted_ids[i]]
        title = f"Why {number}: {answer}" + ("" if scores.correct[i] else f", which is wrong; it is {sample.label}")
        figures[title] = explanation_figure(_explain_sample(explainer, dataset, sample, answer))
    return figures


def _explain_sample(explainer: Explainer, dataset: Dataset, sample: Sample, label: str) -> Explanation:
    spec = explainer.classifier.spec
    frames = Stacks(dataset.frames, [sample], spec.streams)[0][: spec.num_frames]  # (N, S, H, W, 3)
    places = np.arange(len(frames))
    if spec.frames_per_second:
        seconds = places / spec.frames_per_second
    else:  # the middles of equal parts
        seconds = (places + 0.5) * sample.duration_seconds / len(frames)
    return explainer.explain_frames(frames, label=label, source=sample.name, timestamps_seconds=seconds)


def save_training_report(run: TrainingRun, out: Path) -> list[Path]:
    """Write the learning curves and, of a calibrated model, the reliability before and after, as PNG into a folder."""
    paths = [plots.save_figure(plots.curves_figure(run.history), out / "learning_curves.png")]
    if run.calibration:
        before, after = ((s.confidences, s.correct) for s in (run.calibration.before, run.calibration.after))
        figure = plots.reliability_figure(*after, before=before, title="validation videos")
        paths.append(plots.save_figure(figure, out / "reliability.png"))
    return paths


def _page(
    evaluation: Evaluation, dataset: Dataset, about: Mapping[str, object], images: Sequence[tuple[str, Path]]
) -> str:
    sections = [
        (title, _image(title, path) + (_classes(evaluation) if path.name == "classes.png" else ""))
        for title, path in images
    ]
    sections.append(("All videos", _videos(evaluation)))
    if about:
        sections.append(("How it was made", _table(("", ""), [(row, "") for row in _flat(about)])))
    kind = "Cross-validation" if isinstance(evaluation, CrossValidation) else "Evaluation"
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=_text(f"{kind}: {os.path.basename(os.path.abspath(dataset.dataset_dir))}"),
        numbers="".join(
            f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd><dd class='more'>{_text(more)}</dd></div>"
            for name, value, more in _numbers(evaluation)
        ),
        provenance="".join(f"<p>{_text(line)}</p>" for line in _provenance(evaluation, dataset, about)),
        sections="\n".join(f"<section><h2>{_text(title)}</h2>{body}</section>" for title, body in sections),
    )


def _numbers(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """The headline: name, value, and a word on it."""
    scores = evaluation.scores
    rows = [("accuracy", f"{scores.accuracy:.3f}", f"{scores.correct.sum()} of {len(scores.correct)} videos")]
    rows.append(("macro-F1", f"{scores.macro_f1:.3f}", f"{len(scores.labels)} labels"))
    rows += [(f"top-{k}", f"{scores.top_k_accuracy(k):.3f}", "") for k in (3, 5) if k < len(scores.labels)]
    if isinstance(evaluation, CrossValidation):
        for name, by_fold in (("accuracy", evaluation.fold_accuracies), ("macro-F1", evaluation.fold_macro_f1)):
            values = list(by_fold.values())
            spread = f"{np.mean(values):.3f} \N{PLUS-MINUS SIGN} {np.std(values, ddof=1):.3f}"
            rows.append((f"{name} over folds", spread, f"standard deviation, {len(values)} folds"))
        baseline = evaluation.baseline
        rows.append(("baseline accuracy", f"{baseline.accuracy:.3f}", f"macro-F1 {baseline.macro_f1:.3f}"))
    error = expected_calibration_error(scores.confidences, scores.correct)
    return [*rows, ("calibration error", f"{error:.3f}", "0 is best")]


def _provenance(evaluation: Evaluation, dataset: Dataset, about: Mapping[str, object]) -> list[str]:
    """What was evaluated, by which model, and whether the score can be believed."""
    samples, parts = evaluation.samples, defaultdict(set)
    if isinstance(evaluation, CrossValidation):
        for sample, part in zip(samples, evaluation.folds, strict=True):
            parts[sample.group].add(part)
        where = f"in {len(set(evaluation.folds))} folds, each predicted by a model that was trained without it"
    else:
        for sample in dataset.samples:
            parts[sample.group].add(sample.split)
        where = f"of the split {' + '.join(sorted({sample.split for sample in samples}))}"
    groups = {sample.group for sample in samples}
    torn = sum(len(parts[group]) > 1 for group in groups)
    lines = [f"{len(samples)} videos of {len(groups)} groups {where}; {dataset.spec}."]
    if torn:
        lines.append(f"WARNING: {torn} of these groups appear in more than one part: the score is too optimistic.")
    elif all(sample.group == sample.path for sample in samples):
        lines.append(
            "No groups are known: where several videos show one person or recording, the score is too optimistic."
        )
    else:
        lines.append("Groups are disjoint: no person or recording, as the groups name them, stands in two parts.")
    trained = about.get("taught")
    files = {*map(file_of, trained)} if isinstance(trained, (list, tuple)) else set()
    known = sum(file_of(content_of(sample)) in files for sample in samples)
    if known:
        lines.append(
            f"WARNING: {known} of these videos are training videos of this model: the score is too optimistic."
        )
    if isinstance(evaluation, CrossValidation):
        lines.append(
            f"{evaluation.verdict()} The baseline is logistic regression on the mean feature of each video. Standard "
            f"error of the accuracy over the folds: {evaluation.standard_error:.3f}."
        )
    return lines


# === Pieces of the page ===


def _image(title: str, path: Path) -> str:
    note = f"<p>{_text(_NOTES[title])}</p>" if title in _NOTES else ""
    png = path.read_bytes()
    kind = "large" if int.from_bytes(png[16:20], "big") > _LARGE else ""  # its header says how wide it is
    image = base64.b64encode(png).decode("ascii")
    return (
        f'{note}<div class="wide"><img class="{kind}" alt="{_text(title)}" src="data:image/png;base64,{image}"></div>'
    )


def _classes(evaluation: Evaluation) -> str:
    rows = [
        ((label, f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", row["support"]), "")
        for label, row in evaluation.scores.per_class.items()
    ]
    return _table(("label", "precision", "recall", "F1", "videos"), rows)


def _videos(evaluation: Evaluation) -> str:
    """All of them: the mistakes first, the most confident on top, then the right answers, the least certain on top."""
    scores, rows = evaluation.scores, []
    for i in np.lexsort((np.where(scores.correct, scores.confidences, -scores.confidences), scores.correct)):
        sample, correct = evaluation.samples[i], bool(scores.correct[i])
        cells = ["" if correct else "\N{MULTIPLICATION SIGN}", sample.name, sample.label]
        cells += [scores.labels[scores.predicted_ids[i]], f"{scores.confidences[i]:.3f}"]
        cells += [evaluation.folds[i]] if isinstance(evaluation, CrossValidation) else []
        rows.append((cells, "" if correct else "wrong"))
    columns = ["", "video", "true", "predicted", "probability"]
    return _table([*columns, "fold"] if isinstance(evaluation, CrossValidation) else columns, rows)


def _table(columns: Sequence[str], rows: Sequence[tuple[Iterable[object], str]]) -> str:
    """A table that scrolls by itself on a narrow screen; each row with its class."""
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "\n".join(
        f'<tr class="{kind}">{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>' for cells, kind in rows
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<details><summary>{len(rows)} rows</summary>{table}</details>" if len(rows) > _MOST_ROWS else table


def _flat(about: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Nested values as one list, named like `training.units`."""
    rows: list[tuple[str, object]] = []
    for name, value in about.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            listed = ", ".join(map(str, value)) if len(value) <= _MOST_VALUES else f"{len(value)} entries"
            rows.append((f"{prefix}{name}", listed))
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _printable(evaluation: Evaluation) -> Evaluation:
    """The same with names that fonts and UTF-8 take: of files whose name is not valid UTF-8, bytes are spelled out."""
    samples = [dataclasses.replace(s, path=_utf8(s.path), label=_utf8(s.label)) for s in evaluation.samples]
    scores = dataclasses.replace(evaluation.scores, labels=[_utf8(label) for label in evaluation.scores.labels])
    folds = {"folds": list(map(_utf8, evaluation.folds))} if isinstance(evaluation, CrossValidation) else {}
    return dataclasses.replace(evaluation, samples=samples, scores=scores, **folds)


def _utf8(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _text(value: object) -> str:
    return html.escape(_utf8(value))
