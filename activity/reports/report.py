"""Reports of evaluations and training: a page that needs nothing but itself, and the files it is made of."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from activity.datasets.dataset import Dataset, Stacks
from activity.datasets.samples import Sample
from activity.errors import printable
from activity.evaluation.captioning import CaptionEvaluation
from activity.evaluation.evaluator import Evaluation
from activity.evaluation.films import FilmEvaluation
from activity.files import atomic_file, write_csv
from activity.models.classifier import ActivityClassifier
from activity.predictor.explainer import Explainer, Explanation
from activity.predictor.sources import distinct_names
from activity.reports import figures as draw
from activity.reports.explanation import explanation_figure
from activity.reports.style import save_figure
from activity.reports.timeline import comparison_figure
from activity.training.captioning import CaptioningRun
from activity.training.trainer import TrainingRun

_LARGE = 1000  # pixels; a wider image scrolls on a narrow screen, else its text would be too small
_MOST_SHOWN = 8  # of the worst and of the best sentences
_MOST_FILMS = 8  # on the page; the images of all are files
_MOST_ROWS = 50  # a longer table is folded
_MOST_VALUES = 12  # of a longer list in `about`, such as that of all training videos, only the length is shown


@dataclass(frozen=True)
class _Section:
    """A part of the page: a title, a note, an image, a table; all but the title may be missing."""

    title: str
    note: str = ""
    image: str = ""  # a data URI
    is_large: bool = False
    columns: Sequence[str] = ()
    rows: Sequence[tuple[Iterable[object], str]] = ()  # cells, and the class of the row
    is_folded: bool = False


# Figure of an evaluation, as `Evaluation.figures` names it -> title, how it is drawn, and a note; in their order.
_FIGURES: dict[str, tuple[str, Callable[..., Figure], str]] = {
    "classes": (
        "Classes",
        draw.per_class_figure,
        "The best F1 first. Precision: how many of the videos given this label have it. Recall: how many of the videos "
        "that have it were given it.",
    ),
    "confusion": (
        "Confusion matrix",
        draw.confusion_figure,
        "Rows are actual, columns predicted. The darker, the larger the fraction of the row.",
    ),
    "folds": (
        "Folds",
        draw.folds_figure,
        "A line joins model and baseline on the same videos. Dashed: the means over the folds.",
    ),
    "confidence": (
        "Calibration",
        draw.reliability_figure,
        "On the diagonal, answers of confidence 0.8 are correct 8 times in 10; below it, less often than they promise. "
        "Bars are 95 % intervals. With few videos the calibration error comes out too large.",
    ),
    "mistakes": ("Mistakes", draw.mistakes_figure, ""),
}


def save_report(
    evaluation: Evaluation,
    dataset: Dataset,
    out: Path,
    *,
    about: Mapping[str, Any] | None = None,
    figures: Mapping[str, Figure] | None = None,
) -> list[Path]:
    """Write `report.html`, `scores.json`, `report.txt`, `predictions.csv` and the images (PNG) into a folder.

    The page holds its images, runs no script and loads nothing from the network. Of films there are also `films.csv`,
    and in `films` an image of each.

    Args:
        evaluation: of one split, or the result of a cross-validation.
        dataset: what it was made on.
        out: folder, made if need be.
        about: what to say of the model, such as its file and its `record`.
        figures: title -> a further image for the page.

    Returns:
        The paths of the files.
    """
    evaluation, about = evaluation.printable(), about or {}
    sections, images = [], []

    def add(title: str, figure: Figure, path: Path, note: str = "", **table: Any) -> None:
        images.append(save_figure(figure, path))
        sections.append(_Section(title, note, *_data_uri(path), **table))

    drawn = evaluation.figures(dataset)
    for name, (title, function, note) in _FIGURES.items():
        if name in drawn:
            table = _classes(evaluation) if name == "classes" else {}
            add(title, function(*drawn[name]), out / f"{name}.png", note, **table)
    for number, (title, figure) in enumerate((figures or {}).items(), start=1):  # a title may not do for a file name
        add(title, figure, out / f"figure_{number}.png")
    if evaluation.films:
        of_films, files = _film_sections(evaluation.films, out)
        sections, images = sections + of_films, images + files
    sections.append(_Section("All videos", **_videos(evaluation)))
    texts = evaluation.sentences(dataset, about.get("trained") or ())
    return _write(evaluation, dataset, out, "predictions.csv", texts, sections, about) + images


def _film_sections(films: FilmEvaluation, out: Path) -> tuple[list[_Section], list[Path]]:
    """The parts of the page on films, the least accurate first, and the files beside it: a table, an image of each."""
    rows, ranking = films.rows(), films.ranking()
    write_csv(out / "films.csv", list(rows[0]), rows)
    names = distinct_names(film.path for film in films.films)
    images = [
        save_figure(comparison_figure(film, films.labels), out / "films" / f"{name}.png")
        for film, name in zip(films.films, names, strict=True)
    ]
    cells = [([f"{x:.3f}" if isinstance(x, float) else x for x in rows[i].values()], "") for i in ranking]
    columns = [name.replace("_", " ").replace("f1", "F1") for name in rows[0]]
    table = _Section("Films", "Scores of each film, the least accurate first.", **_table(columns, cells))
    drawn = [_Section(f"Film: {films.films[i].path}", "", *_data_uri(images[i])) for i in ranking[:_MOST_FILMS]]
    return [table, *drawn], [out / "films.csv", *images]


def save_caption_report(
    evaluation: CaptionEvaluation, dataset: Dataset, out: Path, *, about: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write `report.html`, `scores.json`, `report.txt`, `captions.csv` and the images (PNG) into a folder.

    The page holds its images, runs no script and loads nothing from the network. Of a model of feature files it shows
    no frames.

    Args:
        evaluation: of one split.
        dataset: what it was made on.
        out: folder, made if need be.
        about: what to say of the model, such as its file and its `record`.

    Returns:
        The paths of the files.
    """
    about, ranking, sections, images = about or {}, evaluation.ranking(), [], []
    shown = {"worst": ranking[:_MOST_SHOWN], "best": ranking[::-1][: len(ranking) - _MOST_SHOWN][:_MOST_SHOWN]}
    for name, chosen in shown.items() if not dataset.features else ():
        if chosen:
            images.append(save_figure(draw.captions_figure(evaluation, dataset, chosen), out / f"{name}.png"))
            note = "Frames from first to last; the sentence of the model, blue if it equals a reference."
            sections.append(_Section(f"The {name} by CIDEr-D", note, *_data_uri(images[-1])))
    if history := about.get("history"):
        images.append(save_figure(draw.curves_figure(history), out / "learning_curves.png"))
        sections.append(_Section("Learning curves", "", *_data_uri(images[-1])))
    known = evaluation.rows()
    columns = ("path", "caption", "references", "baseline", "cider_d", "log_probability")
    rows = [([known[i][name] for name in columns], "" if known[i]["exact"] else "wrong") for i in ranking]
    sections.append(_Section("All videos", **_table(columns, rows)))
    texts = evaluation.about(dataset, about.get("trained") or ())
    return _write(evaluation, dataset, out, "captions.csv", texts, sections, about) + images


