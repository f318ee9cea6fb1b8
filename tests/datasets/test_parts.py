import csv
import logging

import numpy as np
import pytest

from activity.datasets import parts
from activity.datasets.parts import PackedArrays, remove_samples
from activity.files import lock_folder, write_csv

RNG = np.random.default_rng(0)


def stacks(*names, width=3):
    return {name: RNG.random((int(RNG.integers(1, 6)), width)).astype(np.float32) for name in names}


def fill(folder, arrays, *, pack=True):
    packed = PackedArrays(folder)
    for name, array in arrays.items():
        packed.write(name, array)
    if pack:
        packed.pack()
    return packed


def assert_holds(folder, arrays):
    packed = PackedArrays(folder)
    for name, array in arrays.items():
        assert name in packed and packed.num_bytes(name) == array.nbytes
        np.testing.assert_array_equal(packed[name], array)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_arrays_are_single_files_until_they_are_packed(tmp_path):
    arrays = stacks("b", "a", "c")
    fill(tmp_path, arrays, pack=False)
    assert files(tmp_path) == ["a.npy", "b.npy", "c.npy", "digests.txt"]
    assert_holds(tmp_path, arrays)
    PackedArrays(tmp_path).pack()
    assert files(tmp_path) == ["digests.txt", "part-00000.csv", "part-00000.npy"]
    assert_holds(tmp_path, arrays)
    np.testing.assert_array_equal(np.load(tmp_path / "part-00000.npy"), np.concatenate([arrays[x] for x in "abc"]))
    with (tmp_path / "part-00000.csv").open() as table:
        rows = list(csv.DictReader(table))
    lengths = [len(arrays[x]) for x in "abc"]
    assert [row["sample_id"] for row in rows] == ["a", "b", "c"]
    assert [int(row["num_rows"]) for row in rows] == lengths
    assert [int(row["first_row"]) for row in rows] == [0, lengths[0], sum(lengths[:2])]
    assert {line.split()[1] for line in (tmp_path / "digests.txt").read_text().splitlines()} == {
        "part-00000.csv",
        "part-00000.npy",
    }


def test_what_is_not_there_is_not_there(tmp_path):
    packed = fill(tmp_path / "new", stacks("a"))
    assert "b" not in packed and "b" not in PackedArrays(tmp_path / "absent")
    with pytest.raises(KeyError):
        packed["b"]
    assert not (tmp_path / "absent").exists()


def test_new_arrays_fill_up_the_last_part_and_what_is_in_it_stays_where_it_is(tmp_path):
    old, new = stacks("b", "c"), stacks("a", "d")
    reader = fill(tmp_path, old)
    fill(tmp_path, new)
    assert files(tmp_path) == ["digests.txt", "part-00000.csv", "part-00000.npy"]
    assert_holds(tmp_path, {**old, **new})
    for name, array in old.items():
        np.testing.assert_array_equal(reader[name], array)
    np.testing.assert_array_equal(reader["d"], new["d"])  # packed by another since


def test_a_part_holds_so_many_arrays_and_bytes(tmp_path, monkeypatch):
    arrays = stacks(*"abcdefg")
    monkeypatch.setattr(parts, "_MOST_IN_PART", 3)
    fill(tmp_path / "number", arrays)
    assert len(list((tmp_path / "number").glob("part-*.npy"))) == 3
    assert_holds(tmp_path / "number", arrays)
    monkeypatch.setattr(parts, "_MOST_IN_PART", 4096)
    monkeypatch.setattr(parts, "_MOST_BYTES", 1)
    fill(tmp_path / "bytes", arrays)
    assert len(list((tmp_path / "bytes").glob("part-*.npy"))) == 7
    assert_holds(tmp_path / "bytes", arrays)


