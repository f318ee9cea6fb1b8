import json

import numpy as np
import pytest
from bench_timeline import join

from activity.config import ClipSpec, TrainConfig
from activity.datasets.preprocessing import preprocess
from activity.datasets.samples import Segment
from activity.evaluation.segments import frame_accuracy, segment_f1
from activity.models.info import ModelInfo
from activity.models.network import InferenceModel
from activity.predictor.predictor import Predictor
from activity.predictor.timeline import Hysteresis, LiveLabels, Window, make_timeline
from activity.reports.annotation import annotate
from activity.training.trainer import train
from activity.video.images import probe
from activity.video.writer import write_playable, write_video

LABELS = ("run", "walk")


def windows_of(probabilities_of_run, seconds=2.0, step=1.0):
    return [Window(i * step, i * step + seconds, np.array([p, 1 - p])) for i, p in enumerate(probabilities_of_run)]


def timeline_of(probabilities_of_run, threshold=0.0, step=1.0):
    windows = windows_of(probabilities_of_run, step=step)
    edges = np.arange(0, windows[-1].end_seconds + step / 2, step)
    return make_timeline(windows, edges, LABELS, threshold=threshold)


def shown(timeline):
    return [(segment.start_seconds, segment.end_seconds, segment.label) for segment in timeline.segments]


def test_one_activity_is_one_segment():
    timeline = timeline_of([0.9] * 5)
    assert shown(timeline) == [(0, 6, "run")]
    assert timeline.segments[0].probability == pytest.approx(0.9)
    np.testing.assert_allclose(timeline.probabilities, np.tile([0.9, 0.1], (6, 1)))


def test_segments_follow_each_other_without_gaps():
    assert shown(timeline_of([0.95] * 6 + [0.05] * 7)) == [(0, 7, "run"), (7, 14, "walk")]


def test_a_moment_is_what_the_windows_around_it_say():
    timeline = timeline_of([0.9, 0.6, 0.2])
    np.testing.assert_allclose(timeline.edges_seconds, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(timeline.probabilities[0], [0.9, 0.1])
    fused = np.sqrt([0.9 * 0.6, 0.1 * 0.4])  # [1, 2) is equally far from the middles of both windows
    np.testing.assert_allclose(timeline.probabilities[1], fused / fused.sum())
    np.testing.assert_allclose(timeline.probabilities.sum(axis=1), 1)


def test_no_single_window_vetoes_a_label():
    timeline = timeline_of([1.0, 0.0, 1.0, 1.0], step=0.5)
    assert shown(timeline) == [(0, 3.5, "run")]


def test_below_the_threshold_it_is_unknown():
    timeline = timeline_of([0.9] * 6 + [0.5] * 8, threshold=0.7)
    assert [segment.label for segment in timeline.segments] == ["run", "unknown"]
    assert timeline.segments[1].probability == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 0.95])
def test_no_segment_contradicts_the_threshold(threshold):
    rng = np.random.default_rng(0)
    for _ in range(100):
        windows = [Window(i, i + 3.0, p) for i, p in enumerate(rng.dirichlet(np.full(3, 0.2), 30))]
        for segment in make_timeline(windows, np.arange(33), tuple("abc"), threshold=threshold).segments:
            assert (segment.probability < threshold) == (segment.label == "unknown"), segment


def test_a_clear_video_with_a_moment_of_doubt_has_its_label():
    assert shown(timeline_of([0.5] + [0.99] * 9, threshold=0.9)) == [(0, 1, "unknown"), (1, 11, "run")]
    assert shown(timeline_of([0.88] + [0.99] * 9, threshold=0.9, step=0.5)) == [(0, 6.5, "run")]


def test_short_segments_give_way_to_the_neighbour_that_fits():
    labels = ("a", "b", "c")
    rows = [[0.9, 0.05, 0.05]] * 6 + [[0.1, 0.3, 0.6]] + [[0.05, 0.9, 0.05]] * 6
    windows = [Window(i * 0.1, i * 0.1 + 0.1, np.array(row)) for i, row in enumerate(rows)]
    long = [Window(0.0, 0.6, windows[0].probabilities), *windows[1:]]  # the first tells how long windows are
    timeline = make_timeline(long, np.arange(14) * 0.1, labels, threshold=0.0)
    assert [segment.label for segment in timeline.segments] == ["a", "b"]
    assert timeline.segments[1].start_seconds == pytest.approx(0.6)


