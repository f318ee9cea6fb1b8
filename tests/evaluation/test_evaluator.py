import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from activity.config import ClipSpec
from activity.datasets.dataset import Dataset, stack_path
from activity.datasets.samples import Sample
from activity.errors import DatasetError
from activity.evaluation.evaluator import Evaluation, evaluate
from activity.evaluation.linear import baseline_probabilities
from activity.evaluation.metrics import Scores
from activity.model_selection.cross_validation import CrossValidation, cross_validate
from activity.runtimes.features import extract_features
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


def test_samples_without_a_label_are_left_out(ramp_run, ramp_dataset, caplog):
    described, *rows = ramp_dataset.split("test")
    described = dataclasses.replace(described, label="", captions=("it changes",))
    both = dataclasses.replace(ramp_dataset, samples=[described, *rows, *ramp_dataset.split("train")])
    assert evaluate(ramp_run.classifier, both, split="test").samples == rows
    assert f"1 of its {len(both.samples)} samples have no label, left out" in caplog.text
    with pytest.raises(DatasetError, match="it has captions and no labels"):
        evaluate(ramp_run.classifier, dataclasses.replace(ramp_dataset, samples=[described]))


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


# === What stands beside the accuracy ===


def answers(num_correct, num_wrong, *, num_groups=10, **beside):
    """An evaluation of two labels; of the confidences 0.6, 0.7 ... 0.9 as many are correct."""
    correct = np.arange(num_correct + num_wrong) < num_correct
    confidences = 0.6 + 0.1 * (np.arange(len(correct)) % 4)
    truth = np.arange(len(correct)) % 2
    samples = [
        Sample(path=f"{i}.avi", label="ab"[label], group=f"g{i % num_groups}", split="test")
        for i, label in enumerate(truth)
    ]
    probabilities = np.where(np.eye(2)[np.where(correct, truth, 1 - truth)] == 1, confidences[:, None], 0)
    probabilities += (probabilities == 0) * (1 - confidences[:, None])
    return Evaluation(samples, Scores(probabilities, truth, ("a", "b")), **beside)


def dataset_of(evaluation):
    return Dataset(Path("dataset"), Path("videos"), ClipSpec(), evaluation.samples, [])


@pytest.mark.parametrize(
    ("threshold", "coverage", "precision"),
    [(None, 1, 0.5), (0.5, 1, 0.5), (0.7, 0.5, 0.5), (0.8, 0.25, 1), (0.95, 0, None)],
)
def test_the_confident_answers_are_fewer_and_say_how_many_are_correct(ramp_dataset, threshold, coverage, precision):
    scores = Scores(np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.45, 0.55]]), np.array([0, 1, 1, 1]), ("a", "b"))
    thresholds = None if threshold is None else np.full(4, threshold)
    evaluation = Evaluation(ramp_dataset.samples[:4], scores, thresholds=thresholds)
    told = evaluation.as_dict()
    assert (told["coverage"], told["precision"]) == (coverage, precision)
    assert json.loads(json.dumps(told)) == told
    assert ("answers  " in evaluation.as_text()) is (threshold is not None)
    assert ("of these are correct" in evaluation.as_text()) is (threshold is not None and precision is not None)


def test_the_precision_has_an_interval_and_needs_answers():
    evaluation = answers(90, 30, thresholds=np.full(120, 0.75))  # 44 of the 60 most confident answers are correct
    assert evaluation.coverage.value == 0.5 and evaluation.precision.value == 44 / 60
    text = evaluation.as_text()
    assert '"unknown" below 0.750: 50% of the videos get an answer (95 % interval ' in text and "too few" not in text
    low, high = evaluation.as_dict()["intervals"]["precision"]
    assert low < evaluation.precision.value < high
    assert f"of these are correct ({low:.3f} to {high:.3f})" in text
    few = answers(30, 9, thresholds=np.full(39, 0.75))
    assert "19 answers are too few to judge the precision" in few.as_text()
    assert any("too few to judge" in line for line in few.sentences(dataset_of(few)))


