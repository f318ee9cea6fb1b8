"""How well the segments of films were predicted: by time, as wholes, in their order, and as ranked detections.

True and predicted segments may overlap, where models give several labels at once. Measures by time are exact: a film is
cut at all boundaries of its segments, so no grid of frames has to be chosen, and none moves the score.

Time that no true segment covers is not labelled, and counts nowhere: `frame_accuracy` and `count_seconds` leave it out,
the measures of whole segments are given what `labelled_part` leaves of a film. What a model calls "unknown" is to be
left out of its segments: it is a miss, and no wrong answer beside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from activity.datasets.samples import Segment

FilmSegments: TypeAlias = tuple[Sequence[Segment], Sequence[Segment]]  # true and predicted ones of a film

_NEGLIGIBLE = 1e-6  # seconds: times of manifests are rounded to these
_ROUNDING = 1e-9  # of an intersection over union: what is half of a segment by its times is half


def until(segments: Sequence[Segment], seconds: float) -> list[Segment]:
    """Segments up to a time, such as the end of their film; those that begin there or later are left out."""
    cut = (dataclasses.replace(segment, end_seconds=min(segment.end_seconds, seconds)) for segment in segments)
    return [segment for segment in cut if _length(segment) > _NEGLIGIBLE]


def labelled_part(
    truth: Sequence[Segment], found: Sequence[Segment], *, empty: Sequence[tuple[float, float]] = ()
) -> tuple[list[Segment], list[Segment]]:
    """What is left of a film without the time that no true segment covers, on a clock that stands still in between.

    Then segments of one label that touch are one, as in timelines: nobody can say what was between them. Its
    probability is the mean over its time. So a prediction is not blamed for what it says where nothing is labelled, nor
    for going on there.

    Args:
        truth: with finite ends; may be empty, and nothing is left then.
        found: the predicted ones.
        empty: start and end of stretches in which it is known that no label holds; they stay.
    """
    edges: list[float] = []  # start and end of each stretch with labels, one after the other
    for start, end in sorted([*((segment.start_seconds, segment.end_seconds) for segment in truth), *empty]):
        if edges and start <= edges[-1]:
            edges[-1] = max(edges[-1], end)
        else:
            edges += [start, end]
    if not edges:
        return [], []
    lengths = np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0)  # no time passes between two stretches
    clock = np.concatenate([[0.0], np.cumsum(lengths)])
    mapped = (
        [
            dataclasses.replace(segment, start_seconds=float(start), end_seconds=float(end))
            for segment in segments
            for start, end in [np.interp([segment.start_seconds, segment.end_seconds], edges, clock)]
            if end - start > _NEGLIGIBLE
        ]
        for segments in (truth, found)
    )
    left, right = map(_joined, mapped)
    return left, right


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Segments of which those of one label do not touch, in order of time."""
    joined: list[Segment] = []
    by_label = sorted(segments, key=lambda segment: (segment.label, segment.start_seconds, segment.end_seconds))
    for segment in by_label:
        last = joined[-1] if joined else None
        if last and last.label == segment.label and segment.start_seconds <= last.end_seconds + _NEGLIGIBLE:
            joined[-1] = dataclasses.replace(
                last,
                end_seconds=max(last.end_seconds, segment.end_seconds),
                probability=float(
                    np.average([last.probability, segment.probability], weights=[_length(last), _length(segment)])
                ),
            )
        else:
            joined.append(segment)
    return in_time(joined)


def in_time(segments: Sequence[Segment]) -> list[Segment]:
    """Segments in the order of their beginnings; of those that begin together, the one that ends first comes first."""
    return sorted(segments, key=lambda segment: (segment.start_seconds, segment.end_seconds, segment.label))


def _length(segment: Segment) -> float:
    return segment.end_seconds - segment.start_seconds


# === By time ===


