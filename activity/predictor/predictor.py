"""Label videos with a model: the one way for Python, the command line and whatever comes above.

Files are decoded ahead in threads while the network runs. Frames pass through the backbone once, in chunks, so that
memory does not grow with the length of a video; windows then slide over the features.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np

from activity.errors import VideoError
from activity.models.network import InferenceModel
from activity.predictor.prediction import Failure, Prediction
from activity.predictor.sources import AT_RATE, EVENLY, FrameStream
from activity.predictor.timeline import make_timeline
from activity.predictor.windows import WindowPredictor, edges_of
from activity.runtimes.exported import load_inference_model
from activity.video.prefetch import decoders

_logger = logging.getLogger(__name__)

_MOST_THREADS = 16


class Predictor:
    """A model, loaded once, that labels any number of videos.

        predictor = Predictor.load("model.keras")
        print(predictor.predict("clip.mp4").label)

    Args:
        model: from `activity.runtimes.exported.load_inference_model`, `activity.models.classifier.load_classifier` or a
            training run.
        num_threads: videos decoded at a time, by default one per processor.
    """

    def __init__(self, model: InferenceModel, *, num_threads: int | None = None) -> None:
        self.model = model
        self.num_threads = num_threads or min(os.cpu_count() or 1, _MOST_THREADS)

    @classmethod
    def load(cls, model_path: Path | str, *, runtime: str = "auto", num_threads: int | None = None) -> Predictor:
        """Read a model file for one of `activity.runtimes.choice.RUNTIMES`.

        Raises:
            ModelFileError: it is missing, damaged or not ours.
            ActivityError: the runtime that was asked for by name cannot be had.
        """
        return cls(load_inference_model(Path(model_path), runtime=runtime), num_threads=num_threads)

    def predict(self, source: Path | str, *, timeline: bool = False) -> Prediction:
        """Label one video file; raises `VideoError` if not one frame of it can be decoded."""
        (result,) = self.predict_many([source], timeline=timeline)
        if isinstance(result, Failure):
            raise VideoError(f"{result.error}", path=source)
        return result

    def predict_many(
        self,
        sources: Iterable[Path | str],
        *,
        timeline: bool = False,
        max_seconds: float = math.inf,
        timeout_seconds: float = math.inf,
    ) -> Iterator[Prediction | Failure]:
        """Label video files, in their order; one that fails does not stop the others.

        A few are decoded ahead of the model, no more: memory does not grow with the number of videos.

        Args:
            sources: files.
            timeline: also say what happens when. A short video is then decoded twice.
            max_seconds: a video with a frame after that fails, whatever its header says.
            timeout_seconds: so long, all together, the frames of a video are waited for before it fails.
        """
        names = [str(source) for source in sources]
        # Many videos keep the processors busy one each; a single one needs them all.
        threads_each = 1 if len(names) >= self.num_threads > 1 else 0
        stop = Event()
        limits = (stop, max_seconds, timeout_seconds)
        coming = (FrameStream(name, self.model, timeline, threads_each, *limits) for name in names)
        ahead: deque[FrameStream] = deque()
        with decoders(min(self.num_threads, len(names)), stop) as decode:

            def decode_next(num_videos: int) -> None:
                for stream in islice(coming, num_videos):
                    decode(stream)
                    ahead.append(stream)

            decode_next(2 * self.num_threads)
            while ahead:
                yield self._finish(ahead.popleft(), timeline)
                decode_next(1)

    def _finish(self, stream: FrameStream, timeline: bool) -> Prediction | Failure:
        window_predictors: dict[str, list[WindowPredictor]] = {}
        half = max(1, self.model.spec.num_frames // 2)  # as where features come from a data set
        strides = [half, self.model.stride] if timeline else [half]
        for how, chunk in stream.items():
            features = self.model.extract_stack_features(chunk)  # (n, S, D)
            for predict_features in window_predictors.setdefault(
                how, [WindowPredictor(self.model, stride) for stride in strides]
            ):
                predict_features.see(features)
        if failure := stream.failure():
            return failure
        sampled = next(iter(stream.sampled.values()))
        if sampled.problem:
            _logger.warning("%s: %s", stream.source, sampled.problem)
        whole = EVENLY if EVENLY in stream.sampled else AT_RATE
        moving = AT_RATE if AT_RATE in stream.sampled else EVENLY
        windows = window_predictors[whole][0].finish(edges_of(stream.sampled[whole]))
        prediction = Prediction(
            stream.source,
            self.model.labels,
            np.mean([window.probabilities for window in windows], axis=0),
            sampled.duration_seconds,
            windows,
            self.model.threshold,
        )
        if not timeline:
            return prediction
        edges = edges_of(stream.sampled[moving])
        steps = window_predictors[moving][1].finish(edges)
        found = make_timeline(steps, edges, self.model.labels, threshold=self.model.threshold)
        return dataclasses.replace(prediction, timeline=found)
