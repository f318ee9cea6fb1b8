import csv
from collections import Counter

import numpy as np
import pytest

from activity.datasets import synthetic
from activity.datasets.synthetic import ACTIVITIES, ORDER_PAIRS, draw_frames, write_videos
from activity.video.decoder import read_frames


@pytest.mark.parametrize("activity", ACTIVITIES)
def test_frames_have_the_asked_shape_and_show_a_large_motion(activity):
    frames = draw_frames(activity, performer=1, take=0, num_frames=9, height=48, width=64)
    assert frames.shape == (9, 48, 64, 3) and frames.dtype == np.uint8
    # Half of a limb's contrast, in more pixels than noise and camera shake explain.
    moved = np.ptp(frames.astype(int), axis=0).max(-1) > 60  # (48, 64)
    assert moved.mean() > 0.03


@pytest.mark.parametrize("num_frames", [1, 2])
def test_shortest_videos(num_frames):
    assert len(draw_frames("wave", performer=0, take=0, num_frames=num_frames)) == num_frames


def test_frames_depend_on_nothing_but_the_arguments():
    first = draw_frames("jump", performer=2, take=1, num_frames=4)
    np.random.seed(7)
    np.testing.assert_array_equal(first, draw_frames("jump", performer=2, take=1, num_frames=4))
    assert not np.array_equal(first, draw_frames("jump", performer=2, take=2, num_frames=4))
    assert not np.array_equal(first, draw_frames("jump", performer=3, take=1, num_frames=4))


@pytest.mark.parametrize(("forward", "backward"), ORDER_PAIRS)
def test_order_pairs_are_each_other_backwards(forward, backward):
    phases = np.arange(33) / 32  # exact in binary, so 1 - phase is too
    poses = [ACTIVITIES[forward](phase) for phase in phases]
    assert poses[::-1] == [ACTIVITIES[backward](phase) for phase in phases]
    assert poses[0] != poses[-1]


def test_a_turn_goes_from_one_side_over_the_front_to_the_other():
    start, middle, end = (ACTIVITIES["turn_right"](phase) for phase in (0, 0.5, 1))
    np.testing.assert_allclose([start.turn, middle.turn, end.turn], [-np.pi / 2, 0, np.pi / 2])
    np.testing.assert_allclose(np.real(start.hands), -np.real(end.hands[::-1]))  # mirror images of each other
    assert max(np.real(start.hands)) < -0.25 and min(np.real(end.hands)) > 0.25  # both arms point where it faces
    assert start.hip == middle.hip == end.hip


def test_three_disjoint_order_pairs():
    assert len({label for pair in ORDER_PAIRS for label in pair} & set(ACTIVITIES)) == 6


@pytest.mark.parametrize(("forward", "backward"), ORDER_PAIRS)
def test_a_pair_does_not_share_its_nuisances(forward, backward):
    # A pair that was an exact mirror would let a model match a test video with its twin in the training set.
    there = draw_frames(forward, performer=0, take=0, num_frames=8)
    back = draw_frames(backward, performer=0, take=0, num_frames=8)[::-1]
    assert np.abs(there.astype(int) - back).mean() > 1


def test_tempo_is_as_likely_as_its_reverse():
    phases = np.stack([synthetic._phases(np.random.default_rng(seed), 21) for seed in range(4000)])  # (4000, 21)
    assert np.all(np.diff(phases) >= 0) and np.all(phases[:, 0] == 0) and np.allclose(phases[:, -1], 1)
    np.testing.assert_allclose(phases.mean(0), 1 - phases[:, ::-1].mean(0), atol=0.01)
    np.testing.assert_allclose(phases.std(0), phases[:, ::-1].std(0), atol=0.01)


def test_unknown_activity():
    with pytest.raises(ValueError, match="unknown activity 'fly'; expected one of jump, sit_down"):
        draw_frames("fly", performer=0, take=0)


def test_written_videos_and_manifest(tmp_path):
    manifest_path = write_videos(tmp_path / "videos", num_performers=2, num_takes=2, num_frames=(4, 9), suffix=".avi")
    assert manifest_path == tmp_path / "videos" / "manifest.csv"
    with manifest_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "group"]
    assert Counter(row["label"] for row in rows) == dict.fromkeys(ACTIVITIES, 4)
    assert Counter(row["group"] for row in rows) == {"p00": 16, "p01": 16}
    assert rows[0]["path"] == "jump/jump_p00_t0.avi"
    assert {row["path"] for row in rows} == {
        path.relative_to(manifest_path.parent).as_posix() for path in manifest_path.parent.glob("*/*")
    }
    lengths = [len(read_frames(manifest_path.parent / row["path"])) for row in rows]
    assert min(lengths) >= 4 and max(lengths) <= 9 and len(set(lengths)) > 3
    last = rows[-1]
    assert (last["label"], last["group"]) == ("wave", "p01")
    expected = draw_frames("wave", performer=1, take=1, num_frames=lengths[-1])
    np.testing.assert_array_equal(read_frames(manifest_path.parent / last["path"]), expected)  # FFV1 is exact


def test_default_videos_are_mp4(tmp_path):
    write_videos(tmp_path, num_performers=1, num_takes=1, num_frames=(2, 2), height=32, width=32)
    assert read_frames(tmp_path / "wave" / "wave_p00_t0.mp4").shape == (2, 32, 32, 3)
