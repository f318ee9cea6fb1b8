"""The interface of models that are ready to predict, whatever computes them. This needs no Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np

from activity.config import ClipSpec
from activity.models.info import ModelInfo
from activity.video.clips import pad_right, window_starts

LONG_CLIPS = 2.0  # a video longer than so many clips of training is read in windows
_WINDOWS_PER_BATCH = 64
_STEPS_PER_WINDOW = 8
_LEAST = 1e-7  # probability


# Features (B, T, S, D), mask (B, T), hidden and cell state (B, Z) -> probabilities (B, T, C), states (B, Z) after them.
RunWithState: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, ...]]


class InferenceModel:
    """A model that is ready to predict: images to features, and features of clips to probabilities.

    A subclass gives `info`, `extract_features` and `run_head`.

    Attributes:
        info: what the model file tells; to change something in it, assign a copy with `dataclasses.replace`.
        num_more_outputs: of the model in Keras, beside one for each label or word.
    """

    info: ModelInfo
    num_more_outputs = 0

    @property
    def spec(self) -> ClipSpec:
        """How a video becomes a clip."""
        return self.info.spec

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the C activities; the position is the label id."""
        return self.info.labels

    @property
    def clip_seconds(self) -> float:
        """The longest time a clip spanned in training; a video of more than twice that is read in windows."""
        return self.info.clip_seconds

    @property
    def window_seconds(self) -> float:
        """How long the windows of a long video are."""
        return self.info.window_seconds

    @property
    def threshold(self) -> float:
        """Probability below which an answer is "unknown"; 0: there is always an answer."""
        return self.info.threshold

    @property
    def window_rate(self) -> float:
        """Frames a second, of which `spec.num_frames` make a window of a long video."""
        # clips of training may have been single frames
        return self.spec.frames_per_second or min(self.spec.num_frames / self.window_seconds, 1000.0)

    @property
    def stride(self) -> int:
        """Frames from one window to the next where it matters what happens when."""
        return max(1, self.spec.num_frames // _STEPS_PER_WINDOW)

    def extract_features(self, images: np.ndarray) -> np.ndarray:
        """Features `(N, D)` float32 of images `(N, H, W, 3)` uint8 RGB."""
        raise NotImplementedError

    def run_head(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """What the head gives for padded features `(B, T, S, D)` and their mask `(B, T)` bool.

        Probabilities float32: `(B, C)` of clips, of a model of steps `(B, T, C)`, without meaning on padding.
        """
        raise NotImplementedError

    def open_states(self) -> RunWithState:
        """A head that goes on from a state, of a model whose `info.state_size` is not 0: see `StateReader`."""
        raise NotImplementedError

    def predict_features(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities `(B, C)` float32 of padded features `(B, T, S, D)` and their mask `(B, T)` bool.

        Of a model of steps, they are the mean over the steps.
        """
        predicted = self.run_head(features, mask)
        if self.info.labels_per == "clip":
            return predicted
        return np.stack([steps[real].mean(axis=0) for steps, real in zip(predicted, mask, strict=True)])  # (B, C)

    def extract_stack_features(self, frames: np.ndarray) -> np.ndarray:
        """Features `(N, S, D)` float32 of real frames `(N, S, H, W, 3)` uint8 RGB."""
        features = self.extract_features(frames.reshape(-1, *frames.shape[2:]))  # (N*S, D)
        return features.reshape(*frames.shape[:2], -1)

    def predict_windows(self, windows: Iterable[tuple[np.ndarray, int]]) -> np.ndarray:
        """Probabilities `(W, C)` of windows, each a feature stack `(N, S, D)` and its first frame."""
        return np.concatenate([self.predict_features(clips, mask) for clips, mask in self._clips_of(windows)])

    def predict_window_steps(self, windows: Sequence[tuple[np.ndarray, int]]) -> list[np.ndarray]:
        """Probabilities `(n, C)` of the n real steps of each window, by a model of steps."""
        return [
            steps[real]
            for clips, mask in self._clips_of(windows)
            for steps, real in zip(self.run_head(clips, mask), mask, strict=True)
        ]

    def _clips_of(self, windows: Iterable[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of padded clips `(B, T, S, D)` with their masks `(B, T)`."""
        length, coming = self.spec.num_frames, iter(windows)
        while batch := list(islice(coming, _WINDOWS_PER_BATCH)):
            clips = [pad_right(stack[start : start + length], length) for stack, start in batch]
            yield np.stack([clip for clip, _ in clips]), np.stack([mask for _, mask in clips])

    def predict_windows_of(self, stacks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities `(W, C)` of the windows that cover feature stacks `(N, S, D)`, and `(W,)` whose each is."""
        owners = list[int]()
        predicted = self.predict_windows(cover(stacks, self.spec.num_frames, owners))
        return predicted, np.asarray(owners)

    def predict_film(self, stack: np.ndarray) -> np.ndarray:
        """Probabilities `(N, C)` of the steps of a feature stack `(N, S, D)`, by a model of steps."""
        if self.info.state_size:
            return StateReader(self).see(stack)
        length = self.spec.num_frames
        starts = window_starts(len(stack), length)
        windows = self.predict_window_steps([(stack, start) for start in starts])
        return join_steps(list(zip(starts, windows, strict=True)), len(stack), multi_label=self.info.multi_label)

    def predict_stacks(self, stacks: Iterable[np.ndarray]) -> np.ndarray:
        """Probabilities `(V, C)` of feature stacks `(N, S, D)`: the mean over the windows that cover each."""
        predicted, owners = self.predict_windows_of(stacks)
        first_windows = np.flatnonzero(np.diff(owners, prepend=-1))[1:]
        return np.stack([of_stack.mean(axis=0) for of_stack in np.split(predicted, first_windows)])


def cover(stacks: Iterable[np.ndarray], num_frames: int, owners: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    """The windows that cover stacks `(N, ...)`, each a stack and its first frame.

    Args:
        stacks: gone through once, and not held.
        num_frames: of a window.
        owners: to which the number of the stack of each window is added.
    """
    for number, stack in enumerate(stacks):
        for start in window_starts(len(stack), num_frames):
            owners.append(number)
            yield stack, start


class StateReader:
    """Probabilities of steps as they come, by a model that carries its state on: however long, in constant memory.

    Args:
        model: whose `info.state_size` is not 0.
    """

    def __init__(self, model: InferenceModel) -> None:
        self._run, self._length = model.open_states(), model.spec.num_frames
        self._states = [np.zeros((1, model.info.state_size), np.float32)] * 2

    def see(self, features: np.ndarray) -> np.ndarray:
        """Probabilities `(n, C)` of the next steps, from their features `(n, S, D)`."""
        seen = []
        for first in range(0, len(features), self._length):
            clip, mask = pad_right(features[first : first + self._length], self._length)
            steps, *self._states = self._run(clip[None], mask[None], *self._states)
            seen.append(steps[0, mask])
        return np.concatenate(seen)


def join_steps(windows: Sequence[tuple[int, np.ndarray]], num_steps: int, *, multi_label: bool = False) -> np.ndarray:
    """Probabilities of steps, from those of windows that overlap: the mean of logarithms, as the members of a head are.

    A window knows most of what is in its middle: a step weighs the less, the nearer it is to an end of the window.

    Args:
        windows: first step, and probabilities `(n, ..., C)` of n steps from there on; they cover all steps.
        num_steps: N.
        multi_label: fuse the odds of each label; else probabilities sum to 1.

    Returns:
        `(N, ..., C)`.
    """
    shape = windows[0][1].shape[1:]
    total, weight = np.zeros((num_steps, *shape)), np.zeros((num_steps, *[1] * len(shape)))
    for start, probabilities in windows:
        length = len(probabilities)
        near = 1 - np.abs(np.arange(length) + 0.5 - length / 2) / (length / 2 + 0.5)
        near = near.reshape(-1, *[1] * len(shape))
        logs = np.log(np.maximum(probabilities, _LEAST))
        if multi_label:
            logs = logs - np.log(np.maximum(1 - probabilities, _LEAST))
        total[start : start + length] += near * logs
        weight[start : start + length] += near
    fused = total / weight
    if multi_label:
        return 1 / (1 + np.exp(-fused))
    fused = np.exp(fused - fused.max(axis=-1, keepdims=True))
    return fused / fused.sum(axis=-1, keepdims=True)
