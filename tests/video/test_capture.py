import functools
import http.server
import logging
import os
import threading
import time

import numpy as np
import pytest

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.video.capture import Capture, _Clock, _Plan, is_live, live_source
from activity.video.download import is_http_file, local_path

SPEC = ClipSpec(num_frames=4, height=32, width=32, streams=("rgb",))


def captured(source, *, rate=10.0, timeout_seconds=0.5, most=None, spec=SPEC, pause=0.0):
    frames = []
    with Capture(source, spec, rate, timeout_seconds) as capture:
        for frame in capture.frames():
            frames.append(frame)
            time.sleep(pause)
            if len(frames) == most:
                break
    assert not [thread for thread in threading.enumerate() if thread.name == "capture"]
    return frames


@pytest.mark.parametrize(
    "source, live", [("0", True), ("RTSP://cam/1", True), ("http://a/b.mp4", True), ("a.mp4", False), ("a://b", False)]
)
def test_a_url_or_a_number_is_live(source, live):
    assert is_live(source) is live


def test_a_number_that_names_a_file_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").touch()
    assert not is_live("7")


def test_a_file_gives_the_frames_that_are_due(write_counting_video):
    video = write_counting_video("a.avi", 20, frames_per_second=10)
    frames = captured(str(video), rate=5.0)
    assert [round(frame.seconds, 3) for frame in frames] == [round(0.2 * i, 3) for i in range(10)]
    assert [frame.seen.image[0, 0, 0] for frame in frames] == list(range(0, 20, 2))
    assert [frame.starts for frame in frames] == [True] + [False] * 9


