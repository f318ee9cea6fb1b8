"""What out-of-fold predictions tell, and what training with a stack makes of them."""

import dataclasses

import numpy as np
import pytest

from activity.datasets import arrays
from activity.evaluation.evaluator import evaluate
from activity.evaluation.linear import predict_linear
from activity.models.classifier import ActivityClassifier, load_classifier
from activity.models.heads import member_predictions_of
from activity.models.saving import save_model
from activity.models.stack import HEAD, is_stack, stacked_head
from activity.runtimes.features import extract_features
from activity.training.stacking import BASELINE, OutOfFold, base_predictions, fit_base_models, head_predictions
from activity.training.trainer import train

RNG = np.random.default_rng(0)


def out_of_fold(logs, label_ids, *, groups=None, owners=None):
    label_ids = np.asarray(label_ids)
    owners = np.arange(len(label_ids)) if owners is None else owners
    logs = {name: np.log(np.asarray(x, float)) for name, x in logs.items()}
    return OutOfFold(
        labels=("a", "b"),
        logs=logs,
        shuffled=logs,
        baseline=logs[BASELINE],
        owners=owners,
        label_ids=label_ids,
        groups=groups or [str(i) for i in range(len(label_ids))],
        folds=np.arange(len(label_ids)) % 5,
        train_accuracy=1.0,
    )


def answers(label_ids, share_correct, confidence):
    correct = RNG.permutation(len(label_ids)) < share_correct * len(label_ids)
    chosen = np.where(correct, label_ids, 1 - np.asarray(label_ids))
    return np.where(np.eye(2)[chosen] == 1, confidence, 1 - confidence)


def test_what_is_right_more_often_weighs_more_and_what_is_noise_nothing():
    label_ids = np.arange(400) % 2
    good, noise = answers(label_ids, 0.9, 0.9), answers(label_ids, 0.5, 0.9)
    weights = out_of_fold({HEAD: noise, BASELINE: good}, label_ids).best_weights()
    assert weights[BASELINE] > 0.8 and weights[HEAD] < 0.1


def test_without_evidence_the_weights_stay_equal():
    same = np.full((40, 2), 0.5)
    weights = out_of_fold({HEAD: same, BASELINE: same}, np.arange(40) % 2).best_weights()
    assert weights == pytest.approx({HEAD: 0.5, BASELINE: 0.5})


def test_models_no_better_than_chance_weigh_the_same():
    label_ids = np.arange(400) % 2
    wrong = {name: answers(label_ids, 0.4, 0.99) for name in (HEAD, BASELINE)}
    weights = out_of_fold(wrong, label_ids).best_weights()
    assert weights[HEAD] == pytest.approx(weights[BASELINE], rel=0.1) and weights[HEAD] > 0


def test_a_model_that_is_too_sure_does_not_drown_the_others():
    label_ids = np.arange(400) % 2
    sure, modest = answers(label_ids, 0.8, 1 - 1e-6), answers(label_ids, 0.8, 0.8)
    weights = out_of_fold({HEAD: sure, BASELINE: modest}, label_ids).best_weights()
    logit = np.log((1 - 1e-6) / 1e-6) * weights[HEAD]
    assert logit == pytest.approx(np.log(0.8 / 0.2) * weights[BASELINE], rel=0.3)  # as correct, so as loud


