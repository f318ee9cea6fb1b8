import csv
import dataclasses
import json

import numpy as np
import pytest
from matplotlib.image import imread

from activity.evaluation import Evaluation
from activity.metrics import Scores
from activity.plots import confusion_figure, curves_figure, mistakes_figure, samples_figure, save_figure, save_report

PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])


@pytest.fixture
def evaluation(ramp_dataset):
    samples = [s for s in ramp_dataset.samples if s.label == "brightens"][:3]
    samples += [s for s in ramp_dataset.samples if s.label == "darkens"][:1]
    return Evaluation(samples, Scores(PROBABILITIES, np.array([0, 0, 0, 1]), ("brightens", "darkens")))


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_confusion_shows_counts_and_labels(evaluation):
    figure = confusion_figure(evaluation.scores)
    assert texts(figure) == ["2", "1", "1"]  # no number where the count is 0
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["brightens", "darkens"]
    assert "accuracy 0.750" in figure.axes[0].get_title()


def test_confusion_of_many_labels_writes_no_numbers():
    labels = [f"label {i}" for i in range(60)]
    assert texts(confusion_figure(Scores(np.eye(60), np.arange(60), labels))) == []


def test_curves_mark_where_a_stage_begins():
    row = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4}
    history = [{"stage": stage, "epoch": i, **row} for i, stage in enumerate(["head", "head", "fine_tune"])]
    figure = curves_figure(history)
    assert [text.strip() for text in texts(figure)] == ["fine_tune", "fine_tune"]
    assert len(figure.axes[0].lines[0].get_xdata()) == 3


def test_mistakes_name_what_was_taken_for_what(evaluation, ramp_dataset):
    figure = mistakes_figure(evaluation, ramp_dataset)
    titles = [axes.get_title(loc="left").strip() for axes in figure.axes]
    assert titles == ["brightens taken for darkens"]
    assert evaluation.samples[2].path in figure.axes[0].get_title(loc="right")
    assert "0.80" in figure.axes[0].get_title(loc="right")


def test_without_mistakes_the_least_certain_are_shown(evaluation, ramp_dataset):
    right = Evaluation(evaluation.samples, Scores(PROBABILITIES, np.array([0, 0, 1, 1]), ("brightens", "darkens")))
    figure = mistakes_figure(right, ramp_dataset, most=2)
    assert "no mistakes" in figure.get_suptitle()
    assert [axes.get_title(loc="right").split()[0] for axes in figure.axes] == ["0.60", "0.70"]


def test_samples_show_each_label(ramp_dataset):
    figure = samples_figure(ramp_dataset, per_label=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["brightens"] * 2 + ["darkens"] * 2


def test_a_report_is_a_folder_of_files(evaluation, ramp_dataset, tmp_path):
    written = save_report(evaluation, ramp_dataset, tmp_path / "report")
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "report").iterdir())
    assert json.loads((tmp_path / "report" / "scores.json").read_text())["accuracy"] == 0.75
    with (tmp_path / "report" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["brightens", "brightens", "darkens", "darkens"]
    for name in ("confusion.png", "mistakes.png"):
        pixels = imread(tmp_path / "report" / name)
        assert min(pixels.shape[:2]) > 100 and pixels.std() > 0.01  # drawn, not blank


def test_labels_and_paths_are_no_formulas_and_may_lack_in_the_font(evaluation, ramp_dataset, tmp_path):
    labels = ("$pay$ $\\frac$", "走る")
    samples = [dataclasses.replace(s, label=labels[s.label == "darkens"]) for s in evaluation.samples]
    odd = Evaluation(samples, dataclasses.replace(evaluation.scores, labels=labels))
    renamed = [dataclasses.replace(s, path="$^$.avi", label=labels[s.label == "darkens"]) for s in ramp_dataset.samples]
    save_report(odd, ramp_dataset, tmp_path / "report")
    save_figure(samples_figure(dataclasses.replace(ramp_dataset, samples=renamed)), tmp_path / "samples.png")
    assert [label.get_text() for label in confusion_figure(odd.scores).axes[0].get_xticklabels()] == list(labels)


def test_a_figure_appears_whole_or_not_at_all(evaluation, tmp_path, monkeypatch):
    path = tmp_path / "c.png"
    path.write_text("the old picture")

    def fail(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        save_figure(confusion_figure(evaluation.scores), path)
    assert path.read_text() == "the old picture" and list(tmp_path.iterdir()) == [path]


def test_figures_make_their_folder(evaluation, tmp_path):
    assert save_figure(confusion_figure(evaluation.scores), tmp_path / "a" / "b" / "c.png").is_file()
