"""Search folders for videos, and tell what is left out: nothing that might be one vanishes without a word."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from activity.datasets.samples import SPLITS, Sample, VideoList, in_order, labels_of, name_some
from activity.errors import DatasetError, is_utf8, printable
from activity.video.decoder import NOT_UTF8
from activity.video.images import IMAGE_SUFFIXES, images_of, numbered_images

MANIFEST_NAME = "manifest.csv"
_SIDECARS = {".csv", ".json", ".txt", ".md", ".srt", ".xml", ".npy", ".keras", ".log"}
_SIDECARS |= {".tsv", ".xlsx", ".boris", ".eaf"}  # annotations
_SYSTEM = {"@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__macosx"}
_SYSTEM |= {"thumbs.db", "desktop.ini"}  # of network storage, Windows, macOS
_UCF_GROUP = re.compile(r"^(?P<group>.+_g\d+)_")  # v_ApplyEyeMakeup_g08_c01.avi: take 1 of the eighth recording

_logger = logging.getLogger(__name__)


def scan_folder(videos_dir: Path) -> VideoList:
    """Every file below `videos_dir/<label>/`, whatever its extension, and every folder of numbered images there.

    Folders `train`, `val`, `test` above those of the labels give the splits. The group is read from UCF-style names
    (`_g07_`); without one, each video is its own group. What is left out is listed or counted, with the reason.
    """
    skipped: Counter[str] = Counter()
    class_dirs = _class_folders(videos_dir, skipped)
    if not class_dirs:
        raise DatasetError(
            f"no class folders and no manifest.csv; expected {videos_dir.name}/<label>/<video>", path=videos_dir
        )
    samples: list[Sample] = []
    left_out: dict[Path, str] = {}
    for class_dir, split in class_dirs.items():
        found = find_videos(class_dir)
        left_out |= found.left_out
        skipped += found.skipped
        for video in found.videos:
            path = video.relative_to(videos_dir).as_posix()
            if not is_utf8(path):
                left_out[video] = NOT_UTF8
            else:
                label = unicodedata.normalize("NFC", class_dir.name)
                samples.append(Sample(path=path, label=label, group=group_from_name(path), split=split))
    for folder in {videos_dir, *(class_dir.parent for class_dir in class_dirs)}:
        for stray in folder.iterdir():
            if stray.is_dir():
                continue
            if kind := kind_of(Path(stray.name)):
                skipped[kind] += 1
            else:
                left_out[stray] = why_no_video(stray) or "not in the folder of a label"
            if stray.name.casefold() == MANIFEST_NAME:
                _logger.warning("%s is not read; call it %s", stray, MANIFEST_NAME)
    if not samples:
        num_others = skipped.total() + len(left_out)
        raise DatasetError(f"its class folders hold no videos ({num_others} other files skipped)", path=videos_dir)
    warn_of_labels_without_videos({unicodedata.normalize("NFC", p.name) for p in class_dirs}, samples)
    missing = {printable(path.relative_to(videos_dir).as_posix()): reason for path, reason in left_out.items()}
    return VideoList(videos_dir, in_order(samples), dict(skipped), missing)


def _class_folders(videos_dir: Path, skipped: Counter[str]) -> dict[Path, str]:
    """The folder of each label, and the split that is given by the folder above, if there is one.

    Folders that are not taken for labels are counted in `skipped`, by their kind.
    """

    def folders_in(folder: Path, skipped: Counter[str]) -> list[Path]:
        kinds = {
            path: kind_of(Path(path.name), is_folder=True) or _kind_of_ours(path)
            for path in sorted(folder.iterdir())
            if path.is_dir()
        }
        skipped.update(kind for kind in kinds.values() if kind)
        return [path for path, kind in kinds.items() if not kind]

    folders = folders_in(videos_dir, skipped)
    splits = {folder: _SPLIT_FOLDERS.get(folder.name.lower(), "") for folder in folders}
    named = name_some(folder.name for folder, split in splits.items() if split)
    if len({*splits.values()} - {""}) < 2:
        return dict.fromkeys(folders, "")
    skipped_below: Counter[str] = Counter()
    class_dirs = {folder: folders_in(folder, skipped_below) for folder in folders}
    num_folders = Counter(splits.values())  # of each split
    in_the_way = []
    for folder, split in splits.items():
        if not split or not class_dirs[folder] or num_folders[split] > 1:
            found = find_videos(folder)
            if found.videos or found.left_out:
                in_the_way.append(folder.name)
            else:
                class_dirs[folder] = []
                skipped_below += found.skipped
    if in_the_way or len({split for folder, split in splits.items() if class_dirs[folder]}) < 2:
        others = f" (but: {name_some(in_the_way)})" if in_the_way else ""
        expected = f"as splits, each would hold the folders of labels{others}"
        _logger.warning("%s: taken for labels: %s; %s", videos_dir, named, expected)
        return dict.fromkeys(folders, "")
    skipped.update(skipped_below)
    _logger.warning("%s: taken for splits: %s; the folders in them for labels", videos_dir, named)
    return {class_dir: splits[folder] for folder in folders for class_dir in class_dirs[folder]}


_SPLIT_FOLDERS = {
    **{split: split for split in SPLITS},
    **{"training": "train", "valid": "val", "validation": "val", "testing": "test"},
}


@dataclass
class FoundVideos:
    """The result of a search for videos.

    Attributes:
        videos: files, and folders of numbered images, in order.
        left_out: what might be a video but cannot be read, with the reason.
        skipped: reason -> number of files that are no videos by their names.
    """

    videos: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)


def find_videos(folder: Path, *, most_files: float = math.inf) -> FoundVideos:
    """All that may be a video below a folder; links to folders are followed, but not round in circles.

    Args:
        folder: that is searched.
        most_files: the search ends after about so many.
    """
    found, seen = FoundVideos(), {str(parent) for parent in folder.resolve().parents}
    num_files = 0

    def refuse(error: OSError) -> None:
        found.left_out[Path(error.filename)] = f"cannot be opened: {error.strerror}"

    for parent, dirs, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            dirs.clear()
            continue
        seen.add(real)
        num_files += len(names)
        if num_files > most_files:
            break
        kinds = {name: kind_of(Path(name)) for name in names}
        kinds |= {name: kind_of(Path(name), is_folder=True) or _kind_of_ours(Path(parent, name)) for name in dirs}
        found.skipped.update(kind for kind in kinds.values() if kind not in ("", "image"))
        dirs[:] = sorted(name for name in dirs if not kinds[name])
        reasons = {Path(parent, name): why_no_video(Path(parent, name)) for name in names if not kinds[name]}
        found.left_out |= {file: reason for file, reason in reasons.items() if reason}
        videos = [file for file, reason in reasons.items() if not reason]
        images = {name for name in names if kinds[name] == "image"}
        sequences = {} if videos else numbered_images(images)
        images -= {name for sequence in sequences.values() for name in sequence.values()}
        if len(sequences) == 1:
            videos = [Path(parent)]
        elif sequences:
            starts = name_some(sequences, 3)
            several = f"holds images of {len(sequences)} sequences ({starts}); expected a folder for each"
            found.left_out[Path(parent)] = several
        found.videos += videos
        found.skipped.update(["image"] * len(images))
    found.videos.sort()
    return found


def why_no_video(path: Path) -> str:
    """Why something cannot be a video: it is no file and no folder of numbered images; empty if it may be one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "it is a link to nowhere" if path.is_symlink() else "there is no such file"
    except (OSError, ValueError) as error:
        return f"it cannot be opened: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "" if images_of(path) else "it is a folder, and not one of numbered images"
    return "" if stat.S_ISREG(mode) else "it is a pipe, socket or device"


