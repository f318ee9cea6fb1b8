"""From the records of any format to samples: which film, which seconds of it, and what is wrong with each row.

START and STOP are paired, the film is found, numbers of frames become seconds, and all is checked against the film: the
samples are those of a manifest written by hand.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from activity.datasets.annotations.formats import read_annotations
from activity.datasets.annotations.records import ERROR, WARNING, Annotations, Film, Format, Problem, Record, Time
from activity.datasets.folders import MANIFEST_NAME, find_videos, group_from_name
from activity.datasets.manifest import warn_of_overlaps, warn_of_unnamed
from activity.datasets.samples import SPLITS, Sample, VideoList, in_order, name_some
from activity.errors import DatasetError, SettingError, VideoError, did_you_mean, is_utf8, printable
from activity.video.decoder import index_frames
from activity.video.images import IMAGES_PER_SECOND, images_of, probe

_CLOCK = re.compile(r"(-?)(?:(\d+):)?(\d+):(\d{1,2}(?:\.\d*)?)")  # hh:mm:ss.s, or mm:ss
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of a file
_RATES_AGREE = 5e-4  # of a rate: 29.97 is not 30
_LENGTHS_AGREE = 0.01  # of a length; and half a second
_PAIRED_BY = ("subject", "observation", "modifiers")  # beside label and films
_MOST_SAID = 30  # problems on screen, of each severity; problems.csv has all
_MOST_COMPARED = 1000  # names, to find one that is like another: more would take long
_MOST_TEXT = 10_000  # characters of what is wrong in one place
_MOST_ROWS = 5  # that are named together

_logger = logging.getLogger(__name__)


def list_labelled(
    videos_dir: Path | str,
    files: Sequence[Path | str],
    *,
    tiers: Sequence[str] = (),
    label_rate: float | None = None,
    point_seconds: float | None = None,
    images_per_second: float = IMAGES_PER_SECOND,
) -> VideoList:
    """The films below a folder with the labels of other tools' files, for `activity.datasets.preprocessing.preprocess`.

    Each thing that is wrong is logged with its file and row, and kept in `VideoList.problems`; good rows are read all
    the same.

    Args:
        videos_dir: the folder; files may name films by paths of another machine.
        files: of annotations, each of a format that its content shows.
        tiers: names of those to read, where the format has tiers; by default all.
        label_rate: frames a second that numbers of frames count; by default what the file says, or that of the film.
        point_seconds: length of events that have none, around their time; by default they are left out.
        images_per_second: of films that are folders of numbered images.

    Raises:
        DatasetError: no such folder, or no row of any file can be used.
        SettingError: a rate or length is not above 0.
    """
    _check_settings(label_rate, point_seconds)
    videos_dir, paths = Path(videos_dir), [Path(file) for file in files]
    if not videos_dir.is_dir():
        raise DatasetError("expected the folder of the videos that the labels are of", path=videos_dir)
    if (videos_dir / MANIFEST_NAME).exists():
        _logger.warning("%s is not read: the labels are those of --labels", videos_dir / MANIFEST_NAME)
    reader = _Reader(_Films(videos_dir, images_per_second, paths), tuple(tiers), label_rate, point_seconds)
    for path in paths:
        reader.read(path)
    _say_what_is_in_vain([reader])
    reader.say()
    if not reader.samples:
        first = next((f"; first problem: {place}: {what}" for place, what in reader.problems.items()), "")
        raise DatasetError(f"no label of {name_some(map(str, paths))} can be used{first}", path=videos_dir)
    samples = in_order(reader.samples.values())
    warn_of_overlaps(samples)
    warn_of_unnamed(videos_dir, reader.named, paths[0] if len(paths) == 1 else "--labels", but=paths)
    return VideoList(videos_dir, samples, problems=reader.problems)


def _check_settings(label_rate: float | None, point_seconds: float | None) -> None:
    for name, value in (("label_rate", label_rate), ("point_seconds", point_seconds)):
        if value is not None and not 0 < value < math.inf:
            raise SettingError(name, "above 0", value)


@dataclass
class FilmLabels:
    """The labels of a film, as a file has them.

    Attributes:
        spans: `start_seconds, end_seconds, label` of each; they may overlap, and an infinite end is that of the film.
        seconds: length of the film, where it is known.
    """

    spans: list[tuple[float, float, str]] = field(default_factory=list)
    seconds: float | None = None


def read_labels(
    sides: Sequence[Sequence[Path]],
    videos_dir: Path | None = None,
    *,
    tiers: Sequence[str] = (),
    label_rate: float | None = None,
    point_seconds: float | None = None,
) -> tuple[list[dict[str, FilmLabels]], int]:
    """The labels that each of some annotators gave, without a need for the films, and how many places are wrong.

    Each thing that is wrong is logged with its file and row; good rows are read all the same.

    Args:
        sides: the files of each annotator, of formats of other tools or of this program.
        videos_dir: folder of the films, if it is at hand: names are then found there, and lengths and rates are those
            of the films.
        tiers: as of `list_labelled`.
        label_rate: likewise.
        point_seconds: likewise.

    Returns:
        Of each annotator, name of a film -> its labels.

    Raises:
        DatasetError: there is no such folder.
        SettingError: a rate or length is not above 0.
    """
    _check_settings(label_rate, point_seconds)
    if videos_dir and not videos_dir.is_dir():
        raise DatasetError("expected the folder of the videos that the labels are of", path=videos_dir)
    everything = [path for files in sides for path in files]
    films = _Films(videos_dir, IMAGES_PER_SECOND, everything) if videos_dir else _NoFilms()
    readers = [_LabelReader(films, tuple(tiers), label_rate, point_seconds) for _ in sides]
    for reader, files in zip(readers, sides, strict=True):
        for path in files:
            reader.read(path, own=True)
    _say_what_is_in_vain(readers)
    for reader in readers:
        reader.say(more="")
    num_wrong = sum(f"{ERROR}: " in text for reader in readers for text in reader.problems.values())
    return [reader.labels for reader in readers], num_wrong


def pair_films(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Name of a film -> what another file calls it: by the longest common end of both paths, then by the name alone.

    Both must be the best for the other, or the only one: a name that could be two films is none.
    """
    names, others = list(names), list(others)
    forward, backward = _Names(others), _Names(names)
    found = {name: forward.find(name)[0] for name in names}
    found_back = {other: backward.find(other)[0] for other in others}
    pairs = {name: other for name, other in found.items() if other and found_back[other] == name}
    claims = {(name, other) for name, other in found.items() if other}
    claims |= {(name, other) for other, name in found_back.items() if name}
    claims = {(a, b) for a, b in claims if a not in pairs and b not in pairs.values()}
    of_name, of_other = Counter(a for a, _ in claims), Counter(b for _, b in claims)
    return pairs | {a: b for a, b in sorted(claims) if of_name[a] == of_other[b] == 1}


