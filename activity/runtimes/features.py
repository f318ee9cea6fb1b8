"""What a backbone makes of the frames of a data set, computed once and kept in its folder.

    DATASET/features/<backbone>-<digest>/<sample_id>.npy (N, D) float32 of one stream

The digest is of the weights, the input size and the stream. Deleting `features/` loses nothing.
"""

from __future__ import annotations

import functools
import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from activity.config import stored_streams
from activity.datasets.arrays import map_array
from activity.datasets.dataset import Dataset, Stacks
from activity.datasets.samples import Sample, content_of, file_of
from activity.errors import VideoError
from activity.files import DAMAGED, atomic_file, digest_of, digest_of_file, is_intact, remove_leftovers
from activity.models.backend import keras
from activity.progress import progress_bar
from activity.runtimes.choice import is_bf16
from activity.runtimes.exported import digest_of_model, open_extractor
from activity.video.prefetch import Prefetch
from activity.video.sampling import iter_frames

_FRAMES_PER_BATCH = 32

_logger = logging.getLogger(__name__)


def extract_features(
    dataset: Dataset, samples: Sequence[Sample], backbone: keras.Model, *, keep: bool = True, runtime: str = "auto"
) -> list[np.ndarray]:
    """Features `(N, S, D)` float32 of each sample: from its feature files, or from the cache where it has them.

    Only real frames go through the backbone, in full batches across samples.

    Args:
        dataset: whose stacks are read.
        samples: of the data set.
        backbone: images `(H, W, 3)` to features `(D,)`. The cache is keyed by its name, input size and weights.
        keep: write what had to be computed into the cache.
        runtime: what computes it; see `activity.runtimes.choice`.
    """
    if dataset.features:  # the backbone gives them as they are
        return [rows[:, None] for rows in dataset.features.read(samples, dataset.spec)]  # (N, D) -> (N, 1, D)
    streams = []
    for stream, cache_dir in _cache_dirs(dataset, backbone, runtime).items():
        features: dict[str, np.ndarray] = {}
        for sample in samples:
            if (cached := _read(_path(cache_dir, sample.sample_id))) is not None:
                features[sample.sample_id] = np.array(cached)  # a mapped array is an open file
        todo = [sample for sample in samples if sample.sample_id not in features]
        for id_, computed in _compute(dataset, todo, stream, backbone, runtime, cache_dir.parent if keep else None):
            features[id_] = computed.astype(np.float32)
            if keep:
                _write(_path(cache_dir, id_), features[id_])
        streams.append([features[sample.sample_id] for sample in samples])  # S x (N, D)
    return [np.stack(of_sample, axis=1) for of_sample in zip(*streams, strict=True)]  # (N, S, D)


def extract_films(
    dataset: Dataset, films: Sequence[Sample], backbone: keras.Model, *, keep: bool = True, runtime: str = "auto"
) -> dict[str, np.ndarray]:
    """Features `(N, S, D)` float32 of whole videos at the rate of the data set's spec, by `sample_id`.

    Their frames are in no data set folder: they are decoded from the videos, and only the features are kept. A video
    that cannot be read any more is left out, with a line that says why.

    Args:
        dataset: its spec has a rate.
        films: whole videos; see `activity.datasets.films.Film.whole`.
        backbone: see `extract_features`.
        keep: see `extract_features`.
        runtime: see `extract_features`.
    """
    dirs = list(_cache_dirs(dataset, backbone, runtime).values())
    features, todo = dict[str, np.ndarray](), []
    for film in films:
        streams = [cached for folder in dirs if (cached := _read(_path(folder, film.sample_id))) is not None]
        if len(streams) == len(dirs):
            features[film.sample_id] = np.stack(streams, axis=1)  # S x (N, D) -> (N, S, D)
        else:
            todo.append(film)
    if not todo:
        return features
    for folder in (dirs[0].parent, *dirs) if keep else ():
        remove_leftovers(folder)
    seconds = sum(film.duration_seconds for film in todo)
    num_images = int(seconds * (dataset.spec.frames_per_second or 1)) * len(dirs)
    extract = open_extractor(backbone, runtime, num_images=num_images, cache_dir=dirs[0].parent if keep else None)
    for film in progress_bar(todo, desc=f"{backbone.name} films", unit="film"):
        try:
            computed = _film_features(dataset, film, extract)
        except VideoError as error:
            _logger.warning("%s: left out: %s", dataset.videos_dir / film.path, error.reason)
            continue
        features[film.sample_id] = computed
        for s, folder in enumerate(dirs if keep else ()):
            _write(_path(folder, film.sample_id), computed[:, s])
    return features


