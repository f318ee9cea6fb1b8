"""The search finds the same sentences in NumPy and in the backend, of words that a table tells."""

import keras
import numpy as np
import pytest

from activity.models.search import END, NUM_SPECIAL, NUMPY, PADDING, search_sentences

NUM_WORDS, NUM_CLIPS, MAX_WORDS = NUM_SPECIAL + 4, 5, 6
RNG = np.random.default_rng(0)
TABLE = (2 * RNG.normal(size=(NUM_WORDS, NUM_WORDS))).astype(np.float32)  # logits after each word
WISHES = RNG.normal(size=(3, NUM_WORDS))  # what the state adds to them
STATES = RNG.normal(size=(2, NUM_CLIPS, 3)).astype(np.float32)


def search(ops, **options):
    """What is found where the next word depends on the last and, by a state that turns, on its place."""
    table, wishes = ops.cast(TABLE, "float32"), ops.cast(WISHES, "float32")

    def next_words(words, output, cell):
        logits = ops.take(table, words, axis=0) + ops.matmul(output, wishes)  # (B, K, V)
        attention = ops.cast(logits[..., :2] > 0, "float32")
        return logits, attention, cell, output

    states = [ops.cast(state, "float32") for state in STATES]
    found = search_sentences(ops, next_words, states, num_steps=2, num_words=NUM_WORDS, max_words=MAX_WORDS, **options)
    return [np.asarray(x) for x in found]


@pytest.mark.parametrize("num_beams", [1, 2, 7])
def test_numpy_finds_what_the_backend_finds(num_beams):
    words, logs, seen = search(keras.ops, num_beams=num_beams)
    for received, expected in zip(search(NUMPY, num_beams=num_beams), (words, logs, seen), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-4)
    assert (words[..., 0] >= NUM_SPECIAL).all() and (np.diff(words == PADDING, axis=-1) >= 0).all()
    assert seen.shape == (NUM_CLIPS, num_beams, MAX_WORDS + 1, 2)


def test_more_beams_never_find_a_less_probable_best_sentence_of_that_length():
    few, many = (search(NUMPY, num_beams=num_beams) for num_beams in (1, 50))
    lengths = [(words[:, 0] != PADDING).sum(axis=-1) + 1 for words, *_ in (few, many)]
    ranks = [logs[:, 0] / ((5 + length) / 6) ** 0.6 for (_, logs, _), length in zip((few, many), lengths, strict=True)]
    assert (ranks[1] >= ranks[0] - 1e-5).all() and (ranks[1] > ranks[0] + 1e-3).any()


def test_numpy_draws_what_the_backend_draws():
    drawn = {
        "noise": np.random.default_rng(1).gumbel(size=(NUM_CLIPS, MAX_WORDS + 1, NUM_WORDS)).astype(np.float32),
        "temperature": np.full((NUM_CLIPS, 1), 0.8, np.float32),
        "top_p": np.full((NUM_CLIPS, 1), 0.7, np.float32),
    }
    for received, expected in zip(search(NUMPY, **drawn), search(keras.ops, **drawn), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-4)
    words, _, _ = search(NUMPY, **drawn)
    assert not (words == END).any() and not np.array_equal(words, search(NUMPY)[0])
