"""Create ML: the annotation file of an action classifier, a CSV or JSON table of videos, labels and times.

The tool lets its user name the columns; these are its defaults (Apple, `MLActionClassifier.DataSource`), and names in
use. Times are seconds or `mm:ss`; without them a label is that of the whole video.
"""

from __future__ import annotations

from activity.datasets.annotations.content import AnnotationFile, Row, Table
from activity.datasets.annotations.records import Annotations, Film, Format, Record

_VIDEO = ("videoPath", "video", "filename", "file_name", "fileName", "file", "path")
_LABEL = ("label", "annotation", "action")
_START = ("startTime", "start", "start_time", "starttime", "startSeconds")
_END = ("endTime", "end", "end_time", "endtime", "endSeconds")


def _table(file: AnnotationFile) -> Table | None:
    if isinstance(file.json, list) and file.json and all(isinstance(entry, dict) for entry in file.json):
        names = list(dict.fromkeys(str(name) for entry in file.json for name in entry))
        rows = [Row(0, "keys", names)]
        for number, entry in enumerate(file.json, start=1):
            rows.append(
                Row(
                    number,
                    f"entry {number}",
                    ["" if entry.get(name) is None else str(entry[name]).strip() for name in names],
                )
            )
        return Table(rows)
    return file.tables[0] if file.tables else None


def _recognise(file: AnnotationFile) -> bool:
    table = _table(file)
    header = {*table.rows[0].cells} if table and table.rows else set()
    return bool(header & {*_VIDEO}) and bool(header & {*_LABEL, *_START, *_END})


def _read(file: AnnotationFile) -> Annotations:
    table, found = _table(file), Annotations()
    assert table is not None  # it was recognised
    header = table.rows[0].cells
    names = {
        role: next((name for name in known if name in header), "")
        for role, known in (("video", _VIDEO), ("label", _LABEL), ("start", _START), ("end", _END))
    }
    if not names["label"]:
        found.error(table.rows[0].where, f"missing column label; received: {', '.join(header)}")
        return found
    for half, other in (("start", "end"), ("end", "start")):
        if names[half] and not names[other]:
            found.error(table.rows[0].where, f"missing column {other}, where there is {names[half]}")
            return found
    for where, cells in found.rows_below(table, 0):
        found.records.append(
            Record(
                where=where,
                films=(Film(cells.get(names["video"], "")),),
                label=cells.get(names["label"], ""),
                start=cells.get(names["start"]),
                end=cells.get(names["end"]),
                columns={name: cell for name, cell in cells.items() if name not in names.values()},
            )
        )
    return found


FORMATS = (Format("Create ML (CSV or JSON)", _recognise, _read),)