# === Films ===


@dataclass(frozen=True)
class _Facts:
    """What a film is: frames a second and seconds, 0 of a single image, infinite where only decoding would tell."""

    rate: float
    seconds: float


class _Names:
    """Paths of films, found by what annotations call them; `place` is where they are."""

    def __init__(self, paths: Iterable[str], place: Path | str = "") -> None:
        self._place = place
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in filter(is_utf8, paths):
            self._by_name[_plain(PurePosixPath(path).name)].append(path)
            self._by_stem[_plain(PurePosixPath(path).stem)].append(path)
        self._found: dict[str, tuple[str, str]] = {}

    def find(self, name: str) -> tuple[str, str]:
        """The path of a film among them, or an empty one; and why it is empty.

        By the longest common end of both paths; then by the name alone, without what Label Studio puts before it, or
        without its ending.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> tuple[str, str]:
        parts = _parts_of(name)
        if not parts:
            return "", "names no film"
        own = parts[-1]
        candidates = next(
            (
                found
                for table, key in (
                    (self._by_name, own),
                    (self._by_name, _UPLOADED.sub("", own, count=1)),
                    (self._by_stem, own),
                    (self._by_stem, f"v_{own}"),  # as ActivityNet's crawler calls them
                )
                if (found := table.get(key))
            ),
            [],
        )
        if not candidates:
            hint = did_you_mean(own, self._by_name) if len(self._by_name) < _MOST_COMPARED else ""
            return "", f"there is no film {printable(own)} in {self._place}{hint and f'; {hint}'}"
        ends = {path: _common_end(parts, _parts_of(path)) for path in candidates}
        best = [path for path, end in ends.items() if end == max(ends.values())]
        if len(best) > 1:
            best = [path for path in best if len(PurePosixPath(path).parts) == ends[path] == len(parts)] or best
            best = [path for path in best if name.replace("\\", "/").endswith(path)] or best  # A.avi beside a.avi
        if len(best) > 1:
            return (
                "",
                f"{len(best)} films of one name, {name_some(best)}; expected more of the path of {printable(name)}",
            )
        return best[0], ""


class _Films(_Names):
    """The films below a folder."""

    def __init__(self, videos_dir: Path, images_per_second: float, others: Iterable[Path]) -> None:
        self._videos_dir, self._images_per_second = videos_dir, images_per_second
        no_film = {path.resolve() for path in others}
        found = [path for path in find_videos(videos_dir).videos if path.resolve() not in no_film]
        super().__init__((path.relative_to(videos_dir).as_posix() for path in found), videos_dir)
        self._folders = {part for path in found for part in _parts_of(path.relative_to(videos_dir).as_posix())[:-1]}
        self._facts: dict[str, _Facts | str] = {}

    def is_of_another_folder(self, film: Film, path: str) -> bool:
        """Whether the name of a film puts the one found at `path` in another folder of these films.

        Not so of a film beside all folders whose name has a folder that is none of them: it may be the whole of these
        films on another machine. Nor where that folder is the one that labels are kept in.
        """
        parts, others = _parts_of(film.name), _parts_of(path)
        is_upload = parts[-1] != others[-1] and _UPLOADED.match(parts[-1])  # has lost its folder
        if len(parts) == 1 or _common_end(parts, others) > 1 or is_upload:
            return False
        return (len(others) > 1 and not film.is_beside) or parts[-2] in self._folders

    def facts(self, path: str) -> _Facts | str:
        """Rate and length of a film, or why it cannot be opened."""
        if path not in self._facts:
            self._facts[path] = self._read_facts(self._videos_dir / path)
        return self._facts[path]

    def _read_facts(self, video: Path) -> _Facts | str:
        if video.is_dir():
            numbers = list(images_of(video))
            return _Facts(self._images_per_second, (numbers[-1] - numbers[0] + 1) / self._images_per_second)
        try:
            info = probe(video)
        except VideoError as error:
            return error.reason
        frames = None if info.is_image else index_frames(video)
        seconds = 0.0 if info.is_image else info.duration_seconds_claimed or math.inf
        if frames:
            seconds = float(frames.timestamps_seconds[-1]) + 1 / info.frames_per_second
        return _Facts(info.frames_per_second, seconds)


class _NoFilms:
    """In the place of films that are not at hand: each is what it is called."""

    def find(self, name: str) -> tuple[str, str]:
        """The name with forward slashes."""
        path = name.replace("\\", "/").strip()
        return path, "" if _parts_of(name) else "names no film"

    def is_of_another_folder(self, film: Film, path: str) -> bool:
        """That none is."""
        return False

    def facts(self, path: str) -> _Facts | str:
        """That nothing is known of it."""
        return "no film is at hand"


def _plain(name: str) -> str:
    """A name as file systems compare them, which know accents and case in several ways."""
    return unicodedata.normalize("NFC", name).casefold()


def _parts_of(name: str) -> list[str]:
    """The folders of a path of any system, and its name, to be compared."""
    return [part for part in _plain(name.replace("\\", "/")).split("/") if part not in ("", ".")]


def _common_end(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many parts of two paths are the same, from their ends; the name counts, however it was found."""
    same = 1
    while same < min(len(parts), len(others)) and parts[-1 - same] == others[-1 - same]:
        same += 1
    return same


