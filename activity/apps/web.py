"""The web page: drop a video, see its labels or sentences, timeline and explanation; what the command line tells.

Uploads and results lie in one temporary folder, which is deleted when the program ends. Those of one visitor are
deleted when another file is given or the page is closed. `activity.apps.visitors` keeps them apart: nothing a client
sends becomes part of a path. `activity.apps.server` decides what is let in, `activity.apps.page_session` does the work,
and `activity.apps.panels` shows what it gives.
"""

# No `from __future__ import annotations`: Gradio looks at those of its handlers and must find classes, not names.
import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activity.apps.page_session import PageSession, session_for
from activity.apps.visitors import Cancelled, Job, Line, Visitors
from activity.errors import ActivityError
from activity.reports.card import model_card
from activity.video.images import is_image

if TYPE_CHECKING:
    import gradio


_SWEEP_SECONDS = 60
_MOST_AT_ONCE = 40  # visitors whose video is looked at or waits: beyond, Gradio's own queue
_STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
.away { display: none !important; }
#sentences th, #when td:first-child { white-space: nowrap; }
"""


def build_page(
    page_session: PageSession[Any], line: Line, work_dir: Path, *, max_megabytes: int, examples: Sequence[Path] = ()
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

    from activity.apps.panels import AWAY, HERE, IMAGE, PANELS

    panel = PANELS[type(page_session)](page_session)
    name = page_session.answer_name

    def forget(request: gr.Request) -> None:
        line.cancel(str(request.session_hash))
        visitors.leave(str(request.session_hash))

    def stop(request: gr.Request) -> dict[Any, Any]:
        forget(request)
        return {**dict.fromkeys(inputs), running: gr.Row(elem_classes=AWAY)}

    def taking(place: Any) -> Callable[..., Iterator[dict[Any, Any]]]:
        """The handler of one of the inputs."""

        def look(given: dict[Any, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
            path = given[place] and given[place]["path"]
            if not path and any(given.values()):  # it was cleared because another has a file now
                yield {running: gr.skip()}  # of nothing, Gradio would clear all
                return
            forget(request)
            others = dict.fromkeys(each for each in inputs if each is not place)
            away = {column: gr.Column(elem_classes=AWAY) for column in columns}
            yield {**others, **away, running: gr.Row(elem_classes=AWAY), **dict.fromkeys(results)}
            if not path:
                return
            with _errors_in_page(panel.refusal):
                session = str(request.session_hash)
                upload, folder = visitors.enter(session, Path(path))
                try:
                    job = Job(line, session, steps(upload, folder), page_session.length(upload))
                    for result in job.results():
                        yield result or {status: job.as_text(), running: gr.Row(elem_classes=HERE)}
                except Cancelled:  # what runs now may be the next video
                    return
                except Exception:
                    yield {running: gr.Row(elem_classes=AWAY)}
                    forget(request)  # what is refused quickly must not fill the page with visitors
                    raise
                yield {running: gr.Row(elem_classes=AWAY)}

        return look

    def steps(upload: Path, folder: Path) -> Callable[[Job], Iterator[dict[Any, Any]]]:
        def work(job: Job) -> Iterator[dict[Any, Any]]:
            job.begin(f"Looking at the {'image' if is_image(upload) else 'video'}")
            result = page_session.answer(upload, job.tell)
            files = page_session.files(result, folder)
            tables = [path for path in files if path.suffix != ".png"]
            kinds = ", ".join(path.suffix[1:].upper() for path in tables)
            yield {
                **panel.shown(result, files),
                downloads: gr.File([str(path) for path in tables], label=f"Download results ({kinds})"),
                beside: gr.Column(elem_classes=HERE),
            }
            if not result.duration_seconds:  # an image: there is nothing to draw on, and no time to look at
                return
            job.begin(f"Drawing the {name}s")
            yield {
                annotated: str(page_session.annotated(result, folder, job.tell)),
                film: gr.Column(elem_classes=HERE),
            }
            job.begin(f"Explaining the {name}")
            yield {
                why: str(page_session.explained(result, folder, job.tell)),
                below: gr.Column(elem_classes=HERE),
            }

        return work

    shown_video: dict[str, Any] = {"show_label": False, "interactive": False, "include_audio": True, "height": 400}
    with gr.Blocks(title=f"activity: {page_session.model_path.name}", analytics_enabled=False) as page:
        gr.Markdown(f"# {panel.question}\n{panel.known()}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                inputs = panel.build_inputs(examples)
                with gr.Row(elem_classes=AWAY, equal_height=True) as running:
                    status = gr.Markdown(elem_id="status")
                    cancel = gr.Button("Cancel", size="sm", scale=0, min_width=90, elem_id="cancel")
                limits = f"Up to {page_session.max_seconds:g} seconds and {max_megabytes} MB, of any kind."
                gr.Markdown(f"{limits} Formats the browser cannot preview still work.")
                with gr.Accordion("About this model", open=False):
                    gr.Markdown(model_card(page_session.model_path).as_markdown(with_paths=False))
            with gr.Column(scale=3, min_width=320, elem_classes=AWAY) as beside:
                panel.build_results()
                downloads = gr.File(interactive=False, elem_id="downloads")
                with gr.Column(elem_classes=AWAY) as film:
                    gr.Markdown("### Annotated video")
                    annotated = gr.Video(**shown_video, elem_id="annotated")
        with gr.Column(elem_classes=AWAY) as below:
            gr.Markdown(f"### {panel.about_explanation}")
            why = gr.Image(**IMAGE, elem_id="why")
        results = (*panel.results, downloads, annotated, why)
        columns = (beside, film, below, *panel.columns)
        shown = [*inputs, *results, *columns, status, running]
        # All at once: the jobs take turns themselves, and tell how long they will have to wait.
        together = {"concurrency_limit": _MOST_AT_ONCE, "concurrency_id": "files", "trigger_mode": "multiple"}
        # As it was sent: Gradio would open images itself, and show a path of this computer where it cannot.
        taken = {"inputs": set(inputs), "outputs": shown, "preprocess": False, "show_progress": "hidden", **together}
        for place in inputs:
            place.change(taking(place), **taken)
        cancel.click(stop, None, [*inputs, running], concurrency_limit=None, show_progress="hidden")
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
        examples: videos to try, and images where the model describes.
        say: receives the line that says where the page is.

    Raises:
        ActivityError: Gradio is not installed, the port is taken, an example is missing, or the model tells nothing of
            videos.
    """
    missing = [path for path in examples if not path.is_file()]
    if missing:
        raise ActivityError("no such file; expected a video to show as an example", path=missing[0])
    kind = session_for(model_path)
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
        page_session = kind(model_path, runtime=runtime, max_seconds=max_seconds)
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
            threading.Thread(target=page_session.prepare, daemon=True).start()
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
def _errors_in_page(title: str) -> Iterator[None]:
    """Show the visitor what is wrong with a file."""
    import gradio as gr

    try:
        yield
    except (ActivityError, OSError) as error:
        # Of files only the bare name is shown: where things lie on this computer is nobody's business.
        path = error.path if isinstance(error, ActivityError) else error.filename
        text = str(error) if isinstance(error, ActivityError) else error.strerror or type(error).__name__
        text = text.replace(str(path), Path(path).name) if path else text
        # The page of Gradio 6 does not show the title of an error
        raise gr.Error(f"{title}: {text}", duration=None, print_exception=False) from error
