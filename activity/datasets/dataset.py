"""The data set folder and its frame stacks. Every file appears whole or not at all.

    DATASET/dataset.json    format version, ClipSpec, labels, counts, versions
    DATASET/manifest.csv    sample_id,path,label,group,split,num_frames,duration_seconds, where there are segments also
                            start_seconds,end_seconds (empty: the beginning, the end), and the user's own columns;
                            label is empty where there is none
    DATASET/captions.csv    sample_id,caption, where there are captions: one a row, those of a sample in their order
    DATASET/problems.csv    path,reason,frames_read,frames_claimed
    DATASET/decoded.csv     result of decoding each content, so that it is done once
    DATASET/frames/<sample_id>.npy                       (N, H, W, 3) uint8 RGB, real frames only
    DATASET/motion/<sample_id>.npy, motion_crop/...      the same of the other streams, see `activity.video.streams`
    DATASET/features/<backbone>-<digest>/part-00000.npy  (R, D) float32 of one stream of some thousand samples, and
                            part-00000.csv, sample_id,first_row,num_rows: cached, see `activity.runtimes.features`
    DATASET/digests.txt, DATASET/*/digests.txt           of the files beside it, see `activity.files.is_intact`

N is at most T for evenly spread frames. At a fixed rate it is as long as the video, and clips are windows of it.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from activity.config import FEATURES, STREAMS, ClipSpec, current_streams, spec_from_dict, stored_streams
from activity.datasets.arrays import map_array, write_npy_header
from activity.datasets.feature_files import FeatureFiles, find_feature_files
from activity.datasets.samples import SPLITS, TIME_COLUMNS, Sample, caption_counts, labels_of, name_some
from activity.errors import ActivityError, DatasetError
from activity.files import DAMAGED, atomic_file, is_intact, read_csv
from activity.progress import format_table
from activity.video.clips import WHOLE, Span
from activity.video.images import IMAGES_PER_SECOND
from activity.video.sampling import SampledVideo, iter_frames

_Row = TypeVar("_Row")

_logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # 1 had no streams
_AGAIN = "run the same preprocess command again"
MANIFEST_COLUMNS = ("sample_id", "path", "label", "group", "split", "num_frames", "duration_seconds")
_MOST_REPEATS = 1.5  # of a row of features, before it is said
PROBLEM_COLUMNS = ("path", "reason", "frames_read", "frames_claimed")
CAPTION_COLUMNS = ("sample_id", "caption")


@dataclass(frozen=True)
class Dataset:
    """A preprocessed data set.

    Attributes:
        dataset_dir: its folder.
        videos_dir: where the videos were.
        spec: what a clip is.
        samples: the rows of its manifest.
        problems: the rows of `problems.csv`.
        features: files of another network that take the place of the frames, see `with_features`; `spec` is then that
            of their rows.
    """

    dataset_dir: Path
    videos_dir: Path
    spec: ClipSpec
    samples: list[Sample]
    problems: list[dict[str, str]]
    features: FeatureFiles | None = None

    @property
    def labels(self) -> list[str]:
        """All labels, in alphabetical order."""
        return labels_of(self.samples)

    def labelled(self) -> Dataset:
        """This data set without the samples that have no label; a line says how many there are.

        Raises:
            DatasetError: none has a label.
        """
        samples = [sample for sample in self.samples if sample.label]
        if self.samples and not samples:
            captions = any(sample.captions for sample in self.samples)
            raise DatasetError(
                f"it has {'captions' if captions else 'samples'} and no labels; expected labels of activities",
                path=self.dataset_dir,
                hint=f"captions are for: activity train {self.dataset_dir} --task describe" if captions else _AGAIN,
            )
        if num_others := len(self.samples) - len(samples):
            what = "%s: %d of its %d samples have no label, left out"
            _logger.warning(what, self.dataset_dir, num_others, len(self.samples))
        return dataclasses.replace(self, samples=samples)

    def captioned(self) -> Dataset:
        """This data set without the samples that have no caption; a line says how many there are.

        Raises:
            DatasetError: none has a caption.
        """
        samples = [sample for sample in self.samples if sample.captions]
        if not samples:
            hint = "write them into a column `caption` of the manifest that preprocess reads"
            raise DatasetError("it has no captions; expected sentences", path=self.dataset_dir, hint=hint)
        if num_others := len(self.samples) - len(samples):
            what = "%s: %d of its %d samples have no caption, left out"
            _logger.warning(what, self.dataset_dir, num_others, len(self.samples))
        return dataclasses.replace(self, samples=samples)

    def as_text(self) -> str:
        """Counts of the data set by label and split, and of captions, for a terminal."""
        counts = Counter((label, sample.split) for sample in self.samples for label in (sample.label, "all"))
        names = {label: label for label in self.labels}
        if self.labels and any(not sample.label for sample in self.samples):
            names[""] = "(no label)"
        rows = [(name, *(counts[label, split] for split in SPLITS)) for label, name in (*names.items(), ("all", "all"))]
        num_files = len({sample.path for sample in self.samples})
        videos = f"{len(self.samples)} segments of " if num_files < len(self.samples) else ""
        lines = [
            *format_table([("label" * bool(names), *SPLITS), *rows], align="lr"),
            f"{videos}{num_files} videos, {len({sample.group for sample in self.samples})} groups, {self.spec}",
        ]
        if counted := caption_counts(self.samples):
            lines.append(counted)
        if self.problems:
            some = name_some((row["path"] for row in self.problems), 3)
            lines.append(f"{len(self.problems)} problems: {self.dataset_dir / 'problems.csv'}: {some}")
        return "\n".join(lines)

    def split(self, name: str) -> list[Sample]:
        """The samples of one split; raises `DatasetError` if there are none."""
        samples = [sample for sample in self.samples if sample.split == name]
        if not samples:
            raise DatasetError(f"its manifest.csv has no samples in the split '{name}'", path=self.dataset_dir)
        return samples

    def with_streams(self, streams: Sequence[str]) -> Dataset:
        """This data set with only some of its streams; raises `DatasetError` if it lacks one."""
        lacks = [stream for stream in current_streams(streams) if stream not in self.spec.streams]
        if lacks:
            raise DatasetError(
                f"has no stream {', '.join(lacks)}; it was made with {', '.join(self.spec.streams)}",
                path=self.dataset_dir,
            )
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, streams=tuple(streams)))

    def with_features(self, features_dir: Path | str) -> Dataset:
        """This data set with the rows of feature files, one for each video, in place of its frames.

        Its frames can still be read, for people. See `activity.datasets.feature_files` for the files.

        Raises:
            DatasetError: a video has no file, or a file is not one of features.
        """
        if self.features and self.features.features_dir == Path(features_dir):
            return self
        files = find_feature_files(Path(features_dir), self.samples)
        spec = dataclasses.replace(self.spec, streams=(FEATURES,), num_features=files.num_features)
        repeats = (spec.frames_per_second or 0) / files.rows_per_second
        if repeats > _MOST_REPEATS:
            _logger.warning(
                "%s: %.3g rows a second, and the data set samples %g: each comes about %.0f times",
                features_dir,
                files.rows_per_second,
                spec.frames_per_second,
                repeats,
            )
        return dataclasses.replace(self, spec=spec, features=files)

    def frames(self, sample: Sample, stream: str | None = None) -> np.ndarray:
        """One stream of a sample, by default the first, `(N, H, W, 3)` uint8, mapped from disk."""
        if stream is None:
            stream = self._first_stream(sample) if self.features else self.spec.streams[0]
        path, frames = self._open(sample, stream)
        if not is_intact(path):
            raise DatasetError(DAMAGED, path=path, hint=_AGAIN)
        return frames

    def _first_stream(self, sample: Sample) -> str:
        """That was made of the frames of a sample, where the spec is one of features."""
        made = (name for name in STREAMS if stack_path(self.dataset_dir, sample.sample_id, name).is_file())
        return next(made, STREAMS[0])

    def num_frames(self, sample: Sample, stream: str) -> int:
        """The length of one stream of a sample, without reading its frames."""
        return len(self._open(sample, stream)[1])

    def _open(self, sample: Sample, stream: str) -> tuple[Path, np.ndarray]:
        path = stack_path(self.dataset_dir, sample.sample_id, stream)
        try:
            frames = map_array(path)
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot be read ({error})", path=path, hint=_AGAIN) from error
        expected = (self.spec.height, self.spec.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != expected or frames.dtype != np.uint8 or not len(frames):
            raise DatasetError(f"expected (N, {expected}) uint8 with N >= 1, received {frames.shape}", path=path)
        return path, frames


class Stack:
    """All streams of one sample, `(N, S, H, W, 3)` uint8: only the frames that are asked for are read."""

    def __init__(self, streams: Sequence[np.ndarray]) -> None:
        self._streams = streams

    def __len__(self) -> int:
        return len(self._streams[0])

    def __getitem__(self, frames: slice) -> np.ndarray:
        return np.stack([stream[frames] for stream in self._streams], axis=1)


class Stacks(Sequence[Stack]):
    """The stacks of some samples, each opened when it is asked for: thousands of open files are too many.

    Args:
        open_stream: gives one stream of a sample, such as `Dataset.frames`.
        samples: in the order of the sequence.
        streams: side by side in each stack.
    """

    def __init__(
        self, open_stream: Callable[[Sample, str], np.ndarray], samples: Sequence[Sample], streams: Sequence[str]
    ) -> None:
        self._open, self._samples, self._streams = open_stream, samples, streams

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # slices are not needed
        return Stack([self._open(self._samples[index], stream) for stream in self._streams])


def load_dataset(dataset_dir: Path) -> Dataset:
    """Open a folder that `activity.datasets.preprocessing.preprocess` made.

    Raises:
        DatasetError: no such folder, not ours, unfinished, or of a newer version.
    """
    dataset_dir = Path(dataset_dir)
    about = read_about(dataset_dir)
    if about is None:
        raise DatasetError(
            "not a data set folder (no dataset.json in it)",
            path=dataset_dir,
            hint=f"make one with: activity preprocess VIDEOS --out {dataset_dir}",
        )
    manifest = dataset_dir / "manifest.csv"
    if not manifest.is_file():
        if failure := about.get("failure"):
            raise DatasetError(f"preprocess could not complete it: {failure}", path=dataset_dir)
        raise DatasetError("unfinished", path=dataset_dir, hint=f"{_AGAIN} to complete it")
    samples, problems = _read_table(manifest, _sample_from_row), _read_table(dataset_dir / "problems.csv", dict)
    samples = _with_captions(samples, dataset_dir / "captions.csv", expected=bool(about.get("captions")))
    return Dataset(dataset_dir, about["videos_dir"], about["spec"], samples, problems)


def _with_captions(samples: list[Sample], path: Path, *, expected: bool) -> list[Sample]:
    """Samples with the captions of their table; what does not fit together is said."""
    if expected and not path.is_file():
        _logger.warning("%s: gone, though preprocess wrote it; %s to have it again", path, _AGAIN)
    if not expected and path.is_file() and not is_caption_table(path):
        _logger.warning("%s: not a table of captions, with the columns %s; not read", path, ",".join(CAPTION_COLUMNS))
        return samples
    captions: defaultdict[str, list[str]] = defaultdict(list)
    for sample_id, caption in _read_table(path, _caption_from_row):
        captions[sample_id].append(caption)
    samples = [dataclasses.replace(sample, captions=tuple(captions.pop(sample.sample_id, ()))) for sample in samples]
    if captions:
        what = "%s: has captions of %d samples that are not in manifest.csv: %s"
        _logger.warning(what, path, len(captions), name_some(captions))
    return samples


def is_caption_table(path: Path) -> bool:
    """Whether a file begins as `captions.csv` does: data sets of before may have one of the user's by that name."""
    with path.open("rb") as file:
        return file.readline(100).strip(b"\xef\xbb\xbf\r\n").decode("latin-1") == ",".join(CAPTION_COLUMNS)


