"""Files that appear whole or not at all, digests, tables, and folders that one command at a time writes.

Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import contextvars
import csv
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import filterfalse, zip_longest
from pathlib import Path
from typing import IO, Any

from activity.errors import ActivityError

LOCK_NAME = ".lock"  # in each folder that a command is writing, see `lock_folder`

_logger = logging.getLogger(__name__)


def check_folder(folder: Path | None) -> None:
    """Raise `ActivityError` if results could not be written there; asked before the work."""
    if folder is None:
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ActivityError("a file has this name; expected a folder, or a new name for one", path=existing)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ActivityError("this folder cannot be written to", path=existing)


def check_output(
    path: Path | None,
    *,
    overwrite: bool,
    foreign: Callable[[Path], Path | None],
    what: str,
    hint: str = "replace it with --overwrite",
) -> None:
    """Raise `ActivityError` if a result must not be written there; asked before the work.

    What is not there yet, an empty folder, a device and a pipe may be written. What we did not write is never replaced,
    and a result of ours only if that was asked for.

    Args:
        path: of a file or folder; `None`: there is no such result.
        overwrite: `--overwrite` was given.
        foreign: gives what is not such a result of ours, of a file or folder that exists, such as `foreign_in`.
        what: the result is, with its article, such as `a model file`.
        hint: what to do about a result of ours that exists.
    """
    if path is None:
        return
    check_folder(path.parent)
    if not os.path.lexists(path) or _is_written_into(path):
        return
    if path.is_dir() and all(inner.name.startswith(".") for inner in path.iterdir()):  # a lock, or what a kill has left
        return
    if found := foreign(path):
        reason = f"exists and is not {what} of ours, so it is not replaced{'' if found == path else f': {found}'}"
        raise ActivityError(reason, path=path, hint=_OTHER_NAME)
    if not overwrite:
        raise ActivityError(f"exists, {what} of ours", path=path, hint=f"{hint}, or {_OTHER_NAME}")


_OTHER_NAME = "choose another name"


_OPEN_FILES = (Path("/dev"), Path("/dev/fd"))


def _is_written_into(path: Path) -> bool:
    """Whether it is a device, a pipe, or an open file by a name such as `/dev/stdout`: nothing is replaced there."""
    return path.parent in _OPEN_FILES or path.exists() and not path.is_file() and not path.is_dir()


def _open(path: Path, mode: str, **how: Any) -> IO[Any]:
    """Open a file to write; `/dev/stdout` and the like go on where they are: opened again, a file would lose lines."""
    number = {"/dev/stdout": "1", "/dev/stderr": "2"}.get(str(path)) or path.name
    if path.parent not in _OPEN_FILES or not number.isdecimal():
        return path.open(mode, **how)
    shared = {"1": sys.stdout, "2": sys.stderr}.get(number)  # which need not be the files that the program began with
    descriptor = int(number)
    if isinstance(shared, io.TextIOWrapper):
        shared.reconfigure(line_buffering=True)  # so that whole lines come in turn
        descriptor = shared.fileno()
    return open(os.dup(descriptor), mode, **how)


def of_system(error: OSError) -> str:
    """The message of an error of the system, without its number, and with the file that it concerns."""
    what = error.strerror or " ".join(map(str, error.args))
    path = error.filename2 or error.filename
    return f"{what}: {path}" if path else what


# === Files that appear whole or not at all ===


def short_name(name: str, most: int = 200) -> str:
    """A name of at most so many bytes, as file systems take 255: the middle of a longer one becomes a digest."""
    content = os.fsencode(name)
    if len(content) <= most:
        return name
    start, end = (part.decode("utf-8", "ignore") for part in (content[: most - 42], content[-32:]))
    return f"{start}-{digest_of(content, size=4)}-{end}"


@contextlib.contextmanager
def atomic_path(path: Path, *, sync: bool = True, digest: bool = False) -> Iterator[Path]:
    """A temporary path whose file or folder takes the name `path`, and replaces what has it, if the block ends well.

    It is beside `path` and has the same ending. Without an error the block must have made the file or folder.

    Args:
        path: of a file or folder, old or new.
        sync: wait until the content is on the disk: else a power cut may leave the new name without content. It costs
            2 to 6 ms for 2 MB on an SSD; caches, which are checked when they are read, do without.
        digest: note the digest of the file, or of each file in the folder, for `is_intact`.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    if _is_written_into(path):
        yield path
        return
    temporary = path.with_name(f".tmp-{os.getpid()}-{short_name(path.name)}")
    old = temporary.with_name(f"{temporary.name}.old")
    _remove(temporary)  # of a process that was killed
    try:
        yield temporary
        if sync:
            for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
                _flush(file)
        if digest and temporary.is_dir():
            _note_digests(temporary, {name: digest_of_file(temporary / name) for name in _files_in(temporary)}, sync)
        elif digest and (collected := _collected.get()) is not None:
            collected[path] = digest_of_file(temporary)
        elif digest:  # first, because a kill after the file would make it look damaged
            _note_digests(path.parent, {path.name: digest_of_file(temporary)}, sync)
        elif _are_results.get():
            for leaf in leaves(temporary) if temporary.is_dir() else [temporary]:
                _note_result(leaf, path if leaf == temporary else leaf)
        if temporary.is_dir() and path.is_dir():  # nothing replaces a folder that is not empty
            os.replace(path, old)
        os.replace(temporary, path)
        _remove(old)
    except OSError as error:
        named = {error.filename, error.filename2}
        if error.errno and (named == {None} or str(temporary) in named):  # a full disk does not say for which file
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        _remove(temporary)


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb", *, sync: bool = True, digest: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file that takes the name `path` only if the block ends well; see `atomic_path`."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path, sync=sync, digest=digest) as temporary, _open(temporary, mode, **text) as file:
        yield file


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes were killed; those of processes that run stay."""
    for path in folder.glob(".tmp-*-*"):
        process = path.name.split("-")[1]
        if process.isdigit() and not _is_running(int(process)):
            _remove(path)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there the call would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


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


DIGESTS_NAME = "digests.txt"  # the table of a folder, a line a file; `b2sum -l 64 -c digests.txt` reads it too
_RESULTS_NAME = ".digests.txt"  # the same of files that were written for the user
DAMAGED = "damaged: its content is not what was written"


def is_intact(path: Path) -> bool:
    """Whether a file, or each file of a folder, still has the content that `atomic_path(..., digest=True)` gave it.

    The content is read once in a process, and again only if the file has changed. A file without a digest, of an
    earlier version, is accepted, and given one where the folder can be written.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    with _lock:
        table = _tables.setdefault(folder.absolute(), _Digests(folder.absolute()))
    if folder != path:
        return table.agrees(path.name)
    table.read()
    return all((folder / name).is_file() and table.agrees(name) for name in {*table.noted, *_files_in(folder)})


