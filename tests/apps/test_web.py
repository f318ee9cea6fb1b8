"""The page in a real browser, and the session and visitors that it is made of."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("gradio", reason="the web page needs gradio: pip install '.[web]'")

from activity.apps.web import PageSession, serve
from activity.errors import ActivityError
from activity.predictor.predictor import Predictor
from activity.video.writer import write_video

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page_session(ramp_model):
    return PageSession(ramp_model, runtime="keras", max_seconds=5)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "notes.mp4"
    path.write_text("not a video\n" * 50)
    return path


class TestPageSession:
    def test_it_says_what_python_says(self, page_session, ramp_model, ramp_videos, tmp_path):
        path = ramp_videos / "darkens" / "p0_0.avi"
        expected = Predictor.load(ramp_model, runtime="keras").predict(path, timeline=True)
        prediction = page_session.predict(path)
        assert prediction.as_dict() == expected.as_dict()
        about = json.loads(next(p for p in page_session.files(prediction, tmp_path) if p.suffix == ".json").read_text())
        assert about == {**expected.as_dict(), "source": "p0_0.avi"}  # no folder of ours

    def test_all_that_is_shown_is_made(self, page_session, ramp_videos, tmp_path):
        prediction = page_session.predict(ramp_videos / "darkens" / "p0_0.avi")
        made = [*page_session.files(prediction, tmp_path), page_session.explained(prediction, tmp_path)]
        assert {path.name for path in made} == {"p0_0.json", "p0_0.csv", "p0_0.srt", "p0_0.png", "p0_0-why.png"}
        assert (
            Predictor(page_session.predictor.model)
            .predict(page_session.annotated(prediction, tmp_path))
            .duration_seconds
            > 0
        )

    def test_what_is_no_video_is_named_without_its_folder(self, page_session, text_file):
        with pytest.raises(ActivityError, match=r"^notes\.mp4: cannot be read: ") as caught:
            page_session.predict(text_file)
        assert str(text_file.parent) not in str(caught.value)

    def test_what_is_too_long_is_refused_before_it_is_read(self, ramp_model, ramp_videos):
        page_session = PageSession(ramp_model, runtime="keras", max_seconds=0.1)
        with pytest.raises(ActivityError, match=r"p0_0.avi: too long: this page takes up to 0.1 seconds"):
            page_session.predict(ramp_videos / "darkens" / "p0_0.avi")

    def test_what_turns_out_too_long_is_refused_whatever_its_header_says(self, ramp_model, tmp_path):
        jpeg = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
        (tmp_path / "header.mjpeg").write_bytes(75 * jpeg)  # has none
        frames = [np.full((32, 32, 3), 90, np.uint8)] * 75
        write_video(tmp_path / "packets.avi", frames, frames_per_second=25)  # their times are those of decoding
        page_session = PageSession(ramp_model, runtime="keras", max_seconds=1)
        for name, length in {"header.mjpeg": "3", "packets.avi": "more"}.items():
            message = f"^{name}: too long: this page takes up to 1 seconds, and it has {length}; `activity classify`"
            with pytest.raises(ActivityError, match=message):
                page_session.predict(tmp_path / name)

    def test_a_decoder_that_hangs_does_not_keep_the_page(self, ramp_model, ramp_videos, monkeypatch):
        released = threading.Event()

        def hang(*_, **__):
            yield from [] if released.wait(60) else []

        monkeypatch.setattr("activity.predictor.sources.iter_frames", hang)
        page_session = PageSession(ramp_model, runtime="keras", max_seconds=5, patience_seconds=0.2)
        began = time.monotonic()
        with pytest.raises(ActivityError, match=r"^p0_0.avi: cannot be read: decoding took longer than 5.2 s and was"):
            page_session.predict(ramp_videos / "darkens" / "p0_0.avi")
        assert time.monotonic() - began < 20
        released.set()

    def test_drawing_the_labels_keeps_to_the_limits_too(self, page_session, ramp_videos, tmp_path, monkeypatch):
        prediction = page_session.predict(ramp_videos / "darkens" / "p0_0.avi")
        monkeypatch.setattr(page_session, "max_seconds", 0.1)
        with pytest.raises(ActivityError, match=r"^p0_0.avi: too long: this page takes up to 0.1 seconds"):
            page_session.annotated(prediction, tmp_path)
        page_session = PageSession(page_session.model_path, runtime="keras", max_seconds=5, patience_seconds=-30)
        with pytest.raises(ActivityError, match=r"^p0_0.avi: its labels took too long to draw"):
            page_session.annotated(prediction, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_playlist_is_refused(self, page_session, tmp_path, ramp_videos):
        (tmp_path / "a.mp4").write_text(f"ffconcat version 1.0\nfile {ramp_videos}/darkens/p0_0.avi\n")
        with pytest.raises(ActivityError, match=r"^a\.mp4: cannot be read: this is a playlist \(ffconcat\)"):
            page_session.predict(tmp_path / "a.mp4")

    @pytest.mark.real
    def test_lengths_of_real_files_are_those_of_their_frames(self, ramp_model, real_data):
        page_session = PageSession(ramp_model, runtime="keras", max_seconds=1)
        for name in ("live.webm", "raw.h264"):
            with pytest.raises(ActivityError, match=f"{name}: .*too long"):
                page_session.predict(real_data / "cases" / name)
        with pytest.raises(
            ActivityError, match=r"song_cover\.mp3: cannot be read: a sound file .* a cover picture is no video"
        ):
            page_session.predict(real_data / "cases" / "song_cover.mp3")


class TestServe:
    def test_a_missing_example(self, ramp_model):
        with pytest.raises(ActivityError, match=r"no\.mp4: no such file; expected a video to show as an example"):
            serve(ramp_model, examples=[Path("no.mp4")], say=print)

    def test_gradio_is_an_extra(self, ramp_model, monkeypatch):
        monkeypatch.setitem(sys.modules, "gradio", None)
        with pytest.raises(ActivityError, match=r"the web page needs Gradio; pip install '\.\[web\]'"):
            serve(ramp_model, say=print)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def served(model, temporary, *options):
    """The page by the command line, as its user starts it: its address, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "activity", "serve", model, "--port", port, "--runtime", "keras", *options]
    process = subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=1).read()
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        yield address, process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def page_address(ramp_model, ramp_videos, temporary):
    example = ramp_videos / "brightens" / "p2_0.avi"
    with served(ramp_model, temporary, "--max-seconds", "5", "--max-megabytes", "1", "--examples", example) as (url, _):
        yield url


