import dataclasses
import json

import pytest

from activity.config import RESIZE_MODES, ClipSpec, TrainConfig, as_dict, recipe_arguments, spec_from_dict
from activity.errors import SettingError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "num_frames must be 1 to 1024, received: 0"),
        ({"num_frames": 1025}, "num_frames must be 1 to 1024, received: 1025"),
        ({"height": 15}, "height must be 16 to 1024 pixels, received: 15"),
        ({"width": 1025}, "width must be 16 to 1024 pixels, received: 1025"),
        ({"frames_per_second": 0}, r"frames_per_second must be none \(evenly\), or above 0 and up to 1000, .*: 0"),
        ({"frames_per_second": float("nan")}, "frames_per_second .* received: nan"),
        ({"frames_per_second": 1000.5}, "frames_per_second .* received: 1000.5"),
        ({"streams": ()}, "streams must be some of rgb,motion,motion_crop, in this order, received: "),
        ({"streams": ("motion", "rgb")}, "in this order, received: motion,rgb"),
        ({"streams": ("flow",)}, "received: flow"),
        ({"resize": "squash"}, "resize must be one of stretch, crop, letterbox, received: squash"),
    ],
)
def test_impossible_clip_specs(fields, message):
    with pytest.raises(SettingError, match=message):
        ClipSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"units": 0}, "units must be 1 or more, received: 0"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"members": 0}, "members must be 1 or more, received: 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"dropout": 1.0}, "dropout must be 0 to below 1, received: 1.0"),
        ({"fine_tune": -1}, "fine_tune must be 0 or more layers, received: -1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, received: 0.0"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 to below 1, received: -0.1"),
        ({"precision": 1.0}, "precision must be above 0 and below 1, received: 1.0"),
        ({"class_weight": "auto"}, "class_weight must be none or balanced, received: auto"),
    ],
)
def test_impossible_train_configs(fields, message):
    with pytest.raises(SettingError, match=message):
        TrainConfig(**fields)


@pytest.mark.parametrize("num_frames", [1, 1024])
@pytest.mark.parametrize("size", [16, 1024])
@pytest.mark.parametrize("rate", [None, 0.01, 1000])
def test_limits_are_allowed(num_frames, size, rate):
    spec = ClipSpec(num_frames=num_frames, height=size, width=size, frames_per_second=rate)
    assert (spec.num_frames, spec.height, spec.width, spec.frames_per_second) == (num_frames, size, size, rate)


@pytest.mark.parametrize("config", [ClipSpec(frames_per_second=12.5, resize=RESIZE_MODES[1]), TrainConfig(head="gru")])
def test_a_config_survives_json_and_cannot_be_changed(config):
    assert type(config)(**json.loads(json.dumps(as_dict(config)))) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.height = 1


def test_clip_spec_reads_as_a_sentence():
    assert str(ClipSpec()) == "16 evenly spaced frames, 224x224 px (stretched), rgb,motion,motion_crop"
    spec = ClipSpec(num_frames=8, height=96, width=128, frames_per_second=12.5, resize="crop", streams=("rgb",))
    assert str(spec) == "8 frames at 12.5 frames/s, 96x128 px (cropped), rgb"


def test_the_old_name_of_a_stream_is_taken_with_a_line(caplog):
    caplog.set_level("INFO")
    spec = ClipSpec(streams=("rgb", "closeup"))
    assert spec == ClipSpec(streams=("rgb", "motion_crop"))
    assert "the stream closeup is now called motion_crop" in caplog.text


def test_a_spec_of_an_earlier_version_is_read_without_a_word(caplog):
    caplog.set_level("INFO")
    old = {**as_dict(ClipSpec()), "streams": ["rgb", "motion", "closeup"]}
    assert spec_from_dict(old) == spec_from_dict(as_dict(ClipSpec())) == ClipSpec()
    assert not caplog.text


def test_a_spec_of_features_reads_as_a_sentence_and_holds_no_other_stream():
    spec = ClipSpec(streams=("features",), num_features=768)
    assert str(spec) == "16 evenly spaced rows of 768 features"
    assert str(dataclasses.replace(spec, frames_per_second=2)) == "16 rows at 2 rows/s of 768 features"
    assert (spec.item_shape, spec.item_dtype) == ((768,), "float32")
    assert spec_from_dict(json.loads(json.dumps(as_dict(spec)))) == spec
    with pytest.raises(SettingError, match="streams must be features, of feature files, received: rgb"):
        ClipSpec(streams=("rgb",), num_features=768)
    with pytest.raises(SettingError, match="streams must be some of rgb"):
        ClipSpec(streams=("features",))
    with pytest.raises(SettingError, match="num_features must be 1 or more"):
        ClipSpec(streams=("features",), num_features=0)


def test_a_spec_of_frames_is_stored_as_before():
    assert "num_features" not in as_dict(ClipSpec())


def test_features_take_the_place_of_a_backbone_and_say_so(caplog):
    config = TrainConfig(features="i3d", backbone="vgg16", weights="imagenet", fine_tune=3, flip=True, epochs=7)
    assert (config.backbone, config.weights, config.fine_tune, config.flip) == ("features", "none", 0, False)
    named = [record.message for record in caplog.records]
    assert named == [f"--{x} does nothing with --features" for x in ("backbone", "weights", "fine-tune", "flip")]
    caplog.clear()
    assert TrainConfig(**json.loads(json.dumps(as_dict(config)))) == config
    assert dataclasses.replace(config, features="clip", weights="none").features == "clip"
    assert not caplog.records
    assert recipe_arguments(config) == ["--features", "i3d", "--epochs", "7"]


def test_a_backbone_of_features_needs_them():
    with pytest.raises(SettingError, match="backbone must be an image model where no `features` are named"):
        TrainConfig(backbone="features")
    with pytest.raises(SettingError, match="features must be a folder of feature files"):
        TrainConfig(features="")
