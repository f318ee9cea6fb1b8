"""A short part of the soaks of the page and of Ctrl-C; the long ones are run by hand."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytestmark = pytest.mark.slow


def test_a_small_crowd_at_the_page(tmp_path):
    pytest.importorskip("gradio", reason="the web page needs gradio: pip install '.[web]'")
    serve = importlib.import_module("serve")
    line, wrong = serve.soak(tmp_path, at_once=8, in_turn=8, cut_off=3, large=1, silent=20)
    assert not wrong, line


def test_commands_end_with_control_c(tmp_path):
    interrupt = importlib.import_module("interrupt")
    line, wrong = interrupt.soak(tmp_path, count=6, seed=1)
    assert not wrong, line
