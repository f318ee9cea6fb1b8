import cv2
import numpy as np
import pytest

from activity.config import ClipSpec
from activity.video.sampling import read_stack
from activity.video.streams import (
    aligned_difference,
    as_image,
    compared_frames,
    cut_square,
    gap_frames,
    motion_energy,
    track_motion,
)
from activity.video.writer import write_video

RNG = np.random.default_rng(0)
SCENERY = cv2.GaussianBlur(RNG.integers(0, 256, (260, 340), np.uint8), (0, 0), 3)
SCENERY = cv2.normalize(SCENERY, None, 0, 255, cv2.NORM_MINMAX)


def view(x, y, figure=None):
    """What a camera at `(x, y)` sees of the scenery, `(160, 200)` grey, with a bright square of 12 pixels in it."""
    image = SCENERY[y : y + 160, x : x + 200].copy()
    if figure:
        left, top = figure
        image[top : top + 12, left : left + 12] = 255
    return image


def spec(**fields):
    return ClipSpec(**{"num_frames": 8, "height": 32, "width": 32, **fields})


# === Differences ===


@pytest.mark.parametrize(("rate", "gap"), [(25, 2), (30, 2), (50, 4), (10, 1), (1, 1), (12, 1), (240, 19)])
def test_frames_that_are_compared_lie_80_ms_apart(rate, gap):
    assert gap_frames(spec(), rate) == gap
    assert gap_frames(spec(streams=("rgb",)), rate) == 0


def test_a_difference_keeps_its_sign_and_saturates():
    assert as_image(np.array([0.0, 1, -1, 60, -60, 100, -100])).tolist() == [128, 130, 126, 248, 8, 255, 0]


def test_the_movement_of_the_camera_is_taken_out():
    before, after = view(40, 40), view(47, 36)
    plain = np.abs(after.astype(np.float32) - before)
    aligned = np.abs(aligned_difference(before, after))
    assert aligned.mean() < 0.1 * plain.mean()


def test_what_moves_by_itself_stays():
    before, after = view(40, 40, (60, 80)), view(45, 40, (75, 80))
    difference = np.abs(aligned_difference(before, after))
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert 78 <= row <= 94 and 50 <= column <= 90
    assert difference[80:92, 50:90].mean() > 10 * np.median(difference)


def test_without_texture_the_plain_difference_is_left():
    before, after = np.full((40, 50), 100, np.uint8), np.full((40, 50), 90, np.uint8)
    np.testing.assert_array_equal(aligned_difference(before, after), np.full((40, 50), -10, np.float32))


# === Tracking ===


def energies(positions, strength=40):
    """Of an 80x60 spot that moves along `positions` in images of 320x240."""
    maps = []
    for x, y in positions:
        difference = np.zeros((240, 320), np.float32)
        difference[max(0, y - 30) : y + 30, max(0, x - 40) : x + 40] = strength
        maps.append(motion_energy(difference))
    return maps


def test_the_square_follows_what_moves_and_keeps_its_size():
    positions = [(80 + 10 * i, 120) for i in range(16)]
    squares = np.array(track_motion(energies(positions), scale=2))
    assert np.abs(squares[3:-3, 0] - np.array(positions)[3:-3, 0]).max() < 15
    assert np.abs(squares[:, 1] - 120).max() < 8
    assert len(set(squares[:, 2])) == 1
    assert 80 <= squares[0, 2] <= 140


def test_one_jump_does_not_tear_the_square_away():
    positions = [(160, 120)] * 16
    positions[8] = (40, 40)
    squares = np.array(track_motion(energies(positions), scale=2))
    assert np.abs(squares[:, 0] - 160).max() < 30


def test_where_nothing_moves_the_middle_is_shown():
    assert track_motion(energies([(160, 120)] * 3, strength=0), scale=2) == [(160, 120, 240)] * 3


def test_a_square_is_cut_out_and_its_rim_fills_what_lies_outside():
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:60, 40:60] = 255
    cut = cut_square(image, (50, 50, 20), 32, 32)
    assert cut.shape == (32, 32, 3) and (cut[2:-2, 2:-2] == 255).all()
    outside = cut_square(np.full((50, 50, 3), 77, np.uint8), (0, 0, 40), 16, 24)
    assert outside.shape == (16, 24, 3) and (outside == 77).all()


# === Streams of a video ===


@pytest.fixture
def walk(tmp_path):
    """40 frames at 25 frames/s: the camera moves, and a figure crosses the image."""
    path = tmp_path / "walk.avi"
    frames = (np.repeat(view(20 + i, 30, (20 + 3 * i, 70))[..., None], 3, axis=2) for i in range(40))
    write_video(path, frames, frames_per_second=25)
    return path


