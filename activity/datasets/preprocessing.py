"""From videos to a data set folder, in parallel; safe to stop at any point and to run again."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import json
import logging
import os
import platform
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np

from activity._version import __version__
from activity.config import STREAMS, ClipSpec, as_dict
from activity.datasets.arrays import map_array
from activity.datasets.dataset import (
    CAPTION_COLUMNS,
    FORMAT_VERSION,
    MANIFEST_COLUMNS,
    PROBLEM_COLUMNS,
    Dataset,
    is_caption_table,
    load_dataset,
    read_about,
    stack_path,
    stream_dir,
    time_columns,
    write_stacks,
)
from activity.datasets.films import AT_RATE, films_in
from activity.datasets.manifest import list_videos
from activity.datasets.parts import remove_samples
from activity.datasets.samples import (
    SPLITS,
    Sample,
    VideoList,
    content_of,
    file_of,
    labels_of,
    labels_without,
    name_some,
    with_ids,
)
from activity.datasets.splits import extend_splits, join_copies
from activity.errors import ActivityError, DatasetError, SettingError, VideoError, check_type
from activity.executors.choice import open_executor
from activity.executors.local import CallTimedOut, WorkerDied
from activity.files import (
    DAMAGED,
    DIGESTS_NAME,
    LOCK_NAME,
    atomic_file,
    collected_digests,
    digest_of,
    forget_digests,
    is_intact,
    lock_folder,
    note_digests,
    write_csv,
)
from activity.progress import progress_bar
from activity.video.clips import Span
from activity.video.images import IMAGES_PER_SECOND, missing_numbers, probe

if TYPE_CHECKING:
    from activity.executors.choice import Executor

_VERSIONS = {"activity": __version__, "opencv": cv2.__version__}
_OTHER_FOLDER = "choose another --out, or delete that folder"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoded:
    """A row of `decoded.csv`; `num_frames` 0 means that the video gave none. And the digests of its stacks."""

    sample_id: str
    num_frames: int
    num_frames_claimed: int
    duration_seconds: float
    problem: str
    digests: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def as_row(self) -> list[str]:
        """Its fields, and a digest of them: a row that is damaged is no note."""
        values = (self.sample_id, self.num_frames, self.num_frames_claimed, self.duration_seconds, self.problem)
        fields = [str(value) for value in values]
        return [*fields, digest_of(fields, size=4)]


def preprocess(
    videos: Path | str | VideoList,
    dataset_dir: Path | str,
    spec: ClipSpec,
    *,
    split_files: Sequence[Path] = (),
    executor: str = "local",
    address: str | None = None,
    num_workers: int | None = None,
    seconds_per_video: float = 600,
    images_per_second: float = IMAGES_PER_SECOND,
    seed: int = 0,
) -> Dataset:
    """Decode labelled or captioned videos and images into a data set folder.

    A second run decodes only videos that are new or changed, drops those that are gone, and keeps the splits of the
    groups it knows. A video that cannot be read is listed in `problems.csv` with its reason, and the run continues.
    Segments are treated as videos are, where the manifest has some.

    Workers are spawned processes: in a script of your own, call this below `if __name__ == "__main__":`.

    Args:
        videos: a folder per class, a folder with a `manifest.csv`, or that CSV; see
            `activity.datasets.manifest.list_videos`. Or a list of videos, as
            `activity.datasets.annotations.matching.list_labelled` makes it of the labels of other tools.
        dataset_dir: created; must be empty, or a data set of the same spec and videos.
        spec: which frames and at what size.
        split_files: official split lists of UCF101 or HMDB51.
        executor: what decodes: `local`, processes of this machine, or `ray`, those of a Ray cluster: its machines must
            see `videos` and `dataset_dir` under the same paths. What is written is the same.
        address: of a running Ray cluster; see `activity.executors.choice.open_executor`.
        num_workers: decoding processes, by default one per CPU.
        seconds_per_video: a video that takes longer is given up and listed.
        images_per_second: of videos that are folders of numbered images.
        seed: of the split.

    Raises:
        SettingError: `executor`, `address`, `seconds_per_video`, `images_per_second` or `seed` is out of range.
        DatasetError: see `list_videos`; or the folder holds something else, or too few videos can be read.
        ActivityError: another command is writing the folder; or there is no Ray, or no such cluster.
    """
    check_type("spec", spec, ClipSpec, "a ClipSpec")
    if not seconds_per_video > 0:
        raise SettingError("seconds_per_video", "above 0", seconds_per_video)
    if not 0 < images_per_second <= 1000:
        raise SettingError("images_per_second", "above 0 and up to 1000", images_per_second)
    if seed < 0:
        raise SettingError("seed", "0 or more", seed)
    workers = open_executor(executor, prepare=_prepare_worker, num_workers=num_workers, address=address)
    dataset_dir = Path(dataset_dir)
    listed = list_videos(videos if isinstance(videos, VideoList) else Path(videos), split_files=split_files)
    work = _Work(listed.videos_dir, dataset_dir, spec, seconds_per_video, images_per_second, _VERSIONS)
    with lock_folder(dataset_dir, "preprocess"):
        about = _claim_folder(dataset_dir, spec, listed.videos_dir, seed)
        try:
            _fill_folder(listed, work, workers, about, seed)
        except ActivityError as error:
            _note_failure(dataset_dir, error)
            raise
        finally:
            for folder in (dataset_dir, *(stream_dir(dataset_dir, stream) for stream in STREAMS)):
                for leftover in folder.glob(".tmp-*-*"):  # of processes that were killed, or stopped because one failed
                    if leftover.name.split("-")[1].isdigit() and leftover.is_file():
                        leftover.unlink(missing_ok=True)
    return load_dataset(dataset_dir)


@dataclass(frozen=True)
class _Work:
    """The settings of decoding; see `preprocess`."""

    videos_dir: Path
    dataset_dir: Path
    spec: ClipSpec
    seconds_per_video: float
    images_per_second: float
    versions: dict[str, str]


def _fill_folder(listed: VideoList, work: _Work, workers: Executor, about: dict[str, Any], seed: int) -> None:
    """Decode what is new or changed and write the folder, while nobody else does."""
    labels, dataset_dir = labels_of(listed.samples), work.dataset_dir
    folders = [sample.path for sample in listed.samples if (listed.videos_dir / sample.path).is_dir()]
    if folders:
        rate = f"{work.images_per_second:g} images a second (--image-rate)"
        _logger.warning("%d folders of numbered images are taken for videos of %s", len(folders), rate)
    listed = with_ids(listed, work.images_per_second)
    known = load_dataset(dataset_dir).samples if (dataset_dir / "manifest.csv").is_file() else []
    _check_what_is_gone(known, listed, about["videos_dir"], dataset_dir)
    decoded = _read_notes(dataset_dir / "decoded.csv")
    other_opencv = about.get("versions", {}).get("opencv") != cv2.__version__  # it may read what the last one could not
    todo = _to_decode(listed, decoded, work, retry_failed=other_opencv)
    new, unsure = _decode(todo, work, workers) if todo else ({}, set())
    decoded |= new
    samples = []
    for sample in listed.samples:
        found = decoded[sample.sample_id]
        samples.append(
            dataclasses.replace(sample, num_frames=found.num_frames, duration_seconds=found.duration_seconds)
        )
    problems = _problems(listed, decoded)
    _check_labels(labels, [sample for sample in samples if sample.num_frames], problems, listed.videos_dir)
    # What another run may be able to decode has its split already: those of the others must not depend on it.
    samples = [sample for sample in samples if sample.num_frames or sample.sample_id in unsure]
    if about.get("seed") == seed:
        known += [Sample(path="", label="", **waiting) for waiting in about.get("waiting", [])]
    else:
        known = []
    samples = extend_splits(join_copies(samples), known, seed=seed)
    _write_folder(dataset_dir, spec=work.spec, listed=listed, samples=samples, problems=problems, seed=seed)
    final = {sample.sample_id: decoded[sample.sample_id] for sample in listed.samples if sample.sample_id not in unsure}
    _tidy(dataset_dir, samples, final.values())


def _claim_folder(dataset_dir: Path, spec: ClipSpec, videos_dir: Path, seed: int) -> dict[str, Any]:
    """Make the folder ours, or check that it is; returns its description."""
    about = read_about(dataset_dir) if dataset_dir.is_dir() else None
    if about is None:
        if dataset_dir.exists() and not (dataset_dir.is_dir() and _is_vacant(dataset_dir)):
            raise DatasetError("exists and is not a data set folder", path=dataset_dir, hint="choose another --out")
        dataset_dir.mkdir(parents=True, exist_ok=True)
        _write_about(dataset_dir, spec, videos_dir, seed)
        about = read_about(dataset_dir) or {}
    elif about["spec"] != spec:
        raise DatasetError(f"was made with {about['spec']}; received {spec}", path=dataset_dir, hint=_OTHER_FOLDER)
    for stream in spec.streams:
        stream_dir(dataset_dir, stream).mkdir(exist_ok=True)
    return about


def _is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but the first traces of a run that was stopped at once."""
    return all(
        path.name == LOCK_NAME
        or path.match(".*dataset.json*")
        or path.name == DIGESTS_NAME
        or (path in [stream_dir(folder, x) for x in STREAMS] and path.is_dir() and not any(path.iterdir()))
        for path in folder.iterdir()
    )


