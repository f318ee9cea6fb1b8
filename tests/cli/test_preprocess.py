import re


def test_the_traces_of_a_run_that_was_killed_at_once_are_no_obstacle(run, ramp_videos, tmp_path):
    for name in (".lock", "digests.txt", ".tmp-1-dataset.json"):
        (tmp_path / name).touch()
    assert run("preprocess", ramp_videos, "--out", tmp_path, "--num-frames", 2, "--size", "16", "--workers", 1)[0] == 0
    assert not list(tmp_path.glob(".*"))


def test_preprocess_prints_what_the_data_set_holds(run, folder, ramp_videos):
    status, out, err = run("preprocess", ramp_videos, "--out", folder / "dataset", "--num-frames", 6, "--size", "32x32")
    assert status == 0 and err == ""
    assert re.search(r"^brightens +\d+ +\d+ +\d+$", out, re.MULTILINE)
    assert "32 videos, 8 groups, 6 evenly spaced frames, 32x32 px (stretched)" in out
