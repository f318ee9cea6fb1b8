"""The page in a real browser."""

import base64
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
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

from activity.apps.web import serve
from activity.errors import ActivityError
from activity.models.captioner import load_captioner
from activity.models.saving import save_model
from activity.predictor.captioner import Captioner
from activity.predictor.predictor import Predictor
from activity.video.writer import write_video

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "notes.mp4"
    path.write_text("not a video\n" * 50)
    return path


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
def open_page(browser):
    """A function that opens a page as a new visitor."""
    with contextlib.ExitStack() as stack:

        def open_(address):
            context = browser.new_context(accept_downloads=True)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto(address)
            page.get_by_text("What does this video").wait_for()
            return page

        yield open_


@pytest.fixture
def visit(open_page, page_address):
    """The same for the page of labels."""
    return lambda address=page_address: open_page(address)


def give(page, path, place="video"):
    page.set_input_files(f"#{place} input[type=file]", str(path))


def give_image(page, path):
    page.get_by_role("tab", name="Image").click()
    give(page, path, "image")


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


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "photo.png"
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    return path


@pytest.fixture(scope="module")
def captions_temporary(tmp_path_factory):
    return tmp_path_factory.mktemp("captions")


@pytest.fixture(scope="module")
def captions_address(caption_model, ramp_videos, image, captions_temporary):
    examples = ramp_videos / "brightens" / "p2_0.avi", image
    options = ("--max-seconds", "30", "--max-megabytes", "1", "--examples", *examples)
    with served(caption_model, captions_temporary, *options) as (url, _):
        yield url


@pytest.fixture
def page(open_page, captions_address):
    """The page of sentences, opened as a new visitor."""
    return open_page(captions_address)


@pytest.fixture(scope="module")
def captioner(caption_model):
    return Captioner.load(caption_model, runtime="keras")


@pytest.fixture(scope="module")
def changing_video(tmp_path_factory):
    """Eight seconds that grow brighter and darker."""
    path = tmp_path_factory.mktemp("changing") / "changing.avi"
    levels = 130 + 100 * np.sin(np.arange(80) / 5)
    write_video(path, [np.full((48, 64, 3), level, np.uint8) for level in levels], frames_per_second=10)
    return path


