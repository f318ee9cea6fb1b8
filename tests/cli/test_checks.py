"""What is refused before Keras or TensorFlow is imported, so in a moment."""

import json
import shlex
import subprocess
import sys
import zipfile

import pytest

from activity.cli.main import main
from activity.config import ClipSpec, as_dict

# command line, exit status, what the line says
REFUSED = [
    ("train d --out m.h5", 1, "m.h5: the name of a model file must end in .keras"),
    ("train d --out folder.keras", 1, "folder.keras: a folder has this name"),
    ("train d --out text.keras", 1, "text.keras: exists and is no model of ours"),
    ("train d --out other.keras", 1, "other.keras: exists and is no model of ours"),
    ("train d --out file/m.keras", 1, "file: a file has this name; expected a folder"),
    ("train nowhere --out m.keras", 1, "nowhere: not a data set folder"),
    ("train d --out m.keras --streams rgb,motion", 1, "d: has no stream motion; it was made with rgb"),
    ("train d --out m.keras --weights none.h5", 1, "none.h5: no such weights file; expected a path, imagenet or none"),
    ("train d --out m.keras --weights imagenet --backbone small_cnn", 1, "small_cnn has no ImageNet weights"),
    ("train d --out m.keras --epochs 0", 2, "--epochs must be 1 or more, received: 0"),
    ("train d --out m.keras --head pool", 2, "did you mean 'pooled'?"),
    ("train d --out m.keras --runtime onnx", 1, "the runtime onnx needs onnxruntime, which is not installed"),
    ("update nowhere.keras d --out m.keras", 1, "nowhere.keras: no such model file"),
    ("update m.keras d --out m.h5", 1, "m.h5: the name of a model file must end in .keras"),
    ("update d m.keras --out n.keras", 2, "swapped; expected: activity update m.keras d"),
    ("update m.keras d --out n.keras --scheme retrain --replay 3", 1, "replay must be 1 or more videos a label, "),
    ("update m.keras d --out n.keras --learning-rate 0", 2, "argument --learning-rate: must be 1e-09 to 9.9"),
    ("evaluate d m.keras", 2, "model and data set are swapped; expected: activity evaluate m.keras d"),
    ("evaluate m.keras d --out file", 1, "file: a file has this name; expected a folder"),
    ("evaluate m.keras d --split val", 1, "d: its manifest.csv has no samples in the split 'val'"),
    ("evaluate m.keras d --runtime onnx", 1, "the runtime onnx needs onnxruntime, which is not installed"),
    ("evaluate nowhere.keras d", 1, "nowhere.keras: no such model file"),
    ("evaluate text.keras d", 1, "text.keras: not a model file, or cut off"),
    ("evaluate other.keras d", 1, "other.keras: a Keras model, but not one of ours"),
    ("cross-validate d --out file/report", 1, "file: a file has this name; expected a folder"),
    ("cross-validate d --folds camera", 1, "the manifest has no column 'camera'; expected a number, groups, or one of"),
    ("cross-validate d --folds 7", 1, "expected 2 to 3 folds (the number of groups), received 7"),
    ("tune d --folds camera", 1, "the manifest has no column 'camera'"),
    ("tune d --study file/tuning.log", 1, "file: a file has this name; expected a folder"),
    ("tune d --weights none.h5", 1, "none.h5: no such weights file"),
    ("classify nowhere.keras a.mp4", 1, "nowhere.keras: no such model file"),
    ("classify text.keras a.mp4", 1, "text.keras: not a model file, or cut off"),
    ("classify m.keras a.mp4 --csv folder.keras", 1, "folder.keras: a folder has this name"),
    ("classify m.keras a.mp4 --csv none/a.csv", 1, "none/a.csv: there is no folder none"),
    ("classify m.keras a.mp4 --runtime onnx", 1, "the runtime onnx needs onnxruntime, which is not installed"),
    ("export m.keras --format openvino --out m.onnx", 1, "m.onnx: the name of a file for openvino must end in .xml"),
    ("export m.keras --format savedmodel --out file", 1, "file: holds something else than a SavedModel of ours"),
    ("export m.keras --format savedmodel --out file/m", 1, "file: a file has this name; expected a folder"),
    ("export m.keras --format onnx --out m.onnx", 1, "to export to onnx, onnxruntime must be installed"),
    ("export nowhere.keras --format savedmodel --out m", 1, "nowhere.keras: no such model file"),
    (
        "export m.keras --format savedmodel --out m --check a.mp4",
        1,
        "a.mp4: no such file; expected a video",
    ),
    ("info text.keras", 1, "text.keras: not a model file, or cut off"),
    ("serve nowhere.keras", 1, "nowhere.keras: no such model file"),
    ("serve m.keras --examples none.mp4", 1, "none.mp4: no such file; expected a video to show as an example"),
    ("demo --out file", 1, "file: a file has this name; expected a folder"),
    ("preprocess nowhere --out new", 1, "nowhere: no such file or folder"),
    ("preprocess folder.keras --out file", 1, "file: a file has this name; expected a folder"),
]