def test_a_folder_never_has_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_MOST_SINGLE", 5)
    packed, arrays, most = PackedArrays(tmp_path), stacks(*map(str, range(23))), 0
    for name, array in arrays.items():
        packed.write(name, array)
        most = max(most, len(files(tmp_path)))
    assert most <= 5 + 3  # with a part, its table and the digests
    assert_holds(tmp_path, arrays)


@pytest.mark.parametrize("name", ["part-00000.npy", "part-00000.csv"])
@pytest.mark.parametrize("spoil", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole[:-3] + b"123"])
def test_a_damaged_part_is_not_there_and_the_others_are(tmp_path, monkeypatch, name, spoil, caplog):
    monkeypatch.setattr(parts, "_MOST_IN_PART", 2)
    arrays = stacks(*"abcd")
    fill(tmp_path, arrays)
    (tmp_path / name).write_bytes(spoil((tmp_path / name).read_bytes()))
    packed = PackedArrays(tmp_path)
    assert [x for x in arrays if x in packed] == ["c", "d"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{tmp_path / 'part-00000.npy'}: ") and "computed again" in message
    for lost in "ab":
        packed.write(lost, arrays[lost])
    packed.pack()
    caplog.clear()
    assert_holds(tmp_path, arrays)
    assert not caplog.records and len(list(tmp_path.glob("part-*.npy"))) == 2


def test_a_table_that_names_rows_beyond_its_part_is_damaged(tmp_path, caplog):
    fill(tmp_path, stacks("a"))
    with (tmp_path / "part-00000.csv").open() as table:
        (row,) = csv.DictReader(table)
    write_csv(tmp_path / "part-00000.csv", list(row), [{**row, "num_rows": 7}], digest=True)
    assert "a" not in PackedArrays(tmp_path)
    assert "part-00000.csv names rows that it does not have; what it holds is computed again" in caplog.text


def test_a_part_without_a_table_is_written_again(tmp_path):
    arrays = stacks("a", "b")
    fill(tmp_path, arrays, pack=False)
    (tmp_path / "part-00000.npy").write_bytes(b"as a kill left it")
    PackedArrays(tmp_path).pack()
    assert_holds(tmp_path, arrays)


def test_a_single_file_that_a_kill_left_beside_its_part_is_removed(tmp_path):
    arrays = stacks("a", "b")
    fill(tmp_path, arrays)
    np.save(tmp_path / "a.npy", arrays["a"])
    PackedArrays(tmp_path).pack()
    assert_holds(tmp_path, arrays)
    assert files(tmp_path) == ["digests.txt", "part-00000.csv", "part-00000.npy"]


def test_an_array_of_another_shape_stays_alone(tmp_path):
    arrays = {**stacks("a", "b"), **stacks("c", width=4)}
    fill(tmp_path, arrays)
    assert "c.npy" in files(tmp_path)
    assert_holds(tmp_path, arrays)


def test_while_another_process_packs_files_stay_single(tmp_path):
    arrays = stacks("a", "b")
    with lock_folder(tmp_path, "packing"):
        fill(tmp_path, arrays)
        assert "a.npy" in files(tmp_path)
    assert_holds(tmp_path, arrays)


def test_where_files_cannot_be_packed_it_is_said_once(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    arrays = stacks("a", "b")
    packed = fill(tmp_path, arrays, pack=False)
    monkeypatch.setattr(parts, "write_csv", full)
    with caplog.at_level(logging.WARNING):
        packed.pack()
        packed.pack()
    assert caplog.text.count("not packed into parts (No space left on device)") == 1
    assert_holds(tmp_path, arrays)


def test_samples_that_are_gone_are_removed_with_their_part(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_MOST_IN_PART", 2)
    arrays = stacks(*"abcd")
    fill(tmp_path, arrays)
    fill(tmp_path, stacks("e", "f"), pack=False)
    remove_samples(tmp_path, "abcf".__contains__)
    assert files(tmp_path) == ["digests.txt", "e.npy", "part-00001.csv", "part-00001.npy"]
    assert_holds(tmp_path, {name: arrays[name] for name in "cd"})
