import keras
import numpy as np
import pytest

from activity.files import read_csv
from activity.models.heads import HeadOptions, build_head
from activity.training.checkpoint import Checkpoint


@pytest.fixture
def model():
    head = build_head("lstm", HeadOptions(units=4, dropout=0.0), num_features=3, num_labels=2)
    head.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return head


def checkpoint_of(tmp_path, num_epochs, seconds_between_saves=0):
    return Checkpoint(tmp_path / "head", num_epochs, seconds_between_saves=seconds_between_saves)


def run_epochs(checkpoint, model, num_epochs, first=0):
    """As training calls it: each epoch moves the weights."""
    for epoch in range(first, first + num_epochs):
        model.set_weights([weight + 1 for weight in model.get_weights()])
        checkpoint.end_epoch(model, {"epoch": epoch, "loss": 1.0, "accuracy": 0.5})


def same(a, b):
    return all(np.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))


def test_another_process_goes_on_where_this_one_was(tmp_path, model):
    first = checkpoint_of(tmp_path, 5)
    assert first.begin(model) == 0
    run_epochs(first, model, 3)
    latest = model.get_weights()
    model.set_weights([weight * 0 for weight in latest])
    second = checkpoint_of(tmp_path, 5)
    assert second.begin(model) == 3 and not second.finished
    assert same(model.get_weights(), latest)
    run_epochs(second, model, 1, first=3)
    assert [row["epoch"] for row in read_csv(tmp_path / "head" / "log.csv")] == ["0", "1", "2", "3"]


def test_a_stage_is_finished_after_its_epochs(tmp_path, model):
    checkpoint = checkpoint_of(tmp_path, 2)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    assert not checkpoint.finished
    run_epochs(checkpoint, model, 1, first=1)
    assert checkpoint.finished and checkpoint_of(tmp_path, 2).finished


def test_between_saves_nothing_is_written_but_the_end_always_is(tmp_path, model):
    checkpoint = checkpoint_of(tmp_path, 3, seconds_between_saves=3600)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 2)
    assert checkpoint_of(tmp_path, 3).begin(model) == 0
    run_epochs(checkpoint, model, 1, first=2)
    assert checkpoint_of(tmp_path, 3).finished


@pytest.mark.parametrize("damage", [b"", b"half a file"])
def test_what_cannot_be_read_begins_anew_and_says_so(tmp_path, model, caplog, damage):
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    (tmp_path / "head" / "latest.weights.h5").write_bytes(damage)
    again = checkpoint_of(tmp_path, 5)
    assert "cannot be read, this stage starts from the beginning" in caplog.text
    assert again.begin(model) == 0


def test_a_kill_while_saving_leaves_the_last_file_whole(tmp_path, model, monkeypatch):
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    whole = (tmp_path / "head" / "latest.weights.h5").read_bytes()

    def half(self, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save_weights", half)
    with pytest.raises(KeyboardInterrupt):
        run_epochs(checkpoint, model, 1, first=1)
    assert (tmp_path / "head" / "latest.weights.h5").read_bytes() == whole
