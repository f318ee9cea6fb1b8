import keras
import numpy as np
import pytest

from activity.models.layers import (
    PREPROCESS_MODES,
    ChunkMeans,
    HidePadding,
    MaskedMax,
    MaskedSoftmax,
    Preprocess,
    Project,
    ReverseTime,
    TimeDistributed,
)


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


# === Pooling over time ===


def pooled(layer, sequence, num_real):
    mask = np.arange(sequence.shape[1]) < np.asarray(num_real)[:, None]
    return keras.ops.convert_to_numpy(layer(sequence, mask=mask))


def chunk_means(sequence, num_chunks):
    """The definition, frame by frame, of one clip without padding."""
    length = len(sequence) / num_chunks
    weights = [
        [max(0, min(i + 1, (k + 1) * length) - max(i, k * length)) / length for i in range(len(sequence))]
        for k in range(num_chunks)
    ]
    return np.concatenate(np.array(weights) @ sequence)


@pytest.mark.parametrize("num_chunks", [1, 3, 4])
def test_chunk_means_share_the_frames_out_by_time(num_chunks):
    num_real = [1, 2, 3, 4, 5, 7, 8, 11]
    sequence = np.random.default_rng(0).random((len(num_real), 12, 2), np.float32)
    expected = [chunk_means(clip[:n], num_chunks) for clip, n in zip(sequence, num_real, strict=True)]
    np.testing.assert_allclose(pooled(ChunkMeans(num_chunks), sequence, num_real), expected, atol=1e-6)


def test_chunk_means_of_two_frames_and_of_six():
    sequence = np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    assert pooled(ChunkMeans(4), sequence, [2])[0].tolist() == [0, 0, 1, 1]
    # borders at 1.5, 3 and 4.5: frame 1 counts half in the first chunk and half in the second
    expected = [(0 + 1 / 2) / 1.5, (1 / 2 + 2) / 1.5, (3 + 4 / 2) / 1.5, (4 / 2 + 5) / 1.5]
    assert pooled(ChunkMeans(4), sequence, [6])[0] == pytest.approx(expected)


def test_masked_max_sees_real_frames_only():
    sequence = np.array([[[-5, 2], [-3, 1], [9, 9]], [[0, -8], [9, 9], [9, 9]]], np.float32)
    assert pooled(MaskedMax(), sequence, [2, 1]).tolist() == [[-3, 2], [0, -8]]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (MaskedMax, [[2000], [1000]]),
        (lambda **options: ChunkMeans(4, **options), [[1000, 1000, 2000, 2000], [1000] * 4]),
    ],
    ids=["max", "means"],
)
def test_pooling_in_half_precision_neither_overflows_nor_miscounts(layer, expected):
    sequence = np.full((2, 1024, 1), 1000, np.float32)  # a sum in float16 ends at 65504
    sequence[:, 512:] = 2000
    sequence[1, 1:] = -60000
    result = pooled(layer(dtype="float16"), sequence, [1024, 1])
    assert result.dtype == np.float16
    assert result.tolist() == expected


@pytest.mark.parametrize("layer", [MaskedMax(), ChunkMeans(4)], ids=["max", "means"])
def test_a_clip_of_padding_only_gives_numbers(layer):
    assert np.isfinite(pooled(layer, np.ones((1, 3, 2), np.float32), [0])).all()


def test_masked_softmax_shares_1_among_the_real_frames():
    scores = np.array([[0, np.log(3), 99], [-70, 99, 99], [99, 99, 99]], np.float32)
    np.testing.assert_allclose(pooled(MaskedSoftmax(), scores, [2, 1, 0]), [[0.25, 0.75, 0], [1, 0, 0], [0, 0, 0]])


def test_hide_padding_zeroes_padding_only():
    sequence = np.array([[[1, 2], [np.inf, np.nan]]], np.float32)
    assert pooled(HidePadding(), sequence, [1]).tolist() == [[[1, 2], [0, 0]]]


def test_reverse_time_keeps_batch_and_features():
    sequence = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ReverseTime()(sequence)), sequence[:, ::-1])


def test_chunk_means_name_the_number_they_need():
    with pytest.raises(ValueError, match="num_segments must be 1 or more, received: 0"):
        ChunkMeans(0)


@pytest.mark.parametrize("num_streams", [1, 3])
def test_each_stream_is_projected_on_directions_of_its_own(num_streams):
    """In a graph and with many clips, where one stream crashed TensorFlow."""
    layer, rng = Project(4), np.random.default_rng(0)
    features = keras.Input((None, num_streams, 64))
    model = keras.Model(features, layer(features))
    layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    clips = rng.normal(size=(64, 16, num_streams, 64)).astype(np.float32)
    expected = np.einsum("btsd,sdp->btsp", clips, np.asarray(layer.kernel)).reshape(64, 16, -1)
    np.testing.assert_allclose(model.predict_on_batch(clips), expected, rtol=1e-4, atol=1e-4)
