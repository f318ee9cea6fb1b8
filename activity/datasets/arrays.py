"""Arrays that are mapped from disk: `.npy` files, and tables of rows that are too large for memory."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

MOST_IN_MEMORY = 2**27  # bytes of one table of features, of which there are a few; a larger one is in a file
_READ_BEFORE_RELEASE = 2**23  # bytes of each file: there may be hundreds
_AT_ONCE = 2**26  # bytes, of rows that are gone through

_HEADER = re.compile(rb"\{'descr': '([^']+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\),? ?\}\s*")


def map_array(path: Path, *, any_order: bool = False) -> np.ndarray:
    """An array from an `.npy` file, mapped from disk; as `np.load` does it, but for any number of threads.

    NumPy parses the header as Python, which in several threads at once fails now and then, up to CPython 3.11.7 and
    3.12.1 (github.com/python/cpython/issues/106905). Pickles are never loaded.

    Args:
        path: of the file.
        any_order: also take one in Fortran order, as a transposed array is saved.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else, or is cut off or longer.
    """
    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("expected version 1.0 of the .npy format")
        header = file.read(int.from_bytes(file.read(2), "little"))
        offset = file.tell()
    match = _HEADER.fullmatch(header)
    if not match or (match[2] == b"True" and not any_order):
        order = "an array" if any_order else "an array in C order"
        raise ValueError(f"expected the header of {order}, received {header!r:.80}")
    try:
        dtype = np.dtype(match[1].decode())
    except (TypeError, SyntaxError) as error:
        raise ValueError(f"expected a type of numbers, received {match[1]!r:.40}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects (a pickle), which are never loaded")
    shape = tuple(int(length) for length in match[3].decode().split(",") if length.strip())
    claimed, num_bytes = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if num_bytes != claimed:
        longer = "longer than its header says" if num_bytes > claimed else "cut off"
        raise ValueError(f"it is {longer}: {num_bytes:,} bytes, expected {claimed:,}")
    if not math.prod(shape):  # nothing can be mapped
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if match[2] == b"True" else "C")


def write_npy_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype | type = np.uint8) -> None:
    """The header of an array in C order. NumPy pads it, so that the first axis can grow in place."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


class Mapped:
    """An array that is mapped from disk and read in parts, however large: what was read does not stay resident.

    The system keeps it as long as it has room, as it does with any file.

    Args:
        array: an `np.memmap` for reading, or one in memory.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._map = array.base if isinstance(array.base, mmap.mmap) else None
        self._num_read = 0
        self.array = array.view(np.ndarray)

    @property
    def is_on_disk(self) -> bool:
        """Whether it is in a file."""
        return self._map is not None

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some rows: those of a slice as they are, those with the numbers in an array of integers as a copy."""
        found = self.array[rows] if isinstance(rows, slice) else np.take(self.array, rows, axis=0)
        self._num_read += found.nbytes
        if self._map is not None and self._num_read >= _READ_BEFORE_RELEASE and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # what is still in use comes again by itself
            self._num_read = 0
        return found

    def parts(self) -> Iterator[np.ndarray]:
        """All rows, some at once."""
        num_rows = max(1, _AT_ONCE * len(self.array) // max(self.array.nbytes, 1))
        return (self.read(slice(first, first + num_rows)) for first in range(0, len(self.array), num_rows))


class RowWriter:
    """Rows one after the other, to one array: in memory, or, beyond a limit, in a file that has no name.

    That is in `TMPDIR`, else in `/var/tmp`, as `/tmp` may be memory. It takes its room until the array is let go of, or
    the process ends, in whatever way.

    Args:
        most_in_memory: bytes; by default `MOST_IN_MEMORY`.
    """

    def __init__(self, most_in_memory: float | None = None) -> None:
        self._limit = MOST_IN_MEMORY if most_in_memory is None else most_in_memory
        self._waiting: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self._num_bytes = self._num_rows = 0

    def write(self, rows: np.ndarray) -> None:
        """Add rows `(n, ...)`, all of one shape and type.

        Raises:
            OSError: there is no room for them.
        """
        self._waiting.append(np.ascontiguousarray(rows))
        self._num_bytes += rows.nbytes
        self._num_rows += len(rows)
        if self._num_bytes > self._limit:
            folder = _folder_of_large_files()
            try:
                self._file = self._file or tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # until it is mapped
                for waiting in self._waiting:
                    self._file.write(waiting.data)
                self._file.flush()
            except OSError as error:
                if self._file:
                    with contextlib.suppress(OSError):  # what it could not write is still in its buffer
                        self._file.close()
                room = f"{self._num_bytes / 1e9:.1f} GB of features or more"
                raise OSError(error.errno, error.strerror, f"{folder} ({room}; TMPDIR names another folder)") from error
            self._waiting = [rows[:0]]

    def array(self) -> np.ndarray:
        """All rows `(R, ...)`, at least one; what is in a file is an `np.memmap`, for reading."""
        if not self._file:
            return np.concatenate(self._waiting)
        (none,) = self._waiting
        shape = (self._num_rows, *none.shape[1:])
        with self._file:
            return np.memmap(self._file, none.dtype, "r", shape=shape)


def _folder_of_large_files() -> Path:
    named, large = os.environ.get("TMPDIR"), Path("/var/tmp")
    return large if not named and os.access(large, os.W_OK) else Path(tempfile.gettempdir())


class StackTable(Sequence[np.ndarray]):
    """Stacks `(N, ...)` one below the other in a single table, which is in a file where it is too large for memory.

    Args:
        stacks: one or more, gone through once; they differ in their lengths alone.
        most_in_memory: see `RowWriter`.

    Attributes:
        lengths: `(V,)` of the stacks.
        firsts: `(V,)` their first rows.
        rows: `(R + 1, ...)` of all stacks; the last row is zeros.
    """

    def __init__(self, stacks: Iterable[np.ndarray], *, most_in_memory: float | None = None) -> None:
        writer, lengths = RowWriter(most_in_memory), []
        none = np.zeros((1, 0), np.float32)
        for stack in stacks:
            writer.write(stack)
            lengths.append(len(stack))
            none = np.zeros_like(stack[:1])
        writer.write(none)
        self.rows, self.lengths = Mapped(writer.array()), np.asarray(lengths, int)
        self.firsts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # slices are not needed
        first = self.firsts[index]
        return self.rows.read(slice(first, first + self.lengths[index]))


def rows_where(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Those of `(R, ...)` that are chosen, `(R,)` bool, as `RowWriter` keeps them."""
    writer, first = RowWriter(), 0
    for part in Mapped(rows).parts():
        writer.write(part[chosen[first : first + len(part)]])
        first += len(part)
    return writer.array()
