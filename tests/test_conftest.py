"""Whether a skip for want of something is a failure where nothing may be missing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import pytest

@pytest.fixture
def browser():
    pytest.skip("a browser test needs Chromium")

def test_in_a_fixture(browser): ...

@pytest.mark.skipif(True, reason="there is no ffmpeg program")
def test_by_a_mark(): ...

def test_in_the_test():
    pytest.importorskip("no_such_module")

@pytest.mark.parametrize("case", [])
def test_without_cases(case): ...

def test_of_real_clips(real_data): ...

@pytest.mark.xfail(reason="known", strict=True)
def test_that_fails_as_expected():
    assert False

def test_that_runs(): ...
"""


@pytest.fixture
def outcomes(tmp_path):
    """A function that runs tests in a process of their own, and gives exit status and numbers of outcomes."""

    def run(program, **environment):
        (tmp_path / "test_some.py").write_text(program)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment}
        environment.pop("ACTIVITY_TEST_DATA", None)
        command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--rootdir", tmp_path]
        done = subprocess.run([*command, tmp_path], env=environment, cwd=tmp_path, capture_output=True, text=True)
        *_, last = done.stdout.splitlines()
        return done.returncode, {what.rstrip("s"): int(n) for n, what in re.findall(r"(\d+) ([a-z]+)", last)}

    return run


def test_what_is_missing_is_skipped_but_not_in_ci(outcomes):
    status, numbers = outcomes(PROGRAM, ACTIVITY_CI="")
    assert status == 0 and (numbers["passed"], numbers["skipped"], numbers["xfailed"]) == (1, 5, 1)
    status, numbers = outcomes(PROGRAM, ACTIVITY_CI="1")
    assert status == 1 and numbers["failed"] + numbers["error"] == 4
    assert (numbers["passed"], numbers["skipped"], numbers["xfailed"]) == (1, 1, 1)


@pytest.mark.parametrize(("ci", "status"), [("", 5), ("1", 2)])  # of pytest: no tests, or interrupted by an error
def test_a_module_that_skips_itself_is_an_error_in_ci(outcomes, ci, status):
    program = "import pytest\npytest.importorskip('no_such_module')\ndef test_that_runs(): ...\n"
    assert outcomes(program, ACTIVITY_CI=ci)[0] == status
