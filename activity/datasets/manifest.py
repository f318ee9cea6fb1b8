"""Find the videos and their labels and captions: in a folder per class, by a manifest, by official split lists."""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import logging
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from activity.datasets.folders import (
    MANIFEST_NAME,
    find_videos,
    group_from_name,
    scan_folder,
    warn_of_labels_without_videos,
    why_no_video,
)
from activity.datasets.samples import SPLITS, TIME_COLUMNS, Sample, VideoList, in_order, labels_of, name_some
from activity.datasets.words import tokens_of
from activity.errors import DatasetError

_HMDB_LIST = re.compile(r"^(?P<label>.+)_test_split\d+\.txt$")
_MOST_UNNAMED = 100_000  # files that are looked at beside those of a manifest
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")  # unseen in text
_ASCII_WORD = re.compile("[A-Za-z0-9]")
_HMDB_SPLITS = {"0": "", "1": "train", "2": "test"}  # HMDB51's README; 0 is not used in this split


_logger = logging.getLogger(__name__)


def list_videos(videos: Path | VideoList, *, split_files: Sequence[Path] = ()) -> VideoList:
    """The videos of a folder per class, of a folder with a `manifest.csv`, or of such a CSV.

    Args:
        videos: the folder, or the CSV with columns `path,label[,group][,split][,start_seconds][,end_seconds]` and any
            others; `caption` may stand in the place of `label`, or beside it. Or a list that is there already, of which
            the same is checked.
        split_files: official lists of UCF101 (`trainlist01.txt`, `testlist01.txt`) or HMDB51
            (`<label>_test_split1.txt`); videos they do not name are left out.

    Raises:
        DatasetError: no such path, no class folders, fewer than two labels and no captions, two labels or groups that
            look alike, or a manifest or list that does not fit.
    """
    if isinstance(videos, VideoList):
        listed, videos = videos, videos.videos_dir
    else:
        listed = _list_place(Path(videos))
    if split_files:
        listed = _apply_split_files(listed, [Path(file) for file in split_files])
    labels = labels_of(listed.samples)
    if len(labels) < 2 and not any(sample.captions for sample in listed.samples):
        raise DatasetError(
            f"expected videos of two or more activities, found {name_some(labels) or 'none'}", path=videos
        )
    _check_twins("labels", labels, videos)
    groups = {sample.group for sample in listed.samples if sample.group != sample.path}
    _check_twins("groups", groups, videos)
    for what, names, one in (("labels", labels, "one activity"), ("groups", groups, "one person or recording")):
        for alike in _alike(names, lambda name: " ".join(name.split()).casefold()):
            _logger.warning("%s differ only by case or spaces: %s; are they %s?", what, ", ".join(alike), one)
    _say_what_is_left_out(listed)
    return listed


def _list_place(videos: Path) -> VideoList:
    if not videos.exists():
        raise DatasetError("no such file or folder; expected a folder of videos or a manifest .csv", path=videos)
    manifest = videos / MANIFEST_NAME if videos.is_dir() else videos
    return read_manifest(manifest) if manifest.is_file() else scan_folder(videos)


def _say_what_is_left_out(listed: VideoList) -> None:
    reasons = Counter(listed.skipped) + Counter(
        reason.rpartition(", but ")[2].partition(" (")[0] for reason in listed.missing.values()
    )
    if reasons:
        counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        _logger.log(logging.WARNING if listed.missing else logging.INFO, "%s: left out: %s", listed.videos_dir, counts)


def _check_twins(what: str, names: Iterable[str], videos: Path) -> None:
    """Raise `DatasetError` if two names look the same: they would be taken for one, and are not."""
    for alike in _alike(names, _looks):
        spelled = " and ".join(f"{name} ({_code_points(name)})" for name in alike)
        raise DatasetError(f"{what} that look alike but differ: {spelled}", path=videos, hint="write them in one way")


