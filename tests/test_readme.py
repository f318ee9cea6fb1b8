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
README, HOUSE, *_ = DOCUMENTS = [
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "activity/README.md", "data/README.md", "tests/benchmarks/README.md")
]
DOCKER = "\n".join(re.findall(r"^# ?(.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
PYTHON = re.findall(r"^```python\n(.*?)^```$", HOUSE, re.MULTILINE | re.DOTALL)


def commands_in(text):
    """Commands of ours in code blocks and between backticks, without what is said about them."""
    code = [*re.findall(r"^ {4}(.*)$", text, re.MULTILINE), *re.findall(r"(?<!`)`([^`\n]+)`", text)]
    found = [re.search(rf"(?:^|\s)activity ((?:{'|'.join(COMMANDS)})(?:\s.*)?)$", line) for line in code]
    typed = [re.split(r"\s+(?:#|>|\()", match[1])[0].strip() for match in found if match]
    return sorted({line for line in typed if "..." not in line and not line.endswith("\\")})


def is_complete(line):
    return len(line.split()) > 1 or line in ("demo", "doctor")


LINES = sorted({line for text in (*DOCUMENTS, DOCKER) for line in commands_in(text) if is_complete(line)})


@pytest.mark.parametrize("line", LINES)
def test_commands_are_taken(line):
    assert parser().parse_args(shlex.split(line)).command == line.split()[0]


def test_every_command_is_in_it():
    assert {line.split()[0] for text in (README, HOUSE) for line in commands_in(text)} | {"demo"} == set(COMMANDS)


def test_it_can_be_read_in_one_sitting():
    assert 6_500 < len(README.encode()) < 9_200


@pytest.mark.parametrize("name", ["README.md", "activity/README.md", "data/README.md", "tests/benchmarks/README.md"])
def test_what_a_document_points_to_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", text)
    assert targets
    for target, anchor in targets:
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_map_names_every_package():
    rows = re.findall(r"^\| [a-z ,]+ \| (`\w+`(?: `\w+`)*) \|$", HOUSE, re.MULTILINE)
    named = re.findall(r"\w+", " ".join(rows))
    there = {path.stem for path in (ROOT / "activity").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert sorted(named) == sorted(name for name in there if not name.startswith("_"))


@pytest.mark.parametrize(("begin", "most"), [("activity classify", 9), ("activity train", 12)])
def test_a_way_through_the_house_is_short(begin, most):
    """Each module is imported by one that was read before it."""
    way = re.search(rf"^- From `{begin}` .*?: (.*?)(?=^- |^$)", HOUSE, re.MULTILINE | re.DOTALL)
    modules = re.findall(r"`([\w.]+)`", way[1])
    assert 1 < len(modules) <= most and len(set(modules)) == len(modules)
    read = ""
    for module in modules:
        package, _, name = module.rpartition(".")
        imported = re.search(
            rf"from activity\.{package}\.{name} import|from activity\.{package} import .*\b{name}\b", read
        )
        assert not read or imported, f"{module} is imported by none of those before it"
        read += (ROOT / "activity" / package / f"{name}.py").read_text(encoding="utf-8")


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
