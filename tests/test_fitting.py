import keras
import numpy as np
import pytest

from activity.errors import ActivityError
from activity.fitting import LayerwiseAdamW, _memory_in_words, accuracy, loss_of_members

OPINIONS = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8], [0.3, 0.7]]], np.float32)  # (2 clips, 2 members, 2 labels)
LABEL_IDS = np.array([0, 0], np.int32)


def test_each_member_is_judged_on_its_own():
    losses = keras.ops.convert_to_numpy(loss_of_members(LABEL_IDS, OPINIONS))
    np.testing.assert_allclose(losses, [-np.log([0.9, 0.4]).mean(), -np.log([0.2, 0.3]).mean()], rtol=1e-5)


def test_the_accuracy_is_that_of_the_fused_opinions():
    assert keras.ops.convert_to_numpy(accuracy(LABEL_IDS, OPINIONS)).tolist() == [1, 0]
    # 0.9 * 0.05 is less than 0.1 * 0.95: a sure member outweighs one that is nearly as sure
    close = np.array([[[0.9, 0.1], [0.05, 0.95]]], np.float32)
    assert keras.ops.convert_to_numpy(accuracy(np.array([0]), close)).tolist() == [0]


def test_layers_learn_at_their_own_rates():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.set_weights([np.full(weight.shape, 0.1) for weight in model.get_weights()])
    before = model.get_weights()
    rates = {v.path: rate for layer, rate in zip(model.layers, (0.01, 0.1), strict=False) for v in layer.variables}
    model.compile(LayerwiseAdamW(1e-2, weight_decay=0.0, rates=rates), "mse", jit_compile=False)
    model.train_on_batch(np.ones((4, 3)), np.ones((4, 1)))
    steps = [np.abs(new - old).mean() for new, old in zip(model.get_weights(), before, strict=True)]
    # the first step of Adam is as long as the rate, whatever the gradient; of each layer, kernel and bias
    np.testing.assert_allclose(steps, [1e-4, 1e-4, 1e-3, 1e-3, 1e-2, 1e-2], rtol=0.01)


@pytest.mark.parametrize("text", ["RESOURCE_EXHAUSTED: OOM when allocating tensor", "CUDA out of memory"])
def test_too_little_memory_is_said_in_words(text):
    expected = "not enough memory for a step of training; use a smaller --batch-size"
    with pytest.raises(ActivityError, match=expected), _memory_in_words():
        raise RuntimeError(text)


def test_a_bug_is_not_taken_for_too_little_memory():
    with pytest.raises(ZeroDivisionError), _memory_in_words():
        raise ZeroDivisionError
