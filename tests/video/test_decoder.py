import os
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from activity.errors import VideoError
from activity.video import decoder as video
from activity.video.decoder import (
    FrameIndex,
    SeekError,
    VideoInfo,
    VideoReader,
    index_frames,
    read_frames,
    why_unreadable,
)
from activity.video.images import probe
from activity.video.writer import write_video


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def is_open(path):
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return any(os.path.realpath(link) == os.path.realpath(path) for link in links)


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc to see open files in")


# === Reading what was written ===


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".AVI"])
def test_lossless_frames_come_back_exactly(tmp_path, suffix):
    frames = noise(7, 18, 26)
    write_video(tmp_path / f"a{suffix}", frames, frames_per_second=10)
    np.testing.assert_array_equal(read_frames(tmp_path / f"a{suffix}"), frames)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4", ".webm"])
def test_red_stays_red(tmp_path, suffix):
    red = np.full((4, 32, 48, 3), (230, 20, 40), np.uint8)
    write_video(tmp_path / f"a{suffix}", red, frames_per_second=10)
    frames = read_frames(tmp_path / f"a{suffix}")
    assert frames.shape == red.shape and frames.dtype == np.uint8
    np.testing.assert_allclose(frames, red, atol=12)


def test_header(tmp_path):
    write_video(tmp_path / "a.avi", noise(6, 18, 26), frames_per_second=12.5)
    assert probe(tmp_path / "a.avi") == VideoInfo(18, 26, 12.5, 6, "ffv1")
    assert probe(tmp_path / "a.avi").duration_seconds_claimed == pytest.approx(6 / 12.5)
    assert VideoInfo(18, 26, 25.0, 0, "ffv1").duration_seconds_claimed == 0


def test_another_codec_can_be_asked_for(tmp_path):
    write_video(tmp_path / "a.avi", noise(2, 32, 32), frames_per_second=10, fourcc="MJPG")
    assert probe(tmp_path / "a.avi").fourcc == "MJPG"


@pytest.mark.parametrize("rate", [1, 10, 29.97, 240])
def test_index_and_time_of_each_frame(write_counting_video, rate):
    with VideoReader(write_counting_video("a.avi", 12, frames_per_second=rate)) as reader:
        indices, timestamps = zip(*reader, strict=True)
    assert indices == tuple(range(12))
    np.testing.assert_allclose(timestamps, np.arange(12) / rate, atol=1e-4)


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_only_wanted_frames_are_retrieved(write_counting_video, num_threads):
    with VideoReader(write_counting_video("a.avi", 12), num_threads=num_threads) as reader:
        frames = {index: reader.retrieve() for index, _ in reader if index in (3, 8)}
    assert {index: frame[0, 0].tolist() for index, frame in frames.items()} == {3: [3, 252, 7], 8: [8, 247, 7]}


