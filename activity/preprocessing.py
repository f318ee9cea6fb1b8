"""From labelled videos to a data set folder, in parallel; safe to stop at any point and to run again."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import logging
import multiprocessing
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError, as_completed  # 3.10's is not the built-in
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from activity import __version__
from activity.config import ClipSpec, as_dict
from activity.dataset import SPLITS, Sample, VideoList, labels_of, labels_without, list_videos
from activity.errors import DatasetError, VideoError
from activity.splits import assign_splits
from activity.store import (
    FORMAT_VERSION,
    MANIFEST_COLUMNS,
    PROBLEM_COLUMNS,
    Dataset,
    atomic_file,
    load_dataset,
    read_about,
    stack_path,
    write_csv,
    write_stack,
)
from activity.video import probe

_NEW_GROUPS_TO_SPLIT = 5  # with fewer new groups than this, all of them go to train

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decoded:
    """A row of `decoded.csv`; `num_frames` 0 means that the video gave none."""

    sample_id: str
    num_frames: int
    num_frames_claimed: int
    duration_seconds: float
    problem: str


def preprocess(
    videos: Path,
    dataset_dir: Path,
    spec: ClipSpec,
    *,
    split_files: Sequence[Path] = (),
    num_workers: int | None = None,
    seconds_per_video: float = 600,
    seed: int = 0,
) -> Dataset:
    """Decode labelled videos into a data set folder.

    A second run decodes only videos that are new or changed, drops those that are gone, and keeps the splits of the
    groups it knows. A video that cannot be read is listed in `problems.csv` with its reason, and the run goes on.

    Workers are spawned processes: in a script of your own, call this below `if __name__ == "__main__":`.

    Args:
        videos: a folder per class, a folder with a `manifest.csv`, or that CSV; see `activity.dataset.list_videos`.
        dataset_dir: created; must be empty, or a data set of the same spec.
        spec: which frames and at what size.
        split_files: official split lists of UCF101 or HMDB51.
        num_workers: decoding processes, by default one per CPU.
        seconds_per_video: a video that takes longer is given up and listed.
        seed: of the split.

    Raises:
        DatasetError: see `list_videos`; or the folder holds something else, or not one video can be read.
    """
    dataset_dir = Path(dataset_dir)
    listed = list_videos(videos, split_files=split_files)
    known_splits = _claim_folder(dataset_dir, spec, listed.videos_dir, seed)
    listed = _with_ids(listed)
    decoded = _decode_missing(listed, dataset_dir, spec, num_workers or count_cpus(), seconds_per_video)
    samples = [_complete(sample, decoded) for sample in listed.samples]
    problems = _problems(listed, decoded)
    samples = [sample for sample in samples if sample.num_frames]
    if not samples:
        first = problems[0]
        raise DatasetError(f"{videos}: none of {len(problems)} videos can be read; {first['path']}: {first['reason']}")
    samples = _assign_splits(_join_copies(samples), known_splits, seed)
    _write_folder(dataset_dir, spec, listed, samples, problems, seed)
    return load_dataset(dataset_dir)


def count_cpus() -> int:
    """Processors this process may use; a container's limit counts."""
    import joblib

    return joblib.cpu_count()


def _claim_folder(dataset_dir: Path, spec: ClipSpec, videos_dir: Path, seed: int) -> dict[str, str]:
    """Make the folder ours, or check that it is; returns the splits it holds, by group and by content."""
    about = read_about(dataset_dir) if dataset_dir.is_dir() else None
    if about is None:
        if dataset_dir.exists() and (not dataset_dir.is_dir() or any(dataset_dir.iterdir())):
            raise DatasetError(f"{dataset_dir}: exists and is not a data set folder; choose another --out")
        (dataset_dir / "frames").mkdir(parents=True)
        _write_about(dataset_dir, spec, videos_dir, seed)
        return {}
    if ClipSpec(**about["spec"]) != spec:
        raise DatasetError(
            f"{dataset_dir}: was made with {ClipSpec(**about['spec'])}; received {spec}; choose another --out, or "
            "delete that folder"
        )
    (dataset_dir / "frames").mkdir(exist_ok=True)
    if about["seed"] != seed or not (dataset_dir / "manifest.csv").is_file():
        return {}
    samples = load_dataset(dataset_dir).samples
    return {key: sample.split for sample in samples for key in (sample.group, _content_of(sample))}


