"""Files of this program as annotations: timelines that `classify --out` wrote, and manifests.

They are not among the formats of other tools: a manifest takes the place of labels, and a timeline is no truth.
"""

from __future__ import annotations

from activity.datasets.annotations.content import AnnotationFile
from activity.datasets.annotations.records import Annotations, Film, Format, Record, positive

_TIMES = ("start_seconds", "end_seconds")


def _recognise_json(file: AnnotationFile) -> bool:
    return isinstance(file.json, dict) and {"source", "segments"} <= file.json.keys()


def _read_json(file: AnnotationFile) -> Annotations:
    found, segments = Annotations(), file.json["segments"]
    film = Film(str(file.json["source"]), seconds=positive(file.json.get("duration_seconds")))
    for number, segment in enumerate(segments if isinstance(segments, list) else (), start=1):
        if not isinstance(segment, dict) or not {"label", *_TIMES} <= segment.keys():
            found.error(f"segment {number}", f"expected label, {' and '.join(_TIMES)}; received {segment}")
            continue
        start, end = (segment[name] for name in _TIMES)
        label = str(segment["label"])
        found.records.append(Record(where=f"segment {number}", films=(film,), label=label, start=start, end=end))
    return found


def _columns(file: AnnotationFile) -> set[str]:
    return {*file.tables[0].rows[0].cells} if file.tables and file.tables[0].rows else set()


def _recognise_csv(file: AnnotationFile) -> bool:
    return {"label", *_TIMES} <= _columns(file) and not {"path", "video"} & _columns(file)


def _read_csv(file: AnnotationFile) -> Annotations:
    return _read_rows(file, file.path.stem)


def _recognise_manifest(file: AnnotationFile) -> bool:
    return {"path", "label"} <= _columns(file)


def _read_manifest(file: AnnotationFile) -> Annotations:
    return _read_rows(file, "")


def _read_rows(file: AnnotationFile, film: str) -> Annotations:
    """Rows of a table; of the film of this name, or of that in the column `path`."""
    found, num_unlabelled = Annotations(), 0
    for where, cells in found.rows_below(file.tables[0], 0):
        start, end = (cells.get(name, "") for name in _TIMES)
        # In a data set, the length of a row without times is that of its film
        seconds = None if start or end else positive(cells.get("duration_seconds"))
        if not cells["label"]:
            num_unlabelled += 1
            continue
        of = Film(film or cells["path"], seconds=seconds)
        found.records.append(Record(where=where, films=(of,), label=cells["label"], start=start, end=end))
    if num_unlabelled:
        found.warn("file", f"{num_unlabelled} rows have no label, and are left out")
    return found


OWN_FORMATS = (
    Format("a timeline of this program (JSON)", _recognise_json, _read_json),
    Format("a timeline of this program (CSV)", _recognise_csv, _read_csv),
    Format("a manifest of this program (CSV)", _recognise_manifest, _read_manifest),
)
