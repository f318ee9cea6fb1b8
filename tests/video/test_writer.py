"""What was written is read back with PyAV, which tells more than OpenCV, and with our own reader."""

import logging
import shutil
import sys
from fractions import Fraction

import numpy as np
import pytest

from activity.errors import VideoError
from activity.video import writer
from activity.video.decoder import VideoReader, read_frames
from activity.video.images import probe
from activity.video.writer import write_playable

av = pytest.importorskip("av", reason="PyAV is not installed")


def gradient(height=48, width=64, shift=0):
    """A smooth image, which lossy codecs keep well."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(rows * 3 + shift) % 256, columns * 3 % 256, (rows + columns + shift) % 256], 2).astype(np.uint8)


def frames_at(timestamps, **size):
    return [(seconds, gradient(shift=i, **size)) for i, seconds in enumerate(timestamps)]


def evenly(num_frames, rate, **size):
    return frames_at([i / rate for i in range(num_frames)], **size)


def times_of(path):
    with VideoReader(path) as reader:
        return [seconds for _, seconds in reader]


@pytest.fixture
def only_ffmpeg(monkeypatch):
    """As if PyAV were not installed."""
    monkeypatch.setitem(sys.modules, "av", None)
    writer._encoder.cache_clear()
    yield
    writer._encoder.cache_clear()


@pytest.fixture
def no_av(only_ffmpeg, monkeypatch):
    """As if neither PyAV nor ffmpeg were."""
    monkeypatch.setattr(writer.shutil, "which", lambda _: None)


@pytest.fixture
def silent(write_counting_video):
    return write_counting_video("silent.avi", 3)


def test_browsers_play_it(tmp_path, silent):
    path = write_playable(tmp_path / "new" / "a.mp4", evenly(10, 25), frames_per_second=25, source=silent)
    assert path == tmp_path / "new" / "a.mp4"
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first: it plays while it loads
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_frames_come_back(tmp_path, silent):
    frames = [(i / 25, np.full((48, 64, 3), colour, np.uint8)) for i, colour in enumerate([(200, 30, 60)] * 5)]
    path = write_playable(tmp_path / "a.mp4", frames, frames_per_second=25, source=silent)
    np.testing.assert_allclose(read_frames(path), np.stack([frame for _, frame in frames]), atol=6)


@pytest.mark.parametrize(
    "rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(1), Fraction(240)]
)
def test_frame_rates_are_exact(tmp_path, silent, rate):
    path = write_playable(tmp_path / "a.mp4", evenly(12, float(rate)), frames_per_second=float(rate), source=silent)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames) == (rate, 12)
        assert stream.duration * stream.time_base == 12 / rate


def test_times_that_a_container_rounded_become_an_exact_rate_again(tmp_path, silent):
    rounded = [round(1000 * i * 1001 / 30000) / 1000 for i in range(40)]
    path = write_playable(tmp_path / "a.mp4", frames_at(rounded), frames_per_second=30000 / 1001, source=silent)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_uneven_times_are_kept(tmp_path, silent):
    times = [0.0, 0.02, 0.5, 0.54, 0.58, 2.0, 2.0001, 2.3]
    path = write_playable(tmp_path / "a.mp4", frames_at(times), frames_per_second=50, source=silent)
    np.testing.assert_allclose(times_of(path), times, atol=1.5e-3)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(2.32, abs=2e-3)  # the last frame is seen as long as nominal


@pytest.mark.parametrize("rate", [0.0004, 0.01, 0.5])
def test_slides_an_hour_apart_are_three_frames(tmp_path, silent, rate):
    times = [0.0, 3600.0, 7200.0]
    path = write_playable(tmp_path / "a.mp4", frames_at(times), frames_per_second=rate, source=silent)
    np.testing.assert_allclose(times_of(path), times, atol=1)
    assert path.stat().st_size < 20_000


def test_what_repeats_frames_for_ever_is_refused(tmp_path, silent, only_ffmpeg):
    with pytest.raises(VideoError, match="a frame lasts until 7200 s, which only PyAV can write. pip install"):
        write_playable(tmp_path / "a.mp4", frames_at([0.0, 7200.0]), frames_per_second=1000, source=silent)
    path = write_playable(tmp_path / "a.mp4", frames_at([0.0, 7200.0]), frames_per_second=0.0004, source=silent)
    assert path.stat().st_size < 20_000 and len(read_frames(path)) < 20


@pytest.mark.parametrize("size", [(143, 181), (48, 63), (47, 64), (2, 2), (1, 1), (16, 16)])
def test_odd_sizes_grow_by_a_pixel(tmp_path, silent, size):
    height, width = size
    frames = evenly(3, 25, height=height, width=width)
    path = write_playable(tmp_path / "a.mp4", frames, frames_per_second=25, source=silent)
    shape = read_frames(path).shape
    assert shape == (3, height + height % 2, width + width % 2, 3)


def test_frames_are_taken_one_by_one(tmp_path, silent):
    import gc
    import weakref

    alive = []

    def frames():
        for i in range(200):
            frame = gradient(shift=i)
            alive.append(weakref.ref(frame))
            yield i / 25, frame
            del frame
            assert sum(reference() is not None for reference in alive) <= 4

    gc.disable()
    try:
        write_playable(tmp_path / "a.mp4", frames(), frames_per_second=25, source=silent)
    finally:
        gc.enable()
    assert len(alive) == 200


@pytest.mark.parametrize("error", [KeyboardInterrupt, VideoError])
@pytest.mark.parametrize("num_frames", [0, 1, 50])
def test_what_is_stopped_leaves_nothing(tmp_path, silent, error, num_frames):
    def frames():
        yield from evenly(num_frames, 25)
        raise error("stop")

    (tmp_path / "out").mkdir()
    with pytest.raises(error, match="stop"):
        write_playable(tmp_path / "out" / "a.mp4", frames(), frames_per_second=25, source=silent)
    assert not list((tmp_path / "out").iterdir())


def test_an_earlier_file_stays_until_the_new_one_is_whole(tmp_path, silent):
    path = write_playable(tmp_path / "a.mp4", evenly(3, 25), frames_per_second=25, source=silent)
    before = path.read_bytes()
    with pytest.raises(VideoError, match="no frames"):
        write_playable(path, [], frames_per_second=25, source=silent)
    assert path.read_bytes() == before
    write_playable(path, evenly(7, 25), frames_per_second=25, source=silent)
    assert len(read_frames(path)) == 7


def test_a_place_that_cannot_be_written_is_named(tmp_path, silent):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OSError, match="a.mp4") as caught:
        write_playable(tmp_path / "a.mp4", evenly(3, 25), frames_per_second=25, source=silent)
    assert str(tmp_path / "a.mp4") in (caught.value.filename, caught.value.filename2)


# === Sound ===


def with_sound(path, codec="aac", seconds=2.0, rate=25, video_first=0):
    """A video with a tone; its images begin `video_first` frames after the sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=rate)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream(codec, rate=44100 if codec != "libopus" else 48000)
        sound.layout = "mono"
        for i in range(int(seconds * rate)):
            image = av.VideoFrame.from_ndarray(gradient(shift=i), format="rgb24")
            image.pts = i + video_first
            container.mux(video.encode(image))
        size = sound.codec_context.frame_size or 1024
        for i in range(int(seconds * sound.rate / size)):
            tone = np.sin(np.arange(i * size, (i + 1) * size) * 0.1)
            kind, dtype, scale = ("fltp", np.float32, 0.5) if codec == "aac" else ("s16", np.int16, 9000)
            chunk = av.AudioFrame.from_ndarray((tone * scale).astype(dtype)[None], format=kind, layout="mono")
            chunk.sample_rate, chunk.pts = sound.rate, i * size
            container.mux(sound.encode(chunk))
        for stream in (video, sound):
            container.mux(stream.encode())
    return path


