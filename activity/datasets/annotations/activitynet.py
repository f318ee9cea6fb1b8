"""ActivityNet: the JSON of its releases, which other data sets and tools write too.

`database` -> name of the video -> `subset`, `duration`, `annotations`: a list of `label` and `segment`, in seconds
(github.com/activitynet/ActivityNet, `Evaluation/eval_detection.py`). Its crawler calls the
files `v_NAME.mp4`.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

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

_SPLITS = {"training": "train", "train": "train", "validation": "val", "val": "val", "testing": "test", "test": "test"}


def _recognise(file: AnnotationFile) -> bool:
    return isinstance(file.json, dict) and isinstance(file.json.get("database"), dict)


def _read(file: AnnotationFile) -> Annotations:
    found = Annotations()
    unlabelled = 0
    for name, video in file.json["database"].items():
        where = f"video {name}"
        if not isinstance(video, dict) or not isinstance(video.get("annotations"), list):
            found.error(where, "expected an object with annotations, a list")
            continue
        unlabelled += not video["annotations"]
        subset = str(video.get("subset") or "")
        if subset and subset not in _SPLITS:
            found.warn(where, f"subset {subset} is none of {', '.join(_SPLITS)}; it is split as if it had none")
        film = Film(name, seconds=positive(video.get("duration")), rate=positive(video.get("fps")))
        for number, annotation in enumerate(video["annotations"], start=1):
            _read_one(found, f"{where} annotation {number}", annotation, film, _SPLITS.get(subset, ""))
    if unlabelled:
        found.warn("database", f"{unlabelled} videos have no annotations, and are left out")
    return found


def _read_one(found: Annotations, where: str, annotation: Any, film: Film, split: str) -> None:
    segment = annotation.get("segment") if isinstance(annotation, dict) else None
    if not isinstance(segment, list) or len(segment) != 2:
        found.error(where, f"missing segment: expected label and segment, its start and end; received {annotation}")
        return
    start, end = segment
    label = plain_text(annotation.get("label"))
    found.records.append(Record(where=where, films=(film,), label=label, start=start, end=end, split=split))


def _write(film: LabelledFilm, _: Path) -> str:
    """A database of one film, which is called without its ending, as all are there; each annotation has its score."""
    annotations = [
        {"label": x.label, "segment": [round(x.start_seconds, 3), round(x.end_seconds, 3)], "score": x.probability}
        for x in film.segments
    ]
    video = {"duration": film.seconds, "fps": film.rate, "subset": "", "annotations": annotations}
    taxonomy = [
        {"nodeId": number, "nodeName": label, "parentId": 0, "parentName": "Root"}
        for number, label in enumerate(film.labels, start=1)
    ]
    root = {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None}
    release = {"version": "", "taxonomy": [root, *taxonomy], "database": {PurePath(film.name).stem: video}}
    return json.dumps(release, indent=1, allow_nan=False) + "\n"


FORMATS = (Format("ActivityNet (JSON)", _recognise, _read, ending="activitynet.json", write=_write),)
