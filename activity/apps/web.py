"""The web page: drop a video, see its labels, timeline and explanation. It asks the `Predictor` of the command line.

Uploads and results lie in one temporary folder, which is deleted when the program ends. Those of one visitor are
deleted when another video is given or the page is closed. `Visitors` keeps them apart: nothing a client
sends becomes part of a path.
"""

# No `from __future__ import annotations`: Gradio looks at those of its handlers and must find classes, not names.
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from activity.errors import ActivityError
from activity.predictor.prediction import Failure, Prediction
from activity.predictor.predictor import Predictor
from activity.reports.card import model_card
from activity.video.decoder import index_frames

if TYPE_CHECKING:
    import gradio


_STALE_SECONDS = 3600  # after which files of a visitor whose browser never said goodbye are deleted
_PATIENCE_SECONDS = 60  # beyond its longest length, for the frames of a video
_SLOWEST_DRAWING = 5  # seconds for a second of video, to decode, draw and encode it
_MOST_WAITING = 20  # visitors in the queue
_MOST_VISITORS = 500  # whose results are kept at once
_MOST_BARS = 5
_STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
"""


class PageSession:
    """The work of the page, with one video after the other; it knows nothing of the page.

    Args:
        model_path: a `.keras` file.
        runtime: see `activity.runtimes.choice`.
        max_seconds: longest video that is taken.
    """

    def __init__(self, model_path: Path, *, runtime: str = "auto", max_seconds: float = 600) -> None:
        self.model_path, self.max_seconds = Path(model_path), max_seconds
        self.predictor = Predictor.load(model_path, runtime=runtime)

    @cached_property
    def _explainer(self) -> Any:
        from activity.predictor.explainer import Explainer  # this imports Keras, which takes seconds

        return Explainer.load(self.model_path)

    def predict(self, video_path: Path) -> Prediction:
        """Predict the label of a video, with its timeline.

        Raises:
            ActivityError: it is no video, or too long.
        """
        self._check_length(video_path)
        limits = {"max_seconds": self.max_seconds, "timeout_seconds": self.max_seconds + _PATIENCE_SECONDS}
        (result,) = self.predictor.predict_many([video_path], timeline=True, keep_frames=True, **limits)
        if isinstance(result, Failure):
            if result.too_long:
                raise self._too_long(video_path)
            raise ActivityError(f"cannot be read: {result.error}", path=video_path.name)
        return result

    def _check_length(self, video_path: Path) -> None:
        """Refuse at once what its packets show to be too long; decoding finds out the others. Headers tell anything."""
        index = index_frames(video_path)
        seconds = float(index.timestamps_seconds[-1]) if index else 0.0
        if seconds > self.max_seconds:
            raise self._too_long(video_path, f"{seconds:.0f}")

    def _too_long(self, video_path: Path, seconds: str = "more") -> ActivityError:
        reason = f"too long: this page takes up to {self.max_seconds:g} seconds, and it has {seconds}"
        return ActivityError(reason, path=video_path.name, hint="`activity classify` takes any")

    def files(self, prediction: Prediction, folder: Path) -> list[Path]:
        """The timeline as JSON, CSV, SRT and PNG; they know the video by its bare name."""
        from activity.reports.timeline import save_timeline

        path = Path(prediction.source)
        paths = save_timeline(prediction, folder, path.stem)
        about = {**prediction.as_dict(), "source": path.name}  # where uploads lie is nobody's business
        (folder / f"{path.stem}.json").write_text(json.dumps(about, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return paths

    def annotated(self, prediction: Prediction, folder: Path) -> Path:
        """The video with its labels drawn into it."""
        from activity.reports.annotation import annotate

        path = Path(prediction.source)
        end = time.monotonic() + _SLOWEST_DRAWING * self.max_seconds + _PATIENCE_SECONDS

        def check(seconds: float) -> None:
            if seconds > self.max_seconds:
                raise self._too_long(path)
            if time.monotonic() > end:
                raise ActivityError("its labels took too long to draw", path=path.name)

        return annotate(path, prediction, folder / f"{path.stem}-annotated.mp4", check=check)

    def explained(self, prediction: Prediction, folder: Path) -> Path:
        """An image of the frames, and the places in them, that speak for the label."""
        from activity.reports.explanation import explanation_figure
        from activity.reports.style import save_figure

        explanation = self._explainer.explain(prediction)
        return save_figure(explanation_figure(explanation), folder / f"{Path(prediction.source).stem}-why.png")


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
    """

    def __init__(self, work_dir: Path, *, most: int = _MOST_VISITORS, stale_seconds: float = _STALE_SECONDS) -> None:
        self._work_dir, self._most, self._stale_seconds = work_dir.resolve(), most, stale_seconds
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
        upload = video_path.resolve()
        if not (upload.is_file() and _is_inside(upload, self._uploads_dir)) or _is_inside(upload, self._work_dir):
            raise ActivityError("this is not a file that was sent to this page", hint="please send it again")
        with self._lock:
            now = time.monotonic()
            for name, visit in list(self._visits.items()):
                if now - visit.since_seconds > self._stale_seconds:
                    self._discard(self._visits.pop(name))
            # To make room would let anyone who invents enough names delete what others have.
            if session not in self._visits and len(self._visits) >= self._most:
                raise ActivityError("this page has too many visitors", hint="please try again later")
            previous = self._visits.get(session)
            self._written_ns[upload] = upload.stat().st_mtime_ns
            folder = Path(tempfile.mkdtemp(dir=self._work_dir))
            self._visits[session] = _Visit(upload, folder, now)
            if previous:
                self._discard(previous)  # only now, as it may be the same upload
        return upload, folder

    def leave(self, session: str) -> None:
        """Delete what the visitor has; an upload stays while another visitor has it too."""
        with self._lock:
            if visit := self._visits.pop(session, None):
                self._discard(visit)

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


