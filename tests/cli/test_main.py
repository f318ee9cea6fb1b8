"""Every command as a user gives it; results on stdout, all else on stderr."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from activity._version import __version__
from activity.cli.main import main
from activity.errors import ActivityError, VideoError


@pytest.fixture
def run(capsys):
    """A function that runs a command and returns exit status, stdout and stderr."""

    def run_(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run_


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def one_line(text):
    assert text.startswith("activity: ") and text.count("\n") == 1, text
    return text


def test_version_and_help(run):
    assert run("--version") == (0, f"activity {__version__}\n", "")
    status, out, _ = run("--help")
    assert status == 0
    for command in (
        "demo",
        "preprocess",
        "train",
        "evaluate",
        "cross-validate",
        "tune",
        "classify",
        "export",
        "doctor",
    ):
        assert command in out


def test_help_names_every_backbone_and_head(run):
    from activity.models.backbones import BACKBONES
    from activity.models.heads import HEADS

    words = set(re.split(r"[\s,;]+", run("train", "--help")[1]))
    assert set(BACKBONES) | set(HEADS) <= words


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["preprocess", "videos"],
        ["preprocess", "v", "--out", "d", "--size", "big"],
        ["preprocess", "v", "--out", "d", "--workers", "0"],
        ["classify", "m.keras"],
        ["train", "d", "--out", "m.keras", "--class-weight", "heavy"],
    ],
)
def test_wrong_usage_exits_with_2(run, arguments):
    status, out, err = run(*arguments)
    assert status == 2 and out == "" and "usage: activity" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preprocess", "v", "--out", "d", "--num-frames", "0"], "--num-frames must be 1 to 1024, received: 0"),
        (["preprocess", "v", "--out", "d", "--size", "8x32"], "--size: height must be 16 to 1024 pixels, received: 8"),
        (["preprocess", "v", "--out", "d", "--frames-per-second", "-1"], "--frames-per-second must be none"),
        (["preprocess", "v", "--out", "d", "--time-limit", "0"], "argument --time-limit: must be 0.001 to"),
        (["preprocess", "v", "--out", "d", "--time-limit", "nan"], "argument --time-limit: must be"),
        (["preprocess", "v", "--out", "d", "--seed", "-1"], "argument --seed: must be 0 to 4294967295, received: -1"),
        (["train", "d", "--out", "m.keras", "--seed", "4294967296"], "--seed must be 0 to 4294967295, received: 42"),
        (["train", "d", "--out", "m.keras", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["train", "d", "--out", "m.keras", "--dropout", "1.5"], "--dropout must be 0 to below 1, received: 1.5"),
        (["cross-validate", "d", "--batch-size", "0"], "--batch-size must be 1 or more, received: 0"),
        (["classify", "m.keras", "v.mp4", "--top-k", "0"], "argument --top-k: must be 1 to"),
    ],
)
def test_a_number_out_of_range_is_wrong_usage_and_names_the_option(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2 and out == ""
    assert err.splitlines()[-1].startswith(f"activity {arguments[0]}: error: {message}")


@pytest.mark.parametrize("option", [["--timeline"], ["--out", "d"], ["--annotate", "d"], ["--explain", "d"]])
def test_options_that_need_a_whole_video_are_refused_for_a_live_source(run, option):
    status, _, err = run("classify", "m.keras", "0", *option)
    assert status == 2 and "need a whole file, not a live source" in err


@pytest.fixture(scope="module")
def folder(ramp_videos, tmp_path_factory):
    """A folder with a data set and a model that the command line made of the ramps."""
    folder = tmp_path_factory.mktemp("cli")
    size = ("--num-frames", "6", "--size", "32", "--workers", "1")
    recipe = (
        "--backbone",
        "small_cnn",
        "--units",
        "8",
        "--epochs",
        "25",
        "--learning-rate",
        "0.003",
        "--dropout",
        "0.1",
    )
    assert main(["preprocess", str(ramp_videos), "--out", str(folder / "dataset"), *size]) == 0
    assert main(["train", str(folder / "dataset"), "--out", str(folder / "model.keras"), *recipe]) == 0
    return folder


def test_preprocess_prints_what_the_data_set_holds(run, folder, ramp_videos):
    status, out, err = run("preprocess", ramp_videos, "--out", folder / "dataset", "--num-frames", 6, "--size", "32x32")
    assert status == 0 and err == ""
    assert re.search(r"^brightens +\d+ +\d+ +\d+$", out, re.MULTILINE)
    assert "32 videos, 8 groups, 6 evenly spaced frames, 32x32 px (stretched)" in out


def test_train_writes_a_model_a_log_and_the_learning_curves(folder):
    assert (folder / "model.keras").stat().st_size > 10_000
    with (folder / "model.training" / "scratch" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "waiting_seconds"}
    assert (folder / "model.training" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_for_people_and_for_programs(run, folder):
    status, out, _ = run("evaluate", folder / "model.keras", folder / "dataset", "--out", folder / "report")
    assert status == 0 and "confusion (rows true, columns predicted)" in out
    assert {path.name for path in (folder / "report").iterdir()} >= {"report.html", "mistakes.png", "scores.json"}
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "model.keras" in page and "training.backbone" in page
    status, out, _ = run("evaluate", folder / "model.keras", folder / "dataset", "--json")
    report = json.loads(out)
    assert status == 0
    assert set(report) == {"accuracy", "top_k", "macro_f1", "per_class", "labels", "confusion", "coverage", "precision"}
    assert report["labels"] == ["brightens", "darkens"]


def test_a_model_that_may_not_know_says_how_often_it_answers(run, folder, cnn_weights, tmp_path):
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--head", "pooled", "--epochs", "2")
    model = tmp_path / "careful.keras"
    status, out, _ = run("train", folder / "dataset", "--out", model, *recipe, "--precision", "0.9")
    assert status == 0
    _, out, _ = run("evaluate", model, folder / "dataset", "--json")
    scores = json.loads(out)
    assert 0 <= scores["coverage"] <= 1
    assert scores["precision"] is None if scores["coverage"] == 0 else 0 <= scores["precision"] <= 1


def test_cross_validate(run, folder):
    recipe = ("--backbone", "small_cnn", "--units", 8, "--epochs", 2)
    status, out, _ = run("cross-validate", folder / "dataset", "--folds", "camera", "--json", *recipe)
    report = json.loads(out)
    assert status == 0
    assert set(report["folds"]) == {"left", "right"} and 0 <= report["baseline_accuracy"] <= 1


def test_tune_prints_a_command_that_can_be_copied(run, folder, cnn_weights, tmp_path, monkeypatch):
    from activity.model_selection import tuning
    from activity.models.heads import HEADS

    monkeypatch.setattr(tuning, "HEADS", {"segments": HEADS["segments"]})  # quick to build
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--members", 1, "--epochs", 2)
    search = ("tune", folder / "dataset", "--folds", 2, "--study", tmp_path / "study.log", *recipe)
    status, out, err = run(*search, "--trials", 2, "--out", tmp_path / "out")
    assert status == 0 and "2 trials, 0 of them stopped early; 2 folds of" in out
    command = shlex.split(out.splitlines()[-1])
    assert command[:5] == ["activity", "train", str(folder / "dataset"), "--out", "model.keras"]
    assert command[command.index("--weights") + 1] == str(cnn_weights)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"search.png", "trials.csv"}
    with (tmp_path / "out" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2"] and rows[0]["epochs"] == "2" and rows[0]["members"] == "1"
    assert "wrote" in err and not (folder / "dataset" / "tuning.log").exists()
    status, out, _ = run(*search, "--trials", 2, "--json")
    report = json.loads(out)
    assert status == 0 and len(report["trials"]) == 2 and shlex.split(report["command"]) == command


def test_tune_refuses_in_one_line_and_says_how_to_continue(run, folder, monkeypatch):
    status, out, err = run("tune", folder / "dataset", "--backbone", "small_cnn")
    assert (status, out) == (1, "") and "small_cnn would learn from scratch" in one_line(err)
    monkeypatch.setattr("activity.model_selection.tuning.tune", raising(KeyboardInterrupt))
    status, out, err = run("tune", folder / "dataset")
    assert (status, out) == (130, "") and one_line(err) == "activity: stopped; the same command continues from here\n"


def test_classify_prints_a_line_a_file(run, folder, ramp_videos):
    files = [ramp_videos / "darkens" / "p0_0.avi", ramp_videos / "brightens" / "p0_0.avi"]
    status, out, _ = run("classify", folder / "model.keras", *files, "--top-k", 1)
    assert status == 0
    for file, line in zip(files, out.splitlines(), strict=True):
        assert re.fullmatch(rf"{re.escape(str(file))}  (brightens|darkens) [01]\.\d{{3}}", line)


def test_classify_as_json_and_csv_continues_after_a_bad_file(run, folder, ramp_videos, tmp_path):
    good, bad = ramp_videos / "darkens" / "p0_0.avi", tmp_path / "bad.mp4"
    bad.write_text("text")
    table = tmp_path / "out.csv"
    status, out, _ = run("classify", folder / "model.keras", bad, good, "--json", "--csv", table)
    assert status == 1
    failure, result = map(json.loads, out.splitlines())
    assert failure == {"source": str(bad), "error": "this is a text file, not a video"}
    assert set(result) == {"source", "label", "probability", "top", "duration_seconds"}
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == [failure["error"], ""]
    assert rows[1]["label"] == result["label"] and float(rows[1]["probability"]) == result["probability"]


@pytest.mark.parametrize("runtime", ["keras", "openvino"])
def test_classify_draws_explanations(run, folder, ramp_videos, tmp_path, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    bad = tmp_path / "bad.mp4"
    bad.write_text("text")
    files = [ramp_videos / "darkens" / "p0_0.avi", bad, ramp_videos / "brightens" / "p0_0.avi"]
    plain = run("classify", folder / "model.keras", *files, "--runtime", runtime)
    drawn = run("classify", folder / "model.keras", *files, "--runtime", runtime, "--explain", tmp_path / "why" / "x")
    assert drawn[:2] == plain[:2] and drawn[0] == 1
    written = [tmp_path / "why" / "x" / name for name in ("p0_0.png", "p0_0-2.png")]
    assert sorted((tmp_path / "why" / "x").iterdir()) == sorted(written)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert [line for line in drawn[2].splitlines() if "wrote" in line] == [f"wrote {path}" for path in written]
    assert ("explained by keras" in drawn[2]) is (runtime == "openvino")


def test_classify_prints_a_timeline(run, folder, ramp_videos):
    file = ramp_videos / "darkens" / "p0_0.avi"
    status, out, _ = run("classify", folder / "model.keras", file, "--timeline")
    assert status == 0
    first, *segments = out.splitlines()
    assert first.startswith(str(file)) and segments
    assert all(re.fullmatch(r" +\d+\.\d\d - +\d+\.\d\d s  (brightens|darkens) [01]\.\d{3}", line) for line in segments)
    _, out, _ = run("classify", folder / "model.keras", file, "--timeline", "--json")
    assert set(json.loads(out)["segments"][0]) == {"start_seconds", "end_seconds", "label", "probability"}


def test_classify_writes_timelines_and_annotated_videos(run, folder, ramp_videos, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    bad = tmp_path / "bad.mp4"
    bad.write_text("text")
    sources = [ramp_videos / "darkens" / "p0_0.avi", bad, ramp_videos / "brightens" / "p0_0.avi"]
    places = ("--out", tmp_path / "out", "--annotate", tmp_path / "videos")
    status, out, err = run("classify", folder / "model.keras", *sources, *places, "--json", "--top-k", 1)
    assert status == 1
    good = [line for line in map(json.loads, out.splitlines()) if "error" not in line]
    names = ("p0_0", "p0_0-2")  # two sources share their name
    for name, result in zip(names, good, strict=True):
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text()) == result
    expected = {tmp_path / "out" / f"{name}.{kind}" for name in names for kind in ("json", "csv", "srt", "png")}
    expected |= {tmp_path / "videos" / f"{name}.mp4" for name in names}
    assert {*(tmp_path / "out").iterdir(), *(tmp_path / "videos").iterdir()} == expected
    assert {line.removeprefix("wrote ") for line in err.splitlines() if "wrote" in line} == set(map(str, expected))


def test_a_video_that_can_no_longer_be_read_does_not_stop_the_others(run, folder, ramp_videos, tmp_path, monkeypatch):
    sources = [ramp_videos / "darkens" / "p0_0.avi", ramp_videos / "brightens" / "p0_0.avi"]
    failures = iter([VideoError("gone"), None])

    def annotate(source, prediction, out_path):
        if error := next(failures):
            raise error
        return out_path

    monkeypatch.setattr("activity.reports.annotation.annotate", annotate)
    status, out, err = run("classify", folder / "model.keras", *sources, "--annotate", tmp_path / "videos")
    assert status == 1 and "activity: gone" in err and f"wrote {tmp_path / 'videos' / 'p0_0-2.mp4'}" in err


def test_a_folder_or_pattern_without_videos_does_not_stop_the_others(run, folder, ramp_videos, tmp_path):
    sources = [tmp_path, f"{tmp_path}/*.mp4", ramp_videos / "darkens" / "p0_0.avi"]
    status, out, err = run("classify", folder / "model.keras", *sources)
    assert status == 1 and len(out.splitlines()) == 1
    assert err.splitlines() == [
        f"activity: {tmp_path}: a folder that holds no videos",
        f"activity: {tmp_path}/*.mp4: cannot be opened: No such file or directory",
    ]


def test_export_prints_how_near_it_is(run, folder, ramp_videos, tmp_path):
    command = ("export", folder / "model.keras", "--format", "savedmodel", "--out", tmp_path / "saved")
    status, out, err = run(*command, "--check", ramp_videos / "darkens" / "p0_0.avi")
    assert status == 0 and out.count("\n") == 1 and "on 1 clips of 1 videos its probabilities differ" in out
    assert f"wrote {tmp_path / 'saved'}\n" in err
    status, out, err = run(*command[:-1], tmp_path / "m.onnx")
    assert (status, out) == (1, "") and "a SavedModel is a folder" in one_line(err)


def test_info_tells_of_the_model_and_the_command_that_made_it(run, folder):
    model = folder / "model.keras"
    status, out, err = run("info", model)
    command = shlex.join(["activity", "train", str(folder / "dataset"), "--out", str(model), "--backbone", "small_cnn"])
    assert (
        (status, err) == (0, "")
        and out.startswith(f"{model}\n")
        and f"  command              {command} --units 8" in out
    )
    about = json.loads(run("info", model, "--json")[1])
    assert about["command"].startswith(command) and about["command_recorded"] and about["num_videos"]["train"] > 0
    assert run("info", model, "--markdown")[1].startswith("# model.keras\n\nA video classifier for 2 activities")
    assert run("info", model, "--markdown", "--json")[0] == 2
    status, out, err = run("info", folder / "none.keras")
    assert (status, out) == (1, "") and "no such model file" in one_line(err)


def test_an_updated_model_remembers_both_commands(run, folder, ramp_videos, monkeypatch, tmp_path):
    from activity.models.classifier import load_classifier

    model = load_classifier(folder / "model.keras")
    model.record["taught"] = model.record["taught"][4:]  # as if these had come since
    monkeypatch.setattr("activity.models.classifier.load_classifier", lambda _: model)
    new = tmp_path / "new.keras"
    status, _, err = run("update", folder / "model.keras", folder / "dataset", "--out", new, "--epochs", 1)
    assert status == 0, err
    about = json.loads(run("info", new, "--json")[1])
    assert shlex.split(about["command"])[:2] == ["activity", "train"]
    assert shlex.split(about["updates"][0]["command"])[:3] == ["activity", "update", str(folder / "model.keras")]


def test_python_command_line_and_reloaded_model_agree(run, folder, ramp_videos):
    from activity.predictor.predictor import Predictor

    file = ramp_videos / "brightens" / "p3_1.avi"
    _, out, _ = run("classify", folder / "model.keras", file, "--json")
    assert json.loads(out)["probability"] == Predictor.load(folder / "model.keras").predict(file).probability


def test_classify_takes_folders_and_patterns(run, folder, ramp_videos):
    (ramp_videos / "darkens" / "notes.txt").write_text("a sidecar")
    _, out, _ = run("classify", folder / "model.keras", ramp_videos / "darkens", f"{ramp_videos}/bright*/p1_*.avi")
    assert len(out.splitlines()) == 16 + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preprocess", "nowhere", "--out", "d"], "nowhere: no such file or folder"),
        (["train", "nowhere", "--out", "m.keras"], "nowhere: not a data set folder"),
        (["train", "nowhere", "--out", "m.h5"], "must end in .keras"),
        (["evaluate", "nowhere.keras", "."], "not a data set folder"),
        (["classify", "nowhere.keras", "a.mp4"], "nowhere.keras: no such model file"),
        (["classify", "nowhere.keras", "a.mp4", "--csv", "none/a.csv"], "none/a.csv: there is no folder none"),
        (["classify", "m.keras", "a.mp4", "--out", "file"], "file: a file has this name; expected a folder"),
        (["classify", "m.keras", "a.mp4", "--annotate", "file/b"], "file: a file has this name; expected a folder"),
        (["classify", "m.keras", "a.mp4", "--out", "."], "holds the video a.mp4; expected a folder of its own"),
        (["classify", "m.keras", "d/a.mp4", "--annotate", "d"], "d: holds the video d/a.mp4; expected a folder of"),
        (
            ["classify", "m.keras", "a.mp4", "--out", "x", "--explain", "x"],
            "x: --out and --explain both write NAME.png",
        ),
        (["classify", "m.keras", "a.mp4", "rtsp://u:pw@camera"], "rtsp://camera: a camera, .* received 2 sources"),
        (["classify", "m.keras", "a.ts", "b.ts", "--follow"], "a.ts: a camera, .* received 2 sources"),
        (["evaluate", "m.keras", ".", "--out", "file"], "file: a file has this name; expected a folder"),
        (["cross-validate", ".", "--out", "file/report"], "file: a file has this name; expected a folder"),
        (["classify", "m.keras", "a.mp4", "--explain", "file/why"], "file: a file has this name; expected a folder"),
        (["train", ".", "--out", "folder.keras"], "folder.keras: a folder has this name"),
    ],
)
def test_an_error_is_one_line_and_exit_1(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.keras").mkdir()
    status, out, err = run(*arguments)
    assert status == 1 and out == ""
    assert re.search(message, one_line(err))


def test_train_refuses_an_unknown_backbone(run, folder, tmp_path):
    model = tmp_path / "m.keras"
    status, _, err = run("train", folder / "dataset", "--out", model, "--backbone", "vgg")
    assert status == 2 and err.endswith("; did you mean 'vgg19'?\n")
    assert not model.exists()


def test_verbose_shows_the_traceback(run):
    from activity.errors import DatasetError

    with pytest.raises(DatasetError):
        run("train", "nowhere", "--out", "m.keras", "-v")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(13, "Permission denied", "a.npy"), "Permission denied: a.npy"),
        (OSError(21, "Is a directory", ".m.7.tmp", None, "m"), "Is a directory: m"),
        (OSError("Unable to open file\n  (bad\tname)"), "Unable to open file (bad name)"),
        (ActivityError("a\n\nb"), "a b"),
    ],
)
def test_whatever_an_error_holds_it_is_one_line(run, monkeypatch, error, line):
    monkeypatch.setattr("activity.datasets.dataset.load_dataset", raising(error))
    assert run("train", "d", "--out", "m.keras") == (1, "", f"activity: {line}\n")


def test_an_error_of_the_system_without_a_number_keeps_its_words(run, monkeypatch):
    error = OSError("cannot write")
    error.filename = "a.h5"  # as activity.files.atomic_file sets it
    monkeypatch.setattr("activity.datasets.dataset.load_dataset", raising(error))
    assert run("train", "d", "--out", "m.keras") == (1, "", "activity: cannot write: a.h5\n")


@pytest.mark.parametrize(
    ("arguments", "called", "how"),
    [
        (
            ["preprocess", "v", "--out", "d"],
            "datasets.preprocessing.preprocess",
            "; the same command continues from here",
        ),
        (
            ["train", "d", "--out", "m.keras"],
            "datasets.dataset.load_dataset",
            "; the same command with --resume continues from here",
        ),
        (["cross-validate", "d"], "datasets.dataset.load_dataset", ""),
    ],
)
def test_an_interrupt_says_how_to_continue(run, monkeypatch, arguments, called, how):
    monkeypatch.setattr(f"activity.{called}", raising(KeyboardInterrupt))
    assert run(*arguments) == (130, "", f"activity: stopped{how}\n")


def classify_as_a_program(*arguments):
    command = [sys.executable, "-m", "activity", "classify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_gives_its_answer_and_a_line_on_what_computes(folder, ramp_videos):
    classify_as_a_program(folder / "model.keras", ramp_videos / "darkens" / "p0_0.avi")  # exports, if need be
    done = classify_as_a_program(folder / "model.keras", ramp_videos / "darkens" / "p0_0.avi")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()  # not a word from TensorFlow, CUDA or FFmpeg
    assert "model.keras: computed by " in line
    assert len(done.stdout.splitlines()) == 1


def test_a_name_that_is_not_utf8_can_be_printed(folder, ramp_videos, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff.avi"
    try:
        shutil.copy(ramp_videos / "darkens/p0_0.avi", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    done = classify_as_a_program(folder / "model.keras", odd, "--csv", tmp_path / "t.csv")
    assert "udcff.avi" in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert "udcff.avi" in (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_a_reader_that_has_enough_is_no_error(folder, ramp_videos):
    command = f"{sys.executable} -m activity classify {folder}/model.keras {ramp_videos}/darkens | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert [line for line in done.stderr.splitlines() if "computed by" not in line and "exporting" not in line] == []
