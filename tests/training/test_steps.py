import dataclasses
import itertools
import logging

import numpy as np
import pytest

from activity.datasets.preprocessing import preprocess
from activity.errors import ActivityError, DatasetError
from activity.evaluation.evaluator import evaluate
from activity.model_selection.cross_validation import cross_validate
from activity.models.classifier import load_classifier
from activity.predictor.predictor import Predictor
from activity.training.steps import loss_of_steps, step_spec
from activity.training.trainer import train
from tests.conftest import LAMP_SPEC, draw_lamps


def test_the_steps_of_unseen_films_are_told(lamp_run, lamp_dataset):
    evaluation = evaluate(lamp_run.classifier, lamp_dataset)
    scores = evaluation.as_dict()
    # a frame is seen at the begin of its step: each end of a lamp may be late by a step of 0.2 s
    assert scores["accuracy"] > 0.9 and scores["frame_accuracy"] > 0.8 and scores["segment_f1"]["50"] > 0.8
    assert list(scores["frame_f1"]) == ["background", "left", "right"]  # the dark between lamps is scored
    assert scores["frame_f1"]["background"] > 0.7
    for film in evaluation.films.films:
        spans = [(x.start_seconds, x.end_seconds) for x in film.truth]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
        assert sum(x.label == "background" for x in film.truth) > 0
    assert lamp_run.classifier.labels == ("background", "left", "right")
    assert lamp_run.estimate.accuracy > 0.7  # a frame is seen at the begin of its step, whose middle may be another
    assert "stretches of one label in training films out of fold" in lamp_run.as_text()
    assert "steps of 6 groups" in lamp_run.as_text() and "streams need no windows" in lamp_run.as_text()


def test_a_model_of_steps_is_the_same_from_its_file(lamp_run, lamp_model):
    loaded = load_classifier(lamp_model)
    info = lamp_run.classifier.info
    assert dataclasses.replace(loaded.info, record=info.record) == info and info.state_size == 16
    features = np.random.default_rng(0).random((2, 9, 1, loaded.backbone.output_shape[-1]), np.float32)
    mask = np.ones((2, 9), bool)
    np.testing.assert_allclose(loaded.run_head(features, mask), lamp_run.classifier.run_head(features, mask), atol=1e-6)


def test_folds_of_films_are_evaluated_within_their_films(lamp_dataset, step_config, tmp_path):
    few = dataclasses.replace(step_config, epochs=40)
    scores = cross_validate(lamp_dataset, few, folds="2", work_dir=tmp_path).as_dict()
    assert scores["labels"] == ["background", "left", "right"]
    assert (
        scores["accuracy"] > 0.8 and scores["frame_accuracy"] > 0.8 and set(scores["segment_f1"]) == {"10", "25", "50"}
    )


def test_a_film_of_which_a_tenth_is_labelled_trains(step_config, tmp_path):
    films = [([("left", 0.5, 1.0), ("right", 5.0, 5.5)], 10.0), ([("left", 3.0, 3.5), ("right", 7.0, 7.5)], 10.0)]
    dataset = preprocess(draw_lamps(tmp_path / "films", films), tmp_path / "dataset", LAMP_SPEC, num_workers=1)
    config = dataclasses.replace(step_config, background=False)
    run = train(dataset, config, work_dir=tmp_path / "run")
    assert run.stages[0].rows[-1]["accuracy"] > 0.95
    assert run.classifier.labels == ("left", "right")


def test_two_activities_at_once_are_told_apart(step_config, tmp_path):
    rng, films = np.random.default_rng(2), []
    for _ in range(8):
        starts = np.round(rng.uniform(0, 6, (2, 2)), 1)
        segments = [
            (label, float(start), round(float(start) + 2.0, 1))
            for label, of_label in zip(("left", "right"), starts, strict=True)
            for start in (of_label[0], of_label[0] + 3)
        ]
        films.append((sorted(segments, key=lambda row: row[1]), 12.0))
    dataset = preprocess(draw_lamps(tmp_path / "films", films), tmp_path / "dataset", LAMP_SPEC, num_workers=1)
    config = dataclasses.replace(step_config, background=False, multi_label=True)
    run = train(dataset, config, work_dir=tmp_path / "run")
    assert run.classifier.info.multi_label and run.classifier.threshold == 0.5
    scores = evaluate(run.classifier, dataset).as_dict()
    assert set(scores["frame_f1"]) == {"left", "right"} and min(scores["frame_f1"].values()) >= 0.9
    film = max(dataset.split("test"), key=lambda sample: sample.path).path
    whole = Predictor(run.classifier).predict(dataset.videos_dir / film, timeline=True)
    told, lasting = whole.as_dict(), {"left": 0.0, "right": 0.0}
    for segment in whole.timeline.segments:
        lasting[segment.label] += segment.end_seconds - segment.start_seconds
    assert told["label"] == max(lasting, key=lasting.get)
    assert {row["label"]: row["probability"] * 12.0 for row in told["top"]} == pytest.approx(lasting, abs=1e-6)