@contextlib.contextmanager
def collected_digests() -> Iterator[dict[Path, str]]:
    """Digests of the files that `atomic_path` writes while the block runs, for `note_digests` of another process.

    They are not noted by this one: of several machines that append to one file on a network disk, lines get lost.
    """
    digests: dict[Path, str] = {}
    token = _collected.set(digests)
    try:
        yield digests
    finally:
        _collected.reset(token)


_collected: contextvars.ContextVar[dict[Path, str] | None] = contextvars.ContextVar("_collected", default=None)


def note_digests(digests: Mapping[Path, str]) -> None:
    """Note the digests of files, from `collected_digests`, for `is_intact`."""
    for path, digest in digests.items():
        _note_digests(path.parent, {path.name: digest}, sync=False)


@contextlib.contextmanager
def noted_results() -> Iterator[None]:
    """What `atomic_path` writes while the block runs are results for the user: `is_result` knows them again.

    Each is noted before it takes its name, so that `--overwrite` may replace it even after a kill or on a full disk.
    """
    token = _are_results.set(True)
    try:
        yield
    finally:
        _are_results.reset(token)


_are_results = contextvars.ContextVar("_are_results", default=False)


def note_results(paths: Iterable[Path]) -> None:
    """Note the digests of files, or of all in folders, that were written for the user: `is_result` knows them again."""
    for path in paths:
        for file in filterfalse(_is_written_into, _shown_files(path)):
            with contextlib.suppress(OSError):  # then it is not known again, and not replaced
                _note_result(file, file)


