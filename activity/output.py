"""Where results of commands go, and what can be said when they cannot. Nothing heavy is imported here."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from activity.errors import ActivityError


@contextlib.contextmanager
def csv_rows(path: Path | None, columns: str = "source,label,probability,duration_seconds,error") -> Iterator[Any]:
    """A function that writes a result as a row, or does nothing without a path."""
    if path is None:
        yield lambda _: None
        return
    with path.open("w", buffering=1, newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns.split(","), restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


def check_folder(folder: Path | None) -> None:
    """Raise `ActivityError` if results could not be written there; asked before the work."""
    if folder is None:
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ActivityError(f"{existing}: a file has this name; expected a folder, or a new name for one")


def of_system(error: OSError) -> str:
    """Without the number, and with the name the user knows where a temporary one should have taken it."""
    what = error.strerror or " ".join(map(str, error.args))
    path = error.filename2 or error.filename
    return f"{what}: {path}" if path else what
