"""What a backbone makes of the frames of a data set, computed once and kept in its folder.

    DATASET/features/<backbone>-<digest>/<sample_id>.npy (N, D) float32 of one stream

The digest is of the weights, the input size and the stream. Deleting `features/` loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from activity.config import stored_streams
from activity.datasets.dataset import Dataset, Stacks, map_array
from activity.datasets.samples import Sample
from activity.files import atomic_file, digest_of
from activity.models.backend import keras
from activity.progress import progress_bar
from activity.runtimes.choice import is_bf16
from activity.runtimes.exported import digest_of_model, open_extractor

_FRAMES_PER_BATCH = 32


_Compute: TypeAlias = Callable[[Sequence[Sample], str], Iterator[tuple[str, np.ndarray]]]


def extract_features(
    dataset: Dataset, samples: Sequence[Sample], backbone: keras.Model, *, keep: bool = True, runtime: str = "auto"
) -> list[np.ndarray]:
    """Features `(N, S, D)` float32 of each sample, from the cache where it has them.

    Only real frames go through the backbone, in full batches across samples.

    Args:
        dataset: whose stacks are read.
        samples: of the data set.
        backbone: images `(H, W, 3)` to features `(D,)`. The cache is keyed by its name, input size and weights.
        keep: write what had to be computed into the cache.
        runtime: what computes it; see `activity.runtimes.choice`.
    """
    compute = partial(_through_backbone, dataset, backbone, runtime, keep)
    dirs = _cache_dirs(dataset, backbone, runtime)
    streams = [_stream_features(compute, samples, stream, dirs[stream], keep) for stream in dirs]
    return [np.stack(of_sample, axis=1) for of_sample in zip(*streams, strict=True)]  # S x (N, D) -> (N, S, D)


def cache_activations(dataset: Dataset, samples: Sequence[Sample], model: keras.Model, runtime: str = "auto") -> Stacks:
    """What a model makes of each sample, `(N, S, ...)` float16, kept on disk because it may be large.

    Args:
        dataset: whose stacks are read.
        samples: of the data set.
        model: images `(H, W, 3)` to anything: the lower part of a backbone.
        runtime: what computes it; see `activity.runtimes.choice`.
    """
    compute = partial(_through_backbone, dataset, model, runtime, True)
    dirs = _cache_dirs(dataset, model, runtime)
    for stream, cache_dir in dirs.items():
        todo = [s for s in samples if _read_features(cache_dir / f"{s.sample_id}.npy", mmap_mode="r") is None]
        for _ in _computed(compute, todo, stream, cache_dir, np.float16):
            pass

    def open_stream(sample: Sample, stream: str) -> np.ndarray:
        return map_array(dirs[stream] / f"{sample.sample_id}.npy")

    return Stacks(open_stream, samples, dataset.spec.streams)


def _cache_dirs(dataset: Dataset, model: keras.Model, runtime: str) -> dict[str, Path]:
    """Stream -> folder. Runtimes share it, as their features are the same to the fifth digit; not so in bfloat16."""
    streams = dataset.spec.streams
    of_model = digest_of_model(model) + ("bf16" if is_bf16(runtime) else "")
    digests = [digest_of(f"{of_model}{x}".encode(), size=6) for x in stored_streams(streams)]
    folder = dataset.dataset_dir / "features"
    return {stream: folder / f"{model.name}-{digest}" for stream, digest in zip(streams, digests, strict=True)}


def _stream_features(
    compute: _Compute, samples: Sequence[Sample], stream: str, cache_dir: Path, keep: bool
) -> list[np.ndarray]:
    """Features `(N, D)` of one stream."""
    paths = {sample.sample_id: cache_dir / f"{sample.sample_id}.npy" for sample in samples}
    features = {id_: cached for id_, path in paths.items() if (cached := _read_features(path)) is not None}
    todo = [sample for sample in samples if sample.sample_id not in features]
    features.update(_computed(compute, todo, stream, cache_dir if keep else None, np.float32))
    return [features[sample.sample_id] for sample in samples]


def _computed(
    compute: _Compute, todo: Sequence[Sample], stream: str, cache_dir: Path | None, dtype: type
) -> Iterator[tuple[str, np.ndarray]]:
    """`(sample_id, features)` of each sample, written into a cache folder if there is one."""
    todo = list({sample.sample_id: sample for sample in todo}.values())
    if not todo:
        return
    if cache_dir:
        cache_dir.mkdir(parents=True, exist_ok=True)
    for id_, computed in compute(todo, stream):
        if cache_dir:
            with atomic_file(cache_dir / f"{id_}.npy", sync=False) as file:
                np.save(file, computed.astype(dtype))
        yield id_, computed


def _read_features(path: Path, **options: Any) -> np.ndarray | None:
    try:
        return np.load(path, **options)
    except (OSError, EOFError, ValueError):  # absent or damaged: both are made again
        return None


def _through_backbone(
    dataset: Dataset, backbone: keras.Model, runtime: str, keep: bool, samples: Sequence[Sample], stream: str
) -> Iterator[tuple[str, np.ndarray]]:
    """`(sample_id, features)` of each stack, as soon as its last frame has been through."""
    lengths = {sample.sample_id: len(dataset.frames(sample, stream)) for sample in samples}
    rows: dict[str, list[np.ndarray]] = {id_: [] for id_ in lengths}
    kept, num_images = dataset.dataset_dir / "features", sum(lengths.values()) * len(dataset.spec.streams)
    extract_features = open_extractor(backbone, runtime, num_images=num_images, cache_dir=kept if keep else None)
    frames = ((sample.sample_id, frame) for sample in samples for frame in dataset.frames(sample, stream))
    with progress_bar(total=sum(lengths.values()), desc=f"{backbone.name} {stream}", unit="frame") as progress:
        while batch := list(islice(frames, _FRAMES_PER_BATCH)):
            outputs = extract_features(np.stack([frame for _, frame in batch]))
            progress.update(len(batch))
            for (id_, _), output in zip(batch, outputs, strict=True):
                rows[id_].append(output)
                if len(rows[id_]) == lengths[id_]:
                    yield id_, np.stack(rows.pop(id_))
