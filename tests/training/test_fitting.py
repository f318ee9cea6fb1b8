import dataclasses
import time

import keras
import numpy as np
import pytest

from activity.errors import ActivityError
from activity.training.batches import FeatureBatches
from activity.training.fitting import (
    LayerwiseAdamW,
    Stage,
    StagePlan,
    _memory_in_words,
    accuracy_of_members,
    fit,
    loss_of_members,
)

MEMBER_PREDICTIONS = np.array(
    [[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8], [0.3, 0.7]]], np.float32
)  # (2 clips, 2 members, 2 labels)
TARGETS = np.array([[1, 0], [1, 0]], np.float32)


def test_each_member_is_judged_on_its_own():
    losses = keras.ops.convert_to_numpy(loss_of_members(TARGETS, MEMBER_PREDICTIONS))
    np.testing.assert_allclose(losses, [-np.log([0.9, 0.4]).mean(), -np.log([0.2, 0.3]).mean()], rtol=1e-5)
    mixed = keras.ops.convert_to_numpy(loss_of_members(np.array([[0.75, 0.25]] * 2, np.float32), MEMBER_PREDICTIONS))
    other = -np.log([[0.1, 0.6], [0.8, 0.7]]).mean(axis=1)
    np.testing.assert_allclose(mixed, 0.75 * losses + 0.25 * other, rtol=1e-5)


def test_the_accuracy_is_that_of_the_fused_opinions():
    assert keras.ops.convert_to_numpy(accuracy_of_members(TARGETS, MEMBER_PREDICTIONS)).tolist() == [1, 0]
    # 0.9 * 0.05 is less than 0.1 * 0.95: a sure member outweighs one that is nearly as sure
    close = np.array([[[0.9, 0.1], [0.05, 0.95]]], np.float32)
    assert keras.ops.convert_to_numpy(accuracy_of_members(np.array([[0.6, 0.4]]), close)).tolist() == [0]


class SlowBatches(FeatureBatches):
    seconds_per_batch = 0.2

    def epoch(self, number):
        for batch in super().epoch(number):
            time.sleep(self.seconds_per_batch)
            yield batch


def test_a_stage_tells_its_time_and_the_share_of_waiting():
    row = {"loss": 0.5, "accuracy": 0.9, "seconds": 2.0, "waiting_seconds": 0.5}
    stage = Stage("head", [{"epoch": 0.0, **row}, {"epoch": 1.0, **row}])
    assert stage.waiting_fraction == 0.25
    assert stage.as_text().endswith("2 epochs; training loss 0.500, accuracy 0.900; 4.0 s, 25% of it waiting for data")


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


def plan_of(features, *, beside=0.0):
    """A stage of two epochs; the model has a weight `beside` that nothing depends on."""

    class Beside(keras.layers.Layer):
        def build(self, shape):
            self.beside = self.add_weight(initializer=keras.initializers.Constant(beside), trainable=False)

        def call(self, inputs):
            return keras.ops.abs(inputs)

    inputs = {"features": keras.Input((1, 1, 4), name="features"), "mask": keras.Input((1,), dtype="bool", name="mask")}
    x = keras.layers.Dense(4, activation="softmax")(Beside()(inputs["features"]))
    return StagePlan(
        name="head",
        model=keras.Model(inputs, keras.layers.Reshape((1, 4))(x)),
        train_batches=FeatureBatches(features, np.eye(4)[:2], num_frames=1, batch_size=2, training=True),
        val_batches=None,
        num_epochs=2,
        optimizer=keras.optimizers.AdamW,
        learning_rate=0.125,
        weight_decay=0.0,
        is_balanced=False,
    )


@pytest.mark.parametrize(
    ("value", "beside", "reason"),
    [
        (np.nan, 0.0, "training head stopped: in epoch 0 its loss became nan; take a --learning-rate below 0.125"),
        (1.0, np.inf, "training head stopped: its weights .*beside.* are not finite numbers; take a --learning-rate"),
    ],
)
def test_what_is_not_a_number_stops_a_stage_with_a_reason(value, beside, reason, tmp_path):
    with pytest.raises(ActivityError, match=reason):
        fit(plan_of(np.full((2, 1, 1, 4), value, np.float32), beside=beside), tmp_path)


def test_a_stage_of_numbers_ends(tmp_path):
    assert len(fit(plan_of(np.ones((2, 1, 1, 4), np.float32)), tmp_path).rows) == 2


def test_what_fills_up_the_last_batch_is_not_judged(tmp_path):
    features, targets = np.random.default_rng(0).random((5, 1, 1, 4), np.float32), np.eye(4)[[0, 1, 3, 2, 1]]
    val_batches = SlowBatches(features, targets, num_frames=1, batch_size=4)
    plan = dataclasses.replace(plan_of(np.ones((2, 1, 1, 4), np.float32)), val_batches=val_batches)
    row = fit(plan, tmp_path).rows[-1]
    predicted = plan.model.predict_on_batch({"features": features, "mask": np.ones((5, 1), bool)})
    losses, correct = loss_of_members(targets, predicted), accuracy_of_members(targets, predicted)
    assert row["val_loss"] == pytest.approx(float(keras.ops.mean(losses)), rel=1e-5)
    assert row["val_accuracy"] == pytest.approx(float(keras.ops.mean(correct)))
    assert 0.5 * SlowBatches.seconds_per_batch < row["waiting_seconds"] < 60  # for the first batch


def test_a_stage_takes_other_losses(tmp_path):
    plan = plan_of(np.ones((2, 1, 1, 4), np.float32))
    constant = dataclasses.replace(
        plan,
        loss=lambda targets, outputs: 7 + 0 * keras.ops.mean(outputs, axis=(1, 2)),
        accuracy=lambda targets, outputs: 0.25 + 0 * keras.ops.mean(outputs, axis=(1, 2)),
    )
    assert {(row["loss"], row["accuracy"]) for row in fit(constant, tmp_path).rows} == {(7.0, 0.25)}
