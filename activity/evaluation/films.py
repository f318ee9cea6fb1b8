"""How well a classifier labels whole films, of which a data set knows the segments.

The scores of single clips say how well a segment is known once somebody has cut it out; these say what comes out of
`classify --timeline`, which has to find the boundaries too.

Of a model with a label `background`, that is the truth wherever a film has no segment between its first and its last
one. By time it is a label like any other; segments of it count in none of the measures of whole segments, as in the
code of Lea et al. (`bg_class` in `metrics.py` of github.com/colincsl/TemporalConvolutionalNetworks).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from activity.datasets.dataset import Dataset
from activity.datasets.films import BACKGROUND, Film, films_in
from activity.datasets.samples import Segment
from activity.errors import printable
from activity.evaluation.metrics import jackknife_error
from activity.evaluation.segments import (
    LabelledSeconds,
    count_matches,
    count_seconds,
    edit_score,
    f1_of,
    in_time,
    labelled_part,
    mean_average_precision,
    until,
)
from activity.models.classifier import ActivityClassifier
from activity.models.info import ModelInfo, unknown_name
from activity.models.network import InferenceModel, RunWithState
from activity.predictor.prediction import Failure, Prediction
from activity.predictor.predictor import Predictor
from activity.progress import progress_bar
from activity.runtimes.exported import open_extractor

OVERLAPS = (10, 25, 50)  # percent, of the segment F1
_TIOUS = (0.5, 0.75)  # temporal intersections over union, of the mean average precision
_FOLDER = "a folder of images; expected a video file"
_LATE = 1.0  # seconds, by which labels may outlast their film before that is said

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilmScores:
    """Scores of a film or several, each 0 to 1; see `activity.evaluation.segments`.

    Attributes:
        frame_accuracy: of all labelled time.
        frame_macro_f1: of all labelled time.
        segment_f1: by `OVERLAPS`, of all segments but those of `background`.
        edit_score: of the same segments; the mean over the films.
        mean_average_precision: of the same segments, by temporal intersection over union.
    """

    frame_accuracy: float
    frame_macro_f1: float
    segment_f1: dict[str, float]
    edit_score: float
    mean_average_precision: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The scores by their names; ready for JSON."""
        return dataclasses.asdict(self)

    def as_row(self) -> dict[str, float]:
        """The same in one level, such as `segment_f1_50`."""
        return {
            (f"{name}_{key}" if key else name): score
            for name, value in self.as_dict().items()
            for key, score in (value.items() if isinstance(value, dict) else [("", value)])
        }


@dataclass(frozen=True)
class EvaluatedFilm:
    """A film as it is labelled and as it was predicted.

    Attributes:
        path: of the film.
        group: of the film.
        truth: its true segments, none of which outlasts it; also those of `background`, if the model has that label.
        timeline: the predicted ones, also the unknown ones.
        unknown: what the label of these is.
        duration_seconds: of the film.
        fold: of a cross-validation; empty without one.
        empty: of a model of several labels at once: start and end of stretches in which no label holds.
    """

    path: str
    group: str
    truth: tuple[Segment, ...]
    timeline: tuple[Segment, ...]
    unknown: str
    duration_seconds: float
    fold: str = ""
    empty: tuple[tuple[float, float], ...] = ()

    @property
    def found(self) -> list[Segment]:
        """The predicted segments but for unknown ones."""
        return [segment for segment in self.timeline if segment.label != self.unknown]

    @cached_property
    def segments(self) -> tuple[list[Segment], list[Segment]]:
        """True and predicted segments of the labelled time, without `background`; see `labelled_part`."""
        truth, found = labelled_part(self.truth, self.found, empty=self.empty)
        return [x for x in truth if x.label != BACKGROUND], [x for x in found if x.label != BACKGROUND]

    @cached_property
    def scores(self) -> FilmScores:
        """Those of this film alone."""
        return _scores_of([self], sorted({segment.label for segment in self.truth}))

    def as_row(self) -> dict[str, object]:
        """Path, fold if there is one, seconds and scores; one level."""
        labelled = count_seconds(self.truth, (), sorted({segment.label for segment in self.truth})).total
        seconds = {"duration_seconds": self.duration_seconds, "labelled_seconds": round(labelled, 6)}
        return {"path": self.path, **({"fold": self.fold} if self.fold else {}), **seconds, **self.scores.as_row()}


