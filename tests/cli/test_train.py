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