def _film_features(dataset: Dataset, film: Sample, extract: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`(N, S, D)` of a whole video, decoded in a thread while features are computed."""
    path = dataset.videos_dir / film.path
    if path.is_file() and digest_of_file(path) != file_of(content_of(film)):
        raise VideoError("has changed since preprocess read it; run preprocess again", path=path)
    parts = []
    with Prefetch(iter_frames(path, dataset.spec, num_threads=0), num_ahead=2 * _FRAMES_PER_BATCH) as frames:
        while batch := list(islice(frames, _FRAMES_PER_BATCH)):
            images = np.stack(batch)  # (n, S, H, W, 3)
            parts.append(extract(images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], -1))
    return np.concatenate(parts).astype(np.float32)


def cache_activations(dataset: Dataset, samples: Sequence[Sample], model: keras.Model, runtime: str = "auto") -> Stacks:
    """What a model makes of each sample, `(N, S, ...)` float16, kept on disk because it may be large.

    Args:
        dataset: whose stacks are read.
        samples: of the data set.
        model: images `(H, W, 3)` to anything: the lower part of a backbone.
        runtime: what computes it; see `activity.runtimes.choice`.
    """
    paths: dict[tuple[str, str], Path] = {}
    stacks = Stacks(lambda sample, stream: map_array(paths[stream, sample.sample_id]), samples, dataset.spec.streams)
    spare: Path | None = None
    for stream, cache_dir in _cache_dirs(dataset, model, runtime).items():
        paths |= {(stream, sample.sample_id): _path(cache_dir, sample.sample_id) for sample in samples}
        todo = [sample for sample in samples if _read(paths[stream, sample.sample_id]) is None]
        for id_, computed in _compute(dataset, todo, stream, model, runtime, cache_dir.parent):
            if not _write(paths[stream, id_], computed.astype(np.float16)):
                if spare is None:
                    spare = Path(tempfile.mkdtemp(prefix="activity-"))
                    weakref.finalize(stacks, shutil.rmtree, spare, ignore_errors=True)
                paths[stream, id_] = _path(spare / stream, id_)
                _write(paths[stream, id_], computed.astype(np.float16), optional=False)
    return stacks


def _cache_dirs(dataset: Dataset, model: keras.Model, runtime: str) -> dict[str, Path]:
    """Stream -> folder. Runtimes share it, as their features are the same to the fifth digit; not so in bfloat16."""
    streams = dataset.spec.streams
    of_model = digest_of_model(model) + ("bf16" if is_bf16(runtime) else "")
    digests = [digest_of(f"{of_model}{x}".encode(), size=6) for x in stored_streams(streams)]
    folder = dataset.dataset_dir / "features"
    return {stream: folder / f"{model.name}-{digest}" for stream, digest in zip(streams, digests, strict=True)}


def _path(cache_dir: Path, sample_id: str) -> Path:
    return cache_dir / f"{sample_id}.npy"


def _read(path: Path) -> np.ndarray | None:
    """What is cached there, mapped from disk; nothing if it is absent or damaged: both are made again."""
    reason = DAMAGED
    try:
        if is_intact(path):
            return map_array(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = str(error)
    _logger.warning("%s: %s; it is computed again", path, reason)
    return None


def _write(path: Path, features: np.ndarray, *, optional: bool = True) -> bool:
    """Cache features, and tell whether that was possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, sync=False, digest=True) as file:
            np.save(file, features)
    except OSError as error:
        if not optional:
            raise
        _say_once(f"{path.parent.parent}: features cannot be kept there ({error.strerror}), only used in this run")
        return False
    return True


@functools.cache
def _say_once(text: str) -> None:
    _logger.warning(text)


def _compute(
    dataset: Dataset, samples: Sequence[Sample], stream: str, model: keras.Model, runtime: str, cache_dir: Path | None
) -> Iterator[tuple[str, np.ndarray]]:
    """`(sample_id, features)` of each stack as soon as its last frame has been through."""
    samples = list({sample.sample_id: sample for sample in samples}.values())
    if not samples:
        return
    for folder in (cache_dir, *cache_dir.glob("*/")) if cache_dir else ():
        remove_leftovers(folder)
    lengths = {sample.sample_id: dataset.num_frames(sample, stream) for sample in samples}
    rows: dict[str, list[np.ndarray]] = {id_: [] for id_ in lengths}
    num_images = sum(lengths.values()) * len(dataset.spec.streams)
    extract = open_extractor(model, runtime, num_images=num_images, cache_dir=cache_dir)
    frames = ((sample.sample_id, frame) for sample in samples for frame in dataset.frames(sample, stream))
    with progress_bar(total=sum(lengths.values()), desc=f"{model.name} {stream}", unit="frame") as progress:
        while batch := list(islice(frames, _FRAMES_PER_BATCH)):
            outputs = extract(np.stack([frame for _, frame in batch]))
            progress.update(len(batch))
            for (id_, _), output in zip(batch, outputs, strict=True):
                rows[id_].append(output)
                if len(rows[id_]) == lengths[id_]:
                    yield id_, np.stack(rows.pop(id_))