def _write(
    evaluation: Evaluation | CaptionEvaluation,
    dataset: Dataset,
    out: Path,
    table_name: str,
    texts: Sequence[str],
    sections: list[_Section],
    about: Mapping[str, Any],
) -> list[Path]:
    """Write the page and the files beside it, without the images, which are there already."""
    if about:
        sections = [*sections, _Section("Settings", **_table(("", ""), [(row, "") for row in _flat(about)]))]
    files = [out / name for name in ("report.html", "scores.json", "report.txt", table_name)]
    with atomic_file(files[0], "w") as file:
        file.write(_page(evaluation, dataset, texts, sections))
    with atomic_file(files[1], "w") as file:
        json.dump(evaluation.as_dict(), file, indent=2, allow_nan=False)
    with atomic_file(files[2], "w") as file:
        file.write(evaluation.as_text() + "\n")
    rows = evaluation.rows()
    write_csv(files[3], list(rows[0]), rows)
    return files


def figures_of_model(classifier: ActivityClassifier, evaluation: Evaluation, dataset: Dataset) -> dict[str, Figure]:
    """Title -> figure of the model itself: its learning curves, and explanations of some of its answers.

    Explained are the most confident mistakes and the most confident correct answers, by the first clip of each; but
    not of a model of feature files.

    Args:
        classifier: that was evaluated.
        evaluation: of the classifier.
        dataset: that the samples of the evaluation are of.
    """
    figures = {}
    if history := classifier.info.record.history:
        figures["Learning curves"] = draw.curves_figure(history)
    if classifier.spec.num_features:  # there is nothing to see in feature files
        return figures
    scores, explainer, ranking = evaluation.scores, Explainer(classifier), evaluation.ranking()
    correct = [i for i in ranking[::-1] if scores.correct[i]][:2]
    for number, i in enumerate([*evaluation.worst_mistakes(2), *correct], start=1):
        sample, answer = evaluation.samples[i], scores.labels[scores.predicted_ids[i]]
        title = f"Explanation {number}: predicted {answer}" + ("" if scores.correct[i] else f", actual {sample.label}")
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


