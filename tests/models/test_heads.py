from functools import cache

import keras
import numpy as np
import pytest

from activity.errors import ActivityError
from activity.models.heads import (
    FUSE,
    HEADS,
    MERGE_MODES,
    HeadOptions,
    adapt,
    attention_weights,
    build_head,
    carrying,
    member_predictions_of,
    member_predictions_of_prepared,
    prepared,
)
from activity.models.layers import uses_jit

RNG = np.random.default_rng(0)

each_head = pytest.mark.parametrize("name", HEADS)
each_kind = pytest.mark.parametrize("per_frame", [False, True], ids=["clip", "frames"])


@cache
def head(name, *, num_streams=1, per_frame=False, **options):
    options = HeadOptions(units=8, dropout=0.5, **options)
    return build_head(name, options, num_features=5, num_labels=3, num_streams=num_streams, per_frame=per_frame)


def inputs(features, num_real):
    mask = np.arange(features.shape[1]) < np.asarray(num_real)[:, None]
    features = features[:, :, None] if features.ndim == 3 else features  # one stream
    return {"features": features.astype(np.float32), "mask": mask}


def probabilities(model, features, num_real):
    """All tests ask for few shapes, (2, 1 or 3 or 8, 5): each costs every model a compilation."""
    return model.predict_on_batch(inputs(features, num_real))


@each_kind
@each_head
def test_probabilities_sum_to_one_for_any_length(name, per_frame):
    model = head(name, per_frame=per_frame)
    for time in (1, 3, 8):
        result = probabilities(model, RNG.random((2, time, 5)), [time, 1])
        assert result.shape == ((2, time, 3) if per_frame else (2, 3))
        np.testing.assert_allclose(result.sum(axis=-1), 1, atol=1e-6)


@each_kind
@each_head
def test_what_stands_in_padded_frames_never_matters(name, per_frame):
    model = head(name, per_frame=per_frame)
    num_real = [2, 5]
    features = RNG.random((2, 8, 5))
    other = features.copy()
    other[0, 2:], other[1, 5:] = 1e3, -7
    real = inputs(features, num_real)["mask"] if per_frame else slice(None)
    results = [probabilities(model, x, num_real)[real] for x in (features, other)]
    np.testing.assert_array_equal(*results)


@each_kind
@pytest.mark.parametrize("num_real", [1, 3])
@each_head
def test_padding_equals_trimming(name, num_real, per_frame):
    model = head(name, per_frame=per_frame)
    features = RNG.random((2, 8, 5))
    padded = probabilities(model, features, [num_real] * 2)
    trimmed = probabilities(model, features[:, :num_real], [num_real] * 2)
    np.testing.assert_allclose(padded[:, :num_real] if per_frame else padded, trimmed, atol=1e-6)


@each_head
def test_the_order_of_frames_matters_to_all_but_pooled(name):
    features = RNG.random((2, 8, 5))
    results = [probabilities(head(name), x, [8, 8]) for x in (features, features[:, ::-1])]
    difference = np.abs(results[0] - results[1]).max()
    assert difference < 1e-6 if name == "pooled" else difference > 1e-4


@each_kind
@each_head
def test_a_saved_head_gives_the_same_again(name, per_frame, tmp_path):
    model = head(name, per_frame=per_frame)
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras", safe_mode=True)
    batch = inputs(RNG.random((2, 8, 5)), [6, 2])
    np.testing.assert_array_equal(model.predict_on_batch(batch), loaded.predict_on_batch(batch))


@each_head
def test_half_precision_stays_close(name):
    model = head(name)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = build_head(name, HeadOptions(units=8, dropout=0.5), num_features=5, num_labels=3)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    features = RNG.random((2, 8, 5))
    np.testing.assert_allclose(probabilities(half, features, [6, 2]), probabilities(model, features, [6, 2]), atol=5e-3)


@each_head
def test_a_head_can_learn(name):
    model = build_head(name, HeadOptions(units=8, dropout=0.0), num_features=2, num_labels=2)
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", jit_compile=uses_jit())
    label_ids = np.arange(16) % 2
    features = RNG.normal(size=(16, 5, 2))
    features[:, :, 0] = np.abs(features[:, :, 0]) * np.where(label_ids, 1, -1)[:, None]
    batch = inputs(features, [5, 4, 3, 1] * 4)
    losses = [float(model.train_on_batch(batch, label_ids)) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]


