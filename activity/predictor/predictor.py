"""Label videos with a model: the one way for Python, the command line and whatever comes above.

Files are decoded ahead in threads while the model runs. Frames pass through the backbone once, in chunks, so that
memory does not grow with the length of a video; windows then slide over the features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import ClipSpec
from activity.errors import ActivityError, VideoError, check_type
from activity.models.info import ModelInfo
from activity.models.network import InferenceModel
from activity.predictor.prediction import Failure, Prediction, WindowFrames
from activity.predictor.sources import FrameStream, most_threads, names_of, read_ahead
from activity.predictor.timeline import (
    Window,
    held_labels,
    make_timeline,
    make_timeline_of_labels,
    make_timeline_of_steps,
)
from activity.predictor.windows import StepReader, WindowReader
from activity.runtimes.exported import FORKED, SPAWN, load_inference_model

_logger = logging.getLogger(__name__)

_of_other_processes: list[Any] = []  # models that a fork left without threads: to free one would wait for them


class Predictor:
    """A model, loaded once, that labels any number of videos.

        predictor = Predictor.load("model.keras")
        print(predictor.predict("clip.mp4").label)

    Any number of threads may use one, with every runtime. To pickle one is to load its file again in the other process,
    so it must come from `load`; the same happens in a forked process, where one that Keras computes would hang, and
    raises `ActivityError` instead.

    Args:
        model: from `activity.runtimes.exported.load_inference_model`, `activity.models.classifier.load_classifier` or a
            training run.
        num_threads: videos decoded at a time, by default one per processor.

    Raises:
        SettingError: `model` is not in memory, but the name of a file.
    """

    def __init__(self, model: InferenceModel, *, num_threads: int | None = None) -> None:
        check_type("model", model, InferenceModel, "a model in memory (a file is read by Predictor.load)")
        self._model, self._process = model, os.getpid()
        self.num_threads = num_threads or most_threads()
        self._loaded: tuple[Path, str] | None = None  # file and runtime
        self._info: ModelInfo | None = None  # of one that was pickled

    @classmethod
    def load(cls, model_path: Path | str, *, runtime: str = "auto", num_threads: int | None = None) -> Predictor:
        """Read a model file for one of `activity.runtimes.choice.RUNTIMES`.

        Raises:
            ModelFileError: it is missing, damaged or not ours.
            ActivityError: the runtime that was asked for by name cannot be had.
        """
        predictor = cls(load_inference_model(Path(model_path), runtime=runtime), num_threads=num_threads)
        predictor._loaded = Path(model_path).absolute(), runtime
        return predictor

    @property
    def model(self) -> InferenceModel:
        """What computes; in another process than the one that loaded it, its file is loaded again."""
        if self._process != os.getpid():
            if not self._loaded:
                raise ActivityError(f"this model {FORKED}", hint=SPAWN)
            path, runtime = self._loaded
            model, info = load_inference_model(path, runtime=runtime), self._info or self._model.info
            model.info = info  # someone may have changed it
            _of_other_processes.append(self._model)
            self._model, self._process, self._info = model, os.getpid(), None
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        if not self._loaded:
            raise ActivityError("a Predictor of a model in memory cannot be pickled", hint="save it, and `load` it")
        return {**self.__dict__, "_model": None, "_info": self.model.info, "_process": None}

    def predict(self, source: Path | str, *, timeline: bool = False, keep_frames: bool = False) -> Prediction:
        """Label one video file, or feature file of a model of these; see `predict_many` for the options.

        Raises:
            SettingError: it is neither a path nor a URL, but empty, frames or a list.
            VideoError: not one frame of it can be decoded.
        """
        (result,) = self.predict_many([source], timeline=timeline, keep_frames=keep_frames)
        if isinstance(result, Failure):
            raise VideoError(result.error, path=source)
        return result

    def predict_many(
        self,
        sources: Iterable[Path | str] | Path | str,
        *,
        timeline: bool = False,
        keep_frames: bool = False,
        watch: Callable[[str, float], object] | None = None,
        timeout_seconds: float = math.inf,
    ) -> Iterator[Prediction | Failure]:
        """Label video files, in their order; one that fails does not stop the others.

        A few are decoded ahead of the model, no more: memory does not grow with the number of videos.

        Args:
            sources: files, or URLs of files; or just one file, folder or `glob*` pattern.
            timeline: also say what happens when. A short video is then decoded twice.
            keep_frames: a prediction of a single window has its frames, so that it can be explained without decoding
                the video again. Of several windows, only the end of the video tells which one counts.
            watch: called with a source and the time in seconds of each decoded frame, sampled or not, by
                other threads, a little ahead of the model. A `VideoError` that it raises fails this video, another
                `ActivityError` ends all and is raised here.
            timeout_seconds: so long, all together, the frames of a video are waited for before it fails.
        """
        model = self.model
        streams = read_ahead(
            names_of(sources, features=bool(model.spec.num_features)),
            model,
            self.num_threads,
            timeline=timeline,
            watch=watch,
            timeout_seconds=timeout_seconds,
        )
        with contextlib.closing(streams):
            for stream in streams:
                yield self._predict_one(stream, timeline, keep_frames)

    def _predict_one(self, stream: FrameStream, timeline: bool, keep_frames: bool) -> Prediction | Failure:
        model, length = self.model, self.model.spec.num_frames
        half = max(1, length // 2)  # as where features come from a data set
        strides = [half, model.stride] if timeline else [half]
        of_steps = model.info.labels_per == "step"
        readers: dict[ClipSpec, list[Any]] = {}
        kept: dict[ClipSpec, np.ndarray] = {}
        try:
            for spec, chunk in stream:
                stream.tell()  # the frames ahead have passed long ago: who watches may want no more
                features = features_of(model, chunk)  # (n, S, D)
                if spec not in readers:
                    readers[spec] = [WindowReader(model.predict_windows, length, stride) for stride in strides]
                    if of_steps:
                        readers[spec] = [StepReader(model)]
                for reader in readers[spec]:
                    reader.see(features)
                if keep_frames:
                    kept[spec] = np.concatenate([kept.get(spec, chunk[:0]), chunk])[:length].copy()
        except VideoError as error:
            return Failure(stream.source, error.reason)
        whole = model.spec if model.spec in stream.sampled else next(iter(stream.sampled))
        sampled = stream.sampled[whole]
        if sampled.problem:
            _logger.warning("%s: %s", stream.source, sampled.problem)
        windows = tuple(Window(*window) for window in readers[whole][0].finish(sampled.edges_seconds))
        only = kept.get(whole) if len(windows) == 1 else None
        prediction = Prediction(
            stream.source,
            model.labels,
            np.mean([window.probabilities for window in windows], axis=0),
            sampled.duration_seconds,
            windows,
            model.threshold,
            frames_per_second=whole.frames_per_second,
            frames=None if only is None else WindowFrames(only, np.array(sampled.timestamps_seconds)),
        )
        options = {"threshold": model.threshold, "window_seconds": model.window_seconds}
        if of_steps:
            steps = readers[whole][0].steps
            prediction = dataclasses.replace(prediction, probabilities=steps.mean(axis=0))
        if model.info.multi_label:  # what holds in one step at least is an answer
            held = held_labels(steps, sampled.edges_seconds, **options)
            prediction = dataclasses.replace(prediction, probabilities=held.mean(axis=0), threshold=1 / len(held))
        if not timeline:
            return prediction
        if not sampled.duration_seconds:
            return Failure(stream.source, "an image lasts no time, so it has no timeline; expected a video")
        if of_steps:
            make = make_timeline_of_labels if model.info.multi_label else make_timeline_of_steps
            return dataclasses.replace(prediction, timeline=make(steps, sampled.edges_seconds, model.labels, **options))
        moving = next((spec for spec in stream.sampled if spec.frames_per_second), whole)
        edges = stream.sampled[moving].edges_seconds
        often = [Window(*window) for window in readers[moving][1].finish(edges)]
        made = make_timeline(often, edges, model.labels, threshold=model.threshold)
        return dataclasses.replace(prediction, timeline=made)


def features_of(model: InferenceModel, chunk: np.ndarray) -> np.ndarray:
    """Features `(n, S, D)` of frames `(n, S, H, W, 3)`; one that lasts comes again and again, and is computed once."""
    differs = [True, *(not np.array_equal(frame, before) for before, frame in itertools.pairwise(chunk))]
    features = model.extract_stack_features(chunk if all(differs) else chunk[differs])
    return features[np.cumsum(differs) - 1]
