"""Training that can be killed at any point: its state on disk."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from activity.files import DAMAGED, atomic_file, is_intact, write_csv
from activity.models.backend import keras, ops

_logger = logging.getLogger(__name__)


class Checkpoint:
    """Writes weights, optimizer, random states and log of a stage down every few seconds, as one whole file.

    Not `Model.save_weights`: it leaves random states out, and HDF5 crashes the program where the disk is full.

    Args:
        stage_dir: folder of the stage.
        num_epochs: of the stage; its end is always written.
        seconds_between_saves: what a kill can cost; heads learn an epoch in less time than it takes to write one.
    """

    def __init__(self, stage_dir: Path, num_epochs: int, *, seconds_between_saves: float = 10.0) -> None:
        self._stage_dir, self._num_epochs, self._seconds_between_saves = stage_dir, num_epochs, seconds_between_saves
        self._latest = stage_dir / "latest.npz"
        self._saved_at = 0.0
        self._arrays, self.rows = self._read()

    @property
    def finished(self) -> bool:
        """Whether an earlier run came to the end of this stage."""
        return len(self.rows) >= self._num_epochs

    def begin(self, model: keras.Model) -> int:
        """Bring the model to where an earlier run was saved; returns the next epoch."""
        model.optimizer.build(model.trainable_variables)
        state = _state_of(model)
        if self.rows and [array.shape for array in self._arrays] != [tuple(variable.shape) for variable in state]:
            _logger.warning("%s: of another version of Keras; this stage is trained again", self._latest)
            self.rows.clear()
        if self.rows:
            for variable, array in zip(state, self._arrays, strict=True):
                variable.assign(array)
        self._arrays = []
        self._stage_dir.mkdir(parents=True, exist_ok=True)
        self._saved_at = time.monotonic()
        return len(self.rows)

    def end_epoch(self, model: keras.Model, row: dict[str, float]) -> None:
        """Note the epoch, and save when it is time or the last."""
        self.rows.append(row)
        if self.finished or time.monotonic() - self._saved_at >= self._seconds_between_saves:
            write_csv(self._stage_dir / "log.csv", list(self.rows[0]), self.rows)
            arrays = {f"{i:05}": ops.convert_to_numpy(variable) for i, variable in enumerate(_state_of(model))}
            with atomic_file(self._latest, digest=True) as file:  # last: who finds all epochs done writes no log
                np.savez(file, rows=np.array(json.dumps(self.rows)), **arrays)
            self._saved_at = time.monotonic()

    def _read(self) -> tuple[list[np.ndarray], list[dict[str, float]]]:
        """The arrays and the log that an earlier run saved, a row an epoch; none if there are none that can be read."""
        if not self._latest.is_file():
            for old in self._stage_dir.glob("latest.weights.h5"):
                _logger.warning("%s: of an earlier version, this stage is trained again", old)
            return [], []
        # beside the digest, which need not be there
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            if is_intact(self._latest):
                with self._latest.open("rb") as stream, np.load(stream) as file:
                    arrays = [file[name] for name in sorted(file.files) if name != "rows"]
                    return arrays, json.loads(str(file["rows"]))
        _logger.warning("%s: %s; this stage is trained again", self._latest, DAMAGED)
        return [], []


def _state_of(model: keras.Model) -> list[Any]:
    """All that the next step depends on: weights, where each layer that draws is in its sequence, and the optimizer."""
    weights = {id(weight) for weight in model.weights}
    random = [variable for variable in model.non_trainable_variables if id(variable) not in weights]
    return [*model.weights, *random, *model.optimizer.variables]
