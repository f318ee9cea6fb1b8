"""The tables of formats of annotations, and the reading of a file of any of them.

To add a format, add a module beside this one with `FORMATS`, a tuple of `activity.datasets.annotations.records.Format`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from activity.datasets.annotations.content import AnnotationFile
from activity.datasets.annotations.own import OWN_FORMATS
from activity.datasets.annotations.records import Annotations, Format
from activity.errors import DatasetError

_MODULES = [
    importlib.import_module(f"{__package__}.{module.name}")
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if module.name not in ("formats", "matching")  # which need the table
]
FORMATS: dict[str, Format] = {format.name: format for module in _MODULES for format in getattr(module, "FORMATS", ())}
WRITTEN: dict[str, Format] = {format.ending.partition(".")[0]: format for format in FORMATS.values() if format.write}


def read_annotations(path: Path, *, own: bool = False) -> tuple[Format, Annotations]:
    """The format of a file, found by its content, and what it holds.

    Args:
        path: of the file.
        own: read manifests and timelines of this program too.

    Raises:
        DatasetError: the file is damaged, empty, or of no known format.
    """
    file = AnnotationFile(path)
    for format in OWN_FORMATS if own else ():
        if format.recognise(file):
            return format, format.read(file)
    for table in file.tables:
        header = {*table.rows[0].cells} if table.rows else set()
        if {"path", "label"} <= header and header & {"start_seconds", "end_seconds", "group", "split", "sample_id"}:
            hint = "put it into the folder of the videos as manifest.csv, or give it in the place of VIDEOS"
            raise DatasetError("a manifest of this program needs no --labels", path=path, hint=hint)
    for format in FORMATS.values():
        if format.recognise(file):
            return format, format.read(file)
    known = "; ".join(FORMATS)
    raise DatasetError(f"not a file of annotations that is known by its content; expected one of: {known}", path=path)
