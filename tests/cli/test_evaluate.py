import dataclasses
import json
import shutil

import numpy as np
import pytest

from activity.datasets.dataset import load_dataset
from activity.datasets.preprocessing import preprocess
from activity.evaluation.evaluator import evaluate
from activity.files import lock_folder
from activity.models.classifier import load_classifier
from activity.models.saving import save_model


def test_evaluate_for_people_and_for_programs(run, folder):
    status, out, _ = run("evaluate", folder / "model.keras", folder / "dataset", "--out", folder / "report")
    assert status == 0 and "confusion (rows true, columns predicted)" in out
    assert {path.name for path in (folder / "report").iterdir()} >= {"report.html", "mistakes.png", "scores.json"}
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "model.keras" in page and "training.backbone" in page
    status, out, _ = run("evaluate", folder / "model.keras", folder / "dataset", "--json")
    report = json.loads(out)
    assert status == 0
    assert set(report) >= {"accuracy", "top_k", "macro_f1", "per_class", "labels", "confusion", "coverage", "precision"}
    assert report["labels"] == ["brightens", "darkens"]
    assert report == json.loads((folder / "report" / "scores.json").read_text())


def test_the_baseline_stands_beside_the_accuracy_and_can_be_left_out(run, folder, tmp_path):
    command = ("evaluate", folder / "model.keras", folder / "dataset")
    status, out, _ = run(*command, "--out", tmp_path / "report")
    assert status == 0 and "baseline         accuracy " in out and "95 % interval    accuracy " in out
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "baseline accuracy" in page and "Intervals are of 95 %, by bootstrap over " in page
    status, out, err = run(*command, "--no-baseline")
    assert status == 0 and "baseline" not in out + err
    status, out, err = run(*command, "--split", "train", "--json")
    assert status == 0 and json.loads(out)["baseline_accuracy"] is None
    assert "no baseline: the model was trained on the split train" in err


def test_a_report_is_written_by_one_command_at_a_time(run, folder, tmp_path, one_line):
    with lock_folder(tmp_path / "report", "cross-validate"):
        status, out, err = run("evaluate", folder / "model.keras", folder / "dataset", "--out", tmp_path / "report")
        assert status == 1 and "accuracy" in out
        assert "report: in use by another command (cross-validate, process" in one_line(err.splitlines(True)[-1])
    with lock_folder(tmp_path / "demo", "demo"):
        status, _, err = run("demo", "--out", tmp_path / "demo")
    assert status == 1 and "demo: in use by another command (demo, process" in one_line(err)


def test_a_model_that_may_not_know_says_how_often_it_answers(run, folder, cnn_weights, tmp_path):
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--head", "pooled", "--epochs", "2")
    model = tmp_path / "careful.keras"
    status, out, _ = run("train", folder / "dataset", "--out", model, *recipe, "--precision", "0.9")
    assert status == 0
    classifier = load_classifier(model)
    scores = evaluate(classifier, load_dataset(folder / "dataset"), runtime="keras").scores
    for threshold in (float(np.median(scores.confidences)), 1.1):  # some are answered, and none
        classifier.info = dataclasses.replace(classifier.info, threshold=threshold)
        save_model(classifier, model)
        _, out, _ = run("evaluate", model, folder / "dataset", "--json", "--runtime", "keras")
        told, answered = json.loads(out), scores.confidences >= threshold
        assert told["coverage"] == pytest.approx(answered.mean())
        assert told["precision"] == (pytest.approx(scores.correct[answered].mean()) if threshold < 1 else None)
    assert 0 < (scores.confidences >= np.median(scores.confidences)).mean() < 1


def test_a_class_called_unknown_is_not_taken_for_no_answer(run, ramp_videos, ramp_model, tmp_path):
    videos = shutil.copytree(ramp_videos, tmp_path / "videos")
    manifest = (videos / "manifest.csv").read_text()
    (videos / "manifest.csv").write_text(manifest.replace(",darkens,", ",unknown,"))
    classifier = load_classifier(ramp_model)
    classifier.info = dataclasses.replace(classifier.info, labels=("brightens", "unknown"), threshold=0.8)
    preprocess(videos, tmp_path / "dataset", classifier.spec, num_workers=1)
    model = save_model(classifier, tmp_path / "model.keras")
    status, out, _ = run("evaluate", model, tmp_path / "dataset", "--runtime", "keras")
    assert status == 0 and '"no answer" below 0.800: ' in out and '"unknown" below' not in out


def test_whole_films_are_evaluated_where_labels_have_times(run, film_videos, cnn_weights, tmp_path):
    dataset, model, report = tmp_path / "dataset", tmp_path / "model.keras", tmp_path / "report"
    videos = shutil.copytree(film_videos, tmp_path / "videos")
    assert run("preprocess", videos, "--out", dataset, "--num-frames", "6", "--size", "32", "--workers", "1")[0] == 0
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--head", "pooled", "--epochs", "2")
    assert run("train", dataset, "--out", model, *recipe)[0] == 0
    status, out, _ = run("evaluate", model, dataset, "--json", "--out", report)
    told = json.loads(out)
    assert status == 0 and told == json.loads((report / "scores.json").read_text())
    assert 0 <= told["frame_accuracy"] <= 1 and 0 <= told["frame_macro_f1"] <= 1 and 0 <= told["edit_score"] <= 1
    assert set(told["segment_f1"]) == {"10", "25", "50"} and set(told["mean_average_precision"]) == {"0.5", "0.75"}
    assert [film["path"] for film in told["films"]] == [f"film_{i}.avi" for i in range(4)]
    assert set(told["films"][0]) >= {"frame_accuracy", "frame_macro_f1", "segment_f1", "edit_score"}
    assert told["film_standard_errors"]["frame_accuracy"] >= 0 and told["films_left_out"] == []
    assert {path.name for path in (report / "films").glob("[!.]*")} == {f"film_{i}.png" for i in range(4)}
    assert (report / "films.csv").read_text().count("\n") == 5
    (videos / "film_0.avi").unlink()
    status, out, err = run("evaluate", model, dataset, "--out", report, "--overwrite")
    assert status == 0 and "\nfilms            frame accuracy " in out and "1 film left out" in out
    assert err.count("not evaluated as a film") == 1 and f"{videos / 'film_0.avi'}: not evaluated as a film" in err
    assert not (report / "films" / "film_0.png").exists()
    status, out, err = run("evaluate", model, dataset, "--json", "--no-films")
    assert status == 0 and not {"films", "frame_accuracy"} & set(json.loads(out)) and "film" not in err


def test_where_no_label_has_times_nothing_is_said_of_films(run, folder):
    status, out, err = run("evaluate", folder / "model.keras", folder / "dataset", "--json")
    assert status == 0 and "film" not in err and not {"films", "frame_accuracy", "edit_score"} & set(json.loads(out))
