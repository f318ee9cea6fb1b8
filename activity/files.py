"""Files that appear whole or not at all, digests, tables, and folders that one command at a time writes.

Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from activity.errors import ActivityError

LOCK_NAME = ".lock"  # in each folder that a command is writing, see `lock_folder`


def check_folder(folder: Path | None) -> None:
    """Raise `ActivityError` if results could not be written there; asked before the work."""
    if folder is None:
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ActivityError("a file has this name; expected a folder, or a new name for one", path=existing)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ActivityError("this folder cannot be written to", path=existing)


def of_system(error: OSError) -> str:
    """The message of an error of the system, without its number, and with the file that it concerns."""
    what = error.strerror or " ".join(map(str, error.args))
    path = error.filename2 or error.filename
    return f"{what}: {path}" if path else what


# === Files that appear whole or not at all ===


@contextlib.contextmanager
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path whose file or folder takes the name `path`, and replaces what has it, if the block ends well.

    It is beside `path` and has the same ending. Without an error the block must have made the file or folder.

    Args:
        path: of a file or folder, old or new.
        sync: wait until the content is on the disk: else a power cut may leave the new name without content. It costs
            2 to 6 ms for 2 MB on an SSD; caches, which are checked when they are read, do without.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    old = temporary.with_name(f"{temporary.name}.old")
    _remove(temporary)  # of a process that was killed
    try:
        yield temporary
        if sync:
            for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
                _flush(file)
        if temporary.is_dir() and path.is_dir():  # nothing replaces a folder that is not empty
            os.replace(path, old)
        os.replace(temporary, path)
        _remove(old)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # a full disk does not say for which file
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        _remove(temporary)


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb", *, sync: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file that takes the name `path` only if the block ends well; see `atomic_path`."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path, sync=sync) as temporary, temporary.open(mode, **text) as file:  # type: ignore[call-overload]
        yield file


def _flush(file: Path) -> None:
    if file.is_dir():
        return
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# === Digests ===


def digest_of(*values: object, size: int) -> str:
    """The BLAKE2b digest of some values, one after the other, as `2 * size` hexadecimal digits.

    Args:
        values: bytes or contiguous buffers as they are; all else as JSON.
        size: in bytes, 1 to 64.
    """
    digest = hashlib.blake2b(digest_size=size)
    for value in values:
        digest.update(value if isinstance(value, (bytes, memoryview)) else json.dumps(value, allow_nan=False).encode())
    return digest.hexdigest()


def digest_of_file(path: Path, size: int = 8) -> str:
    """The digest of the content of a file; see `digest_of`."""
    digest = hashlib.blake2b(digest_size=size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# === Tables ===


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows under a header line, as a file that appears whole or not at all."""
    with atomic_file(path, "w") as file:
        _table(file, columns).writerows(rows)


@contextlib.contextmanager
def csv_rows(path: Path | None, columns: str = "source,label,probability,duration_seconds,error") -> Iterator[Any]:
    """A function that adds a row to a file at once, which may be read meanwhile; it does nothing without a path."""
    if path is None:
        yield lambda _: None
        return
    with path.open("w", buffering=1, newline="", encoding="utf-8", errors="backslashreplace") as file:
        yield _table(file, columns.split(",")).writerow


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header line; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel saves with a byte order mark
        return list(csv.DictReader(file))


def _table(file: IO[str], columns: Sequence[str]) -> csv.DictWriter:
    writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    return writer


# === One command at a time ===


@contextlib.contextmanager
def lock_folder(folder: Path, what: str) -> Iterator[None]:
    """Keep other commands from writing a folder while the block runs.

    The folder is made if need be, and removed again if nothing was written. The lock ends with the process, however
    that ends. Where none is possible (a folder that cannot be written, a file system without locks), the block runs
    without.

    Args:
        folder: that is written.
        what: is writing, such as `preprocess`; others are told.

    Raises:
        ActivityError: another command is writing it.
    """
    from filelock import FileLock, Timeout  # takes 20 ms

    path = folder / LOCK_NAME

    def sign(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{what}, process {os.getpid()}".encode())

    lock = FileLock(path, timeout=0, fallback_to_soft=False, on_acquired=sign)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        reason = f"in use by another command ({_holder(path)})"
        raise ActivityError(reason, path=folder, hint="wait until it ends") from None
    except (OSError, NotImplementedError):
        pass  # whoever writes there says what is wrong
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows removes it later
                path.unlink()
            lock.release()
        if is_new:
            with contextlib.suppress(OSError):  # something was written there
                folder.rmdir()


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")[:200] or "unknown"
    return "unknown"