def save_training_report(run: TrainingRun | CaptioningRun, out: Path) -> list[Path]:
    """Write the learning curves and, of a calibrated model, the reliability before and after, as PNG into a folder."""
    paths = [save_figure(draw.curves_figure(run.history), out / "learning_curves.png")]
    if isinstance(run, TrainingRun) and run.calibration:
        before, after = ((s.confidences, s.correct) for s in (run.calibration.before, run.calibration.after))
        figure = draw.reliability_figure(*after, before=before, title="validation videos")
        paths.append(save_figure(figure, out / "reliability.png"))
    return paths


# === The page ===


def _page(
    evaluation: Evaluation | CaptionEvaluation, dataset: Dataset, sentences: Sequence[str], sections: Sequence[_Section]
) -> str:
    environment = Environment(
        autoescape=True,
        finalize=_utf8,
        loader=FileSystemLoader(Path(__file__).parent),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html").render(
        title=f"{evaluation.title}: {os.path.basename(os.path.abspath(dataset.dataset_dir))}",
        headline=evaluation.headline(),
        sentences=sentences,
        sections=sections,
    )


def _data_uri(path: Path) -> tuple[str, bool]:
    """A PNG file as an address that holds it, and whether it is large."""
    png = path.read_bytes()
    width = int.from_bytes(png[16:20], "big")  # as its header says
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", width > _LARGE


def _table(columns: Sequence[str], rows: Sequence[tuple[Iterable[object], str]]) -> dict[str, Any]:
    return {"columns": columns, "rows": rows, "is_folded": len(rows) > _MOST_ROWS}


def _classes(evaluation: Evaluation) -> dict[str, Any]:
    rows = [
        ((label, f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", row["support"]), "")
        for label, row in evaluation.scores.per_class.items()
    ]
    return _table(("label", "precision", "recall", "F1", "videos"), rows)


def _videos(evaluation: Evaluation) -> dict[str, Any]:
    """All videos: mistakes, the most confident on top, then correct answers, the least confident on top."""
    known, rows = evaluation.rows(), []
    columns = [name for name in ("label", "predicted", "probability", "fold") if name in known[0]]
    for i in evaluation.ranking():
        correct = bool(evaluation.scores.correct[i])
        values = {**known[i], "probability": f"{known[i]['probability']:.3f}"}
        cells = ["" if correct else "\N{MULTIPLICATION SIGN}", evaluation.samples[i].name]
        rows.append(([*cells, *(values[name] for name in columns)], "" if correct else "wrong"))
    return _table(["", "video", "actual", *columns[1:]], rows)


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


def _utf8(value: object) -> object:
    """A value as text that UTF-8 takes; what a macro has made stays as it is."""
    return value if hasattr(value, "__html__") else printable(str(value))
