"""What visitors of the page have, and whose turn it is."""

import threading
import time

import pytest

from activity.apps.visitors import Cancelled, Job, Line, Visitors
from activity.errors import ActivityError


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    return path


class TestVisitors:
    @pytest.fixture
    def send(self, tmp_path):
        """A function that puts a file where Gradio puts uploads."""

        def send(name):
            path = tmp_path / "uploads" / name / "video.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            return path

        return send

    @pytest.fixture
    def work_dir(self, tmp_path):
        return tmp_path / "uploads" / "made"

    def test_what_is_left_goes(self, send, work_dir):
        visitors = Visitors(work_dir)
        upload, folder = visitors.enter("anna", send("a"))
        (folder / "result.json").touch()
        visitors.leave("ben")
        assert upload.is_file()
        assert folder.is_dir()
        visitors.leave("anna")
        assert not upload.exists()
        assert list(work_dir.iterdir()) == []

    def test_another_video_takes_the_place_of_the_first(self, send, work_dir):
        visitors = Visitors(work_dir)
        first = visitors.enter("anna", send("a"))
        second = visitors.enter("anna", send("b"))
        assert [path.exists() for path in (*first, *second)] == [False, False, True, True]

    def test_the_same_upload_again_is_kept(self, send, work_dir):
        visitors = Visitors(work_dir)
        _, first = visitors.enter("anna", send("a"))
        upload, second = visitors.enter("anna", send("a"))
        assert [path.exists() for path in (first, second, upload)] == [False, True, True]

    def test_an_upload_of_two_goes_with_the_second(self, send, work_dir):
        visitors = Visitors(work_dir)
        visitors.enter("anna", send("a"))
        time.sleep(0.02)  # the clock of a file system is coarse
        upload, _ = visitors.enter("ben", send("a"))  # sent again
        visitors.leave("ben")
        assert upload.is_file()
        visitors.leave("anna")
        assert not upload.exists()

    def test_an_example_is_kept(self, send, work_dir):
        example = send("example")
        visitors = Visitors(work_dir)
        visitors.enter("anna", example)
        visitors.leave("anna")
        assert example.is_file()

    def test_only_what_was_sent_is_an_upload(self, send, work_dir, text_file):
        visitors = Visitors(work_dir)
        upload, folder = visitors.enter("anna", send("a"))
        result = folder / "result.mp4"
        result.touch()
        detour = upload.parent / ".." / "made" / folder.name / result.name
        for path in (text_file, result, detour, upload.parent, work_dir, work_dir.parent, upload.with_name("no.mp4")):
            with pytest.raises(ActivityError, match="not a file that was sent to this page"):
                visitors.enter("ben", path)
        visitors.leave("ben")
        assert result.is_file()
        assert text_file.is_file()

    def test_a_link_does_not_lead_out(self, send, work_dir, tmp_path):
        visitors = Visitors(work_dir)
        upload, folder = visitors.enter("anna", send("a"))
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        (foreign / "diary.mp4").touch()
        folder.rmdir()
        folder.symlink_to(foreign)
        upload.unlink()
        upload.symlink_to(foreign / "diary.mp4")
        with pytest.raises(ActivityError, match="not a file that was sent to this page"):
            visitors.enter("ben", upload)
        visitors.leave("anna")
        assert (foreign / "diary.mp4").is_file()

    def test_a_full_page_takes_nobody_and_nothing_from_anybody(self, send, work_dir):
        visitors = Visitors(work_dir, most=2)
        upload, folder = visitors.enter("anna", send("a"))
        visitors.enter("ben", send("b"))
        for index in range(10):
            with pytest.raises(ActivityError, match="too many visitors; please try again later"):
                visitors.enter(f"invented-{index}", send("c"))
        assert upload.is_file()
        assert folder.is_dir()
        visitors.enter("ben", send("d"))  # who is in stays in
        visitors.leave("anna")
        visitors.enter("cleo", send("c"))
        assert len(list(work_dir.iterdir())) == 2

    def test_who_never_says_goodbye_is_forgotten(self, send, work_dir):
        visitors = Visitors(work_dir, most=1, stale_seconds=0.1)
        upload, folder = visitors.enter("anna", send("a"))
        time.sleep(0.2)
        visitors.enter("ben", send("b"))
        assert not upload.exists()
        assert not folder.exists()

    def test_an_upload_that_nobody_asks_about_goes(self, send, work_dir):
        example = send("example")
        visitors = Visitors(work_dir, unasked_seconds=0.1)
        sent = send("a")
        visitors.forget_stale()
        assert sent.is_file()
        time.sleep(0.2)
        asked, folder = visitors.enter("anna", send("b"))
        (folder / "result.json").touch()
        visitors.forget_stale()
        assert [path.is_file() for path in (sent, asked, example, folder / "result.json")] == [False, True, True, True]


