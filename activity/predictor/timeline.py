"""Timelines, of what happens when: probabilities of overlapping windows, smoothed over time, become labelled segments.

    windows --smooth--> probabilities of each moment --Hysteresis--> labels --short ones are merged--> segments

A live stream takes the same rule for changing its mind as a file does, so that both tell the same story.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from activity.datasets.samples import Segment
from activity.models.info import unknown_name

_MARGIN = 0.1  # of probability, by which another label must be ahead before the label changes
_FLOOR = 1e-4  # of a probability before its logarithm: no single window may veto a label
_SHORTEST_SEGMENT = 0.5  # windows
_NEWEST = 0.3  # weight of the newest window of a stream; 0.5 lets labels flicker, 0.2 is late
_EVIDENCE = 3.0  # logarithm of how much likelier another label must have become (20 times) before the past is forgotten
_DOUBT = 0.05  # of a probability before it is evidence: no single window or step is enough


@dataclass(frozen=True)
class Window:
    """Probabilities `(C,)` of `[start_seconds, end_seconds)` of a video; `first_frame` counts the sampled frames."""

    start_seconds: float
    end_seconds: float
    probabilities: np.ndarray
    first_frame: int = 0


@dataclass(frozen=True)
class Timeline:
    """A video from its beginning to its end.

    Attributes:
        edges_seconds: `(K + 1,)`, rising; moment `k` is `[edges[k], edges[k + 1])`.
        probabilities: `(K, C)`, smoothed; rows sum to 1, but for a model of several labels at once.
        segments: in order, without gaps; neighbours differ in their label. Of several labels at once, segments may
            overlap, and there are gaps where none holds.
    """

    edges_seconds: np.ndarray
    probabilities: np.ndarray
    segments: tuple[Segment, ...]


class Hysteresis:
    """Labels of one moment after the other, which change only when another label is clearly ahead.

    (A Schmitt trigger, for more than two states.) The threshold comes first: a moment in which no label reaches it is
    "unknown", and a label that does not reach it is not kept where another does.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._label_id: int | None = None

    def next(self, probabilities: np.ndarray) -> int:
        """The label id of the next moment from its `(C,)`; C is "unknown"."""
        unknown, best, kept = len(probabilities), _believed(probabilities, self._threshold), self._label_id
        if (
            kept is None
            or unknown in (best, kept)
            or probabilities[kept] < self._threshold
            or probabilities[best] > probabilities[kept] + _MARGIN
        ):
            self._label_id = kept = best
        return kept


def _believed(probabilities: np.ndarray, threshold: float) -> int:
    """The most probable label id of `(C,)`; C, "unknown", if its probability is below the threshold."""
    best = int(probabilities.argmax())
    return best if probabilities[best] >= threshold else len(probabilities)


class LiveLabels:
    """Labels of a stream, window after window, from the past alone.

    The windows so far are multiplied, the older the less weight, so that none alone outvotes earlier ones that were as
    confident; then as in a timeline. Of several labels at once, it is the most probable one.

    Once those since some moment together make another label much more likely than the one that is shown, what was
    before that is forgotten (cumulative sums, which find a change soonest for how rarely they are mistaken, Page 1954).
    Two windows or steps are enough if they are confident, several if they are not. So the label of a new activity comes
    when about three quarters of a window show it, or after a few steps, of a model that decides with each.

    Args:
        threshold: probability below which a moment is "unknown".
        multi_label: probabilities are of each label by itself.
    """

    def __init__(self, threshold: float, *, multi_label: bool = False) -> None:
        self._hysteresis, self._threshold, self._multi_label = Hysteresis(threshold), threshold, multi_label
        self._logarithms: np.ndarray | None = None
        self._shown = -1  # label id
        self._evidence = np.zeros(1)  # (C + 1,) for each label, also "unknown", against the one that is shown

    def next(self, probabilities: np.ndarray) -> tuple[int, np.ndarray]:
        """The label id after the next window `(C,)`, C is "unknown"; and the smoothed probabilities `(C,)`."""
        newest = np.log(np.maximum(probabilities, _FLOOR))
        if self._is_new(probabilities):
            self._logarithms = None
        before = newest if self._logarithms is None else self._logarithms
        self._logarithms = _NEWEST * newest + (1 - _NEWEST) * before
        fused = np.exp(self._logarithms)
        if not self._multi_label:
            fused /= fused.sum()
        label_id = self._hysteresis.next(fused)
        if label_id != self._shown:
            self._shown, self._evidence = label_id, np.zeros(len(fused) + 1)
        return label_id, fused

    def _is_new(self, probabilities: np.ndarray) -> bool:
        """Whether all since some moment, with this one, tell that another label holds by now."""
        if self._logarithms is None:
            return False
        said = np.log(np.maximum([*probabilities, self._threshold], _DOUBT))  # (C + 1,), the last of "unknown"
        self._evidence = np.maximum(0.0, self._evidence + said - said[self._shown])
        is_new = bool(self._evidence.max() > _EVIDENCE)
        if is_new:
            self._evidence[:] = 0.0
        return is_new


