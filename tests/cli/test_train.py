import csv


def test_train_writes_a_model_a_log_and_the_learning_curves(folder):
    assert (folder / "model.keras").stat().st_size > 10_000
    with (folder / "model.training" / "scratch" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "waiting_seconds"}
    assert (folder / "model.training" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_train_refuses_an_unknown_backbone(run, folder, tmp_path):
    model = tmp_path / "m.keras"
    status, _, err = run("train", folder / "dataset", "--out", model, "--backbone", "vgg")
    assert status == 2 and err.endswith("; did you mean 'vgg19'?\n")
    assert not model.exists()


def test_a_model_of_feature_files_from_end_to_end(run, ramp_dataset, ramp_features, tmp_path):
    """Train, evaluate and classify by the command line; what has no use with features is named."""
    data, model = ramp_dataset.dataset_dir, tmp_path / "m.keras"
    recipe = ("--head", "pooled", "--epochs", "2", "--features", ramp_features)
    idle = ("--backbone", "vgg16", "--streams", "rgb", "--runtime", "keras")
    status, _, err = run("train", data, "--out", model, *recipe, *idle)
    assert status == 0
    for name in ("backbone", "streams", "runtime"):
        assert err.count(f"--{name} does nothing with --features") == 1
    status, out, _ = run("evaluate", model, data, "--features", ramp_features, "--out", tmp_path / "report")
    assert status == 0 and "accuracy" in out
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "6 evenly spaced rows of 5 features" in page and "training.features" in page and "Mistakes" in page
    status, out, err = run("classify", model, ramp_features / "darkens", "--timeline", "--out", tmp_path / "timelines")
    assert status == 0 and "rows are taken for a second, the median of training" in err
    assert len([line for line in out.splitlines() if ".npy  " in line]) == 16
    assert (tmp_path / "timelines" / "p0_0.png").is_file()


def test_feature_files_are_checked_before_the_work(run, one_line, ramp_dataset, ramp_features, tmp_path):
    data = ramp_dataset.dataset_dir
    some = tmp_path / "some"
    some.mkdir()
    (some / "p0_0.npy").write_bytes((ramp_features / "darkens" / "p0_0.npy").read_bytes())
    for words in (["train", data, "--out", tmp_path / "m.keras"], ["cross-validate", data], ["tune", data]):
        status, _, err = run(*words, "--features", some)
        assert status == 1 and "no feature file for" in one_line(err)
    assert not (tmp_path / "m.training").exists()