# === Single heads ===


def test_backward_reads_what_lstm_plain_reads_of_the_reversed_clip():
    features = RNG.random((2, 8, 5))
    reversed_features = features.copy()
    reversed_features[:, :6] = features[:, 5::-1]  # 6 of the 8 frames are real
    for per_frame in (False, True):
        backward, forward = (head(name, per_frame=per_frame) for name in ("backward", "lstm_plain"))
        backward.set_weights(forward.get_weights())
        result = probabilities(backward, features, [6, 6])
        expected = probabilities(forward, reversed_features, [6, 6])
        if per_frame:  # each answer is at its own frame
            result, expected = result[:, :6], expected[:, 5::-1]
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_backward_knows_the_future_and_lstm_plain_the_past():
    features = np.repeat(RNG.random((1, 8, 5)), 2, axis=0)
    features[1, 3, 0] += 1
    for name, changed in (("lstm_plain", [3, 4, 5]), ("backward", [0, 1, 2, 3]), ("bidirectional", [0, 1, 2, 3, 4, 5])):
        result = probabilities(head(name, per_frame=True), features, [6, 6])[:, :6]
        difference = np.abs(result[0] - result[1]).max(axis=1)
        assert np.flatnonzero(difference > 1e-6).tolist() == changed


@pytest.mark.parametrize("layers", [1, 3])
def test_stacked_has_as_many_layers_as_asked_for(layers):
    kinds = [type(layer) for layer in head("stacked", layers=layers).layers]
    assert kinds.count(keras.layers.LSTM) == layers


@pytest.mark.parametrize("merge_mode", MERGE_MODES)
@pytest.mark.parametrize("name", ["bidirectional", "attention"])
def test_merge_modes_have_their_width_and_stay_blind_to_padding(name, merge_mode):
    model = head(name, merge_mode=merge_mode)
    [merged] = [layer for layer in model.layers if isinstance(layer, keras.layers.Bidirectional)]
    assert merged.output.shape == (None, None, 16 if merge_mode == "concat" else 8)
    features = RNG.random((2, 8, 5))
    results = [probabilities(model, x, [3, 3]) for x in (features, features[:, :3])]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_attention_weights_share_1_among_the_real_frames():
    batch = inputs(RNG.random((2, 8, 5)), [8, 3])
    mask = batch["mask"]
    weights = attention_weights(head("attention"), **batch)
    assert weights.shape == (2, 8) and weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert (weights[mask] > 0).all() and (weights[~mask] == 0).all()


