"""Where OpenCV reads nothing, PyAV gives the frames that OpenCV would give."""

import sys

import cv2
import numpy as np
import pytest

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.video import decoder
from activity.video.decoder import VideoReader, read_frames, why_unreadable
from activity.video.images import probe
from activity.video.sampling import read_stack
from activity.video.writer import write_video

av = pytest.importorskip("av", reason="PyAV is not installed")


REAL = cv2.VideoCapture


class Blind:
    """An OpenCV that opens nothing."""

    def __init__(self, *_):
        pass

    def isOpened(self):  # noqa: N802
        return False

    def grab(self):
        return False

    def get(self, _):
        return 0.0

    def release(self):
        pass


class WithoutDecoder(Blind):
    """An OpenCV that opens files, and finds no frame in them."""

    def __init__(self, *arguments):
        self.real = REAL(*arguments)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def isOpened(self):  # noqa: N802
        return self.real.isOpened()

    def get(self, what):
        return self.real.get(what)


@pytest.fixture(params=[Blind, WithoutDecoder])
def lesser_opencv(request):
    def install(monkeypatch):
        monkeypatch.setattr(decoder.cv2, "VideoCapture", request.param)

    return install


SPECS = [
    ClipSpec(num_frames=5, height=32, width=32),
    ClipSpec(num_frames=3, height=32, width=32, streams=("rgb",)),
    ClipSpec(num_frames=8, height=32, width=32, frames_per_second=7, streams=("rgb", "motion")),
    ClipSpec(num_frames=4, height=32, width=32, frames_per_second=0.4, resize="crop", streams=("rgb",)),
]


def read(path, spec, span):
    try:
        return read_stack(path, spec, span=span)
    except VideoError as error:
        return error.reason


def check_same(path, lesser_opencv, spec, span=(0.0, float("inf"))):
    """Returns whether both read it."""
    expected = read(path, spec, span)
    with pytest.MonkeyPatch.context() as patch:
        lesser_opencv(patch)
        found = read(path, spec, span)
    if isinstance(expected, str) or isinstance(found, str):
        assert isinstance(found, str), path.name
        return not isinstance(expected, str)
    (images, facts), (others, other_facts) = expected, found
    assert images.shape == others.shape, path.name
    assert np.abs(images.astype(int) - others).mean() <= 2, path.name
    assert facts.num_frames == other_facts.num_frames, path.name
    np.testing.assert_allclose(facts.timestamps_seconds, other_facts.timestamps_seconds, atol=1e-6, err_msg=path.name)
    assert facts.duration_seconds == pytest.approx(other_facts.duration_seconds, abs=1e-6), path.name
    return False


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4", "a.webm"])
def test_the_same_frames_by_every_plan(write_counting_video, lesser_opencv, spec, name):
    path = write_counting_video(name, 60, height=48, width=64)
    for span in ((0.0, float("inf")), (1.0, 3.5)):
        assert not check_same(path, lesser_opencv, spec, span)


@pytest.mark.real
@pytest.mark.parametrize("lesser_opencv", [Blind], indirect=True)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_same_frames_of_real_files(real_data, lesser_opencv, spec):
    paths = sorted(path for path in (real_data / "videos" / "torture").iterdir() if path.suffix != ".csv")
    missed = [path.name for path in paths if check_same(path, lesser_opencv, spec)]
    assert len(paths) > 60 and missed == []


@pytest.mark.real
def test_every_frame_of_real_files_is_the_same(real_data, lesser_opencv):
    num_read = 0
    for path in sorted((real_data / "videos" / "torture").iterdir()):
        with pytest.MonkeyPatch.context() as patch:
            try:
                with VideoReader(path) as reader:
                    expected = [(seconds, reader.retrieve_bgr()) for _, seconds in reader]
                lesser_opencv(patch)
                with VideoReader(path) as reader:
                    found = [(seconds, reader.retrieve_bgr()) for _, seconds in reader]
            except VideoError:
                continue
        if not expected:
            continue
        num_read += 1
        assert [seconds for seconds, _ in expected] == pytest.approx([seconds for seconds, _ in found], abs=1e-6)
        for (_, image), (_, other) in zip(expected, found, strict=True):
            assert image.shape == other.shape and np.abs(image.astype(int) - other).mean() <= 2, path.name
    assert num_read > 50


@pytest.mark.real
def test_av1_is_read(real_data):
    stack, sampled = read_stack(real_data / "videos" / "torture" / "syn_av1.mp4", SPECS[0])
    assert (sampled.num_frames, sampled.problem) == (12, None)
    assert stack.std() > 10 and sampled.duration_seconds == pytest.approx(12 / 25)


def test_the_header_is_that_of_opencv(write_counting_video, lesser_opencv, monkeypatch):
    path = write_counting_video("a.avi", 20, height=18, width=26, frames_per_second=12.5)
    expected = probe(path)
    lesser_opencv(monkeypatch)
    with VideoReader(path) as reader:
        list(reader)
    assert (reader.info.height, reader.info.width, reader.info.frames_per_second) == (18, 26, 12.5)
    assert reader.info.num_frames_claimed == expected.num_frames_claimed == 20


def test_what_neither_reads_names_the_remedy(write_counting_video, tmp_path, monkeypatch):
    path = write_counting_video("a.mp4", 5)
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"free"))
    assert "pip install" not in why_unreadable(path) and "re-encode it: ffmpeg" in why_unreadable(path)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("activity.video.diagnosis.is_installed", lambda: False)
    with pytest.raises(VideoError, match=r"no decoder here. PyAV has more decoders: pip install '.\[video\]'"):
        read_frames(path)


