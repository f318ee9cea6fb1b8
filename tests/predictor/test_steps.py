"""Films and streams that a model of steps labels."""

import json

import numpy as np
import pytest

from activity.cli.main import main
from activity.models import heads
from activity.models.classifier import load_classifier
from activity.models.info import ModelInfo
from activity.models.network import InferenceModel, StateReader, join_steps
from activity.models.saving import save_model
from activity.predictor import live
from activity.predictor.live import watch
from activity.predictor.predictor import Predictor
from activity.predictor.timeline import held_labels, make_timeline_of_labels
from activity.runtimes.exported import load_inference_model
from activity.runtimes.exporting import export_model
from tests.conftest import LAMP_SPEC, draw_lamps

RUNTIMES = [
    "keras",
    pytest.param("openvino", marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('openvino')")),
]


@pytest.fixture(scope="module")
def stack(lamp_run):
    """Features of 150 steps, more than two windows."""
    num_features = lamp_run.classifier.backbone.output_shape[-1]
    return np.random.default_rng(0).random((150, 1, num_features), np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_chunks_of_any_size_give_what_the_whole_gives(lamp_run, lamp_model, stack, runtime):
    classifier = lamp_run.classifier
    whole = classifier.run_head(stack[None], np.ones((1, 150), bool))[0]
    model = load_inference_model(lamp_model, runtime=runtime)
    for size in (1, 7, 64):
        reader = StateReader(model)
        chunks = [reader.see(stack[start : start + size]) for start in range(0, 150, size)]
        np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-5)
    np.testing.assert_allclose(model.predict_film(stack), whole, atol=1e-5)


def test_a_new_reader_knows_nothing_of_what_came_before(lamp_run, stack):
    reader = StateReader(lamp_run.classifier)
    first = reader.see(stack[:5])
    assert not np.allclose(reader.see(stack[:5]), first)
    np.testing.assert_allclose(StateReader(lamp_run.classifier).see(stack[:5]), first, atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_film_has_the_segments_that_it_shows(lamp_model, lamp_videos, lamp_dataset, runtime):
    prediction = Predictor.load(lamp_model, runtime=runtime).predict(lamp_videos / "film3.avi", timeline=True)
    truth = [sample for sample in lamp_dataset.samples if sample.path == "film3.avi"]
    right = 0
    for sample in truth:
        middle = sum(sample.span) / 2
        (found,) = (x for x in prediction.timeline.segments if x.start_seconds <= middle < x.end_seconds)
        right += found.label == sample.label
    assert right >= len(truth) - 1
    assert prediction.timeline.probabilities.sum(axis=1) == pytest.approx(1)
    assert prediction.probabilities == pytest.approx(prediction.timeline.probabilities.mean(axis=0))


def test_a_stream_is_decided_on_with_each_step(lamp_model, lamp_videos):
    model = load_inference_model(lamp_model, runtime="keras")
    decisions = list(watch(model, str(lamp_videos / "film3.avi"), timeout_seconds=1))
    times = np.diff([decision.time_seconds for decision in decisions])
    assert times == pytest.approx(0.2, abs=0.11)
    assert {"left", "right"} <= {decision.label for decision in decisions}


def test_the_graph_of_a_stream_is_ready_before_it_and_serves_every_film(lamp_model, lamp_videos, monkeypatch, tmp_path):
    built, ready, films = [], [], [lamp_videos / f"film{i}.avi" for i in (3, 7)]
    build, capture = heads.build_head, live.Capture

    def open_stream(*arguments):
        ready.append(heads.carrying(model.head).predict_function is not None)
        return capture(*arguments)

    monkeypatch.setattr(heads, "build_head", lambda *a, **options: built.append(1) or build(*a, **options))
    monkeypatch.setattr(live, "Capture", open_stream)
    model = load_classifier(lamp_model)
    for film in films:
        assert list(watch(model, str(film), timeout_seconds=0.2))
    assert all(prediction.timeline for prediction in Predictor(model).predict_many(films, timeline=True))
    assert (ready, len(built)) == ([True, True], 1)
    again = load_classifier(save_model(model, tmp_path / "again.keras"))  # nothing of it is in the file
    assert again.count_params() == load_classifier(lamp_model).count_params()
    assert (tmp_path / "again.keras").stat().st_size == pytest.approx(lamp_model.stat().st_size, rel=0.05)


def test_an_exported_model_gives_each_step(lamp_model, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    export = export_model(lamp_model, "onnx", tmp_path / "lamps.onnx")
    about = json.loads((tmp_path / "lamps.onnx.json").read_text())
    assert export.difference < 1e-4
    assert about["outputs"]["probabilities"]["axes"] == "batch time labels" and about["labels_per"] == "step"


def test_classify_and_info_know_models_of_steps(lamp_model, lamp_videos, capsys):
    assert main(["classify", str(lamp_model), str(lamp_videos / "film3.avi"), "--timeline", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    segments = json.loads(line)["segments"]
    assert segments[0]["start_seconds"] == 0 and {"left", "right"} <= {segment["label"] for segment in segments}
    assert main(["info", str(lamp_model)]) == 0
    assert "a label for each step, 5 a second; goes on from the state" in capsys.readouterr().out


def test_what_a_model_of_steps_is_not_for_is_said(lamp_model, lamp_dataset, tmp_path, capsys):
    dataset, out = str(lamp_dataset.dataset_dir), str(tmp_path / "new.keras")
    assert main(["update", str(lamp_model), dataset, "--out", out]) == 1
    assert "a model of steps is not updated" in capsys.readouterr().err
    assert main(["tune", dataset, "--labels-per", "step"]) == 1
    assert "tune searches for labels per clip" in capsys.readouterr().err


def test_windows_are_joined_by_their_middles():
    ones, nines = np.tile([0.9, 0.1], (4, 1)), np.tile([0.1, 0.9], (4, 1))
    joined = join_steps([(0, ones), (2, nines)], 6)
    assert joined[0] == pytest.approx([0.9, 0.1]) and joined[5] == pytest.approx([0.1, 0.9])
    assert joined[2, 0] > 0.5 > joined[3, 0] and joined.sum(axis=1) == pytest.approx(1)
    both = join_steps([(0, np.tile([0.9, 0.8], (4, 1))), (2, np.tile([0.9, 0.8], (4, 1)))], 6, multi_label=True)
    assert both == pytest.approx(np.tile([0.9, 0.8], (6, 1)))


def test_what_holds_for_a_moment_is_taken_for_noise():
    probabilities = np.zeros((12, 2))
    probabilities[2:8, 0], probabilities[4, 0], probabilities[10, 1] = 0.9, 0.1, 0.9
    held = held_labels(probabilities, np.arange(13.0), threshold=0.5, window_seconds=6.0)
    assert np.flatnonzero(held[:, 0]).tolist() == [2, 3, 4, 5, 6, 7] and not held[:, 1].any()


class Lamps(InferenceModel):
    """Each lamp is lit where its half of the image is bright, and both may be."""

    def __init__(self):
        self.info = ModelInfo(
            spec=LAMP_SPEC, labels=("left", "right"), clip_seconds=1.0, window_seconds=1.0, threshold=0.5,
            labels_per="step", multi_label=True,
        )  # fmt: skip

    def extract_features(self, images):
        return np.stack([images[:, :, side].mean(axis=(1, 2, 3)) / 255 for side in np.s_[:16, 16:]], axis=1)

    def run_head(self, features, mask):
        return features[:, :, 0]


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([("left", 1.0, 4.0), ("right", 3.0, 8.0)], [("right", 0.5), ("left", 0.3)]),
        ([], [("unknown", 0.0)]),
    ],
)
def test_the_answer_for_a_film_of_several_labels_is_what_holds_longest(rows, answer, tmp_path):
    videos = draw_lamps(tmp_path / "films", [(rows or [("", 0.0, 1.0)], 10.0)])
    for timeline in (False, True):
        prediction = Predictor(Lamps()).predict(videos / "film0.avi", timeline=timeline)
        told = prediction.as_dict()
        assert [(told["label"], told["probability"])] == [(answer[0][0], pytest.approx(answer[0][1], abs=0.021))]
        for row, (_, fraction) in zip(told["top"], answer, strict=False):
            assert row["probability"] == pytest.approx(fraction, abs=0.021)
        assert prediction.is_answered == bool(rows)
        assert ("unknown" in prediction.as_text()) == (not rows)


def test_segments_of_several_labels_overlap_and_leave_gaps():
    probabilities = np.zeros((12, 2))
    probabilities[2:8, 0] = 0.9
    probabilities[5:10, 1] = 0.8
    probabilities[4, 0] = 0.4  # too short to be an end
    timeline = make_timeline_of_labels(
        probabilities, np.arange(13.0), ["run", "wave"], threshold=0.5, window_seconds=6.0
    )
    assert [(s.label, s.start_seconds, s.end_seconds) for s in timeline.segments] == [("run", 2, 8), ("wave", 5, 10)]
