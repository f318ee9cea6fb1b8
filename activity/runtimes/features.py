"""What a backbone makes of the frames of a data set, computed once and kept in its folder.

    DATASET/features/<backbone>-<digest>/part-00000.npy (R, D) float32 of one stream, see `activity.datasets.parts`

The digest is of the weights, the input size and the stream. Deleting `features/` loses nothing. Those of many
samples are not held in memory: each is read when it is asked for, from there or from a file of the process alone.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from activity.config import stored_streams
from activity.datasets import arrays
from activity.datasets.arrays import StackTable
from activity.datasets.dataset import Dataset, Stacks
from activity.datasets.parts import PackedArrays, say_once
from activity.datasets.samples import Sample, content_of, file_of
from activity.errors import VideoError
from activity.files import digest_of, digest_of_file, remove_leftovers
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
) -> Sequence[np.ndarray]:
    """Features `(N, S, D)` float32 of each sample: from its feature files, or from the cache where it has them.

    Those of many samples are on disk, and each is read when it is asked for.

    Only real frames go through the backbone, in full batches across samples.

    Args:
        dataset: whose stacks are read.
        samples: of the data set.
        backbone: images `(H, W, 3)` to features `(D,)`. The cache is keyed by its name, input size and weights.
        keep: write what had to be computed into the cache.
        runtime: what computes it; see `activity.runtimes.choice`.
    """
    if dataset.features:  # the backbone gives them as they are
        return StackTable(rows[:, None] for rows in dataset.features.read(samples, dataset.spec))  # (N, D) -> (N, 1, D)
    streams = []
    for stream, cache_dir in _cache_dirs(dataset, backbone, runtime).items():
        cached, others = PackedArrays(cache_dir), list[str]()
        todo = [sample for sample in samples if sample.sample_id not in cached]
        computed = _compute(dataset, todo, stream, backbone, runtime, cache_dir.parent if keep else None)
        table = StackTable(_not_kept(computed, cached if keep else None, others))
        if keep:
            cached.pack()
        streams.append(_Stream(cached, dict(zip(others, range(len(others)), strict=True)), table))
    features = _Features([sample.sample_id for sample in samples], streams)
    return features if features.num_bytes() > arrays.MOST_IN_MEMORY else list(features)


def _not_kept(
    computed: Iterable[tuple[str, np.ndarray]], cached: PackedArrays | None, others: list[str]
) -> Iterator[np.ndarray]:
    """Write features into the cache; those that are not to be kept, or cannot be, are given, and their ids noted."""
    for id_, features in computed:
        features = features.astype(np.float32)
        if cached is None or not _write(cached, id_, features):
            others.append(id_)
            yield features


@dataclass(frozen=True)
class _Stream:
    """Features `(N, D)` of one stream by sample: what is cached, and other ones by their place in a table."""

    cached: PackedArrays
    others: dict[str, int]
    table: StackTable

    def __getitem__(self, sample_id: str) -> np.ndarray:
        place = self.others.get(sample_id)
        return self.cached[sample_id] if place is None else self.table[place]

    def num_bytes(self, sample_id: str) -> int:
        place = self.others.get(sample_id)
        return self.cached.num_bytes(sample_id) if place is None else self.table[place].nbytes


class _Features(Sequence[np.ndarray]):
    """Features `(N, S, D)` float32 of samples, each read when it is asked for."""

    def __init__(self, sample_ids: Sequence[str], streams: Sequence[_Stream]) -> None:
        self._sample_ids, self._streams = sample_ids, streams

    def __len__(self) -> int:
        return len(self._sample_ids)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # slices are not needed
        id_ = self._sample_ids[index]
        return np.stack([stream[id_] for stream in self._streams], axis=1, dtype=np.float32)  # S x (N, D) -> (N, S, D)

    def num_bytes(self) -> int:
        return sum(stream.num_bytes(id_) for id_ in self._sample_ids for stream in self._streams)


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
    caches = [PackedArrays(folder) for folder in _cache_dirs(dataset, backbone, runtime).values()]
    ids = list[str]()

    def read_and_compute() -> Iterator[np.ndarray]:
        todo = []
        for film in films:
            if all(film.sample_id in cached for cached in caches):
                ids.append(film.sample_id)
                yield np.stack([cached[film.sample_id] for cached in caches], axis=1)  # S x (N, D) -> (N, S, D)
            else:
                todo.append(film)
        for film, features in _compute_films(dataset, todo, backbone, caches, keep, runtime):
            ids.append(film.sample_id)
            yield features

    table = StackTable(read_and_compute())
    for cached in caches if keep else ():
        cached.pack()
    return {id_: table[i] for i, id_ in enumerate(ids)}


def _compute_films(
    dataset: Dataset,
    films: Sequence[Sample],
    backbone: keras.Model,
    caches: Sequence[PackedArrays],
    keep: bool,
    runtime: str,
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Features `(N, S, D)` of each film that can be read; also written into the cache of each stream."""
    if not films:
        return
    folder = caches[0].folder.parent
    for written in (folder, *(cached.folder for cached in caches)) if keep else ():
        remove_leftovers(written)
    seconds = sum(film.duration_seconds for film in films)
    num_images = int(seconds * (dataset.spec.frames_per_second or 1)) * len(caches)
    extract = open_extractor(backbone, runtime, num_images=num_images, cache_dir=folder if keep else None)
    for film in progress_bar(films, desc=f"{backbone.name} films", unit="film"):
        try:
            computed = _film_features(dataset, film, extract)
        except VideoError as error:
            _logger.warning("%s: left out: %s", dataset.videos_dir / film.path, error.reason)
            continue
        for s, cached in enumerate(caches if keep else ()):
            _write(cached, film.sample_id, computed[:, s])
        yield film, computed


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
    caches = {stream: PackedArrays(folder) for stream, folder in _cache_dirs(dataset, model, runtime).items()}
    spare: dict[str, PackedArrays] = {}

    def opened(sample: Sample, stream: str) -> np.ndarray:
        other = spare.get(stream)
        return other[sample.sample_id] if other and sample.sample_id in other else caches[stream][sample.sample_id]

    stacks = Stacks(opened, samples, dataset.spec.streams)
    for stream, cached in caches.items():
        todo = [sample for sample in samples if sample.sample_id not in cached]
        for id_, computed in _compute(dataset, todo, stream, model, runtime, cached.folder.parent):
            activations = computed.astype(np.float16)
            if not _write(cached, id_, activations):
                if not spare:
                    folder = Path(tempfile.mkdtemp(prefix="activity-"))
                    weakref.finalize(stacks, shutil.rmtree, folder, ignore_errors=True)
                    spare |= {stream: PackedArrays(folder / stream) for stream in caches}
                spare[stream].write(id_, activations)
        cached.pack()
    return stacks


def _cache_dirs(dataset: Dataset, model: keras.Model, runtime: str) -> dict[str, Path]:
    """Stream -> folder. Runtimes share it, as their features are the same to the fifth digit; not so in bfloat16."""
    streams = dataset.spec.streams
    of_model = digest_of_model(model) + ("bf16" if is_bf16(runtime) else "")
    digests = [digest_of(f"{of_model}{x}".encode(), size=6) for x in stored_streams(streams)]
    folder = dataset.dataset_dir / "features"
    return {stream: folder / f"{model.name}-{digest}" for stream, digest in zip(streams, digests, strict=True)}


def _write(cached: PackedArrays, sample_id: str, features: np.ndarray) -> bool:
    """Cache features, and tell whether that was possible."""
    try:
        cached.write(sample_id, features)
    except OSError as error:
        say_once(f"{cached.folder.parent}: features cannot be kept there ({error.strerror}), only used in this run")
        return False
    return True


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
