import cv2
import numpy as np
import pytest

from activity.errors import VideoError
from activity.video.images import ImageReader, images_of, missing_numbers, numbered_images


def write_images(folder, names, *, size=(16, 16)):
    folder.mkdir()
    for index, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((*size, 3), (7, 255 - index, index), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("names", "sequences"),
    [
        ("1.jpg 10.jpg 2.jpg", {"": {1: "1.jpg", 2: "2.jpg", 10: "10.jpg"}}),
        ("f_02.PNG f_01.png cover.png", {"f_": {1: "f_01.png", 2: "f_02.PNG"}}),
        ("a1.png a2.png b1.png b2.png c1.png", {"a": {1: "a1.png", 2: "a2.png"}, "b": {1: "b1.png", 2: "b2.png"}}),
        ("2020-01-01_1.tif 2020-01-01_2.tif", {"2020-01-01_": {1: "2020-01-01_1.tif", 2: "2020-01-01_2.tif"}}),
        ("1.jpg 01.jpg 2.jpg", {"": {1: "01.jpg", 2: "2.jpg"}}),
        ("1.jpg", {}),
        ("1.txt 2.txt a.jpg b.jpg ._1.jpg ._2.jpg", {}),
    ],
)
def test_numbered_images(names, sequences):
    found = numbered_images(names.split())
    assert found == sequences
    assert [list(images) for images in found.values()] == [list(images) for images in sequences.values()]


def test_a_folder_of_one_sequence_is_a_video(tmp_path):
    assert images_of(write_images(tmp_path / "one", ["2.png", "1.png", "cover.png"])) == {1: "1.png", 2: "2.png"}
    assert images_of(write_images(tmp_path / "two", ["a1.png", "a2.png", "b1.png", "b2.png"])) == {}
    assert images_of(tmp_path / "absent") == images_of(tmp_path / "one" / "1.png") == {}


def test_images_are_frames_at_the_times_of_their_numbers(tmp_path):
    folder = write_images(tmp_path / "images", ["8.png", "9.png", "12.png"], size=(20, 30))
    times = []
    with ImageReader(folder, 10, check=times.append) as reader:
        assert (reader.info.height, reader.info.width, reader.info.num_frames_claimed) == (20, 30, 3)
        frames = [(index, seconds, reader.retrieve()[0, 0].tolist()) for index, seconds in reader]
    assert frames == [(0, 0.0, [0, 255, 7]), (1, 0.1, [1, 254, 7]), (2, 0.4, [2, 253, 7])]
    assert times == [0.0, 0.1, 0.4]


def test_missing_numbers_are_listed(tmp_path):
    write_images(tmp_path / "whole", ["1.png", "2.png"])
    write_images(tmp_path / "gappy", ["1.png", "3.png", "07.png"])
    write_images(tmp_path / "thin", [f"{2 * i}.png" for i in range(13)])
    assert missing_numbers(tmp_path / "whole") == ""
    expected = "images are missing: 2, 4-6, of 1-7; their time passes without a frame"
    assert missing_numbers(tmp_path / "gappy") == expected
    assert "19 and 2 more gaps, of 0-24" in missing_numbers(tmp_path / "thin")


def test_what_is_no_video_of_images_says_so(tmp_path):
    with pytest.raises(VideoError, match="a folder, but not one of two or more numbered images"):
        ImageReader(write_images(tmp_path / "single", ["1.png"]), 25)
    folder = write_images(tmp_path / "damaged", ["1.png", "2.png"])
    (folder / "1.png").write_bytes(b"not an image")
    with pytest.raises(VideoError, match="the image 1.png cannot be read"):
        ImageReader(folder, 25)
