"""A short seeded part of the soak of hostile sources; the long one is run by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform == "win32", reason="this file system has no pipes with a name")
def test_a_part_of_the_soak():
    import hostile_sources

    figures, failures = hostile_sources.soak(3, seed=3)
    assert not failures, figures