@dataclass(frozen=True)
class FilmEvaluation:
    """Scores of films, and all that a report says and draws of them.

    Attributes:
        films: in order of their paths; there are no scores of none.
        labels: names of the labels of the model.
        left_out: films that could not be read, and why.
    """

    films: tuple[EvaluatedFilm, ...]
    labels: tuple[str, ...]
    left_out: tuple[Failure, ...] = ()

    @cached_property
    def scores(self) -> FilmScores:
        """Pooled over the films."""
        return _scores_of(self.films, self.labels)

    @cached_property
    def frame_f1(self) -> dict[str, float]:
        """F1 by time of each label that is true at some time, of which `frame_macro_f1` is the mean."""
        seconds = _sum(_seconds_of(self.films, self.labels))
        return {self.labels[i]: float(seconds.f1[i]) for i in np.flatnonzero(seconds.true[: len(self.labels)]).tolist()}

    @cached_property
    def standard_errors(self) -> dict[str, float | None]:
        """Those of `frame_accuracy` and `frame_macro_f1` over the films, by the jackknife over their groups.

        `None` of a single film.
        """
        seconds, groups = _seconds_of(self.films, self.labels), [film.group for film in self.films]
        columns = [np.stack([getattr(x, field.name) for x in seconds]) for field in dataclasses.fields(LabelledSeconds)]

        def of(name: str) -> float | None:
            return jackknife_error(lambda taken: getattr(LabelledSeconds(*(taken @ x for x in columns)), name), groups)

        return {"frame_accuracy": of("accuracy"), "frame_macro_f1": of("macro_f1")}

    def as_dict(self) -> dict[str, Any]:
        """The pooled scores, `frame_f1` by label, `film_standard_errors`, `films`, `films_left_out`; for JSON."""
        names = ("path", "fold", "duration_seconds", "labelled_seconds")
        return {
            **self.scores.as_dict(),
            "frame_f1": self.frame_f1,
            "film_standard_errors": self.standard_errors,
            "films": [
                {**{name: value for name, value in film.as_row().items() if name in names}, **film.scores.as_dict()}
                for film in self.films
            ],
            "films_left_out": [{"path": failure.source, "error": failure.error} for failure in self.left_out],
        }

    def rows(self) -> list[dict[str, object]]:
        """A row for each film, in their order."""
        return [film.as_row() for film in self.films]

    def notes(self) -> dict[str, str]:
        """Name -> a line for a terminal."""
        scores = self.scores
        f1 = ", ".join(f"{score:.3f} at {overlap} %" for overlap, score in scores.segment_f1.items())
        precision = ", ".join(f"{score:.3f} at {tiou}" for tiou, score in scores.mean_average_precision.items())
        frames = f"frame accuracy {self._with_error('frame_accuracy')}, macro-F1 {self._with_error('frame_macro_f1')}"
        return {
            "films": f"{frames} ({self._counted}){f'; {self._absent}' if self.left_out else ''}",
            "segments": f"F1 {f1} overlap; edit score {scores.edit_score:.3f}",
            "detection": f"mean average precision {precision} temporal intersection over union",
        }

    def _with_error(self, name: str) -> str:
        error = self.standard_errors[name]
        return f"{getattr(self.scores, name):.3f}" + ("" if error is None else f" +- {error:.3f}")

    @property
    def _counted(self) -> str:
        seconds = _sum(_seconds_of(self.films, self.labels)).total
        return f"{len(self.films)} film{'s' * (len(self.films) > 1)}, {seconds:.1f} s of them labelled"

    @property
    def _absent(self) -> str:
        return f"{len(self.left_out)} film{'s' * (len(self.left_out) > 1)} left out"

    def headline(self) -> list[tuple[str, str, str]]:
        """The numbers that count most: the name, value and detail of each."""
        error = self.standard_errors["frame_accuracy"]
        detail = f"{len(self.films)} films" + ("" if error is None else f", standard error {error:.3f}")
        return [
            ("frame accuracy", f"{self.scores.frame_accuracy:.3f}", detail),
            ("segment F1", f"{self.scores.segment_f1['50']:.3f}", "at 50 % overlap"),
        ]

    def sentences(self) -> list[str]:
        """Sentences on what was evaluated, and what counts."""
        left_out = f" {self._absent}, which could not be read." if self.left_out else ""
        between = (
            "What no label covers between the segments of a film is background; as a segment that counts nowhere"
            if BACKGROUND in self.labels
            else "Time without a label counts nowhere, segments of one label that only such time parts are one"
        )
        return [
            f"Whole films: {self._counted}, as classify --timeline labels them. {between}, and unknown is a miss."
            f"{left_out}"
        ]

    def ranking(self) -> list[int]:
        """Indices of the films, the lowest frame accuracy first."""
        return np.argsort([film.scores.frame_accuracy for film in self.films], kind="stable").tolist()

    def printable(self) -> FilmEvaluation:
        """A copy with names that fonts and UTF-8 take."""

        def named(segments: Iterable[Segment]) -> tuple[Segment, ...]:
            return tuple(dataclasses.replace(segment, label=printable(segment.label)) for segment in segments)

        films = tuple(
            dataclasses.replace(
                film,
                path=printable(film.path),
                group=printable(film.group),
                unknown=printable(film.unknown),
                fold=printable(film.fold),
                truth=named(film.truth),
                timeline=named(film.timeline),
            )
            for film in self.films
        )
        left_out = tuple(Failure(*map(printable, (failure.source, failure.error))) for failure in self.left_out)
        return FilmEvaluation(films, tuple(map(printable, self.labels)), left_out)