def _write_about(dataset_dir: Path, spec: ClipSpec, videos_dir: Path, seed: int, **more: object) -> None:
    about = {
        "format_version": FORMAT_VERSION,
        "spec": as_dict(spec),
        "videos_dir": str(videos_dir.resolve()),
        "seed": seed,
        **more,
        "versions": {"activity": __version__, "opencv": cv2.__version__},
    }
    with atomic_file(dataset_dir / "dataset.json", "w") as file:
        json.dump(about, file, indent=2)


# === What is there ===


def _with_ids(listed: VideoList) -> VideoList:
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
        name = re.sub(r"[^A-Za-z0-9_.]+", "_", sample.path)[-80:]
        return [dataclasses.replace(sample, sample_id=f"{name}-{digest.hexdigest()}")]

    with ThreadPoolExecutor() as pool:
        identified = [sample for found in pool.map(identify, listed.samples) for sample in found]
    return dataclasses.replace(listed, samples=identified, missing=missing)


def _content_of(sample: Sample) -> str:
    return sample.sample_id.rpartition("-")[2]


def _join_copies(samples: list[Sample]) -> list[Sample]:
    """Put files of identical content into one group: in two splits they would leak."""
    first: dict[str, Sample] = {}
    joined = []
    for sample in samples:
        original = first.setdefault(_content_of(sample), sample)
        if original is not sample:
            other = f" under another label ({original.label}, {sample.label})" if original.label != sample.label else ""
            _logger.warning("%s has the same content as %s%s", sample.path, original.path, other)
            sample = dataclasses.replace(sample, group=original.group)
        joined.append(sample)
    return joined


# === Decoding ===


def _decode_missing(
    listed: VideoList, dataset_dir: Path, spec: ClipSpec, num_workers: int, seconds_per_video: float
) -> dict[str, _Decoded]:
    """Decode what is not yet decoded; returns sample id -> what its video gave.

    Results are noted in `decoded.csv` one by one, so that a stopped run goes on where it was.
    """
    notes = dataset_dir / "decoded.csv"
    decoded = _read_notes(notes)
    todo = {}
    for sample in listed.samples:
        known = decoded.get(sample.sample_id)
        if known is None or (known.num_frames and not stack_path(dataset_dir, sample.sample_id).is_file()):
            todo[sample.sample_id] = listed.videos_dir / sample.path
    if not todo:
        return decoded
    with notes.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for result, final in _decode_all(todo, dataset_dir, spec, min(num_workers, len(todo)), seconds_per_video):
            decoded[result.sample_id] = result
            if final:
                writer.writerow(dataclasses.astuple(result))
                file.flush()
    return decoded


