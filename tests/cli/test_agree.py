import json

import pytest

ANNA = ["path,label,start_seconds,end_seconds", "x/a.avi,run,0,4", "x/a.avi,sit,4,8", "b.avi,run,0,5", "c.avi,run,0,5"]
BORIS = ["Observation id,Source,Subject,Behavior,Behavior type,Start (s),Stop (s)"]
BORIS += [f"{i},player #1:/films/{rest}" for i, rest in enumerate(("x/a.avi,,run,STATE,0,3", "b.avi,,run,STATE,0,5"))]
BORIS += ["0,player #1:/films/x/a.avi,,sit,STATE,3,7", "3,player #1:/films/d.avi,,run,STATE,0,1"]


@pytest.fixture
def files(tmp_path):
    """Labels of Anna as a manifest and of Ben as events of BORIS, without the films."""
    (tmp_path / "anna.csv").write_text("\n".join(ANNA))
    (tmp_path / "ben.csv").write_text("\n".join(BORIS))
    return tmp_path / "anna.csv", tmp_path / "ben.csv"


def test_two_persons_with_two_tools(run, files):
    status, out, err = run("agree", *files, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["labels"] == ["run", "sit", "background"] and found["films"] == ["x/a.avi", "b.avi"]
    assert found["confusion"] == [[8.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.0]]
    assert found["agreement"] == pytest.approx(11 / 13) and len(found["kappa_interval"]) == 2
    chance = (9 * 8 + 4 * 4 + 0 * 1) / 13**2
    assert found["kappa"] == pytest.approx((11 / 13 - chance) / (1 - chance))
    assert f"{files[0]}: no film of the other is surely the same, not compared: c.avi" in err
    assert "not compared: /films/d.avi" in err
    out = run("agree", *files)[1]
    assert "kappa 0.679" in out and "largest confusions" in out and "run (A), sit (B)" in out


def test_a_person_and_a_model(run, files, tmp_path):
    (tmp_path / "timelines").mkdir()
    segments = [{"start_seconds": 0, "end_seconds": 6, "label": "run", "probability": 0.9}]
    for name in ("a", "b"):
        timeline = {"source": f"films/{'x/' * (name == 'a')}{name}.avi", "duration_seconds": 10, "segments": segments}
        (tmp_path / "timelines" / f"{name}.json").write_text(json.dumps(timeline))
    found = json.loads(run("agree", files[0], tmp_path / "timelines", "--json", "--step", "0.5")[1])
    assert sum(map(sum, found["confusion"])) == 20 and found["step_seconds"] == 0.5


def test_labels_of_one_time_are_said(run, files):
    files[0].write_text("\n".join([*ANNA, "b.avi,jump,4,5"]))
    status, out, err = run("agree", *files, "--json")
    assert status == 0 and "jump + run" in json.loads(out)["labels"]
    assert "b.avi: 1 labels begin while another lasts; both together are compared" in err


def test_rows_that_cannot_be_read_are_an_error_after_the_others(run, files):
    files[0].write_text("\n".join([*ANNA, "b.avi,jump,9,8"]))
    status, out, err = run("agree", *files)
    assert status == 1 and "kappa" in out and "row 6: end before start" in err
    assert "labels could not be read in 1 places" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "rows, message",
    [
        (["path,label,start_seconds,end_seconds", "e.avi,run,0,1"], "have no film in common that can be compared"),
        (["path,label", "d.avi,run"], ""),
        (["nothing,known", "1,2"], "have no film in common that can be compared"),
    ],
)
def test_where_nothing_can_be_compared_is_an_error(run, files, rows, message):
    files[0].write_text("\n".join(rows))
    status, out, err = run("agree", *files)
    if message:
        assert status == 1 and out == "" and message in err.splitlines()[-1]
    else:
        assert status == 0 and "kappa undefined" in out


def test_a_film_of_unknown_length_is_named(run, files):
    for file in files:
        file.write_text("path,label\nd.avi,run\n")
    status, out, err = run("agree", *files)
    assert status == 1 and out == "" and "d.avi: its length is not known, not compared; --videos DIR tells it" in err


def test_a_folder_without_timelines_is_an_error(run, files, tmp_path, one_line):
    (tmp_path / "empty").mkdir()
    status, _, err = run("agree", files[0], tmp_path / "empty")
    assert status == 1 and "a folder without JSON files" in one_line(err)


def test_files_for_other_tools_beside_timelines_are_not_counted_again(run, tmp_path):
    timeline = {
        "source": "/there/a.mp4",
        "duration_seconds": 4.0,
        "segments": [{"start_seconds": 0, "end_seconds": 4, "label": "sit"}],
    }
    other = {"database": {"a": {"annotations": [{"segment": [0, 2], "label": "eat"}]}}}
    (tmp_path / "a.json").write_text(json.dumps(timeline))
    (tmp_path / "a.activitynet.json").write_text(json.dumps(other))
    status, out, _ = run("agree", tmp_path, tmp_path, "--json")
    about = json.loads(out)
    assert status == 0 and about["films"] == ["/there/a.mp4"] and about["labels"] == ["sit"]


def test_a_data_set_is_read_from_its_manifest(run, folder, tmp_path):
    dataset = folder / "dataset"
    status, out, err = run("agree", dataset, dataset / "manifest.csv", "--json")
    found = json.loads(out)
    assert status == 0 and found["agreement"] == 1 and len(found["films"]) > 3
    assert f"{dataset}: its manifest.csv is read" in err
    status, _, err = run("agree", dataset / "frames", dataset)
    expected = "expected timelines of classify --out, or a manifest.csv, as a data set has one"
    assert status == 1 and f"frames: a folder without JSON files; {expected}" in err