def test_a_model_near_chance_is_called_that():
    line = "hardly better than always answering with the most frequent label (0.500)"
    near, better = answers(20, 20), answers(38, 2)
    assert f"chance           {line}" in near.as_text() and f"The model is {line}." in near.sentences(dataset_of(near))
    assert "hardly" not in better.as_text() and not any("hardly" in x for x in better.sentences(dataset_of(better)))


def test_each_fold_may_have_its_own_threshold():
    evaluation = answers(30, 10, thresholds=np.repeat([0.85, 0.65], 20))
    assert evaluation.answered.tolist() == [False, False, False, True] * 5 + [False, True, True, True] * 5
    assert '"unknown" below 0.650 to 0.850: 50% of the videos' in evaluation.as_text()
    partly = answers(30, 10, thresholds=np.repeat([0.85, 0.0], 20)).as_text()
    assert '"unknown" below 0.850 (but for 20 videos, whose models have no threshold): ' in partly


def test_the_head_alone_is_shown_beside_the_stack():
    head = answers(60, 60).scores
    evaluation = answers(90, 30, head_alone=head)
    assert evaluation.as_dict()["head_accuracy"] == 0.5
    assert "head alone       accuracy 0.500, macro-F1 0.500 (without the linear models" in evaluation.as_text()
    assert ("accuracy of the head alone", "0.500", "without the linear models") in evaluation.headline()
    without = answers(90, 30)
    assert without.as_dict()["head_accuracy"] is None and "head alone" not in without.as_text()


def test_the_lead_over_the_baseline_is_paired_and_has_an_interval():
    evaluation = answers(90, 30, baseline=answers(60, 60).scores)
    lead = evaluation.lead
    assert lead.value == pytest.approx(0.25) and 0 < lead.low < 0.25 < lead.high < 0.5
    told = evaluation.as_dict()
    assert told["baseline_accuracy"] == 0.5 and told["lead"]["accuracy"] == lead.value
    assert told["intervals"]["lead"] == [lead.low, lead.high]
    text = evaluation.as_text()
    assert f"lead over the baseline {lead.low:+.3f} to {lead.high:+.3f}; by bootstrap over 10 groups" in text
    assert "baseline         accuracy 0.500, macro-F1 0.500 (logistic regression on the mean feature" in text
    assert evaluation.verdict().startswith("The model is significantly better than the baseline, by more than one")
    assert evaluation.verdict() in text and "paired over 120 videos)" in text
    assert evaluation.headline()[1][:2] == ("baseline accuracy", "0.500")


def test_a_lead_whose_interval_includes_0_is_not_called_significant():
    evaluation = answers(63, 57, baseline=answers(60, 60).scores, num_groups=40)
    assert evaluation.lead.value > evaluation.lead.standard_error and evaluation.lead.low <= 0
    assert "better than the baseline by more than one standard error, but not significantly" in evaluation.verdict()


def test_where_all_answers_are_correct_the_interval_is_that_of_a_binomial_and_it_says_so():
    text = answers(40, 0, num_groups=5).as_text()
    assert f"accuracy {0.025 ** (1 / 40):.3f} to 1.000; by bootstrap over 5 groups; exact (binomial)" in text
    assert "binomial" not in answers(39, 1).as_text()
    alike = answers(39, 1, baseline=answers(39, 1).scores)
    assert alike.lead.low == -alike.lead.high < 0 and "exact (binomial)" in alike.as_text()


def test_without_a_baseline_nothing_is_said_of_one():
    evaluation = answers(90, 30)
    assert evaluation.lead is None and evaluation.verdict() == "" and "baseline" not in evaluation.as_text()
    told = evaluation.as_dict()
    assert (told["baseline_accuracy"], told["lead"], told["intervals"]["lead"]) == (None, None, None)


@pytest.mark.parametrize(
    ("num_groups", "words"),
    [(1, "over 120 videos of a single group"), (3, "over 3 groups, rough with so few"), (8, "over 8 groups")],
)
def test_it_is_said_what_the_interval_is_over(num_groups, words):
    evaluation = answers(90, 30, num_groups=num_groups)
    assert f"by bootstrap {words}" in evaluation.as_text()
    assert f"Intervals are of 95 %, by bootstrap {words}" in evaluation.sentences(dataset_of(evaluation))[-1]


