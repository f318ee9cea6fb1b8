"""From labelled videos to a data set folder, in parallel; safe to stop at any point and to run again."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, TimeoutError, as_completed  # 3.10's is not the built-in
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from activity._version import __version__
from activity.config import STREAMS, ClipSpec, as_dict
from activity.datasets.dataset import (
    FORMAT_VERSION,
    MANIFEST_COLUMNS,
    PROBLEM_COLUMNS,
    Dataset,
    load_dataset,
    read_about,
    stack_path,
    stream_dir,
    time_columns,
    write_stacks,
)
from activity.datasets.manifest import list_videos
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
from activity.errors import DatasetError, SettingError, VideoError
from activity.files import LOCK_NAME, atomic_file, lock_folder, write_csv
from activity.progress import progress_bar
from activity.video.clips import Span
from activity.video.decoder import probe

_OTHER_FOLDER = "choose another --out, or delete that folder"

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
    videos: Path | str,
    dataset_dir: Path | str,
    spec: ClipSpec,
    *,
    split_files: Sequence[Path] = (),
    num_workers: int | None = None,
    seconds_per_video: float = 600,
    seed: int = 0,
) -> Dataset:
    """Decode labelled videos into a data set folder.

    A second run decodes only videos that are new or changed, drops those that are gone, and keeps the splits of the
    groups it knows. A video that cannot be read is listed in `problems.csv` with its reason, and the run continues.
    Segments are treated as videos are, where the manifest has some.

    Workers are spawned processes: in a script of your own, call this below `if __name__ == "__main__":`.

    Args:
        videos: a folder per class, a folder with a `manifest.csv`, or that CSV; see
            `activity.datasets.manifest.list_videos`.
        dataset_dir: created; must be empty, or a data set of the same spec and videos.
        spec: which frames and at what size.
        split_files: official split lists of UCF101 or HMDB51.
        num_workers: decoding processes, by default one per CPU.
        seconds_per_video: a video that takes longer is given up and listed.
        seed: of the split.

    Raises:
        SettingError: `seconds_per_video` or `seed` is out of range.
        DatasetError: see `list_videos`; or the folder holds something else, or too few videos can be read.
        ActivityError: another command is writing the folder.
    """
    if not seconds_per_video > 0:
        raise SettingError("seconds_per_video", "above 0", seconds_per_video)
    if seed < 0:
        raise SettingError("seed", "0 or more", seed)
    dataset_dir = Path(dataset_dir)
    listed = list_videos(Path(videos), split_files=split_files)
    with lock_folder(dataset_dir, "preprocess"):
        _fill_folder(listed, dataset_dir, spec, num_workers or count_cpus(), seconds_per_video, seed)
    return load_dataset(dataset_dir)


def _fill_folder(
    listed: VideoList, dataset_dir: Path, spec: ClipSpec, num_workers: int, seconds_per_video: float, seed: int
) -> None:
    """Decode what is new or changed and write the folder, while nobody else does."""
    labels = labels_of(listed.samples)
    about = _claim_folder(dataset_dir, spec, listed.videos_dir, seed)
    listed = with_ids(listed)
    known = load_dataset(dataset_dir).samples if (dataset_dir / "manifest.csv").is_file() else []
    _check_what_is_gone(known, listed, about["videos_dir"], dataset_dir)
    decoded = _read_notes(dataset_dir / "decoded.csv")
    other_opencv = about.get("versions", {}).get("opencv") != cv2.__version__  # it may read what the last one could not
    todo = _to_decode(listed, decoded, dataset_dir, spec, retry_failed=other_opencv)
    if todo:
        decoded |= _decode(todo, dataset_dir, spec, num_workers, seconds_per_video)
    samples = [_complete(sample, decoded) for sample in listed.samples]
    problems = _problems(listed, decoded)
    samples = [sample for sample in samples if sample.num_frames]
    _check_labels(labels, samples, problems, listed.videos_dir)
    samples = extend_splits(join_copies(samples), known if about.get("seed") == seed else [], seed=seed)
    _write_folder(dataset_dir, spec, listed, samples, problems, seed)


def count_cpus() -> int:
    """Processors this process may use; a container's limit counts."""
    import joblib

    return joblib.cpu_count()


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
        "versions": {"activity": __version__, "opencv": cv2.__version__},
    }
    with atomic_file(dataset_dir / "dataset.json", "w") as file:
        json.dump(about, file, indent=2, allow_nan=False)


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


def _to_decode(
    listed: VideoList, decoded: dict[str, _Decoded], dataset_dir: Path, spec: ClipSpec, *, retry_failed: bool
) -> dict[str, tuple[Path, Span]]:
    """Sample id -> video and span, of what has no note or no whole frame stack, and if asked of what failed."""
    todo = {}
    for sample in listed.samples:
        known = decoded.get(sample.sample_id)
        done = known and (
            all(_is_whole(stack_path(dataset_dir, sample.sample_id, stream), spec) for stream in spec.streams)
            if known.num_frames
            else not retry_failed
        )
        if not done:
            todo[sample.sample_id] = (listed.videos_dir / sample.path, sample.span)
    return todo


