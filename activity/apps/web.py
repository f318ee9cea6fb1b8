"""The web page: drop a video, see its labels, timeline and explanation. It asks the `Predictor` of the command line.

Uploads and results lie in one temporary folder, which is deleted when the program ends. Those of one visitor are
deleted when another video is given or the page is closed. `activity.apps.visitors` keeps them apart: nothing a client
sends becomes part of a path. `activity.apps.server` decides what is let in.
"""

# No `from __future__ import annotations`: Gradio looks at those of its handlers and must find classes, not names.
import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activity.apps.visitors import Cancelled, Job, Line, Visitors
from activity.errors import ActivityError, VideoError
from activity.models.info import check_takes_videos, read_info
from activity.predictor.prediction import Failure, Prediction
from activity.predictor.predictor import Predictor
from activity.reports.card import model_card
from activity.video.decoder import index_frames

if TYPE_CHECKING:
    import gradio


_PATIENCE_SECONDS = 60  # beyond its longest length, for the frames of a video
_SLOWEST_DRAWING = 5  # seconds for a second of video, to decode, draw and encode it
_SWEEP_SECONDS = 60
_MOST_AT_ONCE = 40  # visitors whose video is labelled or waits: beyond, Gradio's own queue
_MOST_BARS = 5
_STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
.away { display: none !important; }
"""
# Gradio draws nothing of what is not `visible`, and may lose what is sent there while it is being drawn.
_AWAY, _HERE = ["away"], ["here"]

_Watch = Callable[[float], object]


def _ignore(seconds: float) -> None:
    """Nobody watches."""


class PageSession:
    """The work of the page, with one video after the other; it knows nothing of the page.

    A method with a `watch` calls it with the time of each frame that passes; what it raises ends the work.

    Args:
        model_path: a `.keras` file.
        runtime: see `activity.runtimes.choice`.
        max_seconds: longest video that is taken.
        patience_seconds: beyond `max_seconds`, for the frames of a video, until a decoder counts as stuck.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        runtime: str = "auto",
        max_seconds: float = 600,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self.model_path, self.max_seconds = Path(model_path), max_seconds
        self._patience_seconds = patience_seconds
        self.predictor = Predictor.load(model_path, runtime=runtime)

    @cached_property
    def explainer(self) -> Any:
        """Made at its first use: it imports Keras, which takes seconds."""
        from activity.predictor.explainer import Explainer

        return Explainer.load(self.model_path)

    def length(self, video_path: Path) -> float:
        """How long a video is by its packets, in seconds; 0 if they do not tell.

        Raises:
            ActivityError: it is too long.
        """
        index = index_frames(video_path)
        seconds = float(index.timestamps_seconds[-1]) if index else 0.0
        self._check_length(video_path, seconds, f"{seconds:.0f}")
        return seconds

    def predict(self, video_path: Path, watch: _Watch = _ignore) -> Prediction:
        """Predict the label of a video, with its timeline.

        Raises:
            ActivityError: it is no video, or too long.
        """

        def check(source: str, seconds: float) -> None:
            self._check_length(video_path, seconds)
            watch(seconds)

        self.length(video_path)
        (result,) = self.predictor.predict_many(
            [video_path],
            timeline=True,
            keep_frames=True,
            watch=check,
            timeout_seconds=self.max_seconds + self._patience_seconds,
        )
        if isinstance(result, Failure):
            raise VideoError(f"cannot be read: {result.error}", path=video_path.name)
        return result

    def _check_length(self, video_path: Path, seconds: float, shown: str = "more") -> None:
        """Decoding finds out what packets do not tell; headers may tell anything."""
        if seconds > self.max_seconds:
            reason = f"too long: this page takes up to {self.max_seconds:g} seconds, and it has {shown}"
            raise ActivityError(reason, path=video_path.name, hint="`activity classify` takes any")

    def files(self, prediction: Prediction, folder: Path) -> list[Path]:
        """The timeline as JSON, CSV, SRT and PNG; they know the video by its bare name."""
        from activity.reports.timeline import save_timeline

        path = Path(prediction.source)
        paths = save_timeline(prediction, folder, path.stem)
        about = {**prediction.as_dict(), "source": path.name}  # where uploads lie is nobody's business
        (folder / f"{path.stem}.json").write_text(json.dumps(about, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return paths

    def annotated(self, prediction: Prediction, folder: Path, watch: _Watch = _ignore) -> Path:
        """The video with its labels drawn into it."""
        from activity.reports.annotation import annotate

        path = Path(prediction.source)
        end = time.monotonic() + _SLOWEST_DRAWING * self.max_seconds + self._patience_seconds

        def check(seconds: float) -> None:
            self._check_length(path, seconds)
            watch(seconds)
            if time.monotonic() > end:
                raise ActivityError("its labels took too long to draw", path=path.name)

        return annotate(path, prediction, folder / f"{path.stem}-annotated.mp4", check=check)

    def explained(self, prediction: Prediction, folder: Path) -> Path:
        """An image of the frames, and the places in them, that speak for the label."""
        from activity.reports.explanation import explanation_figure
        from activity.reports.style import save_figure

        explanation = self.explainer.explain(prediction)
        return save_figure(explanation_figure(explanation), folder / f"{Path(prediction.source).stem}-why.png")


def build_page(
    page_session: PageSession, line: Line, work_dir: Path, *, max_megabytes: int, examples: Sequence[Path] = ()
) -> "gradio.Blocks":
    """The page, not yet served.

    Args:
        page_session: does the work.
        line: where the videos take turns.
        work_dir: for what is made, one folder a visitor; lies in that of Gradio's uploads.
        max_megabytes: largest file that is taken; `serve` sees to it.
        examples: videos to try.
    """
    import gradio as gr

    def forget(request: gr.Request) -> None:
        line.cancel(str(request.session_hash))
        visitors.leave(str(request.session_hash))

    def stop(request: gr.Request) -> dict[Any, Any]:
        forget(request)
        return {video: None, running: gr.Row(elem_classes=_AWAY)}

    def label(video_path: str | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        forget(request)
        away = {beside: gr.Column(elem_classes=_AWAY), below: gr.Column(elem_classes=_AWAY)}
        yield {**away, running: gr.Row(elem_classes=_AWAY), **dict.fromkeys(results)}
        if video_path is None:
            return
        with _errors_in_page():
            session = str(request.session_hash)
            upload, folder = visitors.enter(session, Path(video_path))
            try:
                job = Job(line, session, steps(upload, folder), page_session.length(upload))
                for result in job.results():
                    yield result or {status: job.as_text(), running: gr.Row(elem_classes=_HERE)}
            except Cancelled:  # what runs now may be the next video
                return
            except Exception:
                yield {running: gr.Row(elem_classes=_AWAY)}
                forget(request)  # what is refused quickly must not fill the page with visitors
                raise
            yield {running: gr.Row(elem_classes=_AWAY)}

    def steps(upload: Path, folder: Path) -> Callable[[Job], Iterator[dict[Any, Any]]]:
        def work(job: Job) -> Iterator[dict[Any, Any]]:
            job.begin("Looking at the video")
            prediction = page_session.predict(upload, job.tell)
            files = page_session.files(prediction, folder)
            yield {
                answer: _answer(prediction),
                bars: dict(prediction.top(_MOST_BARS)),
                when: next(str(path) for path in files if path.suffix == ".png"),
                downloads: [str(path) for path in files if path.suffix != ".png"],
                beside: gr.Column(elem_classes=_HERE),
            }
            job.begin("Drawing the labels")
            yield {annotated: str(page_session.annotated(prediction, folder, job.tell))}
            job.begin("Explaining the label")
            yield {why: str(page_session.explained(prediction, folder)), below: gr.Column(elem_classes=_HERE)}

        return work

    image: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": ["fullscreen"]}
    shown_video: dict[str, Any] = {"show_label": False, "interactive": False, "include_audio": True, "height": 400}
    with gr.Blocks(title=f"activity: {page_session.model_path.name}", analytics_enabled=False) as page:
        gr.Markdown(f"# What does this video show?\n{_known(page_session)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                video = gr.Video(label="Drop a video, or record one", include_audio=True, height=320, elem_id="video")
                with gr.Row(elem_classes=_AWAY, equal_height=True) as running:
                    status = gr.Markdown(elem_id="status")
                    cancel = gr.Button("Cancel", size="sm", scale=0, min_width=90, elem_id="cancel")
                limits = f"Up to {page_session.max_seconds:g} seconds and {max_megabytes} MB, of any kind."
                gr.Markdown(f"{limits} Formats the browser cannot preview still work.")
                if examples:
                    gr.Examples([[str(path)] for path in examples], video, label="Or try one of these")
                with gr.Accordion("About this model", open=False):
                    gr.Markdown(model_card(page_session.model_path).as_markdown(with_paths=False))
            with gr.Column(scale=3, min_width=320, elem_classes=_AWAY) as beside:
                answer = gr.Markdown(elem_id="answer")
                bars = gr.Label(show_label=False, show_heading=False, elem_id="bars")
                gr.Markdown("### Timeline")
                when = gr.Image(**image, elem_id="when")
                downloads = gr.File(label="Download results (JSON, CSV, SRT)", interactive=False, elem_id="downloads")
                gr.Markdown("### Annotated video")
                annotated = gr.Video(**shown_video, elem_id="annotated")
        with gr.Column(elem_classes=_AWAY) as below:
            gr.Markdown("### Explanation")
            why = gr.Image(**image, elem_id="why")
        results = (answer, bars, when, downloads, annotated, why)
        shown = [*results, beside, below, status, running]
        # All at once: the jobs take turns themselves, and tell how long they will have to wait.
        together: dict[str, Any] = {"concurrency_limit": _MOST_AT_ONCE, "trigger_mode": "multiple"}
        video.change(label, video, shown, show_progress="hidden", **together)
        cancel.click(stop, None, [video, running], concurrency_limit=None, show_progress="hidden")
        page.unload(forget)
    visitors = Visitors(work_dir)  # Gradio has copied or converted the examples by now
    page.queue(api_open=False)  # nobody goes past the queue

    def sweep() -> None:
        while True:
            time.sleep(_SWEEP_SECONDS)
            visitors.forget_stale()

    threading.Thread(target=sweep, daemon=True).start()
    return page


def serve(
    model_path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    names: Sequence[str] = (),
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
        names: by which browsers may ask for the page, besides `localhost`, the name of this computer and any number
            of an address; for a page behind a proxy.
        runtime: see `activity.runtimes.choice`.
        max_seconds: longest video that is taken.
        max_megabytes: largest file that is taken.
        examples: videos to try.
        say: receives the line that says where the page is.

    Raises:
        ActivityError: Gradio is not installed, the port is taken, an example is missing, or the model takes feature
            files.
    """
    missing = [path for path in examples if not path.is_file()]
    if missing:
        raise ActivityError("no such file; expected a video to show as an example", path=missing[0])
    check_takes_videos(read_info(model_path), "the page")
    with (
        tempfile.TemporaryDirectory(prefix="activity-page-", ignore_cleanup_errors=True) as folder,
        _temporary_files_in(folder),
    ):
        uploads_dir = Path(folder, "uploads")
        # Gradio reads these when it is imported: where it keeps uploads, and that it does not report its use.
        os.environ |= {"GRADIO_TEMP_DIR": str(uploads_dir), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        try:
            import gradio as gr
            from fastapi import FastAPI

            from activity.apps.server import Gate, serving
        except ImportError as error:
            hint = "pip install '.[web]' in the project's folder brings it"
            raise ActivityError("the web page needs Gradio", hint=hint) from error
        page_session = PageSession(model_path, runtime=runtime, max_seconds=max_seconds)
        line, work_dir = Line(), uploads_dir / "made"
        page = build_page(page_session, line, work_dir, max_megabytes=max_megabytes, examples=examples)
        app = gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            page,
            path="/",
            show_error=True,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            max_file_size=max_megabytes * 10**6,
            allowed_paths=[str(path) for path in examples],  # what is sent must not open as a page of this site
            css=_STYLE,
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
        # Gradio looks at what files a client names only in a page that it launched itself: without these, at none.
        page.is_running = page.has_launched = True
        hosts = (host, socket.gethostname(), socket.getfqdn(), *names)
        max_bytes = max_megabytes * 10**6
        gate = Gate(app, hosts=hosts, uploads_dir=uploads_dir, max_bytes=max_bytes, hung_up=line.cancel)
        with serving(gate, host, port) as address:
            say(f"the page is at {address} (Ctrl-C ends it)")
            threading.Thread(
                target=lambda: page_session.explainer, daemon=True
            ).start()  # before the first visitor waits
            threading.Event().wait()


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Whatever a thread still writes when the program ends goes with the folder."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _errors_in_page() -> Iterator[None]:
    """Show the visitor what is wrong with a video."""
    import gradio as gr

    try:
        yield
    except (ActivityError, OSError) as error:
        # Of files only the bare name is shown: where things lie on this computer is nobody's business.
        path = error.path if isinstance(error, ActivityError) else error.filename
        text = str(error) if isinstance(error, ActivityError) else error.strerror or type(error).__name__
        text = text.replace(str(path), Path(path).name) if path else text
        raise gr.Error(text, title="This video cannot be labelled", duration=None, print_exception=False) from error


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
