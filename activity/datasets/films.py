"""Films: videos with the segments that are labelled in them, for what looks at a video as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from activity.datasets.samples import Sample, Segment, in_order


@dataclass(frozen=True)
class Film:
    """A video with its true segments.

    Attributes:
        path: relative to the videos folder, with forward slashes.
        group: all its segments are of this group.
        split: `train`, `val`, `test`, or empty until it is assigned.
        segments: in order of time, each of probability 1; they may overlap and leave gaps. One that lasts to the end of
            the video has an infinite end.
    """

    path: str
    group: str
    split: str
    segments: tuple[Segment, ...]


def films_in(samples: Iterable[Sample]) -> list[Film]:
    """The films of a data set, in order of their paths; none where no labelled sample has times.

    Samples without a label are left out. Where some have times, a whole video with a label is a film of one segment.

    Args:
        samples: all of the data set; those of one path are of one group and split.
    """
    labelled = [sample for sample in samples if sample.label]
    if not any(sample.is_segment for sample in labelled):
        return []
    films = []
    for path, of_path in itertools.groupby(in_order(labelled), key=lambda sample: sample.path):
        own = list(of_path)
        segments = tuple(Segment(*sample.span, sample.label, 1.0) for sample in own)
        films.append(Film(path, own[0].group, own[0].split, segments))
    return films
