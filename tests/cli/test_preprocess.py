import re
import sys

import numpy as np
import pytest

from activity.files import read_csv
from activity.video.writer import write_video


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


def test_an_address_without_a_cluster_is_wrong_usage(run, tmp_path):
    status, _, err = run("preprocess", tmp_path, "--out", tmp_path / "dataset", "--address", "auto")
    assert status == 2 and err.endswith("error: --address is of a Ray cluster: it goes with --executor ray\n")


def test_ray_that_is_not_installed_is_told(run, ramp_videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = run("preprocess", ramp_videos, "--out", tmp_path / "dataset", "--executor", "ray")
    expected = "activity: the executor ray needs Ray; pip install '.[ray]' in the project's folder brings it\n"
    assert (status, err) == (1, expected) and not (tmp_path / "dataset").exists()


SIZE = ("--num-frames", 2, "--size", "16", "--workers", 1)


@pytest.fixture
def films(tmp_path):
    """A folder of two films of 4 seconds, at 10 frames a second."""
    for seed, name in enumerate(("anna.avi", "ben.avi")):
        frames = np.random.default_rng(seed).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
        (tmp_path / "films").mkdir(exist_ok=True)
        write_video(tmp_path / "films" / name, frames, frames_per_second=10)
    return tmp_path / "films"


LABELS = ["video,label,start,end,camera", "anna.avi,run,0,1.5,left", "anna.avi,walk,1.5,3,left"]
LABELS += ["D:\\films\\ben.avi,run,0:01,0:02,right", "ben.avi,walk,2,4,right"]


def manifest_of(dataset):
    columns = "path label start_seconds end_seconds num_frames camera".split()
    return [[row[column] for column in columns] for row in read_csv(dataset / "manifest.csv")]


def test_labels_of_another_tool_give_the_data_set_of_a_manifest_by_hand(run, films, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(LABELS))
    status, out, err = run("preprocess", films, "--out", tmp_path / "by_labels", "--labels", labels, *SIZE)
    assert status == 0 and "4 segments of 2 videos" in out
    assert f"{labels}: 4 rows of Create ML (CSV or JSON)" in err and "ERROR" not in err
    by_hand = [line.replace("D:\\films\\", "").replace("0:0", "") for line in LABELS]
    by_hand[0] = "path,label,start_seconds,end_seconds,camera"
    (films / "manifest.csv").write_text("\n".join(by_hand))
    assert run("preprocess", films, "--out", tmp_path / "by_hand", *SIZE)[0] == 0
    assert manifest_of(tmp_path / "by_labels") == manifest_of(tmp_path / "by_hand")
    stacks = [
        {x.name: x.read_bytes() for x in (tmp_path / name / "frames").glob("*.npy")}
        for name in ("by_labels", "by_hand")
    ]
    assert stacks[0] == stacks[1] and len(stacks[0]) == 4


def test_rows_that_cannot_be_read_are_an_error_after_the_others(run, films, tmp_path):
    labels, dataset = tmp_path / "labels.csv", tmp_path / "dataset"
    labels.write_text("\n".join([*LABELS, "ben.avi,run,3,2,", "unknown_person.mp4,run,1,2,", "ben.avi,run,3,5,"]))
    (films / "manifest.csv").write_text("path,label\nben.avi,sit\n")
    status, out, err = run("preprocess", films, "--out", dataset, "--labels", labels, *SIZE)
    assert status == 1 and "5 segments of 2 videos" in out
    lines = err.splitlines()
    assert f"{films / 'manifest.csv'} is not read: the labels are those of --labels" in lines
    assert f"ERROR {labels}: row 6: end before start: 3 to 2" in lines
    assert f"ERROR {labels}: row 7: there is no film unknown_person.mp4 in {films}" in lines
    assert f"WARNING {labels}: row 8: ends at 5 s, beyond the film's end at 4.00 s; it is cut there" in lines
    assert lines[-1] == (
        f"activity: labels could not be read in 2 places, see {dataset / 'problems.csv'}; the data set has all others"
    )
    assert {row["path"]: row["reason"] for row in read_csv(dataset / "problems.csv")} == {
        "labels.csv: row 6": "ERROR: end before start: 3 to 2",
        "labels.csv: row 7": f"ERROR: there is no film unknown_person.mp4 in {films}",
        "labels.csv: row 8": "WARNING: ends at 5 s, beyond the film's end at 4.00 s; it is cut there",
    }
    labels.write_text("\n".join(LABELS))
    assert run("preprocess", films, "--out", dataset, "--labels", labels, *SIZE)[0] == 0
    assert len(manifest_of(dataset)) == 4 and not read_csv(dataset / "problems.csv")


def test_labels_of_which_none_can_be_used_are_one_line(run, one_line, films, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("")
    status, out, err = run("preprocess", films, "--out", tmp_path / "dataset", "--labels", labels, *SIZE)
    assert status == 1 and not out and not (tmp_path / "dataset").exists()
    assert "first problem: labels.csv: ERROR: the file is empty" in one_line(err.splitlines()[-1] + "\n")


@pytest.mark.parametrize("option", [("--tier", "legs"), ("--label-rate", "25"), ("--point-seconds", "1")])
def test_options_of_labels_need_labels(run, ramp_videos, tmp_path, option):
    status, _, err = run("preprocess", ramp_videos, "--out", tmp_path / "dataset", *option)
    assert status == 2 and f"{option[0]} is for the files of --labels" in err