def _read_notes(path: Path) -> dict[str, _Decoded]:
    """Sample id -> its note. A last line that a kill or a full disk has cut is removed from the file."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with atomic_file(path) as file:
            file.write(whole)
    rows = csv.reader(whole.decode().splitlines())
    return {row[0]: _Decoded(row[0], int(row[1]), int(row[2]), float(row[3]), row[4]) for row in rows}


def _decode_all(
    videos: dict[str, Path], dataset_dir: Path, spec: ClipSpec, num_workers: int, seconds_per_video: float
) -> Iterator[tuple[_Decoded, bool]]:
    """`(result, final)` as they come; one that ran out of time or crashed is not final, a next run tries again.

    Processes are spawned, because a fork of a process with OpenCV's threads may hang (OpenCV issue 5150).
    """
    from pebble import ProcessPool

    pool = ProcessPool(
        max_workers=num_workers,
        context=multiprocessing.get_context("spawn"),
        initializer=cv2.setNumThreads,
        initargs=[1],
    )
    try:
        ids: dict[Future, str] = {
            pool.schedule(
                _decode_one, args=[id_, path, spec, stack_path(dataset_dir, id_)], timeout=seconds_per_video
            ): id_
            for id_, path in videos.items()
        }
        progress = tqdm(as_completed(ids), total=len(ids), desc="decoding", unit="video", disable=None)
        for future in progress:
            yield _outcome(future, ids[future], seconds_per_video)
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _decode_one(sample_id: str, video_path: Path, spec: ClipSpec, path: Path) -> _Decoded:
    """In a worker: one video to one frame stack. A disk that is full is no fault of the video, and raises."""
    try:
        sampled = write_stack(video_path, spec, path)
    except (VideoError, MemoryError) as error:
        reason = str(error).removeprefix(f"{video_path}: ") or type(error).__name__
        return _Decoded(sample_id, 0, _num_frames_claimed(video_path), 0.0, _one_line(reason))
    return _Decoded(
        sample_id,
        sampled.num_frames,
        sampled.num_frames_claimed,
        round(sampled.duration_seconds, 6),
        sampled.problem or "",
    )


def _num_frames_claimed(video_path: Path) -> int:
    try:
        return probe(video_path).num_frames_claimed
    except VideoError:
        return 0


def _outcome(future: Future, sample_id: str, seconds_per_video: float) -> tuple[_Decoded, bool]:
    from pebble import ProcessExpired

    try:
        return future.result(), True
    except TimeoutError:
        reason = f"decoding took longer than {seconds_per_video:g} s and was stopped; allow more with --time-limit"
    except ProcessExpired as error:
        reason = f"decoding crashed the worker process (exit code {error.exitcode})"
    return _Decoded(sample_id, 0, 0, 0.0, reason), False


def _one_line(text: str) -> str:
    return " ".join(text.split())


# === The folder ===


def _complete(sample: Sample, decoded: dict[str, _Decoded]) -> Sample:
    result = decoded[sample.sample_id]
    return dataclasses.replace(sample, num_frames=result.num_frames, duration_seconds=result.duration_seconds)


def _problems(listed: VideoList, decoded: dict[str, _Decoded]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{"path": path, "reason": reason} for path, reason in listed.missing.items()]
    for sample in listed.samples:
        result = decoded[sample.sample_id]
        if result.problem:
            rows.append(
                {
                    "path": sample.path,
                    "reason": result.problem,
                    "frames_read": result.num_frames,
                    "frames_claimed": result.num_frames_claimed,
                }
            )
    return sorted(rows, key=lambda row: str(row["path"]))


def _assign_splits(samples: list[Sample], known_splits: dict[str, str], seed: int) -> list[Sample]:
    """Splits for all samples, such that what had one keeps it, renamed or not: a model may have been trained on it."""
    if any(sample.split for sample in samples) or not known_splits:
        return assign_splits(samples, seed=seed)
    splits: dict[str, str] = {}
    for sample in samples:
        split = known_splits.get(sample.group) or known_splits.get(_content_of(sample))
        if split:
            splits.setdefault(sample.group, split)
    known = [dataclasses.replace(sample, split=splits[sample.group]) for sample in samples if sample.group in splits]
    new = [sample for sample in samples if sample.group not in splits]
    num_new_groups = len({sample.group for sample in new})
    if num_new_groups >= _NEW_GROUPS_TO_SPLIT:
        new = assign_splits(new, seed=seed)
    elif new:
        _logger.warning("%d new groups were added to train; too few to divide among the splits", num_new_groups)
        new = [dataclasses.replace(sample, split="train") for sample in new]
    return sorted(known + new, key=lambda sample: sample.path)


def _write_folder(
    dataset_dir: Path,
    spec: ClipSpec,
    listed: VideoList,
    samples: list[Sample],
    problems: list[dict[str, object]],
    seed: int,
) -> None:
    """Drop what belongs to no sample, write the tables, and last the description."""
    ids = {sample.sample_id for sample in samples}
    for stale in [*dataset_dir.glob("frames/.*.tmp"), *dataset_dir.glob("features/*/.*.tmp")]:
        stale.unlink()
    for path in [*dataset_dir.glob("frames/*.npy"), *dataset_dir.glob("features/*/*.npy")]:
        if path.stem not in ids:
            path.unlink()
    extra = {name: None for sample in samples for name in sample.extra if name not in MANIFEST_COLUMNS}
    rows = [{**sample.extra, **{name: getattr(sample, name) for name in MANIFEST_COLUMNS}} for sample in samples]
    write_csv(dataset_dir / "manifest.csv", [*MANIFEST_COLUMNS, *extra], rows)
    write_csv(dataset_dir / "problems.csv", PROBLEM_COLUMNS, problems)
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for (label, split), count in sorted(Counter((sample.label, sample.split) for sample in samples).items()):
        counts[label][split] = count
    for split in SPLITS:
        absent = labels_without(samples, split)
        if absent:
            _logger.warning("no %s videos of: %s", split, ", ".join(absent))
    _write_about(
        dataset_dir,
        spec,
        listed.videos_dir,
        seed,
        labels=labels_of(samples),
        counts=counts,
        num_skipped=listed.num_skipped,
    )