def _alike(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    return [alike for _, found in groupby(sorted(sorted(names), key=key), key) if len(alike := list(found)) > 1]


def _looks(name: str) -> str:
    """A name without what is not seen: zero-width, control and selecting characters, spaces at its ends."""
    seen = [x for x in name if unicodedata.category(x) not in ("Cf", "Cc") and not "\ufe00" <= x <= "\ufe0f"]
    return "".join(" " if x.isspace() else x for x in seen).strip()


def _code_points(name: str) -> str:
    return " ".join(f"U+{ord(x):04X}" if not x.isascii() or not x.isprintable() else x for x in name)


# === A manifest ===


def read_manifest(manifest_path: Path) -> VideoList:
    """The rows of a `manifest.csv`: `path,label[,group][,split]` and any other columns, which are carried through.

    With the columns `start_seconds,end_seconds`, several rows may be segments of one file, all of one group and split;
    where a row leaves them empty, they are the beginning and the end of the video.

    With the column `caption`, in the place of `label` or beside it, each row of a video or segment is one of its
    captions; all else in these rows must agree. White space in a caption counts as one space each.

    Files that are not there, and captions without words, are reported in `VideoList.missing`; all other faults raise,
    naming the line.
    """
    videos_dir = manifest_path.parent
    try:
        with manifest_path.open("rb") as file:
            head = file.read(4096)
            if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                reason = "not a CSV file in UTF-8, but in UTF-16"
                raise DatasetError(reason, path=manifest_path, hint="save it as CSV UTF-8")
            if b"\0" in head:
                raise DatasetError(
                    "expected a folder of labelled videos, or a manifest .csv; this is a file of another kind",
                    path=manifest_path,
                )
        with manifest_path.open(newline="", encoding="utf-8-sig") as text:
            columns, rows = _read_rows(text, manifest_path)
    except UnicodeDecodeError as error:
        raise DatasetError(f"not a CSV file in UTF-8: {error}", path=manifest_path) from error
    samples, lines = [], [line for line, _ in rows]
    for line, row in rows:
        try:
            samples.append(_sample_from_row(row))
        except DatasetError as error:
            raise DatasetError(f"line {line}: {error.reason}", path=manifest_path, hint=error.hint) from error
    samples = [dataclasses.replace(sample, path=_on_disk(videos_dir, sample.path)) for sample in samples]
    missing: dict[str, str] = {}
    if "caption" in columns:
        _say_what_captions_lose(rows, manifest_path)
        samples, lines, missing = _join_captions(samples, lines, manifest_path)
    _check_segments(samples, lines, manifest_path)
    gone: dict[str, str] = {}
    for sample, line in zip(samples, lines, strict=True):
        reason = why_no_video(videos_dir / sample.path)
        if reason:
            gone.setdefault(sample.path, f"named in {manifest_path.name} line {line}, but {reason}")
    there = in_order(sample for sample in samples if sample.path not in gone and (sample.label or sample.captions))
    if not there:
        says = " and says something of it" * bool(missing)
        reason = f"none of its {len(rows)} rows names a file that exists in {videos_dir}{says}"
        raise DatasetError(reason, path=manifest_path)
    warn_of_labels_without_videos({sample.label for sample in samples}, there)
    warn_of_overlaps(there)
    warn_of_unnamed(videos_dir, {sample.path for sample in samples}, manifest_path)
    return VideoList(videos_dir, there, missing={**missing, **gone})


def _read_rows(text: TextIO, manifest_path: Path) -> tuple[Sequence[str], list[tuple[int, dict[str, str]]]]:
    """The columns, which are those expected, and the rows, each with the number of its last line."""
    reader = csv.DictReader(text, strict=True)
    rows, last = [], 0
    try:
        columns = reader.fieldnames or []
        last = reader.line_num
        _check_columns(columns, manifest_path)
        for row in reader:
            last = reader.line_num
            rows.append((last, row))
    except csv.Error as error:
        raise DatasetError(
            f"not a CSV file from line {last + 1} on: {error}",
            path=manifest_path,
            hint='close each quote, and double those within a field in quotes: "a ""big"" dog"',
        ) from error
    return columns, rows


def warn_of_unnamed(videos_dir: Path, named: set[str], manifest_path: Path | str, *, but: Iterable[Path] = ()) -> None:
    """Name what is in the folder of the manifest, or below it, and may be a video too, but for some files."""
    real = {os.path.realpath(path) for path in (*(videos_dir / path for path in named), *but)}
    real |= {os.path.dirname(path) for path in real}  # a folder of images of which some are named is no video
    videos = find_videos(videos_dir, most_files=_MOST_UNNAMED).videos
    unnamed = [video.relative_to(videos_dir) for video in videos if os.path.realpath(video) not in real]
    if unnamed:
        partly = {folder for path in named for folder in PurePosixPath(path).parents}
        in_others = Counter(path.parent.as_posix() for path in unnamed if PurePosixPath(path.parent) not in partly)
        names = [path.as_posix() for path in unnamed if path.parent.as_posix() not in in_others]
        names += [f"{folder}/ ({count})" for folder, count in in_others.items()]
        shown = name_some(names, 3)
        _logger.warning("%s: does not name %d files beside its videos: %s", manifest_path, len(unnamed), shown)


def _check_columns(columns: Sequence[str], manifest_path: Path) -> None:
    meant = _meant_columns(columns)
    absent = {"path", "label"} - {*columns, *({"label"} if "caption" in columns else ())}
    if absent:
        raise DatasetError(
            f"expected columns path,label[,group][,split] (or caption for label), missing {name_some(absent)}; "
            f"received: {','.join(columns)}",
            path=manifest_path,
            hint=_hint_on_columns(columns, meant),
        )
    names = Counter(_composed(column).strip().casefold() for column in columns if column)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DatasetError(f"columns that occur more than once: {name_some(twice)}", path=manifest_path)
    known = ("path", "label", "caption", "group", "split", *TIME_COLUMNS)
    if odd := [name for name in columns if name and name not in known and _composed(name).strip().casefold() in known]:
        raise DatasetError(
            f"columns that would be ignored: {name_some(odd)}; expected small letters, without spaces",
            path=manifest_path,
        )
    for column, name in meant.items():
        what = "%s: the column '%s' is not read; write %s in its place if it is that"
        _logger.warning(what, manifest_path, column, name)


def _composed(text: str) -> str:
    """Letters and their accents as one character where there is one (NFC), so that equal names are equal."""
    return unicodedata.normalize("NFC", text)


def _on_disk(videos_dir: Path, path: str) -> str:
    """A path as its names are written on the disk: those from a Mac have accents as characters of their own."""
    if path.isascii():
        return path
    found = PurePosixPath()
    for part in PurePosixPath(path).parts:
        if not part.isascii() and not os.path.lexists(videos_dir / found / part):
            with contextlib.suppress(OSError):
                part = next((x for x in os.listdir(videos_dir / found) if _composed(x) == _composed(part)), part)
        found /= part
    return str(found)


def _join_captions(
    samples: Sequence[Sample], lines: Sequence[int], manifest_path: Path
) -> tuple[list[Sample], list[int], dict[str, str]]:
    """One sample for all rows of a video or segment, with their captions; its first line; and what has empty ones.

    Raises:
        DatasetError: these rows differ in more than their captions.
    """
    first: dict[str, tuple[Sample, int]] = {}
    captions: dict[str, dict[str, None]] = {}
    empty, repeated = defaultdict(list), []
    for sample, line in zip(samples, lines, strict=True):
        other, other_line = first.setdefault(sample.name, (sample, line))
        _check_agreement(other, other_line, sample, line, manifest_path)
        found = captions.setdefault(sample.name, {})
        if not sample.captions:
            empty[sample.name].append(line)
        elif sample.captions[0] in found:
            repeated.append(line)
        found.update(dict.fromkeys(sample.captions))
    if repeated:
        some = _name_lines(repeated)
        _logger.warning("%s: %d captions are there more than once, kept once: %s", manifest_path, len(repeated), some)
    joined = [dataclasses.replace(sample, captions=tuple(captions[name])) for name, (sample, _) in first.items()]
    # a label says enough, so that a row with one needs no caption
    missing = {
        sample.name: f"named in {manifest_path.name} {_name_lines(empty[sample.name])}, but its caption has no words"
        for sample in joined
        if sample.name in empty and (sample.captions or not sample.label)
    }
    return joined, [line for _, line in first.values()], missing


def _check_agreement(one: Sample, one_line: int, other: Sample, other_line: int, manifest_path: Path) -> None:
    """Raise `DatasetError` if two rows of one video or segment differ in more than their captions."""
    for column in ("label", "group", "split", *one.extra):
        values = [x.extra[column] if column in x.extra else getattr(x, column) for x in (one, other)]
        if values[0] != values[1]:
            raise DatasetError(
                f"lines {one_line} and {other_line} both name {one.name}; expected the same {column}, "
                f"received {' and '.join(value or 'none' for value in values)}",
                path=manifest_path,
                hint="rows of one video may differ in their captions only",
            )


def _name_lines(lines: Sequence[int], most: int = 5) -> str:
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:most]))}{more}"


