"""A folder of arrays by sample that holds few files, however many samples there are.

    <sample_id>.npy   (N, ...) as soon as it is known; in earlier versions all stayed so
    part-00000.npy    (R, ...) of some thousand samples, one below the other
    part-00000.csv    sample_id,first_row,num_rows: where each of them is in there
    digests.txt       of all these, see `activity.files.is_intact`

Single files are packed into parts when there are a thousand, and at the end of a run. So nothing is lost when a run is
stopped, and every file appears whole or not at all. The last part is filled up before there is another: it only grows
at its end, and where a sample is in it stays true.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import logging
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from activity.datasets.arrays import Mapped, map_array, write_npy_header
from activity.errors import ActivityError
from activity.files import DAMAGED, atomic_file, forget_digests, is_intact, lock_folder, read_csv, write_csv

_MOST_SINGLE = 1000  # files, then they are packed
_MOST_IN_PART = 4096  # samples
_MOST_BYTES = 2**29  # of a part, unless a single sample has more
_COLUMNS = ("sample_id", "first_row", "num_rows")
_PART = re.compile(r"part-\d{5,}")  # no sample is called so: the names of ours end with a digest

_logger = logging.getLogger(__name__)


class PackedArrays:
    """The arrays of such a folder, which need not exist. Several processes may read and write it at once.

    What is damaged is not there, with a line: it is computed again.

    Args:
        folder: of the arrays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[Path, Mapped] = {}
        self._places: dict[str, tuple[Path, int, int]] = {}  # the part, the first row in it, the number of rows
        self._states: dict[Path, int] = {}  # in which the tables of the parts were read
        self._damaged: set[Path] = set()
        self._read_parts()
        self._num_single = len(_single_files(folder))

    def __contains__(self, sample_id: str) -> bool:
        return sample_id in self._places or _read_single(self._single(sample_id)) is not None

    def __getitem__(self, sample_id: str) -> np.ndarray:
        """An array, mapped from disk; raises `KeyError` if it is not there."""
        if sample_id not in self._places:
            if (array := _read_single(self._single(sample_id))) is not None:
                return array
            self._read_parts()  # another process may have packed it
        part, first, num_rows = self._places[sample_id]
        return self._parts[part].read(slice(first, first + num_rows))

    def num_bytes(self, sample_id: str) -> int:
        """The size of an array, without reading it."""
        if sample_id not in self._places:
            return self[sample_id].nbytes
        part, _, num_rows = self._places[sample_id]
        return num_rows * self._parts[part].array[:1].nbytes

    def write(self, sample_id: str, array: np.ndarray) -> None:
        """Keep an array; raises `OSError` if that is not possible."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self._single(sample_id), sync=False, digest=True) as file:
            np.save(file, array)
        self._num_single += 1
        if self._num_single >= _MOST_SINGLE:
            self.pack()

    def pack(self) -> None:
        """Put single files into parts. Where that is not possible they stay, and a line says why."""
        self._num_single = 0
        if not self._damaged and not _single_files(self.folder):
            return
        try:
            with lock_folder(self.folder, "packing features"):
                self._read_parts()  # those of other processes too
                self._pack()
                forget_digests(self.folder, [path.name for path in self.folder.glob("*.*")])
        except ActivityError:  # another process does it
            return
        except OSError as error:
            say_once(f"{self.folder}: single files are not packed into parts ({error.strerror or error})")

    def _pack(self) -> None:
        part, waiting = max(self._parts, default=self._new_part()), list[Path]()  # the last one is filled up
        num_samples = sum(of == part for of, _, _ in self._places.values())
        known = self._parts[part].array if part in self._parts else None
        size = 0 if known is None else known.nbytes
        for path in _single_files(self.folder):
            if path.stem in self._places:  # a run was stopped between the part and this
                path.unlink(missing_ok=True)
                continue
            array = _read_single(path)
            known = array if known is None else known
            if array is None or known is None or (array.dtype, array.shape[1:]) != (known.dtype, known.shape[1:]):
                continue
            if num_samples == _MOST_IN_PART or (num_samples and size + array.nbytes > _MOST_BYTES):
                self._add(part, waiting)
                part, waiting, num_samples, size = self._new_part(), [], 0, 0
            waiting.append(path)
            num_samples, size = num_samples + 1, size + array.nbytes
        self._add(part, waiting)
        for path in self._damaged:
            path.unlink(missing_ok=True)
        self._damaged.clear()

    def _new_part(self) -> Path:
        paths = (self.folder / f"part-{number:05d}.npy" for number in count(len(self._parts)))
        return next(path for path in paths if not _table_of(path).exists())

    def _add(self, part: Path, singles: list[Path]) -> None:
        """Write a part, with what is in it already first, and remove the single files that it then holds."""
        if not singles:
            return
        known, places = self._parts.get(part), [(id_, *at) for id_, (of, *at) in self._places.items() if of == part]
        num_rows = len(known.array) if known else 0
        for path in singles:
            array = map_array(path)  # one at a time, as each is an open file
            places.append((path.stem, num_rows, len(array)))
            num_rows += len(array)
        with atomic_file(part, digest=True) as file:  # it is on the disk before the single files are gone
            write_npy_header(file, (num_rows, *array.shape[1:]), array.dtype)
            for rows in known.parts() if known else ():
                file.write(rows.data)
            for path in singles:
                file.write(map_array(path).data)
        write_csv(_table_of(part), _COLUMNS, [dict(zip(_COLUMNS, at, strict=True)) for at in places], digest=True)
        self._read_parts()
        for path in singles:
            path.unlink(missing_ok=True)

    def _read_parts(self) -> None:
        for table in sorted(self.folder.glob("part-*.csv")):
            state = table.stat().st_mtime_ns
            if self._states.get(table) != state:
                self._read_part(table.with_suffix(".npy"))
                self._states[table] = state

    def _read_part(self, part: Path) -> None:
        table = _table_of(part)
        files = {part, table}
        try:
            rows = [(row["sample_id"], int(row["first_row"]), int(row["num_rows"])) for row in read_csv(table)]
            if not is_intact(table) or not is_intact(part):
                raise ValueError(DAMAGED)
            array = map_array(part)
            if any(first < 0 or num_rows < 1 or first + num_rows > len(array) for _, first, num_rows in rows):
                raise ValueError(f"{table.name} names rows that it does not have")
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            _logger.warning("%s: %s; what it holds is computed again", part, error)
            self._damaged |= files
            return
        self._damaged -= files
        self._parts[part] = Mapped(array)
        self._places |= {id_: (part, first, num_rows) for id_, first, num_rows in rows}

    def _single(self, sample_id: str) -> Path:
        return self.folder / f"{sample_id}.npy"


def remove_samples(folder: Path, are_gone: Callable[[str], bool]) -> None:
    """Remove the single files, and the parts, that hold samples which are gone and nothing else."""
    for path in _single_files(folder):
        if are_gone(path.stem):
            path.unlink()
    for table in folder.glob("part-*.csv"):
        with contextlib.suppress(KeyError, csv.Error, ValueError):  # who reads it next says so
            if all(are_gone(row["sample_id"]) for row in read_csv(table)):
                table.unlink()  # first: without it, the other is nothing
                table.with_suffix(".npy").unlink(missing_ok=True)
    forget_digests(folder, [path.name for path in folder.glob("*.*")])


def _table_of(part: Path) -> Path:
    return part.with_suffix(".csv")


def _single_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.npy") if not _PART.fullmatch(path.stem))


def _read_single(path: Path) -> np.ndarray | None:
    """What a single file holds, mapped from disk; nothing if it is absent or damaged: both are made again."""
    reason = DAMAGED
    try:
        if is_intact(path):
            return map_array(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = str(error)
    _logger.warning("%s: %s; it is computed again", path, reason)
    return None


@functools.cache
def say_once(text: str) -> None:
    """Log a line, once a process."""
    _logger.warning(text)
