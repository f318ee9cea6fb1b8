"""Feature files: what another network, of any kind, made of each video; they take the place of its frames.

    FEATURES/run/anna_1.npy   of the video run/anna_1.mp4: (N, D) float16, float32 or float64, N rows in the order of
                              time, D numbers in each; (D,) is one row

The name may also be `run/anna_1.mp4.npy`; there may be fewer folders (`anna_1.npy`) or more (`i3d/run/anna_1.npy`), as
long as it is clear which file is that of which video. `<sample_id>.npy`, as the stacks in a data set folder are named,
is what was computed from those; of a segment it is the only name, as its video may have several.

A row is taken for a frame that lasts `duration / N` seconds. Rows are sampled as frames are: T spread evenly, or at the
rate of the data set, where one that lasts longer comes again.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from activity.config import ClipSpec
from activity.datasets.arrays import map_array
from activity.datasets.samples import Sample, name_some
from activity.errors import DatasetError, VideoError, printable
from activity.files import digest_of, digest_of_file
from activity.video.clips import even_indices
from activity.video.sampling import SampledVideo

SUFFIX = ".npy"
_MOST_RATES_DIFFER = 1.5  # the highest to the lowest: short videos have a row more or less
UNUSABLE = "nan, infinity, or numbers beyond 1e15"
_EXPECTED = "rows of numbers (N, D) in float16, float32 or float64"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureFiles:
    """The feature files of a data set.

    Attributes:
        features_dir: the folder that they are in.
        paths: sample id -> file.
        num_features: D, numbers in a row.
        rows_per_second: of the video at the median.
    """

    features_dir: Path
    paths: Mapping[str, Path]
    num_features: int
    rows_per_second: float

    def digest(self) -> str:
        """Of what the files hold and which is that of which sample: under the same names there may be others by now."""
        return digest_of([(name, digest_of_file(path)) for name, path in sorted(self.paths.items())], size=8)

    def read(self, samples: Sequence[Sample], spec: ClipSpec) -> Iterator[np.ndarray]:
        """The rows that a model takes of each sample, `(n, D)` float32.

        Raises:
            DatasetError: some hold what is not a finite number; after the last sample.
            VideoError: a file has changed.
        """
        damaged = {}
        for sample in samples:
            path = self.paths[sample.sample_id]
            rows = map_rows(path, self.num_features)
            seconds = sample.duration_seconds or len(rows) / self.rows_per_second
            stack, _ = sample_rows(rows, spec, len(rows) / seconds)
            if num_damaged := int(are_unusable(stack).sum()):
                damaged[path.relative_to(self.features_dir)] = f"{num_damaged} of {len(stack)} rows"
            yield stack
        if damaged:
            raise DatasetError(
                f"{len(damaged)} of {len(samples)} feature files hold {UNUSABLE}: "
                + name_some(f"{path} ({what})" for path, what in damaged.items()),
                path=self.features_dir,
            )


def is_feature_file(source: Path | str) -> bool:
    """Whether a source is a feature file by its name."""
    return str(source).endswith(SUFFIX)


def are_unusable(rows: np.ndarray) -> np.ndarray:
    """Which rows `(N, D)` hold something `UNUSABLE`, `(N,)` bool: float32 cannot hold the squares of larger ones."""
    return ~(np.abs(rows) <= 1e15).all(axis=1)


def map_rows(path: Path, num_features: int | None = None) -> np.ndarray:
    """The rows `(N, D)` of a feature file, mapped from disk.

    Args:
        path: of the file.
        num_features: D, if there is one to expect.

    Raises:
        VideoError: it cannot be read, or is not a file of so many features.
    """
    try:
        rows = map_array(path, any_order=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"cannot be read as a feature file ({reason})", path=path) from error
    if rows.dtype.kind != "f" or rows.dtype.itemsize > 8 or rows.ndim not in (1, 2):
        raise VideoError(f"expected {_EXPECTED}, received {rows.dtype} {rows.shape}", path=path)
    rows = rows[None] if rows.ndim == 1 else rows  # (D,) -> (1, D)
    if not rows.size:
        raise VideoError(f"holds no numbers; expected {_EXPECTED}, received {rows.shape}", path=path)
    if num_features and rows.shape[1] != num_features:
        raise VideoError(f"expected {num_features} features in a row, received {rows.shape[1]}", path=path)
    return rows


def sample_rows(rows: np.ndarray, spec: ClipSpec, rows_per_second: float) -> tuple[np.ndarray, SampledVideo]:
    """The rows that a spec takes, `(n, D)` float32, and their times, as `activity.video.sampling` gives them of frames.

    Args:
        rows: `(N, D)` of a whole video.
        spec: evenly: at most `num_frames` rows, each once; at a rate: the row in the middle of each interval.
        rows_per_second: how long a row lasts.
    """
    seconds, rate = np.arange(len(rows) + 1) / rows_per_second, spec.frames_per_second
    if rate is None:
        taken = even_indices(len(rows), spec.num_frames)
        starts = seconds[np.arange(len(taken)) * len(rows) // len(taken)]
    else:
        num_taken = max(1, round(len(rows) * rate / rows_per_second))
        middles = (np.arange(num_taken) + 0.5) * rows_per_second / rate  # (n,) in rows
        taken = np.minimum(middles.astype(int), len(rows) - 1)
        starts = np.round(np.arange(num_taken) / rate, 6)
    with np.errstate(over="ignore"):  # whoever uses them asks whether they are finite
        sampled = np.asarray(rows[taken], np.float32)
    return sampled, SampledVideo(
        timestamps_seconds=tuple(seconds[taken].tolist()),
        num_frames=len(rows),
        num_frames_claimed=len(rows),
        duration_seconds=float(seconds[-1]),
        edges_seconds=(*starts.tolist(), float(seconds[-1])),
        problem=None,
    )


# === Which file is that of which video? ===


def find_feature_files(features_dir: Path, samples: Sequence[Sample]) -> FeatureFiles:
    """The feature file of each sample. Files that belong to none are counted in a warning.

    Raises:
        DatasetError: a sample has none, or more than one may be its; or a file is not one of features, or of other
            numbers in a row than the others.
    """
    files = sorted(files_below(features_dir))
    if not files:
        missing = "a file, not a folder" if features_dir.exists() else "no such folder"
        what = f"holds no {SUFFIX} files" if features_dir.is_dir() else missing
        raise DatasetError(f"{what}; expected a feature file {SUFFIX} for each video", path=features_dir)
    paths = _assign(features_dir, files, samples)
    unused = set(files) - set(paths.values())
    if unused:
        names = name_some(str(path.relative_to(features_dir)) for path in unused)
        _logger.warning(
            "%s: %d of %d feature files are not used (no video of their name, or one with another file): %s",
            features_dir,
            len(unused),
            len(files),
            names,
        )
    lengths, num_features = _read_shapes(features_dir, set(paths.values()))
    rates = [lengths[paths[s.sample_id]] / s.duration_seconds for s in samples if s.duration_seconds > 0]
    rate = float(np.median(rates)) if rates else 1.0
    if rates and max(rates) > _MOST_RATES_DIFFER * min(rates):
        _logger.warning(
            "%s: the rows per second of video differ, from %.3g to %.3g; training takes those of each video, but "
            "`classify`, which has no video, the median, %.3g, for all: --rows-per-second R tells it others",
            features_dir,
            min(rates),
            max(rates),
            rate,
        )
    return FeatureFiles(features_dir, paths, num_features, rate)


def files_below(folder: Path) -> list[Path]:
    """The `.npy` files below a folder, without hidden ones; links to folders are followed, but not round in circles."""
    found: list[Path] = []
    seen = {str(parent) for parent in folder.resolve().parents}
    for parent, dirs, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            dirs.clear()
            continue
        seen.add(real)
        dirs[:] = [name for name in dirs if not name.startswith(".")]
        found += [Path(parent, name) for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    return found


def _assign(features_dir: Path, files: Iterable[Path], samples: Sequence[Sample]) -> dict[str, Path]:
    """Sample id -> file."""
    by_name: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        relative = PurePosixPath(path.relative_to(features_dir).as_posix().removesuffix(SUFFIX))
        by_name[relative.name].append(relative)
    paths: dict[str, Path] = {}
    missing, several = [], {}
    for sample in samples:
        found = by_name.get(sample.sample_id, [])
        video = PurePosixPath(sample.path)
        for name in [] if found or sample.is_segment else [video, video.with_suffix("")]:
            named = by_name.get(name.name, [])
            found = [path for path in named if path == name] or [path for path in named if _ends_alike(path, name)]
            if found:
                break
        if len(found) > 1:
            several[sample.name] = found
        elif found:
            paths[sample.sample_id] = features_dir / f"{found[0]}{SUFFIX}"
        else:
            missing.append(sample)
    if missing:
        video = PurePosixPath(missing[0].path)
        expected = f"{video.with_suffix('')}{SUFFIX} or {video}{SUFFIX}"
        if missing[0].is_segment:
            expected = f"a file for each segment, such as {missing[0].sample_id}{SUFFIX}"
        raise DatasetError(
            f"no feature file for {len(missing)} of {len(samples)} videos: {name_some(x.name for x in missing)}; "
            f"expected {printable(expected)}",
            path=features_dir,
        )
    if several:
        of, first = next(iter(several.items()))
        raise DatasetError(
            f"several files may be that of each of {len(several)} videos: of {of}, "
            f"{name_some(f'{path}{SUFFIX}' for path in first)}; lay them out as the videos are",
            path=features_dir,
        )
    _check_each_has_its_own(features_dir, paths, samples)
    return paths


def _ends_alike(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether one path ends with all of the other: a flat folder, or one more folder above; but not another label."""
    return all(a == b for a, b in zip(one.parts[::-1], other.parts[::-1], strict=False))


