import csv
import json
import shlex
from unittest.mock import Mock


def test_tune_prints_a_command_that_can_be_copied(run, folder, cnn_weights, tmp_path, monkeypatch):
    from activity.model_selection import tuning
    from activity.models.heads import HEADS

    monkeypatch.setattr(tuning, "HEADS", {"chunks": HEADS["chunks"]})  # quick to build
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--members", 1, "--epochs", 2)
    recipe += ("--head", "chunks")
    search = ("tune", folder / "dataset", "--folds", 2, "--study", tmp_path / "study.log", *recipe)
    status, out, err = run(*search, "--trials", 2, "--out", tmp_path / "out")
    assert status == 0 and "2 trials, 0 of them stopped early; 2 folds of" in out
    command = shlex.split(out.splitlines()[-1])
    assert command[:5] == ["activity", "train", str(folder / "dataset"), "--out", "model.keras"]
    assert command[command.index("--weights") + 1] == str(cnn_weights)
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"search.png", "trials.csv"}
    with (tmp_path / "out" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2"] and rows[0]["epochs"] == "2" and rows[0]["members"] == "1"
    assert "wrote" in err and not (folder / "dataset" / "tuning.log").exists()
    status, out, _ = run(*search, "--trials", 2, "--json")
    report = json.loads(out)
    assert status == 0 and len(report["trials"]) == 2 and shlex.split(report["command"]) == command


def test_tune_refuses_in_one_line_and_says_how_to_continue(run, folder, monkeypatch, one_line):
    status, out, err = run("tune", folder / "dataset", "--backbone", "small_cnn")
    assert (status, out) == (1, "") and "small_cnn would learn from scratch" in one_line(err)
    monkeypatch.setattr("activity.model_selection.tuning.tune", Mock(side_effect=KeyboardInterrupt))
    status, out, err = run("tune", folder / "dataset")
    assert (status, out) == (130, "") and one_line(err) == "activity: stopped; the same command continues from here\n"
