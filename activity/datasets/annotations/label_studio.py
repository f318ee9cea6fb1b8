"""Label Studio: its JSON export, with labels of the tag `TimelineLabels`, or of `Labels` on the sound of a video.

`ranges` count frames from 1, both ends included (`TimelineLabels` in the documentation, and `utils/converter.py` of the
YOLO example of HumanSignal/label-studio-ml-backend), at the `frameRate` of the tag `Video`, 24 unless it is set. The
export does not hold the labelling configuration, so the rate is known only where the data of a task has it.

A task without annotations is one to be imported (labelstud.io/guide/predictions), and its predictions are read: an
export has `annotations`, if only an empty list. Such tasks are what is written.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from activity.datasets.annotations.content import AnnotationFile
from activity.datasets.annotations.records import (
    Annotations,
    Film,
    Format,
    LabelledFilm,
    Record,
    plain_text,
    positive,
)

_RATES = ("fps", "framerate", "frame_rate", "frameRate")
_DEFAULT_RATE = 24.0
_ANNOTATIONS = ("annotations", "completions", "predictions")  # the first that a task has is read
_TAG, _VIDEO = "videoLabels", "video"  # names of the tags in Label Studio's template for timelines of videos


def _tasks(file: AnnotationFile) -> list[Any]:
    return file.json if isinstance(file.json, list) else [file.json]


def _recognise(file: AnnotationFile) -> bool:
    return any(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and {*_ANNOTATIONS} & task.keys()
        for task in _tasks(file)[:100]
    )


def _read(file: AnnotationFile) -> Annotations:
    found, tiers = Annotations(), dict[str, None]()
    others, unread = Counter[str](), Counter[str]()
    for number, task in enumerate(_tasks(file), start=1):
        where = f"task {task.get('id', number)}" if isinstance(task, dict) else f"task {number}"
        read = next((name for name in _ANNOTATIONS if isinstance(task, dict) and name in task), "")
        annotations = task[read] if read else None
        if not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
            found.error(where, "expected an object with data and annotations")
            continue
        film = _film(task["data"])
        valid = [x for x in annotations if isinstance(x, dict) and not x.get("was_cancelled")]
        unread["cancelled annotations"] += len(annotations) - len(valid)
        for kind in filter(lambda kind: kind != read, ("predictions", "drafts")):
            unread[kind] += len(task[kind]) if isinstance(task.get(kind), list) else 0
        if len(valid) > 1:
            found.warn(where, f"has {len(valid)} annotations; all are read, with their annotator in a column")
        for annotation in valid:
            _read_annotation(found, tiers, others, where, annotation, film)
    for what, count in unread.items():
        if count:
            found.warn("file", f"{count} {what} are not read")
    for kind, count in others.items():
        found.warn("file", f"{count} results of type {kind} have no start and end, and are not read")
    found.tiers = tuple(tiers)
    return found


def _read_annotation(
    found: Annotations, tiers: dict[str, None], others: Counter[str], where: str, annotation: dict[str, Any], film: Film
) -> None:
    result = annotation.get("result")
    for number, region in enumerate(result if isinstance(result, list) else [], start=1):
        value = region.get("value") if isinstance(region, dict) else None
        value = value if isinstance(value, dict) else {}
        labels, ranges = value.get("timelinelabels") or value.get("labels"), value.get("ranges")
        if not labels or not (ranges or "start" in value):
            others[str(region.get("type") if isinstance(region, dict) else "unknown")] += 1
            continue
        tier = plain_text(region.get("from_name"))
        tiers[tier] = None
        place = f"{where} region {region.get('id', number)}"
        for times in ranges if isinstance(ranges, list) else [value]:
            if not isinstance(times, dict) or "start" not in times or "end" not in times:
                found.error(place, f"expected a range with start and end, received {times}")
                continue
            start, in_frames = times["start"], bool(ranges)
            if in_frames and isinstance(start, (int, float)):
                if start == 0:
                    found.error(place, "begins at frame 0; Label Studio counts frames from 1")
                    continue
                start -= 1
            for label in labels if isinstance(labels, list) else [labels]:
                columns = {"annotator": _annotator(annotation)}
                found.records.append(
                    Record(
                        where=place,
                        films=(film,),
                        label=plain_text(label),
                        start=start,
                        end=times["end"],
                        in_frames=in_frames,
                        tier=tier,
                        columns={name: text for name, text in columns.items() if text},
                    )
                )


def _annotator(annotation: dict[str, Any]) -> str:
    who = annotation.get("completed_by")
    return str(who.get("email") or who.get("id") or "") if isinstance(who, dict) else str(who or "")


def _film(data: dict[str, Any]) -> Film:
    """The film of a task: the value that is called a video, or else the first text."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    address = next((texts[name] for name in texts if "video" in name.lower()), next(iter(texts.values()), ""))
    return Film(_path_in(address), rate=next(filter(None, (positive(data.get(name)) for name in _RATES)), None))


def _path_in(address: str) -> str:
    """The path in an address such as `/data/upload/1/0a1b2c3d-a.mp4` or `/data/local-files/?d=films/a.mp4`."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as https://[
        return address
    if named := parse_qs(parts.query).get("d"):
        return named[0]
    return unquote(parts.path) if parts.scheme or address.startswith("/data/") else address


def _write(film: LabelledFilm, _: Path) -> str:
    """A task to be imported, with the labels as a prediction; `fps` in its data is for `frameRate="$fps"`.

    The address is that of a file below the root of local storage (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/).
    """
    regions = []
    for number, segment in enumerate(film.segments, start=1):
        start, stop = film.frames_of(segment)  # from 0, the last one not included
        regions.append(
            {
                **{"id": f"r{number}", "type": "timelinelabels", "from_name": _TAG, "to_name": _VIDEO},
                "value": {"ranges": [{"start": start + 1, "end": stop}], "timelinelabels": [segment.label]},
                "score": segment.probability,
            }
        )
    local = quote(PurePath(film.address).as_posix().lstrip("/"))
    address = film.address if film.is_url else f"/data/local-files/?d={local}"
    prediction = {"model_version": "activity", "result": regions}
    task = {"data": {"video": address, "fps": film.rate}, "predictions": [prediction]}
    return json.dumps([task], indent=1, allow_nan=False) + "\n"


FORMATS = (
    Format(
        "Label Studio (JSON)",
        _recognise,
        _read,
        default_rate=_DEFAULT_RATE,
        ending="label-studio.json",
        write=_write,
    ),
)
