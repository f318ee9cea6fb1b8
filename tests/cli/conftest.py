"""What tests of commands share."""

import pytest

from activity.cli.main import main


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


@pytest.fixture
def one_line():
    """A function that returns what stderr holds, and fails unless that is one line of ours."""

    def one_line_(text):
        assert text.startswith("activity: ") and text.count("\n") == 1, text
        return text

    return one_line_


@pytest.fixture(scope="session")
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
