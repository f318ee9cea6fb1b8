"""What is refused before Keras or TensorFlow is imported, so in a moment."""

import json
import shlex
import subprocess
import sys
import zipfile

import pytest

from activity.cli.main import main
from activity.config import ClipSpec, as_dict
from activity.files import note_results

# command line, exit status, what the line says
REFUSED = [
    ("train d --out m.h5", 1, "m.h5: the name of a model file must end in .keras"),
    ("train d --out folder.keras", 1, "folder.keras: a folder has this name"),
    (
        "train d --out text.keras",
        1,
        "text.keras: exists and is not a model file of ours, so it is not replaced; choose another name",
    ),
    ("train d --out other.keras", 1, "other.keras: exists and is not a model file of ours"),
    ("train d --out file/m.keras", 1, "file: a file has this name; expected a folder"),
    ("train nowhere --out new.keras", 1, "nowhere: not a data set folder"),
    (
        "train c --out new.keras",
        1,
        "c: it has captions and no labels; expected labels of activities; captions are for: ",
    ),
    ("evaluate m.keras c", 1, "c: it has captions and no labels"),
    ("update m.keras c --out new.keras", 1, "c: it has captions and no labels"),
    (
        "update cap.keras c --out new.keras",
        1,
        "cap.keras: expected a model that labels activities, and this one writes sentences; try: activity describe",
    ),
    ("cross-validate c", 1, "c: it has captions and no labels"),
    ("tune c", 1, "c: it has captions and no labels"),
    ("train d --out new.keras --streams rgb,motion", 1, "d: has no stream motion; it was made with rgb"),
    (
        "train d --out new.keras --weights none.h5",
        1,
        "none.h5: no such weights file; expected a path, imagenet or none",
    ),
    ("train d --out new.keras --weights imagenet --backbone small_cnn", 1, "small_cnn has no ImageNet weights"),
    ("train d --out new.keras --epochs 0", 2, "--epochs must be 1 or more, received: 0"),
    ("train d --out new.keras --head pool", 2, "did you mean 'pooled'?"),
    ("train d --out new.keras --runtime onnx", 1, "the runtime onnx needs onnxruntime, which is not installed"),
    ("update nowhere.keras d --out new.keras", 1, "nowhere.keras: no such model file"),
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
    (
        "cross-validate d --folds 7",
        1,
        "folds need two or more groups, and videos of some label; received 3 groups, and at",
    ),
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
    ("classify m.keras a.mp4 --csv d/a.csv --out d", 1, "both a table of predictions and a timeline would have this"),
    (
        "classify m.keras a.mp4 --csv new --out new",
        1,
        "new: both a table and a folder would have this name; expected two",
    ),
    ("classify m.keras a.mp4 --explain new --out new", 1, "both a timeline and an explanation would have this name"),
    ("info text.keras", 1, "text.keras: not a model file, or cut off"),
    ("serve nowhere.keras", 1, "nowhere.keras: no such model file"),
    ("serve m.keras --examples none.mp4", 1, "none.mp4: no such file; expected a video to show as an example"),
    ("demo --out file", 1, "file: a file has this name; expected a folder"),
    ("train d --out text.keras --overwrite", 1, "text.keras: exists and is not a model file of ours"),
    (
        "train d --out m.keras",
        1,
        "m.keras: exists, a model file of ours; replace it with --overwrite, or choose another",
    ),
    (
        "train d --out begun.keras",
        1,
        "begun.training: exists, the state of a training of ours; continue it with --resume",
    ),
    (
        "train d --out foreign.keras --overwrite",
        1,
        "foreign.training: exists and is not the state of a training of ours",
    ),
    ("train d --out mixed.keras --overwrite", 1, "mixed.training: exists and is not the state of a training of ours"),
    (
        "train d --out hidden.keras --overwrite",
        1,
        "not the state of a training of ours, so it is not replaced: hidden.training/head/.mynotes",
    ),
    ("train d --out m.keras --resume", 1, "m.keras: exists, a model file of ours; replace it with --overwrite"),
    ("classify m.keras ''", 2, "a SOURCE must not be empty"),
    ("update m.keras d --out m.keras", 1, "m.keras: exists, a model file of ours; replace it with --overwrite"),
    (
        "evaluate m.keras d --out notes --overwrite",
        1,
        "notes: exists and is not a report of ours, so it is not replaced",
    ),
    ("evaluate m.keras d --out report", 1, "report: exists, a report of ours; replace it with --overwrite"),
    ("evaluate m.keras d --out changed --overwrite", 1, "changed: exists and is not a report of ours"),
    ("cross-validate d --out notes", 1, "notes: exists and is not a report of ours"),
    ("tune d --out searched --overwrite", 1, "searched/trials.csv: exists and is not a result of a search of ours"),
    (
        "classify m.keras a.mp4 --csv precious.avi --overwrite",
        1,
        "precious.avi: exists and is not a table of predictions",
    ),
    (
        "classify m.keras a.mp4 --csv old.csv",
        1,
        "old.csv: exists, a table of predictions of ours; replace it with --over",
    ),
    (
        "classify m.keras a.mp4 --csv foreign.csv --overwrite",
        1,
        "foreign.csv: exists and is not a table of predictions",
    ),
    ("classify m.keras a.mp4 --out notes --overwrite", 1, "notes/a.srt: exists and is not a timeline of ours"),
    (
        "classify m.keras a.mp4 --annotate notes --overwrite",
        1,
        "notes/a.mp4: exists and is not an annotated video of ours",
    ),
    ("classify m.keras a.mp4 --explain notes", 1, "notes/a.png: exists and is not an explanation of ours"),
    ("export m.keras --format savedmodel --out notes --overwrite", 1, "notes: holds something else than a SavedModel"),
    (
        "export m.keras --format savedmodel --out used --overwrite",
        1,
        "used: exists and is not an exported model of ours, so it is not replaced: used/.env; choose another name",
    ),
    ("export m.keras --format savedmodel --out saved", 1, "saved: exists, an exported model of ours; replace it with"),
    (
        "export m.keras --format openvino --out old.xml",
        1,
        "old.xml: exists, an exported model of ours; replace it with",
    ),
    (
        "export m.keras --format openvino --out a.xml --overwrite",
        1,
        "a.bin: exists and is not an exported model of ours",
    ),
    ("demo --out notes", 1, "notes: exists and is not a folder of the demo of ours"),
    ("preprocess folder.keras --out notes", 1, "notes: exists and is not a data set of ours"),
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


def write_model(path, registered_name, **learned):
    with zipfile.ZipFile(path, "w") as file:
        config = {"format_version": 3, "spec": as_dict(ClipSpec(streams=("rgb",))), "record": {}, **learned}
        config |= {"clip_seconds": 1.0, "window_seconds": 1.0, "threshold": 0.0}
        file.writestr("model.weights.h5", b"")
        file.writestr("config.json", json.dumps({"registered_name": registered_name, "config": config}))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Command line -> exit status, stderr, heavy libraries that were imported by then, seconds."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "folder.keras").mkdir()
    (folder / "file").touch()
    (folder / "text.keras").write_text("text")
    write_model(folder / "m.keras", "activity>ActivityClassifier", labels=["a", "b"])
    write_model(folder / "cap.keras", "activity>ActivityCaptioner", labels=[], words=["a"], max_words=9)
    write_model(folder / "other.keras", None)
    for name in ("notes/a.srt", "notes/a.mp4", "notes/a.png", "searched/trials.csv", "foreign.training/x", "a.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of the user")
    (folder / "precious.avi").write_text("of the user")
    (folder / "foreign.csv").write_text("source,label\n")
    (folder / "old.csv").write_text("source,label,probability,duration_seconds,error\n")
    state = {"backbone": "small_cnn", "head": "lstm", "dataset": "0"}
    for folder_, files in {
        "begun.training": [],
        "mixed.training": ["scratch/thesis.txt"],
        "hidden.training": ["head/.mynotes"],
    }.items():
        for name in files:
            (folder / folder_ / name).parent.mkdir(parents=True)
            (folder / folder_ / name).write_text("of the user")
        (folder / folder_).mkdir(exist_ok=True)
        (folder / folder_ / "config.json").write_text(json.dumps(state))
    for name in ("saved/network.json", "used/network.json", "old.xml.json", "old.xml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('{"format_version": 2}')
        note_results([folder / name])
    (folder / "used" / ".env").write_text("of the user")
    note_results([folder / "old.csv"])
    for name in ("report", "changed"):
        (folder / name).mkdir()
        (folder / name / "report.html").write_text("scores")
        note_results([folder / name / "report.html"])
    (folder / "changed" / "report.html").write_text("scores, and what the user thinks of them")
    (folder / "d").mkdir()
    about = {"format_version": 2, "spec": as_dict(ClipSpec(streams=("rgb",))), "videos_dir": "videos"}
    (folder / "d" / "dataset.json").write_text(json.dumps(about))
    splits = {"a": "train", "b": "train", "c": "test"}
    rows = [f"{name},{name}.avi,{name},{name},{split},16,1.0" for name, split in splits.items()]
    header = "sample_id,path,label,group,split,num_frames,duration_seconds"
    (folder / "d" / "manifest.csv").write_text("\n".join([header, *rows, ""]))
    (folder / "c").mkdir()
    (folder / "c" / "dataset.json").write_text(json.dumps(about))
    (folder / "c" / "manifest.csv").write_text(f"{header}\na,a.avi,,a,train,16,1.0\n")
    (folder / "c" / "captions.csv").write_text("sample_id,caption\na,a dog\n")
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
    assert main(["train", str(tmp_path / "nowhere"), "--out", str(tmp_path / "m.keras"), "--overwrite"]) == 1
    assert "nowhere: not a data set folder" in capsys.readouterr().err
