"""The decoder: an LSTM that writes a sentence word by word, looking at a clip; and the search for sentences.

Words are numbers, see `activity.models.search`.

Shapes in the comments: B clips, T steps of the encoder, M its width, L words, V size of the vocabulary, U units of the
decoder, K beams.
"""

from __future__ import annotations

from typing import Any

from activity.models.backend import keras, ops
from activity.models.search import search_sentences


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
        scores = ops.where(real, ops.cast(scores, "float32"), -1e9)
        # not `ops.softmax`: it warns of a single step, and gives no zeros where there is none
        weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True)) * ops.cast(real, "float32")
        attention = weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-6)  # (B, L, T)
        context = ops.einsum("blt,btm->blm", ops.cast(attention, memory.dtype), memory)
        read = self.combine(ops.concatenate([outputs, context], axis=-1))  # (B, L, U + M) -> (B, L, U)
        return self.read(self.drop_read(read, training=training)), attention

    def step(self, words: Any, output: Any, cell: Any, memory: Any, keys: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
        """One more word of each of K sentences of a clip: what may follow it, and the state of the LSTM after it.

        Args:
            words: `(B, K)` int32, the last of each.
            output: `(B, K, U)`, that of the LSTM before it.
            cell: `(B, K, U)`, its cell state.
            memory: `(B, T, M)`.
            keys: `(B, T, U)`, what `keys` makes of it.
            mask: `(B, T)` bool.

        Returns:
            Logits `(B, K, V)`, attention `(B, K, T)`, output and cell `(B, K, U)`.
        """
        num_beams = ops.shape(words)[1]
        flat = [ops.reshape(x, (-1, self.units)) for x in (output, cell)]  # (B*K, U)
        output, (_, cell) = self.lstm.cell(self.embed(ops.reshape(words, (-1,))), flat)
        output, cell = (ops.reshape(x, (-1, num_beams, self.units)) for x in (output, cell))
        return *self.next_words(output, memory, keys, mask), output, cell

    def get_config(self) -> dict[str, Any]:
        """The sizes."""
        return {
            **super().get_config(),
            "num_words": self.num_words,
            "units": self.units,
            "dropout": self.dropout,
        }


class DecoderStart(keras.layers.Layer):
    """What `DecoderStep` needs of a clip, as a layer of a graph of its own; used in memory alone, in no model file.

    Args:
        decoder: whose weights it uses.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def call(self, memory: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Output and cell before the first word, `(B, U)`, and keys `(B, T, U)`."""
        return *self.decoder.first_state(memory, mask), self.decoder.keys(memory)


class DecoderStep(keras.layers.Layer):
    """`Decoder.step` as a layer of a graph of its own. It is used in memory alone, in no model file.

    Args:
        decoder: whose weights it uses.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def call(self, words: Any, output: Any, cell: Any, memory: Any, keys: Any, mask: Any) -> Any:
        """The results of `Decoder.step`."""
        return self.decoder.step(words, output, cell, memory, keys, mask)


class SentenceSearch(keras.layers.Layer):
    """`search_sentences` with a decoder, in the loop of the backend. It is used in memory alone, in no model file.

    Args:
        decoder: whose weights it uses.
        num_beams: K.
        max_words: L - 1.
        sampled: take words at random; with one beam.

    Call arguments:
        memory, mask: as for the decoder.
        noise, temperature, top_p: of random sentences.
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
        decoder, keys = self.decoder, self.decoder.keys(memory)  # (B, T, U)

        def next_words(words: Any, output: Any, cell: Any) -> tuple[Any, Any, Any, Any]:
            return decoder.step(words, output, cell, memory, keys, mask)

        return search_sentences(
            ops,
            next_words,
            decoder.first_state(memory, mask),
            num_steps=ops.shape(memory)[1],
            num_words=decoder.num_words,
            num_beams=self.num_beams,
            max_words=self.max_words,
            noise=noise if self.sampled else None,
            temperature=temperature,
            top_p=top_p,
        )
