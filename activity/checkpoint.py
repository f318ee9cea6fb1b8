"""Training that can be killed at any point: its state on disk, and the best weights so far."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import h5py
import keras

from activity.batches import ClipBatches
from activity.store import write_csv

BEFORE_FIRST_EPOCH = -1

_logger = logging.getLogger(__name__)


class Checkpoint(keras.callbacks.EarlyStopping):
    """Early stopping whose state survives a kill: each epoch, one file takes the place of the last as a whole.

    Weights that were taught before compete too: then no stage leaves the model worse than it found it.
    """

    def __init__(self, stage_dir: Path, patience: int) -> None:
        super().__init__(monitor="val_loss", mode="min", patience=patience)
        self._stage_dir = stage_dir
        self._latest, self._best = stage_dir / "latest.weights.h5", stage_dir / "best.weights.h5"
        self.state = _read_state(self._latest)

    def finished(self, num_epochs: int) -> bool:
        """Whether an earlier run came to the end of this stage."""
        return bool(self.state) and (self.state["wait"] >= self.patience or self.state["epoch"] >= num_epochs)

    def begin(self, model: keras.Model, val_batches: ClipBatches | None) -> int:
        """Bring the model to where an earlier run stopped, or note what it begins with; returns the next epoch.

        `val_batches` judge the weights it begins with; random ones (`None`) need no judging, they never win.
        """
        model.optimizer.build(model.trainable_variables)  # weights files hold its state too
        if self.state:
            model.load_weights(self._latest)
        else:
            self._stage_dir.mkdir(parents=True, exist_ok=True)
            # on a hard task, random weights may well have the lowest loss of all: they are never sure of anything
            loss = model.evaluate(val_batches, verbose=0, return_dict=True)["loss"] if val_batches else math.inf
            self.state = {"epoch": 0, "best": loss, "wait": 0, "best_epoch": BEFORE_FIRST_EPOCH, "rows": []}
            _save_weights(model, self._best, self.state)
        return self.state["epoch"]

    def restore(self, model: keras.Model) -> None:
        """Give the model its best weights."""
        model.load_weights(self._best)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Go on with the best and the patience of the earlier run."""
        super().on_train_begin(logs)
        self.best, self.wait, self.best_epoch = (self.state[name] for name in ("best", "wait", "best_epoch"))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Judge the epoch and write everything down."""
        super().on_epoch_end(epoch, logs)
        self.state |= {"epoch": epoch + 1, "best": self.best, "wait": self.wait, "best_epoch": self.best_epoch}
        self.state["rows"].append({"epoch": epoch, **(logs or {})})
        if self.wait == 0:
            _save_weights(self.model, self._best, self.state)
        _save_weights(self.model, self._latest, self.state)
        write_csv(self._stage_dir / "log.csv", list(self.state["rows"][0]), self.state["rows"])


def _save_weights(model: keras.Model, path: Path, state: dict[str, Any]) -> None:
    """Weights, optimizer and our state in one file, which appears whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        model.save_weights(temporary)
        with h5py.File(temporary, "a") as file:
            file["state"] = json.dumps(state, default=float)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_state(path: Path) -> dict[str, Any]:
    """The state in a weights file; empty if there is no such file, or none that can be read."""
    if not path.is_file():
        return {}
    try:
        with h5py.File(path) as file:
            return json.loads(file["state"][()])
    except (OSError, KeyError, ValueError):
        _logger.warning("%s: cannot be read, this stage begins anew", path)
        return {}
