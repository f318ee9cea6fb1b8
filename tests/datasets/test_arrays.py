import os

import numpy as np
import pytest

from activity.datasets.arrays import map_array


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
