"""Files that appear whole or not at all, tables, and where results of commands go. Nothing heavy is imported here."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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
        raise ActivityError("a file has this name; expected a folder, or a new name for one", path=existing)


def of_system(error: OSError) -> str:
    """Without the number, and with the name the user knows where a temporary one should have taken it."""
    what = error.strerror or " ".join(map(str, error.args))
    path = error.filename2 or error.filename
    return f"{what}: {path}" if path else what


# === Files that appear whole or not at all ===


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that takes its name `path` only if the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with temporary.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say for which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows under a header line."""
    with atomic_file(path, "w") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header line; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel saves with a byte order mark
        return list(csv.DictReader(file))