# Not an image sequence, an address, an option, or anything else that OpenCV or FFmpeg make of such names.
@pytest.mark.parametrize("name", ["take_%03d.avi", "http:x.avi", "бег #1 [a]*?.avi", "-i.avi", "concat:a|b.avi", "0"])
def test_a_name_is_only_a_name(write_counting_video, tmp_path, monkeypatch, name):
    write_counting_video("plain.avi", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_frames(Path(name))[:, 0, 0, 0].tolist() == [0, 1, 2]


# === Rotation ===


def turn(mp4, degrees):
    """The MP4 with the display matrix of its track header (ISO/IEC 14496-12, 8.3.2) turned clockwise."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    start = mp4.index(b"tkhd") + 44
    corner = [cosine, sine, 0, -sine, cosine]
    matrix = b"".join((value << 16).to_bytes(4, "big", signed=True) for value in corner)
    return mp4[:start] + matrix + mp4[start + len(matrix) :]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(tmp_path, degrees):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32] = (200, 30, 30)  # the top left is red
    write_video(tmp_path / "straight.mp4", [image] * 3, frames_per_second=10)
    (tmp_path / "turned.mp4").write_bytes(turn((tmp_path / "straight.mp4").read_bytes(), degrees))
    straight, turned = read_frames(tmp_path / "straight.mp4"), read_frames(tmp_path / "turned.mp4")
    np.testing.assert_array_equal(turned, np.rot90(straight, -degrees // 90, axes=(1, 2)))
    info = probe(tmp_path / "turned.mp4")
    assert (info.height, info.width) == turned.shape[1:3]


@pytest.mark.real
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_of_real_files(real_data, degrees):
    folder = real_data / "videos" / "torture"
    straight, turned = read_frames(folder / "syn_faststart.mp4"), read_frames(folder / f"syn_rot{degrees}.mp4")
    np.testing.assert_array_equal(turned, np.rot90(straight, -degrees // 90, axes=(1, 2)))


# === Seeking ===


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """300 different frames of MPEG-4 in MP4, a key frame in every 12."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (64, 400, 3), dtype=np.uint8), (0, 0), 3)
    write_video(path, (noise[:, i : i + 64].copy() for i in range(300)), frames_per_second=25)
    return path


def test_the_index_tells_frames_and_key_frames(long_video):
    index = index_frames(long_video)
    np.testing.assert_allclose(index.timestamps_seconds, np.arange(300) / 25, atol=1e-9)
    np.testing.assert_array_equal(index.key_frames, np.arange(0, 300, 12))
    # OpenCV decodes the first frames after a key frame unseen
    assert [index.start_for(i) for i in (0, 19, 20, 31, 32, 100)] == [0, 0, 0, 0, 12, 72]


@pytest.mark.parametrize("num_threads", [0, 1])
def test_visited_frames_are_those_that_decoding_all_gives(long_video, monkeypatch, num_threads):
    every = read_frames(long_video)
    monkeypatch.setattr(video, "_SEEK_PAYS", 0)
    wanted = [0, 1, 13, 60, 61, 150, 299]
    with VideoReader(long_video, num_threads=num_threads) as reader:
        visited = [(i, seconds, reader.retrieve()) for i, seconds in reader.visit(wanted, index_frames(long_video))]
    assert [i for i, _, _ in visited] == wanted
    np.testing.assert_allclose([seconds for _, seconds, _ in visited], np.array(wanted) / 25, atol=1e-9)
    for i, _, frame in visited:
        np.testing.assert_array_equal(frame, every[i])


def test_what_lies_between_visited_frames_is_skipped(long_video, monkeypatch):
    class Counting:
        def __init__(self, capture):
            self.capture, self.grabs, self.seeks = capture, 0, 0

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def grab(self):
            self.grabs += 1
            return self.capture.grab()

        def set(self, *arguments):
            self.seeks += 1
            return self.capture.set(*arguments)

    with VideoReader(long_video) as reader:
        reader._capture = counting = Counting(reader._capture)
        list(reader.visit([5, 200], index_frames(long_video)))
        assert counting.seeks == 1
        assert counting.grabs < 30  # 6 to reach frame 5, and those after the landing 20 frames after a key frame


def test_a_seek_decodes_one_gop_where_frames_last_unequally_long(tmp_path):
    av = pytest.importorskip("av", reason="only PyAV writes frames that last unequally long")
    rng, shown = np.random.default_rng(0), 0
    scene = cv2.GaussianBlur(rng.integers(0, 256, (240, 920, 3), dtype=np.uint8), (0, 0), 3)
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        options = {"preset": "veryfast", "bf": "3", "g": "250", "keyint_min": "250", "sc_threshold": "0"}
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(600):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[:, i : i + 320]), "rgb24")
            image.pts, image.time_base = shown, Fraction(1, 25)
            shown += 3 if i < 4 else 1 + i % 2  # the delay of B-frames is longest at the start
            output.mux(stream.encode(image))
        output.mux(stream.encode())
    frame_index = index_frames(tmp_path / "a.mp4")
    assert frame_index.key_frames.tolist() == [0, 250, 500]

    def decode(read):
        with VideoReader(tmp_path / "a.mp4") as reader:
            began = time.thread_time()
            last = [(index, reader.retrieve()) for index, _ in read(reader) if index == 530][0]
            return *last, time.thread_time() - began

    index, frame, seconds_all = decode(iter)
    visited, same, seconds_visit = min(
        (decode(lambda r: r.visit([530], frame_index)) for _ in range(3)), key=lambda x: x[2]
    )
    assert visited == index
    np.testing.assert_array_equal(frame, same)
    assert seconds_visit < 0.25 * seconds_all  # 30 frames of 600; from the key frame before, 280