# === Rows ===


@dataclass(frozen=True)
class _Place:
    """A part of a film, in seconds; `end` infinite: to the end of a film of unknown length."""

    path: str
    start: float
    end: float


class _Wrong(Exception):
    """A row cannot be used; its message says why."""


class _Reader:
    """Reads files, one after the other, into samples and problems."""

    def __init__(
        self,
        films: _Films | _NoFilms,
        tiers: tuple[str, ...],
        label_rate: float | None,
        point_seconds: float | None,
    ) -> None:
        self._films, self._tiers, self._rate, self._point_seconds = films, tiers, label_rate, point_seconds
        self.options_in_vain = {
            option: what
            for option, given, what in (
                ("--tier", tiers, "these files have no tiers"),
                ("--label-rate", label_rate, "these files count in seconds"),
                ("--point-seconds", point_seconds, "these files have no events without a length"),
            )
            if given
        }
        self._places: dict[tuple[str, str], str] = {}  # name and label of a sample -> where it is from
        self._said: set[object] = set()
        self._all: list[tuple[Path, Problem]] = []
        self._firsts: dict[str, Sample] = {}
        self._called: dict[str, str] = {}  # film -> what the first record calls it
        self.named: set[str] = set()  # films, whether or not their rows can be used
        self.samples: dict[tuple[str, str], Sample] = {}
        self.problems: dict[str, str] = {}

    def read(self, path: Path, *, own: bool = False) -> None:
        """Read a file; `own`: one of this program too."""
        try:
            format, found = read_annotations(path, own=own)
        except DatasetError as error:
            hint = error.hint and f"; {error.hint}"
            self._all.append((path, Problem(ERROR, "", f"{error.reason}{hint}")))
            return
        self._problems = list(found.problems)
        records = self._of_tiers(path, found)
        self.named |= {self._films.find(film.name)[0] for record in records for film in record.films} - {""}
        _logger.info("%s: %d rows of %s", path, len(records), format.name)
        if not records and not any(problem.severity == ERROR for problem in self._problems):
            self._problems.append(Problem(ERROR, "", f"holds no labels; it is taken for {format.name}"))
        for record in self._paired(records):
            try:
                self._add(record, path, format)
            except _Wrong as wrong:
                self._problems.append(Problem(ERROR, record.where, str(wrong)))
        self._all += [(path, problem) for problem in self._problems]

    def say(self, more: str = ", in problems.csv") -> None:
        """Log all problems; `more` says where those are that are too many."""
        alike: dict[tuple[str, Path, str], list[str]] = defaultdict(list)
        for path, problem in dict.fromkeys(self._all):  # a row may be of several labels, and wrong for each
            place = printable(f"{path.name}: {problem.where}" if problem.where else path.name)
            line = printable(f"{problem.severity}: {problem.reason}")
            known = self.problems.get(place, "")
            self.problems[place] = f"{known}{known and '; '}{line}"[:_MOST_TEXT]
            alike[problem.severity, path, problem.reason].append(problem.where)
        num_said: Counter[str] = Counter()
        for (severity, path, reason), rows in alike.items():
            num_said[severity] += 1
            if num_said[severity] <= _MOST_SAID:
                level = logging.ERROR if severity == ERROR else logging.WARNING
                _logger.log(
                    level, "%s %s: %s", severity, ": ".join(filter(None, (str(path), _name_rows(rows)))), reason
                )
        for severity, count in num_said.items():
            if count > _MOST_SAID:
                _logger.warning("%s: %d more%s", severity, count - _MOST_SAID, more)

    def _warn_once(self, key: object, where: str, reason: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._problems.append(Problem(WARNING, where, reason))

    def _of_tiers(self, path: Path, found: Annotations) -> list[Record]:
        if found.tiers is None:
            return found.records
        self.options_in_vain.pop("--tier", None)
        counts = Counter(record.tier for record in found.records)
        listed = ", ".join(f"{printable(tier) or '(no name)'} ({counts[tier]})" for tier in found.tiers)
        for tier in self._tiers:
            if tier not in found.tiers:
                hint = did_you_mean(tier, found.tiers)
                reason = f"there is no tier {tier}; expected one of {listed}{hint and f'; {hint}'}"
                self._problems.append(Problem(ERROR, "tiers", reason))
        if not self._tiers and len(counts) > 1:
            _logger.info("%s: all tiers are read: %s; --tier chooses", path, listed)
        records = [record for record in found.records if not self._tiers or record.tier in self._tiers]
        return [dataclasses.replace(x, columns={**x.columns, **({"tier": x.tier} if x.tier else {})}) for x in records]

    def _paired(self, records: Iterable[Record]) -> Iterator[Record]:
        """Records with their end: each STOP is that of the START before it that is alike in `_PAIRED_BY`."""
        open_: dict[object, Record] = {}
        for record in records:
            key = record.films, record.label, tuple(record.columns.get(name) for name in _PAIRED_BY)
            who = f" ({record.columns['subject']})" if "subject" in record.columns else ""
            if record.event == "START":
                if key in open_:
                    self._unpaired(open_[key], who)
                open_[key] = record
            elif record.event == "STOP":
                start = open_.pop(key, None)
                if start is None:
                    reason = f"STOP of {record.label}{who} at {record.start} without a START before it"
                    self._problems.append(Problem(ERROR, record.where, reason))
                else:
                    yield _whole(start, record)
            else:
                yield record
        for record in open_.values():
            who = f" ({record.columns['subject']})" if "subject" in record.columns else ""
            self._unpaired(record, who)

    def _unpaired(self, start: Record, who: str) -> None:
        reason = f"START of {start.label}{who} at {start.start} without a STOP after it"
        self._problems.append(Problem(ERROR, start.where, reason))

    # === A row ===

    def _add(self, record: Record, file: Path, format: Format) -> None:
        """Make the samples of a record; raises `_Wrong` if there is none."""
        texts = (record.label, *(film.name for film in record.films), *record.columns, *record.columns.values())
        if not all(map(is_utf8, texts)):
            text = next(text for text in texts if not is_utf8(text))
            raise _Wrong(f"wrong encoding: expected UTF-8, received {printable(text)}; save the file as UTF-8")
        label = " ".join(unicodedata.normalize("NFC", record.label).split())
        if not label:
            raise _Wrong("has no label")
        if record.event == "POINT":
            self.options_in_vain.pop("--point-seconds", None)
        if record.in_frames:
            self.options_in_vain.pop("--label-rate", None)
        if record.event == "POINT" and self._point_seconds is None:
            reason = "a POINT event has no length, and is left out; --point-seconds S gives it one"
            self._problems.append(Problem(WARNING, record.where, reason))
            return
        paths = [self._film(record, film) for film in record.films]
        if not paths:
            raise _Wrong("names no film")
        for place in self._place(record, paths, format):
            self._add_sample(file, record, place, label)

    def _film(self, record: Record, film: Film) -> str:
        """The path of a film; what its file says of it is compared with what it is."""
        path, why = self._films.find(film.name)
        if not path:
            raise _Wrong(why)
        called = self._called.setdefault(path, film.name)
        both = _parts_of(called), _parts_of(film.name)
        if _common_end(*both) < min(map(len, both)):
            reason = f"{printable(called)} and {printable(film.name)} are both taken for {path}"
            self._warn_once((path, film.name), record.where, reason)
        elif self._films.is_of_another_folder(film, path):
            reason = f"{printable(film.name)} is taken for {path}, by its name alone; their folders differ"
            self._warn_once((path, film.name), record.where, reason)
        facts = self._films.facts(path)
        if isinstance(facts, str):
            return path
        given = self._rate if record.in_frames and self._rate else film.rate
        if given and abs(given - facts.rate) > _RATES_AGREE * facts.rate:
            who = "--label-rate" if given == self._rate else "its labels"
            used = f"; frames are counted at {given:g}" if record.in_frames else ""
            reason = f"{path} has {facts.rate:g} frames a second, but {who} {given:g}{used}"
            self._warn_once((path, "rate", given), record.where, reason)
        seconds = film.seconds or (film.num_frames / (given or facts.rate) if film.num_frames else None)
        if seconds and abs(seconds - facts.seconds) > max(0.5, _LENGTHS_AGREE * facts.seconds):
            reason = f"{path} lasts {facts.seconds:.2f} s, but its labels are of a film of {seconds:.2f} s"
            self._warn_once((path, "seconds"), record.where, reason)
        return path

    def _place(self, record: Record, paths: Sequence[str], format: Format) -> list[_Place]:
        """Which parts of which films a record is of, checked."""
        facts = [self._films.facts(path) for path in paths]
        start, end = self._times(record, paths[0], facts[0], format)
        lengths = [
            film.seconds or (math.inf if isinstance(found, str) else found.seconds)
            for film, found in zip(record.films, facts, strict=True)
        ]
        if len(paths) == 1 and not isinstance(facts[0], str):
            lengths = [facts[0].seconds]  # what it is, whatever its labels say
        if math.inf in lengths[:-1]:
            raise _Wrong(f"the length of {paths[lengths.index(math.inf)]} is not known, so no time of the next film is")
        total = sum(lengths)
        if record.total_seconds and abs(record.total_seconds - total) > max(0.5, _LENGTHS_AGREE * total) < math.inf:
            raise _Wrong(
                f"the films of the observation, {name_some(paths)}, last {total:.2f} s, but its labels are of "
                f"{record.total_seconds:.2f} s in all: which films came before is not known"
            )
        if not math.isinf(total) and total <= 0:
            raise _Wrong(f"{paths[0]} is a single image, which has no time")
        if record.event == "POINT":
            half = (self._point_seconds or 0.0) / 2
            if not 0 <= start <= total:
                raise _Wrong(self._outside(record, start, total, paths))
            start, end = max(0.0, start - half), min(start + half, total)
        self._check_order(record, start, end, total, paths)
        rate = next((found.rate for found in reversed(facts) if not isinstance(found, str)), 25.0)
        if total + 1 / rate + 1e-6 < end < math.inf:
            reason = f"ends at {end:g} s, beyond the film's end at {total:.2f} s; it is cut there"
            self._warn_once((record.where, "end", end), record.where, reason)
            end = total
        return self._parts(record, paths, lengths, start, end)

    def _check_order(self, record: Record, start: float, end: float, total: float, paths: Sequence[str]) -> None:
        written = f"{record.start} to {record.end}{' (frames, counted from 0)' if record.in_frames else ''}"
        if end < start:
            raise _Wrong(f"end before start: {written}")
        if end == start:
            raise _Wrong(f"no length: {written}")
        if start < 0 or start >= total:
            raise _Wrong(self._outside(record, start, total, paths))

    def _outside(self, record: Record, start: float, total: float, paths: Sequence[str]) -> str:
        less = f" ({record.start} less an offset of {record.offset:g} s)" if record.offset else ""
        if start < 0:
            return f"negative time: begins at {start:g} s{less}"
        films = f"that of {name_some(paths)} is at" if len(paths) == 1 else f"{name_some(paths)} end at"
        return f"beyond the film's end: begins at {start:g} s{less}, {films} {total:.2f} s"

    def _parts(
        self, record: Record, paths: Sequence[str], lengths: Sequence[float], start: float, end: float
    ) -> list[_Place]:
        """A span of the clock of several films, as one of each film that it touches."""
        if len(paths) == 1:
            return [_Place(paths[0], start, end)]
        parts, begin = [], 0.0
        for index, (path, length) in enumerate(zip(paths, lengths, strict=True)):
            is_last = index == len(paths) - 1
            first, last = max(start, begin) - begin, (end if is_last else min(end, begin + length)) - begin
            if first < last:
                parts.append(_Place(path, round(first, 6), round(last, 6)))
            begin += length
        if len(parts) > 1:
            reason = f"goes on from one film to the next, so it is divided: {', '.join(part.path for part in parts)}"
            self._warn_once((record.where, "parts"), record.where, reason)
        return parts

    def _times(self, record: Record, path: str, facts: _Facts | str, format: Format) -> tuple[float, float]:
        """Start and end on the clock of the films, in seconds, not checked."""
        start, end = _number(record.start, record.in_frames), _number(record.end, record.in_frames)
        if record.in_frames:
            rate = self._rate or record.films[0].rate
            if not rate:
                if isinstance(facts, str):
                    raise _Wrong(
                        f"{path} cannot be opened ({facts}), so its rate is unknown; give it with --label-rate"
                    )
                rate = facts.rate
                if format.default_rate and abs(rate - format.default_rate) > _RATES_AGREE * rate:
                    reason = (
                        f"frames are counted at {rate:g} a second, the rate of {path}; this tool counts "
                        f"{format.default_rate:g} unless it was told another rate: say with --label-rate which it was"
                    )
                    self._warn_once((path, "default rate"), record.where, reason)
            start, end = (None if value is None else value / rate for value in (start, end))
        begin = 0.0 if start is None else round(start - record.offset, 6)
        return begin, math.inf if end is None else round(end - record.offset, 6)

    def _add_sample(self, file: Path, record: Record, place: _Place, label: str) -> None:
        columns = {name: unicodedata.normalize("NFC", text) for name, text in record.columns.items()}
        split = record.split or columns.pop("split", "").strip().lower()
        if split not in ("", *SPLITS):
            raise _Wrong(f"split must be one of {', '.join(SPLITS)} or empty, received {printable(split)}")
        if columns.pop("caption", ""):
            reason = "its caption is not read; sentences come from a manifest with a column caption"
            self._warn_once((file, "caption"), record.where, reason)
        sample = Sample(
            path=place.path,
            label=label,
            group=columns.pop("group", "") or group_from_name(place.path),
            split=split,
            start_seconds=round(place.start, 6) or None,  # 0 is the beginning too
            end_seconds=None if math.isinf(place.end) else round(place.end, 6),
            extra=columns,
        )
        first = self._firsts.setdefault(sample.path, sample)
        for what, one, two in (("group", first.group, sample.group), ("split", first.split, sample.split)):
            if one != two:
                both = f"{one or 'none'} and {two or 'none'}"
                raise _Wrong(f"{sample.path} has two {what}s, {both}; all labels of a film must keep to one {what}")
        where = f"{file.name} {record.where}"
        name = sample.name, label
        if name in self.samples:
            reason = f"the same as {self._places[name]}, kept once"
            self._problems.append(Problem(WARNING, record.where, reason))
        else:  # several labels may hold for the very same times
            self.samples[name], self._places[name] = sample, where


class _LabelReader(_Reader):
    """Reads files into the labels of each film, of which several may be of one time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.labels: dict[str, FilmLabels] = {}

    def _add_sample(self, file: Path, record: Record, place: _Place, label: str) -> None:
        film = self.labels.setdefault(place.path, FilmLabels())
        film.spans.append((place.start, place.end, label))
        facts = self._films.facts(place.path)
        if not isinstance(facts, str):
            film.seconds = facts.seconds if math.isfinite(facts.seconds) else None
        elif not film.seconds:
            of = next(film for film in record.films if self._films.find(film.name)[0] == place.path)
            rate = self._rate or of.rate
            film.seconds = of.seconds or (of.num_frames / rate if of.num_frames and rate else None)


def _say_what_is_in_vain(readers: Sequence[_Reader]) -> None:
    """Log which options no reader has used."""
    for option, what in readers[0].options_in_vain.items():
        if all(option in reader.options_in_vain for reader in readers):
            _logger.warning("%s does nothing here: %s", option, what)


def _number(value: Time, in_frames: bool) -> float | None:
    """A time as it is written, in seconds or frames; `None` if there is none. Raises `_Wrong` if it is no number."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and not in_frames and (clock := _CLOCK.fullmatch(value.strip())):
        sign, hours, minutes, seconds = clock.groups()
        total = int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
        return -total if sign else total
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        expected = "a number of a frame" if in_frames else "seconds, or mm:ss"
        comma = "; write a point in place of the comma" if "," in str(value) else ""
        raise _Wrong(f"not a number: expected {expected}, received {printable(str(value)[:60])}{comma}")
    return number


def _whole(start: Record, stop: Record) -> Record:
    """The record of two halves: their places as `row 3 and 4`, and the comments of both."""
    a, b = start.where.rpartition(" "), stop.where.rpartition(" ")
    comments = dict.fromkeys(half.columns["comment"] for half in (start, stop) if "comment" in half.columns)
    return dataclasses.replace(
        start,
        event="",
        end=stop.start,
        where=f"{start.where} and {b[2] if a[0] == b[0] else stop.where}",
        columns={**start.columns, **({"comment": "; ".join(comments)} if comments else {})},
    )


def _name_rows(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return ", ".join(rows[:_MOST_ROWS]) + more
