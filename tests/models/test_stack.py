"""A stack is the weighted product of a head and its base models, in one graph."""

import keras
import numpy as np
import pytest

from activity.evaluation.linear import logistic_regression, predict_linear
from activity.models.heads import HeadOptions, adapt, build_head, member_predictions_of, with_members
from activity.models.stack import HEAD, build_pooling, build_stack, is_stack, stack_fractions, stacked_head, weights_of

RNG = np.random.default_rng(0)
NAMES = ["chunks_0", "chunks_1", "cosines_0", "cosines_1", "mean"]
LENGTHS = [6, 4, 1, 6, 5, 2]


@pytest.fixture(scope="module")
def parts():
    """A head, the pooling, and clips of two streams with padding."""
    head = build_head("lstm", HeadOptions(units=4, members=3), num_features=5, num_labels=3, num_streams=2)
    pooling = build_pooling(num_features=5, num_streams=2)
    stacks = [RNG.random((n, 2, 5)).astype(np.float32) for n in LENGTHS]
    for model in (head, pooling):
        adapt(model, stacks)
    mask = np.arange(6) < np.asarray(LENGTHS)[:, None]
    features = np.zeros((6, 6, 2, 5), np.float32)
    features[mask] = np.concatenate(stacks)
    return head, pooling, {"features": features, "mask": mask}


def linear_of(pooling, clips):
    pooled = pooling.predict_on_batch(clips)
    return pooled, {name: logistic_regression(x, np.arange(6) % 3, 3) for name, x in pooled.items()}


def test_the_base_models_read_what_they_say(parts):
    _, pooling, clips = parts
    pooled = pooling.predict_on_batch(clips)
    assert sorted(pooled) == NAMES
    real = [clips["features"][i, :n] for i, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(pooled["mean"], [x.mean(axis=0).ravel() for x in real], atol=1e-6)
    other = {**clips, "features": np.where(clips["mask"][..., None, None], clips["features"], 9).astype(np.float32)}
    for name, x in pooling.predict_on_batch(other).items():
        np.testing.assert_allclose(x, pooled[name], atol=1e-5, err_msg=f"{name} reads padding")


def test_a_stack_is_the_weighted_product(parts, tmp_path):
    head, pooling, clips = parts
    pooled, linear = linear_of(pooling, clips)
    weights = {HEAD: 0.5, "mean": 0.3, "chunks_0": 0.0, "chunks_1": 0.1, "cosines_0": 0.25, "cosines_1": 0.0}
    stack = build_stack(head, pooling, linear, weights)
    logs = weights[HEAD] * np.log(head.predict_on_batch(clips))
    for name in linear:
        logs += weights[name] * predict_linear(pooled[name], *linear[name])
    expected = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(stack.predict_on_batch(clips), expected, atol=1e-5)
    stack.save(tmp_path / "stack.keras")
    loaded = keras.saving.load_model(tmp_path / "stack.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict_on_batch(clips), stack.predict_on_batch(clips))
    for model in (stack, loaded):
        assert weights_of(model) == pytest.approx({name: weight for name, weight in weights.items() if weight})
        assert is_stack(model) and stacked_head(model).name == "lstm"
    fractions = stack_fractions(loaded, ("rgb", "motion"))
    assert list(fractions) == ["lstm", "chunks of motion", "cosines of rgb", "mean"]
    assert sum(fractions.values()) == pytest.approx(1) and fractions["mean"] == pytest.approx(0.3 / 1.15)


def test_what_has_no_weight_is_not_in_the_graph(parts):
    head, pooling, clips = parts
    _, linear = linear_of(pooling, clips)
    stack = build_stack(head, pooling, linear, {HEAD: 2.0, **dict.fromkeys(NAMES, 0.0)})
    assert stack.count_params() < head.count_params() + 10
    squared = head.predict_on_batch(clips) ** 2
    np.testing.assert_allclose(stack.predict_on_batch(clips), squared / squared.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_head_is_no_stack(parts):
    head = parts[0]
    assert not is_stack(head) and stacked_head(head) is head and stack_fractions(head, ("rgb", "motion")) == {}


@pytest.mark.parametrize(("name", "kept"), [("lstm", [0, 2]), ("gru", [0, 2, 3, 5])])
def test_some_members_are_kept_with_their_predictions(name, kept, parts):
    options = HeadOptions(units=4, members=3)
    head = build_head(name, options, num_features=5, num_labels=3, num_streams=2)
    smaller = with_members(head, HeadOptions(units=4, members=2), kept)
    before, after = (member_predictions_of(model).predict_on_batch(parts[2]) for model in (head, smaller))
    np.testing.assert_allclose(after, before[:, kept], atol=1e-6)
    assert smaller.name == name and smaller.count_params() < head.count_params()