class TestHysteresis:
    def test_the_label_changes_only_when_another_is_clearly_ahead(self):
        hysteresis = Hysteresis(0.0)
        rows = ([0.6, 0.4], [0.48, 0.52], [0.4, 0.6], [0.48, 0.52], [0.52, 0.48], [0.6, 0.4])
        assert [hysteresis.next(np.array(row)) for row in rows] == [0, 0, 1, 1, 1, 0]

    def test_the_threshold_alone_tells_what_is_unknown(self):
        hysteresis = Hysteresis(0.8)
        tops = (0.75, 0.85, 0.79, 0.81, 0.2, 0.1)
        assert [hysteresis.next(np.array([top, 1 - top])) for top in tops] == [2, 0, 2, 0, 1, 1]

    @pytest.mark.parametrize("threshold", [0.5, 0.9, 0.95, 0.999])
    def test_unknown_is_left_with_every_threshold(self, threshold):
        hysteresis, live = Hysteresis(threshold), LiveLabels(threshold)
        rows = [np.array([0.4, 0.3, 0.3]), *[np.array([1.0, 0.0, 0.0])] * 30]
        assert (hysteresis.next(rows[0]), hysteresis.next(rows[1])) == (3, 0)
        assert [live.next(row)[0] for row in rows][:: len(rows) - 1] == [3, 0]

    def test_a_label_that_falls_below_the_threshold_is_not_kept(self):
        hysteresis = Hysteresis(0.5)
        assert [hysteresis.next(np.array([p, 1 - p])) for p in (0.6, 0.48, 0.46, 0.55)] == [0, 1, 1, 0]


def test_a_segment_speaks():
    segment = Segment(1.5, 62.25, "run", 0.98765)
    assert segment.as_text() == "       1.50 -     62.25 s  run 0.988"
    assert segment.as_dict() == {"start_seconds": 1.5, "end_seconds": 62.25, "label": "run", "probability": 0.98765}