def _say_what_captions_lose(rows: Iterable[tuple[int, dict[str, str]]], manifest_path: Path) -> None:
    """Warn of captions with characters that nobody sees, which are removed."""
    lines = [line for line, row in rows if _CONTROLS.search(" ".join(row["caption"].split()))]
    if lines:
        what = "control characters are removed from %d captions"
        _logger.warning(f"%s: {what}: %s", manifest_path, len(lines), _name_lines(lines))


def _clean_caption(text: str) -> str:
    """A caption in one line, its letters composed (NFC), without control characters; empty if it has no words."""
    text = " ".join(_composed(text).split())
    if text.isprintable() and _ASCII_WORD.search(text) and text.isascii():  # as most of hundreds of thousands are
        return text
    text = " ".join(_CONTROLS.sub("", text).split())
    return text if tokens_of(_looks(text)) else ""


def _check_segments(samples: Sequence[Sample], lines: Sequence[int], manifest_path: Path) -> None:
    """Raise `DatasetError` where two rows name the same, or split one file across groups or splits.

    Several labels of one segment are no fault: they may hold at once.
    """
    names: dict[tuple[str, str], int] = {}
    first: dict[str, tuple[Sample, int]] = {}
    for sample, line in zip(samples, lines, strict=True):
        name = sample.name, sample.label if sample.is_segment else ""
        if names.setdefault(name, line) != line:
            raise DatasetError(f"lines {names[name]} and {line} both name {sample.name}", path=manifest_path)
        other, other_line = first.setdefault(sample.path, (sample, line))
        for column in ("group", "split"):
            values = [getattr(one, column) or "none" for one in (other, sample)]
            if values[0] != values[1]:
                raise DatasetError(
                    f"lines {other_line} and {line} give segments of {sample.path} different "
                    f"{column}s, {' and '.join(values)}",
                    path=manifest_path,
                    hint=f"all segments of a file must keep to one {column}",
                )