def _write_about(dataset_dir: Path, spec: ClipSpec, videos_dir: Path, seed: int, **more: object) -> None:
    about = {
        "format_version": FORMAT_VERSION,
        "spec": as_dict(spec),
        "videos_dir": str(videos_dir.resolve()),
        "seed": seed,
        **more,
        "versions": _VERSIONS,
    }
    with atomic_file(dataset_dir / "dataset.json", "w", digest=True) as file:
        json.dump(about, file, indent=2, allow_nan=False)


def _note_failure(dataset_dir: Path, error: ActivityError) -> None:
    """Leave nothing of a first run that made nothing; else say in the folder why it is not complete."""
    if (dataset_dir / "manifest.csv").is_file():
        return
    stacks = [path for stream in STREAMS for path in stream_dir(dataset_dir, stream).glob("*.npy")]
    about = dataset_dir / "dataset.json"
    if stacks:
        values = {**json.loads(about.read_text(encoding="utf-8")), "failure": str(error)}
        with atomic_file(about, "w", digest=True) as file:
            json.dump(values, file, indent=2, allow_nan=False)
        return
    for path in (about, dataset_dir / "decoded.csv", dataset_dir / DIGESTS_NAME):
        path.unlink(missing_ok=True)
    for stream in STREAMS:
        shutil.rmtree(stream_dir(dataset_dir, stream), ignore_errors=True)


