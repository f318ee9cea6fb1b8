"""The decoder writes what it learned, and the search finds what teacher forcing says is most probable."""

import itertools

import keras
import numpy as np
import pytest

from activity.models.decoder import Decoder, SentenceSearch
from activity.models.layers import make_model
from activity.models.search import END, NUM_SPECIAL, PADDING, UNKNOWN

NUM_WORDS, UNITS, TIME, WIDTH, LENGTH = NUM_SPECIAL + 3, 8, 5, 4, 4
RNG = np.random.default_rng(0)
MEMORY = RNG.normal(size=(6, TIME, WIDTH)).astype(np.float32)
MASK = np.arange(TIME) < np.array([5, 3, 1, 4, 2, 0])[:, None]
MEMORY[~MASK] = 0


@pytest.fixture(scope="module")
def decoder():
    keras.utils.set_random_seed(3)
    decoder = Decoder(NUM_WORDS, UNITS)
    decoder(np.full((6, 1), END, np.int32), MEMORY, MASK)
    for weight in decoder.weights:  # far from even: the best sentence is clearly the best
        weight.assign(3 * weight)
    return decoder


def search(decoder, **options):
    """A function that searches sentences of clips."""
    memory, mask = keras.Input((None, WIDTH)), keras.Input((None,), dtype="bool")
    drawn = {}
    if options.get("sampled"):
        drawn = {
            "noise": keras.Input((LENGTH, NUM_WORDS)),
            "temperature": keras.Input((1,)),
            "top_p": keras.Input((1,)),
        }
    model = make_model(
        [memory, mask, *drawn.values()], SentenceSearch(decoder, max_words=LENGTH - 1, **options)(memory, mask, **drawn)
    )
    return lambda *inputs: [np.asarray(x) for x in model.predict_on_batch(list(inputs))]


def log_probability(decoder, sentences, memory, mask):
    """Of each whole sentence with its end, by teacher forcing; special words are never written."""
    targets = np.array([[*words, END, *[PADDING] * (LENGTH - 1 - len(words))] for words in sentences], np.int32)
    words = np.concatenate([np.full((len(targets), 1), END, np.int32), targets[:, :-1]], axis=1)
    logits = keras.ops.convert_to_numpy(decoder(words, memory, mask)).astype(float)
    logits[..., :END] = -np.inf
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    found = np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
    return np.where(targets == PADDING, 0, found).sum(axis=1)


def all_sentences():
    """Of one word to LENGTH - 1."""
    words = range(NUM_SPECIAL, NUM_WORDS)
    return [list(sentence) for length in range(1, LENGTH) for sentence in itertools.product(words, repeat=length)]


def test_many_beams_find_the_most_probable_of_all_sentences(decoder):
    sentences = all_sentences()
    words, logs, _ = search(decoder, num_beams=60)(MEMORY, MASK)
    for clip in range(len(MEMORY)):
        repeated = [np.repeat(x[clip : clip + 1], len(sentences), axis=0) for x in (MEMORY, MASK)]
        exact = log_probability(decoder, sentences, *repeated)
        lengths = np.array([len(sentence) + 1 for sentence in sentences])
        best = int(np.argmax(exact / ((5 + lengths) / 6) ** 0.6))
        assert [x for x in words[clip, 0] if x != PADDING] == sentences[best]
        assert logs[clip, 0] == pytest.approx(exact[best], abs=1e-4)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_log_probability_of_each_beam_is_that_of_its_words(decoder, num_beams):
    words, logs, attention = search(decoder, num_beams=num_beams)(MEMORY, MASK)
    assert words.shape == (6, num_beams, LENGTH) and attention.shape == (6, num_beams, LENGTH, TIME)
    for beam in range(num_beams):
        sentences = [[x for x in row if x != PADDING] for row in words[:, beam].tolist()]
        np.testing.assert_allclose(logs[:, beam], log_probability(decoder, sentences, MEMORY, MASK), atol=1e-4)
    assert not np.isin(words, [UNKNOWN, END]).any()
    ranked = logs / ((5 + (words != PADDING).sum(axis=-1) + 1) / 6) ** 0.6
    assert (np.diff(ranked, axis=1) <= 1e-6).all()


