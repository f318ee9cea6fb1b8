import cv2
import numpy as np
import pytest

from activity.errors import VideoError
from activity.predictor.captioner import Captioner
from activity.reports.explanation import attention_of
from activity.video.writer import write_video


@pytest.fixture(scope="module")
def captioner(caption_model):
    return Captioner.load(caption_model)


def shown(figure):
    """The images above the columns, `(N, H, W, 3)`, the attention, and what is written below and beside."""
    top, below = figure.axes
    (weights,) = (image.get_array() for image in below.images)
    times = [text.get_text() for text in below.get_xticklabels()]
    words = [text.get_text() for text in below.get_yticklabels()]
    return np.stack([image.get_array() for image in top.images]), np.asarray(weights), times, words


def levels_at(path, timestamps_seconds, rate):
    """The brightness of the frames of a video at some times."""
    capture, levels = cv2.VideoCapture(str(path)), []
    while (frame := capture.read()[1]) is not None:
        levels.append(frame.mean())
    return [levels[round(seconds * rate)] for seconds in timestamps_seconds]


def test_each_word_is_shown_with_the_frames_that_the_model_saw(captioner, ramp_videos):
    path = ramp_videos / "darkens" / "p0_0.avi"
    description = captioner.describe(path)
    images, weights, times, words = shown(attention_of(description))
    np.testing.assert_array_equal(weights, description.sentences[0].attention)
    assert words == list(description.sentences[0].words) and times[0] == "0.00"
    assert len(images) == len(times) == weights.shape[1]
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), levels_at(path, description.timestamps_seconds, 10), atol=1)


@pytest.mark.parametrize("rate", [3, 20])  # slower than the windows, so that frames are seen again, and faster
def test_of_a_long_video_the_frames_are_those_of_the_part_that_is_described(captioner, tmp_path, rate):
    levels = 130 + 100 * np.sin(np.arange(8 * rate) / 5)
    frames = np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (len(levels), 24, 48, 3))
    path = tmp_path / "long.avi"
    write_video(path, list(frames), frames_per_second=rate)
    description = captioner.describe(path, timeline=True)
    assert len(description.segments) > 1
    images, *_ = shown(attention_of(description))
    expected = levels_at(path, description.timestamps_seconds, rate)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), expected, atol=2)
    assert images.shape[1:3] == (160, 320)
    assert (len(set(description.timestamps_seconds)) < len(images)) is (rate == 3)


def test_each_frame_that_passes_is_told(captioner, ramp_videos):
    passed = []
    attention_of(captioner.describe(ramp_videos / "darkens" / "p0_0.avi"), check=passed.append)
    assert passed[0] == 0 and passed == sorted(set(passed)) and len(passed) > 2


def test_a_video_that_is_another_by_now_is_named(captioner, ramp_videos, tmp_path):
    path = tmp_path / "clip.avi"
    path.write_bytes((ramp_videos / "darkens" / "p0_0.avi").read_bytes())
    description = captioner.describe(path)
    write_video(path, [np.zeros((24, 24, 3), np.uint8)] * 2, frames_per_second=25)
    with pytest.raises(VideoError, match=r"clip\.avi: has changed since it was described"):
        attention_of(description)
