import dataclasses
import json

import numpy as np
import pytest

from activity.errors import DatasetError
from activity.evaluation.evaluator import Evaluation, evaluate
from activity.evaluation.metrics import Scores
from activity.model_selection.cross_validation import CrossValidation, cross_validate
from activity.training.trainer import train


def test_judges_each_sample_of_the_split(ramp_run, ramp_dataset):
    evaluation = evaluate(ramp_run.classifier, ramp_dataset, split="test")
    assert [sample.path for sample in evaluation.samples] == [s.path for s in ramp_dataset.samples if s.split == "test"]
    assert evaluation.scores.accuracy == 1
    truth = [ramp_dataset.labels[i] for i in evaluation.scores.label_ids]
    assert truth == [sample.label for sample in evaluation.samples]
    assert evaluation.as_dict()["accuracy"] == 1
    assert "macro-F1 1.000" in evaluation.as_text()


def test_shuffled_frames_lose_what_only_order_tells(ramp_dataset, frozen_config, tmp_path):
    rgb = ramp_dataset.with_streams(["rgb"])  # a single difference of frames would tell up from down
    classifier = train(rgb, frozen_config, work_dir=tmp_path).classifier
    straight = evaluate(classifier, rgb, split="train")
    shuffled = evaluate(classifier, rgb, split="train", shuffle_seed=0)
    assert straight.scores.accuracy == 1
    assert shuffled.scores.accuracy < 0.85


def test_a_long_stack_gets_the_mean_over_its_windows(ramp_run, ramp_dataset):
    classifier = ramp_run.classifier
    stack = np.random.default_rng(0).random((15, 2, classifier.backbone.output_shape[-1]), np.float32)
    windows = [stack[start : start + 6] for start in (0, 3, 6, 9)]
    np.testing.assert_allclose(
        classifier.predict_stacks([stack, stack[:6]]),
        [classifier.predict_stacks(windows).mean(axis=0), classifier.predict_stacks([stack[:6]])[0]],
        atol=1e-6,
    )


def test_evaluation_writes_no_features(ramp_run, ramp_dataset):
    before = set(ramp_dataset.dataset_dir.rglob("*"))
    evaluate(ramp_run.classifier, ramp_dataset, split="test")
    assert set(ramp_dataset.dataset_dir.rglob("*")) == before


def test_another_spec_is_refused(ramp_run, ramp_dataset):
    other = dataclasses.replace(ramp_dataset, spec=dataclasses.replace(ramp_dataset.spec, num_frames=8))
    with pytest.raises(DatasetError, match="does not fit this model, which expects 6 evenly .* holds 8 evenly"):
        evaluate(ramp_run.classifier, other)


def test_unknown_labels_are_named(ramp_run, ramp_dataset):
    rows = [dataclasses.replace(ramp_dataset.samples[0], label="flickers"), *ramp_dataset.samples[1:]]
    with pytest.raises(DatasetError, match="labels the model does not know: flickers; it knows brightens, darkens"):
        evaluate(ramp_run.classifier, dataclasses.replace(ramp_dataset, samples=rows))


def test_videos_that_were_taught_are_not_passed_off_as_a_test(ramp_run, ramp_dataset, caplog):
    evaluate(ramp_run.classifier, ramp_dataset, split="test")
    assert not caplog.text
    evaluate(ramp_run.classifier, ramp_dataset, split="val")
    count = len(ramp_dataset.split("val"))
    assert f"{count} of these {count} videos were used to train this model" in caplog.text


def test_videos_that_classify_would_read_in_windows_are_spoken_of(ramp_run, ramp_dataset, caplog):
    long = [dataclasses.replace(sample, duration_seconds=60.0) for sample in ramp_dataset.samples]
    evaluate(ramp_run.classifier, dataclasses.replace(ramp_dataset, samples=long), split="test")
    assert "twice the longest of training" in caplog.text


def test_the_sure_answers_are_fewer_and_say_how_many_are_right(ramp_dataset):
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.45, 0.55]])
    evaluation = Evaluation(ramp_dataset.samples[:4], Scores(probabilities, np.array([0, 1, 1, 1]), ("a", "b")))
    assert evaluation.above(0) == (1, 0.5)
    assert evaluation.above(0.7) == (0.5, 0.5)
    assert evaluation.above(0.8) == (0.25, 1)
    coverage, precision = evaluation.above(0.95)
    assert coverage == 0 and np.isnan(precision)


def test_worst_mistakes_come_most_confident_first(ramp_dataset):
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    scores = Scores(probabilities, np.array([0, 1, 0, 0]), ("a", "b"))
    assert Evaluation(ramp_dataset.samples[:4], scores).worst_mistakes() == [2, 3, 1]
    assert Evaluation(ramp_dataset.samples[:4], scores).worst_mistakes(1) == [2]