def _note_result(content: Path, path: Path) -> None:
    """Note the content of a file, or that a folder is empty, under the name that it has or gets."""
    digest = digest_of(size=8) if content.is_dir() else digest_of_file(content)
    with contextlib.suppress(PermissionError):  # then it is not known again, and not replaced
        _note_digests(path.parent, {path.name: digest}, False, _RESULTS_NAME)


def foreign_in(path: Path, *, hidden: bool = False) -> Path | None:
    """A file, or the first in a folder, that was not noted or has changed since; `None`: all are results of ours.

    A table that `csv_rows` could not finish is known by its first line.

    Args:
        path: of a file or folder.
        hidden: hidden files and empty folders count too, as where the whole folder is replaced.
    """
    found = leaves(path) if hidden and path.is_dir() else _shown_files(path) or [path]
    return next(filterfalse(_is_noted, found), None)


def is_result(path: Path) -> bool:
    """Whether a file, or each in a folder but for hidden ones, is as it was when it was noted."""
    return foreign_in(path) is None


def _is_noted(path: Path) -> bool:
    table = _Digests(path.parent, _RESULTS_NAME)
    table.read()
    noted = table.noted.get(path.name, ())
    if path.is_dir():
        return digest_of(size=8) in noted and list(leaves(path)) == [path]
    if not noted or not path.is_file():
        return False
    with path.open("rb") as file:
        first_line = file.readline()
    return not first_line or digest_of(first_line, size=8) == noted[-1] or digest_of_file(path) in noted


def remove_stale_results(folder: Path, written: Iterable[Path]) -> None:
    """Delete what was noted in a folder and is as it was, but for what has been written now."""
    for path in set(_shown_files(folder)) - set(written):
        if is_result(path):
            path.unlink()


def _shown_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = (leaf for leaf in leaves(path) if not leaf.is_dir())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def leaves(folder: Path) -> Iterator[Path]:
    """All files, links and empty folders below a folder, but for those by which we keep books."""
    inner = [path for path in sorted(folder.iterdir()) if not _BOOKS.fullmatch(path.name)]
    for path in inner:
        yield from leaves(path) if path.is_dir() and not path.is_symlink() else [path]
    if not inner:
        yield folder


_BOOKS = re.compile(rf"{re.escape(_RESULTS_NAME)}|{re.escape(LOCK_NAME)}|\.tmp-.*|\.DS_Store")  # the last: of macOS


def forget_digests(folder: Path, names: Collection[str]) -> None:
    """Keep only the digests of these files in the table of a folder, in order: equal folders have equal tables."""
    table = _Digests(folder)
    table.read()
    lines = [f"{table.noted[name][-1]}  {name}\n" for name in sorted({*names} & {*table.noted})]
    content, path = os.fsencode("".join(lines)), folder / DIGESTS_NAME
    if path.is_file() and path.read_bytes() != content:
        with atomic_file(path, sync=False) as file:
            file.write(content)


class _Digests:
    """The table of a folder: of each name the last two digests, because a kill may come between table and file."""

    def __init__(self, folder: Path, name: str = DIGESTS_NAME) -> None:
        self.folder, self._path = folder, folder / name
        self.noted: dict[str, tuple[str, ...]] = {}
        self._inode, self._position = 0, 0
        self._checked: dict[str, tuple[int, ...]] = {}  # the state of each file in which it was read

    def read(self) -> None:
        """Take in the lines that were added since the last time; one that a kill or a full disk has cut is no line."""
        with _lock, contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._position:
                self.noted, self._inode, self._position = {}, found.st_ino, 0
            file.seek(self._position)
            lines = file.read()
            self._position += lines.rfind(b"\n") + 1
            for digest, name in _DIGEST_LINE.findall(lines):
                known = os.fsdecode(name)
                self.noted[known] = (*self.noted.get(known, ())[-1:], digest.decode())

    def agrees(self, name: str) -> bool:
        """Whether a file has a digest that was noted, or none was."""
        path = self.folder / name
        stat = path.stat()
        state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._checked.get(name) == state:
            return True
        digest = digest_of_file(path)
        self.read()
        if name not in self.noted:
            with contextlib.suppress(OSError):
                _note_digests(self.folder, {name: digest}, sync=False)
        elif digest not in self.noted[name]:
            return False
        self._checked[name] = state
        return True