def _check_what_is_gone(known: list[Sample], listed: VideoList, videos_dir: Path, dataset_dir: Path) -> None:
    """Name how many known videos are gone; all of them, and from another folder, is a slip of the user."""
    old, new = ({content_of(sample) for sample in samples} for samples in (known, listed.samples))
    here = listed.videos_dir.resolve()
    if known and here != videos_dir and {*map(file_of, new)}.isdisjoint(map(file_of, old)):
        raise DatasetError(
            f"was made from {videos_dir}, and none of its {len(known)} videos is in {here}",
            path=dataset_dir,
            hint=_OTHER_FOLDER,
        )
    lost = Counter(sample.path for sample in known if content_of(sample) not in new)
    changed = Counter(sample.path for sample in listed.samples if content_of(sample) not in old)
    num_gone = (lost - changed).total()
    if num_gone:
        _logger.warning("%d videos are gone, dropped from the data set", num_gone)


# === Decoding ===

_Todo: TypeAlias = dict[str, tuple[Path, Span]]  # sample id -> video and span


def _to_decode(listed: VideoList, decoded: dict[str, _Decoded], work: _Work, *, retry_failed: bool) -> _Todo:
    """What has no note or no whole frame stack, and if asked what failed."""
    todo = {}
    for sample in listed.samples:
        known = decoded.get(sample.sample_id)
        stacks = (stack_path(work.dataset_dir, sample.sample_id, stream) for stream in work.spec.streams)
        done = known and (all(_is_whole(x, work.spec) for x in stacks) if known.num_frames else not retry_failed)
        if not done:
            todo[sample.sample_id] = (listed.videos_dir / sample.path, sample.span)
    return todo


