"""Results of an earlier run are replaced only when that is asked for; what the user has changed in them never is."""

import pytest

from activity.reports.timeline import TIMELINE_FORMATS


@pytest.fixture
def video(ramp_videos):
    return ramp_videos / "darkens" / "p0_0.avi"


def test_a_report_of_ours_is_replaced_when_asked_for(run, folder, one_line, tmp_path):
    report = tmp_path / "report"
    command = ("evaluate", folder / "model.keras", folder / "dataset", "--out", report)
    assert run(*command)[0] == 0
    status, _, err = run(*command)
    assert status == 1 and "report: exists, a report of ours; replace it with --overwrite" in one_line(err)
    assert run(*command, "--overwrite")[0] == 0
    (report / "folds.png").write_text("of the user")  # a name that another report would have
    status, _, err = run(*command, "--overwrite")
    assert status == 1 and "report: exists and is not a report of ours" in one_line(err)
    assert (report / "folds.png").read_text() == "of the user"
    (report / "folds.png").unlink()
    (report / "predictions.csv").write_text("corrected by the user")
    status, _, err = run(*command, "--overwrite")
    assert status == 1 and "report: exists and is not a report of ours" in one_line(err)
    assert (report / "predictions.csv").read_text() == "corrected by the user"


def test_timelines_and_tables_of_ours_are_replaced_when_asked_for(run, folder, one_line, tmp_path, video):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.srt").write_text("of the user")
    command = ("classify", folder / "model.keras", video, "--out", tmp_path / "out", "--csv", tmp_path / "a.csv")
    assert run(*command)[0] == 0
    status, _, err = run(*command)
    assert status == 1 and "a.csv: exists, a table of predictions of ours" in one_line(err)
    (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text() + "mine.avi,a note,1,1,\n")
    status, _, err = run(*command, "--overwrite")
    assert status == 1 and "a.csv: exists and is not a table of predictions of ours" in one_line(err)
    (tmp_path / "a.csv").unlink()
    status, _, err = run(*command)
    assert status == 1 and "p0_0.json: exists, a timeline of ours; replace it with --overwrite" in one_line(err)
    assert run(*command, "--overwrite")[0] == 0
    (tmp_path / "out" / "p0_0.srt").write_text("corrected by the user")
    status, _, err = run(*command, "--overwrite")
    assert status == 1 and "p0_0.srt: exists and is not a timeline of ours" in one_line(err)
    assert (tmp_path / "out" / "p0_0.srt").read_text() == "corrected by the user"
    assert (tmp_path / "out" / "other.srt").read_text() == "of the user"


def test_a_model_and_the_state_of_its_training_are_replaced_when_asked_for(run, folder, one_line, tmp_path):
    command = ("train", folder / "dataset", "--out", tmp_path / "m.keras", "--backbone", "small_cnn", "--epochs", "2")
    assert run(*command)[0] == 0
    first = (tmp_path / "m.keras").read_bytes()
    status, _, err = run(*command, "--seed", "1")
    assert status == 1 and "m.keras: exists, a model file of ours" in one_line(err)
    assert (tmp_path / "m.keras").read_bytes() == first
    assert run(*command, "--seed", "1", "--overwrite")[0] == 0
    assert (tmp_path / "m.keras").read_bytes() != first
    (tmp_path / "m.keras").unlink()
    status, _, err = run(*command)
    message = (
        "m.training: exists, the state of a training of ours; continue it with --resume, replace it with --overwrite"
    )
    assert status == 1 and message in one_line(err)
    assert run(*command, "--seed", "1", "--resume")[0] == 0
    assert (tmp_path / "m.keras").is_file()


def test_what_a_stopped_command_has_left_is_replaced_when_asked_for(run, folder, tmp_path, video, monkeypatch):
    report, out, table = tmp_path / "report", tmp_path / "out", tmp_path / "a.csv"

    def stop(*_, **__):
        raise KeyboardInterrupt

    evaluate = ("evaluate", folder / "model.keras", folder / "dataset", "--out", report)
    classify = ("classify", folder / "model.keras", video, "--out", out, "--csv", table)
    with monkeypatch.context() as stopped:
        stopped.setattr("activity.reports.report.write_csv", stop)
        stopped.setitem(TIMELINE_FORMATS, "srt", stop)
        stopped.setattr("activity.files.note_results", lambda _: None)  # as of a process that was killed
        assert run(*evaluate)[0] == run(*classify)[0] == 130
    assert (report / "classes.png").is_file() and (out / "p0_0.json").is_file() and table.is_file()
    (out / "p0_0.srt").write_text("of the user")
    assert run(*classify, "--overwrite")[0] == 1
    (out / "p0_0.srt").unlink()
    assert run(*evaluate, "--overwrite")[0] == run(*classify, "--overwrite")[0] == 0
