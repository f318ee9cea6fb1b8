"""What is put into a public table can be used from the command line, with no other file touched."""

import dataclasses
import json

import keras
import pytest

from activity.cli.main import main
from activity.models.backbones import BACKBONES, Backbone
from activity.models.classifier import load_classifier
from activity.models.heads import HEADS, Head
from activity.reports.timeline import TIMELINE_FORMATS
from activity.runtimes.formats import FORMATS, Format

RECIPE = ("--backbone", "small_cnn", "--weights", "none", "--head", "pooled", "--members", "1", "--epochs", "1")


def brightness(frames, weights):
    """A backbone that sees how bright each channel of a frame is."""
    return keras.Model(frames, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(frames)))


def newest(x, mask, options):
    """A head that reads the last frame."""
    return x, x[:, -1]


def train_and_classify(folder, videos, out, *options):
    """The model that a recipe makes of the ramps, after it has labelled one of them."""
    assert main(["train", str(folder / "dataset"), "--out", str(out), *RECIPE, *options]) == 0
    assert main(["classify", str(out), str(videos / "darkens" / "p0_0.avi"), "--runtime", "keras"]) == 0
    return load_classifier(out)


def test_a_backbone(folder, ramp_videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(BACKBONES, "brightness", Backbone(brightness))
    model = train_and_classify(folder, ramp_videos, tmp_path / "m.keras", "--backbone", "brightness")
    assert model.backbone.name == "brightness" and model.backbone.output_shape == (None, 3)
    assert "darkens" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["train", "dataset", "--out", "m.keras", "--backbone", "brigthness"])
    assert "did you mean 'brightness'?" in capsys.readouterr().err


def test_a_head(folder, ramp_videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(HEADS, "newest", Head(newest))
    model = train_and_classify(folder, ramp_videos, tmp_path / "m.keras", "--head", "newest")
    assert model.head.name == "newest" and "darkens" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    assert "newest" in capsys.readouterr().out


def test_a_timeline_format(folder, ramp_videos, tmp_path, monkeypatch):
    def write_labels(prediction, path, top_k):
        path.write_text("\n".join(segment.label for segment in prediction.timeline.segments))

    monkeypatch.setitem(TIMELINE_FORMATS, "labels", write_labels)
    video = ramp_videos / "darkens" / "p0_0.avi"
    assert main(["classify", str(folder / "model.keras"), str(video), "--out", str(tmp_path)]) == 0
    assert set((tmp_path / "p0_0.labels").read_text().split()) <= {"brightens", "darkens"}
    assert (tmp_path / "p0_0.json").is_file()


def test_an_export_format(folder, tmp_path, monkeypatch, capsys):
    """Its file holds nothing, but is opened as the model that was written."""
    written = {}

    def write(model, path):
        path.touch()
        written[path] = model

    def open_written(path):
        return lambda frames, mask: (written[path].predict_on_batch({"frames": frames, "mask": mask})["probabilities"],)

    monkeypatch.setitem(FORMATS, "toy", Format(".toy", "keras", write, open_written))
    command = ["export", str(folder / "model.keras"), "--format", "toy", "--out"]
    assert main([*command, str(tmp_path / "m.toy")]) == 0
    assert "matches Keras on 11 test clips" in capsys.readouterr().out
    assert json.loads((tmp_path / "m.toy.json").read_text())["versions"]["runtime"] == f"keras {keras.__version__}"
    assert main([*command, str(tmp_path / "m.onnx")]) == 1
    assert "the name of a file for toy must end in .toy" in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_the_nearest_in_python_too(ramp_dataset, frozen_config, tmp_path):
    from activity.errors import ActivityError
    from activity.training.trainer import train

    for name, near in {"backbone": "small_cnn", "head": "pooled"}.items():
        config = dataclasses.replace(frozen_config, **{name: f"{near}s"})
        with pytest.raises(ActivityError, match=f"did you mean '{near}'"):
            train(ramp_dataset, config, work_dir=tmp_path)
