"""Films: videos with the segments that are labelled in them, for what looks at a video as a whole."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from activity.datasets.samples import Sample, Segment, content_of, file_of, in_order

BACKGROUND = "background"  # the label of what lies between labelled segments, where it is one
AT_RATE = "_at_"  # in the id of a whole film, before its rate


@dataclass(frozen=True)
class Film:
    """A video, as the rows that a data set has of it.

    Attributes:
        rows: its segments in order of time, also those without a label; they may overlap and leave gaps.
    """

    rows: tuple[Sample, ...]

    @property
    def path(self) -> str:
        """Relative to the videos folder, with forward slashes."""
        return self.rows[0].path

    @property
    def group(self) -> str:
        """Of all its segments."""
        return self.rows[0].group

    @property
    def split(self) -> str:
        """Of all its segments: `train`, `val`, `test`, or empty until it is assigned."""
        return self.rows[0].split

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The labelled ones, each of probability 1; one that lasts to the end of the video has an infinite end."""
        return tuple(Segment(*row.span, row.label, 1.0) for row in self.rows if row.label)

    @property
    def gaps(self) -> tuple[tuple[float, float], ...]:
        """Start and end in seconds of what no row covers between the first and the last labelled segment."""
        labelled = [row.span for row in self.rows if row.label]
        time, last = labelled[0][0] if labelled else 0.0, max((end for _, end in labelled), default=0.0)
        gaps = []
        for start, end in (row.span for row in self.rows):
            if time < min(start, last):
                gaps.append((time, min(start, last)))
            time = max(time, end)
        return tuple(gaps)

    @property
    def film_id(self) -> str:
        """A name for files, which also tells the content of the video; not the times of its rows."""
        first = self.rows[0]
        return f"{first.sample_id.rpartition('-')[0]}-{file_of(content_of(first))}"

    def whole(self, rate: float) -> Sample:
        """A sample of the whole video, without a label, read at a rate in frames a second, which its id tells."""
        first, id_ = self.rows[0], f"{self.film_id}{AT_RATE}{rate:.6g}"
        seconds = max(row.span[0] + row.duration_seconds for row in self.rows)  # at least
        whole = dataclasses.replace(first, label="", captions=(), start_seconds=None, end_seconds=None)
        return dataclasses.replace(whole, sample_id=id_, duration_seconds=seconds, num_frames=0)


def films_in(samples: Iterable[Sample]) -> list[Film]:
    """The films of a data set, in order of their paths; samples of one path are of one group and split."""
    by_path = itertools.groupby(in_order(samples), key=lambda sample: sample.path)
    return [Film(tuple(rows)) for _, rows in by_path]
