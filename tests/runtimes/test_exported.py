import dataclasses
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from activity.errors import ActivityError, ModelFileError
from activity.models.backbones import build_backbone
from activity.models.classifier import ActivityClassifier, load_classifier
from activity.models.saving import save_model
from activity.predictor.captioner import Captioner
from activity.predictor.predictor import Predictor
from activity.runtimes import choice, exported
from activity.runtimes.choice import choose
from activity.runtimes.exported import ExportedCaptioner, ExportedModel, load_inference_model, open_extractor
from activity.runtimes.features import _cache_dirs, extract_features
from activity.runtimes.formats import FORMATS

HERE = [name for name, package in (("openvino", "openvino"), ("onnx", "tf2onnx")) if importlib.util.find_spec(package)]
needs_openvino = pytest.mark.skipif("openvino" not in HERE, reason="openvino is not installed")


@pytest.fixture(scope="module", params=HERE)
def exported_model(request, ramp_model, tmp_path_factory):
    """A runtime and a model file with its exported model beside it."""
    model = tmp_path_factory.mktemp(request.param) / "ramps.keras"
    shutil.copy(ramp_model, model)
    load_inference_model(model, runtime=request.param)
    return request.param, model


@pytest.fixture
def openvino_model(ramp_model, tmp_path):
    """A model file that nothing was exported of."""
    return shutil.copy(ramp_model, tmp_path / "ramps.keras")


@pytest.fixture
def log(caplog):
    choice.tell_once.cache_clear()
    caplog.set_level(logging.INFO, logger="activity.runtimes")
    return caplog


def about(model):
    return json.loads((model.parent / "ramps.exported" / "openvino" / "network.json").read_text())


# === Captioners ===


@pytest.mark.parametrize("runtime", HERE)
def test_every_runtime_writes_the_sentences_of_keras(runtime, caption_model, ramp_videos, tmp_path, log):
    path = shutil.copy(caption_model, tmp_path / "captioner.keras")
    videos = sorted(ramp_videos.glob("*/*.avi"))[:3]
    expected = Captioner.load(path, runtime="keras")
    for num_beams in (1, 4):  # the search is outside of the graphs, so one export serves both
        captioner = Captioner.load(path, runtime=runtime, num_beams=num_beams)
        assert (
            isinstance(captioner.model, ExportedCaptioner) and captioner.model.info.words == expected.model.info.words
        )
    assert log.text.count("exporting for") == 1
    for one, other in zip(captioner.describe_many(videos), expected.describe_many(videos), strict=True):
        assert one.caption == other.caption
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        np.testing.assert_allclose(one.sentences[0].attention, other.sentences[0].attention, atol=1e-4)
    drawn = {"temperature": 1.3, "seed": 3}
    one, other = (Captioner.load(path, runtime=name, **drawn) for name in (runtime, "keras"))
    assert [x.text for x in one.generate(5)] == [x.text for x in other.generate(5)]


@pytest.mark.parametrize("runtime", HERE)
def test_describe_starts_without_keras_once_it_is_exported(runtime, caption_model, ramp_videos, tmp_path):
    path = shutil.copy(caption_model, tmp_path / "captioner.keras")
    words = ["describe", str(path), str(next(ramp_videos.glob("*/*.avi"))), "--runtime", runtime]
    program = (
        f"import sys; from activity.cli.main import main; status = main({words!r}); "
        "print(status, *sorted({'keras', 'tensorflow', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120) for _ in range(2)
    )
    assert first.stdout.splitlines()[-1].startswith("0 keras"), first.stdout + first.stderr
    assert second.stdout.splitlines()[-1] == "0", second.stdout + second.stderr
    assert second.stdout.splitlines()[0] == first.stdout.splitlines()[0]


def test_a_model_of_another_task_is_named(caption_model, ramp_model):
    with pytest.raises(ModelFileError, match="activity describe"):
        load_inference_model(caption_model)
    with pytest.raises(ModelFileError, match="activity classify"):
        load_inference_model(ramp_model, task="describe")


# === Exported networks ===