def warn_of_overlaps(samples: Sequence[Sample]) -> None:
    """Name segments of one file that overlap under different labels; `samples` are in order."""
    clashes = []
    for i, sample in enumerate(samples):
        for j in range(i + 1, len(samples)):
            other = samples[j]
            if other.path != sample.path or other.span[0] >= sample.span[1]:
                break
            if other.label and sample.label and other.label != sample.label:
                clashes.append(f"{sample.name} ({sample.label}) and {other.name} ({other.label})")
    if clashes:
        what = "%d pairs of segments overlap under different labels: %s; train --multi-label learns both"
        _logger.warning(what, len(clashes), name_some(clashes, 3))


_ALSO_CALLED = {"labels": "label", "captions": "caption", "sentence": "caption", "sentences": "caption"}


def _meant_columns(columns: Sequence[str]) -> dict[str, str]:
    """Columns that are called otherwise than is expected -> what is expected, and is not there."""
    names = {column: _composed(column).strip().casefold() for column in columns if column}
    meant = {column: _ALSO_CALLED.get(name, name) for column, name in names.items()}
    return {
        column: name for column, name in meant.items() if name in ("path", "label", "caption") and name not in columns
    }


def _hint_on_columns(columns: Sequence[str], meant: dict[str, str]) -> str:
    if len(columns) == 1 and re.search(r"[;\t|]", columns[0]):
        return "separate the columns by commas"
    names = ", ".join(f"{name} {'of' if i else 'in the place of'} '{x}'" for i, (x, name) in enumerate(meant.items()))
    return f"write {names}" if names else ""


