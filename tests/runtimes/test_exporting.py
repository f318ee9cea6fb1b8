import dataclasses
import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from activity.config import ClipSpec
from activity.datasets.synthetic import draw_frames
from activity.errors import ActivityError, ModelFileError, VideoError
from activity.models.backbones import build_backbone
from activity.models.captioner import ActivityCaptioner, build_encoder
from activity.models.classifier import ActivityClassifier, load_classifier
from activity.models.decoder import Decoder
from activity.models.heads import HEADS, HeadOptions, build_head
from activity.models.info import ModelInfo, read_info
from activity.models.saving import save_model
from activity.models.search import NUM_SPECIAL
from activity.predictor.captioner import Captioner
from activity.predictor.predictor import Predictor
from activity.runtimes import exporting
from activity.runtimes.exporting import export_model
from activity.runtimes.formats import FORMATS
from activity.video.writer import write_video

if keras.backend.backend() != "tensorflow":
    pytest.skip("only models on TensorFlow are exported", allow_module_level=True)

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = {"savedmodel": "saved", "onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite"}
LABELS = ("jump", "sit", "wave")


def needs(format):
    for module in (FORMATS[format].reader, *FORMATS[format].writers):
        pytest.importorskip(module)


def write_model(path, *, head="chunks", streams=("rgb", "motion"), size=32, backbone="small_cnn", members=1):
    keras.utils.set_random_seed(3)
    spec = ClipSpec(num_frames=5, height=size, width=size, streams=streams)
    encoder = build_backbone(backbone, height=size, width=size, weights="none")
    options = HeadOptions(units=6, dropout=0.1, members=members)
    shape = {"num_features": encoder.output_shape[-1], "num_streams": len(streams), "num_labels": len(LABELS)}
    predict_features = build_head(head, options, **shape)
    info = ModelInfo(spec=spec, labels=LABELS, clip_seconds=2.0, window_seconds=1.5, threshold=0.25)
    return save_model(ActivityClassifier(encoder, predict_features, info), path)