@pytest.fixture(scope="module")
def slow_page_address(ramp_model, tmp_path_factory):
    """A page that takes long videos."""
    with served(ramp_model, tmp_path_factory.mktemp("slow")) as (url, _):
        yield url


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """Three minutes of large frames: they take a while to decode."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("this test needs ffmpeg")
    folder = tmp_path_factory.mktemp("long")
    image = np.linspace(0, 255, 1280 * 720 * 3).reshape(720, 1280, 3).astype(np.uint8)
    (folder / "long.mjpeg").write_bytes(3600 * cv2.imencode(".jpg", image)[1].tobytes())
    copy = ["-framerate", "20", "-f", "mjpeg", "-i", folder / "long.mjpeg", "-c", "copy", folder / "long.avi"]
    subprocess.run(["ffmpeg", "-v", "error", *copy], check=True)
    return folder / "long.avi"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="a browser test needs playwright")
    if CHROMIUM is None:
        pytest.skip("a browser test needs Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, page_address):
    """A function that opens the page as a new visitor."""
    with contextlib.ExitStack() as stack:

        def open_page(address=page_address):
            context = browser.new_context(accept_downloads=True)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(address)
            page.get_by_text("What does this video show?").wait_for()
            return page

        yield open_page


def give(page, path):
    page.set_input_files("#video input[type=file]", str(path))


def made_by(temporary):
    return [path for path in temporary.rglob("*") if path.is_file() and "frpc" not in path.name]


class TestInABrowser:
    def test_a_video_gets_its_labels(self, visit, ramp_videos, ramp_model, tmp_path):
        path = ramp_videos / "darkens" / "p1_0.avi"
        page = visit()
        give(page, path)
        page.locator("#answer h2", has_text="darkens").wait_for()
        expected = Predictor.load(ramp_model, runtime="keras").predict(path, timeline=True)
        page.locator("#bars", has_text=f"{round(100 * expected.probability)}%").wait_for()
        page.locator("#when img").wait_for()
        page.locator("#annotated video").wait_for()
        page.locator("#why img").wait_for()
        with page.expect_download() as download:
            page.locator("#downloads a", has_text="KB").or_(page.locator("#downloads a", has_text="B")).first.click()
        about = json.loads(Path(download.value.path()).read_text())
        assert about == {**expected.as_dict(), "source": path.name}

    def test_the_annotated_video_plays(self, visit, ramp_videos):
        page = visit()
        give(page, ramp_videos / "darkens" / "p1_0.avi")
        video = page.locator("#annotated video")
        video.wait_for()
        page.wait_for_function("document.querySelector('#annotated video').readyState >= 2")
        assert video.evaluate("v => v.error === null && v.videoWidth > 0")

    def test_a_text_file_is_told_from_a_video(self, visit, text_file):
        page = visit()
        give(page, text_file)
        page.get_by_text("notes.mp4: cannot be read").wait_for()
        assert not page.locator("#answer h2").is_visible()

    def test_an_example_can_be_tried(self, visit):
        page = visit()
        page.get_by_text("p2_0.avi").or_(page.locator(".gallery-item")).first.click()
        page.locator("#answer h2", has_text="brightens").wait_for()

    def test_two_visitors_at_once_get_their_own_answers(self, visit, ramp_videos):
        pages = {label: visit() for label in ("darkens", "brightens")}
        for label, page in pages.items():
            give(page, ramp_videos / label / "p3_1.avi")
        for label, page in pages.items():
            page.locator("#answer h2", has_text=label).wait_for()
            page.locator("#why img").wait_for()

    def test_a_long_video_shows_how_far_it_is_and_can_be_cancelled(
        self, visit, slow_page_address, ramp_videos, long_video
    ):
        first, second = visit(slow_page_address), visit(slow_page_address)
        give(first, long_video)
        far = re.compile(r"(Looking at the video|Drawing the labels): \d:\d\d of 2:59, about \d+ ")
        first.locator("#status", has_text=far).wait_for()
        give(second, ramp_videos / "darkens" / "p1_1.avi")
        second.locator("#status", has_text=re.compile(r"Waiting: 1 video before yours, about \d+ ")).wait_for()
        first.locator("#cancel").click()
        first.locator("#cancel").wait_for(state="hidden")
        second.locator("#answer h2", has_text="darkens").wait_for(timeout=10_000)

    def test_a_page_that_is_closed_makes_room_for_the_next(self, visit, slow_page_address, ramp_videos, long_video):
        first, second = visit(slow_page_address), visit(slow_page_address)
        give(first, long_video)
        first.locator("#status", has_text="Looking at the video: ").wait_for()
        give(second, ramp_videos / "darkens" / "p2_1.avi")
        second.locator("#status", has_text="Waiting: ").wait_for()
        first.context.close()
        began = time.monotonic()
        second.locator("#status", has_text="Waiting: ").wait_for(state="hidden")
        assert time.monotonic() - began < 3

    def test_a_file_that_is_too_large_is_refused(self, visit, tmp_path):
        large = tmp_path / "large.mp4"
        large.write_bytes(bytes(2_000_000))
        page = visit()
        give(page, large)
        page.get_by_text("exceed the maximum allowed size").wait_for()

    def test_the_model_introduces_itself(self, visit):
        page = visit()
        page.get_by_text("About this model").click()
        page.get_by_text("brightens").nth(1).wait_for()

    def test_nothing_of_a_visitor_is_left(self, visit, ramp_videos, temporary):
        page = visit()
        give(page, ramp_videos / "darkens" / "p4_0.avi")
        page.locator("#why img").wait_for()
        assert [path for path in made_by(temporary) if path.name.startswith("p4_0")]
        page.context.close()
        for _ in range(100):
            left = [path for path in made_by(temporary) if path.name.startswith("p4_0")]
            if not left:
                return
            time.sleep(0.2)
        pytest.fail(f"left: {left}")


def post(url, body, content_type="application/json"):
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    return json.loads(urllib.request.urlopen(request, timeout=30).read())


def upload(address, path):
    """Send a file to the page, as a browser does before it asks for labels."""
    head = f'--limit\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--limit--\r\n"
    (there,) = post(f"{address}/gradio_api/upload", body, "multipart/form-data; boundary=limit")
    return Path(there)


def ask(address, path, session, **more):
    """Ask for labels in the name of a session: whether that went well, and the files that the answers name."""
    config = json.loads(urllib.request.urlopen(f"{address}/config", timeout=30).read())
    (label,) = (each["id"] for each in config["dependencies"] if each["api_name"] == "label")
    value = path and {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}
    body = json.dumps({"data": [value], "fn_index": label, "session_hash": session})
    post(f"{address}/gradio_api/queue/join", body.encode())
    url = f"{address}/gradio_api/queue/data?session_hash={urllib.parse.quote(session, safe='')}"
    paths = set()
    with urllib.request.urlopen(url, timeout=20) as lines:
        for line in lines:
            if line.startswith(b"data:"):
                message = json.loads(line.removeprefix(b"data:"))
                paths |= {Path(text) for text in strings_in(message) if text.startswith("/")}
                if message["msg"] == "process_completed":
                    return message["success"], paths
    raise AssertionError("the page did not answer")


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings_in(each)


class TestAHostileClient:
    """It speaks HTTP, and so chooses what a browser would not: the name of its session, and the path of its video."""

    @pytest.fixture
    def victim_files(self, page_address, ramp_videos):
        """What a visitor has sent and got, while the page is open."""
        sent = upload(page_address, ramp_videos / "darkens" / "p5_0.avi")
        well, made = ask(page_address, sent, "victim")
        assert well
        yield {sent, *(path for path in made if path.name.startswith("p5_0"))}
        ask(page_address, None, "victim")

    @pytest.mark.parametrize("session", ["{foreign}", ".", "..", "../made", "../../{name}"])
    def test_the_name_of_a_session_deletes_nothing(self, page_address, victim_files, temporary, session):
        foreign = temporary / f"foreign-{uuid.uuid4().hex}"
        foreign.mkdir()
        (foreign / "diary.txt").write_text("dear diary")
        ask(page_address, None, session.format(foreign=foreign, name=foreign.name))
        assert (foreign / "diary.txt").read_text() == "dear diary"
        assert len(victim_files) == 7  # the upload, four of the timeline, the annotated video, and the explanation
        assert [path for path in victim_files if not path.is_file()] == []

    @pytest.mark.parametrize("session", ["{tmp_path}/new/.ssh", "../../new/.ssh", "new/.ssh"])
    def test_the_name_of_a_session_creates_no_folder(self, page_address, temporary, ramp_videos, tmp_path, session):
        session = session.format(tmp_path=tmp_path)
        well, made = ask(page_address, upload(page_address, ramp_videos / "darkens" / "p6_0.avi"), session)
        assert well
        assert [path for path in made if ".ssh" in path.parts] == []
        assert [*temporary.rglob(".ssh"), *tmp_path.rglob("*")] == []
        ask(page_address, None, session)
        assert [path for path in made if path.exists()] == []

    def test_the_upload_of_another_is_not_deleted(self, page_address, victim_files):
        (sent,) = (path for path in victim_files if path.suffix == ".avi")
        detour = f"{sent.parent}/../{sent.parent.name}/{sent.name}"
        for path, more in [(sent, {}), (detour, {}), (detour, {"is_stream": True})]:
            ask(page_address, path, "attacker", **more)
            ask(page_address, None, "attacker")
            assert sent.is_file()

    def test_the_result_of_another_is_no_upload(self, page_address, victim_files):
        for path in victim_files:
            if path.suffix != ".avi":
                well, _ = ask(page_address, path, "attacker")
                ask(page_address, None, "attacker")
                assert not well
        assert [path for path in victim_files if not path.is_file()] == []

    def test_who_sends_the_same_file_and_leaves_takes_it_from_nobody(self, page_address, ramp_videos):
        video = ramp_videos / "brightens" / "p6_1.avi"
        ask(page_address, upload(page_address, video), "attacker")
        sent = upload(page_address, video)  # by another, who now waits in the queue
        ask(page_address, None, "attacker")
        assert sent.is_file()
        well, _ = ask(page_address, sent, "victim")
        assert well

    def test_a_file_that_was_not_sent_is_not_read(self, page_address, victim_files, ramp_videos):
        foreign = ramp_videos / "darkens" / "p7_0.avi"
        (sent,) = (path for path in victim_files if path.suffix == ".avi")
        for path in [
            foreign,
            f"{sent.parent}/../../../{foreign.relative_to('/')}",
            sent.parent,
            sent.parent / "no.avi",
        ]:
            for more in [{}, {"is_stream": True}]:
                well, _ = ask(page_address, path, "attacker", **more)
                assert not well
        assert foreign.is_file()

    def test_sessions_that_are_refused_leave_nothing(self, page_address, temporary, text_file):
        for index in range(30):
            ask(page_address, upload(page_address, text_file) if index % 2 else None, f"invented-{index}")
        assert list(temporary.rglob(text_file.name)) == []
        (made,) = temporary.glob("activity-page-*/uploads/made")
        assert len(list(made.iterdir())) < 10  # of visitors of other tests

    @pytest.mark.parametrize("name", ["page.html", "image.svg", "page.xhtml", "feed.xml", "nothing"])
    def test_a_script_that_was_sent_does_not_run_by_its_address(self, page_address, tmp_path, name):
        (tmp_path / name).write_text("<script>alert(document.cookie)</script>")
        sent = upload(page_address, tmp_path / name)
        for headers in ({}, {"Range": "bytes=0-10"}):
            request = urllib.request.Request(f"{page_address}/gradio_api/file={sent}", headers=headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.headers["Content-Type"] == "application/octet-stream"
                assert answer.headers["Content-Disposition"].startswith("attachment")

    def test_nobody_goes_past_the_queue(self, page_address, victim_files):
        (sent,) = (path for path in victim_files if path.suffix == ".avi")
        data = [{"path": str(sent), "meta": {"_type": "gradio.FileData"}}]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(f"{page_address}/gradio_api/run/label", json.dumps({"data": data}).encode())


def test_the_page_ends_with_control_c_and_leaves_nothing(ramp_model, tmp_path):
    with served(ramp_model, tmp_path) as (address, process):
        assert process.stdout.readline().startswith(f"the page is at {address}")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "activity: stopped"
    assert made_by(tmp_path) == []


def test_a_port_that_is_taken(ramp_model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "activity", "serve", str(ramp_model), "--port", str(port)]
        done = subprocess.run([*command, "--runtime", "keras"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    message = f"activity: cannot listen at 127.0.0.1:{port}: Address already in use; choose another with --port"
    assert done.stderr.splitlines()[-1] == message
