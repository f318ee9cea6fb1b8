"""What a reader of annotations gives: records as their file has them, and what is wrong with it; what a writer gets.

    file --content--> text, tables, JSON or XML --a format's module--> records --matching--> samples

A module of this package that has `FORMATS` is a format; see `activity.datasets.annotations.formats`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from activity.datasets.annotations.content import AnnotationFile, Table

if TYPE_CHECKING:
    from activity.datasets.samples import Segment

ERROR, WARNING = "ERROR", "WARNING"

Time: TypeAlias = "str | float | None"  # as it is written; None or empty: the beginning, or the end


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row.

    Attributes:
        severity: `ERROR`: something is not read; `WARNING`: it is, or was not meant to be a label.
        where: the row, as the file counts or names it.
        reason: what was expected and what was received.
    """

    severity: str
    where: str
    reason: str


@dataclass(frozen=True)
class Film:
    """A film as a file of annotations has it.

    Attributes:
        name: its path, on whichever machine, or a part of it.
        rate: frames a second.
        seconds: its length.
        num_frames: that were labelled one by one.
        is_beside: whether the name is that of the file of its labels, which may be kept in a folder of their own.
    """

    name: str
    rate: float | None = None
    seconds: float | None = None
    num_frames: int | None = None
    is_beside: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """A label with a start and an end, or one of both.

    Attributes:
        where: the row, for people.
        films: what was played one after the other, on one clock; usually one.
        label: name of the activity.
        start, end: seconds, also as `mm:ss` or `hh:mm:ss`, or with `in_frames` numbers of frames: from the frame
            `start`, counted from 0, to before the frame `end`.
        in_frames: whether times are numbers of frames.
        event: `START` and `STOP` are halves, which are paired, and `POINT` has no length; they have no `end`.
        offset: seconds that times are ahead of the clock of the films.
        total_seconds: of all films together, where the file does not say which there were.
        tier: of which it is a part, where the format has tiers.
        split: `train`, `val` or `test`, if the file says so.
        columns: whatever else is known, carried through.
    """

    where: str
    films: tuple[Film, ...]
    label: str
    start: Time = None
    end: Time = None
    in_frames: bool = False
    event: Literal["", "START", "STOP", "POINT"] = ""
    offset: float = 0.0
    total_seconds: float | None = None
    tier: str = ""
    split: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass
class Annotations:
    """The content of a file.

    Attributes:
        records: in the order of the file.
        problems: rows that give no record, and what else is to be said.
        tiers: names of all tiers; `None`: the format has none.
    """

    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    tiers: tuple[str, ...] | None = None

    def error(self, where: str, reason: str) -> None:
        """Note a row that cannot be read."""
        self.problems.append(Problem(ERROR, where, reason))

    def warn(self, where: str, reason: str) -> None:
        """Note what should be known of a row."""
        self.problems.append(Problem(WARNING, where, reason))

    def rows_below(self, table: Table, header: int) -> Iterator[tuple[str, dict[str, str]]]:
        """`where` and the cells by column of each row below a header; columns without a name are left out.

        A row with more cells than the header, and columns of one name, are errors: what is what is not known.
        """
        names = table.rows[header].cells
        if twice := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
            self.error(table.rows[header].where, f"columns that occur more than once: {', '.join(twice)}")
            return
        for row in table.rows[header + 1 :]:
            if any(row.cells[len(names) :]):
                self.error(row.where, f"expected {len(names)} fields, as the header has, received {len(row.cells)}")
                continue
            yield row.where, {name: cell for name, cell in zip(names, row.cells, strict=False) if name}


def plain_text(value: object) -> str:
    """A text or number as text; empty for anything else."""
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


def positive(value: object) -> float | None:
    """A number above 0 that a description has, also as text; `None` if it is none, which it may be."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) else 0.0
    except (ValueError, OverflowError):
        return None
    return number if 0 < number < math.inf else None


@dataclass(frozen=True, kw_only=True)
class LabelledFilm:
    """A film with its labels, to be written.

    Attributes:
        address: its path, absolute, or its URL.
        seconds: its length.
        rate: frames a second, above 0; the same all through the film.
        num_frames: 1 or more.
        labels: names of all activities, whether they occur or not.
        segments: parts with one of these labels, in order of time; they do not overlap, and may leave gaps.
    """

    address: str
    seconds: float
    rate: float
    num_frames: int
    labels: tuple[str, ...]
    segments: tuple[Segment, ...]

    @property
    def is_url(self) -> bool:
        """Whether it comes from a network."""
        return "://" in self.address

    @property
    def name(self) -> str:
        """Of the file, without its folder."""
        return Path(self.address).name

    def frames_of(self, segment: Segment) -> tuple[int, int]:
        """The first frame of a segment, counted from 0, and the one after its last; at least one frame."""
        start = min(round(segment.start_seconds * self.rate), self.num_frames - 1)
        return start, min(max(round(segment.end_seconds * self.rate), start + 1), self.num_frames)


@dataclass(frozen=True)
class Format:
    """A format of annotations.

    Attributes:
        name: of the tool and kind of file, for people.
        recognise: whether a file is of this format, by its content.
        read: the records of such a file.
        default_rate: frames a second that the tool counts by where it is not told another rate.
        ending: of the files that `write` makes; up to its first dot it is the name of the format on the command line.
        write: the text of a file with the labels of a film, to lie at a path; `None`: it is only read.
    """

    name: str
    recognise: Callable[[AnnotationFile], bool]
    read: Callable[[AnnotationFile], Annotations]
    default_rate: float | None = None
    ending: str = ""
    write: Callable[[LabelledFilm, Path], str] | None = None
