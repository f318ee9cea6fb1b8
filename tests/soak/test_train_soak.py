"""A short seeded part of the soaks of training and of model files; the long ones are run by hand."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("script", "count"), [("kill_train", 1), ("hostile_models", 12)])
def test_a_part_of_the_soak(script, count):
    if script == "kill_train" and sys.platform == "win32":
        pytest.skip("this file system has no process groups")
    figures, failures = importlib.import_module(script).soak(count, seed=3)
    assert not failures, figures
