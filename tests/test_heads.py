import numpy as np
import pytest

from activity.errors import ActivityError
from activity.heads import HEADS, build_head

RNG = np.random.default_rng(0)


def head(name):
    return build_head(name, num_features=5, num_labels=3, units=8, dropout=0.5)


def probabilities(model, features, num_real):
    mask = np.arange(features.shape[1]) < np.asarray(num_real)[:, None]
    return model.predict_on_batch({"features": features.astype(np.float32), "mask": mask})


@pytest.mark.parametrize("name", HEADS)
def test_probabilities_sum_to_one_for_any_length(name):
    model = head(name)
    for time in (1, 4, 9):
        result = probabilities(model, RNG.random((2, time, 5)), [time, 1])
        assert result.shape == (2, 3)
        assert result.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_what_stands_in_padded_frames_never_matters(name):
    model = head(name)
    features = RNG.random((3, 8, 5))
    other = features.copy()
    other[0, 2:], other[1, 5:], other[2, 7:] = 1e3, -7, np.pi
    np.testing.assert_array_equal(probabilities(model, features, [2, 5, 7]), probabilities(model, other, [2, 5, 7]))


@pytest.mark.parametrize("name", HEADS)
def test_padding_equals_trimming(name):
    model = head(name)
    features = RNG.random((1, 8, 5))
    np.testing.assert_allclose(
        probabilities(model, features, [3]), probabilities(model, features[:, :3], [3]), atol=1e-6
    )


def test_lstm_reads_the_order_of_frames():
    features = RNG.random((1, 6, 5))
    model = head("lstm")
    assert np.abs(probabilities(model, features, [6]) - probabilities(model, features[:, ::-1], [6])).max() > 1e-4


def test_unknown_head_is_answered_with_the_names():
    with pytest.raises(ActivityError, match="no head 'gpt'; expected one of lstm"):
        head("gpt")