def _is_whole(stack: Path, spec: ClipSpec) -> bool:
    """Whether a frame stack is there, of the right shape, and as it was written."""
    reason = DAMAGED
    try:
        frames = map_array(stack)
        if frames.dtype == np.uint8 and frames.shape[1:] == (spec.height, spec.width, 3) and is_intact(stack):
            return True
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        reason = str(error)
    _logger.warning("%s: %s; it is made again", stack, reason)
    return False


def _decode(todo: _Todo, work: _Work, workers: Executor) -> tuple[dict[str, _Decoded], set[str]]:
    """Sample id -> what its video gave, and the ids of those that another run may be able to decode.

    What is certain is noted in `decoded.csv` one by one, so that a stopped run continues there. A video whose process
    was killed or had no memory is tried again, in the end alone.
    """
    decoded: dict[str, _Decoded] = {}
    unsure: set[str] = set()
    with workers, (work.dataset_dir / "decoded.csv").open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for most in (None, None, 1):
            again: _Todo = {}
            with contextlib.closing(_decode_all(todo, work, workers, most)) as coming:
                for id_, outcome in coming:
                    decoded[id_] = outcome.result
                    if outcome.is_final:
                        note_digests(outcome.result.digests)
                        unsure.discard(id_)
                        writer.writerow(outcome.result.as_row())
                        file.flush()
                    else:
                        unsure.add(id_)
                        again |= {id_: todo[id_]} if outcome.may_pass else {}
            if not (todo := again):
                break
            _logger.warning("%d videos are tried again: %s", len(todo), decoded[next(iter(todo))].problem)
    return decoded, unsure


def _read_notes(path: Path) -> dict[str, _Decoded]:
    """Sample id -> its note. A line that is damaged, or was cut by a kill or a full disk, is removed from the file."""
    content = path.read_bytes() if path.is_file() else b""
    *lines, rest = content.decode("utf-8", "replace").split("\n")
    rows: list[list[str]] = []
    for line in lines:
        with contextlib.suppress(csv.Error):
            rows += csv.reader([line])
    of_earlier_version = all(len(row) == 5 for row in rows)  # which wrote no digests
    notes = {}
    for row in rows:
        with contextlib.suppress(ValueError):
            id_, num_frames, num_claimed, seconds, problem = row[:5]
            note = _Decoded(id_, int(num_frames), int(num_claimed), float(seconds), problem)
            if of_earlier_version or row == note.as_row():
                notes[id_] = note
    if rest or len(notes) < len(lines):
        _write_notes(path, notes.values())
    return notes


@dataclass(frozen=True)
class _Outcome:
    """The result of decoding: final, unless not the video but its process was at fault, and then it `may_pass` soon."""

    result: _Decoded
    is_final: bool = True
    may_pass: bool = False


def _write_notes(path: Path, notes: Iterable[_Decoded]) -> None:
    """Write the notes in order, where they are not so already."""
    with atomic_file(path, "w") as file:
        csv.writer(file, lineterminator="\n").writerows(sorted(note.as_row() for note in notes))


def _decode_all(
    todo: _Todo, work: _Work, workers: Executor, most: int | None
) -> Generator[tuple[str, _Outcome], None, None]:
    """The outcome of each video by its sample id, as they come; at `most` so many side by side."""
    videos_dir, dataset_dir = work.videos_dir.absolute(), work.dataset_dir.absolute()
    there = dataclasses.replace(work, videos_dir=videos_dir, dataset_dir=dataset_dir)  # another working directory
    videos = [(id_, path.absolute(), span) for id_, (path, span) in todo.items()]
    decode = partial(_decode_one, work=there)
    coming = workers.starmap_unordered(decode, videos, seconds=work.seconds_per_video, most=most)
    with contextlib.closing(coming):
        for (id_, *_), result in progress_bar(coming, total=len(videos), desc="decoding", unit="video"):
            yield id_, _outcome(result, id_, work.seconds_per_video)