@pytest.mark.parametrize("shift", [40.0, 1.0])
def test_an_index_that_lies_is_noticed(long_video, shift):
    index = index_frames(long_video)
    milliseconds = index.milliseconds.copy()
    milliseconds[150:] += shift
    with VideoReader(long_video) as reader, pytest.raises(SeekError, match="frame 299 is not where the container says"):
        list(reader.visit([0, 299], FrameIndex(milliseconds, index.key_frames)))


def test_the_times_in_avi_files_are_those_of_decoding(tmp_path):
    rng = np.random.default_rng(0)
    for fourcc, trusted in (("MJPG", True), ("XVID", False)):
        path = tmp_path / f"{fourcc}.avi"
        frames = (rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(30))
        write_video(path, frames, frames_per_second=10, fourcc=fourcc)
        assert (index_frames(path) is not None) == trusted


def test_no_index_without_frames(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    assert index_frames(tmp_path / "a.mp4") is None


@pytest.mark.real
def test_timestamps_of_real_files_rise(real_data):
    num_read = 0
    for path in sorted((real_data / "videos" / "torture").iterdir()):
        try:
            with VideoReader(path) as reader:
                timestamps = [timestamp for _, timestamp in reader]
        except VideoError:
            continue
        assert all(np.diff(timestamps) > 0), path.name
        num_read += bool(timestamps)
    assert num_read > 50


# === Every frame that passes is checked ===


class Enough(Exception):
    pass


def check_until(limit, passed):
    def check(seconds):
        passed.append(round(seconds, 3))
        if seconds > limit:
            raise Enough

    return check


def test_a_check_sees_each_frame_and_ends_the_reading(write_counting_video):
    path, passed = write_counting_video("a.avi", 30), []
    with VideoReader(path, check=check_until(1.0, passed)) as reader, pytest.raises(Enough):
        for _ in reader:
            pass
    assert passed == [round(i / 10, 3) for i in range(12)]


def test_a_check_sees_what_passes_between_visited_frames(long_video):
    passed = []
    with VideoReader(long_video, check=check_until(1.0, passed)) as reader, pytest.raises(Enough):
        list(reader.visit([0, 20, 28], index_frames(long_video)))
    assert passed == [round(i / 25, 3) for i in range(27)]


def test_an_index_has_an_end(long_video, monkeypatch):
    for most, indexed in ((300, True), (299, False)):
        monkeypatch.setattr(video, "_MOST_INDEXED", most)
        assert (index_frames(long_video) is not None) == indexed


# === Files that are no videos ===


def mp4(tmp_path):
    write_video(tmp_path / "whole.mp4", noise(3, 32, 32), frames_per_second=10)
    return (tmp_path / "whole.mp4").read_bytes()


FTYP = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
UNREADABLE = {
    "empty": (lambda _: b"", r"the file is empty \(0 bytes\)"),
    "text": (lambda _: b"path,label\n", "this is a text file, not a video"),
    "text, cut in a letter": (lambda _: b"a" + "é".encode() * 3000, "this is a text file, not a video"),
    "random": (
        lambda _: np.random.default_rng(0).bytes(20000),
        r"not a video that OpenCV can open \(20000 bytes\): damaged, cut off, or another kind of file",
    ),
    "mp4 without index": (
        lambda folder: mp4(folder)[: mp4(folder).index(b"moov") - 4],
        r"its index \(the 'moov' box\) is missing: the recording or the copy was cut off",
    ),
    "mp4 of sound": (
        lambda folder: mp4(folder).replace(b"vide", b"soun"),
        r"it has no video track \(audio only\)",
    ),
    "mp4 that is encrypted": (  # without its 'esds' box nothing tells the true codec
        lambda folder: mp4(folder).replace(b"mp4v", b"encv").replace(b"esds", b"free"),
        r"the video is encrypted \(DRM\)",
    ),
    "mp4 of an unknown codec": (
        lambda folder: mp4(folder).replace(b"mp4v", b"zzzz").replace(b"esds", b"free"),
        r"no frame can be decoded \(codec unknown\): damaged, or no decoder here. If .* re-encode it: ffmpeg",
    ),
    "mp4 whose first box never ends": (lambda _: FTYP + b"\0\0\0\1free" + bytes(8), "'moov' box"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_why_a_file_cannot_be_read(tmp_path, kind):
    make, reason = UNREADABLE[kind]
    path = tmp_path / "a.mp4"
    path.write_bytes(make(tmp_path))
    with pytest.raises(VideoError, match=f"a.mp4: .*{reason}") as caught:
        read_frames(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none.mp4", "cannot be opened: No such file or directory"), (".", "a folder that holds no videos")],
)
@pytest.mark.parametrize("function", [probe, read_frames])
def test_no_file(tmp_path, function, name, reason):
    with pytest.raises(VideoError, match=reason):
        function(tmp_path / name)


# === Writing what cannot be written ===


def test_frames_of_another_size(tmp_path):
    frames = [np.zeros((16, 24, 3), np.uint8), np.zeros((24, 16, 3), np.uint8)]
    with pytest.raises(VideoError, match=r"a.avi: expected frames of shape \(16, 24, 3\), received \(24, 16, 3\)"):
        write_video(tmp_path / "a.avi", frames, frames_per_second=10)


def test_no_frames(tmp_path):
    with pytest.raises(VideoError, match="a.avi: there are no frames to write"):
        write_video(tmp_path / "a.avi", [], frames_per_second=10)
    assert not (tmp_path / "a.avi").exists()


def test_unknown_extension(tmp_path):
    with pytest.raises(VideoError, match="cannot tell the codec; expected one of .avi, .mkv, .mp4, .webm, or a fourcc"):
        write_video(tmp_path / "a.xyz", noise(2, 16, 16), frames_per_second=10)


def test_unknown_codec(tmp_path):
    with pytest.raises(VideoError, match="a.avi: the codec ZZZZ does not open for writing here"):
        write_video(tmp_path / "a.avi", noise(2, 16, 16), frames_per_second=10, fourcc="ZZZZ")


# === Files are let go ===


@needs_proc
def test_reader_lets_the_file_go(write_counting_video):
    path = write_counting_video("a.avi", 3)
    with VideoReader(path) as reader:
        next(iter(reader))
        assert is_open(path)
    assert not is_open(path)
    with pytest.raises(ZeroDivisionError), VideoReader(path):
        raise ZeroDivisionError
    assert not is_open(path)


@needs_proc
def test_writer_lets_the_file_go_when_the_frames_fail(tmp_path):
    def frames():
        yield from noise(2, 16, 16)
        assert is_open(tmp_path / "a.avi")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.avi", frames(), frames_per_second=10)
    assert not is_open(tmp_path / "a.avi")


# === Names that are not UTF-8 ===


@pytest.fixture
def odd_name(tmp_path):
    """A path that is not UTF-8; not every file system has such names."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.avi"
    try:
        open(path, "wb").close()
    except OSError:
        pytest.skip("this file system has no such names")
    return Path(os.fsdecode(path))


def test_a_name_that_is_not_utf8_is_refused(odd_name):
    message = r"caf\\xe9.avi: its name is not valid UTF-8, which OpenCV cannot open; rename it"
    write = partial(write_video, frames=noise(2, 16, 16), frames_per_second=10)
    for use in (probe, read_frames, write, why_unreadable):
        odd_name.write_bytes(np.random.default_rng(0).bytes(99))
        with pytest.raises(VideoError, match=message) as caught:
            use(odd_name)
        str(caught.value).encode()
