"""Find the labelled videos: in a folder per class, by a manifest, by the official lists of a data set."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from activity.datasets.samples import SPLITS, TIME_COLUMNS, Sample, VideoList, in_order, labels_of, name_some
from activity.errors import DatasetError, printable
from activity.video.decoder import NOT_UTF8

_SIDECARS = {".csv", ".json", ".txt", ".md", ".srt", ".xml"}
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_UCF_GROUP = re.compile(r"^(?P<group>.+_g\d+)_")  # v_ApplyEyeMakeup_g08_c01.avi: take 1 of the eighth recording
_HMDB_LIST = re.compile(r"^(?P<label>.+)_test_split\d+\.txt$")
_HMDB_SPLITS = {"0": "", "1": "train", "2": "test"}  # HMDB51's README; 0 is not used in this split


_logger = logging.getLogger(__name__)


def list_videos(videos: Path, *, split_files: Sequence[Path] = ()) -> VideoList:
    """The labelled videos of a folder per class, of a folder with a `manifest.csv`, or of such a CSV.

    Args:
        videos: the folder, or the CSV with columns `path,label[,group][,split][,start_seconds][,end_seconds]` and any
            others.
        split_files: official lists of UCF101 (`trainlist01.txt`, `testlist01.txt`) or HMDB51
            (`<label>_test_split1.txt`); videos they do not name are left out.

    Raises:
        DatasetError: no such path, no class folders, fewer than two labels, or a manifest or list that does not fit.
    """
    videos = Path(videos)
    if not videos.exists():
        raise DatasetError("no such file or folder; expected a folder of videos or a manifest .csv", path=videos)
    manifest = videos / "manifest.csv" if videos.is_dir() else videos
    if manifest.is_file():
        listed = read_manifest(manifest)
    else:
        listed = scan_folder(videos)
    if split_files:
        listed = _apply_split_files(listed, [Path(file) for file in split_files])
    labels = {sample.label for sample in listed.samples}
    if len(labels) < 2:
        raise DatasetError(
            f"expected videos of two or more activities, found {name_some(labels) or 'none'}", path=videos
        )
    _warn_of_twin_labels(labels)
    return listed


def _warn_of_twin_labels(labels: Iterable[str]) -> None:
    twins = defaultdict(list)
    for label in sorted(labels):
        twins[" ".join(label.split()).casefold()].append(label)
    for alike in twins.values():
        if len(alike) > 1:
            _logger.warning("labels differ only by case or spaces: %s; are they one activity?", ", ".join(alike))


def scan_folder(videos_dir: Path) -> VideoList:
    """Every file below `videos_dir/<label>/`, whatever its extension; hidden files, images and sidecars are counted.

    The group is read from UCF-style names (`_g07_`); without one, each file is its own group.
    """
    class_dirs = sorted(p for p in videos_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
    class_dirs = [p for p in class_dirs if not (p / "dataset.json").is_file()]  # what preprocess made of them
    if not class_dirs:
        raise DatasetError(
            f"no class folders and no manifest.csv; expected {videos_dir.name}/<label>/<video>", path=videos_dir
        )
    samples, num_skipped, missing = [], 0, {}
    for class_dir in class_dirs:
        for file in files_below(class_dir):
            relative = file.relative_to(videos_dir)
            path = relative.as_posix()
            if is_passed_over(relative):
                num_skipped += 1
            elif printable(path) != path:
                missing[printable(path)] = NOT_UTF8
            else:
                samples.append(Sample(path=path, label=class_dir.name, group=_group_from_name(path)))
    stray = [p.name for p in videos_dir.iterdir() if p.is_file() and not is_passed_over(Path(p.name))]
    if stray:
        _logger.warning("%s: not in a class folder, left out: %s", videos_dir, name_some(stray))
    if not samples:
        num_others = num_skipped + len(missing)
        raise DatasetError(f"its class folders hold no videos ({num_others} other files skipped)", path=videos_dir)
    _warn_of_labels_without_videos([p.name for p in class_dirs], samples)
    return VideoList(videos_dir, samples, num_skipped, missing)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, in order; links to folders are followed, but not round in circles."""
    seen = {str(parent) for parent in folder.resolve().parents}
    files = []
    for parent, dirs, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            dirs.clear()
            continue
        seen.add(real)
        dirs.sort()
        files += [file for name in names if (file := Path(parent, name)).is_file()]
    return sorted(files)


def _warn_of_labels_without_videos(labels: Iterable[str], samples: Iterable[Sample]) -> None:
    absent = set(labels) - set(labels_of(samples))
    if absent:
        _logger.warning("no videos of: %s", name_some(absent))


def is_passed_over(relative_path: Path) -> bool:
    """Whether a search through folders skips a file: hidden, an image, or a sidecar such as subtitles."""
    hidden = any(part.startswith(".") for part in relative_path.parts)
    return hidden or relative_path.suffix.lower() in _SIDECARS | _IMAGES