def write_captioner(path):
    keras.utils.set_random_seed(3)
    spec, words = ClipSpec(num_frames=5, height=32, width=32, streams=("rgb",)), ("a", "dog", "sits")
    backbone = build_backbone("small_cnn", height=32, width=32, weights="none")
    encoder = build_encoder(HeadOptions(units=6, members=1), num_features=backbone.output_shape[-1], num_streams=1)
    decoder = Decoder(len(words) + NUM_SPECIAL, 8)
    info = ModelInfo(spec=spec, labels=(), words=words, max_words=6, clip_seconds=2.0, window_seconds=1.5)
    model = ActivityCaptioner(backbone, encoder, decoder, info)
    for weight in decoder.weights:  # far from even, so that rounding changes no word
        weight.assign(3 * weight)
    return save_model(model, path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m.keras")


@pytest.fixture(scope="module")
def rgb_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("rgb") / "m.keras", head="gru", streams=("rgb",))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A video of 13 frames, larger than those of the models."""
    path = tmp_path_factory.mktemp("video") / "wave.avi"
    frames = draw_frames("wave", performer=5, take=1, num_frames=13, height=48, width=40)
    write_video(path, frames, frames_per_second=12)
    return path


NOISE_ALONE = {"clips": ()}  # clips of one frame, of half of the frames, of all


@pytest.mark.parametrize("format", ["savedmodel", "openvino"])
def test_a_full_disk_leaves_what_was_there(format, model, rgb_model, tmp_path, monkeypatch):
    needs(format)
    export_model(model, format, tmp_path / NAMES[format], **NOISE_ALONE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    move = shutil.move

    def full(source, target):
        if Path(source).name == NAMES[format]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return move(source, target)

    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(OSError, match="No space left on device"):
        export_model(rgb_model, format, tmp_path / NAMES[format], **NOISE_ALONE)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# === Parity ===

# those that take long are `slow`; the examples below compute a recurrent head in every format
SLOW = [pytest.param(head, marks=pytest.mark.slow) for head in HEADS if head != "chunks"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("head", ["chunks", *SLOW])
def test_every_head_is_the_same_in_every_format(format, head, tmp_path):
    needs(format)
    made = export_model(write_model(tmp_path / "m.keras", head=head), format, tmp_path / NAMES[format], **NOISE_ALONE)
    assert made.difference < 1e-5 and made.clips == {"noise": 3}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("backbone", ["efficientnet_v2_b0", "convnext_tiny"])
def test_difficult_backbones_are_the_same(format, backbone, tmp_path):
    """EfficientNet has constants that TensorFlow hands to its graph, ConvNeXt what Keras leaves to XLA."""
    needs(format)
    path = write_model(tmp_path / "m.keras", backbone=backbone, streams=("rgb",))
    assert export_model(path, format, tmp_path / NAMES[format], **NOISE_ALONE).difference < 1e-5


def test_synthetic_clips_and_noise_are_compared_and_the_line_says_so(model, tmp_path):
    made = export_model(model, "savedmodel", tmp_path / "saved")
    assert made.clips == {"synthetic": 8, "noise": 3}
    line = made.as_text()
    assert (
        line.startswith(f"{tmp_path / 'saved'}: ")
        and "matches Keras on 11 test clips (8 synthetic, 3 noise; largest difference " in line
        and "\n" not in line
    )


def test_given_videos_are_compared(model, video, tmp_path):
    made = export_model(model, "savedmodel", tmp_path / "saved", clips=[video, video])
    assert made.clips == {"of 2 videos": 2} and "on 2 test clips (2 of 2 videos; " in made.as_text()
    with pytest.raises(VideoError):
        export_model(model, "savedmodel", tmp_path / "none", clips=[tmp_path / "none.avi"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p + np.float32(0.002), "its probabilities differ from those of Keras by 2.0e-03"),
        (lambda p: p * np.float32(np.nan), "its probabilities differ from those of Keras by nan"),
    ],
)
def test_one_that_computes_something_else_leaves_nothing_behind(change, message, model, tmp_path, monkeypatch):
    entry = FORMATS["savedmodel"]

    def open_changed(path):
        run = entry.open(path)
        return lambda *clip: (change(run(*clip)[0]),)

    monkeypatch.setitem(FORMATS, "savedmodel", dataclasses.replace(entry, open=open_changed))
    with pytest.raises(ActivityError, match=message):
        export_model(model, "savedmodel", tmp_path / "saved", **NOISE_ALONE)
    assert list(tmp_path.iterdir()) == []


def test_another_label_is_refused_however_small_the_difference(model, tmp_path, monkeypatch):
    even = np.full((1, 3), 1 / 3, np.float32) + np.float32([0, 1e-4, 0])
    monkeypatch.setattr(exporting, "predict", lambda *_: even)
    entry = dataclasses.replace(FORMATS["savedmodel"], open=lambda path: lambda *_: (even[:, ::-1] * [1, 1, 1.001],))
    monkeypatch.setitem(FORMATS, "savedmodel", entry)
    with pytest.raises(ActivityError, match="the export to savedmodel is refused: it gives another label than Keras"):
        export_model(model, "savedmodel", tmp_path / "saved", **NOISE_ALONE)
    assert list(tmp_path.iterdir()) == []


def test_litert_has_builtin_operators_only(rgb_model, tmp_path):
    needs("litert")
    from tensorflow.lite.python import schema_py_generated as schema

    out = tmp_path / "m.tflite"
    export_model(rgb_model, "litert", out, **NOISE_ALONE)
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(out.read_bytes(), 0))
    assert len(graph.operatorCodes) > 10
    for operator in graph.operatorCodes:
        assert operator.customCode is None and operator.builtinCode != schema.BuiltinOperator.CUSTOM


# === Files ===


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_program_must_know_is_beside_it(format, model, tmp_path):
    needs(format)
    out = tmp_path / NAMES[format]
    made = export_model(model, format, out, **NOISE_ALONE)
    note = out / "network.json" if format == "savedmodel" else tmp_path / f"{out.name}.json"
    about, classifier = json.loads(note.read_text(encoding="utf-8")), load_classifier(model)
    assert ClipSpec(**about["spec"]) == classifier.spec and tuple(about["labels"]) == LABELS
    assert (about["clip_seconds"], about["window_seconds"], about["threshold"]) == (2.0, 1.5, 0.25)
    batch = 1 if format == "litert" else None
    assert about["inputs"]["frames"] == {
        "dtype": "uint8",
        "shape": [batch, 5, 2, 32, 32, 3],
        "axes": "batch time streams height width rgb",
    }
    assert about["inputs"]["mask"]["shape"] == [batch, 5] and about["outputs"]["probabilities"]["shape"] == [batch, 3]
    assert list(about["streams"]) == ["rgb", "motion"] and about["format"] == format
    assert set(about["versions"]) == {"activity", "keras", "backend", "runtime"}
    assert made.files[0] == out and set(made.files) == set(tmp_path.iterdir())
    assert made.num_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("format", ["savedmodel", "openvino"])
def test_an_earlier_export_is_replaced(format, model, rgb_model, tmp_path):
    needs(format)
    out = tmp_path / NAMES[format]
    for path in (model, rgb_model):
        files = export_model(path, format, out, **NOISE_ALONE).files
    note = out / "network.json" if format == "savedmodel" else files[-1]
    assert json.loads(note.read_text())["spec"]["streams"] == ["rgb"]
    assert set(files) == set(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "name", "message"),
    [
        ("torch", "m.pt", "format must be one of savedmodel, onnx, openvino, litert, received: torch"),
        ("savedmodel", "m.onnx", "m.onnx: a SavedModel is a folder, whose name must not end in .onnx"),
        ("savedmodel", "folder", "folder: holds something else than a SavedModel of ours; name a new folder"),
        ("savedmodel", "file", "file: holds something else"),
        ("onnx", "m.tflite", "m.tflite: the name of a file for onnx must end in .onnx"),
        ("openvino", "folder.xml", "folder.xml: a folder has this name"),
    ],
)
def test_a_name_it_cannot_have_is_told_before_the_work(format, name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").touch()
    (tmp_path / "folder.xml").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ActivityError, match=message):
        export_model(tmp_path / "none.keras", format, tmp_path / name)


def test_a_missing_package_is_told_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ActivityError, match=r"onnx, tf2onnx must be installed; pip install '\.\[onnx\]' in the project"
    ):
        export_model(tmp_path / "m.keras", "onnx", tmp_path / "m.onnx")


def test_a_model_that_a_format_cannot_express_is_one_line(model, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("No Op\n registered")

    monkeypatch.setattr(exporting, "write_graph", fail)
    with pytest.raises(ActivityError, match="this model cannot be exported to savedmodel: No Op registered"):
        export_model(model, "savedmodel", tmp_path / "saved")
    with pytest.raises(ModelFileError, match="no such model file"):
        export_model(tmp_path / "none.keras", "savedmodel", tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


# === Programs of others ===


def run_without(absent, program, *, cwd):
    """Run a Python program that cannot import some modules."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); "
        "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *program]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run


