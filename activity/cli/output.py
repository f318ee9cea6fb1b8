"""Lines and files that several commands write."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from activity.errors import printable

if TYPE_CHECKING:
    from activity.training.captioning import CaptioningRun
    from activity.training.result import TrainingRun

_logger = logging.getLogger(__name__)


def say_error(text: str) -> None:
    """One line on stderr."""
    words = " ".join(text.split())
    # Bytes that are not UTF-8 stderr spells out itself
    print("activity:", "".join(x if "\ud800" <= x <= "\udfff" else printable(x) for x in words), file=sys.stderr)


def say_result(text: str, *, goes_on: bool) -> None:
    """A result on stdout, at once.

    Where its reader had enough, as `| head` does, `BrokenPipeError` ends the command; one that `goes_on`, because it
    was asked for files too, writes no more there, and says so.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        if not goes_on:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (of the process from now on)
        _logger.warning("who read the results has gone; the files are written all the same")


def say_written(paths: Iterable[Path]) -> None:
    """A line for each file that was written."""
    for path in paths:
        _logger.info("wrote %s", path)


def state_dir(model_path: Path) -> Path:
    """Where the state and the log of the training of a model are kept: `model.training` beside `model.keras`."""
    return model_path.with_suffix(".training")


def save_run(run: TrainingRun | CaptioningRun, model_path: Path) -> str:
    """Write the model, and beside it how it was trained; returns lines that say where."""
    from activity.models.saving import save_model
    from activity.reports.report import save_training_report

    save_model(run.model, model_path)
    lines = [f"{'model':16} {model_path}"]
    for path in save_training_report(run, state_dir(model_path)):
        lines.append(f"{path.stem.replace('_', ' '):16} {path}")
    return "\n".join(lines)