def test_one_beam_takes_the_most_probable_next_word(decoder):
    words, *_ = search(decoder)(MEMORY, MASK)
    for clip in range(len(MEMORY)):
        written = [END]
        for place in range(LENGTH - 1):
            row = np.array([written], np.int32)
            logits = keras.ops.convert_to_numpy(decoder(row, MEMORY[clip : clip + 1], MASK[clip : clip + 1]))[0, -1]
            logits[: END + (place == 0)] = -np.inf  # one word at least
            written.append(int(logits.argmax()))
            if written[-1] == END:
                break
        assert [x for x in words[clip, 0] if x != PADDING] == [x for x in written if x != END]


def test_words_look_at_real_steps_only(decoder):
    words, _, attention = search(decoder)(MEMORY, MASK)
    written = words[:, 0] != PADDING
    assert written.any()
    sums = np.where(MASK.any(axis=1), 1.0, 0.0)[:, None] * written
    np.testing.assert_allclose(attention[:, 0].sum(axis=-1)[written], sums[written], atol=1e-5)
    assert not attention[:, 0][np.broadcast_to(~MASK[:, None], (6, LENGTH, TIME))].any()
    garbage = np.where(MASK[..., None], MEMORY, 0)
    padded = np.concatenate([garbage, np.zeros_like(garbage)], axis=1)
    again, *_ = search(decoder)(padded, np.concatenate([MASK, np.zeros_like(MASK)], axis=1))
    np.testing.assert_array_equal(again, words)


def test_random_sentences_have_the_probabilities_of_the_model(decoder):
    count = 4000
    memory, mask = (np.repeat(x[:1], count, axis=0) for x in (MEMORY, MASK))
    noise = np.random.default_rng(1).gumbel(size=(count, LENGTH, NUM_WORDS)).astype(np.float32)
    ones = np.ones((count, 1), np.float32)
    draw = search(decoder, sampled=True)
    words, logs, _ = draw(memory, mask, noise, ones, ones)
    found = [tuple(x for x in row if x != PADDING) for row in words[:, 0].tolist()]
    assert min(map(len, found)) >= 1
    np.testing.assert_allclose(logs[:50, 0], log_probability(decoder, found[:50], memory[:50], mask[:50]), atol=1e-4)
    first = keras.ops.convert_to_numpy(decoder(np.array([[END]], np.int32), MEMORY[:1], MASK[:1]))[0, 0]
    expected = np.exp(first[NUM_SPECIAL:]) / np.exp(first[NUM_SPECIAL:]).sum()  # it does not end at once
    for number, probability in enumerate(expected, NUM_SPECIAL):
        fraction = np.mean([sentence[0] == number for sentence in found])
        assert abs(fraction - probability) < 5 * np.sqrt(probability * (1 - probability) / count) + 1e-3
    after = [sentence for sentence in found if sentence[0] == NUM_SPECIAL]
    second = np.array([[END, NUM_SPECIAL]], np.int32)
    logits = keras.ops.convert_to_numpy(decoder(second, MEMORY[:1], MASK[:1]))[0, 1]
    probability = np.exp(logits[END]) / np.exp(logits[END:]).sum()
    fraction = np.mean([len(sentence) == 1 for sentence in after])
    assert abs(fraction - probability) < 5 * np.sqrt(probability * (1 - probability) / len(after)) + 1e-3
    for options in ((ones, 1e-6 * ones), (1e-3 * ones, ones)):  # a nucleus of one word; no chance
        same, *_ = draw(memory, mask, noise, *options)
        assert (same == search(decoder)(memory, mask)[0]).all()


def test_the_nucleus_leaves_out_improbable_words(decoder):
    count = 500
    memory, mask = (np.repeat(x[:1], count, axis=0) for x in (MEMORY, MASK))
    noise = np.random.default_rng(2).gumbel(size=(count, LENGTH, NUM_WORDS)).astype(np.float32)
    ones = np.ones((count, 1), np.float32)
    words, *_ = search(decoder, sampled=True)(memory, mask, noise, ones, 0.6 * ones)
    first = words[:, 0, 0]
    logits = keras.ops.convert_to_numpy(decoder(np.array([[END]], np.int32), MEMORY[:1], MASK[:1]))[0, 0]
    logits[: END + 1] = -np.inf
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    order = np.argsort(-probabilities)
    nucleus = set(order[: int(np.searchsorted(np.cumsum(probabilities[order]), 0.6)) + 1].tolist())
    assert set(first.tolist()) == nucleus


def test_random_sentences_take_one_beam(decoder):
    with pytest.raises(ValueError, match="random sentences take one beam, received: 2"):
        SentenceSearch(decoder, num_beams=2, max_words=3, sampled=True)