@pytest.mark.parametrize("format", FORMATS)
def test_an_example_labels_a_video_without_this_package(format, rgb_model, video, tmp_path):
    needs(format)
    export_model(rgb_model, format, tmp_path / NAMES[format], **NOISE_ALONE)
    absent = ["activity", "keras"] + (["tensorflow"] if format != "savedmodel" else [])
    example = shutil.copy(EXAMPLES / f"classify_{format}.py", tmp_path)
    run = run_without(absent, [example, NAMES[format], video], cwd=tmp_path)
    label, probability = run.stdout.split()
    expected = Predictor.load(rgb_model, runtime="keras").predict(video)
    assert label == expected.label and float(probability) == pytest.approx(expected.probability, abs=1e-3)


def test_an_example_describes_a_video_without_this_package(video, tmp_path):
    needs("onnx")
    path = write_captioner(tmp_path / "m.keras")
    export_model(path, "onnx", tmp_path / "m.onnx", **NOISE_ALONE)
    example = shutil.copy(EXAMPLES / "describe_onnx.py", tmp_path)
    run = run_without(["activity", "keras", "tensorflow"], [example, "m.onnx", video], cwd=tmp_path)
    assert run.stdout.strip() == Captioner.load(path, runtime="keras", num_beams=1).describe(video).caption


