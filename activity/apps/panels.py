"""What the page shows of a task: where its files are given, and the components for what its model tells of them.

Labels and words come from training data: where a component reads Markdown, they are escaped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import gradio as gr

from activity.apps.page_session import MOST_ANSWERS, CaptionSession, LabelSession, PageSession
from activity.predictor.prediction import Prediction
from activity.reports.card import plain_markdown
from activity.video.images import is_image

if TYPE_CHECKING:
    from activity.predictor.captioner import Description

# Gradio draws nothing of what is not `visible`, and may lose what is sent there while it is being drawn.
AWAY, HERE = ["away"], ["here"]
IMAGE: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": ["fullscreen"]}
_Updates = dict[Any, Any]


class Panel(ABC):
    """The part of the page that knows the task.

    Args:
        page_session: asks the model.

    Attributes:
        results: the components that `build_results` made.
        columns: around some of them, away to begin with.
    """

    question: ClassVar[str]
    about_explanation: ClassVar[str]
    refusal: ClassVar[str]

    def __init__(self, page_session: PageSession[Any]) -> None:
        self._session = page_session
        self.results: list[Any] = []
        self.columns: list[Any] = []

    @abstractmethod
    def known(self) -> str:
        """What the model knows, in Markdown."""

    @abstractmethod
    def build_inputs(self, examples: Sequence[Path]) -> list[Any]:
        """Make the components in which a file is given, with files to try."""

    @abstractmethod
    def build_results(self) -> None:
        """Make the components that show what the model tells."""

    @abstractmethod
    def shown(self, result: Any, files: Sequence[Path]) -> _Updates:
        """What `results` show of a result, of which these files were written, and which `columns` are here."""


class LabelPanel(Panel):
    """A video and its labels: the most probable ones, and a strip of what happens when."""

    question = "What does this video show?"
    about_explanation = "Explanation"
    refusal = "This video cannot be labelled"
    _session: LabelSession

    def known(self) -> str:
        """Its labels."""
        names = ", ".join(f"**{plain_markdown(label)}**" for label in self._session.predictor.model.labels)
        return f"This model recognises: {names}. Anything else will be mistaken for one of them."

    def build_inputs(self, examples: Sequence[Path]) -> list[Any]:
        """A place for a video."""
        return [_video_input(examples)]

    def build_results(self) -> None:
        """A headline, bars of probabilities, and the strip."""
        self._answer = gr.Markdown(elem_id="answer")
        self._bars = gr.Label(show_label=False, show_heading=False, elem_id="bars")
        gr.Markdown("### Timeline")
        self._when = gr.Image(**IMAGE, elem_id="when")
        self.results = [self._answer, self._bars, self._when]

    def shown(self, result: Prediction, files: Sequence[Path]) -> _Updates:
        """The label of a video, and its timeline."""
        return {
            self._answer: self._headline(result),
            self._bars: dict(result.top(MOST_ANSWERS)),
            self._when: next(str(path) for path in files if path.suffix == ".png"),
        }

    def _headline(self, prediction: Prediction) -> str:
        changes = prediction.timeline is not None and len(prediction.timeline.segments) > 1
        label = plain_markdown(prediction.label)
        if prediction.is_answered:
            return f"## mostly {label}" if changes else f"## {label}"
        if not prediction.probability:  # of several labels at once
            return f"## {label}\nNo label holds at any time."
        return (
            f"## {label}\nNothing reaches a probability of {prediction.threshold:.2f}, below which this model "
            "does not answer. The nearest are:"
        )


class CaptionPanel(Panel):
    """A video or image and what is written of it: the best sentences and, of a long video, one for each part."""

    question = "What does this video or image show?"
    about_explanation = "Where each word looked"
    refusal = "This file cannot be described"
    _session: CaptionSession

    def known(self) -> str:
        """How many words."""
        info = self._session.captioner.model.info
        return (
            f"This model writes a sentence of up to {info.max_words} words, out of the {len(info.words)} that it "
            "knows, whatever a video or image shows."
        )

    def build_inputs(self, examples: Sequence[Path]) -> list[Any]:
        """A place for a video, and one for an image."""
        images = [path for path in examples if is_image(path)]
        with gr.Tab("Video"):
            video = _video_input([path for path in examples if path not in images])
        with gr.Tab("Image"):
            image = gr.Image(label="Drop an image, or take one", height=320, elem_id="image", type="filepath")
            _examples(images, image)
        return [video, image]

    def build_results(self) -> None:
        """The sentence, the best ones with their probabilities, and a table of the parts of a long video."""
        self._answer = gr.Markdown(elem_id="answer")
        self._sentences = gr.Markdown(elem_id="sentences")
        with gr.Column(elem_classes=AWAY) as self._parts:
            gr.Markdown("### Timeline")
            self._when = gr.Markdown(elem_id="when", max_height=400)
        self.results, self.columns = [self._answer, self._sentences, self._when], [self._parts]

    def shown(self, result: Description, files: Sequence[Path]) -> _Updates:
        """The sentences of a video or image, and those of the parts of a long video."""
        several = len(result.segments) > 1
        answer = f"## {plain_markdown(result.caption)}"
        if several:
            begin, end = (_moment(result.timestamps_seconds[place]) for place in (0, -1))
            answer += f"\nThis is of the part that the model is most certain of, from {begin} to {end}."
        best = [(f"{math.exp(x.log_probability):.1%}", x.text) for x in result.sentences[:MOST_ANSWERS]]
        parts = [(f"{_moment(x.start_seconds)} - {_moment(x.end_seconds)}", x.sentence.text) for x in result.segments]
        return {
            self._answer: answer,
            self._sentences: _table("Probability", "Best for their length", best),
            self._when: _table("Time", "Sentence", parts) if several else None,
            self._parts: gr.Column(elem_classes=HERE if several else AWAY),
        }


PANELS: dict[type[PageSession[Any]], type[Panel]] = {LabelSession: LabelPanel, CaptionSession: CaptionPanel}


def _video_input(examples: Sequence[Path]) -> Any:
    video = gr.Video(label="Drop a video, or record one", include_audio=True, height=320, elem_id="video")
    _examples(examples, video)
    return video


def _examples(examples: Sequence[Path], component: Any) -> None:
    if examples:
        gr.Examples([[str(path)] for path in examples], component, label="Or try one of these")


def _table(first: str, second: str, rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns in Markdown; numbers stand right."""
    lines = [f"| {first} | {second} |", "|--:|---|", *(f"| {a} | {plain_markdown(b)} |" for a, b in rows)]
    return "\n".join(lines)


def _moment(seconds: float) -> str:
    """A time as `3:20.5`."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