class TestSentencesInABrowser:
    def test_a_video_gets_its_sentences(self, page, ramp_videos, captioner):
        path = ramp_videos / "darkens" / "p1_0.avi"
        give(page, path)
        expected = captioner.describe(path, timeline=True)
        page.locator("#answer h2", has_text=expected.caption).wait_for()
        rows = page.locator("#sentences tbody tr").all_inner_texts()
        assert [row.split("\t")[1] for row in rows] == [sentence.text for sentence in expected.sentences]
        assert rows[0].split("\t")[0] == f"{np.exp(expected.log_probability):.1%}"
        page.locator("#annotated video").wait_for()
        page.locator("#why img").wait_for()
        assert not page.locator("#when").is_visible()  # all of it has one sentence
        assert page.locator("#downloads").get_by_text("(JSON, CSV, SRT)").is_visible()
        with page.expect_download() as download:
            page.locator("#downloads a", has_text="KB").or_(page.locator("#downloads a", has_text="B")).first.click()
        about = json.loads(Path(download.value.path()).read_text())
        assert about == {**expected.as_dict(top_k=5), "source": path.name}

    def test_a_long_video_gets_one_for_each_part(self, page, changing_video, captioner):
        give(page, changing_video)
        page.locator("#when tbody tr").first.wait_for()
        expected = captioner.describe(changing_video, timeline=True)
        rows = [row.split("\t") for row in page.locator("#when tbody tr").all_inner_texts()]
        assert [sentence for _, sentence in rows] == [segment.sentence.text for segment in expected.segments]
        assert rows[0][0].startswith("0:00.0 - ") and rows[-1][0].endswith(" - 0:08.0")
        part = "This is of the part that the model is most certain of, from 0:0"
        assert part in page.locator("#answer").inner_text()
        page.locator("#why img").wait_for()

    def test_an_image_takes_the_place_of_a_video_and_the_other_way_about(
        self, page, changing_video, image, captioner, ramp_videos
    ):
        give(page, changing_video)
        page.locator("#annotated video").wait_for()
        give_image(page, image)
        page.locator("#answer h2", has_text=captioner.describe(image).caption).wait_for()
        page.locator("#downloads").get_by_text("(JSON)").wait_for()
        page.locator("#status").wait_for(state="hidden")
        for part in ("#when", "#annotated", "#why"):
            assert not page.locator(part).is_visible(), part
        page.get_by_role("tab", name="Video").click()
        page.locator("#video").get_by_text("Drop Video Here").wait_for()  # it is of an image now
        give(page, ramp_videos / "brightens" / "p1_0.avi")
        page.locator("#why img").wait_for()
        page.get_by_role("tab", name="Image").click()
        page.locator("#image").get_by_text("Drop Image Here").wait_for()
        assert page.locator("#answer h2").is_visible()

    def test_a_file_that_is_taken_back_takes_its_sentences_with_it(self, page, image):
        give_image(page, image)
        page.locator("#answer h2").wait_for()
        page.locator("#image").get_by_label("Remove Image").click()
        page.locator("#answer").wait_for(state="hidden")

    def test_a_text_file_is_told_from_an_image(self, page, tmp_path):
        (tmp_path / "notes.jpg").write_text("not an image\n" * 50)
        give_image(page, tmp_path / "notes.jpg")
        error = page.locator(".toast-body")
        error.get_by_text("notes.jpg: cannot be read: this is a text file").wait_for()
        assert "/" not in error.inner_text()  # no folder of this computer
        assert not page.locator("#answer h2").is_visible()

    @pytest.mark.parametrize("place", ["Video", "Image"])
    def test_an_example_can_be_tried(self, page, place):
        page.get_by_role("tab", name=place).click()
        page.locator(".gallery-item:visible").or_(page.locator(".gallery:visible button")).first.click()
        page.locator("#answer h2").wait_for()

    def test_nothing_of_an_image_is_left(self, page, image, captions_temporary):
        renamed = image.with_name("of-a-visitor.png")
        renamed.write_bytes(image.read_bytes() + b"\0")  # the same file has the same place
        give_image(page, renamed)
        page.locator("#answer h2").wait_for()
        assert [path for path in made_by(captions_temporary) if path.stem == renamed.stem]
        page.context.close()
        for _ in range(100):
            left = [path for path in made_by(captions_temporary) if path.stem == renamed.stem]
            if not left:
                return
            time.sleep(0.2)
        pytest.fail(f"left: {left}")

    def test_an_image_that_was_not_sent_is_not_read(self, captions_address, image, captions_temporary):
        well, made = ask(captions_address, upload(captions_address, image), "visitor", place=1)
        assert well and [path for path in made if path.suffix == ".json"]
        before = made_by(captions_temporary)
        for path in (image, "/etc/hostname", next(path for path in made if path.suffix == ".json")):
            well, _ = ask(captions_address, path, "attacker", place=1)
            assert not well
        pixels = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
        url = f"data:image/png;base64,{base64.b64encode(pixels).decode()}"
        _, written = ask(captions_address, "", "attacker", place=1, url=url)
        assert not written and made_by(captions_temporary) == before

    def test_words_are_no_markup(self, caption_model, open_page, changing_video, image, tmp_path):
        words = (
            "<img src=x onerror=\"document.title='owned'\">",
            "![pixel](https://evil.example/pixel.png)",
            "[link](javascript:alert(1))https://evil.example www.evil.example a@evil.example",
            "**bold** _it_ `code` | <b>b</b> &lt; \\",
            "$$x^2$$ ~~gone~~ </td></table><script>document.title='owned'</script>",
            "# head",
        )
        model = load_captioner(caption_model)
        assert len(model.info.words) == len(words)
        model.info = dataclasses.replace(model.info, words=words)
        asked = []
        with served(save_model(model, tmp_path / "foreign.keras"), tmp_path) as (address, _):
            page = open_page(address)
            page.on("request", lambda request: asked.append(request.url))
            page.get_by_text("About this model").click()
            page.get_by_text("made with").wait_for()
            shown = page.get_by_text("made with").locator("xpath=ancestor::*[contains(@class, 'prose')][1]")
            assert all(word in shown.inner_text() for word in words)
            markup = "img, a, strong, em, code:not(:text-is('activity')), del, b, script, .katex"
            assert shown.locator(markup.replace("code:not(:text-is('activity'))", "del")).count() == 0
            expected = Captioner(model).describe(changing_video, timeline=True)
            give(page, changing_video)
            page.locator("#why img").wait_for(state="attached")  # far below, it is not loaded yet
            assert page.locator("#answer h2").inner_text() == expected.caption
            for place, sentences in (
                ("#sentences", expected.sentences),
                ("#when", [segment.sentence for segment in expected.segments]),
            ):
                cells = page.locator(f"{place} tbody tr td:nth-child(2)").all_inner_texts()
                assert cells == [sentence.text for sentence in sentences]
            for place in ("#answer", "#sentences", "#when"):
                assert page.locator(place).locator(markup).count() == 0, place
            assert page.title() == "activity: foreign.keras"
        assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


def post(url, body, content_type="application/json"):
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    return json.loads(urllib.request.urlopen(request, timeout=30).read())


def upload(address, path):
    """Send a file to the page, as a browser does before it asks about it."""
    head = f'--limit\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--limit--\r\n"
    (there,) = post(f"{address}/gradio_api/upload", body, "multipart/form-data; boundary=limit")
    return Path(there)


def ask(address, path, session, **more):
    """Ask about a file in the name of a session: whether that went well, and the files that the answers name."""
    try:
        messages = answers(address, path, session, **more)
    except urllib.error.HTTPError as error:
        assert error.code == 403 and b"not a file that was sent to this page" in error.read()
        return False, set()
    paths = {Path(text) for message in messages for text in strings_in(message) if text.startswith("/")}
    return messages[-1]["success"], paths


def answers(address, path, session, *, place=0, **more):
    """All that the page says to such a question."""
    config = json.loads(urllib.request.urlopen(f"{address}/config", timeout=30).read())
    look = [each for each in config["dependencies"] if str(each["api_name"]).startswith("look")][place]
    data = [None] * len(look["inputs"])
    data[place] = path and {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}
    body = json.dumps({"data": data, "fn_index": look["id"], "session_hash": session})
    post(f"{address}/gradio_api/queue/join", body.encode())
    url = f"{address}/gradio_api/queue/data?session_hash={urllib.parse.quote(session, safe='')}"
    messages = []
    with urllib.request.urlopen(url, timeout=20) as lines:
        for line in lines:
            if line.startswith(b"data:"):
                messages.append(json.loads(line.removeprefix(b"data:")))
                if messages[-1]["msg"] == "process_completed":
                    return messages
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

    def test_an_error_says_what_it_is_about(self, page_address, text_file):
        told = answers(page_address, upload(page_address, text_file), "victim")[-1]["output"]["error"]
        assert told.startswith("This video cannot be labelled: notes.mp4: ")

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
            post(f"{page_address}/gradio_api/run/look", json.dumps({"data": data}).encode())


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
