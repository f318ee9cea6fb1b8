import numpy as np
import pytest
from bench_timeline import join, scores

from activity.config import ClipSpec, TrainConfig
from activity.datasets.preprocessing import preprocess
from activity.datasets.samples import Segment
from activity.predictor.predictor import Predictor
from activity.predictor.timeline import Hysteresis, LiveLabels, Window, make_timeline
from activity.training.trainer import train

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

    def test_unknown_is_entered_and_left_with_the_same_margin(self):
        hysteresis = Hysteresis(0.8)
        tops = (0.85, 0.75, 0.65, 0.85, 0.95)
        assert [hysteresis.next(np.array([top, 1 - top])) for top in tops] == [0, 0, 2, 2, 0]


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
        assert [live.next(np.array([p, 1 - p]))[0] for p in (0.97, *[0.7] * 4)] == [0, 0, 0, 0, 2]


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
        found.append(scores(predictor, path, truth))
    accuracy, f1 = np.mean(found, axis=0)
    assert accuracy >= 0.85 and f1 >= 0.75, found