def _seconds_of(films: Iterable[EvaluatedFilm], labels: Sequence[str]) -> list[LabelledSeconds]:
    return [count_seconds(film.truth, film.found, labels, empty=film.empty) for film in films]


def _sum(seconds: Iterable[LabelledSeconds]) -> LabelledSeconds:
    return functools.reduce(operator.add, seconds)


def _scores_of(films: Sequence[EvaluatedFilm], labels: Sequence[str]) -> FilmScores:
    """Pooled scores of films, of one or more labels, among them all true ones."""
    seconds, segments = _sum(_seconds_of(films, labels)), [film.segments for film in films]

    def pooled_f1(percent: int) -> float:
        return f1_of(*np.sum([count_matches(*both, overlap=percent / 100) for both in segments], axis=0).tolist())

    return FilmScores(
        seconds.accuracy,
        seconds.macro_f1,
        {str(percent): pooled_f1(percent) for percent in OVERLAPS},
        float(np.mean([edit_score(*both) for both in segments])),
        {str(tiou): mean_average_precision(segments, overlap=tiou) for tiou in _TIOUS},
    )


def films_to_evaluate(dataset: Dataset, split: str = "") -> list[Film]:
    """The films of a split of a data set, or of all, with a label; none where no label has times.

    Where some have, a whole video with a label is a film of one segment. Of feature files there are none, and a line
    says so.
    """
    has_times = any(sample.label and sample.is_segment for sample in dataset.samples)
    films = [film for film in films_in(dataset.samples) if has_times and film.segments and split in ("", film.split)]
    if films and dataset.features:
        _logger.warning("%d films are not evaluated: a model of feature files does not read videos", len(films))
        return []
    return films


