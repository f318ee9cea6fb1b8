"""Samples: videos, images or segments with a label, captions or both, each of a group and in a split.

A group is what clips have in common beside their label: the person, the recording, the place. Clips of one group are
never in two splits, else the score measures how well the model knows the group, not the activity.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activity.errors import printable
from activity.files import digest_of, digest_of_file
from activity.video.images import IMAGES_PER_SECOND, images_of

SPLITS = ("train", "val", "test")
TIME_COLUMNS = ("start_seconds", "end_seconds")  # of segments
_PLAIN_PATH = re.compile(r"[A-Za-z0-9.]{1,20}/[A-Za-z0-9_.]{1,59}")  # can be told from its name, where '/' is '_'


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One video, image, or segment of a video, with its label, its captions or both.

    Attributes:
        path: relative to the videos folder, with forward slashes.
        label: name of its activity; empty without one.
        group: clips of one group stay in one split.
        split: `train`, `val`, `test`, or empty until it is assigned.
        sample_id: names its files in the data set folder; empty until it is preprocessed.
        num_frames: decoded from the video, or lying in the segment.
        duration_seconds: of the video or segment.
        start_seconds: of a segment, from the first frame of the video; `None`: from the beginning.
        end_seconds: what a segment no longer holds begins there; `None`: to the end.
        extra: further columns of the user's manifest, carried through.
        captions: its reference sentences, in the order of the manifest.
    """

    path: str
    label: str
    group: str
    split: str = ""
    sample_id: str = ""
    num_frames: int = 0
    duration_seconds: float = 0.0
    start_seconds: float | None = None
    end_seconds: float | None = None
    extra: dict[str, str] = field(default_factory=dict)
    captions: tuple[str, ...] = ()

    @property
    def span(self) -> tuple[float, float]:
        """`start_seconds, end_seconds` as numbers: 0 and infinity of a whole video."""
        return self.start_seconds or 0.0, math.inf if self.end_seconds is None else self.end_seconds

    @property
    def is_segment(self) -> bool:
        """Whether it is not a whole video."""
        return self.span != (0.0, math.inf)

    @property
    def name(self) -> str:
        """Its name for people: its path, and of a segment its times."""
        start, end = self.span
        times = f"{start}-{end} s" if end < math.inf else f"{start} s to the end"
        return f"{self.path} [{times}]" if self.is_segment else self.path


@dataclass(frozen=True)
class VideoList:
    """The videos of a folder or manifest.

    Attributes:
        videos_dir: what `Sample.path` is relative to.
        samples: in order of their paths and times.
        skipped: reason -> number of files that are no videos by their names: `hidden`, `image`, `sidecar` ...
        missing: path -> reason, of what is named in a manifest or split list but is not there or says nothing, and of
            what might be a video but cannot be read.
        problems: file and row -> what is wrong there, in labels of another tool: `ERROR: ...`, or `WARNING: ...`.
    """

    videos_dir: Path
    samples: list[Sample]
    skipped: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def with_ids(listed: VideoList, images_per_second: float = IMAGES_PER_SECOND) -> VideoList:
    """Give each sample its id: its path, a digest of its content, and its times, so that a changed one is a new sample.

    Reading a file costs little beside decoding it, and times of change do not survive a copy.

    Args:
        listed: samples of files, and of folders of images.
        images_per_second: of those folders; it counts as content.
    """
    unread: dict[str, str] = {}

    def read(path: str) -> str:
        try:
            video = listed.videos_dir / path
            if not video.is_dir():
                return digest_of_file(video)
            images = [(number, digest_of_file(video / name)) for number, name in images_of(video).items()]
            return digest_of([images_per_second, images], size=8)
        except OSError as error:
            unread[path] = f"cannot be opened: {error.strerror or error}"
            return ""

    paths = list(dict.fromkeys(sample.path for sample in listed.samples))
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(paths, pool.map(read, paths), strict=True))
    identified, seen = [], Counter[str]()
    for sample in listed.samples:
        if sample.path not in unread:
            id_ = f"{_id_name(sample.path)}-{digests[sample.path]}{_id_times(sample)}"
            seen[id_] += 1
            more = f"_label{seen[id_]}" if seen[id_] > 1 else ""  # of the very same times
            identified.append(dataclasses.replace(sample, sample_id=id_ + more))
    return dataclasses.replace(listed, samples=identified, missing={**listed.missing, **unread})


def _id_times(sample: Sample) -> str:
    """`_12.5_15` of a segment, nothing of a whole video: its id is as it was before there were segments."""
    return "".join(f"_{time:.6f}".rstrip("0").rstrip(".") for time in sample.span) if sample.is_segment else ""


def _id_name(path: str) -> str:
    """A path as part of a file name, unique to it by a digest where the name does not show all of the path."""
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", path)[-80:]
    if _PLAIN_PATH.fullmatch(path):
        return name
    return f"{name}-{digest_of(path.encode(), size=4)}"


def content_of(sample: Sample) -> str:
    """The content of a sample, with which its id ends: the digest of its file, and the times of a segment."""
    return sample.sample_id.rpartition("-")[2]


def file_of(content: str) -> str:
    """The digest of the file alone: segments of it show different things, but one person or place."""
    return content.partition("_")[0]


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """Samples by path, and by time within a video."""
    return sorted(samples, key=lambda sample: (sample.path, sample.span, sample.label))


def labels_of(samples: Iterable[Sample]) -> list[str]:
    """The distinct labels in alphabetical order: position is the label id."""
    return sorted({sample.label for sample in samples} - {""})


def labels_without(samples: Iterable[Sample], split: str) -> list[str]:
    """Labels of which no sample is in `split`."""
    samples = list(samples)
    return sorted({*labels_of(samples)} - {s.label for s in samples if s.split == split})


def caption_counts(samples: Iterable[Sample]) -> str:
    """How many captions there are, of how many samples, and of how many words, in one line; empty if there are none."""
    captions = [sample.captions for sample in samples if sample.captions]
    words = [word for several in captions for caption in several for word in re.findall(r"\w+", caption.casefold())]
    num = sum(map(len, captions))
    of = f"{num} captions of {len(captions)} samples ({num / max(len(captions), 1):.3g} each)"
    return f"{of}, {len(words)} words, {len({*words})} of them distinct" if captions else ""


def films_of(samples: Iterable[Sample]) -> dict[str, list[str]]:
    """Path -> labels of the segments of each video that has two or more, in the order of time.

    A label that goes on in the next segment counts once, as in timelines.
    """
    labelled = [sample for sample in in_order(samples) if sample.label]
    films = {
        path: [label for label, _ in itertools.groupby(sample.label for sample in segments)]
        for path, segments in itertools.groupby(labelled, key=lambda sample: sample.path)
    }
    return {path: labels for path, labels in films.items() if len(labels) > 1}


def name_some(names: Iterable[str], most: int = 5) -> str:
    """The first names in alphabetical order and how many more there are, for a message."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


@dataclass(frozen=True)
class Segment:
    """`[start_seconds, end_seconds)` of a video, its label (or "unknown"), and the mean probability of that label.

    The probability of an unknown segment is that of its most probable label, which was not probable enough.
    """

    start_seconds: float
    end_seconds: float
    label: str
    probability: float

    def as_dict(self) -> dict[str, Any]:
        """`start_seconds`, `end_seconds`, `label`, `probability`; ready for JSON."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """One line: from, to, label, probability."""
        return (
            f"  {self.start_seconds:9.2f} - {self.end_seconds:9.2f} s  {printable(self.label)} {self.probability:.3f}"
        )