def sound_of(path):
    """Codec, and the packets as `(seconds, content)`."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, []
        stream = container.streams.audio[0]
        packets = [p for p in container.demux(stream) if p.dts is not None]
        return stream.codec_context.name, [(float(p.pts * p.time_base), bytes(p)) for p in packets]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_copied_as_it_is(tmp_path, suffix):
    source = with_sound(tmp_path / f"source{suffix}")
    path = write_playable(tmp_path / "a.mp4", evenly(50, 25), frames_per_second=25, source=source)
    codec, packets = sound_of(path)
    _, expected = sound_of(source)
    assert codec == "aac" and len(packets) >= len(expected) - 2
    contents = dict((content, seconds) for seconds, content in expected)
    assert all(contents[content] == pytest.approx(seconds, abs=2e-3) for seconds, content in packets)


def test_sound_ends_with_the_frames(tmp_path):
    source = with_sound(tmp_path / "source.mp4", seconds=4)
    path = write_playable(tmp_path / "a.mp4", evenly(25, 25), frames_per_second=25, source=source)
    assert sound_of(path)[1][-1][0] == pytest.approx(1, abs=0.05)


def test_sound_that_browsers_do_not_play_is_left_out_with_a_line(tmp_path, caplog):
    source = with_sound(tmp_path / "source.avi", codec="pcm_s16le")
    with caplog.at_level(logging.INFO):
        path = write_playable(tmp_path / "a.mp4", evenly(5, 25), frames_per_second=25, source=source)
    assert sound_of(path) == (None, []) and "its sound (pcm_s16le) is left out" in caplog.text


def test_a_source_that_pyav_cannot_open_is_silent(tmp_path):
    (tmp_path / "text.mp4").write_text("text")
    path = write_playable(tmp_path / "a.mp4", evenly(5, 25), frames_per_second=25, source=tmp_path / "text.mp4")
    assert len(read_frames(path)) == 5 and sound_of(path) == (None, [])


# === Without PyAV ===


def test_without_pyav_it_is_vp9_and_says_so(tmp_path, silent, no_av, caplog):
    path = write_playable(tmp_path / "a.mp4", evenly(10, 25, height=47), frames_per_second=25, source=silent)
    assert path == tmp_path / "a.webm" and probe(path).fourcc.lower() in ("vp90", "vp9")
    assert read_frames(path).shape == (10, 48, 64, 3)
    assert "written as VP9, silent" in caplog.text and "'.[video]'" in caplog.text
    assert [p.name for p in tmp_path.glob("*a.*")] == ["a.webm"]


def test_without_vp9_it_is_mpeg_4_and_says_so(tmp_path, silent, no_av, caplog, monkeypatch):
    write_video = writer.write_video

    def without_vp9(path, frames, **options):
        if path.suffix == ".webm":
            raise VideoError("the codec does not open")
        write_video(path, frames, **options)

    monkeypatch.setattr(writer, "write_video", without_vp9)
    path = write_playable(tmp_path / "a.mp4", evenly(10, 25), frames_per_second=25, source=silent)
    assert path.suffix == ".mp4" and probe(path).num_frames_claimed == 10
    assert "a browser may not play" in caplog.text


needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="there is no ffmpeg program")


@needs_ffmpeg
def test_without_pyav_an_ffmpeg_at_hand_writes_h264(tmp_path, silent, only_ffmpeg, caplog, monkeypatch):
    path = write_playable(
        tmp_path / "a b.mp4", evenly(10, 30000 / 1001, height=47), frames_per_second=30000 / 1001, source=silent
    )
    monkeypatch.undo()
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(30000, 1001) and stream.frames == 10
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    np.testing.assert_allclose(
        read_frames(path)[:, :47].astype(float), [f for _, f in evenly(10, 25, height=47)], atol=40
    )
    assert "written by ffmpeg, silent" in caplog.text and "'.[video]'" in caplog.text


@needs_ffmpeg
def test_what_ffmpeg_complains_of_is_passed_on(tmp_path, silent, only_ffmpeg, monkeypatch):
    write_playable(tmp_path / "a.mp4", evenly(2, 25), frames_per_second=25, source=silent)  # it is chosen
    monkeypatch.setattr(writer, "_X264_OPTIONS", {"preset": "no such one"})
    with pytest.raises(VideoError, match="ffmpeg cannot write it: .*no such one"):
        write_playable(tmp_path / "b.mp4", evenly(50, 25), frames_per_second=25, source=silent)
    assert not list(tmp_path.glob("*b*"))


def test_without_pyav_uneven_times_become_even_ones(tmp_path, silent, no_av):
    times, levels = [0.0, 0.1, 0.5, 0.52, 1.0], [20, 60, 100, 140, 180]
    frames = [(seconds, np.full((48, 64, 3), level, np.uint8)) for seconds, level in zip(times, levels, strict=True)]
    path = write_playable(tmp_path / "a.mp4", frames, frames_per_second=10, source=silent)
    shown = read_frames(path).mean(axis=(1, 2, 3))  # (N,)
    expected = [20, 60, 60, 60, 60, 140, 140, 140, 140, 140, 180]  # at 0, 0.1, ... 1.0 seconds: the duration stays
    np.testing.assert_allclose(shown, expected, atol=5)


def test_a_source_without_frames_is_an_error_without_pyav_too(tmp_path, silent, no_av):
    with pytest.raises(VideoError, match="no frames"):
        write_playable(tmp_path / "a.mp4", [], frames_per_second=25, source=silent)
    assert not list(tmp_path.glob("*.webm"))
