"""A short seeded part of each soak of `preprocess` and of what it makes; the long ones are run by hand."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("script", "count"), [("kill_preprocess", 3), ("damaged_files", 35), ("hostile_manifests", 4)])
def test_a_part_of_the_soak(script, count):
    if script == "kill_preprocess" and not sys.platform.startswith("linux"):
        pytest.skip("this file system has no /proc")
    figures, failures = importlib.import_module(script).soak(count, seed=3)
    assert not failures, figures