def _prepare_worker() -> None:
    """One thread for OpenCV, as the other workers have theirs."""
    cv2.setNumThreads(1)


def _decode_one(sample_id: str, video_path: Path, span: Span, work: _Work) -> _Decoded:
    """In a worker: one video or segment to its stacks. A disk that is full is no fault of the video, and raises."""
    _check_machine(work)
    try:
        with collected_digests() as digests:
            sampled = write_stacks(video_path, work.spec, work.dataset_dir, sample_id, span, work.images_per_second)
        problem = sampled.problem or (missing_numbers(video_path) if video_path.is_dir() else "")
    except VideoError as error:
        num_claimed = 0
        with contextlib.suppress(VideoError):
            num_claimed = probe(video_path).num_frames_claimed
        return _Decoded(sample_id, 0, num_claimed, 0.0, _one_line(error.reason))
    seconds = round(sampled.duration_seconds, 6)
    return _Decoded(sample_id, sampled.num_frames, sampled.num_frames_claimed, seconds, problem, digests)


def _check_machine(work: _Work) -> None:
    """Raise `ActivityError` on a machine of a cluster that would decode otherwise, or does not see the videos."""
    if work.versions != _VERSIONS:
        reason = f"the machine {platform.node()} has {_listed(_VERSIONS)}; expected {_listed(work.versions)}"
        raise ActivityError(reason, hint="install the same on all machines of the cluster")
    if not work.videos_dir.is_dir():
        hint = "all machines of a cluster must see videos and data set under the same paths"
        raise ActivityError(f"the machine {platform.node()} does not see this folder", path=work.videos_dir, hint=hint)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _outcome(result: _Decoded | Exception, sample_id: str, seconds_per_video: float) -> _Outcome:
    """What has become of a video, or of its process."""
    may_pass = True
    match result:
        case _Decoded():
            return _Outcome(result)
        case CallTimedOut():
            may_pass = False
            reason = f"decoding took longer than {seconds_per_video:g} s and was stopped; allow more with --time-limit"
        case MemoryError():
            reason = f"there was not enough memory to decode it ({_one_line(str(result)) or 'no details'})"
        case WorkerDied():
            reason = f"decoding crashed the worker process ({result})"
        case OSError() | ActivityError():  # a full disk, or a machine that must not take part
            raise result
        case _:  # a bug; the other videos are worth the wait
            may_pass = False
            reason = f"decoding failed, which is a fault of this program: {_one_line(repr(result))[:300]}"
    return _Outcome(_Decoded(sample_id, 0, 0, 0.0, reason), is_final=False, may_pass=may_pass)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# === The folder ===


def _problems(listed: VideoList, decoded: dict[str, _Decoded]) -> list[dict[str, object]]:
    noted = (*listed.missing.items(), *listed.problems.items())
    rows: list[dict[str, object]] = [{"path": path, "reason": reason} for path, reason in noted]
    results = ((sample.name, decoded[sample.sample_id]) for sample in listed.samples)
    rows += [
        {"path": name, "reason": x.problem, "frames_read": x.num_frames, "frames_claimed": x.num_frames_claimed}
        for name, x in results
        if x.problem
    ]
    return sorted(rows, key=lambda row: str(row["path"]))


def _check_labels(
    labels: list[str], samples: list[Sample], problems: list[dict[str, object]], videos_dir: Path
) -> None:
    """Name the labels that have lost all their videos; a data set has two labels, or captions."""
    left = labels_of(samples)
    lost = name_some(set(labels) - set(left))
    if len(left) < 2 and not any(sample.captions for sample in samples):
        count = f"no readable video of: {lost}" if lost else "no readable video with a caption"
        count = count if samples else f"none of {len(problems)} videos can be read"
        first = next(row for row in problems if not row.get("frames_read"))
        raise DatasetError(f"{count}; first problem: {first['path']}: {first['reason']}", path=videos_dir)
    if lost:
        _logger.warning("no readable video of: %s", lost)