def _check_each_has_its_own(features_dir: Path, paths: Mapping[str, Path], samples: Sequence[Sample]) -> None:
    """Raise `DatasetError` if one file would be that of two videos."""
    owners: dict[Path, Sample] = {}
    for sample in samples:
        first = owners.setdefault(paths[sample.sample_id], sample)
        if first is not sample:
            raise DatasetError(
                f"may be the file of {first.name} and of {sample.name}",
                path=paths[sample.sample_id],
                hint=f"call them {first.path}{SUFFIX} and {sample.path}{SUFFIX} below {features_dir}",
            )


def _read_shapes(features_dir: Path, files: Iterable[Path]) -> tuple[dict[Path, int], int]:
    """N of each file, and D of all; what cannot be used is named all at once."""
    shapes: dict[Path, tuple[int, ...]] = {}
    damaged: dict[Path, str] = {}
    for path in files:
        try:
            shapes[path] = map_rows(path).shape
        except VideoError as error:
            damaged[path] = error.reason
    if damaged:
        some = name_some((f"{path.relative_to(features_dir)}: {reason}" for path, reason in damaged.items()), 3)
        raise DatasetError(f"{len(damaged)} feature files cannot be used: {some}", path=features_dir)
    counts = Counter(num_features for _, num_features in shapes.values())
    (num_features, _), *others = counts.most_common()
    if others:
        differ = [path for path in shapes if shapes[path][1] != num_features]
        some = name_some(f"{path.relative_to(features_dir)} with {shapes[path][1]}" for path in differ)
        # one file of another width is a mistake in that one; of many widths, they are the lengths of the videos
        transposed = len({num_rows for num_rows, _ in shapes.values()}) == 1 and len(counts) > 2
        raise DatasetError(
            f"expected as many features in each file; most have {num_features}, {len(differ)} others: {some}",
            path=features_dir,
            hint="rows are moments in time: expected (N, D), these may be (D, N)" if transposed else "",
        )
    return {path: num_rows for path, (num_rows, _) in shapes.items()}, num_features
