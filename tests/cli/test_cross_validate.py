import json


def test_cross_validate(run, folder):
    recipe = ("--backbone", "small_cnn", "--units", 8, "--epochs", 2)
    status, out, _ = run("cross-validate", folder / "dataset", "--folds", "camera", "--json", *recipe)
    report = json.loads(out)
    assert status == 0
    assert set(report["folds"]) == {"left", "right"} and 0 <= report["baseline_accuracy"] <= 1
    low, high = report["intervals"]["accuracy"]
    assert low <= report["accuracy"] <= high and report["expected_calibration_error"] >= 0
