"""What `fit` eats: batches of padded clips with their masks, made anew and reproducibly each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from activity.clips import pad_right, window_starts

_MAX_SHIFT = 0.06  # of the frame's size
_MAX_GAIN = 0.2  # brightness 0.8 to 1.2


class ClipBatches(keras.utils.PyDataset):
    """Batches of padded clips with their masks and label ids, from features or from frame stacks.

    Args:
        stacks: per sample `(N, ...)`: features `(N, S, D)`, or frames `(N, S, H, W, 3)` opened when asked for.
        label_ids: per sample.
        num_frames: T. Of a longer stack, training takes one window at random an epoch, otherwise all windows.
        name: of the model's input: `features` or `frames`.
        batch_size: clips in a batch.
        training: shuffle and take random windows.
        flip: with `augment`, mirror clips at random.
        augment: streams of the frames to shift and brighten, each clip as a whole; none are changed by default.
        seed: of everything random, together with the epoch.
    """

    def __init__(
        self,
        stacks: Sequence[Any],
        label_ids: Sequence[int],
        *,
        num_frames: int,
        name: str,
        batch_size: int,
        training: bool = False,
        augment: Sequence[str] = (),
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(workers=1)
        self.stacks, self.label_ids = stacks, np.asarray(label_ids, np.int32)
        self.lengths = [len(stack) for stack in stacks]
        self.num_frames, self.name, self.batch_size = num_frames, name, batch_size
        self.training, self.augment, self.flip, self.seed = training, augment, flip, seed
        self.windows: list[tuple[int, int]] = []
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Choose the windows of an epoch and their order: the same for the same seed and epoch, also when resumed."""
        self.rng = np.random.default_rng([self.seed, epoch])
        if self.training:
            lasts = [max(0, length - self.num_frames) for length in self.lengths]
            starts = self.rng.integers(0, lasts, endpoint=True)
            self.windows = [(int(i), int(starts[i])) for i in self.rng.permutation(len(self.stacks))]
        else:
            self.windows = [
                (i, start) for i, length in enumerate(self.lengths) for start in window_starts(length, self.num_frames)
            ]

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        windows = self.windows[index * self.batch_size : (index + 1) * self.batch_size]
        clips = [self._clip(*window) for window in windows]
        inputs = {self.name: np.stack([clip for clip, _ in clips]), "mask": np.stack([mask for _, mask in clips])}
        return inputs, self.label_ids[[sample for sample, _ in windows]]

    def _clip(self, sample: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        real = self.stacks[sample][start : start + self.num_frames]
        if self.augment:
            real = augment_frames(real, self.rng, streams=self.augment, flip=self.flip)
        return pad_right(real, self.num_frames)


def augment_frames(frames: np.ndarray, rng: np.random.Generator, *, streams: Sequence[str], flip: bool) -> np.ndarray:
    """Shift, brighten and perhaps mirror `(N, S, H, W, 3)` uint8: one draw for the whole clip, so motion stays true."""
    height, width = frames.shape[2:4]
    pad_y, pad_x = int(height * _MAX_SHIFT), int(width * _MAX_SHIFT)
    top, left = rng.integers(0, 2 * pad_y + 1), rng.integers(0, 2 * pad_x + 1)
    gain = rng.uniform(1 - _MAX_GAIN, 1 + _MAX_GAIN)
    mirror = flip and rng.random() < 0.5
    frames = np.pad(frames, ((0, 0), (0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="edge")
    frames = frames[:, :, top : top + height, left : left + width]
    dark = np.array(
        [0.0 if stream == "rgb" else 127.5 for stream in streams]
    )  # what no light, or no change, looks like
    tables = np.clip(np.rint(dark + (np.arange(256)[:, None] - dark) * gain), 0, 255).astype(np.uint8)  # (256, S)
    frames = np.stack([tables[:, s][frames[:, s]] for s in range(len(streams))], axis=1)
    return frames[:, :, :, ::-1] if mirror else frames
