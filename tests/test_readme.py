"""What the README shows can be typed, and its Python runs."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from activity.cli.main import COMMANDS, parser
from activity.datasets.synthetic import write_videos

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands_in(text):
    """Commands of ours in code blocks and between backticks, without what is said about them."""
    code = [*re.findall(r"^ {4}(.*)$", text, re.MULTILINE), *re.findall(r"(?<!`)`([^`\n]+)`", text)]
    found = [re.search(rf"(?:^|\s)activity ((?:{'|'.join(COMMANDS)})(?:\s.*)?)$", line) for line in code]
    typed = [re.split(r"\s+(?:#|>|\()", match[1])[0].strip() for match in found if match]
    return sorted({line for line in typed if "..." not in line and not line.endswith("\\")})


def is_complete(line):
    return len(line.split()) > 1 or line in ("demo", "doctor")


@pytest.mark.parametrize("line", [line for line in commands_in(README) if is_complete(line)])
def test_its_commands_are_taken(line):
    assert parser().parse_args(shlex.split(line)).command == line.split()[0]


def test_every_command_is_in_it():
    assert {"demo", *(line.split()[0] for line in commands_in(README))} == set(COMMANDS)


def test_what_it_points_to_is_there():
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_its_map_names_every_package():
    rows = re.findall(r"^\| [a-z ,]+ \| (`\w+`(?: `\w+`)*) \|$", README, re.MULTILINE)
    named = re.findall(r"\w+", " ".join(rows))
    there = {path.stem for path in (ROOT / "activity").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert sorted(named) == sorted(name for name in there if not name.startswith("_"))


def run_python(program, folder):
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)


def test_its_python_labels_videos(ramp_model, ramp_videos, tmp_path):
    shutil.copy(ramp_model, tmp_path / "model.keras")
    for name, video in (("a.mp4", "darkens/p0_0.avi"), ("b.mp4", "brightens/p0_0.avi")):
        shutil.copy(ramp_videos / video, tmp_path / name)
    done = run_python(PYTHON[0], tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("a.mp4  darkens ") and lines[1].startswith("b.mp4  brightens ")
    assert lines[2].startswith("darkens 0.") and lines[-1].endswith(" darkens")


@pytest.mark.real
@pytest.mark.slow
def test_its_python_teaches_a_model(real_data, tmp_path):
    assert len(PYTHON) == 2
    write_videos(tmp_path / "videos", num_performers=6, num_takes=1)
    done = run_python(PYTHON[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy " in done.stdout
    assert (tmp_path / "model.keras").stat().st_size > 10**5
