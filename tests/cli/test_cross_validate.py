import json


def test_cross_validate(run, folder):
    recipe = ("--backbone", "small_cnn", "--units", 8, "--epochs", 2)
    status, out, _ = run("cross-validate", folder / "dataset", "--folds", "camera", "--json", *recipe)
    report = json.loads(out)
    assert status == 0
    assert set(report["folds"]) == {"left", "right"} and 0 <= report["baseline_accuracy"] <= 1
    low, high = report["intervals"]["accuracy"]
    assert low <= report["accuracy"] <= high and report["expected_calibration_error"] >= 0


def test_the_films_of_each_fold_are_labelled_whole(run, film_dataset, cnn_weights, tmp_path):
    recipe = ("--backbone", "small_cnn", "--weights", cnn_weights, "--head", "pooled", "--epochs", 2)
    command = ("cross-validate", film_dataset.dataset_dir, "--folds", 2, *recipe)
    status, out, _ = run(*command, "--json", "--out", tmp_path / "report")
    told = json.loads(out)
    assert status == 0 and len(told["films"]) == 8 and {film["fold"] for film in told["films"]} == {*told["folds"]}
    assert 0 <= told["frame_accuracy"] <= 1 and told["film_standard_errors"]["frame_accuracy"] >= 0
    table = (tmp_path / "report" / "films.csv").read_text().splitlines()
    assert len(table) == 9 and table[0].startswith("path,fold,")
    status, out, _ = run(*command, "--no-films")
    assert status == 0 and "film" not in out
