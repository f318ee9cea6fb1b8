"""Which videos, with which label, of which group, in which split.

A group is what clips share beside their label: the person, the recording, the place. Clips of one group never stand on
both sides of a split, else the score tells how well the model knows the group, not the activity.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from activity.errors import DatasetError
from activity.video import NOT_UTF8, printable

SPLITS = ("train", "val", "test")
_SIDECARS = {".csv", ".json", ".txt", ".md", ".srt", ".xml"}
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_UCF_GROUP = re.compile(r"^(?P<group>.+_g\d+)_")  # v_ApplyEyeMakeup_g08_c01.avi: take 1 of the eighth recording
_HMDB_LIST = re.compile(r"^(?P<label>.+)_test_split\d+\.txt$")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9.]{1,20}/[A-Za-z0-9_.]{1,59}")  # can be told from its name, where '/' is '_'
_HMDB_SPLITS = {"0": "", "1": "train", "2": "test"}  # HMDB51's README; 0 is not used in this split

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled video: a row of a manifest.

    Attributes:
        path: relative to the videos folder, with forward slashes.
        label: name of its activity.
        group: clips of one group stay in one split.
        split: `train`, `val`, `test`, or empty until it is assigned.
        sample_id: names its files in the data set folder; empty until it is preprocessed.
        num_frames: decoded from the video.
        duration_seconds: of the video.
        extra: further columns of the user's manifest, carried through.
    """

    path: str
    label: str
    group: str
    split: str = ""
    sample_id: str = ""
    num_frames: int = 0
    duration_seconds: float = 0.0
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VideoList:
    """The videos of a folder or manifest.

    Attributes:
        videos_dir: what `Sample.path` is relative to.
        samples: in order of their paths.
        num_skipped: hidden files, pictures and sidecars that were passed over.
        missing: paths that a manifest or split list names but that are not there, and files of a name that cannot be
            used, with the reason.
    """

    videos_dir: Path
    samples: list[Sample]
    num_skipped: int = 0
    missing: dict[str, str] = field(default_factory=dict)