@dataclass(frozen=True)
class LabelledSeconds:
    """Seconds of the labelled time of a film, or of several; those of L labels are arrays.

    Attributes:
        total: all labelled time.
        correct: of it with the correct label. A moment with several true or predicted labels counts by how many of all
            these are both (the accuracy of Godbole & Sarawagi 2004, the Jaccard index).
        true: `(L,)` of each label.
        found: `(L,)` predicted, in labelled time.
        both: `(L,)` true and predicted.
    """

    total: float
    correct: float
    true: np.ndarray
    found: np.ndarray
    both: np.ndarray

    def __add__(self, other: LabelledSeconds) -> LabelledSeconds:
        names = [field.name for field in dataclasses.fields(self)]
        return LabelledSeconds(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def accuracy(self) -> float:
        """Fraction of the labelled time that has the correct label, 0 to 1."""
        return self.correct / self.total

    @property
    def f1(self) -> np.ndarray:
        """F1 by time of each label, `(L,)`, 0 to 1; 0 of one that is never true."""
        return 2 * self.both / np.maximum(self.true + self.found, _NEGLIGIBLE)

    @property
    def macro_f1(self) -> float:
        """Mean of `f1` over the labels that are true at some time, 0 to 1: rare ones count like frequent ones.

        Time that is wrongly taken for a label that is never true still counts against the true one.
        """
        return float(self.f1[self.true > 0].mean())


def count_seconds(
    truth: Sequence[Segment],
    found: Sequence[Segment],
    labels: Sequence[str],
    *,
    empty: Sequence[tuple[float, float]] = (),
) -> LabelledSeconds:
    """Seconds of a film by label.

    Args:
        truth: one or more segments with finite ends.
        found: the predicted ones.
        labels: names of the L labels, among them all true ones; what else is predicted is wrong.
        empty: see `labelled_part`; to predict nothing is correct there.
    """
    rows = {label: row for row, label in enumerate(dict.fromkeys([*labels, *(segment.label for segment in found)]))}
    spans = [*((x.start_seconds, x.end_seconds) for x in (*truth, *found)), *empty]
    edges = np.unique([time for span in spans for time in span])  # (K + 1,)
    is_true, is_found = (np.zeros((len(rows), len(edges) - 1), bool) for _ in range(2))
    for segments, active in ((truth, is_true), (found, is_found)):
        for segment in segments:
            start, end = np.searchsorted(edges, [segment.start_seconds, segment.end_seconds])
            active[rows[segment.label], start:end] = True
    known = is_true.any(axis=0)  # (K,)
    for first, last in empty:
        known |= (edges[:-1] >= first) & (edges[1:] <= last)
    seconds = np.diff(edges) * known  # (K,), 0 where nothing is known
    any_of, both = (is_true | is_found).sum(axis=0), is_true & is_found
    return LabelledSeconds(
        float(seconds.sum()),
        float(seconds @ np.where(any_of, both.sum(axis=0) / np.maximum(any_of, 1), 1.0)),
        *(active[: len(labels)] @ seconds for active in (is_true, is_found, both)),
    )


def frame_accuracy(truth: Sequence[Segment], found: Sequence[Segment]) -> float:
    """Fraction of the labelled time of a film that has the correct label, 0 to 1; see `LabelledSeconds`.

    Args:
        truth: one or more segments with finite ends.
        found: the predicted ones.
    """
    return count_seconds(truth, found, sorted({segment.label for segment in truth})).accuracy


# === As wholes, and in their order ===


def count_matches(truth: Sequence[Segment], found: Sequence[Segment], *, overlap: float) -> tuple[int, int, int]:
    """How many predicted segments of a film are correct, are wrong, and how many true ones were missed.

    The rule of Lea et al. 2017 (arxiv.org/abs/1611.05267): each predicted segment, in order of time, is compared with
    the true one of its label with the largest intersection over union. It is correct if that is at least `overlap`, and
    no other was correct by the same one before.

    Args:
        truth: the true ones.
        found: the predicted ones.
        overlap: intersection over union that counts, above 0 up to 1.
    """
    truth, taken = in_time(truth), set()
    for segment in in_time(found):
        unions = [_overlap(true, segment) if true.label == segment.label else 0.0 for true in truth]
        best = int(np.argmax(unions)) if unions else 0
        if unions and unions[best] >= overlap - _ROUNDING:
            taken.add(best)
    return len(taken), len(found) - len(taken), len(truth) - len(taken)


def f1_of(num_correct: int, num_wrong: int, num_missed: int) -> float:
    """F1 of such counts, 0 to 1; 0 if there is nothing."""
    return 2 * num_correct / max(2 * num_correct + num_wrong + num_missed, 1)


def segment_f1(truth: Sequence[Segment], found: Sequence[Segment], *, overlap: float = 0.5) -> float:
    """F1 of whole segments, 0 to 1; see `count_matches`, also for the arguments.

    Unlike `frame_accuracy` it punishes a true segment that is found in pieces.
    """
    return f1_of(*count_matches(truth, found, overlap=overlap))


def edit_score(truth: Sequence[Segment], found: Sequence[Segment]) -> float:
    """How far the order of the labels is that of the truth, 0 to 1, however long each lasts.

    The segmental edit score of Lea et al. 2016 (arxiv.org/abs/1602.02995), there in percent: 1 less the Levenshtein
    distance between both orders of labels, divided by the length of the longer one. 1 if both are empty.
    """
    a, b = ([segment.label for segment in in_time(segments)] for segments in (truth, found))
    row = list(range(len(b) + 1))  # distances of the beginnings of b from what was read of a
    for i, label in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            before, row[j] = row[j], min(before + (label != other), row[j] + 1, row[j - 1] + 1)
    return 1 - row[-1] / max(len(a), len(b), 1)


# === As ranked detections ===


def mean_average_precision(films: Sequence[FilmSegments], *, overlap: float) -> float:
    """Mean over the true labels of `average_precision`, 0 to 1, 0 if there are none; see there for the arguments."""
    labels = sorted({segment.label for truth, _ in films for segment in truth})
    return float(np.mean([average_precision(films, label, overlap=overlap) for label in labels] or [0.0]))


def average_precision(films: Sequence[FilmSegments], label: str, *, overlap: float) -> float:
    """Interpolated average precision of the predicted segments of a label, over all films, 0 to 1.

    As ActivityNet computes it (`eval_detection.py` of github.com/activitynet/ActivityNet): the most probable segments
    come first; each takes, among the true ones of its film that are not taken, the one with the largest intersection
    over union in time, if that is at least `overlap`. Precision is made to fall only with recall. Of segments that are
    equally probable, those of earlier films come first, then earlier ones.

    Args:
        films: true and predicted segments of each.
        label: that is true somewhere.
        overlap: intersection over union that counts, above 0 up to 1.
    """
    truths = [[segment for segment in truth if segment.label == label] for truth, _ in films]
    ranked = [(film, segment) for film, (_, found) in enumerate(films) for segment in in_time(found)]
    ranked = [(film, segment) for film, segment in ranked if segment.label == label]
    taken: set[tuple[int, int]] = set()
    is_correct = np.zeros(len(ranked), bool)
    for rank, (film, segment) in enumerate(sorted(ranked, key=lambda one: -one[1].probability)):
        unions = [_overlap(true, segment) for true in truths[film]]
        free = [i for i in range(len(unions)) if (film, i) not in taken and unions[i] >= overlap - _ROUNDING]
        if free:
            is_correct[rank] = True
            taken.add((film, max(free, key=lambda i: unions[i])))
    num_correct = np.cumsum(is_correct)
    recall = num_correct / sum(map(len, truths))
    precision = num_correct / np.arange(1, len(ranked) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    return float(np.diff(recall, prepend=0.0) @ highest)


def _overlap(a: Segment, b: Segment) -> float:
    """Intersection over union, 0 to 1."""
    shared = min(a.end_seconds, b.end_seconds) - max(a.start_seconds, b.start_seconds)
    return max(0.0, shared) / (_length(a) + _length(b) - max(0.0, shared))
