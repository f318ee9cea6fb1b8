"""The notebooks: each runs on its own in an empty folder, shows pictures, and repeats nothing of the others."""

import ast
import json
import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))
MOST_KILOBYTES = 400  # with outputs; they are part of the repository's history for ever
SECONDS_PER_NOTEBOOK = 900  # of patience; alone on two cores each takes one to three minutes

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_of(path):
    """The Python of a notebook, without the lines that are IPython's own."""
    lines = [line for cell in cells_of(path) if cell["cell_type"] == "code" for line in [*cell["source"], "\n"]]
    return "".join(line for line in lines if not line.startswith(("%", "!")))


def outputs_of(cells):
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def assert_good_outputs(cells):
    outputs = outputs_of(cells)
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert ["".join(o["text"]) for o in outputs if o.get("name") == "stderr"] == [], "notebooks are quiet"
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_at_most_three():
    assert 1 <= len(NOTEBOOKS) <= 3


@each_notebook
def test_it_begins_with_a_title(path):
    first = cells_of(path)[0]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")


def test_no_two_define_the_same_name():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [
        node.name
        for path in NOTEBOOKS
        for node in ast.walk(ast.parse(code_of(path), filename=path.name))
        if isinstance(node, kinds)
    ]
    assert sorted(names) == sorted(set(names)), "what two notebooks need belongs in the package"


@each_notebook
def test_it_is_stored_as_executed_from_top_to_bottom(path):
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert_good_outputs(code)


@each_notebook
def test_it_is_stored_small_and_without_traces_of_a_machine(path):
    assert path.stat().st_size < 1000 * MOST_KILOBYTES
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(cell["metadata"] for cell in notebook["cells"])
    texts = ["".join(output.get("text", "")) for output in outputs_of(notebook["cells"])]
    assert not [text for text in texts if str(Path.home()) in text or os.sep + "site-packages" in text]


@pytest.mark.slow
@each_notebook
def test_it_runs_alone_in_an_empty_folder(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")  # bars show on stderr where a machine is slow
    reason = "executing notebooks needs the extra 'notebooks'"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_PER_NOTEBOOK,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    assert_good_outputs(client.execute()["cells"])