@pytest.mark.parametrize("rate", [None, 5, 25])
def test_streams_are_made_side_by_side(walk, rate):
    stack, sampled = read_stack(walk, spec(frames_per_second=rate))
    assert stack.shape == (len(sampled.timestamps_seconds), 3, 32, 32, 3) and stack.dtype == np.uint8
    for streams in [("rgb",), ("motion",), ("motion_crop",), ("rgb", "motion_crop")]:
        some, _ = read_stack(walk, spec(frames_per_second=rate, streams=streams))
        expected = [("rgb", "motion", "motion_crop").index(stream) for stream in streams]
        np.testing.assert_array_equal(some, stack[:, expected])


def test_motion_is_the_change_since_80_ms_ago(walk):
    stack, sampled = read_stack(walk, spec())
    every, _ = read_stack(walk, spec(num_frames=40, streams=("rgb",)))
    for frame, seconds in zip(stack, sampled.timestamps_seconds, strict=True):
        before = max(0, round(seconds * 25) - 2)  # at the start: in the first 80 ms
        change = every[before + 2, 0].astype(np.float32) - every[before, 0]
        np.testing.assert_array_equal(frame[1], as_image(change))


@pytest.mark.parametrize(
    ("index", "last", "expected"),
    [
        (10, 39, [6, 8, 10, 12]),
        (0, 39, [0, 2, 4, 6]),
        (3, 39, [0, 2, 4, 6]),
        (39, 39, [33, 35, 37, 39]),
        (38, None, [34, 36, 38, 40]),
        (1, 2, [0, 2, 4, 6]),
    ],
)
def test_the_four_frames_of_a_motion_crop_lie_within_the_video_if_it_has_as_many(index, last, expected):
    assert compared_frames(index, 2, last) == expected


@pytest.mark.parametrize("streams", [("motion",), ("motion_crop",)])
@pytest.mark.parametrize("rate", [None, 25])
def test_something_moves_in_the_first_and_the_last_frame_too(walk, streams, rate):
    stack, _ = read_stack(walk, spec(frames_per_second=rate, streams=streams))
    assert (np.abs(stack.astype(int) - 128).max(axis=(1, 2, 3, 4)) > 60).all()


def test_a_wrong_count_in_the_header_changes_nothing(walk, tmp_path):
    honest, _ = read_stack(walk, spec())
    data = bytearray(walk.read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40), (b"dmlh", 8)):  # OpenDML AVI 1.02: where the count is
        start = data.find(chunk)
        if start >= 0:
            data[start + offset : start + offset + 4] = (55).to_bytes(4, "little")
    (tmp_path / "liar.avi").write_bytes(data)
    stack, sampled = read_stack(tmp_path / "liar.avi", spec())
    assert sampled.num_frames == 40
    np.testing.assert_array_equal(stack, honest)


def test_a_motion_crop_shows_the_figure_large_and_no_scenery(walk):
    stack, _ = read_stack(walk, spec(height=96, width=96))
    strength = np.abs(stack[2:-2, 2].astype(int) - 128).max(axis=-1)  # (n, 96, 96)
    of_plain = np.abs(stack[2:-2, 1].astype(int) - 128).max(axis=-1)
    assert np.median(strength) < 0.3 * np.median(of_plain)  # the camera's movement is everywhere in the plain one
    assert (strength[:, 24:72, 24:72] > 60).mean() > 3 * (strength[:, :12] > 60).mean()


def test_a_video_of_one_frame_shows_no_motion(tmp_path):
    write_video(tmp_path / "one.avi", [np.full((40, 50, 3), 99, np.uint8)], frames_per_second=25)
    stack, _ = read_stack(tmp_path / "one.avi", spec())
    assert stack.shape[0] == 1 and (stack[0, 0] == 99).all() and (stack[0, 1:] == 128).all()


def test_a_large_image_is_analysed_at_a_smaller_size(tmp_path):
    frames = (
        np.roll(np.tile(np.arange(1920, dtype=np.uint8), (1080, 1))[..., None].repeat(3, 2), 5 * i, 1) for i in range(4)
    )
    write_video(tmp_path / "hd.avi", frames, frames_per_second=25)
    stack, _ = read_stack(tmp_path / "hd.avi", spec())
    assert stack.shape == (4, 3, 32, 32, 3)


@pytest.mark.parametrize("rate", [None, 6.25, 8.3])
def test_threads_change_no_image(tmp_path, rate):
    frames = [np.repeat(view(40 + i, 40 - i // 2, (20 + 3 * i, 80))[..., None], 3, axis=-1) for i in range(40)]
    write_video(tmp_path / "a.avi", frames, frames_per_second=25)
    options = {"frames_per_second": rate, "streams": ("rgb", "motion", "motion_crop")}
    alone, threads = (read_stack(tmp_path / "a.avi", spec(**options), num_threads=n)[0] for n in (1, 3))
    assert alone[:, 2].std() > 1
    np.testing.assert_array_equal(alone, threads)