def test_every_runtime_gives_the_probabilities_of_keras(exported_model, ramp_videos, log):
    runtime, model_path = exported_model
    videos = sorted(ramp_videos.glob("*/*.avi"))[::5]
    model = load_inference_model(model_path, runtime=runtime)
    assert isinstance(model, ExportedModel)
    assert (
        f"predicting with {choice._NAMES[runtime]} (CPU, " in log.text
        and "float32" in log.text
        and "exporting" not in log.text
    )
    keras = load_inference_model(model_path, runtime="keras")
    for name in ("spec", "labels", "clip_seconds", "threshold"):
        assert getattr(model, name) == getattr(keras, name)
    for one, other in zip(Predictor(model).predict_many(videos), Predictor(keras).predict_many(videos), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_neither_keras_nor_other_heavy_libraries_are_imported(exported_model, ramp_videos):
    runtime, model = exported_model
    video = next(ramp_videos.glob("darkens/*.avi"))
    heavy = {"keras", "tensorflow", "sklearn", "matplotlib", "h5py", "scipy"}
    program = (
        f"import sys; from activity.cli.main import main; status = main({['classify', str(model), str(video)]!r} "
        f"+ ['--runtime', {runtime!r}]); print(status, *sorted({heavy} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "0", run.stdout + run.stderr


@needs_openvino
class TestExportedFolder:
    def test_it_follows_the_model_file(self, openvino_model, log):
        load_inference_model(openvino_model, runtime="openvino")
        source = about(openvino_model)["source"]
        other = load_classifier(openvino_model)
        other.info = dataclasses.replace(other.info, threshold=0.75)
        save_model(other, openvino_model)
        assert load_inference_model(openvino_model, runtime="openvino").threshold == 0.75
        assert about(openvino_model)["source"] != source
        assert log.text.count("exporting for openvino, once") == 2
        assert sorted(path.name for path in (openvino_model.parent / "ramps.exported").iterdir()) == ["openvino"]

    def test_it_is_made_again_when_damaged(self, openvino_model, log):
        """Also where a damaged file would still be read, and compute something else."""
        load_inference_model(openvino_model, runtime="openvino")
        folder = openvino_model.parent / "ramps.exported" / "openvino"
        whole = {path.name: path.read_bytes() for path in folder.iterdir()}
        damages = [
            ("head.xml", b"nonsense"),
            ("backbone.bin", bytes(len(whole["backbone.bin"]))),
            ("network.json", whole["network.json"].replace(b'"threshold": 0.0', b'"threshold": 0.9')),
            ("network.json", b"[]"),
            ("head.bin", None),
            ("digests.txt", None),
        ]
        for number, (name, content) in enumerate(damages, start=1):
            log.clear()
            assert content != whole[name]
            (folder / name).write_bytes(content) if content is not None else (folder / name).unlink()
            model = load_inference_model(openvino_model, runtime="openvino")
            assert isinstance(model, ExportedModel) and model.threshold == 0
            assert f"{folder}: damaged: its content is not what was written; it is made again" in log.text, name
            assert "exporting for openvino, once" in log.text
            assert {path.name for path in folder.iterdir()} == set(whole), number

    def test_the_graphs_of_another_model_are_not_used(self, openvino_model, ramp_videos, log, tmp_path):
        shutil.copy(openvino_model, tmp_path / "other.keras")
        other = load_classifier(tmp_path / "other.keras")
        for weight in other.head.trainable_weights:
            weight.assign(-weight)
        save_model(other, tmp_path / "other.keras")
        expected = Predictor.load(openvino_model, runtime="openvino").predict(next(ramp_videos.glob("darkens/*.avi")))
        load_inference_model(tmp_path / "other.keras", runtime="openvino")
        for part in ("head.xml", "head.bin"):
            shutil.copy(
                tmp_path / "other.exported" / "openvino" / part, tmp_path / "ramps.exported" / "openvino" / part
            )
        again = Predictor.load(openvino_model, runtime="openvino").predict(next(ramp_videos.glob("darkens/*.avi")))
        np.testing.assert_array_equal(again.probabilities, expected.probabilities)
        assert log.text.count("it is made again") == 1

    @pytest.mark.parametrize("name", ["ramps.exported", "ramps.exported/openvino"])
    def test_where_a_file_has_its_name_it_serves_this_run(self, openvino_model, ramp_videos, log, name):
        file = openvino_model.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
        predictor = Predictor.load(openvino_model, runtime="openvino")
        reason = "cannot be written (a file has this name; expected a folder, or a new name for one)"
        assert f"{file}: {reason}, so the export is for this run only" in log.text and "damaged" not in log.text
        assert file.read_text() == "mine"
        assert predictor.predict(next(ramp_videos.glob("darkens/*.avi"))).label == "darkens"

    def test_one_that_computes_something_else_is_refused(self, openvino_model, monkeypatch, log):
        entry = FORMATS["openvino"]
        monkeypatch.setitem(
            FORMATS,
            "openvino",
            dataclasses.replace(entry, open=lambda path: lambda *arrays: (entry.open(path)(*arrays)[0] * 1.1,)),
        )
        with pytest.raises(ActivityError, match="openvino cannot compute .* features differ from those of Keras"):
            load_inference_model(openvino_model, runtime="openvino")
        assert isinstance(load_inference_model(openvino_model, runtime="auto"), ActivityClassifier)
        assert "openvino is not used: its features differ" in log.text and "with Keras" in log.text
        assert not (openvino_model.parent / "ramps.exported").exists()

    def test_bfloat16_is_near_and_is_asked_for(self, openvino_model, ramp_videos):
        try:
            rough = Predictor.load(openvino_model, runtime="openvino-bf16")
        except ActivityError as error:
            if "this CPU does not compute in bfloat16" not in str(error):
                raise
            pytest.skip("this CPU does not compute in bfloat16")
        exact = Predictor.load(openvino_model, runtime="openvino")
        videos = sorted(ramp_videos.glob("*/p0_*.avi"))
        pairs = list(zip(rough.predict_many(videos), exact.predict_many(videos), strict=True))
        assert all(one.label == other.label for one, other in pairs)
        assert any((one.probabilities != other.probabilities).any() for one, other in pairs)


def test_a_file_that_is_no_model_is_told_as_ever(tmp_path):
    with pytest.raises(ModelFileError, match="none.keras: no such model file"):
        load_inference_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ModelFileError, match="not a model file, or cut off"):
        load_inference_model(tmp_path / "text.keras")


# === Choice ===


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [
        ({"openvino", "onnxruntime"}, False, "openvino"),
        ({"onnxruntime"}, False, "onnx"),
        ({}, False, "keras"),
        ({"openvino"}, True, "keras"),
    ],
)
def test_auto_takes_what_is_there(installed, gpu, expected, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(choice, "has_gpu", lambda: gpu)
    assert choose("auto") == expected


def test_what_cannot_be_had_by_name_is_an_error(monkeypatch):
    with pytest.raises(ActivityError, match="runtime must be one of auto, keras, .*, received: torch"):
        choose("torch")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ActivityError, match="onnx needs onnxruntime, which is not installed; pip install onnxruntime"):
        choose("onnx")