def test_a_file_that_is_being_written_is_read_as_it_grows(write_counting_video, tmp_path):
    content = write_counting_video("whole.mkv", 100, height=64, width=64, frames_per_second=25).read_bytes()
    growing = tmp_path / "growing.mkv"
    growing.write_bytes(content[: len(content) // 3])

    def write_the_rest():
        for part in np.array_split(np.frombuffer(content[len(content) // 3 :], np.uint8), 6):
            time.sleep(0.2)
            with growing.open("ab") as file:
                file.write(part.tobytes())

    writer = threading.Thread(target=write_the_rest)
    writer.start()
    frames = captured(str(growing), rate=25.0, timeout_seconds=1.5)
    writer.join()
    assert [frame.seen.image[0, 0, 0] for frame in frames] == list(range(100))
    assert frames[-1].arrived - frames[0].arrived > 0.5
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
def test_a_pipe_is_followed_as_it_comes(write_counting_video, tmp_path):
    content = write_counting_video("whole.mkv", 50, frames_per_second=25).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content])
    writer.start()
    frames = captured(str(tmp_path / "pipe"), rate=25.0)
    writer.join()
    assert [frame.seen.image[0, 0, 0] for frame in frames] == list(range(50))


@pytest.mark.parametrize("written_late", [False, True])
def test_a_playlist_is_not_followed(write_counting_video, tmp_path, monkeypatch, written_late):
    monkeypatch.chdir(tmp_path)
    video, playlist = write_counting_video("secret.mkv", 20), tmp_path / "a.mkv"
    text = f"ffconcat version 1.0\nfile {video.name}\n"
    playlist.write_text("" if written_late else text)
    writer = threading.Timer(0.3, playlist.write_text, [text])
    writer.start()
    for source in ("a.mkv", f"file:{playlist}", f"file://{playlist}", f"concat:{video}|{video}"):
        with pytest.raises(VideoError, match=r"playlist \(ffconcat\)" if source == "a.mkv" else "No such file"):
            captured(source, timeout_seconds=2.0)
    writer.join()


def test_a_lost_stream_is_opened_again(jpeg_server, caplog):
    with jpeg_server(15, 1000) as url, caplog.at_level(logging.WARNING):
        frames = captured(url, most=30)
    starts = [index for index, frame in enumerate(frames) if frame.starts]
    assert len(starts) == 2 and starts[0] == 0  # no clip reaches over the gap
    assert np.diff([frame.seconds for frame in frames]).min() > 0
    assert frames[starts[1]].seconds - frames[starts[1] - 1].seconds > 0.9  # the time that nothing came has passed
    lines = [record.getMessage() for record in caplog.records]
    assert ["lost; retrying in 1 s" in lines[0], lines[1].endswith("connected again")] == [True, True]
    assert not any("secret" in line for line in lines)


def test_motion_jpeg_has_the_time_of_its_arrival(jpeg_server):
    with jpeg_server(1000, seconds_per_frame=0.1) as url:  # OpenCV says that it were 25 a second
        frames = captured(url, rate=20.0, most=12)
    steps = np.diff([frame.seconds for frame in frames])[3:]  # the first are read ahead
    assert np.median(steps) == pytest.approx(0.1, abs=0.03)


def test_who_is_slower_than_a_stream_misses_whole_stretches(jpeg_server, caplog):
    with jpeg_server(1000) as url, caplog.at_level(logging.WARNING):
        frames = captured(url, rate=25.0, most=40, pause=0.08)
    starts = [index for index, frame in enumerate(frames) if frame.starts]
    assert len(starts) >= 2 and np.diff(starts).min() >= SPEC.num_frames
    assert any("comes faster than it can be labelled" in record.getMessage() for record in caplog.records)


@pytest.fixture
def file_server(tmp_path):
    """The URL of a plain web server for the files in `tmp_path`."""

    class Files(http.server.SimpleHTTPRequestHandler):
        extensions_map = {".avi": "video/x-msvideo", ".m3u8": "application/vnd.apple.mpegurl", "": "video/mp2t"}

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_that_comes_by_http_ends_and_waits(file_server, write_counting_video):
    write_counting_video("a.avi", 20, frames_per_second=10)
    frames = captured(f"{file_server}/a.avi", pause=0.01)
    assert [round(frame.seconds, 3) for frame in frames] == [round(0.1 * i, 3) for i in range(20)]


def test_what_has_a_length_is_a_file_unless_it_is_a_playlist(file_server, tmp_path):
    for name in ("a.ts", "a.m3u8"):
        (tmp_path / name).write_bytes(b"x")
    assert [is_http_file(f"{file_server}/{name}") for name in ("a.ts", "a.m3u8", "none.ts")] == [True, False, False]
    assert not is_http_file("http://127.0.0.1:9/a.ts")


def test_a_file_that_comes_by_http_is_not_live_and_is_fetched_once(file_server, write_counting_video, tmp_path):
    video = write_counting_video("b.avi", 20)
    url = f"{file_server}/b.avi"
    assert live_source([url, "a.mp4"], follow=False) is None and live_source([url], follow=True) == url
    path = local_path(url)
    assert path.read_bytes() == video.read_bytes() and path.suffix == ".avi"
    video.unlink()
    assert local_path(url) == path != local_path(tmp_path / "c.avi") == tmp_path / "c.avi"


def test_what_does_not_come_whole_is_refused(tmp_path):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"x" * 10)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Short) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(VideoError, match=r"http://127.*/a.mp4: only 10 of 1000 bytes came"):
            local_path(f"http://127.0.0.1:{server.server_address[1]}/a.mp4")
        server.shutdown()


def test_damaged_images_of_a_stream_are_passed_over(jpeg_server, caplog):
    with jpeg_server(1000, damaged=lambda index: index % 10 == 9) as url, caplog.at_level(logging.WARNING):
        frames = captured(url, rate=25.0, most=60)
    assert sum(frame.starts for frame in frames) == 1  # one connection
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("damaged frames skipped since it was connected")


def test_a_file_waits_for_who_is_slow(write_counting_video):
    video = write_counting_video("a.avi", 30, frames_per_second=10)
    assert len(captured(str(video), rate=10.0, pause=0.01)) == 30


@pytest.mark.parametrize("source", ["63", "none.mp4", "text.mp4"])
def test_what_does_not_open_says_so_at_once(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("hello")
    message = {"63": "camera 63 not found; ", "none.mp4": "No such file", "text.mp4": "a text file"}[source]
    with pytest.raises(VideoError, match=f"{source}: .*{message}"):
        captured(source)


def test_a_stream_that_never_comes_is_given_up(jpeg_server, monkeypatch, caplog):
    monkeypatch.setattr("activity.video.capture._LONGEST_PAUSE_SECONDS", 0.01)
    with jpeg_server() as url, pytest.raises(VideoError, match="http://127.*: cannot connect: nothing answers"):
        captured(url)
    assert len(caplog.records) == 3


def test_a_bug_is_not_taken_for_a_bad_stream(monkeypatch, write_counting_video):
    monkeypatch.setattr("activity.video.capture.num_times_due", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="reading") as caught:
        captured(str(write_counting_video("a.avi", 3)))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class TestPlan:
    def test_the_neighbours_that_streams_compare_are_needed_too(self):
        plan = _Plan(2.0, 5.0, compares=True)
        needed = [index for index in range(50) if plan.next(index / 25)]
        for due in (0, 13, 25, 38):  # the first at or after each half second
            assert {index for index in (due - 4, due - 2, due, due + 2) if index >= 0} <= set(needed)
        assert len(needed) < 40

    def test_after_a_gap_it_starts_again(self):
        plan = _Plan(10.0, 1.0, compares=False)
        assert [plan.next(seconds) for seconds in (0.0, 0.1, 5.0, 5.05, 5.1)] == [
            (1, True), (1, False), (1, True), None, (1, False),
        ]  # fmt: skip

    def test_a_slow_camera_repeats_its_frames_and_a_fast_one_is_thinned(self):
        plan = _Plan(10.0, 1.0, compares=True)
        assert [plan.next(seconds)[0] for seconds in (0.0, 0.5, 1.0)] == [1, 5, 5]
        fast = _Plan(10.0, 1.0, compares=True)
        assert sum(fast.next(index / 120) is not None for index in range(120)) <= 40


class TestClock:
    def test_the_clock_of_a_stream_counts_until_it_runs_off(self):
        clock = _Clock(trusted=True, checked=True)
        assert clock.read(100.0, 2.0) == 2.0
        assert clock.read(100.04, 2.1) == pytest.approx(2.04)
        assert clock.read(150.0, 2.2) == 2.2
        assert clock.read(150.04, 2.3) == 2.3

    def test_files_have_their_own_time(self):
        clock = _Clock(trusted=True, checked=False)
        assert [clock.read(1.0, 0.0), clock.read(90.0, 0.1)] == [0.0, 89.0]
