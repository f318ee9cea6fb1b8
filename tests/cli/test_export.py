import json

import pytest

from activity.files import note_results


def test_export_prints_how_near_it_is(run, folder, ramp_videos, tmp_path, one_line):
    command = ("export", folder / "model.keras", "--format", "savedmodel", "--out", tmp_path / "saved")
    status, out, err = run(*command, "--check", ramp_videos / "darkens" / "p0_0.avi")
    assert (
        status == 0
        and out.count("\n") == 1
        and "matches Keras on 1 test clips (1 of 1 videos; largest difference " in out
    )
    assert f"wrote {tmp_path / 'saved'}\n" in err
    status, out, err = run(*command[:-1], tmp_path / "m.onnx")
    assert (status, out) == (1, "") and "a SavedModel is a folder" in one_line(err)


@pytest.mark.parametrize(
    "there, out, graph, other",
    [
        (["x.step.onnx", "x.step.onnx.json"], "x.onnx", "x.step.onnx", "x.step.onnx.json"),
        (["x.onnx", "x.onnx.json", "x.step.onnx"], "x.step.onnx", "x.step.onnx", "x.onnx.json"),
    ],
)
def test_a_graph_of_another_model_is_not_replaced(caption_model, run, tmp_path, one_line, there, out, graph, other):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    for name in there:
        (tmp_path / name).write_text("an earlier export")
    note_results(tmp_path / name for name in there)
    status, _, err = run("export", caption_model, "--format", "onnx", "--out", tmp_path / out, "--overwrite")
    assert status == 1 and {path.read_text() for path in tmp_path.glob("x*")} == {"an earlier export"}
    expected = f"{tmp_path / graph}: a graph of another model, that of {other}; choose another name"
    assert expected in one_line(err)


@pytest.fixture
def exported_captioner(tmp_path):
    """Files as an export of a captioner to `x.onnx` leaves them."""
    for name in ("x.onnx", "x.step.onnx"):
        (tmp_path / name).write_text("an earlier export")
    (tmp_path / "x.onnx.json").write_text(json.dumps({"step": {"file": "x.step.onnx"}}))
    note_results(tmp_path / name for name in ("x.onnx", "x.step.onnx", "x.onnx.json"))
    return tmp_path / "x.onnx"


def test_the_step_of_a_captioner_is_removed_where_a_classifier_takes_its_place(folder, run, exported_captioner):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    step = exported_captioner.with_name("x.step.onnx")
    command = ("export", folder / "model.keras", "--format", "onnx", "--out", exported_captioner)
    status, _, err = run(*command)
    assert status == 1 and step.exists()
    status, _, err = run(*command, "--overwrite")
    assert status == 0 and not step.exists() and "step" not in json.loads((step.parent / "x.onnx.json").read_text())
    assert f"removed {step}: it was of the model exported there before\n" in err


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda step: step.write_text("changed by hand"), "exists and is not an exported model of ours"),
        (lambda step: step.with_name("x.step.onnx.json").write_text("{}"), ""),  # it is another model's by now
    ],
)
def test_a_step_that_is_another_thing_by_now_is_not_removed(folder, run, exported_captioner, change, told, one_line):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    step = exported_captioner.with_name("x.step.onnx")
    change(step)
    command = ("export", folder / "model.keras", "--format", "onnx", "--out", exported_captioner, "--overwrite")
    status, _, err = run(*command)
    assert step.exists() and status == bool(told)
    assert "removed" not in err and (not told or f"{step}: {told}" in one_line(err))
