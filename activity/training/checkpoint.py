"""Training that can be killed at any point: its state on disk."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import h5py

from activity.files import atomic_path, write_csv
from activity.models.backend import keras

_logger = logging.getLogger(__name__)


class Checkpoint:
    """Writes weights, optimizer and log of a stage down every few seconds, each time one whole file over the last.

    Args:
        stage_dir: folder of the stage.
        num_epochs: of the stage; its end is always written.
        seconds_between_saves: what a kill can cost; heads learn an epoch in less time than it takes to write one.
    """

    def __init__(self, stage_dir: Path, num_epochs: int, *, seconds_between_saves: float = 10.0) -> None:
        self._stage_dir, self._num_epochs, self._seconds_between_saves = stage_dir, num_epochs, seconds_between_saves
        self._latest = stage_dir / "latest.weights.h5"
        self._saved_at = 0.0
        self.state = _read_state(self._latest) or {"epoch": 0, "rows": []}

    @property
    def rows(self) -> list[dict[str, float]]:
        """The log so far, a row an epoch."""
        return self.state["rows"]

    @property
    def finished(self) -> bool:
        """Whether an earlier run came to the end of this stage."""
        return self.state["epoch"] >= self._num_epochs

    def begin(self, model: keras.Model) -> int:
        """Bring the model to where an earlier run was saved; returns the next epoch."""
        model.optimizer.build(model.trainable_variables)  # weights files hold its state too
        if self.state["epoch"]:
            model.load_weights(self._latest)
        self._stage_dir.mkdir(parents=True, exist_ok=True)
        self._saved_at = time.monotonic()
        return self.state["epoch"]

    def end_epoch(self, model: keras.Model, row: dict[str, float]) -> None:
        """Note the epoch, and save when it is time or the last."""
        self.state["epoch"] += 1
        self.rows.append(row)
        if self.finished or time.monotonic() - self._saved_at >= self._seconds_between_saves:
            _save_weights(model, self._latest, self.state)
            write_csv(self._stage_dir / "log.csv", list(self.rows[0]), self.rows)
            self._saved_at = time.monotonic()


def _save_weights(model: keras.Model, path: Path, state: dict[str, Any]) -> None:
    """Weights, optimizer and our state in one file, which appears whole or not at all."""
    with atomic_path(path) as temporary:
        model.save_weights(temporary)
        with h5py.File(temporary, "a") as file:
            file["state"] = json.dumps(state)


def _read_state(path: Path) -> dict[str, Any]:
    """The state in a weights file; empty if there is no such file, or none that can be read."""
    if not path.is_file():
        return {}
    try:
        with h5py.File(path) as file:
            return json.loads(file["state"][()])
    except (OSError, KeyError, ValueError):
        _logger.warning("%s: cannot be read, this stage starts from the beginning", path)
        return {}