class TestJobsTakeTurns:
    @pytest.fixture
    def release(self):
        with_room = threading.Semaphore(0)
        yield with_room
        for _ in range(100):
            with_room.release()

    def test_results_come_in_their_order_with_nothing_in_between(self):
        results = list(Job(Line(), "anna", lambda job: iter("abc"), 1.0).results())
        assert [result for result in results if result] == ["a", "b", "c"]

    def test_a_failure_is_raised_where_the_results_are_asked_for(self):
        def work(job):
            yield "a"
            raise ActivityError("is no video")

        results = Job(Line(), "anna", work, 1.0).results()
        assert next(results) == "a"
        with pytest.raises(ActivityError, match="^is no video$"):
            list(results)

    def test_the_second_waits_for_the_first_and_is_told_so(self, release):
        def work(job):
            job.begin("Looking")
            job.tell(5.0)
            release.acquire()
            yield job.session

        line = Line()
        first, second = Job(line, "anna", work, 10.0), Job(line, "ben", work, 10.0)
        coming = [first.results(), second.results()]
        assert [next(results) for results in coming] == [None, None]
        assert first.as_text().startswith("Looking: 0:05 of 0:10, about ")
        assert first.as_text().endswith(" s left")
        assert second.as_text().startswith("Waiting: 1 video before yours, about ")
        release.release()
        assert [result for result in coming[0] if result] == ["anna"]
        assert next(coming[1]) is None
        assert second.as_text().startswith("Looking: ")
        release.release()
        assert [result for result in coming[1] if result] == ["ben"]

    def test_a_job_that_is_cancelled_ends_at_the_next_frame(self, release):
        def work(job):
            job.begin("Looking")
            for seconds in range(1000):
                job.tell(seconds)
                release.acquire(timeout=0.01)
            yield "never"

        line = Line()
        first, second = Job(line, "anna", work, 1000.0).results(), Job(line, "ben", work, 1000.0).results()
        assert [next(first), next(second)] == [None, None]
        line.cancel("ben")  # while it waits
        with pytest.raises(Cancelled):
            list(second)
        line.cancel("anna")
        with pytest.raises(Cancelled):
            list(first)

    def test_a_line_has_an_end(self, release):
        def work(job):
            release.acquire()
            yield "done"

        line = Line(most=1)
        waiting = [Job(line, name, work, 1.0).results() for name in ("anna", "ben")]
        assert [next(results) for results in waiting] == [None, None]
        with pytest.raises(ActivityError, match="1 videos are waiting already; please try again later"):
            next(Job(line, "cleo", work, 1.0).results())

    def test_jobs_that_were_done_tell_how_long_others_take(self, release):
        def work(job):
            job.begin("Looking")
            release.acquire()
            yield "done"

        line = Line()
        release.release()
        list(Job(line, "anna", work, 0.001).results())  # some seconds of work for a second of video
        running, waiting = Job(line, "ben", work, 100.0), Job(line, "cleo", work, 1.0)
        assert [next(job.results()) for job in (running, waiting)] == [None, None]
        assert "before yours, about " in waiting.as_text()
