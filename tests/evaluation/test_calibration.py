import dataclasses
import logging

import numpy as np
import pytest

from activity.evaluation.calibration import Calibration, calibrate, threshold_for
from activity.evaluation.metrics import Scores
from activity.models.classifier import load_classifier
from activity.training.trainer import train


def overconfident(num_videos, share_right=0.7, confidence=0.99):
    """The arguments of `calibrate` for answers that are 99 % sure and right in 70 % of the cases."""
    correct = np.arange(num_videos) < share_right * num_videos
    label_ids = np.arange(num_videos) % 2
    answers = np.where(correct, label_ids, 1 - label_ids)
    logs = np.log(np.where(np.eye(2)[answers] == 1, confidence, 1 - confidence))
    return logs, np.arange(num_videos), label_ids, ("a", "b")


def test_an_overconfident_model_becomes_as_sure_as_it_is_right():
    calibration = calibrate(*overconfident(2000))
    assert calibration.temperature > 1
    np.testing.assert_allclose(calibration.after.probabilities.max(axis=1), 0.7, atol=5e-3)
    before, after = calibration.errors
    assert before == pytest.approx(0.29, abs=1e-6) and after < 0.01
    assert calibration.after.accuracy == calibration.before.accuracy == 0.7
    assert calibration.threshold == 0 and calibration.coverage == 1
    assert "by 2000 validation videos; expected calibration error 0.290 before, 0.00" in calibration.as_text()


def test_a_model_that_is_always_right_does_not_become_sure_of_everything():
    sizes = (10, 50, 1000)
    temperatures = [calibrate(*overconfident(n, share_right=1, confidence=0.95)).temperature for n in sizes]
    assert 0.7 < temperatures[0] < 1  # ten videos are no reason to be much surer, a thousand are one
    assert temperatures == sorted(temperatures, reverse=True) and temperatures[-1] < 0.5


@pytest.mark.parametrize(("labels", "name"), [(("a", "b"), "unknown"), (("a", "unknown"), "no answer")])
def test_what_is_answered_below_the_threshold_is_named_as_it_is_printed(labels, name):
    scores = Scores(np.array([[0.9, 0.1]]), np.array([0]), labels)
    assert f'"{name}" below 0.800: 100% of the' in Calibration(1.0, 0.8, scores, scores).as_text()


def test_too_few_videos_calibrate_nothing(caplog):
    assert calibrate(*overconfident(9)) is None
    assert "9 validation videos are too few" in caplog.text


def test_the_windows_of_a_video_count_as_one():
    logs, owners, label_ids, labels = overconfident(200)
    twice = calibrate(np.repeat(logs, 2, axis=0), np.repeat(owners, 2), label_ids, labels, out_of_fold=True)
    assert twice.temperature == pytest.approx(calibrate(logs, owners, label_ids, labels).temperature, rel=1e-3)
    assert "by 200 training videos out of fold" in twice.as_text()


@pytest.mark.parametrize(
    ("confidences", "correct", "precision", "threshold"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 0.9, 0.8),
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 0.75, 0.6),
        ([0.6, 0.9, 0.7, 0.8], [1, 1, 0, 1], 0.75, 0.6),
        ([0.9, 0.8, 0.8, 0.6], [1, 1, 0, 0], 0.9, 0.9),  # of two that are as sure, both are answered or none
        ([0.9, 0.8], [1, 1], 0.99, 0.8),
    ],
)
def test_the_threshold_is_the_lowest_that_keeps_the_precision(confidences, correct, precision, threshold):
    assert threshold_for(np.array(confidences), np.array(correct, bool), precision) == threshold


def test_where_no_threshold_will_do_nothing_is_answered_and_it_says_so(caplog):
    assert threshold_for(np.array([0.9, 0.8]), np.array([False, True]), 0.9) > 1
    assert "no threshold gives a precision of 0.9" in caplog.text


def test_both_travel_in_the_model_file(ramp_run, tmp_path):
    classifier = ramp_run.classifier
    temperature, info = classifier.temperature, classifier.info
    try:
        classifier.temperature, classifier.info = 2.5, dataclasses.replace(info, threshold=0.75)
        classifier.save(tmp_path / "m.keras")
        loaded = load_classifier(tmp_path / "m.keras")
        assert (loaded.temperature, loaded.threshold) == (2.5, 0.75)
    finally:
        classifier.temperature, classifier.info = temperature, info


def test_train_calibrates_by_the_validation_split_and_notes_it(ramp_dataset, frozen_config, tmp_path, caplog):
    samples = [dataclasses.replace(s, split="val" if s.split == "test" else s.split) for s in ramp_dataset.samples]
    config = dataclasses.replace(frozen_config, epochs=3, precision=0.6)
    with caplog.at_level(logging.INFO):
        run = train(dataclasses.replace(ramp_dataset, samples=samples), config, work_dir=tmp_path)
    num_val = sum(sample.split == "val" for sample in samples)
    assert num_val >= 10 and run.classifier.info.record.calibration["num_videos"] == num_val
    assert run.classifier.temperature != 1
    assert run.classifier.threshold == run.calibration.threshold > 0
    assert f"by {num_val} validation videos" in run.as_text()