def test_a_backbone_that_is_trained_cannot_read_whole_films(lamp_dataset, step_config, tmp_path):
    with pytest.raises(ActivityError, match="labels_per must be clip where a backbone is trained"):
        train(lamp_dataset, dataclasses.replace(step_config, weights="none"), work_dir=tmp_path)


def test_films_that_are_gone_are_named(lamp_dataset, step_config, tmp_path, caplog):
    gone = dataclasses.replace(lamp_dataset, videos_dir=tmp_path / "moved", dataset_dir=tmp_path / "dataset")
    with pytest.raises(DatasetError, match="no training film can be read"):
        train(gone, step_config, work_dir=tmp_path / "run")
    assert f"{tmp_path / 'moved' / 'film0.avi'}: left out" in caplog.text


def test_what_does_nothing_for_steps_is_said(lamp_dataset, step_config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = dataclasses.replace(step_config, mixup=0.2, epochs=1)
    train(lamp_dataset, config, work_dir=tmp_path / "run")
    assert "--mixup does nothing with --labels-per step" in caplog.text


def test_the_rate_suits_the_segments_unless_the_data_set_has_one(lamp_dataset):
    assert step_spec(lamp_dataset).frames_per_second == 5.0
    evenly = dataclasses.replace(lamp_dataset, spec=dataclasses.replace(LAMP_SPEC, frames_per_second=None))
    shortest = np.quantile([sample.duration_seconds for sample in lamp_dataset.samples], 0.25)
    assert step_spec(evenly).frames_per_second == pytest.approx(8 / shortest)
    assert step_spec(evenly).num_frames == 64


def test_what_segments_last_is_in_the_model(lamp_run, lamp_dataset):
    lasting = np.quantile([sample.duration_seconds for sample in lamp_dataset.samples], 0.25)
    assert lamp_run.classifier.window_seconds == pytest.approx(lasting)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_is_that_of_known_steps_of_other_folds(multi_label):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], (2, 3, 4)).astype(np.float32)  # (B, M, T, C)
    held = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (2, 4))]  # (B, T, C)
    weights = np.float32([[1, 0, 1, 1], [0, 0, 1, 0]])
    folds = np.float32([[0] * 4, [1] * 4])
    of_fold, total = np.array([-1, 0, 1]), 0.0
    for b in range(2):
        for m in range(3):
            for t in range(4):
                if weights[b, t] and of_fold[m] != folds[b, t]:
                    p = probabilities[b, m, t]
                    if multi_label:
                        total -= np.where(held[b, t] == 1, np.log(p), np.log(1 - p)).mean() / 3
                    else:
                        total -= np.log(p[held[b, t] == 1][0]) / 3
    targets = np.concatenate([held, weights[..., None], folds[..., None]], axis=-1)
    losses = loss_of_steps(targets, probabilities, of_fold=of_fold, multi_label=multi_label)
    assert float(np.mean(losses)) == pytest.approx(total / weights.sum(), rel=1e-5)


def test_feature_files_say_nothing_of_whole_films(ramp_dataset, feature_config, tmp_path):
    with pytest.raises(ActivityError, match="labels_per must be clip with feature files"):
        train(ramp_dataset, dataclasses.replace(feature_config, labels_per="step"), work_dir=tmp_path)


def test_whole_clips_are_learned_step_by_step(ramp_dataset, step_config, tmp_path):
    config = dataclasses.replace(step_config, background=False, epochs=3)
    run = train(ramp_dataset, config, work_dir=tmp_path)
    scores = evaluate(run.classifier, ramp_dataset).as_dict()
    assert run.classifier.labels == ("brightens", "darkens")
    assert 0 <= scores["accuracy"] <= 1 and "frame_accuracy" not in scores  # whole clips are no films
