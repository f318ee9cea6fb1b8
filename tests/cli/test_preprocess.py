import re


def test_preprocess_prints_what_the_data_set_holds(run, folder, ramp_videos):
    status, out, err = run("preprocess", ramp_videos, "--out", folder / "dataset", "--num-frames", 6, "--size", "32x32")
    assert status == 0 and err == ""
    assert re.search(r"^brightens +\d+ +\d+ +\d+$", out, re.MULTILINE)
    assert "32 videos, 8 groups, 6 evenly spaced frames, 32x32 px (stretched)" in out
