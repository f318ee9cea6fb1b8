import math
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.video.decoder import VideoReader
from activity.video.images import (
    ImageReader,
    images_of,
    is_image,
    missing_numbers,
    numbered_images,
    open_video,
    probe,
)
from activity.video.sampling import read_stack


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


# === Single images ===

SPEC = ClipSpec(num_frames=4, height=20, width=30, streams=("rgb",))


def picture(height=20, width=30):
    """Noise, `(height, width, 3)` uint8 RGB."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def read(path):
    with open_video(path) as reader:
        ((index, seconds),) = [(index, seconds) for index, seconds in reader]
        assert (index, seconds) == (0, 0.0)
        return reader.retrieve()


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif", "tiff", "webp"])
def test_a_single_image_is_a_clip_of_one_frame(tmp_path, suffix):
    path, image = tmp_path / f"a.{suffix}", picture()
    Image.fromarray(image).save(path, lossless=True)
    for spec in (SPEC, ClipSpec(num_frames=4, height=20, width=30, streams=("rgb",), frames_per_second=0.1)):
        stack, sampled = read_stack(path, spec)
        assert stack.shape == (1, 1, 20, 30, 3) and (stack[0, 0] == image).all()
        assert (sampled.num_frames, sampled.duration_seconds, sampled.timestamps_seconds) == (1, 0.0, (0.0,))
        assert sampled.edges_seconds == (0.0, 0.0) and sampled.problem is None
    info = probe(path)
    assert (info.height, info.width, info.num_frames_claimed, info.duration_seconds_claimed) == (20, 30, 1, 0.0)
    assert info.is_image


def test_a_jpeg_gives_the_pixels_of_opencv(tmp_path):
    smooth = cv2.resize(picture(8, 12), (30, 20), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / "a.jpg")
    assert (read(tmp_path / "a.jpg")[..., ::-1] == cv2.imread(str(tmp_path / "a.jpg"))).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_it_is_to_be_seen(tmp_path, suffix, orientation):
    seen = np.zeros((20, 30, 3), np.uint8)
    seen[:10, :15], seen[:10, 15:], seen[10:, :15] = [200, 0, 0], [0, 200, 0], [0, 0, 200]
    # how each orientation stores it: EXIF 2.32, 4.6.4, tag 274
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.transpose(1, 0, 2),
        6: np.rot90(seen),
        7: np.rot90(seen, 2).transpose(1, 0, 2),
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    best = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **best)
    assert np.abs(read(tmp_path / f"a.{suffix}").astype(int) - seen).max() <= (4 if suffix == "jpg" else 0)
    assert probe(tmp_path / f"a.{suffix}").height == 20


def test_images_of_any_depth_become_8_bit_rgb(tmp_path):
    image, grey = picture(), picture()[..., 0]
    alpha = np.dstack([image, np.full((20, 30), 128, np.uint8)])
    deep = image.astype(np.uint16) * 256 + 255
    arrays = {"grey": Image.fromarray(grey), "alpha": Image.fromarray(alpha), "bit": Image.fromarray(grey > 127)}
    arrays["grey_alpha"] = Image.fromarray(np.dstack([grey, grey]))
    arrays["palette"] = Image.fromarray(grey).convert("P")
    for name, of in arrays.items():
        of.save(tmp_path / f"{name}.png")
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    assert cv2.imwrite(str(tmp_path / "deep_grey.png"), deep[..., 0])
    assert cv2.imwrite(str(tmp_path / "deep_grey.tif"), deep[..., 0])
    grey3 = np.repeat(grey[..., None], 3, axis=2)
    expected = {"grey": grey3, "alpha": image, "bit": np.where(grey3 > 127, 255, 0), "palette": grey3}
    for name, pixels in (expected | {"grey_alpha": grey3, "deep": image, "deep_grey": grey3}).items():
        found = read(tmp_path / f"{name}.png")
        assert found.dtype == np.uint8 and (found == pixels).all(), name
    assert (read(tmp_path / "deep_grey.tif") == grey3).all()


def test_a_jpeg_for_printers_has_the_colours_of_a_screen(tmp_path):
    image = np.full((20, 30, 3), (250, 10, 60), np.uint8)
    Image.fromarray(image).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - image).max() <= 3
    opencv = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    assert np.abs(read(tmp_path / "a.jpg").astype(int) - opencv).max() <= 3


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_of_several_images_in_a_file_the_first_is_taken_and_it_is_said(tmp_path, name):
    first, second = Image.fromarray(picture()), Image.fromarray(255 - picture())
    first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
    stack, sampled = read_stack(tmp_path / name, SPEC)
    assert (stack[0, 0] == picture()).all()
    assert sampled.problem == f"{name} holds several images; the first is used"


def test_an_animated_gif_is_a_video(tmp_path):
    shades = [Image.fromarray(np.full((20, 30, 3), level, np.uint8)) for level in (0, 100, 200)]
    shades[0].save(tmp_path / "a.gif", save_all=True, append_images=shades[1:], duration=100)
    stack, sampled = read_stack(tmp_path / "a.gif", SPEC)
    assert stack[:, 0, 0, 0, 0].tolist() == [0, 100, 200] and sampled.duration_seconds > 0


def test_the_content_says_what_a_file_is(tmp_path, write_counting_video):
    os.replace(write_counting_video("a.avi", 3), tmp_path / "video.jpg")
    assert not is_image(tmp_path / "video.jpg") and len(read_stack(tmp_path / "video.jpg", SPEC)[0]) == 3
    Image.fromarray(picture()).save(tmp_path / "a.png")
    os.replace(tmp_path / "a.png", tmp_path / "png.jpg")
    assert is_image(tmp_path / "png.jpg") and (read(tmp_path / "png.jpg") == picture()).all()
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "empty.png").touch()
    with pytest.raises(VideoError, match="this is a text file"):
        open_video(tmp_path / "text.jpg")
    with pytest.raises(VideoError, match=r"the file is empty \(0 bytes\)"):
        open_video(tmp_path / "empty.png")
    assert not any(map(is_image, [tmp_path, tmp_path / "none.png", tmp_path / ("x" * 300 + ".png")]))


def test_a_name_with_a_percent_sign_is_that_of_one_image(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "100%d.png")
    assert (read(tmp_path / "100%d.png") == picture()).all()


def png_claiming(width, height):
    """A PNG file whose header claims a size, and that holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (8000, 6000, "has frames of 8000x6000 pixels; expected up to 40 million pixels; make it smaller"),
        (10000, 10000, "has frames of 10000x10000 pixels; expected up to 40 million pixels; make it smaller"),
        (50000, 50000, r"the image a.png has too many pixels \(.*\); make it smaller"),
        (30, 20, r"the image a.png cannot be read \("),
    ],
)
def test_a_huge_image_is_refused_before_there_is_room_made_for_it(tmp_path, width, height, message):
    (tmp_path / "a.png").write_bytes(png_claiming(width, height))
    with pytest.raises(VideoError, match=message) as info:
        open_video(tmp_path / "a.png")
    assert info.value.path == tmp_path / "a.png"
    (tmp_path / "folder").mkdir()
    for number in (1, 2):
        (tmp_path / "folder" / f"{number}.png").write_bytes(png_claiming(width, height))
    with pytest.raises(VideoError, match=message.replace("a.png", "1.png")):
        open_video(tmp_path / "folder")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
