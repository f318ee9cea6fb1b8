"""The shape of the package: which package may import which, and who may do what."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "activity"

# Each line imports only from those above it. A name is a package, or a module at the top of `activity`.
ORDER = """
    _version errors
    config files progress
    executors
    video
    datasets models
    runtimes
    predictor
    evaluation
    training
    model_selection
    reports
    apps
    cli
    __main__
""".strip().splitlines()
FLOOR_OF = {room: floor for floor, line in enumerate(ORDER) for room in line.split()}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


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


def room_of(module):
    return module.split(".")[1]


def test_every_package_has_its_place():
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == set(FLOOR_OF)


def test_a_stranger_sees_few_things_at_the_top():
    tracked = subprocess.run(["git", "ls-files", "activity"], cwd=PACKAGE.parent, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    files = {line.split("/")[1] for line in tracked.stdout.splitlines() if line.count("/") == 1}
    assert len(files) <= 9, files


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module):
    """From the floors below, or from the own room; packages of one floor do not know each other."""
    imported = {room_of(name) for name in imports_of(tree_of(MODULES[module])) if name.startswith("activity.")}
    imported &= set(FLOOR_OF)
    above = {room for room in imported - {room_of(module)} if FLOOR_OF[room] >= FLOOR_OF[room_of(module)]}
    assert not above


def test_there_are_no_circles_between_modules():
    graph = {
        module: {name for name in imports_of(tree_of(path)) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    while leaves := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - leaves for module, needs in graph.items() if module not in leaves}
    assert not graph


def test_packages_have_no_code_of_their_own():
    for path in PACKAGE.glob("*/__init__.py"):
        (docstring,) = tree_of(path).body
        assert isinstance(docstring, ast.Expr)


def test_no_module_bears_the_name_of_a_function_in_it():
    for module, path in MODULES.items():
        functions = {node.name for node in tree_of(path).body if isinstance(node, ast.FunctionDef)}
        assert module.rpartition(".")[2] not in functions - {"main"}, "it would hide the function"


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) != "cli"])
def test_only_the_command_line_prints(module):
    calls = [node.func for node in ast.walk(tree_of(MODULES[module])) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) != "video"])
def test_only_the_package_video_opens_videos(module):
    names = {node.attr for node in ast.walk(tree_of(MODULES[module])) if isinstance(node, ast.Attribute)}
    assert not names & {"VideoCapture", "VideoWriter"}


@pytest.mark.parametrize("module", MODULES)
def test_tensorflow_is_imported_inside_functions_only(module):
    tree = outside_functions(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    assert not {name for name in imports_of(tree) if name.partition(".")[0] == "tensorflow"}


def test_keras_is_imported_in_one_place():
    """It is guarded there; `keras.src` is what Keras does not offer elsewhere, after that."""
    users = {m: {x for x in imports_of(tree_of(path)) if x.split(".")[0] == "keras"} for m, path in MODULES.items()}
    assert {m for m, names in users.items() if any(not name.startswith("keras.src") for name in names)} == {
        "activity.models.backend"
    }


def heavy_imports(program, heavy):
    """Which of the heavy libraries a program has imported at its end."""
    program = f"import sys; {program}; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    return run.stdout.split()


def test_the_command_line_starts_without_heavy_imports():
    heavy = {"cv2", "keras", "numpy", "optuna", "sklearn", "tensorflow"}
    assert heavy_imports("import activity.reports.card, activity.cli.main", heavy) == []


def test_prediction_needs_no_keras_to_start():
    heavy = {"keras", "matplotlib", "sklearn", "tensorflow"}
    assert heavy_imports("import activity.predictor.predictor", heavy) == []


@pytest.mark.parametrize("module", [module for module in MODULES if not module.endswith("checkpoint")])
def test_json_has_no_word_for_what_is_no_number(module):
    """Python would write NaN, which no other reader takes; the state in a checkpoint is for ourselves."""
    calls = [node for node in ast.walk(tree_of(MODULES[module])) if isinstance(node, ast.Call)]
    dumps = [call for call in calls if ast.unparse(call.func) in ("json.dump", "json.dumps")]
    careless = [call.lineno for call in dumps if "allow_nan" not in {keyword.arg for keyword in call.keywords}]
    assert not careless