def make_timeline(
    windows: Sequence[Window], edges_seconds: Sequence[float], labels: Sequence[str], *, threshold: float
) -> Timeline:
    """Segments of a video from its windows.

    The probability of a segment is the mean of its label's over its moments; of an "unknown" one, the largest of these
    means. It never contradicts the threshold: only what is "unknown" is below it.

    Args:
        windows: in order of time; they cover all moments.
        edges_seconds: `(K + 1,)` of the moments, from the beginning of the video to its end.
        labels: names of the C activities.
        threshold: probability below which a moment is "unknown".
    """
    edges = np.asarray(edges_seconds, float)
    window_seconds = windows[0].end_seconds - windows[0].start_seconds
    return make_timeline_of_steps(
        _smooth(windows, edges), edges, labels, threshold=threshold, window_seconds=window_seconds
    )


def make_timeline_of_steps(
    probabilities: np.ndarray,
    edges_seconds: Sequence[float] | np.ndarray,
    labels: Sequence[str],
    *,
    threshold: float,
    window_seconds: float,
) -> Timeline:
    """Segments of a video from `(K, C)` probabilities of its moments; see `make_timeline`.

    Args:
        probabilities: rows sum to 1.
        edges_seconds: `(K + 1,)` of the moments.
        labels: names of the C activities.
        threshold: probability below which a moment is "unknown".
        window_seconds: how long activities usually last; a segment of less than half of that goes to a neighbour.
    """
    edges = np.asarray(edges_seconds, float)
    hysteresis = Hysteresis(threshold)
    label_ids = np.asarray([hysteresis.next(row) for row in probabilities])  # (K,)
    _absorb_short(label_ids, probabilities, threshold, edges, _SHORTEST_SEGMENT * window_seconds)
    for a, b in list(_runs(label_ids)):  # a short segment may have moved the mean of the one that it was merged with
        means, label_id = probabilities[a:b].mean(axis=0), label_ids[a]  # (C,)
        if label_id == len(labels) or means[label_id] < max(threshold, 1 / len(labels)):
            label_ids[a:b] = _believed(means, threshold)  # nor does a label stay where it is less probable than chance
    names, segments = [*labels, unknown_name(labels)], []
    for a, b in _runs(label_ids):
        means, label_id = probabilities[a:b].mean(axis=0), label_ids[a]  # (C,)
        probability = means.max() if label_id == len(labels) else means[label_id]
        segments.append(Segment(float(edges[a]), float(edges[b]), names[label_id], float(probability)))
    return Timeline(edges, probabilities, tuple(segments))


