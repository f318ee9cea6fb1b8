import subprocess
import sys

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


def flipped(content):
    """One bit is another."""
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


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


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], flipped])
def test_what_is_damaged_is_trained_again_and_that_is_said(tmp_path, model, caplog, damage):
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    latest = tmp_path / "head" / "latest.npz"
    latest.write_bytes(damage(latest.read_bytes()))
    again = checkpoint_of(tmp_path, 5)
    assert "this stage is trained again" in caplog.text
    assert again.begin(model) == 0


def test_a_state_of_another_shape_is_not_used(tmp_path, model, caplog):
    """As another version of Keras may write it: its optimizer has other variables."""
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    other = build_head("lstm", HeadOptions(units=5), num_features=3, num_labels=2)
    other.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    assert checkpoint_of(tmp_path, 5).begin(other) == 0
    assert "of another version of Keras; this stage is trained again" in caplog.text


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], lambda content: b"PK" * 99])
def test_damage_is_noticed_without_a_digest_too(tmp_path, model, caplog, damage):
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    (tmp_path / "head" / "digests.txt").unlink()
    latest = tmp_path / "head" / "latest.npz"
    latest.write_bytes(damage(latest.read_bytes()))
    assert checkpoint_of(tmp_path, 5).begin(model) == 0 and "this stage is trained again" in caplog.text


def test_a_kill_while_saving_leaves_the_last_file_whole(tmp_path, model, monkeypatch):
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    whole = (tmp_path / "head" / "latest.npz").read_bytes()

    def half(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        run_epochs(checkpoint, model, 1, first=1)
    assert (tmp_path / "head" / "latest.npz").read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="no rlimit")
def test_on_a_full_disk_the_last_file_stays_whole(tmp_path, model):
    """A limit on the size of files stands for it; in a process of its own, which must not crash at its end."""
    checkpoint = checkpoint_of(tmp_path, 5)
    checkpoint.begin(model)
    run_epochs(checkpoint, model, 1)
    code = f"""
import resource, signal
from pathlib import Path
from activity.models.heads import HeadOptions, build_head
from activity.training.checkpoint import Checkpoint
model = build_head("lstm", HeadOptions(units=4, dropout=0.0), num_features=3, num_labels=2)
model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
checkpoint = Checkpoint(Path({str(tmp_path / "head")!r}), 5, seconds_between_saves=0)
assert checkpoint.begin(model) == 1
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    checkpoint.end_epoch(model, {{"epoch": 1, "loss": 1.0, "accuracy": 0.5}})
except OSError as error:
    print(error.strerror, error.filename)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert (run.returncode, run.stdout) == (0, f"File too large {tmp_path / 'head' / 'latest.npz'}\n"), run.stderr
    assert len(checkpoint_of(tmp_path, 5).rows) == 1
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == ["digests.txt", "latest.npz", "log.csv"]