@needs_openvino
def test_a_cpu_without_bfloat16_says_so(monkeypatch):
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda self, *names: ["FP32"])
    with pytest.raises(ActivityError, match="this CPU does not compute in bfloat16"):
        choose("openvino-bf16")


def test_without_an_exporter_keras_computes(openvino_model, monkeypatch, log):
    monkeypatch.setattr(choice, "has_gpu", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "onnxruntime" else None)
    with pytest.raises(ActivityError, match="onnx cannot compute this model: to export to onnx, tf2onnx must be"):
        load_inference_model(openvino_model, runtime="onnx")
    monkeypatch.setattr(exported, "check_writable", lambda name: 1 / 0)
    assert isinstance(load_inference_model(openvino_model), ActivityClassifier)
    assert "onnx is not used: division by zero" in log.text and "with Keras" in log.text


# === Features ===


@needs_openvino
def test_features_by_openvino_share_the_cache_with_keras_but_not_in_bfloat16(ramp_dataset, log, tmp_path):
    backbone = build_backbone("small_cnn", height=32, width=32, weights="none")
    shutil.copytree(ramp_dataset.dataset_dir, tmp_path, ignore=lambda *_: ["features"], dirs_exist_ok=True)
    dataset = dataclasses.replace(ramp_dataset, dataset_dir=tmp_path)
    expected, received = (
        extract_features(dataset, dataset.samples[:3], backbone, keep=False, runtime=runtime)
        for runtime in ("keras", "openvino")
    )
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert log.text.count("exporting for openvino") == 1  # for both streams
    assert not (tmp_path / "features").exists()
    exact, rough = (_cache_dirs(dataset, backbone, runtime) for runtime in ("openvino", "openvino-bf16"))
    assert exact == _cache_dirs(dataset, backbone, "keras") and not set(exact.values()) & set(rough.values())


def test_a_few_images_are_not_worth_an_export(log, tmp_path):
    backbone = build_backbone("small_cnn", height=40, width=40, weights="none")
    extract_features = open_extractor(backbone, "auto", num_images=8, cache_dir=tmp_path)
    assert extract_features(np.zeros((8, 40, 40, 3), np.uint8)).shape == (8, 128)
    assert "with Keras" in log.text and not list(tmp_path.iterdir())


def test_an_export_does_not_replace_a_folder_that_holds_something_else(ramp_model, tmp_path, caplog):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model = Path(shutil.copy(ramp_model, tmp_path / "m.keras"))
    mine = tmp_path / "m.exported" / "openvino" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("of the user")
    assert load_inference_model(model, runtime="openvino").labels
    assert mine.read_text() == "of the user" and [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
    assert "it holds mine.txt, which is not of an export" in caplog.text