@pytest.mark.parametrize(
    ("name", "other"),
    [
        *((f"classify_{format}", {"streams": ["rgb", "motion"]}) for format in FORMATS),
        ("describe_onnx", {"streams": ["motion"]}),
        ("describe_onnx", {"frames_per_second": 5.0}),
        ("describe_onnx", {"resize": "crop"}),
    ],
)
def test_an_example_says_which_models_it_is_not_for(name, other, video, tmp_path):
    needs(name.partition("_")[2])
    spec = {"streams": ["rgb"], "frames_per_second": None, "resize": "stretch"} | other
    note = tmp_path / "network.json" if name == "classify_savedmodel" else Path(f"{tmp_path}.json")
    note.write_text(json.dumps({"spec": spec}))
    command = [sys.executable, EXAMPLES / f"{name}.py", tmp_path, video]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and run.stderr.endswith(f"activity.video.sampling.read_stack makes them: {spec}\n")


@pytest.mark.parametrize(("name", "most_lines"), [*((f"classify_{x}", 15) for x in FORMATS), ("describe_onnx", 23)])
def test_an_example_is_short(name, most_lines):
    code = (EXAMPLES / f"{name}.py").read_text().rpartition('"""')[2].splitlines()
    assert len([line for line in code if line and not line.startswith(("import ", "from "))]) <= most_lines


# === Captioners ===


@pytest.mark.parametrize("format", ["savedmodel", "onnx", "openvino"])
def test_a_captioner_is_its_encoder_and_a_step_of_its_decoder(format, caption_model, tmp_path):
    needs(format)
    out, info = tmp_path / NAMES[format], read_info(caption_model, task="describe")
    made = export_model(caption_model, format, out)
    assert made.difference < 1e-5 and made.clips == {"synthetic": 8, "noise": 3}
    assert set(made.files) == set(tmp_path.iterdir())
    step = out / "step" if format == "savedmodel" else tmp_path / f"m.step{out.suffix}"
    assert step.exists()
    note = out / "network.json" if format == "savedmodel" else tmp_path / f"{out.name}.json"
    about = json.loads(note.read_text(encoding="utf-8"))
    num_frames, num_words = info.spec.num_frames, len(info.words) + 3
    assert tuple(about["words"]) == info.words and about["special_words"] == {"padding": 0, "unknown": 1, "end": 2}
    assert about["step"]["file"] == step.name and about["first_word"] == 3
    assert about["step"]["outputs"]["logits"] == {
        "dtype": "float32",
        "shape": [None, None, num_words],
        "axes": "batch sentences words",
    }
    assert about["outputs"]["memory"]["shape"][1] == num_frames and about["outputs"]["hidden"]["axes"] == "batch units"
    assert about["step"]["inputs"]["hidden"]["axes"] == "batch sentences units"


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_step_of_a_captioner_goes_with_the_export_that_is_replaced(format, caption_model, rgb_model, tmp_path):
    needs(format)
    out = tmp_path / NAMES[format]
    (tmp_path / "m.step.txt").touch()  # of somebody else
    export_model(caption_model, format, out, **NOISE_ALONE)
    assert (tmp_path / f"m.step{out.suffix}").exists()
    files = export_model(rgb_model, format, out, **NOISE_ALONE).files
    assert {*files, tmp_path / "m.step.txt"} == set(tmp_path.iterdir())


def test_a_captioner_with_another_step_is_refused(caption_model, ramp_model, tmp_path, monkeypatch):
    entry = FORMATS["savedmodel"]

    def wrong(path):
        graph = entry.open(path)
        if path.name != "step":
            return graph

        def run(*arrays):
            attention, logits, *state = graph(*arrays)
            return attention, logits + np.arange(logits.shape[-1]), *state

        return run

    monkeypatch.setitem(FORMATS, "savedmodel", dataclasses.replace(entry, open=wrong))
    with pytest.raises(ActivityError, match="is refused: its probabilities of words differ from those of Keras by"):
        export_model(caption_model, "savedmodel", tmp_path / "saved", **NOISE_ALONE)
    assert list(tmp_path.iterdir()) == []


def test_a_format_of_single_clips_is_refused_for_a_captioner(caption_model, tmp_path):
    needs("litert")
    expected = "format must be one of savedmodel, onnx, openvino for a captioner, received: litert"
    with pytest.raises(ActivityError, match=expected):
        export_model(caption_model, "litert", tmp_path / "m.tflite")
