"""The page in a real browser, and what stands behind it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web page needs gradio: pip install '.[web]'")

from activity.errors import ActivityError
from activity.predictor import Predictor
from activity.web import Desk, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def desk(ramp_model):
    return Desk(ramp_model, runtime="keras", max_seconds=5)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "notes.mp4"
    path.write_text("not a video\n" * 50)
    return path


class TestDesk:
    def test_it_says_what_python_says(self, desk, ramp_model, ramp_videos, tmp_path):
        path = ramp_videos / "darkens" / "p0_0.avi"
        expected = Predictor.load(ramp_model, runtime="keras").predict(path, timeline=True)
        prediction = desk.predict(path)
        assert prediction.as_dict() == expected.as_dict()
        about = json.loads(next(p for p in desk.files(prediction, tmp_path) if p.suffix == ".json").read_text())
        assert about == {**expected.as_dict(), "source": "p0_0.avi"}  # no folder of ours

    def test_all_that_is_shown_is_made(self, desk, ramp_videos, tmp_path):
        prediction = desk.predict(ramp_videos / "darkens" / "p0_0.avi")
        made = [*desk.files(prediction, tmp_path), desk.explained(prediction, tmp_path)]
        assert {path.name for path in made} == {"p0_0.json", "p0_0.csv", "p0_0.srt", "p0_0.png", "p0_0-why.png"}
        assert Predictor(desk.predictor.network).predict(desk.annotated(prediction, tmp_path)).duration_seconds > 0

    def test_what_is_no_video_is_named_without_its_folder(self, desk, text_file):
        with pytest.raises(ActivityError, match=r"^notes\.mp4 cannot be read: ") as caught:
            desk.predict(text_file)
        assert str(text_file.parent) not in str(caught.value)

    def test_what_is_too_long_is_refused_before_it_is_read(self, ramp_model, ramp_videos):
        desk = Desk(ramp_model, runtime="keras", max_seconds=0.1)
        with pytest.raises(ActivityError, match=r"p0_0.avi is too long: this page takes up to 0.1 seconds"):
            desk.predict(ramp_videos / "darkens" / "p0_0.avi")


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
    command = [sys.executable, "-m", "activity.cli", "serve", model, "--port", port, "--runtime", "keras", *options]
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

        def open_page(**options):
            context = browser.new_context(accept_downloads=True, **options)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(page_address)
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
        assert f"{round(100 * expected.probability)}%" in page.locator("#bars").inner_text()
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
        page.get_by_text("notes.mp4 cannot be read").wait_for()
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

    def test_a_visitor_leaves_nothing_behind(self, visit, ramp_videos, temporary):
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
        command = [sys.executable, "-m", "activity.cli", "serve", str(ramp_model), "--port", str(port)]
        done = subprocess.run([*command, "--runtime", "keras"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"activity: cannot listen at 127.0.0.1:{port}: ")
