import json


def test_evaluate_for_people_and_for_programs(run, folder):
    status, out, _ = run("evaluate", folder / "model.keras", folder / "dataset", "--out", folder / "report")
    assert status == 0 and "confusion (rows true, columns predicted)" in out
    assert {path.name for path in (folder / "report").iterdir()} >= {"report.html", "mistakes.png", "scores.json"}
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "model.keras" in page and "training.backbone" in page
    status, out, _ = run("evaluate", folder / "model.keras", folder / "dataset", "--json")
    report = json.loads(out)
    assert status == 0
    assert set(report) == {"accuracy", "top_k", "macro_f1", "per_class", "labels", "confusion", "coverage", "precision"}
    assert report["labels"] == ["brightens", "darkens"]


def test_a_model_that_may_not_know_says_how_often_it_answers(run, folder, cnn_weights, tmp_path):
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--head", "pooled", "--epochs", "2")
    model = tmp_path / "careful.keras"
    status, out, _ = run("train", folder / "dataset", "--out", model, *recipe, "--precision", "0.9")
    assert status == 0
    _, out, _ = run("evaluate", model, folder / "dataset", "--json")
    scores = json.loads(out)
    assert 0 <= scores["coverage"] <= 1
    assert scores["precision"] is None if scores["coverage"] == 0 else 0 <= scores["precision"] <= 1
