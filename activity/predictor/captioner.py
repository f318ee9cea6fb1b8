"""Sentences for videos and images, as `activity.predictor.predictor` gives labels."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from activity.errors import SettingError, VideoError, check_type, printable
from activity.models.sentences import InferenceCaptioner, Sentence, SentenceWriter
from activity.predictor.prediction import Failure
from activity.predictor.predictor import features_of
from activity.predictor.sources import FrameStream, most_threads, names_of, read_ahead
from activity.predictor.windows import WindowReader
from activity.runtimes.exported import load_inference_model

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedSegment:
    """`[start_seconds, end_seconds)` of a video, and what is written of it."""

    start_seconds: float
    end_seconds: float
    sentence: Sentence

    def as_dict(self) -> dict[str, Any]:
        """`start_seconds`, `end_seconds`, `caption`, `log_probability`; ready for JSON."""
        return {
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "caption": self.sentence.text,
            "log_probability": self.sentence.log_probability,
        }


@dataclass(frozen=True)
class Description:
    """What is written of a video or image.

    Attributes:
        source: as it was given.
        sentences: the best first, as many as were asked for.
        duration_seconds: of the video; 0 of an image.
        timestamps_seconds: `(N,)` of the frames that were looked at, for `Sentence.attention`.
        segments: a sentence for each part of the video, in order and without gaps, if a timeline was asked for; of an
            image, which lasts no time, none.
    """

    source: str
    sentences: tuple[Sentence, ...]
    duration_seconds: float
    timestamps_seconds: np.ndarray
    segments: tuple[CaptionedSegment, ...] = ()

    @property
    def caption(self) -> str:
        """The best sentence."""
        return self.sentences[0].text

    @property
    def log_probability(self) -> float:
        """Natural logarithm of its probability, 0 at most."""
        return self.sentences[0].log_probability

    def as_dict(self, *, top_k: int = 1) -> dict[str, Any]:
        """`source`, `caption`, `log_probability`, `top`, `duration_seconds`, with a timeline `segments`; for JSON."""
        segments = {"segments": [segment.as_dict() for segment in self.segments]} if self.segments else {}
        top = [{"caption": x.text, "log_probability": x.log_probability} for x in self.sentences[:top_k]]
        return {
            "source": self.source,
            "caption": self.caption,
            "log_probability": self.log_probability,
            "top": top,
            "duration_seconds": self.duration_seconds,
            **segments,
        }

    def as_text(self, *, top_k: int = 1) -> str:
        """A line for the source and its best sentence, one for each of several (`top_k`), and one for each segment."""
        shown = self.sentences[:top_k] if top_k > 1 else ()
        others = [f"  {x.log_probability:8.2f}  {x.text}" for x in shown]
        parts = [f"  {x.start_seconds:9.2f} - {x.end_seconds:9.2f} s  {x.sentence.text}" for x in self.segments]
        return "\n".join(map(printable, [f"{self.source}  {self.caption}", *others, *parts]))


class Captioner:
    """A model of `train --task describe`, loaded once, that writes a sentence for any number of videos and images.

        captioner = Captioner.load("model.keras")
        print(captioner.describe("clip.mp4").caption)

    Args:
        model: from `activity.runtimes.exported.load_inference_model` with the task `describe`,
            `activity.models.captioner.load_captioner` or a training run.
        num_beams: of the search, 1 or more; see `activity.models.search.search_sentences`.
        temperature: draw words at random, at this temperature above 0; `None`: the most probable sentence.
        top_p: of random words, see `SentenceWriter.write`.
        seed: of random words; the same source then gives the same sentence.
        num_threads: videos decoded at a time, by default one per processor.

    Raises:
        SettingError: an argument is out of range, or `model` is not in memory.
    """

    def __init__(
        self,
        model: InferenceCaptioner,
        *,
        num_beams: int = 5,
        temperature: float | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        num_threads: int | None = None,
    ) -> None:
        check_type("model", model, InferenceCaptioner, "a model in memory (a file is read by Captioner.load)")
        for name, value, good, expected in (
            ("num_beams", num_beams, num_beams >= 1, "1 or more"),
            ("temperature", temperature, temperature is None or 0 < temperature <= 100, "above 0 to 100"),
            ("top_p", top_p, 0 < top_p <= 1, "above 0 to 1"),
        ):
            if not good:
                raise SettingError(name, expected, value)
        self.model, self.num_threads = model, num_threads or most_threads()
        self._temperature, self._top_p, self._seed = temperature, top_p, seed
        self._writer = SentenceWriter(model, num_beams=num_beams, sampled=temperature is not None)

    @classmethod
    def load(cls, model_path: Path | str, *, runtime: str = "auto", **options: Any) -> Captioner:
        """Read a model file for one of `activity.runtimes.choice.RUNTIMES`; the options are those of the class.

        Raises:
            ModelFileError: it is missing, damaged, not ours, or labels activities.
            ActivityError: the runtime that was asked for by name cannot be had.
        """
        model = load_inference_model(Path(model_path), runtime=runtime, task="describe")
        return cls(model, **options)

    def describe(self, source: Path | str, *, timeline: bool = False) -> Description:
        """Write a sentence for one video or image; see `describe_many`.

        Raises:
            SettingError: it is neither a path nor a URL.
            VideoError: not one frame of it can be decoded.
        """
        (result,) = self.describe_many([source], timeline=timeline)
        if isinstance(result, Failure):
            raise VideoError(result.error, path=source)
        return result

    def describe_many(
        self,
        sources: Iterable[Path | str] | Path | str,
        *,
        timeline: bool = False,
        watch: Callable[[str, float], object] | None = None,
        timeout_seconds: float = math.inf,
    ) -> Iterator[Description | Failure]:
        """Write sentences for videos and images, in their order; one that fails does not stop the others.

        A video much longer than the clips of training is read in windows; its sentence is that of the window which
        the model is most certain of, by the mean log-probability of the words.

        Args:
            sources: files, or URLs of files; or just one file, folder or `glob*` pattern.
            timeline: also give a sentence for each window of a long video, one after the other; equal neighbours are
                one segment. A video that is not long is one segment.
            watch: see `activity.predictor.predictor.Predictor.predict_many`.
            timeout_seconds: so long, all together, the frames of a video are waited for before it fails.
        """
        names = names_of(sources, features=bool(self.model.spec.num_features), images=True)
        # a video that is not long is one clip, and has one sentence: it needs no other frames for a timeline
        streams = read_ahead(names, self.model, self.num_threads, watch=watch, timeout_seconds=timeout_seconds)
        with contextlib.closing(streams):
            for stream in streams:
                yield self._describe_one(stream, timeline)

    def generate(self, num: int = 1) -> list[Sentence]:
        """Random sentences without a video: the decoder alone is a language model of the captions of training.

        The captioner must draw words at random, so it has a `temperature`. The first sentences are the same for any
        number of them.

        Args:
            num: of sentences, 1 or more.

        Raises:
            SettingError: `num` is below 1, or the captioner writes the most probable sentence.
        """
        if self._temperature is None:
            raise SettingError("temperature", "a number: a language has one most probable sentence", None)
        if num < 1:
            raise SettingError("num", "1 or more", num)
        shape = self.model.feature_shape
        length = self.model.spec.num_frames
        written = self._writer.write(
            np.zeros((num, length, *shape), np.float32),
            np.zeros((num, length), bool),
            temperature=self._temperature,
            top_p=self._top_p,
            rngs=np.random.default_rng(self._seed).spawn(num),
        )
        return [sentences[0] for sentences in written]

    def _describe_one(self, stream: FrameStream, timeline: bool) -> Description | Failure:
        model, readers = self.model, {}
        length = model.spec.num_frames
        chance = np.random.default_rng(self._seed)
        try:
            for spec, chunk in stream:
                stream.tell()
                if spec not in readers:
                    readers[spec] = WindowReader(lambda windows: self._write(windows, chance), length, length)
                readers[spec].see(features_of(model, chunk))
        except VideoError as error:
            return Failure(stream.source, error.reason)
        whole = model.spec if model.spec in stream.sampled else next(iter(stream.sampled))
        sampled = stream.sampled[whole]
        if sampled.problem:
            _logger.warning("%s: %s", stream.source, sampled.problem)
        windows = readers[whole].finish(sampled.edges_seconds)
        start, _, sentences, first = max(windows, key=lambda window: window[2][0].certainty)
        if len(windows) > 1 and not timeline:
            text = "%s: much longer than the clips of training; described from %.1f s on; --timeline describes all"
            _logger.info(text, stream.source, start)
        segments: tuple[CaptionedSegment, ...] = ()
        if timeline and sampled.duration_seconds:
            segments = _merged(windows)
        return Description(
            stream.source,
            tuple(sentences),
            sampled.duration_seconds,
            np.array(sampled.timestamps_seconds[first : first + length]),
            segments,
        )

    def _write(self, windows: Any, chance: np.random.Generator) -> list[list[Sentence]]:
        if self._temperature is None:
            return self._writer.write_windows(windows)
        drawn = {"temperature": self._temperature, "top_p": self._top_p, "rngs": chance.spawn(len(windows))}
        return self._writer.write_windows(windows, **drawn)


def _merged(windows: Iterable[tuple[float, float, list[Sentence], int]]) -> tuple[CaptionedSegment, ...]:
    """A segment for each run of windows with the same sentence; where windows overlap, the later one begins later."""
    segments: list[CaptionedSegment] = []
    for _, run in itertools.groupby(windows, key=lambda window: window[2][0].text):
        first, *others = run
        start = segments[-1].end_seconds if segments else first[0]
        end = others[-1][1] if others else first[1]
        best = max((first, *others), key=lambda window: window[2][0].certainty)
        segments.append(CaptionedSegment(start, end, best[2][0]))
    return tuple(segments)
