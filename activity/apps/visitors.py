"""The visitors of the web page: what each has sent and got, and whose turn it is. It knows nothing of the page."""

from __future__ import annotations

import contextlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from activity.errors import ActivityError
from activity.progress import clock

_STALE_SECONDS = 3600  # after which files of a visitor whose browser never said goodbye are deleted
_UNASKED_SECONDS = 300  # after which an upload is deleted whose page was closed before it asked for labels
_MOST_VISITORS = 500  # whose results are kept at once
_MOST_WAITING = 20  # jobs before another one
_POLL_SECONDS = 0.5


class _Visit(NamedTuple):
    upload: Path
    folder: Path
    since_seconds: float


class Visitors:
    """The upload of each visitor, and a folder for what is made of it.

    Anybody can send any session name and any path, so a name is only a key here and its folder gets a random name, and
    a path counts only if a file is there that was sent to the page.

    Args:
        work_dir: for the folders; lies in that of Gradio's uploads. What lies there by now is never deleted.
        most: visitors at once.
        stale_seconds: after which a visitor is forgotten who never said goodbye.
        unasked_seconds: after which an upload is deleted that nobody has asked about.
    """

    def __init__(
        self,
        work_dir: Path,
        *,
        most: int = _MOST_VISITORS,
        stale_seconds: float = _STALE_SECONDS,
        unasked_seconds: float = _UNASKED_SECONDS,
    ) -> None:
        self._work_dir, self._most = work_dir.resolve(), most
        self._stale_seconds, self._unasked_seconds = stale_seconds, unasked_seconds
        self._uploads_dir = self._work_dir.parent
        self._kept = set(self._uploads_dir.rglob("*"))
        self._visits: dict[str, _Visit] = {}
        self._written_ns: dict[Path, int] = {}  # when the uploads were written, at the latest entry
        self._lock = threading.Lock()  # a page may be closed while another video is labelled
        self._work_dir.mkdir(parents=True, exist_ok=True)

    def enter(self, session: str, video_path: Path) -> tuple[Path, Path]:
        """The upload with its path resolved, and an empty folder; what the visitor had before is deleted.

        Raises:
            ActivityError: no such file was sent to the page, or there are too many visitors.
        """
        self.forget_stale()
        upload = video_path.resolve()
        if not (upload.is_file() and _is_inside(upload, self._uploads_dir)) or _is_inside(upload, self._work_dir):
            raise ActivityError("this is not a file that was sent to this page", hint="please send it again")
        with self._lock:
            # To make room would let anyone who invents enough names delete what others have.
            if session not in self._visits and len(self._visits) >= self._most:
                raise ActivityError("this page has too many visitors", hint="please try again later")
            previous = self._visits.get(session)
            self._written_ns[upload] = upload.stat().st_mtime_ns
            folder = Path(tempfile.mkdtemp(dir=self._work_dir))
            self._visits[session] = _Visit(upload, folder, time.monotonic())
            if previous:
                self._discard(previous)  # only now, as it may be the same upload
        return upload, folder

    def leave(self, session: str) -> None:
        """Delete what the visitor has; an upload stays while another visitor has it too."""
        with self._lock:
            if visit := self._visits.pop(session, None):
                self._discard(visit)

    def forget_stale(self) -> None:
        """Delete what visitors have who are gone for long, and uploads that nobody ever asked about."""
        with self._lock:
            now = time.monotonic()
            for name, visit in list(self._visits.items()):
                if now - visit.since_seconds > self._stale_seconds:
                    self._discard(self._visits.pop(name))
            wanted = {visit.upload for visit in self._visits.values()} | self._kept
            for path in set(self._uploads_dir.glob("*/*")) - wanted:
                with contextlib.suppress(OSError):
                    if path.parent != self._work_dir and time.time() - path.lstat().st_mtime > self._unasked_seconds:
                        path.unlink()

    def _discard(self, visit: _Visit) -> None:
        if _is_inside(visit.folder, self._work_dir):
            shutil.rmtree(visit.folder, ignore_errors=True)
        if visit.upload in {other.upload for other in self._visits.values()}:
            return
        written_ns = self._written_ns.pop(visit.upload)
        if visit.upload in self._kept or not _is_inside(visit.upload, self._uploads_dir):
            return
        with contextlib.suppress(FileNotFoundError):
            # Gradio puts the same file at the same path: written since, it is that of a visitor who waits in the queue.
            if visit.upload.stat().st_mtime_ns == written_ns:
                visit.upload.unlink()


def _is_inside(path: Path, folder: Path) -> bool:
    return folder in path.resolve().parents


class Cancelled(ActivityError):
    """Nobody waits for the result of a job any more."""