def test_the_estimate_counts_groups_not_videos():
    label_ids = np.arange(40) % 2
    logs = {HEAD: answers(label_ids, 0.8, 0.999), BASELINE: answers(label_ids, 0.5, 0.51)}
    alone = out_of_fold(logs, label_ids).estimate()
    assert alone.accuracy == alone.head_accuracy == pytest.approx(0.8)
    assert alone.baseline_accuracy == pytest.approx(0.5) and alone.lead == pytest.approx(0.3)
    assert alone.standard_error == pytest.approx(np.sqrt(0.8 * 0.2 / 39))
    order = np.argsort(logs[HEAD].argmax(axis=1) != label_ids, kind="stable")
    groups = np.empty(40, object)
    groups[order] = [str(i // 10) for i in range(40)]  # whole groups are correct, or none of it
    clustered = out_of_fold(logs, label_ids, groups=groups.tolist()).estimate()
    assert clustered.num_groups == 4 and clustered.standard_error > 2 * alone.standard_error
    assert "significantly better than the baseline" in alone.as_text() and "overfits" in alone.as_text()


def test_an_estimate_near_chance_says_so():
    label_ids = np.arange(40) % 4 // 3  # three in four are of label 0
    noise = {HEAD: answers(label_ids, 0.7, 0.6), BASELINE: answers(label_ids, 0.7, 0.6)}
    advice = out_of_fold(noise, label_ids).estimate().advice()
    assert "it is hardly better than always answering with the most frequent label (0.750): what tells" in advice
    right = {HEAD: answers(label_ids, 1.0, 0.9), BASELINE: answers(label_ids, 0.7, 0.6)}
    assert "hardly" not in out_of_fold(right, label_ids).estimate().advice()


def test_windows_of_a_video_are_averaged():
    logs = [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]  # of two windows, the first is more confident
    data = out_of_fold({HEAD: logs, BASELINE: logs}, [0, 1], owners=np.array([0, 0, 1]))
    assert data.estimate().head_accuracy == 1


def test_the_weights_of_a_fold_are_those_of_the_others():
    """Of models of noise, one happens to be correct in each fold: chosen by that fold, the stack would look good."""
    label_ids = np.arange(40) % 2
    folds = np.arange(40) // 20
    names = (HEAD, BASELINE)
    logs = {
        name: np.where(folds[:, None] == i, np.eye(2)[label_ids], 1 - np.eye(2)[label_ids]) * 0.98 + 0.01
        for i, name in enumerate(names)
    }
    data = dataclasses.replace(out_of_fold(logs, label_ids), folds=folds)
    assert data.estimate().accuracy == 0


def test_the_head_is_scored_by_the_members_that_did_not_see_the_fold():
    members = np.stack([np.full((4, 2), [0.9, 0.1]), np.full((4, 2), [0.3, 0.7]), np.full((4, 2), [0.6, 0.4])], axis=1)
    logs = head_predictions(members, np.array([0, 1, 1, 0]), np.array([-1, 0, 1]))
    np.testing.assert_allclose(np.exp(logs)[:, 0], [0.3, 0.6, 0.6, 0.3])


def test_base_models_do_not_see_the_fold_that_they_predict():
    features = RNG.normal(size=(30, 50))
    label_ids, folds = np.arange(30) % 2, np.arange(30) // 2 % 5
    pooled, other = {"mean": features}, {"mean": features[::-1]}
    logs, of_other = base_predictions(pooled, [pooled, other], label_ids, folds, 2)
    assert (logs["mean"].argmax(axis=1) == label_ids).mean() < 0.8  # noise: those that see it know all of it
    assert (of_other["mean"].argmax(axis=1) != logs["mean"].argmax(axis=1)).any()


def test_what_shuffling_costs_is_measured_by_the_weights_of_the_videos_as_they_are():
    label_ids = np.arange(40) % 2
    good, bad = answers(label_ids, 1.0, 0.9), answers(label_ids, 0.5, 0.6)
    shuffled = {HEAD: np.log(1 - good), BASELINE: np.log(bad)}
    data = dataclasses.replace(out_of_fold({HEAD: good, BASELINE: bad}, label_ids), shuffled=shuffled)
    assert data.estimate().accuracy == 1 and data.estimate().shuffled_accuracy < 0.2
    assert ", frames shuffled 0." in data.estimate().as_text()


@pytest.mark.parametrize("name", ["chunks_0", "cosines_0", "mean"])
def test_balanced_base_models_answer_with_a_rare_label_as_often(name):
    label_ids = (np.arange(200) % 10 == 0).astype(int)
    pooled = {name: RNG.normal(size=(200, 3)) + label_ids[:, None] * 0.5}
    plain, balanced = (
        predict_linear(pooled[name], *fit_base_models(pooled, label_ids, 2, is_balanced=is_balanced)[name])
        for is_balanced in (False, True)
    )
    num_rare = (balanced.argmax(axis=1) == 1).sum()
    if name == "mean":  # the baseline is that of an evaluation
        np.testing.assert_array_equal(plain, balanced)
    else:
        assert (plain.argmax(axis=1) == 1).sum() < 10 and 40 < num_rare < 140


# === Training with a stack ===


@pytest.fixture(scope="module", params=["lstm", "chunks"])
def config(request, frozen_config):
    return dataclasses.replace(
        frozen_config, head=request.param, units=8, members=2, epochs=8, stack=True, val_split=False, precision=0.6
    )


@pytest.fixture(scope="module")
def run(config, ramp_dataset, tmp_path_factory):
    return train(ramp_dataset, config, work_dir=tmp_path_factory.mktemp("run"))


def test_features_on_disk_train_the_very_same_model(run, config, ramp_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_IN_MEMORY", 0)
    on_disk = train(ramp_dataset, config, work_dir=tmp_path)
    for one, other in zip(on_disk.classifier.get_weights(), run.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert on_disk.estimate == run.estimate and on_disk.classifier.info.threshold == run.classifier.info.threshold
    found = evaluate(on_disk.classifier, ramp_dataset)
    monkeypatch.undo()
    expected = evaluate(run.classifier, ramp_dataset)
    np.testing.assert_array_equal(found.scores.probabilities, expected.scores.probabilities)
    np.testing.assert_array_equal(found.baseline.probabilities, expected.baseline.probabilities)


def test_the_classifier_is_a_stack_that_knows_held_out_videos(run, ramp_dataset):
    assert is_stack(run.classifier.head) and sum(run.stack.values()) == pytest.approx(1)
    assert evaluate(run.classifier, ramp_dataset).scores.accuracy >= 0.7
    assert "stack  " in run.as_text() and "out of fold" in run.as_text()


def test_its_head_is_also_evaluated_alone(run, ramp_dataset):
    classifier, samples = run.classifier, ramp_dataset.split("test")
    alone = ActivityClassifier(classifier.backbone, stacked_head(classifier.head), classifier.info)
    expected = alone.predict_stacks(extract_features(ramp_dataset, samples, classifier.backbone, keep=False))
    evaluation = evaluate(classifier, ramp_dataset)
    np.testing.assert_allclose(evaluation.head_alone.probabilities, expected, atol=1e-5)
    assert np.abs(np.log(evaluation.scores.probabilities / expected)).max() > 0.1
    assert (evaluation.thresholds == classifier.threshold).all() and "answers  " in evaluation.as_text()


def test_no_member_of_a_fold_is_left(run):
    head = stacked_head(run.classifier.head)
    num_streams = len(run.classifier.spec.streams)
    members = member_predictions_of(head).output_shape[1]
    assert members == (2 if head.name == "lstm" else 2 * num_streams)


def test_it_trains_on_the_val_split_and_calibrates_out_of_fold(run, ramp_dataset):
    num_used = sum(sample.split in ("train", "val") for sample in ramp_dataset.samples)
    record = run.classifier.info.record
    assert record.num_videos["train"] == record.calibration["num_videos"] == num_used
    assert record.num_videos["val"] == 0 and "val_loss" not in run.history[-1]
    assert run.estimate.num_videos == num_used and run.classifier.threshold > 0
    assert f"by {num_used} training videos out of fold" in run.as_text()


def test_it_travels_in_the_model_file(run, ramp_dataset, tmp_path):
    loaded = load_classifier(save_model(run.classifier, tmp_path / "m.keras"))
    assert loaded.info.record.stack == pytest.approx(run.stack)
    assert loaded.info.record.estimate["accuracy"] == run.estimate.accuracy
    a, b = (evaluate(x, ramp_dataset).scores.probabilities for x in (run.classifier, loaded))
    np.testing.assert_array_equal(a, b)


def test_the_val_split_can_be_kept(ramp_dataset, frozen_config, tmp_path):
    config = dataclasses.replace(frozen_config, head="lstm", units=4, epochs=2, stack=True, val_split=True)
    run = train(ramp_dataset, config, work_dir=tmp_path)
    num_train, num_val = (sum(s.split == split for s in ramp_dataset.samples) for split in ("train", "val"))
    assert run.estimate.num_videos == num_train and "val_loss" in run.history[-1]
    assert run.classifier.info.record.num_videos["val"] == num_val


def test_where_a_label_has_one_group_all_weigh_the_same_and_it_says_so(ramp_dataset, frozen_config, tmp_path, caplog):
    samples = [
        dataclasses.replace(s, group="one" if s.label == "darkens" else s.group)
        for s in ramp_dataset.samples
        if s.split == "train"
    ]
    config = dataclasses.replace(frozen_config, epochs=2, stack=True)
    run = train(dataclasses.replace(ramp_dataset, samples=samples), config, work_dir=tmp_path)
    assert len(set(np.round(list(run.stack.values()), 6))) == 1
    assert run.estimate is None and run.calibration is None
    assert "all training videos of darkens are of one group" in caplog.text
