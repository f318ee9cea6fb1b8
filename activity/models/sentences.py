"""Sentences of clips, whatever computes them. This needs no Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from activity.models.network import InferenceModel, cover
from activity.models.search import NUM_SPECIAL, PADDING
from activity.video.clips import pad_right

_MOST_AT_ONCE = 64  # clips

# Features (B, T, S, D) and mask (B, T), with what random sentences take, by name -> what `search_sentences` returns
Search: TypeAlias = Callable[[dict[str, np.ndarray]], tuple[np.ndarray, ...]]


class InferenceCaptioner(InferenceModel):
    """A model that is ready to write sentences: images to features, and features of clips to words.

    A subclass gives `info`, `extract_features`, `feature_shape` and `build_search`.
    """

    num_more_outputs = NUM_SPECIAL

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """`(S, D)` of a frame."""
        raise NotImplementedError

    def build_search(self, *, num_beams: int, sampled: bool) -> Search:
        """A function that searches for the most probable sentences of clips, or draws random ones.

        Args:
            num_beams: K of the search; 1 of random ones.
            sampled: draw words at random. The function then takes `noise`, `temperature` and `top_p` too, see
                `activity.models.search.search_sentences`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Sentence:
    """A sentence of a clip.

    Attributes:
        words: in their order, without the end.
        log_probability: natural logarithm of its probability, its end included: 0 at most.
        attention: `(len(words), N)` how much each word looked at each of the N real frames; rows sum to 1.
    """

    words: tuple[str, ...]
    log_probability: float
    attention: np.ndarray

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(self.words)

    @property
    def certainty(self) -> float:
        """Mean log-probability of its words and its end, to compare sentences of different clips."""
        return self.log_probability / (len(self.words) + 1)


class SentenceWriter:
    """Writes sentences of clips: the most probable ones, or random ones.

    Args:
        captioner: whatever computes it.
        num_beams: K of the search; more find sentences of a higher probability, and take longer.
        sampled: draw words at random instead; `num_beams` is then not used.
    """

    def __init__(self, captioner: InferenceCaptioner, *, num_beams: int = 5, sampled: bool = False) -> None:
        self.captioner, self.sampled = captioner, sampled
        self._search = captioner.build_search(num_beams=1 if sampled else num_beams, sampled=sampled)

    def write(
        self,
        features: np.ndarray,
        mask: np.ndarray,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        rngs: Sequence[np.random.Generator] = (),
    ) -> list[list[Sentence]]:
        """K sentences of each clip, the best first; one of a writer of random ones.

        Args:
            features: `(B, T, S, D)`, padded.
            mask: `(B, T)` bool; a clip without any frame gives a sentence of the language alone.
            temperature: of random sentences: below 1 nearer to the most probable words, above 1 wilder.
            top_p: of random sentences: only the most probable words that together have this probability.
            rngs: of random sentences: a source of chance for each clip.
        """
        found = []
        for first in range(0, len(features), _MOST_AT_ONCE):
            part = slice(first, first + _MOST_AT_ONCE)
            inputs: dict[str, Any] = {"features": features[part], "mask": mask[part]}
            if self.sampled:
                info = self.captioner.info
                shape = (info.max_words + 1, len(info.words) + NUM_SPECIAL)  # with the end
                inputs["noise"] = np.stack([rng.gumbel(size=shape) for rng in rngs[part]]).astype(np.float32)
                for name, value in (("temperature", temperature), ("top_p", top_p)):
                    inputs[name] = np.full((len(mask[part]), 1), value, np.float32)
            for real, words, logs, seen in zip(mask[part], *self._search(inputs), strict=True):
                beams = zip(words, logs, seen, strict=True)
                found.append([self._sentence(*beam, num_real=int(real.sum())) for beam in beams])
        return found

    def write_windows(self, windows: Sequence[tuple[np.ndarray, int]], **drawn: Any) -> list[list[Sentence]]:
        """K sentences of each window: a feature stack `(N, S, D)` and its first frame; the options of `write`."""
        length = self.captioner.spec.num_frames
        clips = [pad_right(stack[start : start + length], length) for stack, start in windows]
        return self.write(np.stack([clip for clip, _ in clips]), np.stack([mask for _, mask in clips]), **drawn)

    def write_stacks(self, stacks: Sequence[np.ndarray]) -> list[list[Sentence]]:
        """K sentences of each feature stack `(N, S, D)`; of one longer than a clip, of its most certain window."""
        owners, found = list[int](), [list[list[Sentence]]() for _ in range(len(stacks))]
        coming = cover(stacks, self.captioner.spec.num_frames, owners)
        while windows := list(islice(coming, _MOST_AT_ONCE)):
            for i, sentences in zip(owners[-len(windows) :], self.write_windows(windows), strict=True):
                found[i].append(sentences)
        return [max(of_windows, key=lambda sentences: sentences[0].certainty) for of_windows in found]

    def _sentence(self, words: np.ndarray, log_probability: float, attention: np.ndarray, *, num_real: int) -> Sentence:
        vocabulary, num_words = self.captioner.info.words, int((words != PADDING).sum())
        texts = tuple(vocabulary[number - NUM_SPECIAL] for number in words[:num_words])
        return Sentence(texts, float(log_probability), attention[:num_words, :num_real])
