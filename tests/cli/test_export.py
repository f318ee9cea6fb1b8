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