_DIGEST_LINE = re.compile(rb"^([0-9a-f]{16})  (.+)\n", re.MULTILINE)
_tables: dict[Path, _Digests] = {}
_lock = threading.Lock()


def _note_digests(folder: Path, digests: Mapping[str, str], sync: bool, table: str = DIGESTS_NAME) -> None:
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    with (folder / table).open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read() == b"\n" else f"\n{lines}"  # a line was cut
        file.write(os.fsencode(lines))
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _files_in(folder: Path) -> list[str]:
    """The names of the files of a folder that have digests: not the table, locks and temporary files."""
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name for name in files if name != DIGESTS_NAME and not name.startswith(".")]


# === Tables ===


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, digest: bool = False
) -> None:
    """Write rows under a header line, as a file that appears whole or not at all.

    Text that a spreadsheet would compute, as it begins with `=`, `+`, `-` or `@`, gets an apostrophe in front, which
    `read_csv` takes away; numbers stay numbers (owasp.org/www-community/attacks/CSV_Injection).

    Args:
        path: of the file.
        columns: names of the keys of a row that are written; absent ones are empty.
        rows: cells by column.
        digest: note the digest of the file; see `atomic_path`.
    """
    with atomic_file(path, "w", digest=digest) as file:
        write_row = _table(file, columns)
        for row in rows:
            write_row(row)


@contextlib.contextmanager
def csv_rows(path: Path | None, columns: str) -> Iterator[Any]:
    """A function that adds a row to a file at once, which may be read meanwhile; it does nothing without a path.

    Where a row cannot be written, as on a full disk, a warning says so and no more are; the block continues, and at its
    end the error is raised, with the path.

    It is a result for the user: noted with its first line before it is begun, and whole at the end.
    """
    if path is None:
        yield lambda _: None
        return
    if not _is_written_into(path):
        _table(first_line := io.StringIO(), columns.split(","))
        digest = digest_of(first_line.getvalue().encode(), size=8)
        with contextlib.suppress(OSError):  # what cannot be written shows at the first row
            _note_digests(path.parent, {path.name: digest}, False, _RESULTS_NAME)
    failure: OSError | None = None

    def attempt(write: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal failure
        try:
            return None if failure else write(*arguments)
        except BrokenPipeError:  # who reads it had enough
            raise
        except OSError as error:
            failure = OSError(error.errno, error.strerror, str(path))
            _logger.warning("%s; no more rows are written", of_system(failure))

    file = _open(path, "w", buffering=1, newline="", encoding="utf-8", errors="backslashreplace")
    try:
        write_row = attempt(_table, file, columns.split(","))
        yield lambda row: attempt(write_row, row)
    finally:  # also when a camera is ended by Ctrl-C
        attempt(file.close)
        with contextlib.suppress(OSError):  # what could not be written is still in its buffer
            file.close()
        note_results([path])
    if failure:
        raise failure


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header line; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:  # Excel saves with a byte order mark
        header, *rows = [[_bare(cell) for cell in row] for row in csv.reader(file) if row] or [[]]
    return [dict(zip_longest(header, row[: len(header)], fillvalue="")) for row in rows]


def _table(file: IO[str], columns: Sequence[str]) -> Callable[[Mapping[str, object]], None]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(_harmless, columns))
    return lambda row: writer.writerow(_harmless(row.get(column, "")) for column in columns)


def _harmless(cell: object) -> object:
    text = str(cell)
    if isinstance(cell, (int, float, type(None))) or not re.match(r"'*[=+\-@\t\r]", text):
        return cell
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return cell


def _bare(cell: str) -> str:
    return cell[1:] if re.match(r"'+[=+\-@\t\r]", cell) else cell


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
        with contextlib.suppress(OSError):  # the disk is full: the lock holds all the same
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