# === Cross-validation ===


@pytest.fixture(scope="module")
def result(ramp_dataset, frozen_config, tmp_path_factory):
    config = dataclasses.replace(frozen_config, epochs=25)
    rgb = ramp_dataset.with_streams(["rgb"])  # a single difference of frames would tell up from down
    return cross_validate(rgb, config, folds="camera", work_dir=tmp_path_factory.mktemp("cv"))


def test_every_sample_is_judged_by_a_model_that_never_saw_its_fold(result, ramp_dataset):
    assert result.folds == [sample.extra["camera"] for sample in ramp_dataset.samples]
    assert result.scores.probabilities.sum(axis=1) == pytest.approx(np.ones(32), abs=1e-5)
    assert result.scores.accuracy > 0.8


def test_a_fold_that_cannot_be_taught_is_named_before_any_is(ramp_dataset, frozen_config, tmp_path):
    rows = [s for s in ramp_dataset.samples if s.label == "darkens" or s.extra["camera"] == "left"]
    lacking = dataclasses.replace(ramp_dataset, samples=rows)
    with pytest.raises(DatasetError, match="fold left: .*no training videos of brightens"):
        cross_validate(lacking, frozen_config, folds="camera", work_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_reports_folds_and_the_baseline(result):
    assert set(result.fold_accuracies) == {"left", "right"}
    assert np.mean(list(result.fold_accuracies.values())) == pytest.approx(result.scores.accuracy)
    assert result.baseline.accuracy < 0.8  # the mean over time does not know the order
    report = result.as_dict()
    assert report["baseline_accuracy"] == result.baseline.accuracy
    assert report["folds"] == result.fold_accuracies
    assert report["baseline_macro_f1"] == result.baseline.macro_f1
    assert "2 folds: mean" in result.as_text() and result.verdict() in result.as_text()
    assert json.loads(json.dumps(report)) == report


def folds_of(ours, theirs):
    """A cross-validation of 3 folds of 4 samples, with so many right answers of the model and of the baseline."""

    def scores(num_correct):
        correct = np.concatenate([np.arange(4) < n for n in num_correct])
        truth = np.tile([0, 1], 6)
        return Scores(np.eye(2)[np.where(correct, truth, 1 - truth)], truth, ("a", "b"))

    return CrossValidation([], scores(ours), scores(theirs), [fold for fold in "xyz" for _ in range(4)])


def test_spread_over_folds_by_hand():
    result = folds_of((4, 3, 2), (2, 2, 2))
    assert result.fold_accuracies == {"x": 1, "y": 0.75, "z": 0.5}
    assert result.baseline_fold_accuracies == {"x": 0.5, "y": 0.5, "z": 0.5}
    assert result.standard_error == pytest.approx(0.25 / np.sqrt(3))
    # In y the second b is predicted as a; in z the second of each for the other.
    assert result.fold_macro_f1 == pytest.approx({"x": 1, "y": (4 / 5 + 2 / 3) / 2, "z": 1 / 2})
    assert "mean 0.750, standard deviation 0.250, standard error 0.144" in result.as_text()
    assert "macro-F1 over the folds: mean 0.744, standard deviation 0.250" in result.as_text()
    about = result.as_dict()
    assert about["folds"] == result.fold_accuracies and about["fold_macro_f1"] == result.fold_macro_f1
    assert about["lead"] == pytest.approx({"accuracy": 0.25, "standard_error": 0.25 / np.sqrt(3)})


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "numbers"),
    [
        ((4, 3, 2), (3, 2, 1), "better", "by more than one standard error (+0.250 +- 0.000"),  # paired
        ((3, 3, 4), (2, 2, 4), "better", "by more than one standard error (+0.167 +- 0.083"),
        ((4, 3, 2), (4, 2, 2), "not better", "the difference is within one standard error (+0.083"),
        ((4, 3, 2), (4, 3, 2), "not better", "the difference is within one standard error (+0.000"),
        ((1, 2, 3), (3, 3, 4), "worse", "by more than one standard error (-0.333 +- 0.083"),
    ],
)
def test_a_lead_counts_only_beyond_its_error(ours, theirs, verdict, numbers):
    words = {"not better": "not significantly better"}.get(verdict, f"significantly {verdict}")
    text = folds_of(ours, theirs).verdict()
    assert text.startswith(f"The model is {words} than the baseline") and numbers in text
    assert "paired over 3 folds)." in text
    assert ("activity tune" in text) == (verdict == "worse")


# === What a report asks of an evaluation ===


