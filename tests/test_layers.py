import keras
import numpy as np
import pytest

from activity.layers import PREPROCESS_MODES, Preprocess, TimeDistributed


def frames(batch=2, time=3, size=8):
    return np.random.default_rng(0).random((batch, time, size, size, 3), np.float32)


@pytest.fixture
def cnn():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize("time", [3, None], ids=["known length", "free length"])
def test_time_distributed_equals_the_stock_layer(cnn, time):
    inputs = keras.Input((time, 8, 8, 3))
    ours = keras.Model(inputs, TimeDistributed(cnn)(inputs))
    stock = keras.Model(inputs, keras.layers.TimeDistributed(cnn)(inputs))
    assert ours.output_shape == stock.output_shape == (None, time, 4)
    np.testing.assert_allclose(ours.predict_on_batch(frames()), stock.predict_on_batch(frames()), atol=1e-6)


def test_time_distributed_calls_the_layer_once_with_time_folded_into_the_batch():
    shapes = []

    class Spy(keras.layers.Layer):
        def call(self, inputs):
            shapes.append(tuple(inputs.shape))
            return inputs

    outputs = TimeDistributed(Spy())(frames(2, 3))
    assert shapes[-1] == (6, 8, 8, 3)
    assert tuple(outputs.shape) == (2, 3, 8, 8, 3)
    np.testing.assert_array_equal(np.asarray(outputs), frames(2, 3))  # unfolded in the same order


def test_time_distributed_hands_on_whether_it_is_training():
    layer = TimeDistributed(keras.layers.Dropout(0.5))
    still = np.asarray(layer(np.ones((1, 4, 100), np.float32), training=False))
    dropped = np.asarray(layer(np.ones((1, 4, 100), np.float32), training=True))
    assert (still == 1).all()
    assert (dropped == 0).any()


@pytest.mark.parametrize("mode", PREPROCESS_MODES)
def test_preprocess_of_uint8_equals_keras_on_float_arrays(mode):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    expected = images.astype(np.float32)
    if mode != "none":
        expected = keras.applications.imagenet_utils.preprocess_input(expected, "channels_last", mode)
    np.testing.assert_allclose(np.asarray(Preprocess(mode)(images)), expected, atol=1e-5)


def test_preprocess_casts_before_it_subtracts():
    # keras.applications leaves a uint8 tensor uint8, where 100 - 103.9 becomes 253
    grey = np.full((1, 2, 2, 3), 100, np.uint8)
    assert np.asarray(Preprocess("caffe")(grey))[0, 0, 0] == pytest.approx([-3.939, -16.779, -23.68], abs=1e-3)


def test_preprocess_survives_a_model_file(tmp_path):
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    keras.Model(inputs, Preprocess("torch")(inputs)).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[-1].mode == "torch"


def test_preprocess_names_the_modes_it_knows():
    with pytest.raises(ValueError, match="mode must be one of tf, caffe, torch, none, received: pytorch"):
        Preprocess("pytorch")