# === The baseline of an evaluation ===


def test_the_baseline_learns_from_the_other_videos_and_does_not_know_the_order(ramp_dataset, frozen_config, tmp_path):
    rgb = ramp_dataset.with_streams(["rgb"])
    classifier = train(rgb, frozen_config, work_dir=tmp_path).classifier
    evaluation = evaluate(classifier, rgb)
    samples = rgb.samples
    features = extract_features(rgb, samples, classifier.backbone, keep=False)
    label_ids = np.array([rgb.labels.index(sample.label) for sample in samples])
    is_test = np.array([sample.split == "test" for sample in samples])
    expected = baseline_probabilities(features, label_ids, is_test, 2)
    np.testing.assert_allclose(evaluation.baseline.probabilities, expected, atol=1e-4)
    assert evaluation.baseline.accuracy < 0.8 < evaluation.scores.accuracy
    shuffled = evaluate(classifier, rgb, shuffle_seed=0).baseline
    np.testing.assert_allclose(shuffled.probabilities, expected, atol=1e-4)
    assert evaluate(classifier, rgb, baseline=False).baseline is None


def test_the_val_split_has_a_baseline_of_the_train_split(ramp_run, ramp_dataset, caplog):
    evaluation = evaluate(ramp_run.classifier, ramp_dataset, split="val")
    assert evaluation.baseline is not None and "no baseline" not in caplog.text


def merged_record(classifier):
    """As that of a stack, which is trained on the val split too."""
    return classifier.info.with_record(num_videos={"train": 24, "val": 0, "test": 8})


@pytest.mark.parametrize("split", ["train", "val"])
def test_videos_of_training_have_no_baseline(ramp_run, ramp_dataset, split, monkeypatch, caplog):
    monkeypatch.setattr(ramp_run.classifier, "info", merged_record(ramp_run.classifier))
    assert evaluate(ramp_run.classifier, ramp_dataset, split=split).baseline is None
    assert f"no baseline: the model was trained on the split {split}" in caplog.text


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda s: s.split == "test", "the data set has no training videos of brightens, darkens"),
        (lambda s: s.split == "test" or s.label == "darkens", "the data set has no training videos of brightens"),
        (lambda s: s.label == "darkens", "all training videos of the data set are of darkens"),
    ],
)
def test_without_training_videos_there_is_no_baseline(ramp_run, ramp_dataset, keep, words, caplog):
    samples = [sample for sample in ramp_dataset.samples if keep(sample)]
    evaluation = evaluate(ramp_run.classifier, dataclasses.replace(ramp_dataset, samples=samples))
    assert evaluation.baseline is None and f"no baseline: {words}" in caplog.text


def test_training_videos_that_cannot_be_read_cost_the_baseline_alone(ramp_run, ramp_dataset, tmp_path, caplog):
    folder = shutil.copytree(ramp_dataset.dataset_dir, tmp_path / "dataset", ignore=lambda *_: ["features"])
    dataset = dataclasses.replace(ramp_dataset, dataset_dir=folder)
    lost = dataset.split("train")[0]
    stack_path(folder, lost.sample_id).unlink()
    evaluation = evaluate(ramp_run.classifier, dataset)
    assert evaluation.baseline is None and evaluation.scores.accuracy == 1
    assert "no baseline: " in caplog.text and lost.sample_id in caplog.text


def test_a_baseline_of_other_videos_than_the_model_is_spoken_of(ramp_run, ramp_dataset, monkeypatch, caplog):
    record = ramp_run.classifier.info.record
    monkeypatch.setattr(ramp_run.classifier, "info", ramp_run.classifier.info.with_record(trained=record.trained[:-3]))
    assert evaluate(ramp_run.classifier, ramp_dataset).baseline is not None
    count = len(record.trained)
    assert f"trained on {count} videos of this data set, and the model was not trained on 3 of them" in caplog.text


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


