"""What the documents show can be typed, their Python runs, and what they point to exists."""

import json
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
PACKAGE = ROOT / "activity"
BENCHMARKS = ROOT / "tests" / "benchmarks"
PAGES = [ROOT / "README.md", PACKAGE / "README.md", *sorted(ROOT.glob("data/*.md")), BENCHMARKS / "README.md"]
DOCKERFILE = ROOT / "Dockerfile"
HOUSE = (PACKAGE / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", HOUSE, re.MULTILINE | re.DOTALL)
EXTRAS = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def text_of(path):
    """A document; of the Dockerfile its comments, of a notebook its text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return "\n".join(re.findall(r"^# ?(.*)$", text, re.MULTILINE)) if path == DOCKERFILE else text


def commands_in(path):
    """Commands of ours in code blocks and between backticks, without what is said about them."""
    text = re.sub(r"\\\n\s*", "", text_of(path))  # continued lines
    indented = r"^ {2,}(.*)$" if path == DOCKERFILE else r"^ {4}(.*)$"
    text_without_fences = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text_without_fences)]
    code = [*re.findall(indented, text, re.MULTILINE), *quoted]
    found = [re.search(rf"(?:^|\s)activity(?::\w+)? ((?:{'|'.join(COMMANDS)})(?:\s.*)?)$", line) for line in code]
    typed = [re.split(r"\s+(?:#|>|\()", match[1])[0].strip() for match in found if match]
    return sorted({line for line in typed if "..." not in line})


def is_complete(line):
    return len(line.split()) > 1 or line in ("demo", "doctor")


ALL_COMMANDS = {path: commands_in(path) for path in (*PAGES, DOCKERFILE)}


@pytest.mark.parametrize(
    "line", sorted({line for lines in ALL_COMMANDS.values() for line in lines if is_complete(line)})
)
def test_commands_of_the_documents_are_accepted(line):
    assert parser().parse_args(shlex.split(line)).command == line.split()[0]


def test_every_document_shows_commands():
    assert [path.name for path, lines in ALL_COMMANDS.items() if not lines] == []


def test_every_command_is_in_the_documents():
    shown = {line.split()[0] for path in PAGES[:2] for line in ALL_COMMANDS[path]}
    assert {"demo", *shown} == set(COMMANDS)  # the demo is typed with its path


def test_commands_of_benchmarks_name_scripts_and_their_options():
    lines = re.findall(r"^ {4}python (tests/\S+)(.*)$", text_of(BENCHMARKS / "README.md"), re.MULTILINE)
    assert {script for script, _ in lines} == {
        f"tests/benchmarks/{path.name}" for path in BENCHMARKS.glob("bench_*.py")
    }
    for script, arguments in lines:
        options = re.findall(r"--[\w-]+", arguments)
        source = (ROOT / script).read_text(encoding="utf-8")
        assert [option for option in options if f'"{option}"' not in source] == [], script


@pytest.mark.parametrize("path", [*PAGES, DOCKERFILE], ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_and_test_files_of_the_documents_exist(path):
    text = text_of(path)
    named = re.findall(r"'\.\[([\w,]+)\]'|EXTRA=([\w,]+)", text)
    assert {extra for pair in named for names in pair for extra in names.split(",") if extra} <= set(EXTRAS)
    for folder, names, one in re.findall(r"(tests/\w+/)(?:test_\{([\w,]+)\}|(test_\w+))\.py", text):
        files = [f"test_{name}.py" for name in names.split(",") if name] or [f"{one}.py"]
        assert [name for name in files if not (ROOT / folder / name).exists()] == []


def anchors_of(path):
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_images_of_the_documents_exist(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if target.startswith("https:"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists() and ROOT in (there, *there.parents), target
        assert not anchor or anchor in anchors_of(there), target


def test_the_readme_stays_short_and_leads_to_every_other_document():
    path = ROOT / "README.md"
    assert 7_000 <= path.stat().st_size <= 9_200
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path))}
    others = {"activity/README.md", "data/README.md", "tests/benchmarks/README.md", "Dockerfile", "notebooks"}
    assert {*others, "CHANGELOG.md"} <= targets


# The map of the house


def test_its_map_names_every_package():
    rows = re.findall(r"^\| [a-z ,]+ \| (`\w+`(?: `\w+`)*) \|$", HOUSE, re.MULTILINE)
    named = re.findall(r"\w+", " ".join(rows))
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert sorted(named) == sorted(name for name in there if not name.startswith("_"))


def test_modules_it_names_exist():
    named = {name for name in re.findall(r"`(\w+/\w+\.py)`", HOUSE) if "NAME" not in name}
    assert len(named) > 5
    assert [name for name in named if not ((PACKAGE / name).exists() or (ROOT / name).exists())] == []


def imports_of(module):
    """Modules of ours that a module imports when it runs, without `activity.`."""
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    source = re.sub(r"^if TYPE_CHECKING:\n(?:    .*\n)+", "", source, flags=re.MULTILINE)
    return set(re.findall(r"^\s*from activity\.([\w.]+) import", source, re.MULTILINE))


@pytest.mark.parametrize(("first", "most"), [("cli.classify", 9), ("cli.train", 12)])
def test_its_lists_to_read_are_short_and_lead_from_one_module_to_the_next(first, most):
    (listed,) = re.findall(rf"^- From `[^`]*` .*?: (`{first}`(?:\s+`[\w.]+`)+)", HOUSE, re.MULTILINE)
    modules = re.findall(r"[\w.]+", listed)
    assert 3 < len(modules) <= most and len(set(modules)) == len(modules)
    known = imports_of(first)
    for module in modules[1:]:
        assert module in known, f"{module} is imported by none of those before it"
        known |= imports_of(module)


# Python


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
def test_its_python_trains_a_model(real_data, tmp_path):
    assert len(PYTHON) == 2
    write_videos(tmp_path / "videos", num_performers=6, num_takes=1)
    done = run_python(PYTHON[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy " in done.stdout
    assert (tmp_path / "model.keras").stat().st_size > 10**5
