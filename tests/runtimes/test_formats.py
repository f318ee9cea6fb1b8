import logging
import subprocess
import sys

import keras
import numpy as np
import pytest

from activity.errors import ActivityError
from activity.models.heads import HEADS, MERGE_MODES, HeadOptions, adapt, build_head
from activity.models.stack import HEAD, build_pooling, build_stack
from activity.runtimes.formats import FORMATS, write_graph
from activity.runtimes.loops import with_plain_loops

LENGTHS = np.array([1, 3, 6, 6, 2])  # of the clips, padded to 6 frames


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    mask = np.arange(6) < LENGTHS[:, None]
    return {"features": rng.normal(size=(5, 6, 2, 8)).astype(np.float32), "mask": mask}


def small_head(name, **options):
    options = HeadOptions(units=4, dropout=0.5, **options)
    shape = {"num_features": 8, "num_streams": 2}
    if name != "stack":
        return build_head(name, options, num_labels=3, **shape)
    pooling, rng = build_pooling(**shape), np.random.default_rng(1)
    adapt(pooling, [rng.normal(size=(20, 2, 8)).astype(np.float32)])
    widths = {name: x.shape[-1] for name, x in pooling.output.items()}
    linear = {name: (rng.normal(size=(width, 3)), np.zeros(3)) for name, width in widths.items()}
    return build_stack(small_head("lstm"), pooling, linear, {HEAD: 0.5, **dict.fromkeys(linear, 0.1)})


@pytest.mark.parametrize("name", [*HEADS, "stack"])
def test_openvino_computes_every_head_with_padding(name, clips, tmp_path):
    openvino = pytest.importorskip("openvino")
    head = small_head(name)
    write_graph(with_plain_loops(head, 6), "openvino", tmp_path / "head.xml")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "head.xml", "CPU", settings)
    assert [value.any_name for value in compiled.inputs] == ["features", "mask"] and len(compiled.outputs) == 1
    expected = head.predict_on_batch(clips)
    for batch in (5, 2):
        received = compiled([clips["features"][:batch], clips["mask"][:batch]])[0]
        np.testing.assert_allclose(received, expected[:batch], atol=1e-6)


@pytest.mark.parametrize("name", ["attention", "gru", "chunks", "stack"])
def test_onnx_runtime_computes_a_head_with_padding(name, clips, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    head = small_head(name)
    write_graph(with_plain_loops(head, 6), "onnx", tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    expected = head.predict_on_batch(clips)
    for batch in (5, 2):
        part = {name: values[:batch] for name, values in clips.items()}
        np.testing.assert_allclose(session.run(None, part)[0], expected[:batch], atol=1e-6)


@pytest.mark.parametrize("merge_mode", MERGE_MODES)
def test_plain_loops_change_nothing_in_either_direction(merge_mode, clips):
    head = small_head("bidirectional", merge_mode=merge_mode)
    plain = with_plain_loops(head, 6)
    np.testing.assert_allclose(plain.predict_on_batch(clips), head.predict_on_batch(clips), atol=1e-6)
    assert [weight.path for weight in plain.weights] == [weight.path for weight in head.weights]


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_nothing_is_said_and_loggers_are_left_as_they_were(name, tmp_path, capfd, caplog):
    pytest.importorskip("openvino" if name == "openvino" else "tf2onnx")
    head = build_head("pooled", HeadOptions(units=4, dropout=0.0), num_features=4, num_labels=2)
    with caplog.at_level("INFO", logger="tensorflow"):
        write_graph(with_plain_loops(head, 3), name, tmp_path / f"head{FORMATS[name].suffix}")
        assert logging.getLogger("tensorflow").level == logging.INFO
    said = capfd.readouterr()
    assert said.out == "" and "INFO" not in said.err
    assert not [record for record in caplog.records if record.name.startswith(("tensorflow", "tf2onnx"))]


def test_only_models_on_tensorflow_are_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ActivityError, match="only models on TensorFlow can be exported, here Keras uses jax"):
        write_graph(None, "openvino", tmp_path / "head.xml")


def test_the_tables_need_no_keras():
    program = (
        "import sys; from activity.runtimes import choice, formats; choice.choose('keras'); "
        "print(*sorted({'keras', 'numpy', 'tensorflow', 'openvino', 'onnxruntime'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n", "")