def make_timeline_of_labels(
    probabilities: np.ndarray,
    edges_seconds: Sequence[float] | np.ndarray,
    labels: Sequence[str],
    *,
    threshold: float,
    window_seconds: float,
) -> Timeline:
    """Segments where each label holds, of which several may at once, or none; in the order of their starts.

    The arguments are those of `held_labels`; `labels` are the names of the C activities.
    """
    edges, segments = np.asarray(edges_seconds, float), []
    held = held_labels(probabilities, edges, threshold=threshold, window_seconds=window_seconds)
    for label, of_label, holds in zip(labels, np.asarray(probabilities).T, held.T, strict=True):  # (K,)
        for a, b in _runs(holds):
            if holds[a]:
                probability = max(threshold, float(of_label[a:b].mean()))
                segments.append(Segment(float(edges[a]), float(edges[b]), label, probability))
    order = {label: number for number, label in enumerate(labels)}
    segments.sort(key=lambda segment: (segment.start_seconds, order[segment.label]))
    return Timeline(edges, np.asarray(probabilities), tuple(segments))


def held_labels(
    probabilities: np.ndarray, edges_seconds: Sequence[float] | np.ndarray, *, threshold: float, window_seconds: float
) -> np.ndarray:
    """Which labels hold at each moment, of which several may at once, or none: `(K, C)` bool.

    Args:
        probabilities: `(K, C)`, of each label by itself.
        edges_seconds: `(K + 1,)` of the moments.
        threshold: probability from which on a label holds.
        window_seconds: how long activities usually last; what holds, or does not, for less than a quarter of that
            between its like, is taken for noise.
    """
    edges, held = np.asarray(edges_seconds, float), np.asarray(probabilities) >= threshold
    for of_label, holds in zip(np.asarray(probabilities).T, held.T, strict=True):  # (K,), views of `held`
        pair, label_ids = np.column_stack([1 - of_label, of_label]), holds.astype(int)  # (K, 2), (K,)
        _absorb_short(label_ids, pair, 0.0, edges, _SHORTEST_SEGMENT / 2 * window_seconds)
        holds[:] = label_ids
    return held


def _smooth(windows: Sequence[Window], edges: np.ndarray) -> np.ndarray:
    """Probabilities `(K, C)` of moments: the windows over each multiplied, weighted by how near their middles are.

    As the members of a head are: the mean of logarithms. A window says most about its middle, and nothing about its
    ends (a triangular kernel).
    """
    middles = (edges[:-1] + edges[1:]) / 2  # (K,)
    total, weight = np.zeros((len(middles), len(windows[0].probabilities))), np.zeros((len(middles), 1))
    for window in windows:
        centre, half = (window.start_seconds + window.end_seconds) / 2, (window.end_seconds - window.start_seconds) / 2
        a, b = np.searchsorted(middles, [window.start_seconds, window.end_seconds])
        near = 1 - np.abs(middles[a:b] - centre)[:, None] / half  # (n, 1)
        total[a:b] += near * np.log(np.maximum(window.probabilities, _FLOOR))
        weight[a:b] += near
    fused = np.exp(total / weight)
    return fused / fused.sum(axis=1, keepdims=True)


def _absorb_short(
    label_ids: np.ndarray, probabilities: np.ndarray, threshold: float, edges: np.ndarray, shortest_seconds: float
) -> None:
    """Give segments that are too short, the shortest first, the label of the neighbour that fits them better."""
    scores = np.column_stack([probabilities, np.full(len(probabilities), threshold)])  # (K, C + 1)
    while len(runs := list(_runs(label_ids))) > 1:
        number = min(range(len(runs)), key=lambda i: edges[runs[i][1]] - edges[runs[i][0]])
        a, b = runs[number]
        if edges[b] - edges[a] >= shortest_seconds:
            return
        neighbours = [label_ids[runs[i][0]] for i in (number - 1, number + 1) if 0 <= i < len(runs)]
        label_ids[a:b] = max(neighbours, key=lambda label_id: scores[a:b, label_id].mean())


def _runs(label_ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """First moment of each stretch of equal labels, and the moment after its last."""
    changes = (np.flatnonzero(np.diff(label_ids)) + 1).tolist()
    yield from zip([0, *changes], [*changes, len(label_ids)], strict=True)
