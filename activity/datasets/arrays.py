"""Arrays in `.npy` files: mapped from disk, without running or parsing anything that they hold."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import IO

import numpy as np

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


def write_npy_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """The header of an array of uint8 in C order. NumPy pads it, so that the first axis can grow in place."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