def _is_whole(stack: Path, spec: ClipSpec) -> bool:
    """Whether a frame stack is there, of the right shape, and as long as its header says; pixels are not read."""
    try:
        frames = np.load(stack, mmap_mode="r")
        size = stack.stat().st_size
    except (OSError, EOFError, ValueError):
        return False
    fits = frames.dtype == np.uint8 and frames.shape[1:] == (spec.height, spec.width, 3)
    return fits and size == frames.offset + frames.nbytes


def _decode(
    todo: dict[str, tuple[Path, Span]], dataset_dir: Path, spec: ClipSpec, num_workers: int, seconds_per_video: float
) -> dict[str, _Decoded]:
    """Sample id -> what its video gave; noted in `decoded.csv` one by one, so that a stopped run continues there."""
    decoded = {}
    with (dataset_dir / "decoded.csv").open("a", encoding="utf-8", newline="") as file:
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
    videos: dict[str, tuple[Path, Span]],
    dataset_dir: Path,
    spec: ClipSpec,
    num_workers: int,
    seconds_per_video: float,
) -> Iterator[tuple[_Decoded, bool]]:
    """`(result, final)` as they come; one out of time or memory, or that crashed, is not final: a next run tries again.

    Processes are spawned, because a fork of a process with OpenCV's threads may hang (OpenCV issue 5150).
    """
    from pebble import ProcessPool

    pool = ProcessPool(
        max_workers=num_workers,
        context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
        initargs=[_logger.getEffectiveLevel()],
    )
    try:
        ids: dict[Future, str] = {
            pool.schedule(_decode_one, args=[id_, *video, spec, dataset_dir], timeout=seconds_per_video): id_
            for id_, video in videos.items()
        }
        progress = progress_bar(as_completed(ids), total=len(ids), desc="decoding", unit="video")
        for future in progress:
            yield _outcome(future, ids[future], seconds_per_video)
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _prepare_worker(log_level: int) -> None:
    """One thread for OpenCV, as the other workers have theirs; and the log of the main process."""
    cv2.setNumThreads(1)
    logging.basicConfig(level=log_level, format="%(message)s")


def _decode_one(sample_id: str, video_path: Path, span: Span, spec: ClipSpec, dataset_dir: Path) -> _Decoded:
    """In a worker: one video or segment to its stacks. A disk that is full is no fault of the video, and raises."""
    try:
        sampled = write_stacks(video_path, spec, dataset_dir, sample_id, span)
    except VideoError as error:
        return _Decoded(sample_id, 0, _num_frames_claimed(video_path), 0.0, _one_line(error.reason))
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
    except MemoryError as error:
        reason = f"there was not enough memory to decode it ({_one_line(str(error)) or 'no details'})"
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
                    "path": sample.name,
                    "reason": result.problem,
                    "frames_read": result.num_frames,
                    "frames_claimed": result.num_frames_claimed,
                }
            )
    return sorted(rows, key=lambda row: str(row["path"]))


def _check_labels(
    labels: list[str], samples: list[Sample], problems: list[dict[str, object]], videos_dir: Path
) -> None:
    """Name the labels that have lost all their videos; fewer than two labels are not worth a data set."""
    left = labels_of(samples)
    lost = name_some(set(labels) - set(left))
    if len(left) < 2:
        count = f"none of {len(problems)} videos can be read" if not left else f"no readable video of: {lost}"
        first = next(row for row in problems if not row.get("frames_read"))
        raise DatasetError(f"{count}; first problem: {first['path']}: {first['reason']}", path=videos_dir)
    if lost:
        _logger.warning("no readable video of: %s", lost)


def _write_folder(
    dataset_dir: Path,
    spec: ClipSpec,
    listed: VideoList,
    samples: list[Sample],
    problems: list[dict[str, object]],
    seed: int,
) -> None:
    """Write the tables and the description, and only then drop what belongs to no sample."""
    extra = {name: None for sample in samples for name in sample.extra if name not in MANIFEST_COLUMNS}
    columns = [*MANIFEST_COLUMNS, *time_columns(samples)]
    rows = [{**sample.extra, **{name: getattr(sample, name) for name in columns}} for sample in samples]
    write_csv(dataset_dir / "manifest.csv", [*columns, *extra], rows)
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
    ids = {sample.sample_id for sample in samples}
    for folder in (*(stream_dir(dataset_dir, stream) for stream in STREAMS), *dataset_dir.glob("features/*")):
        for path in [*folder.glob(".*.tmp"), *folder.glob("*.npy")]:
            if path.stem not in ids:
                path.unlink()
