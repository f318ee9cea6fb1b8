import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from activity.config import ClipSpec
from activity.models.info import ModelInfo
from activity.models.network import InferenceModel
from activity.predictor.live import Decision, _windows, watch
from activity.video.capture import Frame
from activity.video.streams import Seen
from activity.video.writer import write_video


class Brightness(InferenceModel):
    """Says whether the images of a window are rather bright or dark."""

    def __init__(self, num_frames=8, streams=("rgb",)):
        spec = ClipSpec(num_frames=num_frames, height=32, width=32, streams=streams)
        self.info = ModelInfo(spec=spec, labels=("bright", "dark"), clip_seconds=1.0, window_seconds=1.0)

    def extract_features(self, images):
        return images.mean(axis=(1, 2), dtype=np.float32)[:, :1]  # (N, 1)

    def predict_features(self, features, mask):
        bright = (features[..., 0, 0] * mask).sum(axis=1) / mask.sum(axis=1) / 255  # (B,)
        return np.stack([bright, 1 - bright], axis=1)


def bright_then_dark(index):
    return 250 if index < 60 else 5


def write_levels(path, levels):
    write_video(path, (np.full((48, 64, 3), level, np.uint8) for level in levels), frames_per_second=24)
    return str(path)


@pytest.mark.parametrize("streams", [("rgb",), ("rgb", "motion", "motion_crop")])
def test_a_window_is_judged_each_step(tmp_path, streams):
    source = write_levels(tmp_path / "a.avi", [bright_then_dark(index) for index in range(120)])
    decisions = list(watch(Brightness(16, streams), source, timeout_seconds=0.2))
    times = [decision.time_seconds for decision in decisions]
    np.testing.assert_allclose(times, np.arange(0.9375, 5, 0.125), atol=1 / 24)  # the first ends a window
    assert [decision.label for decision in decisions if decision.changed] == ["bright", "dark"]
    assert 2.5 < next(decision.time_seconds for decision in decisions if decision.label == "dark") < 3.5


def test_a_file_that_is_shorter_than_a_window_gets_one_decision(tmp_path):
    (decision,) = watch(Brightness(16), write_levels(tmp_path / "a.avi", [250] * 6), timeout_seconds=0.2)
    assert (decision.label, decision.probability) == ("bright", pytest.approx(250 / 255))


def test_a_decision_speaks():
    when = "2026-01-02T03:04:05.678+00:00"
    decision = Decision("0", ("run", "walk"), "walk", np.array([0.25, 0.75]), 1.5, when, 0.1, True)
    assert decision.as_text() == f"{when}       1.50 s  walk 0.750"
    assert decision.as_dict(top_k=1) == {
        "source": "0",
        "label": "walk",
        "probability": 0.75,
        "top": [{"label": "walk", "probability": 0.75}],
        "time_seconds": 1.5,
        "time": when,
        "latency_seconds": 0.1,
    }
    unknown = Decision("0", ("run", "walk"), "unknown", np.array([0.4, 0.6]), 1.5, when, 0.1, True)
    assert unknown.probability == 0.6


def test_a_stream_that_comes_back_is_labelled_again(jpeg_server):
    with jpeg_server(60, 1000, level=lambda _: 200) as url:
        decisions = watch(Brightness(), url, timeout_seconds=1.0)
        with contextlib.closing(decisions):
            taken = [decision for decision, _ in zip(decisions, range(14), strict=False)]
    last, steps = taken[-1], np.diff([decision.time_seconds for decision in taken])
    assert (steps > 1.5).sum() == 1  # the pause, and a window until the first decision
    now = datetime.datetime.now(datetime.timezone.utc)
    assert 0 < (now - datetime.datetime.fromisoformat(last.time)).total_seconds() < 5
    assert last.source.startswith("http://127.0.0.1")  # without the password


def test_connections_that_are_shorter_than_a_window_are_labelled_too(jpeg_server):
    with jpeg_server(*[20] * 50, level=lambda _: 200) as url:
        decisions = watch(Brightness(16), url, timeout_seconds=1.0)
        with contextlib.closing(decisions):
            taken = [decision for decision, _ in zip(decisions, range(2), strict=False)]
    assert [decision.label for decision in taken] == ["bright", "bright"]


def test_memory_does_not_grow_with_time():
    model, rng = Brightness(8, ("rgb", "motion", "motion_crop")), np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(4)]
    frames = (Frame(i / 25, 0.0, int(i % 3 == 0), i == 0, Seen(images[i % 4], images[i % 4][..., 0]))
              for i in range(10**9))  # fmt: skip
    windows = _windows(model, frames)
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(3):
            for _ in range(50):
                next(windows)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[2] < sizes[0] + 20_000


# === The command ===


