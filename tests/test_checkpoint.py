import keras
import numpy as np
import pytest

from activity.batches import ClipBatches
from activity.checkpoint import BEFORE_FIRST_EPOCH, Checkpoint
from activity.heads import build_head
from activity.store import read_csv

RNG = np.random.default_rng(0)


@pytest.fixture
def model():
    head = build_head("lstm", num_features=3, num_labels=2, units=4, dropout=0.0)
    head.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return head


@pytest.fixture
def batches():
    stacks = [RNG.random((4, 3), np.float32) for _ in range(4)]
    return ClipBatches(stacks, [0, 1, 0, 1], num_frames=4, name="features", batch_size=4)


def run_epochs(checkpoint, model, losses, first=0):
    """As `fit` calls it: each epoch moves the weights, then has a validation loss."""
    checkpoint.set_model(model)
    checkpoint.on_train_begin()
    for epoch, loss in enumerate(losses, first):
        model.set_weights([weight + 1 for weight in model.get_weights()])
        checkpoint.on_epoch_end(epoch, {"loss": 1.0, "accuracy": 0.5, "val_loss": loss, "val_accuracy": 0.5})


def same(a, b):
    return all(np.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))


def test_the_best_epoch_is_restored(tmp_path, model, batches):
    checkpoint = Checkpoint(tmp_path / "head", patience=3)
    assert checkpoint.begin(model, batches) == 0
    start = model.get_weights()
    run_epochs(checkpoint, model, [0.5, 0.3, 0.4])
    checkpoint.restore(model)
    assert same(model.get_weights(), [weight + 2 for weight in start])
    assert checkpoint.state["best_epoch"] == 1


@pytest.mark.parametrize("loss", [9.0, float("nan")])
def test_a_stage_that_only_harms_leaves_no_trace(tmp_path, model, batches, loss):
    checkpoint = Checkpoint(tmp_path / "head", patience=3)
    checkpoint.begin(model, batches)
    start = model.get_weights()
    run_epochs(checkpoint, model, [loss, loss])
    checkpoint.restore(model)
    assert same(model.get_weights(), start)
    assert checkpoint.state["best_epoch"] == BEFORE_FIRST_EPOCH


def test_random_weights_never_win_but_nan_never_does_either(tmp_path, model):
    checkpoint = Checkpoint(tmp_path / "head", patience=3)
    checkpoint.begin(model, None)
    start = model.get_weights()
    run_epochs(checkpoint, model, [float("nan"), 9.0, float("nan")])
    checkpoint.restore(model)
    assert same(model.get_weights(), [weight + 2 for weight in start])
    assert checkpoint.state["best_epoch"] == 1


def test_another_process_goes_on_where_this_one_was(tmp_path, model, batches):
    first = Checkpoint(tmp_path / "head", patience=3)
    first.begin(model, batches)
    run_epochs(first, model, [0.5, 0.3, 0.4])
    latest = model.get_weights()
    model.set_weights([weight * 0 for weight in latest])
    second = Checkpoint(tmp_path / "head", patience=3)
    assert second.begin(model, batches) == 3
    assert same(model.get_weights(), latest)
    run_epochs(second, model, [0.35], first=3)
    assert (second.best, second.wait, second.best_epoch) == (0.3, 2, 1)
    assert [row["epoch"] for row in read_csv(tmp_path / "head" / "log.csv")] == ["0", "1", "2", "3"]


def test_a_stage_is_finished_when_patience_or_epochs_are_used_up(tmp_path, model, batches):
    checkpoint = Checkpoint(tmp_path / "head", patience=2)
    assert not checkpoint.finished(10)
    checkpoint.begin(model, batches)
    run_epochs(checkpoint, model, [0.5, 0.6])
    assert not checkpoint.finished(10) and checkpoint.finished(2)
    run_epochs(checkpoint, model, [0.6], first=2)
    assert checkpoint.finished(10)
    assert not Checkpoint(tmp_path / "head", patience=5).finished(10)


@pytest.mark.parametrize("damage", [b"", b"half a file"])
def test_what_cannot_be_read_begins_anew_and_says_so(tmp_path, model, batches, caplog, damage):
    checkpoint = Checkpoint(tmp_path / "head", patience=3)
    checkpoint.begin(model, batches)
    run_epochs(checkpoint, model, [0.5])
    (tmp_path / "head" / "latest.weights.h5").write_bytes(damage)
    again = Checkpoint(tmp_path / "head", patience=3)
    assert "cannot be read, this stage begins anew" in caplog.text
    assert again.begin(model, batches) == 0


def test_a_kill_while_saving_leaves_the_last_file_whole(tmp_path, model, batches, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "head", patience=3)
    checkpoint.begin(model, batches)
    run_epochs(checkpoint, model, [0.5])
    whole = (tmp_path / "head" / "latest.weights.h5").read_bytes()

    def half(self, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save_weights", half)
    with pytest.raises(KeyboardInterrupt):
        run_epochs(checkpoint, model, [0.4], first=1)
    assert (tmp_path / "head" / "latest.weights.h5").read_bytes() == whole