def evaluate_films(
    classifier: ActivityClassifier, dataset: Dataset, films: Sequence[Film], *, runtime: str = "auto", fold: str = ""
) -> FilmEvaluation:
    """Label whole films and compare with their true segments; those that cannot be read are left out, with a line why.

    Args:
        classifier: whose labels are those of the films, and maybe more.
        dataset: whose `videos_dir` holds the films.
        films: of the data set, see `films_to_evaluate`.
        runtime: what computes the features; see `activity.runtimes.choice`.
        fold: of a cross-validation.
    """
    if not films:
        return FilmEvaluation((), classifier.labels)
    folders = [film for film in films if (dataset.videos_dir / film.path).is_dir()]
    files = [film for film in films if film not in folders]
    predictor = Predictor(_with_runtime(classifier, films, runtime))
    results = predictor.predict_many([dataset.videos_dir / film.path for film in files], timeline=True)
    results = progress_bar(results, total=len(files), desc="films", unit="film")
    outcomes: dict[str, EvaluatedFilm | Failure] = {film.path: Failure(film.path, _FOLDER) for film in folders}
    for film, result in zip(files, results, strict=True):
        outcomes[film.path] = (
            Failure(film.path, result.error)
            if isinstance(result, Failure)
            else _compared(film, result, fold, multi_label=classifier.info.multi_label)
        )
    in_order = [outcomes[path] for path in sorted(outcomes)]
    evaluated = tuple(outcome for outcome in in_order if isinstance(outcome, EvaluatedFilm))
    left_out = tuple(outcome for outcome in in_order if isinstance(outcome, Failure))
    for failure in left_out:
        what = "%s: not evaluated as a film: %s"
        _logger.warning(what, dataset.videos_dir / failure.source, failure.error)
    return FilmEvaluation(evaluated, classifier.labels, left_out)


def join_films(parts: Iterable[FilmEvaluation]) -> FilmEvaluation | None:
    """The films of several evaluations of the same labels in one; `None` if there are none that could be read."""
    parts = list(parts)
    films = sorted((film for part in parts for film in part.films), key=lambda film: film.path)
    left_out = sorted((failure for part in parts for failure in part.left_out), key=lambda failure: failure.source)
    return FilmEvaluation(tuple(films), parts[0].labels, tuple(left_out)) if films else None


def _compared(film: Film, prediction: Prediction, fold: str, *, multi_label: bool) -> EvaluatedFilm | Failure:
    """A film beside its timeline, or why they cannot be compared."""
    assert prediction.timeline
    end, labelled = prediction.duration_seconds, [*film.segments]
    if BACKGROUND in prediction.labels and not multi_label:
        labelled += [Segment(*gap, BACKGROUND, 1.0) for gap in film.gaps]
    empty = tuple((start, min(last, end)) for start, last in film.gaps if multi_label and start < end)
    truth = until(in_time(labelled), end)
    if not truth:
        return Failure(film.path, f"it lasts {end:.2f} s, and all of its labels begin later")
    last = max((segment.end_seconds for segment in film.segments if np.isfinite(segment.end_seconds)), default=0.0)
    if last > end + _LATE:
        what = "%s: its labels go on to %.2f s, and it lasts %.2f s; what comes later does not count"
        _logger.warning(what, prediction.source, last, end)
    unknown = unknown_name(prediction.labels)
    segments = prediction.timeline.segments
    return EvaluatedFilm(film.path, film.group, tuple(truth), segments, unknown, end, fold, empty)


def _with_runtime(classifier: ActivityClassifier, films: Sequence[Film], runtime: str) -> InferenceModel:
    """The same model, whose features are computed by a runtime."""
    lengths = (max(segment.start_seconds for segment in film.segments) for film in films)  # at least
    num_images = int(sum(lengths) * classifier.window_rate) * len(classifier.spec.streams)
    extract = open_extractor(classifier.backbone, runtime, num_images=num_images, cache_dir=None)
    return _WithExtractor(classifier, extract)


class _WithExtractor(InferenceModel):
    def __init__(self, classifier: ActivityClassifier, extract: Callable[[np.ndarray], np.ndarray]) -> None:
        self.info: ModelInfo = classifier.info
        self._classifier, self._extract = classifier, extract

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        return self._extract(images)

    def run_head(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._classifier.run_head(features, mask)

    def open_states(self) -> RunWithState:
        return self._classifier.open_states()
