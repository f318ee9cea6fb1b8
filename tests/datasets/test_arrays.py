import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from activity.datasets import arrays
from activity.datasets.arrays import Mapped, RowWriter, StackTable, map_array, rows_where


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 2, 2, 3)])
def test_an_array_is_mapped_as_numpy_does_without_parsing_python(tmp_path, monkeypatch, dtype, shape):
    expected = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", expected)
    monkeypatch.setattr("ast.literal_eval", None)  # it fails now and then in several threads
    mapped = map_array(tmp_path / "a.npy")
    assert mapped.dtype == expected.dtype and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, expected)


@pytest.mark.parametrize("array", [np.zeros((2, 3), order="F"), np.zeros(2, [("a", "u1")])], ids=["order", "fields"])
def test_other_arrays_are_not_mapped(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="expected the header of an array in C order, received"):
        map_array(tmp_path / "a.npy")


def test_a_transposed_array_is_mapped_where_any_order_will_do(tmp_path):
    expected = np.arange(6, dtype=np.float32).reshape(3, 2).T
    np.save(tmp_path / "a.npy", expected)
    np.testing.assert_array_equal(map_array(tmp_path / "a.npy", any_order=True), expected)


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="not a regular file"):
        map_array(tmp_path / "a.npy")


def test_an_array_without_numbers_is_one(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 3), np.float16))
    assert map_array(tmp_path / "a.npy").shape == (0, 3)


def test_a_pickle_is_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print, {}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Python objects \(a pickle\), which are never loaded"):
        map_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"cut off: 139 bytes, expected 140"),
        (lambda content: content + b"x", r"longer than its header says: 141 bytes, expected 140"),
        (lambda content: content.replace(b"<f4", b"<q9"), "expected a type of numbers, received"),
        (lambda content: content.replace(b"(3,)", b"(" + b"9" * 30 + b",)"), "cut off"),
        (lambda content: b"text", "magic string"),
    ],
)
def test_what_is_damaged_is_a_value_error(tmp_path, change, message):
    np.save(tmp_path / "a.npy", np.zeros(3, np.float32))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(change(content))
    with pytest.raises(ValueError, match=message):
        map_array(tmp_path / "a.npy")


STACKS = [np.random.default_rng(i).random((1 + i, 2, 3)).astype(np.float32) for i in range(5)]


@pytest.mark.parametrize("most_in_memory", [0, 100, None])
def test_stacks_are_rows_of_one_table_in_memory_or_on_disk(most_in_memory):
    table = StackTable(iter(STACKS), most_in_memory=most_in_memory)
    assert table.rows.is_on_disk == (most_in_memory is not None) and len(table) == len(STACKS)
    for found, expected in zip(table, STACKS, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(table.rows.array, np.concatenate([*STACKS, np.zeros((1, 2, 3))]))
    assert table.lengths.tolist() == [1, 2, 3, 4, 5] and table.firsts.tolist() == [0, 1, 3, 6, 10]


def test_what_was_read_of_a_file_can_be_read_again_after_it_was_let_go(monkeypatch):
    monkeypatch.setattr(arrays, "_READ_BEFORE_RELEASE", 1)
    table = StackTable(STACKS, most_in_memory=0)
    found = [table[i] for i in range(5)]
    for one, expected in zip(found, STACKS, strict=True):
        np.testing.assert_array_equal(one, expected)
    numbers = np.array([[14, 0], [15, 3]])
    np.testing.assert_array_equal(table.rows.read(numbers), np.concatenate([*STACKS, np.zeros((1, 2, 3))])[numbers])


@pytest.mark.parametrize("most_in_memory", [0, None])
def test_some_rows_at_a_time(monkeypatch, most_in_memory):
    monkeypatch.setattr(arrays, "_AT_ONCE", 60)
    writer, expected = RowWriter(most_in_memory), np.concatenate(STACKS)
    for stack in STACKS:
        writer.write(stack[:, ::-1])
    rows = writer.array()
    parts = list(Mapped(rows).parts())
    assert len(parts) == 8
    np.testing.assert_array_equal(np.concatenate(parts), expected[:, ::-1])
    chosen = np.arange(15) % 3 == 1
    np.testing.assert_array_equal(rows_where(rows, chosen), rows[chosen])


def test_rows_on_disk_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    table = StackTable(STACKS, most_in_memory=0)
    assert table.rows.is_on_disk and not list(tmp_path.iterdir())


def test_where_rows_find_no_room_the_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    real = tempfile.TemporaryFile

    def full(**options):
        file = real(**options)
        file.close()
        return open("/dev/full", "w+b", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path} .* TMPDIR names another"):
        StackTable(STACKS, most_in_memory=0)


def resident(of):
    """Bytes of this process, as the kernel tells them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of)) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what memory is of files")
def test_a_table_on_disk_takes_no_memory_and_neither_does_reading_it():
    before, files_before = resident("RssAnon"), resident("RssFile")
    table = StackTable((np.full((100, 2500), i, np.float32) for i in range(100)), most_in_memory=1e6)  # 100 MB
    assert sum(float(stack[0, 0]) for stack in table) == sum(range(100))
    assert sum(float(stack.sum(dtype=np.float64)) for stack in table) == 250_000 * sum(range(100))
    assert resident("RssAnon") - before < 30e6 and resident("RssFile") - files_before < 30e6
