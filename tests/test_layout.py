"""The shape of the package: who may import whom, and who may do what."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "activity"

# A module imports only from those before it.
ORDER = """
    errors config progress videofile video encoding motion clips decoding network modelfile timeline overlay dataset
    listing splits metrics devices layers backbones heads classifier export runtimes calibration
    synthetic standalone store features preprocessing batches checkpoint fitting record training evaluation
    updating study tuning predictor capture live render plots explain report doctor demo
    arguments output card web commands cli
""".split()
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
MOST_LINES = 400


@cache
def tree_of(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imports_of(tree):
    """Dotted names of all modules that a tree imports; `from a import b` gives both `a` and `a.b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def outside_functions(tree):
    """The tree without the bodies of its functions: what runs when the module is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    return tree


def test_every_module_has_its_place():
    assert sorted(MODULES) == sorted(name for name in ORDER if name in MODULES), "add the new module to ORDER"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module):
    imported = {name.split(".")[1] for name in imports_of(tree_of(module)) if name.startswith("activity.")}
    assert imported & set(MODULES) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ("commands", "cli")])
def test_only_the_command_line_prints(module):
    calls = [node.func for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "video"])
def test_only_video_opens_videos(module):
    names = {node.attr for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)}
    assert not names & {"VideoCapture", "VideoWriter"}


@pytest.mark.parametrize("module", MODULES)
def test_tensorflow_is_imported_inside_functions_only(module):
    tree = outside_functions(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    assert not {name for name in imports_of(tree) if name.partition(".")[0] == "tensorflow"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    num_lines = (PACKAGE / f"{module}.py").read_text(encoding="utf-8").count("\n")
    assert num_lines <= MOST_LINES


@pytest.mark.skipif("cli" not in MODULES, reason="there is no command line yet")
def test_the_command_line_starts_without_heavy_imports():
    heavy = {"cv2", "keras", "numpy", "optuna", "sklearn", "tensorflow"}
    program = f"import sys, activity.card, activity.cli; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n", "")


def test_prediction_needs_no_keras_to_start():
    heavy = {"keras", "matplotlib", "sklearn", "tensorflow"}
    program = f"import sys, activity.predictor; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n", "")
