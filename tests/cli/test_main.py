"""Every command as a user gives it; results on stdout, all else on stderr."""

import re
import subprocess
import sys
from unittest.mock import Mock

import pytest

from activity._version import __version__
from activity.errors import ActivityError


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
        ["preprocess", "v", "--out", "d", "--size", "64x"],
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
            "x/a.png: both a timeline and an explanation would have this name; expected two places",
        ),
        (["classify", "m.keras", "a.mp4", "rtsp://u:pw@camera"], "rtsp://camera: a camera, .* received 2 sources"),
        (["classify", "m.keras", "a.ts", "b.ts", "--follow"], "a.ts: a camera, .* received 2 sources"),
        (["evaluate", "m.keras", ".", "--out", "file"], "file: a file has this name; expected a folder"),
        (["cross-validate", ".", "--out", "file/report"], "file: a file has this name; expected a folder"),
        (["classify", "m.keras", "a.mp4", "--explain", "file/why"], "file: a file has this name; expected a folder"),
        (["train", ".", "--out", "folder.keras"], "folder.keras: a folder has this name"),
    ],
)
def test_an_error_is_one_line_and_exit_1(run, tmp_path, monkeypatch, arguments, message, one_line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.keras").mkdir()
    status, out, err = run(*arguments)
    assert status == 1 and out == ""
    assert re.search(message, one_line(err))


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
    monkeypatch.setattr("activity.datasets.dataset.load_dataset", Mock(side_effect=error))
    assert run("train", "d", "--out", "m.keras") == (1, "", f"activity: {line}\n")


def test_an_error_of_the_system_without_a_number_keeps_its_words(run, monkeypatch):
    error = OSError("cannot write")
    error.filename = "a.h5"  # as activity.files.atomic_file sets it
    monkeypatch.setattr("activity.datasets.dataset.load_dataset", Mock(side_effect=error))
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
    monkeypatch.setattr(f"activity.{called}", Mock(side_effect=KeyboardInterrupt))
    assert run(*arguments) == (130, "", f"activity: stopped{how}\n")


@pytest.mark.parametrize("module", ["activity.cli.main", "argparse", "activity.cli.options", "activity.cli.info"])
def test_ctrl_c_while_the_program_starts_is_no_traceback(module):
    start = (
        "import runpy, signal, sys\n"
        "class Finder:\n"
        f"    find_spec = lambda name, *_: signal.raise_signal(signal.SIGINT) if name == {module!r} else None\n"
        "sys.argv[1:] = ['info', 'm.keras']\n"
        "sys.meta_path.insert(0, Finder)\n"
        "runpy.run_module('activity', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "activity: stopped\n")