def _write_folder(
    dataset_dir: Path,
    *,
    spec: ClipSpec,
    listed: VideoList,
    samples: list[Sample],
    problems: list[dict[str, object]],
    seed: int,
) -> None:
    """Write the tables and the description."""
    waiting = [
        {"sample_id": sample.sample_id, "group": sample.group, "split": sample.split}
        for sample in samples
        if not sample.num_frames
    ]
    samples = [sample for sample in samples if sample.num_frames]
    extra = {name: None for sample in samples for name in sample.extra}
    if replaced := [name for name in MANIFEST_COLUMNS if extra.pop(name, "") is None]:
        _logger.warning("columns of the manifest that preprocess sets itself, replaced: %s", ", ".join(replaced))
    columns = [*MANIFEST_COLUMNS, *time_columns(samples)]
    rows = [{**sample.extra, **{name: getattr(sample, name) for name in columns}} for sample in samples]
    _write_captions(dataset_dir / "captions.csv", samples)
    _keep_if_changed(dataset_dir / "manifest.csv")
    write_csv(dataset_dir / "manifest.csv", [*columns, *extra], rows, digest=True)
    write_csv(dataset_dir / "problems.csv", PROBLEM_COLUMNS, problems, digest=True)
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for (label, split), count in sorted(Counter((x.label, x.split) for x in samples if x.label).items()):
        counts[label][split] = count
    num_captions = {split: sum(len(x.captions) for x in samples if x.split == split) for split in SPLITS}
    for split in SPLITS:
        absent = labels_without(samples, split)
        if absent:
            _logger.warning("no %s videos of: %s", split, ", ".join(absent))
        if any(num_captions.values()) and not num_captions[split]:
            _logger.warning("no %s videos with captions", split)
    _write_about(
        dataset_dir,
        spec,
        listed.videos_dir,
        seed,
        labels=labels_of(samples),
        counts=counts,
        num_skipped=sum(listed.skipped.values()),
        **({"waiting": waiting} if waiting else {}),
        **({"captions": num_captions} if any(num_captions.values()) else {}),
    )


def _write_captions(path: Path, samples: Iterable[Sample]) -> None:
    """Write the table of captions; without any, one of an earlier run is removed."""
    rows = [{"sample_id": sample.sample_id, "caption": text} for sample in samples for text in sample.captions]
    is_foreign = path.is_file() and not is_caption_table(path)
    if rows:
        _keep_if_changed(path, always=is_foreign)
        write_csv(path, CAPTION_COLUMNS, rows, digest=True)
    elif not is_foreign:
        _keep_if_changed(path)
        path.unlink(missing_ok=True)


_OUR_ID = re.compile(r".*-[0-9a-f]{16}(_.*)?", re.DOTALL)  # of a sample, see `with_ids`: others keep files of theirs


def _keep_if_changed(path: Path, *, always: bool = False) -> None:
    """A table that somebody has changed is written anew, so it is kept under another name."""
    if path.is_file() and (always or not is_intact(path)):
        names = (path.with_name(f"{path.stem}.changed-{number}{path.suffix}") for number in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        os.replace(path, kept)
        _logger.warning("%s: written anew; as it was, it is now %s", path, kept.name)


def _tidy(dataset_dir: Path, samples: list[Sample], notes: Iterable[_Decoded]) -> None:
    """Drop what belongs to no sample, after the tables are written: equal videos give equal folders."""
    _write_notes(dataset_dir / "decoded.csv", notes)
    tables = ("captions.csv", "dataset.json", "manifest.csv", "problems.csv")
    forget_digests(dataset_dir, [name for name in tables if (dataset_dir / name).is_file()])
    ids = {sample.sample_id for sample in samples} | {film.film_id for film in films_in(samples)}

    def is_gone(id_: str) -> bool:
        return ids.isdisjoint((id_, id_.rpartition(AT_RATE)[0])) and bool(_OUR_ID.fullmatch(id_))

    for folder in (*(stream_dir(dataset_dir, stream) for stream in STREAMS), *dataset_dir.glob("features/*")):
        remove_samples(folder, is_gone)
