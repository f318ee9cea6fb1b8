"""The folder with the state of a training: what training replaces in it; nothing heavy is imported here."""

from __future__ import annotations

import json
from pathlib import Path

from activity.errors import ActivityError
from activity.files import leaves

SETTINGS_NAME = "config.json"
STAGES = ("head", "fine_tune", "scratch")  # a folder each
_STAGE_FILES = {"log.csv", "digests.txt", "latest.npz", "latest.weights.h5"}  # the last: of an earlier version


def foreign_in_state(folder: Path) -> Path | None:
    """The first of what training would replace in a folder that no training has written.

    The folder itself, if its settings are not those of a training; `None`, if all are of a training.
    """
    try:
        noted = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        is_ours = {"backbone", "head", "dataset"} <= noted.keys()
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        return folder
    there = [folder / stage for stage in STAGES if (folder / stage).exists()]
    found = [leaf for stage in there for leaf in (leaves(stage) if stage.is_dir() else [stage])]
    return next((leaf for leaf in found if leaf.name not in _STAGE_FILES and leaf not in there), None)


def check_state(folder: Path) -> None:
    """Raise `ActivityError` if training in a folder would replace what no training has written."""
    replaced = [name for name in (SETTINGS_NAME, *STAGES) if (folder / name).exists()]
    if replaced and (foreign := foreign_in_state(folder)):
        path = folder / replaced[0] if foreign == folder else foreign
        raise ActivityError("is not of a training, so it is not replaced", path=path, hint="choose another folder")