def test_attention_weights_lie_where_the_scores_are_high():
    model = head("attention")
    batch = inputs(RNG.random((2, 8, 5)), [8, 8])
    scoring = next(layer for layer in model.layers if layer.output.shape == (None, None, 1))
    scores = keras.Model(model.input, scoring.output).predict_on_batch(batch)[..., 0]
    weights = attention_weights(model, **batch)
    np.testing.assert_allclose(weights, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("options", [{"name": "lstm"}, {"name": "attention", "per_frame": True}])
def test_a_head_without_attention_has_no_attention_weights(options):
    with pytest.raises(ActivityError, match=f"need a head 'attention' for whole clips, received: '{options['name']}'"):
        attention_weights(head(**options), np.zeros((1, 2, 1, 5)), np.ones((1, 2), bool))


def test_a_single_feature_is_not_normalised_away():
    model = build_head("lstm_plain", HeadOptions(units=8, dropout=0.0), num_features=1, num_labels=3)
    results = [probabilities(model, np.full((2, 3, 1), value), [3, 3]) for value in (0.2, 0.8)]
    assert np.abs(results[0] - results[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpt", {}, "no head 'gpt'; expected one of lstm, lstm_forward, lstm_plain, backward"),
        ("stacked", {"layers": 0}, "layers must be 1 or more, received: 0"),
        ("bidirectional", {"merge_mode": None}, "merge_mode must be one of concat, sum, mul, ave, received: None"),
    ],
)
def test_what_cannot_be_built_is_answered_with_what_can(name, options, message):
    with pytest.raises(ActivityError, match=message):
        head(name, **options)


class TestStreamsAndMembers:
    def test_each_stream_has_members_of_its_own(self):
        model = build_head(
            "lstm_plain", HeadOptions(units=8, dropout=0.0, members=3), num_features=5, num_labels=3, num_streams=2
        )
        member_predictions = member_predictions_of(model)
        batch = inputs(RNG.random((4, 6, 2, 5)), [6, 6, 2, 1])
        before = member_predictions.predict_on_batch(batch)
        assert before.shape == (4, 6, 3)
        batch["features"][:, :, 1] += 1
        changed = np.abs(member_predictions.predict_on_batch(batch) - before).max(axis=(0, 2)) > 1e-6
        assert changed.tolist() == [False, False, False, True, True, True]

    def test_the_answer_is_the_geometric_mean_at_a_temperature(self):
        model = build_head("pooled", HeadOptions(units=8, dropout=0.0, members=2), num_features=5, num_labels=3)
        batch = inputs(RNG.random((4, 6, 5)), [6, 6, 2, 1])
        member_predictions = member_predictions_of(model).predict_on_batch(batch)
        for temperature in (1.0, 3.0):
            model.get_layer(FUSE).temperature.assign(temperature)
            expected = member_predictions.prod(axis=1) ** (0.5 / temperature)
            expected /= expected.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(model.predict_on_batch(batch), expected, atol=1e-5)

    def test_standardized_features_have_mean_0_and_deviation_1_over_the_real_frames(self):
        model = build_head("pooled", HeadOptions(units=8, dropout=0.0), num_features=5, num_labels=3)
        stacks = [RNG.gamma(1.0, size=(n, 1, 5)).astype(np.float32) * [1, 2, 3, 4, 5] for n in (30, 50)]
        adapt(model, stacks)
        reader = keras.Model(model.input, model.get_layer("standardize").output)
        standard = np.concatenate([reader.predict_on_batch(inputs(s[None], [len(s)]))[0] for s in stacks])
        np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(standard.std(axis=0), 1, atol=1e-4)

    def test_before_it_has_seen_features_nothing_is_changed(self):
        model = build_head("pooled", HeadOptions(units=8, dropout=0.0), num_features=5, num_labels=3)
        batch = inputs(RNG.normal(size=(2, 6, 5)), [6, 6])
        reader = keras.Model(model.input, model.get_layer("standardize").output)
        np.testing.assert_array_equal(reader.predict_on_batch(batch), batch["features"])


@each_head
def test_features_standardized_beforehand_teach_the_same_head(name, tmp_path):
    model = build_head(name, HeadOptions(units=8, dropout=0.5, members=2), num_features=5, num_labels=3, num_streams=2)
    features = RNG.random((2, 8, 2, 5)).astype(np.float32)
    adapt(model, features)
    whole, upper = member_predictions_of(model), member_predictions_of_prepared(model)
    same = [a is b for a, b in zip(whole.trainable_variables, upper.trainable_variables, strict=True)]
    assert same and all(same)
    stacked = np.stack(list(prepared(model, features)))
    beforehand = {"features": stacked, "mask": inputs(features, [8, 3])["mask"]}
    for of_whole in (whole, upper, model):
        of_whole.jit_compile = uses_jit()
    expected = whole.predict_on_batch(inputs(features, [8, 3]))
    np.testing.assert_allclose(upper.predict_on_batch(beforehand), expected, atol=1e-5)
    model.save(tmp_path / "head.keras")  # it can still be saved


def test_the_graph_that_carries_a_state_is_built_once_and_has_the_weights_of_now():
    first, second = (
        build_head("lstm_forward", HeadOptions(units=4, members=2), num_features=5, num_labels=3, per_frame=True)
        for _ in range(2)
    )
    features, zeros = RNG.normal(size=(1, 6, 5)), np.zeros((1, 8), np.float32)

    def carried(head):
        return carrying(head).predict_on_batch({**inputs(features, [6]), "hidden": zeros, "cell": zeros})

    for model in (first, second):
        np.testing.assert_allclose(carried(model)["probabilities"], probabilities(model, features, [6]), atol=1e-6)
    graph = carrying(first)
    first.get_layer(FUSE).temperature.assign(3.0)
    assert carrying(first) is graph and carrying(second) is not graph
    np.testing.assert_allclose(carried(first)["probabilities"], probabilities(first, features, [6]), atol=1e-6)