def test_an_image_that_was_cut_off_is_refused(tmp_path, suffix, capfd):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(200, 300)).save(path)
    content = path.read_bytes()
    for length in (len(content) // 2, 20):
        path.write_bytes(content[:length])
        with pytest.raises(VideoError, match=rf"the image a.{suffix} cannot be read \("):
            read_stack(path, SPEC)
    assert not capfd.readouterr().err


def test_numbers_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.full((20, 30), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(VideoError, match=r"cannot be read \(it holds numbers of 32 bits; expected 8 or 16 bits"):
        open_video(tmp_path / "a.tif")


def test_damaged_images_raise_errors_of_ours(tmp_path):
    rng = np.random.default_rng(1)
    for suffix in ("jpg", "png", "bmp", "tif", "webp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(picture()).save(path)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, min(len(whole), 200), 3)] = rng.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            try:
                stack, _ = read_stack(path, SPEC)
            except VideoError:
                continue
            assert stack.shape == (1, 1, 20, 30, 3)


def test_nothing_moves_in_an_image(tmp_path):
    Image.fromarray(picture(60, 80)).save(tmp_path / "a.png")
    spec = ClipSpec(num_frames=4, height=16, width=16)
    stack, _ = read_stack(tmp_path / "a.png", spec)
    assert stack.shape == (1, 3, 16, 16, 3) and (stack[0, 1:] == 128).all()
    again, _ = read_stack(tmp_path / "a.png", spec)
    assert (stack == again).all()


def test_a_segment_of_an_image_begins_with_it(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    stack, sampled = read_stack(tmp_path / "a.png", SPEC, span=(0.0, 5.0))
    assert len(stack) == 1 and sampled.duration_seconds == 0
    with pytest.raises(VideoError, match="the segment starts at 2.0 s, but the video ends at 0.0 s"):
        read_stack(tmp_path / "a.png", SPEC, span=(2.0, math.inf))


def test_a_video_file_is_read_as_before(write_counting_video):
    with open_video(write_counting_video("a.avi", 3)) as reader:
        assert type(reader) is VideoReader and not reader.info.is_image