# === A manifest ===


def read_manifest(manifest_path: Path) -> VideoList:
    """The rows of a `manifest.csv`: `path,label[,group][,split]` and any other columns, which are carried through.

    With the columns `start_seconds,end_seconds`, several rows may be segments of one file, all of one group and split;
    where a row leaves them empty, they are the beginning and the end of the video.

    Files that are not there are reported in `VideoList.missing`; all other faults raise, naming the line.
    """
    videos_dir = manifest_path.parent
    try:
        with manifest_path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            absent = {"path", "label"} - set(columns)
            if absent:
                raise DatasetError(
                    f"expected columns path,label[,group][,split], missing {name_some(absent)}; "
                    f"received: {','.join(columns)}{_note_on_columns(columns)}",
                    path=manifest_path,
                )
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"not a CSV file in UTF-8: {error}", path=manifest_path) from error
    samples, lines = [], [line for line, _ in rows]
    for line, row in rows:
        try:
            samples.append(_sample_from_row(row))
        except DatasetError as error:
            raise DatasetError(f"line {line}: {error.reason}", path=manifest_path) from error
    _check_segments(samples, lines, manifest_path)
    found = {path for path in {sample.path for sample in samples} if (videos_dir / path).is_file()}
    missing = {
        sample.path: f"named in {manifest_path.name} line {line}, but there is no such file"
        for sample, line in zip(reversed(samples), reversed(lines), strict=True)
        if sample.path not in found
    }
    there = in_order(sample for sample in samples if sample.path in found)
    if not there:
        raise DatasetError(f"none of its {len(rows)} rows names a file that exists in {videos_dir}", path=manifest_path)
    _warn_of_labels_without_videos({sample.label for sample in samples}, there)
    _warn_of_overlaps(there)
    return VideoList(videos_dir, there, missing=missing)


def _check_segments(samples: Sequence[Sample], lines: Sequence[int], manifest_path: Path) -> None:
    """Raise `DatasetError` where two rows name the same, or split one file across groups or splits."""
    names: dict[str, int] = {}
    first: dict[str, tuple[Sample, int]] = {}
    for sample, line in zip(samples, lines, strict=True):
        if names.setdefault(sample.name, line) != line:
            raise DatasetError(f"lines {names[sample.name]} and {line} both name {sample.name}", path=manifest_path)
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


def _warn_of_overlaps(samples: Sequence[Sample]) -> None:
    """Name segments of one file that overlap under different labels; `samples` are in order."""
    clashes = []
    for i, sample in enumerate(samples):
        for j in range(i + 1, len(samples)):
            other = samples[j]
            if other.path != sample.path or other.span[0] >= sample.span[1]:
                break
            if other.label != sample.label:
                clashes.append(f"{sample.name} ({sample.label}) and {other.name} ({other.label})")
    if clashes:
        _logger.warning("%d pairs of segments overlap under different labels: %s", len(clashes), name_some(clashes, 3))


def _note_on_columns(columns: Sequence[str]) -> str:
    if len(columns) == 1 and re.search(r"[;\t|]", columns[0]):
        return " (columns must be separated by commas)"
    if {"path", "label"} <= {column.strip().lower() for column in columns}:
        return " (column names must be in small letters, without spaces)"
    return ""


def _sample_from_row(row: dict[str, str]) -> Sample:
    if None in row or None in row.values():
        raise DatasetError(f"expected {len([k for k in row if k])} fields, received another number")
    values = {name: value.strip() for name, value in row.items()}
    path, label, split = values.pop("path"), values.pop("label"), values.pop("split", "")
    parts = PurePosixPath(path.replace("\\", "/"))
    if not path or not label:
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
        group=group or _group_from_name(str(parts)),
        split=split,
        start_seconds=start or None,  # 0 is the beginning too
        end_seconds=end,
        extra=values,
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


def _group_from_name(path: str) -> str:
    match = _UCF_GROUP.match(PurePosixPath(path).stem + "_")
    return match["group"] if match else path


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
        return [(f"{hmdb['label']}/{name}", _HMDB_SPLITS[number]) for name, number in rows]
    split = next((split for split in SPLITS if file.name.startswith(split)), None)
    if split is None or any("/" not in row[0] for row in rows):
        raise DatasetError(
            "expected UCF101's trainlistNN.txt / testlistNN.txt with lines 'Label/v_Label_g01_c01.avi', "
            "or HMDB51's LABEL_test_splitN.txt",
            path=file,
        )
    return [(row[0], split) for row in rows]


def _apply_split_files(listed: VideoList, split_files: list[Path]) -> VideoList:
    splits = read_split_files(split_files)
    keys: dict[str, list[Sample]] = defaultdict(list)
    for sample in listed.samples:
        alike = keys[f"{sample.label}/{PurePosixPath(sample.path).name}"]
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
    return VideoList(listed.videos_dir, in_order(kept), listed.num_skipped, {**listed.missing, **missing})