PROGRAM = """
import contextlib, io, json, sys, time
from activity.cli.main import main
sys.modules["onnxruntime"] = None  # as if it were not installed
found = []
for words in json.load(sys.stdin):
    began, said = time.monotonic(), io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    heavy = sorted({"keras", "tensorflow", "jax", "torch"} & set(sys.modules))
    found.append((status, said.getvalue(), heavy, time.monotonic() - began))
json.dump(found, sys.stdout)
"""


def write_model(path, registered_name):
    with zipfile.ZipFile(path, "w") as file:
        config = {"format_version": 3, "spec": as_dict(ClipSpec(streams=("rgb",))), "labels": ["a", "b"], "record": {}}
        config |= {"clip_seconds": 1.0, "window_seconds": 1.0, "threshold": 0.0}
        file.writestr("config.json", json.dumps({"registered_name": registered_name, "config": config}))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Command line -> exit status, stderr, heavy libraries that were imported by then, seconds."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "folder.keras").mkdir()
    (folder / "file").touch()
    (folder / "text.keras").write_text("text")
    write_model(folder / "m.keras", "activity>ActivityClassifier")
    write_model(folder / "other.keras", None)
    (folder / "d").mkdir()
    about = {"format_version": 2, "spec": as_dict(ClipSpec(streams=("rgb",))), "videos_dir": "videos"}
    (folder / "d" / "dataset.json").write_text(json.dumps(about))
    splits = {"a": "train", "b": "train", "c": "test"}
    rows = [f"{name},{name}.avi,{name},{name},{split},16,1.0" for name, split in splits.items()]
    header = "sample_id,path,label,group,split,num_frames,duration_seconds"
    (folder / "d" / "manifest.csv").write_text("\n".join([header, *rows, ""]))
    lines = [line for line, *_ in REFUSED]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([shlex.split(line) for line in lines]),
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    return dict(zip(lines, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("line", "status", "message"), REFUSED, ids=[line for line, *_ in REFUSED])
def test_it_is_refused_before_anything_heavy_is_imported(answers, line, status, message):
    received, said, heavy, _ = answers[line]
    assert received == status and message in said.splitlines()[-1]
    assert not heavy


def test_it_is_refused_in_a_moment(answers):  # importing Keras and TensorFlow takes 8 s and more
    assert {line: seconds for line, (*_, seconds) in answers.items() if seconds > 2} == {}


@pytest.mark.parametrize("words", [("train", "d", "--out", "new/m.keras"), ("cross-validate", "d", "--out", "new")])
def test_a_folder_that_cannot_be_written_to(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # no mode of a file stops root
    assert main(words) == 1
    assert capsys.readouterr().err == "activity: .: this folder cannot be written to\n"


def test_a_model_of_ours_may_be_replaced(tmp_path, capsys):
    write_model(tmp_path / "m.keras", "activity>ActivityClassifier")
    assert main(["train", str(tmp_path / "nowhere"), "--out", str(tmp_path / "m.keras")]) == 1
    assert "nowhere: not a data set folder" in capsys.readouterr().err