def warn_of_labels_without_videos(labels: Iterable[str], samples: Iterable[Sample]) -> None:
    """Name the labels that are expected, but that no sample has."""
    absent = set(labels) - set(labels_of(samples)) - {""}
    if absent:
        _logger.warning("no videos of: %s", name_some(absent))


def kind_of(relative_path: Path, *, is_folder: bool = False) -> str:
    """The kind of a file that a search skips: `hidden`, `system`, `image` or `sidecar`; empty if it may be a video."""
    if any(part.startswith(".") for part in relative_path.parts):
        return "hidden"
    if any(part.lower() in _SYSTEM for part in relative_path.parts):
        return "system"
    suffix = "" if is_folder else relative_path.suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "sidecar" if suffix in _SIDECARS else ""


def _kind_of_ours(folder: Path) -> str:
    """The kind of a folder that this program has made; empty if it has not."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # another program may use the name
        if {"format_version", "spec"} <= json.loads((folder / "dataset.json").read_text(encoding="utf-8")).keys():
            return "data set"
    model = folder.with_suffix(".keras")
    return "model" if folder.suffix in (".training", ".exported") and model.is_file() else ""


def group_from_name(path: str) -> str:
    """The group in a UCF-style name; without one, the path itself."""
    match = _UCF_GROUP.match(PurePosixPath(path).stem + "_")
    return match["group"] if match else path