def build_page(
    page_session: PageSession, work_dir: Path, *, max_megabytes: int, examples: Sequence[Path] = ()
) -> "gradio.Blocks":
    """The page, not yet served.

    Args:
        page_session: does the work.
        work_dir: for what is made, one folder a visitor; lies in that of Gradio's uploads.
        max_megabytes: largest file that is taken; `serve` sees to it.
        examples: videos to try.
    """
    import gradio as gr

    def forget(request: gr.Request) -> None:
        visitors.leave(str(request.session_hash))

    def label(video_path: str | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        yield {beside: gr.Column(visible=False), below: gr.Column(visible=False), **dict.fromkeys(results)}
        if video_path is None:
            forget(request)
            return
        with _errors_in_page():
            upload, folder = visitors.enter(str(request.session_hash), Path(video_path))
            try:
                prediction = page_session.predict(upload)
            except Exception:
                forget(request)  # what is refused quickly must not fill the page with visitors
                raise
            files = page_session.files(prediction, folder)
            yield {
                answer: _answer(prediction),
                bars: dict(prediction.top(_MOST_BARS)),
                when: next(str(path) for path in files if path.suffix == ".png"),
                downloads: [str(path) for path in files if path.suffix != ".png"],
                beside: gr.Column(visible=True),
            }
            yield {annotated: str(page_session.annotated(prediction, folder))}
            yield {why: str(page_session.explained(prediction, folder)), below: gr.Column(visible=True)}

    card = model_card(page_session.model_path)
    image: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": ["fullscreen"]}
    shown_video: dict[str, Any] = {"show_label": False, "interactive": False, "include_audio": True, "height": 400}
    with gr.Blocks(
        title=f"activity: {page_session.model_path.name}", analytics_enabled=False, delete_cache=(600, _STALE_SECONDS)
    ) as page:
        gr.Markdown(f"# What does this video show?\n{_known(page_session)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                video = gr.Video(label="Drop a video, or record one", include_audio=True, height=320, elem_id="video")
                limits = f"Up to {page_session.max_seconds:g} seconds and {max_megabytes} MB, of any kind."
                gr.Markdown(f"{limits} Formats the browser cannot preview still work.")
                if examples:
                    gr.Examples([[str(path)] for path in examples], video, label="Or try one of these")
                with gr.Accordion("About this model", open=False):
                    gr.Markdown(card.as_markdown())
            with gr.Column(scale=3, min_width=320, visible=False) as beside:
                answer = gr.Markdown(elem_id="answer")
                bars = gr.Label(show_label=False, show_heading=False, elem_id="bars")
                gr.Markdown("### Timeline")
                when = gr.Image(**image, elem_id="when")
                downloads = gr.File(label="Download results (JSON, CSV, SRT)", interactive=False, elem_id="downloads")
                gr.Markdown("### Annotated video")
                annotated = gr.Video(**shown_video, elem_id="annotated")
        with gr.Column(visible=False) as below:
            gr.Markdown("### Explanation")
            why = gr.Image(**image, elem_id="why")
        results = (answer, bars, when, downloads, annotated, why)
        # One at a time: the model needs all processors. The others wait in the queue and see their place in it.
        video.change(label, video, [*results, beside, below], concurrency_limit=1, show_progress_on=video)
        page.unload(forget)
    visitors = Visitors(work_dir)  # Gradio has copied or converted the examples by now
    page.queue(max_size=_MOST_WAITING, api_open=False)  # nobody goes past the queue
    return page


def serve(
    model_path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    runtime: str = "auto",
    max_seconds: float = 600,
    max_megabytes: int = 500,
    examples: Sequence[Path] = (),
    say: Callable[[str], object],
) -> None:
    """Serve the page until interrupted.

    Args:
        model_path: a `.keras` file.
        host: address to listen at; the default is reached from this computer only, `0.0.0.0` from any.
        port: to listen at.
        runtime: see `activity.runtimes.choice`.
        max_seconds: longest video that is taken.
        max_megabytes: largest file that is taken.
        examples: videos to try.
        say: receives the line that says where the page is.

    Raises:
        ActivityError: Gradio is not installed, the port is taken, or an example is missing.
    """
    missing = [path for path in examples if not path.is_file()]
    if missing:
        raise ActivityError("no such file; expected a video to show as an example", path=missing[0])
    with tempfile.TemporaryDirectory(prefix="activity-page-") as folder:
        # Gradio reads these when it is imported: where it keeps uploads, and that it does not report its use.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        try:
            import gradio as gr
        except ImportError as error:
            hint = "pip install '.[web]' in the project's folder brings it"
            raise ActivityError("the web page needs Gradio", hint=hint) from error
        page_session = PageSession(model_path, runtime=runtime, max_seconds=max_seconds)
        page = build_page(page_session, Path(folder, "made"), max_megabytes=max_megabytes, examples=examples)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                max_file_size=max_megabytes * 10**6,
                allowed_paths=[str(path) for path in examples],  # what is sent must not open as a page of this site
                css=_STYLE,
                theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            )
        except OSError as error:
            raise ActivityError(f"cannot listen at {host}:{port}: {' '.join(str(error).split())}") from error
        say(f"the page is at {page.local_url} (Ctrl-C ends it)")
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def _errors_in_page() -> Iterator[None]:
    """Show the visitor what is wrong with a video."""
    import gradio as gr

    try:
        yield
    except (ActivityError, OSError) as error:
        raise gr.Error(
            str(error), title="This video cannot be labelled", duration=None, print_exception=False
        ) from error


def _answer(prediction: Prediction) -> str:
    """A headline, in Markdown."""
    changes = prediction.timeline is not None and len(prediction.timeline.segments) > 1
    if prediction.is_answered:
        return f"## mostly {prediction.label}" if changes else f"## {prediction.label}"
    return (
        f"## {prediction.label}\nNothing reaches a probability of {prediction.threshold:.2f}, below which this model "
        "does not answer. The nearest are:"
    )


def _known(page_session: PageSession) -> str:
    names = ", ".join(f"**{label}**" for label in page_session.predictor.model.labels)
    return f"This model recognises: {names}. Anything else will be mistaken for one of them."