def _sample_from_row(row: dict[Any, Any]) -> Sample:
    if None in row or None in row.values():
        columns = [name for name in row if name is not None]
        more = row.get(None, [])
        received = sum(row[name] is not None for name in columns) + len(more)
        raise DatasetError(
            f"expected {len(columns)} fields ({','.join(columns)}), received {received}",
            hint='write a field that holds a comma in quotes: "a dog, then a cat"' if more else "",
        )
    values = {name: value.strip() if name == "path" else _composed(value.strip()) for name, value in row.items()}
    path, label, split = values.pop("path"), values.pop("label", ""), values.pop("split", "")
    captions = {_clean_caption(values.pop("caption"))} - {""} if "caption" in values else None
    parts = PurePosixPath(path.replace("\\", "/"))
    is_segment = any(values.get(column) for column in TIME_COLUMNS)  # without a label: nothing is known of that time
    if not path or (not label and captions is None and not is_segment):
        raise DatasetError(f"path and label must not be empty, received path={path!r} label={label!r}")
    if parts.is_absolute() or ".." in parts.parts or re.match(r"^[A-Za-z]:", path):
        raise DatasetError(f"a path must stay inside the folder of the manifest, received {path}")
    if split not in ("", *SPLITS):
        raise DatasetError(f"split must be one of {', '.join(SPLITS)} or empty, received {split}")
    group = values.pop("group", None)
    if group == "":
        raise DatasetError("group must not be empty where the column exists")
    start, end = (_seconds(values, column) for column in TIME_COLUMNS)
    if end is not None and end <= (start or 0.0):
        raise DatasetError(f"end_seconds must be above start_seconds, received {start or 0.0} to {end}")
    return Sample(
        path=str(parts),
        label=label,
        group=group or group_from_name(str(parts)),
        split=split,
        start_seconds=start or None,  # 0 is the beginning too
        end_seconds=end,
        extra=values,
        captions=tuple(captions or ()),
    )


def _seconds(values: dict[str, str], column: str) -> float | None:
    text = values.pop(column, "")
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DatasetError(f"{column} must be a number of seconds, 0 or more, or empty, received {text}")
    return round(seconds, 6) if text else None


# === Official split lists ===


def read_split_files(split_files: Iterable[Path]) -> dict[str, str]:
    """`label/name` -> split (empty: not used), from lists as UCF101 and HMDB51 publish them.

    Raises:
        DatasetError: a list of unknown form, or a video in two splits.
    """
    splits: dict[str, str] = {}
    for file in split_files:
        if file.name == "classInd.txt":  # UCF101 ships the label ids beside the lists
            continue
        if not file.is_file():
            raise DatasetError("no such split list", path=file)
        for path, split in _read_split_file(file):
            if splits.setdefault(path, split) != split:
                raise DatasetError(
                    f"{path} is {split or 'unused'} here but {splits[path] or 'unused'} in another list",
                    path=file,
                    hint="give the lists of one split only",
                )
    return splits


def _read_split_file(file: Path) -> list[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"not a split list in UTF-8: {error}", path=file) from error
    rows = [line.split() for line in text.splitlines() if line.strip()]
    hmdb = _HMDB_LIST.match(file.name)
    if hmdb:
        if any(len(row) != 2 or row[1] not in _HMDB_SPLITS for row in rows):
            raise DatasetError("expected lines 'NAME.avi 0|1|2' as HMDB51 publishes them", path=file)
        return [(_composed(f"{hmdb['label']}/{name}"), _HMDB_SPLITS[number]) for name, number in rows]
    split = next((split for split in SPLITS if file.name.startswith(split)), None)
    if split is None or any("/" not in row[0] for row in rows):
        raise DatasetError(
            "expected UCF101's trainlistNN.txt / testlistNN.txt with lines 'Label/v_Label_g01_c01.avi', "
            "or HMDB51's LABEL_test_splitN.txt",
            path=file,
        )
    return [(_composed(row[0]), split) for row in rows]


def _apply_split_files(listed: VideoList, split_files: list[Path]) -> VideoList:
    splits = read_split_files(split_files)
    keys: dict[str, list[Sample]] = defaultdict(list)
    for sample in listed.samples:
        alike = keys[_composed(f"{sample.label}/{PurePosixPath(sample.path).name}")]
        if alike and alike[0].path != sample.path:
            raise DatasetError(
                f"split lists name files only by label and name, which {alike[0].path} and {sample.path} share",
                path=listed.videos_dir,
            )
        alike.append(sample)  # segments of one file and label go the same way
    used = {key: split for key, split in splits.items() if split}
    kept = [dataclasses.replace(sample, split=split) for key, split in used.items() for sample in keys.get(key, ())]
    if not kept:
        raise DatasetError(f"none of the {len(splits)} videos in the split lists is there", path=listed.videos_dir)
    num, num_unused = len(listed.samples), len(listed.samples) - len(kept)
    if num_unused:
        _logger.warning("%d of %d videos are not used by the split lists, left out", num_unused, num)
    absent = [key for key in used if key not in keys]
    missing = dict.fromkeys(absent, "named in the split lists, but there is no such file")
    return dataclasses.replace(listed, samples=in_order(kept), missing={**listed.missing, **missing})
