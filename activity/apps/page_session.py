"""The work of the web page: what a model tells of one video after the other. It knows nothing of the page.

A `PageSession` keeps the limits and writes the files; its kinds, one a task, ask their model and draw why.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from activity.errors import ActivityError, ModelFileError, VideoError
from activity.models.info import check_takes_videos, read_info
from activity.predictor.prediction import Failure, Prediction
from activity.predictor.predictor import Predictor
from activity.video.decoder import index_frames

if TYPE_CHECKING:
    from activity.predictor.captioner import Description

MOST_ANSWERS = 5  # of a video, the most probable ones
_PATIENCE_SECONDS = 60  # beyond its longest length, for the frames of a video
_SLOWEST_DRAWING = 5  # seconds for a second of video, to decode, draw and encode it

_Result = TypeVar("_Result", "Prediction", "Description")
_Watch = Callable[[float], object]


def _ignore(seconds: float) -> None:
    """Nobody watches."""


class PageSession(ABC, Generic[_Result]):
    """The work of the page, with one video after the other.

    A method with a `watch` calls it with the time of each frame that passes; what it raises ends the work.

    Args:
        model_path: a `.keras` file.
        runtime: see `activity.runtimes.choice`.
        max_seconds: longest video that is taken.
        patience_seconds: beyond `max_seconds`, for the frames of a video, until a decoder counts as stuck.
    """

    answer_name: ClassVar[str]  # what its model gives
    command: ClassVar[str]  # that does the same

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
        self._load(runtime)

    def length(self, path: Path) -> float:
        """How long a video is by its packets, in seconds; 0 if they do not tell, and of an image.

        Raises:
            ActivityError: it is too long.
        """
        index = index_frames(path)
        seconds = float(index.timestamps_seconds[-1]) if index else 0.0
        self._check_length(path, seconds, f"{seconds:.0f}")
        return seconds

    def answer(self, path: Path, watch: _Watch = _ignore) -> _Result:
        """Ask the model of a video, with its timeline.

        Raises:
            ActivityError: it cannot be read, or is too long.
        """

        def check(source: str, seconds: float) -> None:
            self._check_length(path, seconds)
            watch(seconds)

        self.length(path)
        seconds = self.max_seconds + self._patience_seconds
        (result,) = self._ask([path], timeline=True, watch=check, timeout_seconds=seconds)
        if isinstance(result, Failure):
            raise VideoError(f"cannot be read: {result.error}", path=path.name)
        return result

    def files(self, result: _Result, folder: Path) -> list[Path]:
        """What was told, as JSON and, of what lasts, in all formats of timelines; they know it by its bare name."""
        path = Path(result.source)
        about = folder / f"{path.stem}.json"
        others: list[Path] = [file for file in self._save_timeline(result, folder, path.stem) if file != about]
        values = {**result.as_dict(top_k=MOST_ANSWERS), "source": path.name}  # where uploads lie is nobody's business
        about.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return [about, *others]

    def annotated(self, result: _Result, folder: Path, watch: _Watch = _ignore) -> Path:
        """The video with what was told drawn into it."""
        from activity.reports.annotation import annotate

        path = Path(result.source)
        check = self._limits(path, watch, f"its {self.answer_name}s took too long to draw")
        return annotate(path, result, folder / f"{path.stem}-annotated.mp4", check=check)

    def explained(self, result: _Result, folder: Path, watch: _Watch = _ignore) -> Path:
        """An image of what speaks for the answer."""
        from activity.reports.style import save_figure

        path = Path(result.source)
        check = self._limits(path, watch, f"its {self.answer_name} took too long to explain")
        return save_figure(self._explain(result, check), folder / f"{path.stem}-why.png")

    @abstractmethod
    def prepare(self) -> None:
        """Load what else would be loaded while the first visitor waits."""

    @abstractmethod
    def _load(self, runtime: str) -> None: ...

    @abstractmethod
    def _ask(self, paths: list[Path], **options: Any) -> Iterator[_Result | Failure]: ...

    @abstractmethod
    def _save_timeline(self, result: _Result, folder: Path, name: str) -> list[Path]: ...

    @abstractmethod
    def _explain(self, result: _Result, check: _Watch) -> Any: ...

    def _limits(self, path: Path, watch: _Watch, late: str) -> _Watch:
        """A function to call with the time of each frame that passes; it raises `ActivityError` where one is too late.

        A video may be longer than its header tells, and its decoder may be slow.
        """
        end = time.monotonic() + _SLOWEST_DRAWING * self.max_seconds + self._patience_seconds

        def check(seconds: float) -> None:
            self._check_length(path, seconds)
            watch(seconds)
            if time.monotonic() > end:
                raise ActivityError(late, path=path.name)

        return check

    def _check_length(self, path: Path, seconds: float, shown: str = "more") -> None:
        """Decoding finds out what packets do not tell; headers may tell anything."""
        if seconds > self.max_seconds:
            reason = f"too long: this page takes up to {self.max_seconds:g} seconds, and it has {shown}"
            raise ActivityError(reason, path=path.name, hint=f"`activity {self.command}` takes any")


class LabelSession(PageSession[Prediction]):
    """The work of a page that labels videos, see `PageSession`."""

    answer_name, command = "label", "classify"

    def _load(self, runtime: str) -> None:
        self.predictor = Predictor.load(self.model_path, runtime=runtime)

    @cached_property
    def _explainer(self) -> Any:
        """Made at its first use: it imports Keras, which takes seconds."""
        from activity.predictor.explainer import Explainer

        return Explainer.load(self.model_path)

    def prepare(self) -> None:
        """Load the model once more, to explain its labels."""
        _ = self._explainer

    def _ask(self, paths: list[Path], **options: Any) -> Iterator[Prediction | Failure]:
        return self.predictor.predict_many(paths, keep_frames=True, **options)

    def _save_timeline(self, result: Prediction, folder: Path, name: str) -> list[Path]:
        from activity.reports.timeline import save_timeline

        return save_timeline(result, folder, name)

    def _explain(self, result: Prediction, check: _Watch) -> Any:
        from activity.reports.explanation import explanation_figure

        return explanation_figure(self._explainer.explain(result))


class CaptionSession(PageSession["Description"]):
    """The work of a page that writes sentences on videos and images, see `PageSession`. An image lasts no time."""

    answer_name, command = "sentence", "describe"

    def _load(self, runtime: str) -> None:
        from activity.predictor.captioner import Captioner

        self.captioner = Captioner.load(self.model_path, runtime=runtime)

    def prepare(self) -> None:
        """Import what draws the attention of words."""
        import activity.reports.explanation  # noqa: F401

    def _ask(self, paths: list[Path], **options: Any) -> Iterator[Description | Failure]:
        return self.captioner.describe_many(paths, **options)

    def _save_timeline(self, result: Description, folder: Path, name: str) -> list[Path]:
        from activity.reports.timeline import save_captions

        return save_captions(result, folder, name) if result.segments else []

    def _explain(self, result: Description, check: _Watch) -> Any:
        from activity.reports.explanation import attention_of

        return attention_of(result, check=check)


_SESSIONS: dict[str, type[PageSession[Any]]] = {"classify": LabelSession, "describe": CaptionSession}


def session_for(model_path: Path) -> type[PageSession[Any]]:
    """The kind of session for the task of a model.

    Raises:
        ModelFileError: it is no model file, or one that tells nothing of a video.
        ActivityError: it takes feature files.
    """
    info = read_info(model_path, task=None)
    if info.task not in _SESSIONS:
        raise ModelFileError(
            f"expected a model that labels or describes videos, received one of --task {info.task}", path=model_path
        )
    check_takes_videos(info, "the page")
    return _SESSIONS[info.task]