def _caption_from_row(row: dict[str, str]) -> tuple[str, str]:
    if not row["caption"].strip():
        raise ValueError(f"sample_id {row['sample_id']} has an empty caption")
    return row["sample_id"], row["caption"]


def _read_table(path: Path, of_row: Callable[[dict[str, str]], _Row]) -> list[_Row]:
    _say_if_changed(path)
    try:
        return [of_row(row) for row in read_csv(path)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(f"damaged ({error!r})", path=path, hint=f"delete it and {_AGAIN}") from error


def read_about(dataset_dir: Path) -> dict[str, Any] | None:
    """The content of `dataset.json`, its `spec` as a `ClipSpec` and its `videos_dir` as a path; `None` without one.

    Raises:
        DatasetError: it is not ours, damaged, or of a newer version.
    """
    path = dataset_dir / "dataset.json"
    if not path.is_file():
        return None
    _say_if_changed(path)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        version = int(about["format_version"])
        if version == 1:
            about["spec"]["streams"] = ["rgb"]
        if version <= FORMAT_VERSION:
            return {**about, "spec": spec_from_dict(about["spec"]), "videos_dir": Path(about["videos_dir"])}
    except (ValueError, KeyError, TypeError, ActivityError) as error:
        raise DatasetError(f"not a data set description of ours ({error!r})", path=path) from error
    raise DatasetError(f"made by a newer activity (format {version}, this program reads {FORMAT_VERSION})", path=path)


def _say_if_changed(path: Path) -> None:
    """Warn of a table that is not as it was written; people may edit these, so they are used."""
    if path.is_file() and not is_intact(path):
        _logger.warning("%s: damaged, or changed by hand since preprocess wrote it; it is used as it is", path)


def _sample_from_row(row: dict[str, str]) -> Sample:
    if row["split"] not in SPLITS or not re.fullmatch(r"[\w.-]+", row["sample_id"], re.ASCII):
        raise ValueError(f"split {row['split']}, sample_id {row['sample_id']}")
    values: dict[str, Any] = {name: row[name] for name in MANIFEST_COLUMNS}
    values |= {"num_frames": int(row["num_frames"]), "duration_seconds": float(row["duration_seconds"])}
    values |= {column: float(row[column]) for column in TIME_COLUMNS if row.get(column)}
    extra = {name: value for name, value in row.items() if name not in {*MANIFEST_COLUMNS, *TIME_COLUMNS}}
    return Sample(**values, extra=extra)


def time_columns(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The columns that a table of samples needs beside their paths: none without segments."""
    return TIME_COLUMNS if any(sample.is_segment for sample in samples) else ()


# === Frame stacks ===


def stream_dir(dataset_dir: Path, stream: str) -> Path:
    """The folder of a stream; in a data set of an earlier version, the one that it has."""
    if stream == "rgb":
        return dataset_dir / "frames"
    (first,) = stored_streams([stream])
    return dataset_dir / (first if (dataset_dir / first).is_dir() else stream)


def stack_path(dataset_dir: Path, sample_id: str, stream: str = "rgb") -> Path:
    """Where one stream of a sample is."""
    return stream_dir(dataset_dir, stream) / f"{sample_id}.npy"


def write_stacks(
    video_path: Path,
    spec: ClipSpec,
    dataset_dir: Path,
    sample_id: str,
    span: Span = WHOLE,
    images_per_second: float = IMAGES_PER_SECOND,
) -> SampledVideo:
    """Decode a video, or a span of it, into a file per stream, frame by frame: memory does not grow with the video.

    Args:
        video_path: of the video, or of a folder of images.
        spec: which frames, at what size, and which streams.
        dataset_dir: has a folder for each stream already.
        sample_id: names the files.
        span: start and end in seconds.
        images_per_second: of a folder of images.

    Raises:
        VideoError: not one frame can be decoded, or none lies in the span.
    """
    size = (spec.height, spec.width, 3)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(atomic_file(stack_path(dataset_dir, sample_id, stream), sync=False, digest=True))
            for stream in spec.streams
        ]
        for file in files:
            write_npy_header(file, (0, *size))
        start = files[0].tell()
        frames = iter_frames(video_path, spec, span, images_per_second=images_per_second)
        for frame in frames:  # (S, H, W, 3)
            for file, image in zip(files, frame, strict=True):
                file.write(image.data)
        for file in files:
            file.seek(0)
            # NumPy pads headers so that the first axis can grow in place.
            write_npy_header(file, (len(frames.sampled.timestamps_seconds), *size))
            if file.tell() != start:
                raise AssertionError("the .npy header changed its length")
    return frames.sampled