class Job:
    """Work on one video, in a thread of its own, when its turn comes.

    Args:
        line: where it waits for its turn.
        session: of the visitor.
        work: makes the results, one after the other, and calls `tell` of the job often.
        video_seconds: length of the video, for estimates.
    """

    def __init__(self, line: Line, session: str, work: Callable[[Job], Iterator[Any]], video_seconds: float) -> None:
        self.session, self.video_seconds = session, video_seconds
        self._line, self._work = line, work
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._step = ""
        self._done_seconds = 0.0  # of the video
        self._began_seconds: float | None = None  # when its turn came
        self._step_began_seconds = 0.0

    def results(self) -> Iterator[Any]:
        """Do the work; gives its results, and in between, several times a second, `None`.

        Raises:
            ActivityError: the work failed, or too many jobs wait.
        """
        self._line.join(self)
        threading.Thread(target=self._run, daemon=True).start()
        while True:
            try:
                result = self._results.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if result is _END:
                return
            if isinstance(result, Exception):
                raise result
            yield result

    def cancel(self) -> None:
        """End it, at the next frame."""
        self._cancelled.set()

    def begin(self, step: str) -> None:
        """A step of the work begins, such as `Looking at the video`."""
        self._step, self._done_seconds, self._step_began_seconds = step, 0.0, time.monotonic()
        self.tell(0.0)

    def tell(self, seconds: float) -> None:
        """The work has come to this time of the video.

        Raises:
            Cancelled: it is to end.
        """
        self._done_seconds = max(self._done_seconds, seconds)
        if self._cancelled.is_set():
            raise Cancelled("cancelled")

    def as_text(self) -> str:
        """Where it stands: its place in the line, or how far it is and what is left to wait."""
        num_before, wait_seconds = self._line.place(self)
        if num_before:
            videos = "1 video" if num_before == 1 else f"{num_before} videos"
            return f"Waiting: {videos} before yours{_about(wait_seconds)}".removesuffix(" left")
        if not self._done_seconds or not self.video_seconds:
            return f"{self._step} …"
        done, length = min(self._done_seconds, self.video_seconds), self.video_seconds
        return f"{self._step}: {clock(done)} of {clock(length)}{_about(self.left_seconds(None))}"

    def left_seconds(self, pace: float | None) -> float | None:
        """How long it will still work, once that can be told.

        Args:
            pace: seconds of work for a second of video, as far as jobs before have shown.
        """
        now, done, length = time.monotonic(), self._done_seconds, self.video_seconds
        step = (now - self._step_began_seconds) / done * max(0.0, length - done) if done else None
        if pace is None:
            return step
        worked = 0.0 if self._began_seconds is None else now - self._began_seconds
        return max(pace * length - worked, step or 0.0)

    def _run(self) -> None:
        worked_seconds = None
        try:
            self._line.wait(self)
            self._began_seconds = began = time.monotonic()
            for result in self._work(self):
                self._results.put(result)
            worked_seconds = time.monotonic() - began
        except Exception as error:
            self._results.put(error)
        finally:
            self._line.leave(self, worked_seconds)
            self._results.put(_END)


_END = object()


class Line:
    """Jobs take turns, first come first served: a model needs all processors.

    Args:
        most: jobs that wait.
    """

    def __init__(self, most: int = _MOST_WAITING) -> None:
        self._most = most
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._pace: float | None = None  # seconds of work for a second of video

    def join(self, job: Job) -> None:
        """Take the last place.

        Raises:
            ActivityError: too many wait.
        """
        with self._changed:
            if len(self._jobs) > self._most:
                raise ActivityError(f"{self._most} videos are waiting already", hint="please try again later")
            self._jobs.append(job)

    def wait(self, job: Job) -> None:
        """Return when it is the turn of the job.

        Raises:
            Cancelled: it is to end.
        """
        with self._changed:
            while self._jobs[0] is not job:
                self._changed.wait(_POLL_SECONDS)
                job.tell(0.0)

    def leave(self, job: Job, seconds: float | None) -> None:
        """The job ends; `seconds` of work, if it was done to its end, tell how long others will take."""
        with self._changed:
            self._jobs.remove(job)
            if seconds is not None and job.video_seconds:
                pace = seconds / job.video_seconds
                self._pace = pace if self._pace is None else (self._pace + pace) / 2
            self._changed.notify_all()

    def cancel(self, session: str) -> None:
        """End the jobs of a visitor."""
        with self._changed:
            for job in self._jobs:
                if job.session == session:
                    job.cancel()

    def place(self, job: Job) -> tuple[int, float | None]:
        """How many jobs are before this one, and how many seconds they will take together, once that can be told."""
        with self._changed:
            before = self._jobs[: self._jobs.index(job)] if job in self._jobs else []
            left = [other.left_seconds(self._pace) for other in before]
            return len(before), None if None in left else sum(filter(None, left))


def _about(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", about {round(seconds)} s left" if seconds < 100 else f", about {round(seconds / 60)} min left"
