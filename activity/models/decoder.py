"""The decoder: an LSTM that writes a sentence word by word, looking at a clip; and the search for sentences.

Words are numbers: `PADDING` after a sentence, `UNKNOWN` for a word that the vocabulary lacks, `END` before the first
and after the last word, and from `NUM_SPECIAL` on those of the vocabulary.

Shapes in the comments: B clips, T steps of the encoder, M its width, L words, V size of the vocabulary, U units of the
decoder, K beams.
"""

from __future__ import annotations

from typing import Any

from activity.models.backend import keras, ops

PADDING, UNKNOWN, END = 0, 1, 2
NUM_SPECIAL = 3
_IMPOSSIBLE = -1e9  # a log-probability that float32 can add to
_LENGTH_PENALTY = 0.6  # alpha


@keras.saving.register_keras_serializable(package="activity")
class Decoder(keras.layers.Layer):
    """An LSTM over words with attention over the steps of an encoder (Luong et al. 2015; over time, Yao et al. 2015).

    Its first state is made of the mean of these steps (Xu et al. 2015). Each output of the LSTM then asks for the steps
    that fit it (multiplicative attention), and their weighted mean and the output together tell the next word. As the
    answer does not go back into the LSTM, all words of a given sentence are read in one call: teacher forcing.

    A clip with no real step is legal: then what is written depends on the words before alone, a language model.

    Args:
        num_words: V, with the special ones.
        units: U.
        dropout: fraction dropped of the embedded words and of what tells the next word.

    Call arguments:
        words: `(batch, L)` int32; the first is `END`, the others those written so far.
        memory: `(batch, T, M)`, the steps; zeros on padding.
        mask: `(batch, T)` bool.

    Returns:
        Logits of the next words, `(batch, L, V)` float32.
    """

    def __init__(self, num_words: int, units: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_words, self.units, self.dropout = num_words, units, dropout
        self.embed = keras.layers.Embedding(num_words, units, name="embed")
        self.start = keras.layers.Dense(2 * units, activation="tanh", name="start")
        self.lstm = keras.layers.LSTM(units, return_sequences=True, name="lstm")
        self.keys = keras.layers.Dense(units, use_bias=False, name="keys")
        self.combine = keras.layers.Dense(units, activation="tanh", name="combine")
        self.drop_words = keras.layers.Dropout(dropout)
        self.drop_read = keras.layers.Dropout(dropout)
        self.read = keras.layers.Dense(num_words, dtype="float32", name="read")  # float16 would lose small ones

    def build(self, words_shape: Any, memory_shape: Any) -> None:
        """Create the weights of the parts."""
        width, units = memory_shape[-1], self.units
        self.embed.build((None, None))
        self.start.build((None, width))
        self.lstm.build((None, None, units))
        self.keys.build((None, None, width))
        self.combine.build((None, None, units + width))
        self.read.build((None, None, units))

    def call(self, words: Any, memory: Any, mask: Any, training: bool | None = None) -> Any:
        """The logits of the word after each."""
        x = self.drop_words(self.embed(words), training=training)  # (B, L) -> (B, L, U)
        outputs = self.lstm(x, initial_state=self.first_state(memory, mask), training=training)  # (B, L, U)
        logits, _ = self.next_words(outputs, memory, self.keys(memory), mask, training=training)
        return logits

    def compute_output_shape(self, words_shape: Any, memory_shape: Any) -> tuple[Any, ...]:
        """`(batch, L, V)`."""
        return (*words_shape, self.num_words)

    def first_state(self, memory: Any, mask: Any) -> list[Any]:
        """Output and cell state before the first word, `(B, U)` each."""
        real = ops.expand_dims(ops.cast(mask, memory.dtype), -1)  # (B, T, 1)
        mean = ops.sum(memory * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)  # (B, M); zeros of no step
        return list(ops.split(self.start(mean), 2, axis=-1))

    def next_words(
        self, outputs: Any, memory: Any, keys: Any, mask: Any, training: bool | None = None
    ) -> tuple[Any, Any]:
        """Logits `(B, L, V)` and attention `(B, L, T)` of outputs of the LSTM `(B, L, U)`, at the keys `(B, T, U)`."""
        scores = ops.einsum("blu,btu->blt", outputs, keys) * self.units**-0.5
        real = ops.expand_dims(mask, 1)  # (B, 1, T)
        scores = ops.where(real, ops.cast(scores, "float32"), _IMPOSSIBLE)
        # not `ops.softmax`: it warns of a single step, and gives no zeros where there is none
        weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True)) * ops.cast(real, "float32")
        attention = weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-6)  # (B, L, T)
        context = ops.einsum("blt,btm->blm", ops.cast(attention, memory.dtype), memory)
        read = self.combine(ops.concatenate([outputs, context], axis=-1))  # (B, L, U + M) -> (B, L, U)
        return self.read(self.drop_read(read, training=training)), attention

    def step(self, words: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        """The output `(N, U)` and state of the LSTM after one more word of each of N sentences, `(N,)`."""
        output, state = self.lstm.cell(self.embed(words), state)
        return output, list(state)

    def get_config(self) -> dict[str, Any]:
        """The sizes."""
        return {
            **super().get_config(),
            "num_words": self.num_words,
            "units": self.units,
            "dropout": self.dropout,
        }


class SentenceSearch(keras.layers.Layer):
    """The most probable sentences of a decoder (beam search), or random ones; the loop over words runs in the backend.

    One beam is greedy search. Several are ranked by their log-probability over a power of their length, which else
    would favour short sentences (Wu et al. 2016, length normalisation). A random sentence takes each word by its
    probability: the largest of logits + Gumbel noise (Maddison et al. 2014), among the most probable words that
    together have the probability `top_p` (nucleus sampling, Holtzman et al. 2020).

    A sentence has one word or more, and `UNKNOWN` is never written. The layer is used in memory alone, and is no part
    of a model file.

    Args:
        decoder: whose weights it uses.
        num_beams: K.
        max_words: L - 1; a sentence that has not ended then is ended there.
        sampled: take words at random; with one beam.

    Call arguments:
        memory, mask: as for the decoder.
        noise: of random sentences: `(batch, L, V)` float32, Gumbel distributed.
        temperature: `(batch, 1)` float32, what logits are divided by, above 0; 1 gives the probabilities as learned.
        top_p: `(batch, 1)` float32, above 0 to 1.

    Returns:
        The best first: words `(batch, K, L)` int32, `PADDING` after their end; log-probabilities `(batch, K)` float32
        of the sentence with its end, at temperature 1; attention `(batch, K, L, T)` float32 of each word.
    """

    def __init__(self, decoder: Decoder, *, num_beams: int = 1, max_words: int, sampled: bool = False) -> None:
        super().__init__()
        if sampled and num_beams != 1:
            raise ValueError(f"random sentences take one beam, received: {num_beams}")
        self.decoder, self.num_beams, self.max_words, self.sampled = decoder, num_beams, max_words, sampled

    def call(
        self, memory: Any, mask: Any, noise: Any = None, temperature: Any = None, top_p: Any = None
    ) -> tuple[Any, Any, Any]:
        """Search on all clips at once."""
        num_beams, length, num_words = self.num_beams, self.max_words + 1, self.decoder.num_words
        batch, time = ops.shape(memory)[0], ops.shape(memory)[1]
        keys = self.decoder.keys(memory)  # (B, T, U)
        allowed, is_end = ops.arange(num_words) >= END, ops.arange(num_words) == END  # (V,)
        ended_logs = ops.where(is_end, 0.0, _IMPOSSIBLE)  # of a sentence that goes on no more
        state = [
            ops.repeat(x[:, None], num_beams, axis=1) for x in self.decoder.first_state(memory, mask)
        ]  # (B, U) -> (B, K, U)
        first = ops.where(ops.arange(num_beams) == 0, 0.0, _IMPOSSIBLE)  # all beams begin alike: only one counts
        carry = (
            ops.zeros((), "int32"),
            ops.full((batch, num_beams, length), PADDING, "int32"),
            ops.full((batch, num_beams), END, "int32"),
            ops.zeros((batch, num_beams)) + first,
            ops.zeros((batch, num_beams), "bool"),
            *state,
            ops.zeros((batch, num_beams, length, time)),
        )

        def go_on(i: Any, words: Any, last: Any, totals: Any, ended: Any, *_: Any) -> Any:
            return ops.logical_and(i < length, ops.logical_not(ops.all(ended)))

        def write(
            i: Any, words: Any, last: Any, totals: Any, ended: Any, output: Any, cell: Any, seen: Any
        ) -> tuple[Any, ...]:
            flat = [ops.reshape(x, (-1, self.decoder.units)) for x in (output, cell)]  # (B*K, U)
            output, (_, cell) = self.decoder.step(ops.reshape(last, (-1,)), flat)
            output, cell = (ops.reshape(x, (-1, num_beams, self.decoder.units)) for x in (output, cell))
            logits, attention = self.decoder.next_words(output, memory, keys, mask)  # (B, K, V), (B, K, T)
            logs = ops.log_softmax(ops.where(allowed, logits, _IMPOSSIBLE), axis=-1)
            too_early, too_late = ops.logical_and(is_end, i == 0), ops.logical_and(~is_end, i == length - 1)  # (V,)
            logs = ops.where(ops.logical_or(too_early, too_late), _IMPOSSIBLE, logs)
            logs = ops.where(ended[..., None], ended_logs, logs)
            candidates = totals[..., None] + logs  # (B, K, V)
            ranks = candidates
            if self.sampled:
                ranks = ops.where(
                    ended[..., None], ended_logs, _sampled(logs, noise[:, i][:, None], temperature, top_p)
                )
            _, best = ops.top_k(ops.reshape(ranks, (-1, num_beams * num_words)), num_beams)  # (B, K)
            beams, last = best // num_words, ops.cast(best % num_words, "int32")
            totals = _take(ops.reshape(candidates, (-1, num_beams * num_words)), best)
            words, ended, seen, output, cell = (_take(x, beams) for x in (words, ended, seen, output, cell))
            now = ops.logical_and(ops.arange(length) == i, ops.logical_not(ended)[..., None])  # (B, K, L)
            words = ops.where(now, last[..., None], words)
            seen = ops.where(now[..., None], _take(attention, beams)[:, :, None], seen)
            ended = ops.logical_or(ended, last == END)
            return i + 1, words, last, totals, ended, output, cell, seen

        _, words, _, totals, _, _, _, seen = ops.while_loop(go_on, write, carry)
        lengths = ops.sum(ops.cast(words != PADDING, "float32"), axis=-1)  # (B, K), with the end
        _, order = ops.top_k(totals / ((5 + lengths) / 6) ** _LENGTH_PENALTY, num_beams)
        words, totals, seen = (_take(x, order) for x in (words, totals, seen))
        return ops.where(words == END, PADDING, words), totals, seen


def _take(x: Any, places: Any) -> Any:
    """`(B, N, ...)` at the places `(B, K)` of its second axis: `(B, K, ...)`."""
    return ops.take_along_axis(x, ops.reshape(places, (*ops.shape(places), *[1] * (len(x.shape) - 2))), axis=1)


def _sampled(logs: Any, noise: Any, temperature: Any, top_p: Any) -> Any:
    """Log-probabilities `(B, 1, V)` as ranks of which the largest is a random word, impossible outside the nucleus."""
    logs = ops.log_softmax(logs / temperature[..., None], axis=-1)
    ordered = ops.flip(ops.sort(ops.exp(logs), axis=-1), axis=-1)  # (B, 1, V)
    before = ops.cumsum(ordered, axis=-1) - ordered  # the probability of all that are more probable
    least = ops.min(ops.where(before < top_p[..., None], ordered, 1.0), axis=-1, keepdims=True)  # (B, 1, 1)
    return ops.where(ops.exp(logs) >= least, logs + noise, _IMPOSSIBLE)
