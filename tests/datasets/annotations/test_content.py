"""Files of strangers: whatever they hold, they are refused by name, and nothing expands without end."""

import io
import zipfile

import pytest

from activity.datasets.annotations.content import AnnotationFile
from activity.errors import DatasetError


def rows_of(file):
    return [(row.where, row.cells) for table in file.tables for row in table.rows]


def test_tables_are_told_by_their_separator(write):
    for separator in "\t,;":
        lines = [separator.join(row) for row in (["a", "b b", "c"], ["", "", ""], ["1", ' "2', "3 "])]
        expected = [("row 1", ["a", "b b", "c"]), ("row 3", ["1", '"2', "3"])]
        assert rows_of(AnnotationFile(write("t", lines))) == expected


def test_a_cell_may_hold_lines(write):
    assert rows_of(AnnotationFile(write("t", ["a,b", '"x\ny",1', "2,3"]))) == [
        ("row 1", ["a", "b"]),
        ("row 3", ["x\ny", "1"]),
        ("row 4", ["2", "3"]),
    ]


def test_a_folder_is_told_how_its_files_are_given(tmp_path):
    with pytest.raises(DatasetError, match=rf"{tmp_path}: is a folder; expected its files, such as {tmp_path}/\*"):
        AnnotationFile(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are(write, encoding):
    content = "label\tvideo\nfüttern\ta.avi\n".encode(encoding)
    assert rows_of(AnnotationFile(write("t", content)))[1] == ("row 2", ["füttern", "a.avi"])


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"\xff\xfea\x00\xd8", "begins as UTF-16, but is not"),
        (b"a\x00b,c", "not a text file in UTF-8"),
        (b'{"a": ', "begins as JSON, but is not: Expecting value"),
        (b"[" * 100_000, "begins as JSON, but is not"),
        (b"<a>\n<b></a>", "begins as XML, but is not: mismatched tag: line 2"),
        (b"<a>caf\xe9</a>", "begins as XML, but is not: not well-formed"),
        (b'<?xml version="1.0" encoding="none-8"?><a/>', "begins as XML, but is not: unknown encoding"),
        (b'<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>', "has a document type definition, which could expand"),
        (b'a,b\n"' + b"x" * 200_000 + b'",1\n', "row 2: not a table: field larger than field limit"),
    ],
)
def test_what_is_damaged_is_refused(write, content, reason):
    with pytest.raises(DatasetError, match=reason) as caught:
        file = AnnotationFile(write("t", content))
        assert file.json or file.xml or file.tables
    assert caught.value.path.name == "t"


def test_what_is_not_there_and_what_is_too_large(write, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="no such file"):
        AnnotationFile(tmp_path / "none.csv")
    monkeypatch.setattr("activity.datasets.annotations.content._MOST_BYTES", 1 << 20)
    with pytest.raises(DatasetError, match="has 2 MiB; expected up to 1 MiB of annotations"):
        AnnotationFile(write("large.csv", b"a," * (1 << 20)))


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"PK\x03\x04 and no more", "begins as XLSX, but is not"),
        (zipped(a="b"), "begins as XLSX, but is not"),
        (zipped(xl__workbook_dot_xml='<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'), "has a document type definition"),
        (zipped(xl__workbook_dot_xml="<a>"), "begins as XLSX, but is not"),
        (zipped(bomb=b"0" * (3 << 20)), "unpacks to more than 2 MiB"),
    ],
)
def test_workbooks_that_are_none(write, monkeypatch, content, reason):
    pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    monkeypatch.setattr("activity.datasets.annotations.content._MOST_BYTES", 2 << 20)
    with pytest.raises(DatasetError, match=reason):
        assert AnnotationFile(write("book.xlsx", content)).tables


def test_workbooks_need_openpyxl(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(DatasetError, match=r"needs openpyxl; pip install '.\[annotations\]' in the project's folder"):
        assert AnnotationFile(write("book.xlsx", zipped(a="b"))).tables
