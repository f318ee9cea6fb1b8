import csv
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from activity.datasets.samples import Segment, content_of
from activity.errors import printable
from activity.evaluation.calibration import Calibration
from activity.evaluation.evaluator import Evaluation
from activity.evaluation.films import EvaluatedFilm, FilmEvaluation
from activity.evaluation.metrics import Scores
from activity.model_selection.cross_validation import CrossValidation
from activity.predictor.prediction import Failure
from activity.reports.figures import samples_figure
from activity.reports.report import figures_of_model, save_report, save_training_report
from activity.reports.style import save_figure

PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
VOID = {"meta", "img", "br", "hr", "link", "input"}
ODD = "<b>&amp; \"'$title \udcff"


class Page(HTMLParser):
    """A page that is well formed: every element is closed, in order; with its texts, links and table rows."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.links, self.rows = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag == "tr":
            self.rows.append((dict(attributes).get("class"), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] == "td":
            self.rows[-1][1].append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def evaluation(ramp_dataset):
    samples = [s for s in ramp_dataset.samples if s.label == "brightens"][:3]
    samples += [s for s in ramp_dataset.samples if s.label == "darkens"][:1]
    return Evaluation(samples, Scores(PROBABILITIES, np.array([0, 0, 0, 1]), ("brightens", "darkens")))


@pytest.fixture
def page_of(tmp_path, ramp_dataset):
    def write(evaluation, dataset=ramp_dataset, **options):
        save_report(evaluation, dataset, tmp_path / "report", **options)
        return Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))

    return write


def test_a_report_is_a_folder_of_files(evaluation, ramp_dataset, tmp_path):
    written = save_report(evaluation, ramp_dataset, tmp_path / "report")
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "report").iterdir())
    assert json.loads((tmp_path / "report" / "scores.json").read_text())["accuracy"] == 0.75
    with (tmp_path / "report" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["brightens", "brightens", "darkens", "darkens"]
    for name in ("confusion.png", "mistakes.png", "classes.png", "confidence.png"):
        pixels = imread(tmp_path / "report" / name)
        assert min(pixels.shape[:2]) > 100 and pixels.std() > 0.01  # drawn, not blank


def test_the_page_needs_nothing_but_itself(evaluation, page_of):
    page = page_of(evaluation)
    assert len(page.links) == 4 and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in page.text and "@import" not in page.text


def test_the_page_gives_the_numbers_and_what_was_evaluated(evaluation, page_of, ramp_dataset):
    page = page_of(evaluation)
    assert f"Evaluation: {ramp_dataset.dataset_dir.name}" in page.texts
    assert f"accuracy 0.750 3 of 4 videos, 95 %: {evaluation.accuracy.limits()}" in page.text
    assert f"macro-F1 {evaluation.scores.macro_f1:.3f} 2 labels" in page.text
    assert "Groups are disjoint" in page.text and "is too optimistic" not in page.text and "Settings" not in page.text


def test_the_mistakes_lead_the_videos_and_are_marked(evaluation, page_of):
    rows = [row for row in page_of(evaluation).rows if len(row[1]) >= 4 and row[1][-1].startswith("0.")][-4:]
    paths = [sample.path for sample in evaluation.samples]
    assert rows[0] == ("wrong", ["\N{MULTIPLICATION SIGN}", paths[2], "brightens", "darkens", "0.800"])
    assert [(kind, row[0]) for kind, row in rows[1:]] == [("", paths[1]), ("", paths[3]), ("", paths[0])]


def test_a_long_table_is_folded(evaluation, page_of, ramp_dataset):
    many = [evaluation.samples[i % 4] for i in range(51)]
    scores = Scores(np.resize(PROBABILITIES, (51, 2)), np.resize([0, 0, 0, 1], 51), ("brightens", "darkens"))
    assert "details" not in page_of(evaluation).tags
    page = page_of(Evaluation(many, scores))
    assert page.tags.count("details") == 1 and "51 rows" in page.texts


def test_odd_names_are_text(evaluation, page_of, ramp_dataset, tmp_path):
    labels = ["brightens", "brightens", "brightens", ODD]
    samples = [dataclasses.replace(s, path=ODD, label=x) for s, x in zip(evaluation.samples, labels, strict=True)]
    odd = Evaluation(samples, dataclasses.replace(evaluation.scores, labels=("brightens", ODD)))
    (tmp_path / "<b>&$").symlink_to(ramp_dataset.dataset_dir)
    named = dataclasses.replace(ramp_dataset, dataset_dir=tmp_path / "<b>&$")
    page = page_of(odd, named, about={ODD: {ODD: ODD}}, figures={ODD: Figure(figsize=(1, 1))})
    spelled = ODD.replace("\udcff", "\\xff")
    assert page.texts.count(spelled) >= 4 and f"{spelled}.{spelled}" in page.texts and "b" not in page.tags
    assert page.texts.count("Evaluation: <b>&$") == 2  # as the title and above the numbers
    assert spelled in (tmp_path / "report" / "report.txt").read_text(encoding="utf-8")
    assert (tmp_path / "report" / "figure_1.png").is_file()


def test_labels_and_paths_are_no_formulas_and_may_lack_in_the_font(evaluation, page_of, ramp_dataset, tmp_path):
    labels = ("$pay$ $\\frac$", "走る")
    samples = [dataclasses.replace(s, label=labels[s.label == "darkens"]) for s in evaluation.samples]
    odd = Evaluation(samples, dataclasses.replace(evaluation.scores, labels=labels))
    assert set(labels) <= set(page_of(odd).texts)
    renamed = [dataclasses.replace(s, path="$^$.avi", label=labels[s.label == "darkens"]) for s in ramp_dataset.samples]
    save_figure(samples_figure(dataclasses.replace(ramp_dataset, samples=renamed)), tmp_path / "samples.png")


def test_the_page_says_how_the_model_was_made(evaluation, page_of):
    about = {"model": "m.keras", "training": {"units": 8, "weights": None}, "trained": ["x"] * 400, "few": [1, 2]}
    rows = [row for _, row in page_of(evaluation, about=about).rows]
    assert rows[-5:] == [
        ["model", "m.keras"], ["training.units", "8"], ["training.weights", "None"], ["trained", "400 entries"],
        ["few", "1, 2"],
    ]  # fmt: skip


def test_segments_are_told_apart(evaluation, page_of, tmp_path):
    samples = [
        dataclasses.replace(sample, path="match.mp4", start_seconds=10.0 * i, end_seconds=10.0 * i + 5.5)
        for i, sample in enumerate(evaluation.samples)
    ]
    page = page_of(dataclasses.replace(evaluation, samples=samples))
    assert "match.mp4 [10.0-15.5 s]" in page.text and "match.mp4 [30.0-35.5 s]" in page.text
    with (tmp_path / "report" / "predictions.csv").open() as file:
        rows = [(row["path"], row["start_seconds"], row["end_seconds"], row["label"]) for row in csv.DictReader(file)]
    assert rows[1] == ("match.mp4", "10.0", "15.5", "brightens")


def test_another_segment_of_a_training_video_is_named(evaluation, page_of):
    trained = [f"{content_of(evaluation.samples[0])}_7_9", "9f"]
    assert (
        "WARNING: 1 of these 4 videos were used to train this model"
        in page_of(evaluation, about={"trained": trained}).text
    )


def test_what_makes_the_score_too_optimistic_is_said_on_the_page(evaluation, page_of, ramp_dataset):
    trained = [content_of(evaluation.samples[0])]
    assert (
        "WARNING: 1 of these 4 videos were used to train this model"
        in page_of(evaluation, about={"trained": trained}).text
    )
    moved = [dataclasses.replace(s, split="train") if s is evaluation.samples[0] else s for s in ramp_dataset.samples]
    others = [dataclasses.replace(s, split="test") if s.split == "train" else s for s in moved]
    page = page_of(evaluation, dataclasses.replace(ramp_dataset, samples=[*ramp_dataset.samples, *others]))
    assert "in more than one split: the score will be too optimistic" in page.text
    alone = [dataclasses.replace(s, group=s.path) for s in evaluation.samples]
    dataset = dataclasses.replace(ramp_dataset, samples=alone)
    assert "No groups known" in page_of(dataclasses.replace(evaluation, samples=alone), dataset).text


def test_a_cross_validation_shows_its_folds_and_the_baseline(evaluation, page_of):
    samples = [dataclasses.replace(s, group=g) for s, g in zip(evaluation.samples, "abcd", strict=True)]
    baseline = Scores(np.full((4, 2), 0.5), np.array([0, 0, 0, 1]), ("brightens", "darkens"))
    result = CrossValidation(samples, evaluation.scores, baseline, ["1", "1", "2", "2"])
    page = page_of(result)
    assert "accuracy over folds 0.750 \N{PLUS-MINUS SIGN} 0.354 standard deviation, 2 folds" in page.text
    assert "baseline accuracy 0.750" in page.text and result.verdict() in page.text
    assert "in 2 folds, each predicted by a model that was trained without it" in page.text
    assert "Folds" in page.texts and len(page.links) == 5
    assert page.rows[-1][1][-1] == "1"  # the fold of the last video
    one_group = dataclasses.replace(result, samples=[dataclasses.replace(s, group="a") for s in samples])
    assert "1 group appears in more than one" in page_of(one_group).text


def film_of(path, correct_seconds, **more):
    timeline = (Segment(0.0, correct_seconds, "brightens", 0.9), Segment(correct_seconds, 10.0, "darkens", 0.6))
    return EvaluatedFilm(path, path, (Segment(0.0, 10.0, "brightens", 1.0),), timeline, "unknown", 10.0, **more)


class TestFilms:
    @pytest.fixture
    def with_films(self, evaluation):
        films = [film_of(f"{i}/match.mp4", 1.0 + i % 9) for i in range(10)]
        whole = FilmEvaluation(tuple(films), ("brightens", "darkens"), (Failure("gone.mp4", "no such file"),))
        return dataclasses.replace(evaluation, films=whole)

    def test_each_film_is_a_row_and_an_image(self, with_films, ramp_dataset, tmp_path):
        written = save_report(with_films, ramp_dataset, tmp_path)
        assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
        with (tmp_path / "films.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["path"], float(row["frame_accuracy"])) for row in rows[:2]] == [
            ("0/match.mp4", pytest.approx(0.1)),
            ("1/match.mp4", pytest.approx(0.2)),
        ]
        assert {"segment_f1_50", "mean_average_precision_0.75", "edit_score", "labelled_seconds"} <= set(rows[0])
        images = sorted(path.name for path in (tmp_path / "films").iterdir())
        assert images == sorted(["match.png", *(f"match-{i}.png" for i in range(2, 11))])
        assert imread(tmp_path / "films" / "match.png").std() > 0.01
        told = json.loads((tmp_path / "scores.json").read_text())
        assert len(told["films"]) == 10 and "films            frame accuracy" in (tmp_path / "report.txt").read_text()

    def test_the_page_shows_the_least_accurate_films(self, with_films, page_of, evaluation):
        page = page_of(with_films)
        drawn = [text for text in page.texts if text.startswith("Film: ")]
        assert drawn == [f"Film: {i}/match.mp4" for i in (0, 9, 1, 2, 3, 4, 5, 6)]
        assert len(page.links) == len(page_of(evaluation).links) + 8
        assert "Whole films: 10 films, 100.0 s of them labelled" in page.text and "1 film left out" in page.text
        assert "frame accuracy 0.460" in page.text

    def test_the_fold_of_a_film_is_told(self, with_films, page_of, tmp_path):
        folded = FilmEvaluation((film_of("a.mp4", 5.0, fold="left"),), ("brightens", "darkens"))
        page = page_of(dataclasses.replace(with_films, films=folded))
        assert ["a.mp4", "left"] in [cells[:2] for _, cells in page.rows]
        assert "path,fold,duration_seconds" in (tmp_path / "report" / "films.csv").read_text()

    def test_odd_names_are_text(self, evaluation, page_of):
        odd = dataclasses.replace(
            film_of(ODD, 5.0), truth=(Segment(0.0, 10.0, ODD, 1.0),), timeline=(Segment(0.0, 10.0, ODD, 1.0),)
        )
        page = page_of(dataclasses.replace(evaluation, films=FilmEvaluation((odd,), ("brightens", ODD))))
        assert f"Film: {printable(ODD)}" in page.texts and "b" not in page.tags


class TestFiguresOfTheModel:
    def test_how_it_learned_and_why_it_answered(self, ramp_run, evaluation, ramp_dataset):
        figures = figures_of_model(ramp_run.classifier, evaluation, ramp_dataset)
        assert list(figures) == [
            "Learning curves",
            "Explanation 1: predicted darkens, actual brightens",  # then the most confident correct answers
            "Explanation 2: predicted brightens",
            "Explanation 3: predicted darkens",
        ]
        sample = evaluation.samples[2]
        texts = " ".join(text.get_text() for text in list(figures.values())[1].texts)
        assert texts.startswith("darkens  0.") and Path(sample.path).name in texts
        num_frames = min(sample.num_frames, 6)
        first, last = (part * sample.duration_seconds / num_frames for part in (0.5, num_frames - 0.5))
        assert f"frames from {first:.2f} to {last:.2f} s" in texts

    def test_frames_at_a_rate_keep_their_times(self, ramp_run, evaluation, ramp_dataset, monkeypatch):
        classifier = ramp_run.classifier
        spec = dataclasses.replace(classifier.spec, frames_per_second=4.0)
        monkeypatch.setattr(classifier, "info", dataclasses.replace(classifier.info, spec=spec))
        figures = figures_of_model(classifier, evaluation, ramp_dataset)
        num_frames = min(evaluation.samples[2].num_frames, 6)
        texts = " ".join(text.get_text() for text in list(figures.values())[1].texts)
        assert f"frames from 0.00 to {(num_frames - 1) / 4:.2f} s" in texts


def test_a_training_leaves_its_curves_and_its_reliability(ramp_run, tmp_path):
    uncalibrated = dataclasses.replace(ramp_run, calibration=None)
    assert [path.name for path in save_training_report(uncalibrated, tmp_path)] == ["learning_curves.png"]
    scores = Scores(PROBABILITIES, np.array([0, 0, 0, 1]), ("a", "b"))
    calibrated = dataclasses.replace(ramp_run, calibration=Calibration(1.5, 0.0, scores, scores))
    paths = save_training_report(calibrated, tmp_path)
    assert [path.name for path in paths] == ["learning_curves.png", "reliability.png"]
    assert all(imread(path).std() > 0 for path in paths)