def start_classify(*arguments):
    command = [sys.executable, "-m", "activity", "classify", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_it_is_stopped(how, jpeg_server, ramp_model, tmp_path):
    table = tmp_path / "t.csv"
    with jpeg_server(10**6) as url:
        program = start_classify(ramp_model, url, "--json", "--csv", table)
        rows = [json.loads(program.stdout.readline()) for _ in range(3)]
        program.send_signal(how)
        _, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert err.splitlines()[-1] == "activity: stopped"
    assert np.diff([row["time_seconds"] for row in rows]).min() > 0
    columns = "time,time_seconds,label,probability,top_1_label,top_1_probability,top_2_label,top_2_probability"
    assert table.read_text().splitlines()[0] == columns
    assert len(table.read_text().splitlines()) >= 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_that_stalls_does_not_keep_it_from_stopping(how, ramp_model, tmp_path):
    video, pipe = write_levels(tmp_path / "a.mkv", np.linspace(20, 230, 200).astype(int)), tmp_path / "pipe"
    os.mkfifo(pipe)
    program = start_classify(ramp_model, pipe, "--follow", "--json")
    with open(pipe, "wb") as file, open(video, "rb") as content:
        file.write(content.read())
        file.flush()
        json.loads(program.stdout.readline())
        began = time.monotonic()
        program.send_signal(how)
        _, err = program.communicate(timeout=30)  # nobody closes the pipe: it hangs in the decoder
    assert time.monotonic() - began < 5
    assert (program.returncode, err.splitlines()[-1]) == (130, "activity: stopped")


HANGING = """
import sys, time
import activity.cli.main, activity.predictor.sources as sources
real = sources.iter_frames
def iter_frames(path, *arguments, **options):
    if path.name == "pipe":
        open(path).read()  # for ever, in C
    return real(path, *arguments, **options)
sources.iter_frames, sources.probe = iter_frames, lambda path, probe=sources.probe: probe(sys.argv[3])
activity.cli.main.run()
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_decoder_that_hangs_does_not_keep_it_from_stopping(how, ramp_model, ramp_videos, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    words = [
        "classify",
        ramp_model,
        ramp_videos / "darkens" / "p0_0.avi",
        tmp_path / "pipe",
        "--csv",
        tmp_path / "t.csv",
    ]
    command = [sys.executable, "-c", HANGING, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert "darkens" in program.stdout.readline()
        time.sleep(0.5)
        began = time.monotonic()
        program.send_signal(how)
        try:
            _, err = program.communicate(timeout=20)
        finally:
            program.kill()
    assert time.monotonic() - began < 5
    assert (program.returncode, err.splitlines()[-1]) == (130, "activity: stopped")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2  # what was done is kept


def test_only_changes_of_the_label_are_printed(ramp_model, tmp_path):
    growing = write_levels(tmp_path / "a.mkv", np.linspace(20, 230, 200).astype(int))
    program = start_classify(ramp_model, growing, "--follow")
    out, _ = program.communicate(timeout=120)
    assert program.returncode == 0
    shown = [line.split()[3] for line in out.splitlines()]
    assert shown and all(a != b for a, b in zip(shown, shown[1:], strict=False))


# === Real servers ===


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(*command):
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def a_minute():
    """A stream that does not come is waited for, but not by a test."""

    def give_up(*_):
        raise TimeoutError("there was no decision for a minute")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ffmpeg():
    return shutil.which("ffmpeg") or pytest.skip("ffmpeg is not installed")


@pytest.fixture
def h264(ffmpeg):
    image = "testsrc=size=1280x720:rate=25"
    return [ffmpeg, "-re", "-f", "lavfi", "-i", image, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25"]


def check_pace(decisions, num=20):
    taken = [decision for decision, _ in zip(decisions, range(num), strict=False)]
    assert np.median(np.diff([decision.time_seconds for decision in taken])) == pytest.approx(0.125, abs=0.045)


@pytest.mark.slow
def test_mpeg_ts_by_http(h264, a_minute):
    url = f"http://127.0.0.1:{free_port()}/live.ts"
    with running(*h264, "-f", "mpegts", "-listen", "1", url):
        time.sleep(1)
        with contextlib.closing(watch(Brightness(), url)) as decisions:
            check_pace(decisions)


@pytest.mark.slow
def test_rtsp_and_its_loss(h264, a_minute, monkeypatch, caplog):
    server = shutil.which("rtsp-server-perl")
    if not server:
        pytest.skip("rtsp-server-perl is not installed: apt-get install rtsp-server-perl")
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")  # this server knows no other
    viewers, sources = free_port(), free_port()
    ports = ["--clientport", viewers, "--serverport", sources, "--rtp_start_port", 20000 + 2 * (viewers % 10000)]
    addresses = ["--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1"]
    publish = [*h264, "-f", "rtsp", "-rtsp_transport", "udp", f"rtsp://127.0.0.1:{sources}/cam"]
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(running(server, *ports, *addresses))
        time.sleep(2)
        publisher = cleanup.enter_context(running(*publish))
        time.sleep(2)
        decisions = cleanup.enter_context(
            contextlib.closing(watch(Brightness(), f"rtsp://127.0.0.1:{viewers}/cam", timeout_seconds=3.0))
        )
        check_pace(decisions)
        publisher.terminate()  # killed, it could not come back: the server would keep its place
        publisher.wait()
        threading.Timer(5, lambda: cleanup.enter_context(running(*publish))).start()
        before = next(decisions).time_seconds
        for decision in decisions:
            if decision.time_seconds > before + 3:
                break
            before = decision.time_seconds
        check_pace(decisions)
    lines = [record.getMessage() for record in caplog.records]
    assert any("lost; retrying" in line for line in lines) and any("connected again" in line for line in lines)
