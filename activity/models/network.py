"""The interface of models that are ready to predict, whatever computes them. This needs no Keras."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activity.config import ClipSpec
from activity.models.info import ModelInfo
from activity.video.clips import pad_right, window_starts

LONG_CLIPS = 2.0  # a video longer than so many clips of training is read in windows
_WINDOWS_PER_BATCH = 64
_STEPS_PER_WINDOW = 8


class InferenceModel:
    """A model that is ready to predict: images to features, and features of clips to probabilities.

    A subclass gives `info`, `extract_features` and `predict_features`.

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

    def predict_features(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Probabilities `(B, C)` float32 of padded features `(B, T, S, D)` and their mask `(B, T)` bool."""
        raise NotImplementedError

    def extract_stack_features(self, frames: np.ndarray) -> np.ndarray:
        """Features `(N, S, D)` float32 of real frames `(N, S, H, W, 3)` uint8 RGB."""
        features = self.extract_features(frames.reshape(-1, *frames.shape[2:]))  # (N*S, D)
        return features.reshape(*frames.shape[:2], -1)

    def predict_windows(self, windows: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
        """Probabilities `(len(windows), C)` of windows, each a feature stack `(N, S, D)` and its first frame."""
        predicted = []
        length = self.spec.num_frames
        for first in range(0, len(windows), _WINDOWS_PER_BATCH):
            clips = [
                pad_right(stack[start : start + length], length)
                for stack, start in windows[first : first + _WINDOWS_PER_BATCH]
            ]
            predicted.append(
                self.predict_features(np.stack([clip for clip, _ in clips]), np.stack([mask for _, mask in clips]))
            )
        return np.concatenate(predicted)

    def predict_windows_of(self, stacks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities `(W, C)` of the windows that cover feature stacks `(N, S, D)`, and `(W,)` whose each is."""
        length = self.spec.num_frames
        windows = [(i, start) for i, stack in enumerate(stacks) for start in window_starts(len(stack), length)]
        predicted = self.predict_windows([(stacks[i], start) for i, start in windows])
        return predicted, np.asarray([i for i, _ in windows])

    def predict_stacks(self, stacks: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities `(len(stacks), C)` of feature stacks `(N, S, D)`: the mean over the windows that cover each."""
        predicted, owners = self.predict_windows_of(stacks)
        return np.stack([predicted[owners == i].mean(axis=0) for i in range(len(stacks))])