def test_an_evaluation_says_its_headline_and_what_it_is_worth(ramp_run, ramp_dataset):
    evaluation = evaluate(ramp_run.classifier, ramp_dataset, split="test")
    assert evaluation.title == "Evaluation"
    names = [name for name, _, _ in evaluation.headline()]
    assert names == ["accuracy", "macro-F1", "expected calibration error"]
    assert evaluation.headline()[0] == (
        "accuracy",
        "1.000",
        f"{len(evaluation.samples)} of {len(evaluation.samples)} videos",
    )
    about, *audit = evaluation.sentences(ramp_dataset, ramp_run.classifier.info.record.trained)
    assert about.startswith(f"{len(evaluation.samples)} videos of ") and "of the split test; 6 evenly spaced" in about
    assert not any("used to train this model" in line for line in audit)
    validated = Evaluation(ramp_dataset.split("val"), evaluation.scores)
    assert (
        "were used to train this model"
        in validated.sentences(ramp_dataset, ramp_run.classifier.info.record.trained)[-1]
    )
    assert set(evaluation.figures(ramp_dataset)) == {"classes", "confusion", "confidence", "mistakes"}
    row = evaluation.rows()[0]
    assert list(row) == ["path", "label", "predicted", "probability"] and row["predicted"] == row["label"]


def test_a_cross_validation_adds_its_folds(result, ramp_dataset):
    assert result.title == "Cross-validation"
    headline = {name: (value, detail) for name, value, detail in result.headline()}
    assert headline["accuracy over folds"][1] == "standard deviation, 2 folds"
    assert headline["baseline accuracy"][0] == f"{result.baseline.accuracy:.3f}"
    assert list(headline)[-1] == "expected calibration error"
    sentences = result.sentences(ramp_dataset)
    assert "in 2 folds, each predicted by a model that was trained without it" in sentences[0]
    assert sentences[-1].startswith(result.verdict())
    assert result.figures(ramp_dataset)["folds"] == (result.fold_accuracies, result.baseline_fold_accuracies)
    assert [row["fold"] for row in result.rows()] == result.folds


def test_the_ranking_begins_with_confident_mistakes_and_ends_with_confident_answers(ramp_dataset):
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    scores = Scores(probabilities, np.array([0, 0, 0, 0]), ("a", "b"))
    assert Evaluation(ramp_dataset.samples[:4], scores).ranking() == [2, 3, 1, 0]


def test_names_that_are_not_utf8_are_spelled_out(ramp_dataset):
    odd = dataclasses.replace(ramp_dataset.samples[0], path="a\udcff.avi")
    scores = Scores(np.array([[1.0, 0.0]]), np.array([0]), ("a", "b\udcff"))
    for evaluation in (Evaluation([odd], scores), CrossValidation([odd], scores, scores, ["\udcff"])):
        named = evaluation.printable()
        assert named.samples[0].path == "a\\xff.avi" and named.scores.labels == ["a", "b\\xff"]
    assert named.folds == ["\\xff"]


def test_a_model_of_feature_files(feature_run, feature_config, ramp_dataset, ramp_features, tmp_path):
    given = ramp_dataset.with_features(ramp_features)
    assert evaluate(feature_run.classifier, given).scores.accuracy == 1
    result = cross_validate(ramp_dataset, dataclasses.replace(feature_config, epochs=8), folds="2", work_dir=tmp_path)
    assert result.scores.accuracy > 0.9
    assert "6 evenly spaced rows of 5 features" in result.sentences(given)[0]


def test_features_and_videos_are_not_mistaken_for_each_other(
    feature_run, ramp_run, ramp_dataset, ramp_features, tmp_path
):
    given = ramp_dataset.with_features(ramp_features)
    message = (
        "expects 6 evenly spaced rows of 5 features; the data set holds 6 evenly .*; name their folder with --features"
    )
    with pytest.raises(DatasetError, match=message):
        evaluate(feature_run.classifier, ramp_dataset)
    with pytest.raises(DatasetError, match="holds 6 evenly spaced rows of 5 features; leave out --features"):
        evaluate(ramp_run.classifier, given)
    for sample in ramp_dataset.samples:
        np.save(tmp_path / f"{sample.sample_id}.npy", np.zeros((3, 4)))
    with pytest.raises(
        DatasetError, match="rows of 4 features; give the features of the network that it was trained with"
    ):
        evaluate(feature_run.classifier, ramp_dataset.with_features(tmp_path))


def test_the_size_of_frames_does_not_matter_to_features(feature_run, ramp_dataset, ramp_features):
    spec = dataclasses.replace(ramp_dataset.spec, height=48, width=64, resize="crop")
    given = dataclasses.replace(ramp_dataset, spec=spec).with_features(ramp_features)
    assert evaluate(feature_run.classifier, given).scores.accuracy == 1
