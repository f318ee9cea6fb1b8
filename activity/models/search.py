"""The search for sentences, whatever computes the words: beam search, or words drawn at random. This needs no Keras.

Words are numbers: `PADDING` after a sentence, `UNKNOWN` for a word that the vocabulary lacks, `END` before the first
and after the last word, and from `NUM_SPECIAL` on those of the vocabulary.

Shapes in the comments: B clips, T steps of the encoder, L words, V size of the vocabulary, K beams, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

PADDING, UNKNOWN, END = 0, 1, 2
NUM_SPECIAL = 3
_IMPOSSIBLE = -1e9  # a log-probability that float32 can add to
_LENGTH_PENALTY = 0.6  # alpha

# The last words (B, K) int32 and two states (B, K, U) -> logits (B, K, V), attention (B, K, T), two new states
NextWords: TypeAlias = Callable[..., tuple[Any, Any, Any, Any]]


def search_sentences(
    ops: Any,
    next_words: NextWords,
    states: Sequence[Any],
    *,
    num_steps: Any,
    num_words: int,
    num_beams: int = 1,
    max_words: int,
    noise: Any = None,
    temperature: Any = None,
    top_p: Any = None,
) -> tuple[Any, Any, Any]:
    """The most probable sentences (beam search), or random ones.

    One beam is greedy search. Several are ranked by their log-probability over a power of their length, which else
    would favour short sentences (Wu et al. 2016, length normalisation). A random sentence takes each word by its
    probability: the largest of logits + Gumbel noise (Maddison et al. 2014), among the most probable words that
    together have the probability `top_p` (nucleus sampling, Holtzman et al. 2020).

    A sentence has one word or more, and `UNKNOWN` is never written.

    Args:
        ops: `keras.ops`, or `NUMPY` for arrays; its loop is used.
        next_words: the words that may follow.
        states: of the decoder before the first word, two of `(B, U)`.
        num_steps: T.
        num_words: V, with the special ones.
        num_beams: K; 1 of random sentences.
        max_words: L - 1; a sentence that has not ended then is ended there.
        noise: of random sentences: `(B, L, V)` float32, Gumbel distributed; `None`: the most probable ones.
        temperature: of random sentences: `(B, 1)` float32, what logits are divided by, above 0; 1 gives the
            probabilities as learned.
        top_p: of random sentences: `(B, 1)` float32, above 0 to 1.

    Returns:
        The best first: words `(B, K, L)` int32, `PADDING` after their end; log-probabilities `(B, K)` of the sentence
        with its end, at temperature 1; attention `(B, K, L, T)` of each word.
    """
    batch, length = ops.shape(states[0])[0], max_words + 1
    allowed, is_end = ops.arange(num_words) >= END, ops.arange(num_words) == END  # (V,)
    ended_logs = ops.where(is_end, 0.0, _IMPOSSIBLE)  # of a sentence that goes on no more
    first = ops.where(ops.arange(num_beams) == 0, 0.0, _IMPOSSIBLE)  # all beams begin alike: only one counts
    carry = (
        ops.zeros((), "int32"),
        ops.full((batch, num_beams, length), PADDING, "int32"),
        ops.full((batch, num_beams), END, "int32"),
        ops.zeros((batch, num_beams), "float32") + first,
        ops.zeros((batch, num_beams), "bool"),
        *(ops.repeat(x[:, None], num_beams, axis=1) for x in states),  # (B, U) -> (B, K, U)
        ops.zeros((batch, num_beams, length, num_steps), "float32"),
    )

    def go_on(i: Any, words: Any, last: Any, totals: Any, ended: Any, *_: Any) -> Any:
        return ops.logical_and(i < length, ops.logical_not(ops.all(ended)))

    def write(
        i: Any, words: Any, last: Any, totals: Any, ended: Any, output: Any, cell: Any, seen: Any
    ) -> tuple[Any, ...]:
        logits, attention, output, cell = next_words(last, output, cell)
        logs = ops.log_softmax(ops.where(allowed, logits, _IMPOSSIBLE), axis=-1)  # (B, K, V)
        too_early, too_late = ops.logical_and(is_end, i == 0), ops.logical_and(~is_end, i == length - 1)  # (V,)
        logs = ops.where(ops.logical_or(too_early, too_late), _IMPOSSIBLE, logs)
        logs = ops.where(ended[..., None], ended_logs, logs)
        candidates = totals[..., None] + logs  # (B, K, V)
        ranks = candidates
        if noise is not None:
            drawn = _sampled(ops, logs, noise[:, i][:, None], temperature, top_p)
            ranks = ops.where(ended[..., None], ended_logs, drawn)
        _, best = ops.top_k(ops.reshape(ranks, (-1, num_beams * num_words)), num_beams)  # (B, K)
        beams, last = best // num_words, ops.cast(best % num_words, "int32")
        totals = _take(ops, ops.reshape(candidates, (-1, num_beams * num_words)), best)
        words, ended, seen, output, cell = (_take(ops, x, beams) for x in (words, ended, seen, output, cell))
        now = ops.logical_and(ops.arange(length) == i, ops.logical_not(ended)[..., None])  # (B, K, L)
        words = ops.where(now, last[..., None], words)
        seen = ops.where(now[..., None], _take(ops, attention, beams)[:, :, None], seen)
        ended = ops.logical_or(ended, last == END)
        return i + 1, words, last, totals, ended, output, cell, seen

    _, words, _, totals, _, _, _, seen = ops.while_loop(go_on, write, carry)
    lengths = ops.sum(ops.cast(words != PADDING, "float32"), axis=-1)  # (B, K), with the end
    _, order = ops.top_k(totals / ((5 + lengths) / 6) ** _LENGTH_PENALTY, num_beams)
    words, totals, seen = (_take(ops, x, order) for x in (words, totals, seen))
    return ops.where(words == END, PADDING, words), totals, seen


def _take(ops: Any, x: Any, places: Any) -> Any:
    """`(B, N, ...)` at the places `(B, K)` of its second axis: `(B, K, ...)`."""
    return ops.take_along_axis(x, ops.reshape(places, (*ops.shape(places), *[1] * (len(x.shape) - 2))), axis=1)


def _sampled(ops: Any, logs: Any, noise: Any, temperature: Any, top_p: Any) -> Any:
    """Log-probabilities `(B, 1, V)` as ranks of which the largest is a random word, impossible outside the nucleus."""
    logs = ops.log_softmax(logs / temperature[..., None], axis=-1)
    ordered = ops.flip(ops.sort(ops.exp(logs), axis=-1), axis=-1)  # (B, 1, V)
    before = ops.cumsum(ordered, axis=-1) - ordered  # the probability of all that are more probable
    least = ops.min(ops.where(before < top_p[..., None], ordered, 1.0), axis=-1, keepdims=True)  # (B, 1, 1)
    return ops.where(ops.exp(logs) >= least, logs + noise, _IMPOSSIBLE)


class _Numpy:
    """What the search needs of `keras.ops`, in NumPy: for networks that compute without Keras."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def cast(self, x: np.ndarray, dtype: str) -> np.ndarray:
        return np.asarray(x, dtype)

    def log_softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        x = x - x.max(axis=axis, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))

    def top_k(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        best = np.argsort(-x, axis=-1, kind="stable")[..., :k]
        return np.take_along_axis(x, best, axis=-1), best

    def while_loop(self, go_on: Callable[..., Any], step: Callable[..., Any], carry: tuple[Any, ...]) -> Any:
        while go_on(*carry):
            carry = step(*carry)
        return carry


NUMPY = _Numpy()
