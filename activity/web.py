"""The web page: drop a video, see what it shows, when and why. It asks the same `Predictor` as the command line.

What visitors send and what is made of it lies in one temporary folder, which goes when the program ends. What belongs
to one visitor goes when another video is given or the page is closed.
"""

# No `from __future__ import annotations`: Gradio looks at those of its handlers and must find classes, not names.

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activity.card import model_card
from activity.errors import ActivityError, VideoError
from activity.network import UNKNOWN
from activity.predictor import Failure, Prediction, Predictor
from activity.video import probe

if TYPE_CHECKING:
    import gradio

_STALE_SECONDS = 3600  # after which files of a visitor go whose browser never said goodbye
_MOST_WAITING = 20  # visitors in the queue
_MOST_BARS = 5
_STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
"""


class Desk:
    """What the page does with one video after the other; it knows nothing of the page.

    Args:
        model_path: a `.keras` file.
        runtime: see `activity.runtimes`.
        max_seconds: longest video that is taken.
    """

    def __init__(self, model_path: Path, *, runtime: str = "auto", max_seconds: float = 600) -> None:
        self.model_path, self.max_seconds = Path(model_path), max_seconds
        self.predictor = Predictor.load(model_path, runtime=runtime)

    @cached_property
    def _explainer(self) -> Any:
        from activity.explain import Explainer  # this imports Keras, which takes seconds

        return Explainer.load(self.model_path)

    def predict(self, video_path: Path) -> Prediction:
        """What a video shows, and when.

        Raises:
            ActivityError: it is no video, or too long.
        """
        self._check_length(video_path)
        (result,) = self.predictor.predict_many([video_path], timeline=True)
        if isinstance(result, Failure):
            raise ActivityError(f"{video_path.name} cannot be read: {result.error}")
        return result

    def _check_length(self, video_path: Path) -> None:
        try:
            seconds = probe(video_path).duration_seconds_claimed
        except VideoError:
            return  # reading it says why
        if seconds > self.max_seconds:
            raise ActivityError(
                f"{video_path.name} is too long: this page takes up to {self.max_seconds:g} seconds, and it has "
                f"{seconds:.0f}; `activity classify` takes any"
            )

    def files(self, prediction: Prediction, folder: Path) -> list[Path]:
        """The timeline as JSON, CSV, SRT and PNG; they know the video by its bare name."""
        from activity.render import save_timeline

        path = Path(prediction.source)
        paths = save_timeline(prediction, folder, path.stem)
        about = {**prediction.as_dict(), "source": path.name}  # where uploads lie is nobody's business
        paths[0].write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return paths

    def annotated(self, prediction: Prediction, folder: Path) -> Path:
        """The video with its labels drawn into it."""
        from activity.render import annotate

        path = Path(prediction.source)
        return annotate(path, prediction, folder / f"{path.stem}-annotated.mp4")

    def explained(self, prediction: Prediction, folder: Path) -> Path:
        """A picture of the frames, and the places in them, that speak for the label."""
        from activity.explain import explanation_figure
        from activity.plots import save_figure

        explanation = self._explainer.explain(prediction)
        return save_figure(explanation_figure(explanation), folder / f"{Path(prediction.source).stem}-why.png")


def build_page(desk: Desk, work_dir: Path, *, max_megabytes: int, examples: Sequence[Path] = ()) -> "gradio.Blocks":
    """The page, not yet served.

    Args:
        desk: does the work.
        work_dir: for what is made, one folder a visitor; lies in that of Gradio's uploads.
        max_megabytes: largest file that is taken; `serve` sees to it.
        examples: videos to try.
    """
    import gradio as gr

    uploads: dict[str, Path] = {}  # by visitor; Gradio keeps the same file of two visitors once

    def forget(request: gr.Request) -> None:
        visitor = str(request.session_hash)
        upload = uploads.pop(visitor, None)
        if upload and upload not in {*uploads.values(), *not_sent}:
            upload.unlink(missing_ok=True)
        shutil.rmtree(work_dir / visitor, ignore_errors=True)

    def label(video_path: str | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        forget(request)
        yield {beside: gr.Column(visible=False), below: gr.Column(visible=False), **dict.fromkeys(results)}
        if video_path is None:
            return
        visitor = str(request.session_hash)
        uploads[visitor], folder = Path(video_path), work_dir / visitor
        folder.mkdir(parents=True)
        with _errors_in_page():
            prediction = desk.predict(Path(video_path))
            *tables, strip = desk.files(prediction, folder)
            yield {
                answer: _answer(prediction),
                bars: dict(prediction.top(_MOST_BARS)),
                when: str(strip),
                downloads: [str(path) for path in tables],
                beside: gr.Column(visible=True),
            }
            yield {annotated: str(desk.annotated(prediction, folder))}
            yield {why: str(desk.explained(prediction, folder)), below: gr.Column(visible=True)}

    card = model_card(desk.model_path)
    picture: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": ["fullscreen"]}
    shown_video: dict[str, Any] = {"show_label": False, "interactive": False, "include_audio": True, "height": 400}
    with gr.Blocks(
        title=f"activity: {desk.model_path.name}", analytics_enabled=False, delete_cache=(600, _STALE_SECONDS)
    ) as page:
        gr.Markdown(f"# What does this video show?\n{_known(desk)}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                video = gr.Video(label="Drop a video, or record one", include_audio=True, height=320, elem_id="video")
                limits = f"Up to {desk.max_seconds:g} seconds and {max_megabytes} MB, of any kind."
                gr.Markdown(f"{limits} What a browser cannot play is labelled all the same.")
                if examples:
                    gr.Examples([[str(path)] for path in examples], video, label="Or try one of these")
                with gr.Accordion("About this model", open=False):
                    gr.Markdown(card.as_markdown())
            with gr.Column(scale=3, min_width=320, visible=False) as beside:
                answer = gr.Markdown(elem_id="answer")
                bars = gr.Label(show_label=False, show_heading=False, elem_id="bars")
                gr.Markdown("### When")
                when = gr.Image(**picture, elem_id="when")
                downloads = gr.File(label="To keep: JSON, a table, subtitles", interactive=False, elem_id="downloads")
                gr.Markdown("### The video, labelled")
                annotated = gr.Video(**shown_video, elem_id="annotated")
        with gr.Column(visible=False) as below:
            gr.Markdown("### Which frames mattered, and where")
            why = gr.Image(**picture, elem_id="why")
        results = (answer, bars, when, downloads, annotated, why)
        # One at a time: the network needs all processors. The others wait in the queue and see their place in it.
        video.change(label, video, [*results, beside, below], concurrency_limit=1, show_progress_on=video)
        page.unload(forget)
    not_sent = {*examples, *work_dir.parent.rglob("*")}  # Gradio has copied or converted the examples by now
    page.queue(max_size=_MOST_WAITING)
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
        runtime: see `activity.runtimes`.
        max_seconds: longest video that is taken.
        max_megabytes: largest file that is taken.
        examples: videos to try.
        say: receives the line that says where the page is.

    Raises:
        ActivityError: Gradio is not installed, the port is taken, or an example is missing.
    """
    missing = [path for path in examples if not path.is_file()]
    if missing:
        raise ActivityError(f"{missing[0]}: no such file; expected a video to show as an example")
    with tempfile.TemporaryDirectory(prefix="activity-page-") as folder:
        # Gradio reads these when it is imported: where it keeps uploads, and that it does not report its use.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        try:
            import gradio as gr
        except ImportError as error:
            install = "pip install '.[web]' in the project's folder brings it"
            raise ActivityError(f"the web page needs Gradio; {install}") from error
        desk = Desk(model_path, runtime=runtime, max_seconds=max_seconds)
        page = build_page(desk, Path(folder, "made"), max_megabytes=max_megabytes, examples=examples)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=True,
                max_file_size=max_megabytes * 10**6,
                allowed_paths=[folder, *(str(path) for path in examples)],
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
    """What is wrong with a video is told to the visitor."""
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
    if prediction.label != UNKNOWN:
        return f"## mostly {prediction.label}" if changes else f"## {prediction.label}"
    return (
        f"## {UNKNOWN}\nNothing reaches a probability of {prediction.threshold:.2f}, below which this model does not "
        "answer. The nearest are:"
    )


def _known(desk: Desk) -> str:
    names = ", ".join(f"**{label}**" for label in desk.predictor.network.labels)
    return f"This model tells apart {names}. It has never heard of anything else."
