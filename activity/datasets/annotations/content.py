"""The content of a file of annotations: text, a table, JSON or XML, told apart by its first bytes.

Files come from strangers: sizes are bounded, XML may define nothing (no DTD, so no entities), and nothing is fetched.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from activity.errors import DatasetError, one_line, printable

_MOST_BYTES = 256 << 20  # of a file, and of an XLSX file when it is unpacked
_MOST_CELLS = 20_000_000
_HEAD_ROWS = 100  # a header stands among the first
INSTALL = "pip install '.[annotations]' in the project's folder"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        number: in the file or sheet, from 1; of a row of several lines that of the last.
        where: the same for people.
        cells: their text, without white space around it.
    """

    number: int
    where: str
    cells: list[str]


class Table:
    """The rows of a text file or of a sheet, without empty ones."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = [row for row in rows if any(row.cells)]

    def find_header(self, *columns: str, at_least: int) -> int | None:
        """The index of the first row that holds so many of some columns; `None` if there is none."""
        for index, row in enumerate(self.rows[:_HEAD_ROWS]):
            if len({*columns} & {*row.cells}) >= at_least:
                return index
        return None


@dataclass(frozen=True)
class Xml:
    """An XML document.

    Attributes:
        root: its first element.
        lines: the line in which each element begins.
    """

    root: ElementTree.Element
    lines: dict[ElementTree.Element, int]


class AnnotationFile:
    """A file of annotations, parsed as it is asked for; each kind is `None` or empty if it is of another.

    Args:
        path: of the file.

    Raises:
        DatasetError: there is no such file, it is empty or too large, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise DatasetError(f"is a folder; expected its files, such as {printable(path)}/*", path=path)
        if not path.is_file():
            raise DatasetError("no such file; expected annotations of another tool", path=path)
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise DatasetError(
                f"has {size >> 20} MiB; expected up to {_MOST_BYTES >> 20} MiB of annotations", path=path
            )
        self._bytes = path.read_bytes()
        if not self._bytes.strip():
            raise DatasetError("the file is empty; expected annotations", path=path)

    @cached_property
    def text(self) -> str:
        """All of it; bytes that are not UTF-8 stay visible, so that the rows that have them can be named."""
        if self._is_zip:
            return ""
        if self._bytes.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            try:
                return self._bytes.decode("utf-16")
            except UnicodeDecodeError as error:
                raise DatasetError(f"begins as UTF-16, but is not: {error}", path=self.path) from error
        if b"\0" in self._bytes[:4096]:
            raise DatasetError("not a text file in UTF-8, nor XLSX", path=self.path, hint="export it as CSV UTF-8")
        return self._bytes.decode("utf-8-sig", "surrogateescape")

    @cached_property
    def json(self) -> Any:
        """Its value, if it begins as JSON does."""
        if not self.text.lstrip().startswith(("{", "[")):
            return None
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"begins as JSON, but is not: {one_line(error)}", path=self.path) from error

    @cached_property
    def xml(self) -> Xml | None:
        """Its document, if it begins as XML does."""
        if not self.text.lstrip().startswith("<"):
            return None
        parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()
        lines: dict[ElementTree.Element, int] = {}

        def start(name: str, attributes: dict[str, str]) -> None:
            lines[builder.start(name, attributes)] = parser.CurrentLineNumber

        def refuse(*_: object) -> None:
            raise DatasetError("has a document type definition, which could expand without end", path=self.path)

        parser.StartElementHandler, parser.EndElementHandler = start, builder.end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
        try:
            parser.Parse(self._bytes, True)
        except (expat.ExpatError, LookupError, ValueError) as error:  # also of an encoding that nobody knows
            raise DatasetError(f"begins as XML, but is not: {one_line(error)}", path=self.path) from error
        return Xml(builder.close(), lines)

    @cached_property
    def tables(self) -> list[Table]:
        """The table of a text file, or those of the sheets of an XLSX file."""
        if self._is_zip:
            return self._sheets()
        if self.text.lstrip().startswith(("{", "[", "<")):
            return []
        head = self.text[:100_000]
        delimiter = max("\t,;", key=head.count)
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=delimiter)
        try:
            return [Table(Row(reader.line_num, f"row {reader.line_num}", [x.strip() for x in row]) for row in reader)]
        except csv.Error as error:
            raise DatasetError(f"row {reader.line_num}: not a table: {error}", path=self.path) from error

    @property
    def _is_zip(self) -> bool:
        return self._bytes.startswith(b"PK\x03\x04")

    def _sheets(self) -> list[Table]:
        try:
            import openpyxl
        except ImportError as error:
            raise DatasetError("an XLSX file needs openpyxl", path=self.path, hint=f"{INSTALL} brings it") from error
        self._check_archive()
        try:
            book = openpyxl.load_workbook(io.BytesIO(self._bytes), read_only=True, data_only=True)
            several = len(book.worksheets) > 1
            tables, num_cells = [], 0
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what a file claims of its size
                rows = []
                for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
                    num_cells += len(values)
                    if num_cells > _MOST_CELLS:
                        raise DatasetError(f"has more than {_MOST_CELLS} cells", path=self.path)
                    place = f"sheet {sheet.title} row {number}" if several else f"row {number}"
                    rows.append(Row(number, place, [_cell_text(value) for value in values]))
                tables.append(Table(rows))
            return tables
        except DatasetError:
            raise
        except Exception as error:  # of damaged files openpyxl raises anything
            raise DatasetError(f"begins as XLSX, but is not: {one_line(error)}", path=self.path) from error

    def _check_archive(self) -> None:
        """Refuse what would grow without end when it is unpacked."""
        try:
            with zipfile.ZipFile(io.BytesIO(self._bytes)) as archive:
                if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
                    raise DatasetError(f"unpacks to more than {_MOST_BYTES >> 20} MiB", path=self.path)
                for member in archive.infolist():
                    if member.filename.endswith((".xml", ".rels")):
                        _check_no_definitions(archive.read(member), self.path)
        except DatasetError:
            raise
        except Exception as error:  # of damaged archives zipfile raises anything
            raise DatasetError(f"begins as XLSX, but is not: {one_line(error)}", path=self.path) from error


def _check_no_definitions(content: bytes, path: Path) -> None:
    def refuse(*_: object) -> None:
        raise DatasetError("has a document type definition, which could expand without end", path=path)

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)


def _cell_text(value: object) -> str:
    """A cell of a sheet as a table of text would have it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()