class TestLiveLabels:
    def test_the_past_alone_decides_and_no_single_window_changes_it(self):
        live = LiveLabels(0.0)
        rows = [[1.0, 0.0]] * 5 + [[0.0, 1.0]] + [[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 4
        assert [live.next(np.array(row))[0] for row in rows] == [0] * 12 + [1] * 3

    def test_windows_are_multiplied_the_older_the_less(self):
        live = LiveLabels(0.0)
        live.next(np.array([0.9, 0.1]))
        _, probabilities = live.next(np.array([0.2, 0.8]))
        fused = np.array([0.9, 0.1]) ** 0.7 * np.array([0.2, 0.8]) ** 0.3
        np.testing.assert_allclose(probabilities, fused / fused.sum())

    def test_below_the_threshold_it_is_unknown(self):
        live = LiveLabels(0.95)
        assert [live.next(np.array([p, 1 - p]))[0] for p in (0.97, *[0.94] * 4)] == [0, 0, 0, 0, 2]

    def test_the_more_confident_a_change_is_the_sooner_it_shows(self):
        def steps_until(p):
            live = LiveLabels(0.0)
            assert [live.next(np.array([0.95, 0.05]))[0] for _ in range(20)] == [0] * 20
            return next(n for n in range(1, 99) if live.next(np.array([1 - p, p]))[0] == 1)

        assert [steps_until(p) for p in (0.95, 0.75, 0.65)] == [2, 3, 5]

    def test_nothing_single_changes_the_label(self):
        rows = [*[[1.0, 0.0]] * 5, [0.0, 1.0]] * 3
        live = LiveLabels(0.0)
        assert [live.next(np.array(row))[0] for row in rows] == [0] * 18

    def test_what_was_before_is_forgotten_when_another_label_is_believed(self):
        live = LiveLabels(0.0)
        for row in [[0.95, 0.05]] * 9 + [[0.1, 0.9]]:
            live.next(np.array(row))
        assert live.next(np.array([0.05, 0.95]))[1] == pytest.approx([0.05, 0.95])

    def test_unknown_is_shown_once_and_left_once(self):
        live = LiveLabels(0.9)
        shown = [live.next(np.array([p, 1 - p]))[0] for p in [0.99] * 9 + [0.5] * 9 + [0.99] * 9]
        assert shown[8] == 0 and shown[17] == 2 and shown[26] == 0
        assert shown == sorted(shown[:18]) + sorted(shown[18:], reverse=True)  # once there and once back


@pytest.mark.real
@pytest.mark.slow
def test_real_activities_of_people_never_seen_are_found_in_time(real_data, tmp_path):
    dataset = preprocess(real_data / "videos" / "weizmann", tmp_path / "dataset", ClipSpec())
    predictor = Predictor(train(dataset, TrainConfig(), work_dir=tmp_path / "training").classifier)
    tested = dataset.split("test")
    found = []
    for group in sorted({sample.group for sample in tested}):
        path = tmp_path / f"{group}.avi"
        truth = join([sample for sample in tested if sample.group == group], dataset.videos_dir, path)
        segments = predictor.predict(path, timeline=True).timeline.segments
        found.append((frame_accuracy(truth, segments), segment_f1(truth, segments)))
    accuracy, f1 = np.mean(found, axis=0)
    assert accuracy >= 0.85 and f1 >= 0.75, found


# === Times that are not even ===


def test_no_label_stands_for_a_segment_in_which_it_is_less_probable_than_chance():
    timeline = timeline_of([0.55] + [0.46] * 20)  # hysteresis alone would keep "run" all the way
    assert shown(timeline) == [(0, 22, "walk")]
    assert timeline.segments[0].probability > 0.5
    rng = np.random.default_rng(0)
    for _ in range(50):
        windows = [Window(i, i + 3.0, p) for i, p in enumerate(rng.dirichlet(np.ones(4), 30))]
        for segment in make_timeline(windows, np.arange(33), tuple("abcd"), threshold=0.0).segments:
            assert segment.probability >= 0.25 - 1e-12


@pytest.mark.parametrize("gaps", [{12: 30.0}, {1: 20.0, 2: 20.0}, {5: 3600.0}], ids=["still", "slides", "an hour"])
def test_a_moment_covers_the_time_that_its_frames_stand_for(tmp_path, gaps):
    pytest.importorskip("av", reason="only PyAV writes frames that last unequally long")
    times = np.cumsum([gaps.get(i, 0.1) if i else 0.0 for i in range(3 if 2 in gaps else 24)])
    noise = np.random.default_rng(0).integers(0, 256, (len(times), 32, 32, 3), dtype=np.uint8)
    source = tmp_path / "a.mp4"
    write_playable(source, zip(times.tolist(), noise, strict=True), frames_per_second=10, source=source)
    prediction = Predictor(Counting()).predict(source, timeline=True)
    timeline = prediction.timeline
    assert np.diff(timeline.edges_seconds).min() > 0 and timeline.edges_seconds[0] == 0
    assert timeline.edges_seconds[-1] == prediction.duration_seconds == pytest.approx(times[-1] + 0.1, abs=2e-3)
    annotated = annotate(source, prediction, tmp_path / "annotated.mp4")
    assert probe(annotated).duration_seconds_claimed == pytest.approx(prediction.duration_seconds, abs=2e-3)
    assert np.isfinite(timeline.probabilities).all()
    np.testing.assert_allclose(timeline.probabilities.sum(axis=1), 1)
    assert all(segment.probability >= 0.5 - 1e-9 for segment in timeline.segments)
    json.dumps(prediction.as_dict(), allow_nan=False)


class Counting(InferenceModel):
    """Says how bright a window is, and counts the images it computed."""

    def __init__(self):
        spec = ClipSpec(num_frames=8, height=16, width=16, streams=("rgb", "motion"))
        self.info = ModelInfo(spec=spec, labels=("bright", "dark"), clip_seconds=1.0, window_seconds=1.0)
        self.num_images = 0

    def extract_features(self, images):
        self.num_images += len(images)
        return images.mean(axis=(1, 2), dtype=np.float32)[:, :1]  # (N, 1)

    def predict_features(self, features, mask):
        bright = (features[..., 0, 0] * mask).sum(axis=1) / mask.sum(axis=1) / 255  # (B,)
        return np.stack([bright, 1 - bright], axis=1)


def test_a_frame_that_lasts_is_computed_once(tmp_path):
    model, frames = Counting(), np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "slow.avi", frames, frames_per_second=0.5)
    prediction = Predictor(model).predict(tmp_path / "slow.avi")
    assert len(prediction.windows) > 10  # 8 samples a second, of 12 seconds
    assert model.num_images <= 2 * (6 + 2)  # of two streams; three chunks of samples begin anew


def test_a_timeline_begins_with_the_video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "short.avi", frames, frames_per_second=10)  # 8 of its 9 frames are sampled
    (segment,) = Predictor(Counting()).predict(tmp_path / "short.avi", timeline=True).timeline.segments
    assert (segment.start_seconds, segment.end_seconds) == (0, pytest.approx(0.9))
