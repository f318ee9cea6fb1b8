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
