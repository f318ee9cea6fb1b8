"""Input of training: batches of padded clips with their masks, drawn reproducibly each epoch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from activity.datasets.arrays import StackTable
from activity.models.backend import ops
from activity.models.devices import has_gpu
from activity.models.search import END, PADDING
from activity.video.clips import window_starts

_WINDOWS_ENOUGH = 2000  # in an epoch of steps; of fewer, each step is in several
_MOST_OVERLAP = 4
_MAX_SHIFT = 0.06  # of the frame's size
_MAX_GAIN = 0.2  # brightness 0.8 to 1.2

Batch: TypeAlias = tuple[dict[str, Any], np.ndarray]  # the inputs of a model by name, targets (B, C) or (B, C+1)


class ClipBatches:
    """Batches of padded clips with their masks and targets. All have one shape, so that one graph does for all.

    Args:
        stacks: per sample `(N, ...)`.
        targets: `(V, C)` the share of each label in each sample.
        folds: `(V,)` of each sample: a last column of the targets of a batch; by default there is none.
        num_frames: T. Of a longer stack, training takes one window at random an epoch, otherwise all windows.
        batch_size: clips in a batch; fewer if there are not so many.
        training: shuffle and take random windows.
        seed: of everything random, together with the epoch.

    Attributes:
        num_windows: clips in an epoch. What the last batch has beyond them are the first ones once more.
    """

    name: str  # of the model's input

    def __init__(
        self,
        stacks: Sequence[Any],
        targets: Sequence[Any],
        *,
        folds: Sequence[int] | None = None,
        num_frames: int,
        batch_size: int,
        training: bool = False,
        seed: int = 0,
    ) -> None:
        columns = [np.asarray(targets), *([] if folds is None else [np.asarray(folds)[:, None]])]
        self.stacks, self.targets = stacks, np.concatenate(columns, axis=1, dtype=np.float32)
        self.lengths = np.array([len(stack) for stack in stacks])
        self.num_frames, self.training, self.seed = num_frames, training, seed
        self.num_windows = len(self._windows(np.random.default_rng(seed))[0])
        self.batch_size = min(batch_size, self.num_windows)

    def __len__(self) -> int:
        return -(-self.num_windows // self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, the same for the same seed and number: a resumed run sees what a whole one does."""
        rng = np.random.default_rng([self.seed, number])
        samples, starts = self._windows(rng)  # (W,) each
        order = np.resize(np.arange(self.num_windows), (len(self), self.batch_size))  # starts again at its end
        seeds = rng.integers(2**63, size=order.shape)
        for chosen, of_clips in zip(order, seeds, strict=True):
            clip_samples, firsts = samples[chosen], starts[chosen]  # (B,) each
            frames = firsts[:, None] + np.arange(self.num_frames)  # (B, T)
            mask = frames < self.lengths[clip_samples, None]  # (B, T)
            clips, targets = self._clips(clip_samples, frames, mask, of_clips)
            # as tensors, so that a batch made ahead is on the device already; torch takes no mixture of both
            inputs = {self.name: ops.convert_to_tensor(clips), "mask": ops.convert_to_tensor(mask)}
            yield inputs, targets

    def _windows(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The sample and the first frame of each window of an epoch, in its order."""
        if self.training:
            starts = rng.integers(0, np.maximum(0, self.lengths - self.num_frames), endpoint=True)
            samples = rng.permutation(len(self.lengths))
            return samples, starts[samples]
        of_samples = [window_starts(int(length), self.num_frames) for length in self.lengths]
        return np.repeat(np.arange(len(of_samples)), [len(s) for s in of_samples]), np.concatenate(of_samples)

    def _clips(
        self, samples: np.ndarray, frames: np.ndarray, mask: np.ndarray, seeds: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        """`(B, T, ...)`, zeros on padding, and targets, of `(B,)` samples, `(B, T)` frames and mask, `(B,)` seeds."""
        raise NotImplementedError


class FeatureBatches(ClipBatches):
    """Of features `(N, S, D)`: all lie in one table, of which a batch takes its rows.

    The table is on the device where that has room for it, else in main memory, and beyond a limit on disk.

    Args:
        mixup: in training, each clip is mixed with one of another sample, and its target likewise (Zhang et al. 2018).
            Their shares are drawn from a Beta(mixup, mixup) distribution; the first has the larger one, and its mask is
            kept. Both are of one fold, so that no member learns from its own. 0: not.
        most_on_device: bytes; of a larger table, or one on disk where there is no GPU, a batch at a time goes there.
        most_in_memory: bytes; see `activity.datasets.arrays.RowWriter`.
        options: those of `ClipBatches`, as are `stacks` and `targets`.
    """

    name = "features"

    def __init__(
        self,
        stacks: Iterable[np.ndarray],
        targets: Sequence[Any],
        *,
        folds: Sequence[int] | None = None,
        mixup: float = 0.0,
        most_on_device: float = 2e9,
        most_in_memory: float | None = None,
        **options: Any,
    ) -> None:
        table = StackTable(stacks, most_in_memory=most_in_memory)
        super().__init__(table, targets, folds=folds, **options)
        self.mixup = mixup if self.training else 0.0
        self._fold_ids = np.unique(folds, return_inverse=True)[1] if folds is not None else self.lengths * 0  # (V,)
        self._of_fold = [np.flatnonzero(self._fold_ids == i) for i in range(self._fold_ids.max() + 1)]
        self._rows, self._padding = table.firsts, len(table.rows.array) - 1
        on_device = table.rows.array.nbytes <= most_on_device and (not table.rows.is_on_disk or has_gpu())
        self._take = (
            partial(ops.take, ops.convert_to_tensor(table.rows.array), axis=0) if on_device else table.rows.read
        )

    def _clips(
        self, samples: np.ndarray, frames: np.ndarray, mask: np.ndarray, seeds: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        clips, targets = self._features(samples, frames), self.targets[samples]  # (B, T, S, D), (B, C) or (B, C+1)
        if not self.mixup:
            return clips, targets
        rng, size = np.random.default_rng(seeds[0]), len(samples)
        others = np.asarray([rng.choice(self._of_fold[i]) for i in self._fold_ids[samples]])  # (B,)
        starts = rng.integers(0, np.maximum(0, self.lengths[others] - self.num_frames), endpoint=True)
        drawn = rng.beta(self.mixup, self.mixup, (size, 1))
        shares = np.maximum(drawn, 1 - drawn).astype(np.float32)
        targets = shares * targets + (1 - shares) * self.targets[others]
        mixed = self._features(others, starts[:, None] + np.arange(self.num_frames))
        of_clips = ops.convert_to_tensor(shares.reshape(size, *[1] * (len(clips.shape) - 1)))
        real = ops.convert_to_tensor(mask.reshape(*mask.shape, *[1] * (len(clips.shape) - 2)).astype(np.float32))
        return (of_clips * clips + (1 - of_clips) * mixed) * real, targets

    def _features(self, samples: np.ndarray, frames: np.ndarray) -> Any:
        """`(B, T, S, D)` on the device, zeros beyond the end, of `(B,)` samples and `(B, T)` numbers of frames."""
        real = frames < self.lengths[samples, None]
        rows = np.where(real, self._rows[samples, None] + frames, self._padding)
        return ops.convert_to_tensor(self._take(rows.astype(np.int32)))


class StepBatches(FeatureBatches):
    """Of features of films, with targets for each step: `(B, T, C + 2)`, shares of labels, a weight, and the fold.

    A step of which nothing is known, and padding, weighs 0. In training, windows lie at random around known steps; so
    many of them that they overlap, the more the fewer films there are.

    Args:
        stacks: per film `(N, S, D)`, or as `activity.models.heads.prepared` gives them.
        targets: per film `(N, C)`.
        weights: per film `(N,)`, 0 or more.
        folds: `(V,)` of each film; by default all are 0.
        options: those of `ClipBatches`.
    """

    def __init__(
        self,
        stacks: Iterable[np.ndarray],
        targets: Sequence[np.ndarray],
        weights: Sequence[np.ndarray],
        *,
        folds: Sequence[int] | np.ndarray | None = None,
        **options: Any,
    ) -> None:
        self._known = [np.flatnonzero(of_film) for of_film in weights]
        super().__init__(stacks, [[0.0]] * len(targets), **options)
        of_films = zip(targets, weights, np.zeros(len(targets)) if folds is None else folds, strict=True)
        rows = [np.column_stack([held, weight, np.full(len(held), fold)]) for held, weight, fold in of_films]
        self._steps = np.concatenate([*rows, np.zeros_like(rows[0][:1])], dtype=np.float32)  # the last is padding

    def _windows(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if not self.training:
            return super()._windows(rng)
        num_known = np.array([len(known) for known in self._known])
        apart = self.num_frames / np.clip(_WINDOWS_ENOUGH * self.num_frames / num_known.sum(), 1, _MOST_OVERLAP)
        counts = np.ceil(num_known / apart).astype(int)
        samples = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        around = np.array([rng.choice(self._known[i]) for i in samples])
        starts = around - rng.integers(0, self.num_frames, len(samples))
        return samples, np.clip(starts, 0, np.maximum(0, self.lengths[samples] - self.num_frames))

    def _clips(
        self, samples: np.ndarray, frames: np.ndarray, mask: np.ndarray, seeds: np.ndarray
    ) -> tuple[Any, np.ndarray]:
        rows = np.where(mask, self._rows[samples, None] + frames, self._padding)  # (B, T)
        return self._features(samples, frames), self._steps[rows]


class CaptionBatches:
    """Batches of clips with their sentences, for models that write; each epoch draws one of the references of a clip.

    Inputs are those of the clips, `words` `(B, L)` int32 and, with `scheduled_sampling`, `own` `(B, L)` bool, see
    `activity.models.captioner`; targets are the numbers of the next words, `(B, L)` int32, `PADDING` after the end.

    Args:
        clips: whose targets are the numbers of their samples, `(V, 1)`.
        sentences: of each sample, one or more; the numbers of their words, without the end.
        max_words: longer sentences are cut off, without an end.
        num_epochs: of the training.
        scheduled_sampling: share of words that are read as the model would write them: none at the beginning, so many
            at the end (Bengio et al. 2015).
        withheld: share of clips of which no frame is shown in training; 1: nor in validation.
    """

    def __init__(
        self,
        clips: ClipBatches,
        sentences: Sequence[Sequence[np.ndarray]],
        *,
        max_words: int,
        num_epochs: int,
        scheduled_sampling: float = 0.0,
        withheld: float = 0.0,
    ) -> None:
        self.clips, self.sentences, self._length = clips, sentences, max_words + 1
        self.num_windows, self._num_epochs = clips.num_windows, num_epochs
        self._scheduled_sampling, self._withheld = scheduled_sampling, withheld

    def __len__(self) -> int:
        return len(self.clips)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, the same for the same seed and number. Validation takes first references."""
        rng, training = np.random.default_rng([self.clips.seed, number, 1]), self.clips.training
        share = self._scheduled_sampling * (number + 1) / self._num_epochs
        for inputs, numbers in self.clips.epoch(number):
            targets = np.full((len(numbers), self._length), PADDING, np.int32)
            for row, sample in zip(targets, numbers[:, 0].astype(int).tolist(), strict=True):
                references = self.sentences[sample]
                chosen = references[int(rng.integers(len(references))) if training else 0]
                ended = [*chosen, END][: self._length]
                row[: len(ended)] = ended
            words = np.concatenate([np.full_like(targets[:, :1], END), targets[:, :-1]], axis=1)  # (B, L)
            more = {"words": ops.convert_to_tensor(words)}
            if self._withheld and (training or self._withheld == 1):  # who is never shown a clip is not in validation
                shown = rng.random((len(numbers), 1)) >= self._withheld
                more["mask"] = ops.logical_and(inputs["mask"], ops.convert_to_tensor(shown))
            if self._scheduled_sampling:
                own = rng.random(words.shape) < (share if training else 0.0)
                more["own"] = ops.convert_to_tensor(own)
            yield {**inputs, **more}, targets


class FrameBatches(ClipBatches):
    """Of frame stacks `(N, S, H, W, 3)`, or what a network made of them, which are opened when asked for.

    Args:
        augment: streams of the frames to shift and brighten in training, each clip as a whole; none by default.
        flip: with `augment`, mirror clips at random.
        options: those of `ClipBatches`.
    """

    name = "frames"

    def __init__(
        self,
        stacks: Sequence[Any],
        targets: Sequence[Any],
        *,
        augment: Sequence[str] = (),
        flip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(stacks, targets, **options)
        self.augment, self.flip = augment if self.training else (), flip
        first = stacks[0][:1]
        self._item_shape, self._dtype = first.shape[1:], first.dtype
        # threads, because NumPy does not hold the interpreter while it copies
        self._readers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="clips")

    def _clips(
        self, samples: np.ndarray, frames: np.ndarray, mask: np.ndarray, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        clips = np.zeros((*mask.shape, *self._item_shape), self._dtype)  # (B, T, S, ...)

        def fill(clip: np.ndarray, sample: int, start: int, seed: int) -> None:
            real = self.stacks[sample][start : start + self.num_frames]
            if self.augment:
                real = augment_frames(real, np.random.default_rng(seed), streams=self.augment, flip=self.flip)
            clip[: len(real)] = real

        list(self._readers.map(fill, clips, samples, frames[:, 0], seeds))
        return clips, self.targets[samples]


def augment_frames(frames: np.ndarray, rng: np.random.Generator, *, streams: Sequence[str], flip: bool) -> np.ndarray:
    """Shift, brighten and perhaps mirror `(N, S, H, W, 3)` uint8: one draw for the whole clip, so motion stays true."""
    height, width = frames.shape[2:4]
    pad_y, pad_x = int(height * _MAX_SHIFT), int(width * _MAX_SHIFT)
    top, left = rng.integers(0, 2 * pad_y + 1), rng.integers(0, 2 * pad_x + 1)
    gain = rng.uniform(1 - _MAX_GAIN, 1 + _MAX_GAIN)
    mirror = flip and rng.random() < 0.5
    frames = np.pad(frames, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="edge")
    frames = frames[:, :, top : top + height, left : left + width]
    dark = np.array([0 if stream == "rgb" else 127.5 for stream in streams])  # what no light, or no change, looks like
    tables = np.clip(np.rint(dark + (np.arange(256)[:, None] - dark) * gain), 0, 255).astype(np.uint8)  # (256, S)
    frames = np.stack([tables[:, s][frames[:, s]] for s in range(len(streams))], axis=1)
    return frames[:, :, :, ::-1] if mirror else frames
