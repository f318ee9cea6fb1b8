import urllib.request

import keras
import numpy as np
import pytest

from activity.errors import ActivityError, ModelFileError
from activity.models.backbones import (
    BACKBONES,
    build_backbone,
    build_identity,
    choose_weights,
    split_at_maps,
    split_backbone,
    weights_dir,
)
from activity.training.stages import unfreeze

LIGHT = ("vgg16", "mobilenet", "mobilenet_v2_035", "small_cnn")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 75, 75, 3), np.uint8)  # the least that inception_v3 takes


@pytest.mark.parametrize(
    "name", [name if name in LIGHT else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_each_backbone_turns_uint8_frames_into_features(name):
    backbone = build_backbone(name, height=75, width=75, weights="none")
    features = backbone.predict_on_batch(IMAGES)
    assert backbone.name == name
    assert features.shape == (2, backbone.output_shape[-1])
    assert np.isfinite(features).all()
    feature_map_model, pooling_model = split_at_maps(backbone)
    maps, same_features = feature_map_model.predict_on_batch(IMAGES)
    assert maps.ndim == 4 and maps.shape[1] == maps.shape[2]
    assert (maps.shape[1] > 1) == (name != "inception_v3")  # for which these images are small
    np.testing.assert_allclose(same_features, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pooling_model.predict_on_batch(maps), features, rtol=1e-4, atol=1e-5)
    assert not [layer for layer in pooling_model.layers if isinstance(layer, keras.layers.Conv2D)]
    nested = [layer for layer in backbone.layers if isinstance(layer, keras.Model)]
    assert len(nested) == (4 if name == "convnext_tiny" else 0)  # flat: "the last N layers" means what it says
    norms = [x for model in nested for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert not norms  # or they would not be found, and not be kept still
    keras.backend.clear_session()


def test_frames_need_not_be_square():
    assert build_backbone("mobilenet_v2_035", height=48, width=80, weights="none").input_shape == (None, 48, 80, 3)


def test_unknown_backbone_is_answered_with_the_names():
    with pytest.raises(ActivityError, match="no backbone 'vgg'; expected one of vgg16, vgg19, mobilenet,"):
        build_backbone("vgg", height=64, width=64)


def test_too_small_frames_are_refused_in_one_line():
    with pytest.raises(ActivityError, match="vgg16 cannot take frames of 16x16: .*at least 32"):
        build_backbone("vgg16", height=16, width=16, weights="none")


def test_small_cnn_has_no_imagenet_weights():
    assert [choose_weights(name, None) for name in ("vgg16", "small_cnn")] == ["imagenet", "none"]
    with pytest.raises(ModelFileError, match="small_cnn has no ImageNet weights"):
        build_backbone("small_cnn", height=32, width=32, weights="imagenet")


def test_weights_from_a_path(tmp_path):
    path = tmp_path / "w.weights.h5"
    first = build_backbone("mobilenet_v2_035", height=32, width=32, weights="none")
    first.save_weights(path)
    second = build_backbone("mobilenet_v2_035", height=32, width=32, weights=str(path))
    images = IMAGES[:, :32, :32]
    np.testing.assert_array_equal(first.predict_on_batch(images), second.predict_on_batch(images))


def test_weights_that_are_missing_or_do_not_fit(tmp_path, cnn_weights):
    with pytest.raises(ModelFileError, match="nowhere.h5: no such weights file; expected a path, imagenet or none"):
        build_backbone("vgg16", height=32, width=32, weights="nowhere.h5")
    with pytest.raises(ModelFileError, match="these weights do not fit vgg16"):
        build_backbone("vgg16", height=32, width=32, weights=str(cnn_weights))
    (tmp_path / "text.h5").write_text("not weights")
    with pytest.raises(ModelFileError, match="text.h5: not a weights file that Keras can read"):
        build_backbone("vgg16", height=32, width=32, weights=str(tmp_path / "text.h5"))


def test_a_failed_download_names_the_file_the_place_and_the_ways_out(monkeypatch):
    if (weights_dir() / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").is_file():
        pytest.skip("the weights are already here")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(ModelFileError) as caught:
        build_backbone("vgg16", height=32, width=32)
    message = str(caught.value)
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in message
    assert str(weights_dir()) in message
    for way_out in ("network", "--weights PATH", "--weights none"):
        assert way_out in message
    assert "\n" not in message


@pytest.mark.real
def test_imagenet_weights_tell_pictures_apart(real_data):
    if not list(weights_dir().glob("mobilenet_v2*0.35_224_no_top.h5")):
        pytest.skip("KERAS_HOME holds no weights of mobilenet_v2_035")
    trained = build_backbone("mobilenet_v2_035", height=224, width=224)
    features = trained.predict_on_batch(np.zeros((1, 224, 224, 3), np.uint8))
    assert features.std() > 0.05  # random weights give nearly equal features


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return build_backbone("mobilenet_v2_035", height=32, width=32, weights="none")


class TestSplitBackbone:
    @pytest.mark.parametrize("num_layers", [1, 4, 7])
    def test_both_parts_give_what_the_whole_gives(self, backbone, num_layers):
        unfreeze(backbone, num_layers)
        below, above = split_backbone(backbone)
        frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
        expected = backbone.predict_on_batch(frames)
        np.testing.assert_allclose(above.predict_on_batch(below.predict_on_batch(frames)), expected, atol=1e-5)
        assert not below.trainable_variables
        assert {v.path for v in above.trainable_variables} == {v.path for v in backbone.trainable_variables}

    def test_more_is_cut_off_when_less_is_taught(self, backbone):
        sizes = []
        for num_layers in (4, 7, 30):
            unfreeze(backbone, num_layers)
            sizes.append(len(split_backbone(backbone)[0].layers))
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3

    def test_a_cut_is_never_inside_a_residual_block(self, backbone):
        unfreeze(backbone, 7)  # the last block and a part of the one before
        below, _ = split_backbone(backbone)
        assert below.layers[-1].name.endswith(("_add", "_project_BN"))

    def test_what_is_taught_whole_is_not_cut(self):
        backbone = build_backbone("small_cnn", height=32, width=32, weights="none")
        assert split_backbone(backbone) == (None, backbone)


def test_given_features_pass_as_they_are(tmp_path):
    identity = build_identity(7)
    identity.save(tmp_path / "identity.keras")
    rows = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    for model in (identity, keras.models.load_model(tmp_path / "identity.keras")):
        np.testing.assert_array_equal(model.predict_on_batch(rows), rows)
    assert identity.output_shape == (None, 7) and not identity.weights