def test_of_a_stack_with_a_threshold_all_is_held_out(ramp_dataset, frozen_config, tmp_path):
    config = dataclasses.replace(frozen_config, head="pooled", epochs=2, stack=True, val_split=False, precision=0.7)
    result = cross_validate(ramp_dataset.with_streams(["rgb"]), config, folds="camera", work_dir=tmp_path)
    assert result.head_alone.probabilities.sum(axis=1) == pytest.approx(np.ones(32), abs=1e-5)
    assert np.abs(result.head_alone.probabilities - result.scores.probabilities).max() > 0.01
    folds = np.asarray(result.folds)
    assert {len(set(result.thresholds[folds == fold])) for fold in ("left", "right")} == {1}
    text = result.as_text()
    assert "head alone       accuracy" in text and '"unknown" below 0.' in text
    assert f"expected calibration error {result.scores.calibration_error:.3f}" in text


def folds_of(ours, theirs):
    """A cross-validation of 3 folds of 40 samples, with so many of 4 answers of model and baseline correct."""

    def scores(num_correct):
        correct = np.concatenate([np.tile(np.arange(4) < n, 10) for n in num_correct])
        truth = np.tile([0, 1], 60)
        return Scores(np.eye(2)[np.where(correct, truth, 1 - truth)], truth, ("a", "b"))

    folds = [fold for fold in "xyz" for _ in range(40)]
    samples = [Sample(path=f"{i}.avi", label="ab"[i % 2], group=fold) for i, fold in enumerate(folds)]
    return CrossValidation(samples, scores(ours), scores(theirs), folds)


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
        ((3, 3, 4), (2, 2, 4), "doubtful", "the 95 % interval includes 0 (+0.167 +- 0.083"),
        ((4, 3, 2), (4, 2, 2), "not better", "the difference is within one standard error (+0.083"),
        ((4, 3, 2), (4, 3, 2), "not better", "the difference is within one standard error (+0.000"),
        ((4, 3, 2), (4, 4, 2), "not better", "the difference is within one standard error (-0.083"),
        ((1, 2, 3), (3, 3, 4), "worse", "by more than one standard error (-0.333 +- 0.083"),
    ],
)
def test_a_lead_counts_only_beyond_its_error(ours, theirs, verdict, numbers):
    words = {
        "not better": "not significantly better than the baseline: ",
        "doubtful": "better than the baseline by more than one standard error, but not significantly: ",
    }.get(verdict, f"significantly {verdict} than the baseline, ")
    text = folds_of(ours, theirs).verdict()
    assert text.startswith(f"The model is {words}") and numbers in text
    assert "paired over 3 folds)." in text
    assert ("activity tune" in text) == (verdict == "worse")


# === What a report asks of an evaluation ===


def test_an_evaluation_says_its_headline_and_what_it_is_worth(ramp_run, ramp_dataset):
    evaluation = evaluate(ramp_run.classifier, ramp_dataset, split="test")
    assert evaluation.title == "Evaluation"
    names = [name for name, _, _ in evaluation.headline()]
    assert names == ["accuracy", "baseline accuracy", "macro-F1", "expected calibration error"]
    name, value, detail = evaluation.headline()[0]
    assert (name, value) == ("accuracy", "1.000")
    assert detail.startswith(f"{len(evaluation.samples)} of {len(evaluation.samples)} videos, 95 %: 0.")
    about, *audit = evaluation.sentences(ramp_dataset, ramp_run.classifier.info.record.trained)
    assert about.startswith(f"{len(evaluation.samples)} videos of ") and "of the split test; 6 evenly spaced" in about
    assert not any("used to train this model" in line for line in audit)
    validated = Evaluation(ramp_dataset.split("val"), evaluation.scores)
    assert any(
        "were used to train this model" in line
        for line in validated.sentences(ramp_dataset, ramp_run.classifier.info.record.trained)
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
    assert any(line.startswith(result.verdict()) for line in sentences)
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
