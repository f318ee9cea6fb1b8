"""A captioner as two graphs, which any runtime computes: its encoder, and one step of its decoder.

    encoder  features (B, T, S, D), mask (B, T)
             -> cell, hidden (B, U), keys (B, T, U), memory (B, T, M)
    step     cell, hidden (B, K, U), keys, mask, memory, words (B, K)
             -> attention (B, K, T), logits (B, K, V), next_cell, next_hidden (B, K, U)

The search, which loops over the words, runs outside of them in NumPy: so they serve any number of beams, and a program
without this package can search in its own way. Words are numbers, see `activity.models.search`; those before the first
are `END`. In an exported file the encoder begins with frames, see `activity.runtimes.exporting`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from activity.models.backend import keras
from activity.models.search import END, NUMPY, NextWords, search_sentences
from activity.runtimes.formats import Graph

if TYPE_CHECKING:
    from activity.models.captioner import ActivityCaptioner

_OUTPUTS = ("attention", "logits", "next_cell", "next_hidden")


def encoder_graph(captioner: ActivityCaptioner, *, of_frames: bool = False) -> keras.Model:
    """The encoder, up to the state that the decoder begins with; weights are shared.

    Args:
        captioner: in Keras.
        of_frames: begin with frames, by the backbone, in place of features.
    """
    from activity.models.classifier import extracted
    from activity.models.decoder import DecoderStart
    from activity.runtimes.loops import with_plain_loops

    num_frames = captioner.spec.num_frames
    plain = with_plain_loops(captioner.encoder, num_frames)
    mask, features = plain.input["mask"], plain.input["features"]
    inputs, memory = {"features": features, "mask": mask}, plain.output
    if of_frames:
        frames = keras.Input(captioner.input["frames"].shape[1:], dtype="uint8", name="frames")
        inputs = {"frames": frames, "mask": mask}
        memory = plain({"features": extracted(captioner.backbone, frames), "mask": mask})
    hidden, cell, keys = DecoderStart(captioner.decoder)(memory, mask)
    return keras.Model(inputs, {"cell": cell, "hidden": hidden, "keys": keys, "memory": memory})


def step_graph(captioner: ActivityCaptioner) -> keras.Model:
    """One step of the decoder, for K sentences of a clip; weights are shared."""
    from activity.models.decoder import DecoderStep

    decoder, time = captioner.decoder, captioner.spec.num_frames
    shapes = {
        "cell": (None, decoder.units),
        "hidden": (None, decoder.units),
        "keys": (time, decoder.units),
        "mask": (time,),
        "memory": (time, captioner.encoder.output.shape[-1]),
        "words": (None,),
    }
    dtypes = {"mask": "bool", "words": "int32"}
    inputs = {name: keras.Input(shape, dtype=dtypes.get(name), name=name) for name, shape in shapes.items()}
    logits, attention, hidden, cell = DecoderStep(decoder)(
        *(inputs[name] for name in ("words", "hidden", "cell", "memory", "keys", "mask"))
    )
    return keras.Model(inputs, dict(zip(_OUTPUTS, (attention, logits, cell, hidden), strict=True)))


class StepwiseDecoder:
    """The two graphs together.

    Args:
        encoder: the opened graph of `encoder_graph`.
        step: that of `step_graph`.
    """

    def __init__(self, encoder: Graph, step: Graph) -> None:
        self._encoder, self._step = encoder, step

    def search(self, clips: np.ndarray, mask: np.ndarray, **options: Any) -> tuple[np.ndarray, ...]:
        """What `activity.models.search.search_sentences` finds, with its options.

        Args:
            clips: features or frames `(B, T, ...)`, whichever the encoder begins with.
            mask: `(B, T)` bool.
            **options: all but `num_steps`.
        """
        next_words, states = self._begin(clips, mask)
        return search_sentences(NUMPY, next_words, states, num_steps=mask.shape[1], **options)

    def logits(self, clips: np.ndarray, mask: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Logits `(B, L, V)` of the words after each of given ones `(B, L)` int32, as the model in Keras gives them."""
        next_words, states = self._begin(clips, mask)
        hidden, cell = (state[:, None] for state in states)  # one sentence a clip
        found = []
        for last in words.T:
            logits, _, hidden, cell = next_words(last[:, None], hidden, cell)
            found.append(logits)
        return np.concatenate(found, axis=1)

    def _begin(self, clips: np.ndarray, mask: np.ndarray) -> tuple[NextWords, tuple[np.ndarray, ...]]:
        cell, hidden, keys, memory = self._encoder(clips, mask)
        return partial(self._next_words, keys, mask, memory), (hidden, cell)

    def _next_words(
        self,
        keys: np.ndarray,
        mask: np.ndarray,
        memory: np.ndarray,
        words: np.ndarray,
        hidden: np.ndarray,
        cell: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        attention, logits, cell, hidden = self._step(cell, hidden, keys, mask, memory, np.asarray(words, np.int32))
        return logits, attention, hidden, cell


def random_words(num_sentences: int, length: int, num_words: int) -> np.ndarray:
    """Given words to compare logits on, `(num_sentences, length)` int32; the first of each is `END`."""
    words = np.random.default_rng(0).integers(END, num_words, (num_sentences, length), np.int32)
    words[:, 0] = END
    return words
