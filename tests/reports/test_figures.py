from pathlib import Path

import numpy as np
import pytest
from bench_recipe import ablation_figure

from activity.config import TrainConfig
from activity.evaluation.evaluator import Evaluation
from activity.evaluation.metrics import Scores
from activity.model_selection.tuning import Search, Trial
from activity.reports.figures import (
    confusion_figure,
    curves_figure,
    folds_figure,
    mistakes_figure,
    per_class_figure,
    reliability_figure,
    samples_figure,
    search_figure,
)
from activity.reports.style import save_figure

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


def test_mistakes_name_the_predicted_and_the_actual_label(evaluation, ramp_dataset):
    figure = mistakes_figure(evaluation, ramp_dataset)
    titles = [axes.get_title(loc="left").strip() for axes in figure.axes]
    assert titles == ["predicted darkens, actual brightens"]
    assert evaluation.samples[2].path in figure.axes[0].get_title(loc="right")
    assert "0.80" in figure.axes[0].get_title(loc="right")


def test_without_mistakes_the_least_confident_are_shown(evaluation, ramp_dataset):
    correct = Evaluation(evaluation.samples, Scores(PROBABILITIES, np.array([0, 0, 1, 1]), ("brightens", "darkens")))
    figure = mistakes_figure(correct, ramp_dataset, most=2)
    assert "no mistakes" in figure.get_suptitle()
    assert [axes.get_title(loc="right").split()[0] for axes in figure.axes] == ["0.60", "0.70"]


def test_samples_show_each_label(ramp_dataset):
    figure = samples_figure(ramp_dataset, per_label=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["brightens"] * 2 + ["darkens"] * 2


def test_classes_come_best_first_with_their_support(evaluation):
    axes = per_class_figure(evaluation.scores).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["brightens", "darkens"]  # F1 0.8, 0.667
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.8, 2 / 3])
    precision, recall = [np.asarray(dots.get_offsets()).tolist() for dots in axes.collections[1:]]
    assert precision == [pytest.approx([1, 0]), pytest.approx([1 / 2, 1])]
    assert recall == [pytest.approx([2 / 3, 0]), pytest.approx([1, 1])]
    assert [text.get_text() for text in axes.texts] == ["3", "1"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top


def test_a_hundred_long_labels_have_room():
    labels = [f"a label that is rather long, the {i}th" for i in range(100)]
    scores = Scores(np.eye(100), np.arange(100), labels)
    for figure in (per_class_figure(scores), confusion_figure(scores)):
        figure.draw_without_rendering()
        names = [label for label in figure.axes[0].get_yticklabels() if label.get_text()]
        tops = sorted(label.get_window_extent().y0 for label in names)
        assert np.diff(tops).min() >= 0.8 * names[0].get_window_extent().height  # none covers another
        assert min(label.get_window_extent().x0 for label in names) >= 0
        assert len({label.get_text() for label in names}) == 100 and len(names[0].get_text()) == 32


def test_reliability_shows_bins_and_error():
    confidences, correct = np.array([0.55, 0.6, 0.95, 0.95]), np.array([True, False, True, True])
    figure = reliability_figure(confidences, correct, title="a title")
    upper, lower = figure.axes
    assert upper.get_title() == "a title"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "calibrated",
        "model: expected calibration error 0.062",  # (2 * 0.075 + 2 * 0.05) / 4, and Python rounds half to even
    ]
    assert upper.lines[1].get_xdata() == pytest.approx([0.575, 0.95])
    assert upper.lines[1].get_ydata() == pytest.approx([0.5, 1])
    assert [bar.get_height() for bar in lower.patches] == [2, 2]
    twice = reliability_figure(confidences, correct, before=(np.ones(4), correct))
    assert "before: expected calibration error 0.250" in [t.get_text() for t in twice.legends[0].get_texts()]
    assert [bar.get_height() for bar in twice.axes[1].patches] == [4, 2, 2]


def test_ablation_has_a_panel_a_data_set_and_the_reference_dashed():
    rows = [("plain", {"a": (0.5, 0.1), "b": (0.7, 0.1)}), ("more", {"a": (0.6, 0.05)})]
    figure = ablation_figure(rows)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    dashed = [[line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] for axes in figure.axes]
    assert dashed == [[0.5], [0.7]]
    assert [len(axes.containers) for axes in figure.axes] == [2, 1]
    segments = figure.axes[0].containers[1].lines[2][0].get_segments()[0]
    assert segments[:, 0] == pytest.approx([0.55, 0.65])


def test_folds_are_beside_the_baseline():
    figure = folds_figure({"x": 0.5, "y": 0.9}, {"y": 0.6, "x": 0.4})
    axes = figure.axes[0]
    baseline, model = [np.asarray(dots.get_offsets())[:, 0].tolist() for dots in axes.collections[1:]]
    assert (model, baseline) == ([0.5, 0.9], [0.4, 0.6])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["baseline, mean 0.500", "model, mean 0.700"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    many = {f"{i}": 0.5 for i in range(700)}
    assert folds_figure(many, many).get_figheight() < 20


def test_a_figure_appears_whole_or_not_at_all(evaluation, tmp_path, monkeypatch):
    path = tmp_path / "c.png"
    path.write_text("the old image")

    def fail(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        save_figure(confusion_figure(evaluation.scores), path)
    assert path.read_text() == "the old image" and list(tmp_path.iterdir()) == [path]


def test_figures_make_their_folder(evaluation, tmp_path):
    assert save_figure(confusion_figure(evaluation.scores), tmp_path / "a" / "b" / "c.png").is_file()


def test_a_search_shows_every_trial_the_best_so_far_and_each_setting():
    def trial(number, accuracy, pruned=False, **settings):
        settings = {"streams": "rgb", "head": "lstm", "learning_rate": 1e-3, "epochs": 50, **settings}
        scores = {"fold_accuracies": {}, "accuracy": accuracy, "log_loss": 1.0, "score": accuracy}
        return Trial(number, pruned, TrainConfig(), ("rgb",), settings, **scores, seconds=1.0)

    trials = [
        trial(1, 0.5),
        trial(2, 0.4, head="gru", learning_rate=1e-2),
        trial(3, 0.2, pruned=True, head="pooled"),
        trial(4, np.nan, pruned=True, head="stacked"),  # it did not fit into the memory
        trial(5, 0.7, streams="rgb,$motion$"),
    ]
    figure = search_figure(Search(trials, {}, ["0", "1"], 20, Path("tuning.log")))
    upper, *panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["streams", "head", "learning_rate"]  # all had the same epochs
    assert panels[2].get_xscale() == "log"
    assert [text.get_text() for text in panels[1].get_xticklabels()] == ["gru", "lstm", "pooled"]
    complete, pruned = (marks.get_offsets().tolist() for marks in upper.collections)
    assert complete == [[1, 0.5], [2, 0.4], [5, 0.7]] and pruned == [[3, 0.2]]
    best, given = upper.lines
    assert list(best.get_ydata()) == [0.5, 0.5, 0.5, 0.7]
    assert list(given.get_ydata()) == [0.5, 0.5]