def list_videos(videos: Path, *, split_files: Sequence[Path] = ()) -> VideoList:
    """The labelled videos of a folder per class, of a folder with a `manifest.csv`, or of such a CSV.

    Args:
        videos: the folder, or the CSV with columns `path,label[,group][,split]` and any others.
        split_files: official lists of UCF101 (`trainlist01.txt`, `testlist01.txt`) or HMDB51
            (`<label>_test_split1.txt`); videos they do not name are left out.

    Raises:
        DatasetError: no such path, no class folders, fewer than two labels, or a manifest or list that does not fit.
    """
    videos = Path(videos)
    if not videos.exists():
        raise DatasetError(f"{videos}: no such file or folder; expected a folder of videos or a manifest .csv")
    manifest = videos / "manifest.csv" if videos.is_dir() else videos
    if manifest.is_file():
        listed = read_manifest(manifest)
    else:
        listed = scan_folder(videos)
    if split_files:
        listed = _apply_split_files(listed, [Path(file) for file in split_files])
    labels = {sample.label for sample in listed.samples}
    if len(labels) < 2:
        raise DatasetError(f"{videos}: expected videos of two or more activities, found {name_some(labels) or 'none'}")
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
    """Every file below `videos_dir/<label>/`, whatever its extension; hidden files, pictures and sidecars are counted.

    The group is read from UCF-style names (`_g07_`); without one, each file is its own group.
    """
    class_dirs = sorted(p for p in videos_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
    class_dirs = [p for p in class_dirs if not (p / "dataset.json").is_file()]  # what preprocess made of them
    if not class_dirs:
        raise DatasetError(
            f"{videos_dir}: no class folders and no manifest.csv; expected {videos_dir.name}/<label>/<video>"
        )
    samples, num_skipped, missing = [], 0, {}
    for class_dir in class_dirs:
        for file in _files_below(class_dir):
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
        raise DatasetError(f"{videos_dir}: its class folders hold no videos ({num_others} other files skipped)")
    _warn_of_labels_without_videos([p.name for p in class_dirs], samples)
    return VideoList(videos_dir, samples, num_skipped, missing)


def _files_below(folder: Path) -> list[Path]:
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
        _logger.warning("no videos are there of: %s", name_some(absent))


def is_passed_over(relative_path: Path) -> bool:
    """Whether a search through folders passes a file over: hidden, a picture, or a sidecar such as subtitles."""
    hidden = any(part.startswith(".") for part in relative_path.parts)
    return hidden or relative_path.suffix.lower() in _SIDECARS | _PICTURES


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Files named by files, folders (searched through) and glob patterns, in order and without repeats.

    In a folder, hidden files, pictures and sidecars are passed over; a file named directly is always taken. A folder
    or pattern that names no file stays as it is: reading it then says so, and the others go on.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = [str(p) for p in _files_below(path) if not is_passed_over(p.relative_to(path))]
        elif not path.exists() and glob.has_magic(source):
            matches = sorted(p for p in glob.glob(source, recursive=True) if Path(p).is_file())
        else:
            matches = [source]
        found += matches or [source]
    return list(dict.fromkeys(found))


def read_manifest(manifest_path: Path) -> VideoList:
    """The rows of a `manifest.csv`: `path,label[,group][,split]` and any other columns, which are carried through.

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
                    f"{manifest_path}: expected columns path,label[,group][,split], missing {name_some(absent)}; "
                    f"received: {','.join(columns)}{_hint_on_columns(columns)}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{manifest_path}: not a CSV file in UTF-8: {error}") from error
    samples: dict[str, Sample] = {}
    lines: dict[str, int] = {}
    labels, missing = set(), {}
    for line, row in rows:
        sample = _sample_from_row(row, f"{manifest_path} line {line}")
        if sample.path in lines:
            raise DatasetError(f"{manifest_path}: lines {lines[sample.path]} and {line} both name {sample.path}")
        lines[sample.path] = line
        labels.add(sample.label)
        if (videos_dir / sample.path).is_file():
            samples[sample.path] = sample
        else:
            missing[sample.path] = f"named in {manifest_path.name} line {line}, but there is no such file"
    if not samples:
        raise DatasetError(f"{manifest_path}: none of its {len(rows)} rows names a file that exists in {videos_dir}")
    _warn_of_labels_without_videos(labels, samples.values())
    return VideoList(videos_dir, [samples[path] for path in sorted(samples)], missing=missing)


def _hint_on_columns(columns: Sequence[str]) -> str:
    if len(columns) == 1 and re.search(r"[;\t|]", columns[0]):
        return " (columns must be separated by commas)"
    if {"path", "label"} <= {column.strip().lower() for column in columns}:
        return " (column names must be in small letters, without spaces)"
    return ""


def _sample_from_row(row: dict[str, str], where: str) -> Sample:
    if None in row or None in row.values():
        raise DatasetError(f"{where}: expected {len([k for k in row if k])} fields, received another number")
    values = {name: value.strip() for name, value in row.items()}
    path, label, split = values.pop("path"), values.pop("label"), values.pop("split", "")
    parts = PurePosixPath(path.replace("\\", "/"))
    if not path or not label:
        raise DatasetError(f"{where}: path and label must not be empty, received path={path!r} label={label!r}")
    if parts.is_absolute() or ".." in parts.parts or re.match(r"^[A-Za-z]:", path):
        raise DatasetError(f"{where}: a path must stay inside the folder of the manifest, received {path}")
    if split not in ("", *SPLITS):
        raise DatasetError(f"{where}: split must be one of {', '.join(SPLITS)} or empty, received {split}")
    group = values.pop("group", None)
    if group == "":
        raise DatasetError(f"{where}: group must not be empty where the column exists")
    return Sample(path=str(parts), label=label, group=group or _group_from_name(str(parts)), split=split, extra=values)


def _group_from_name(path: str) -> str:
    match = _UCF_GROUP.match(PurePosixPath(path).stem + "_")
    return match["group"] if match else path


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
            raise DatasetError(f"{file}: no such split list")
        for path, split in _read_split_file(file):
            if splits.setdefault(path, split) != split:
                raise DatasetError(
                    f"{file}: {path} is {split or 'unused'} here but {splits[path] or 'unused'} in another list; "
                    "give the lists of one split only"
                )
    return splits


def _read_split_file(file: Path) -> list[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: not a split list in UTF-8: {error}") from error
    rows = [line.split() for line in text.splitlines() if line.strip()]
    hmdb = _HMDB_LIST.match(file.name)
    if hmdb:
        if any(len(row) != 2 or row[1] not in _HMDB_SPLITS for row in rows):
            raise DatasetError(f"{file}: expected lines 'NAME.avi 0|1|2' as HMDB51 publishes them")
        return [(f"{hmdb['label']}/{name}", _HMDB_SPLITS[number]) for name, number in rows]
    split = next((split for split in SPLITS if file.name.startswith(split)), None)
    if split is None or any("/" not in row[0] for row in rows):
        raise DatasetError(
            f"{file}: expected UCF101's trainlistNN.txt / testlistNN.txt with lines 'Label/v_Label_g01_c01.avi', "
            "or HMDB51's LABEL_test_splitN.txt"
        )
    return [(row[0], split) for row in rows]


def _apply_split_files(listed: VideoList, split_files: list[Path]) -> VideoList:
    splits = read_split_files(split_files)
    keys: dict[str, Sample] = {}
    for sample in listed.samples:
        first = keys.setdefault(f"{sample.label}/{PurePosixPath(sample.path).name}", sample)
        if first is not sample:
            raise DatasetError(
                f"split lists name files only by label and name, which {first.path} and {sample.path} share"
            )
    kept = [dataclasses.replace(keys[key], split=split) for key, split in splits.items() if split and key in keys]
    if not kept:
        raise DatasetError(f"{listed.videos_dir}: none of the {len(splits)} videos in the split lists is there")
    if len(kept) < len(keys):
        _logger.warning("%d of %d videos are not used by the split lists, left out", len(keys) - len(kept), len(keys))
    absent = [key for key, split in splits.items() if split and key not in keys]
    missing = dict.fromkeys(absent, "named in the split lists, but there is no such file")
    return VideoList(
        listed.videos_dir, sorted(kept, key=lambda s: s.path), listed.num_skipped, {**listed.missing, **missing}
    )


def with_ids(listed: VideoList) -> VideoList:
    """Give each sample its id: its path and a digest of its content, so that a changed video is a new sample.

    Reading a file costs little beside decoding it, and times of change do not survive a copy.
    """
    missing = dict(listed.missing)

    def identify(sample: Sample) -> list[Sample]:
        digest = hashlib.blake2b(digest_size=8)
        try:
            with (listed.videos_dir / sample.path).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            missing[sample.path] = f"cannot be opened: {error.strerror or error}"
            return []
        return [dataclasses.replace(sample, sample_id=f"{_id_name(sample.path)}-{digest.hexdigest()}")]

    with ThreadPoolExecutor() as pool:
        identified = [sample for found in pool.map(identify, listed.samples) for sample in found]
    return dataclasses.replace(listed, samples=identified, missing=missing)


def _id_name(path: str) -> str:
    """A path as part of a file name, unique to it: a digest stands for what the name does not show."""
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", path)[-80:]
    if _PLAIN_PATH.fullmatch(path):
        return name
    return f"{name}-{hashlib.blake2b(path.encode(), digest_size=4).hexdigest()}"


def content_of(sample: Sample) -> str:
    """The digest of a video's content, with which its sample id ends."""
    return sample.sample_id.rpartition("-")[2]


def labels_of(samples: Iterable[Sample]) -> list[str]:
    """The distinct labels in alphabetical order: position is the label id."""
    return sorted({sample.label for sample in samples})


def labels_without(samples: Iterable[Sample], split: str) -> list[str]:
    """Labels of which no sample is in `split`."""
    samples = list(samples)
    return sorted({sample.label for sample in samples} - {s.label for s in samples if s.split == split})


def name_some(names: Iterable[str], most: int = 5) -> str:
    """The first names in alphabetical order and how many more there are, for a message."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