# === More than one video stream ===


@pytest.fixture
def two_streams(tmp_path):
    """The first is small and blue, the second large, red, and the default one."""
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as output:
        streams = []
        for number, size in enumerate((16, 48)):
            stream = output.add_stream("mpeg4", rate=10)
            stream.height = stream.width = size
            stream.disposition = number  # 1: the default
            streams.append(stream)
        for _ in range(8):
            for stream, colour in zip(streams, ((0, 0, 255), (255, 0, 0)), strict=True):
                image = np.full((stream.height, stream.width, 3), colour, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            output.mux(stream.encode())
    return path


def test_the_default_one_of_two_streams_is_read(two_streams):
    stack, sampled = read_stack(two_streams, SPECS[1])
    assert sampled.problem is None
    assert stack[..., 0].mean() > 200 > 50 > stack[..., 2].mean()


def test_without_pyav_it_is_said_that_the_first_is_read(two_streams, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    stack, sampled = read_stack(two_streams, SPECS[1])
    assert sampled.problem.startswith("the first of 2 video streams is read; PyAV reads the default one: pip install")
    assert stack[..., 2].mean() > 200


# === Edit lists ===


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_an_edit_list_hides_is_no_damage(tmp_path, cut_off):
    path = tmp_path / "edited.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.height = stream.width = 16
        stream.codec_context.gop_size = 10
        packets = []
        rng = np.random.default_rng(0)
        for _ in range(40):
            image = rng.integers(0, 255, (16, 16, 3), np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        for packet in [*packets, *stream.encode()]:
            hidden = round(2 / packet.time_base)  # as `ffmpeg -ss 2 -c copy` does
            packet.pts, packet.dts = packet.pts - hidden, packet.dts - hidden
            output.mux(packet)
    assert b"elst" in path.read_bytes()
    if cut_off:  # the index comes last, so it is taken for a file whose data ends early
        data = bytearray(path.read_bytes())
        start, stop = data.index(b"mdat") + 4, data.index(b"moov") - 4
        lost = start + (stop - start) * 8 // 10
        data[lost:stop] = bytes(stop - lost)
        path.write_bytes(data)
    _, sampled = read_stack(path, ClipSpec(num_frames=4, height=16, width=16, streams=("rgb",)))
    if cut_off:
        assert "cut off or damaged" in sampled.problem
    else:
        assert (sampled.problem, sampled.num_frames) == (None, 20)


# === Pixels ===


def test_a_frame_of_too_many_pixels_is_refused(tmp_path, lesser_opencv, monkeypatch):
    path = tmp_path / "a.avi"
    write_video(path, np.zeros((3, 64, 128, 3), np.uint8), frames_per_second=10)
    assert len(read_frames(path)) == 3
    monkeypatch.setattr(decoder, "_MOST_PIXELS", 64 * 128 - 1)
    with pytest.raises(VideoError, match="frames of 128x64 pixels; expected up to 0 million"):
        read_frames(path)


def test_what_an_mp4_claims_is_refused_before_a_decoder_sees_it(write_counting_video, monkeypatch):
    path = write_counting_video("a.mp4", 3, height=48, width=64)
    data = bytearray(path.read_bytes())
    entry = data.index(b"mp4v") - 4
    data[entry + 32 : entry + 36] = (16000).to_bytes(2, "big") + (8000).to_bytes(2, "big")
    path.write_bytes(data)
    monkeypatch.setattr(decoder.cv2, "VideoCapture", lambda *_: pytest.fail("a decoder was opened"))
    with pytest.raises(VideoError, match="frames of 16000x8000 pixels; expected up to 40 million pixels"):
        read_frames(path)


# === Sound ===


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + b"\xff\xfb\x90\0", "MP3 or AAC"),
        (b"fLaC\0", "FLAC"),
        (b"OggS\0\2" + bytes(22) + b"\1vorbis", "Ogg"),
        (b"RIFF\xff\0\0\0WAVEfmt ", "WAV"),
        (b"\0\0\0\x1cftypM4A ", "M4A"),
    ],
    ids=["mp3", "flac", "ogg", "wav", "m4a"],
)
def test_a_sound_file_is_no_video_whatever_its_cover(tmp_path, head, kind):
    (tmp_path / "song.mp4").write_bytes(head + bytes(5000))
    with pytest.raises(VideoError, match=rf"a sound file \({kind}\); a cover picture is no video"):
        probe(tmp_path / "song.mp4")


def test_nor_is_a_container_without_a_video_track(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        sound, cover = output.add_stream("aac", rate=8000), output.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = 0x400  # an attached picture
        output.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        output.mux(sound.encode(samples))
        output.mux([*sound.encode(), *cover.encode()])
    with pytest.raises(VideoError, match="a sound file; a cover picture is no video"):
        probe(path)


# === The files that showed all this ===


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "num_frames", "seconds", "problem"),
    [
        ("editlist.mp4", 47, 1.88, None),
        ("two_video.mp4", 75, 3.0, None),
        ("live.webm", 75, 3.0, None),
        ("raw.h264", 75, 3.0, None),
        ("gap3600.mp4", 3, 7201.0, None),
        ("song_cover.mp3", 0, 0, "a sound file"),
    ],
)
def test_headers_are_only_claims(real_data, name, num_frames, seconds, problem):
    result = read(real_data / "cases" / name, SPECS[0], (0.0, float("inf")))
    if problem:
        assert problem in result
    else:
        assert (result[1].num_frames, result[1].problem) == (num_frames, None)
        assert result[1].duration_seconds == pytest.approx(seconds, abs=0.1)
