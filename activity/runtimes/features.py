"""What a backbone makes of the frames of a data set, computed once and kept in its folder.

    DATASET/features/<backbone>-<digest>/<sample_id>.npy (N, D) float32 of one stream

The digest is of the weights, the input size and the stream. Deleting `features/` loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from activity.config import stored_streams
from activity.datasets.dataset import Dataset, Stacks, map_array
from activity.datasets.samples import Sample
from activity.files import atomic_file, digest_of
from activity.progress import progress_bar
from activity.runtimes.choice import is_bf16
from activity.runtimes.exported import digest_of_model, open_extractor

if TYPE_CHECKING:
    import keras


_FRAMES_PER_BATCH = 32


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
    streams = []
    for stream, cache_dir in _cache_dirs(dataset, backbone, runtime).items():
        features: dict[str, np.ndarray] = {}
        for sample in samples:
            if (cached := _read(cache_dir, sample)) is not None:
                features[sample.sample_id] = np.array(cached)  # a mapped array is an open file
        todo = [sample for sample in samples if sample.sample_id not in features]
        kept = cache_dir if keep else None
        features |= _compute(dataset, todo, stream, backbone, runtime, kept)
        streams.append([features[sample.sample_id] for sample in samples])  # S x (N, D)
    return [np.stack(of_sample, axis=1) for of_sample in zip(*streams, strict=True)]  # (N, S, D)


def cache_activations(dataset: Dataset, samples: Sequence[Sample], model: keras.Model, runtime: str = "auto") -> Stacks:
    """What a model makes of each sample, `(N, S, ...)` float16, kept on disk because it may be large.

    Args:
        dataset: whose stacks are read.
        samples: of the data set.
        model: images `(H, W, 3)` to anything: the lower part of a backbone.
        runtime: what computes it; see `activity.runtimes.choice`.
    """
    dirs = _cache_dirs(dataset, model, runtime)
    for stream, cache_dir in dirs.items():
        todo = [sample for sample in samples if _read(cache_dir, sample) is None]
        for _ in _compute(dataset, todo, stream, model, runtime, cache_dir, np.float16):
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


def _read(cache_dir: Path, sample: Sample) -> np.ndarray | None:
    try:
        return map_array(cache_dir / f"{sample.sample_id}.npy")
    except (OSError, ValueError):  # absent or damaged: both are made again
        return None


def _compute(
    dataset: Dataset,
    samples: Sequence[Sample],
    stream: str,
    model: keras.Model,
    runtime: str,
    cache_dir: Path | None,
    dtype: type[np.floating[Any]] = np.float32,
) -> Iterator[tuple[str, np.ndarray]]:
    """`(sample_id, features)` of each stack as soon as its last frame has been through; first they are cached."""
    samples = list({sample.sample_id: sample for sample in samples}.values())
    if not samples:
        return
    if cache_dir:
        cache_dir.mkdir(parents=True, exist_ok=True)
    lengths = {sample.sample_id: len(dataset.frames(sample, stream)) for sample in samples}
    rows: dict[str, list[np.ndarray]] = {id_: [] for id_ in lengths}
    num_images = sum(lengths.values()) * len(dataset.spec.streams)
    extract = open_extractor(model, runtime, num_images=num_images, cache_dir=cache_dir and cache_dir.parent)
    frames = ((sample.sample_id, frame) for sample in samples for frame in dataset.frames(sample, stream))
    with progress_bar(total=sum(lengths.values()), desc=f"{model.name} {stream}", unit="frame") as progress:
        while batch := list(islice(frames, _FRAMES_PER_BATCH)):
            outputs = extract(np.stack([frame for _, frame in batch]))
            progress.update(len(batch))
            for (id_, _), output in zip(batch, outputs, strict=True):
                rows[id_].append(output)
                if len(rows[id_]) == lengths[id_]:
                    features = np.stack(rows.pop(id_)).astype(dtype)
                    if cache_dir:
                        with atomic_file(cache_dir / f"{id_}.npy", sync=False) as file:
                            np.save(file, features)
                    yield id_, features
