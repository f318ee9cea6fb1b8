"""Labels frame by frame: a column a behaviour, as DeepEthogram writes, or a list of integers a film.

- A CSV with a column of 0 and 1 for each behaviour and a row for each frame; -1 is a frame that nobody has labelled
  (jbohnslav/deepethogram, `projects.py`). It belongs to the film whose name it has, with or without `_labels`
  or `.per-frame`, as it is written here.
- A text of one integer a frame, in lines or separated by commas or spaces, or a JSON list of them; the same.
- A JSON object with `labels`, film -> a list of integers, and `class_names`, as FERAL reads and BORIS's plugin writes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from activity.datasets.annotations.content import AnnotationFile, Row, Table
from activity.datasets.annotations.records import Annotations, Film, Format, LabelledFilm, Record

_INDEX = {"", "frame", "frames", "index", "frame_number", "unnamed: 0"}
_VALUES = {"0": 0, "1": 1, "-1": -1, "0.0": 0, "1.0": 1, "-1.0": -1}
_INTEGER = re.compile(r"[+-]?\d{1,9}")
_SEPARATOR = re.compile(r"[ \t]*[,;]?[ \t]*\r?\n[ \t]*|[ \t]*[,;][ \t]*|[ \t]+")  # one: an empty line is a frame
_MOST_SHOWN = 40  # characters of a value that is no number
_SPLITS = ("train", "val", "test")


def _film(file: AnnotationFile, num_frames: int) -> Film:
    """The film that a file is called after: `a_labels.csv` is of `a.mp4`, in the folder of the same name, if any."""
    name = re.sub(r"(_labels?|\.per-frame)$", "", file.path.stem)
    return Film(str(file.path.resolve().parent / name), num_frames=num_frames, is_beside=True)


def _runs(values: Sequence[Any]) -> Iterator[tuple[Any, int, int]]:
    """Each value with the first frame of a run of it, and the one after its last."""
    start = 0
    for value, run in groupby(values):
        stop = start + len(list(run))
        yield value, start, stop
        start = stop


# === A column a behaviour ===


def _recognise_columns(file: AnnotationFile) -> bool:
    if len(file.tables) != 1 or len(file.tables[0].rows) < 2:
        return False
    header, *rows = (row.cells for row in file.tables[0].rows[:6])
    first = int(header[0].lower() in _INDEX)
    names = header[first:]
    return (
        bool(names)
        and all(name and not _INTEGER.fullmatch(name) for name in names)
        and 2 * sum(bool(row[first:]) and all(cell in _VALUES for cell in row[first:]) for row in rows) > len(rows)
    )


def _read_columns(file: AnnotationFile) -> Annotations:
    table, found = file.tables[0], Annotations()
    header = table.rows[0].cells
    first = int(header[0].lower() in _INDEX)
    frames = _frames(found, table, has_index=bool(first))
    film, num_unlabelled = _film(file, max(frames, default=-1) + 1), 0
    for column in range(first, len(header)):
        values = {}
        for frame, row in frames.items():
            cell = row.cells[column] if column < len(row.cells) else ""
            if cell in _VALUES:
                values[frame] = _VALUES[cell]
            else:
                what = f"not a number 0, 1 or -1 in column {header[column]}: {cell[:_MOST_SHOWN] or 'nothing'}"
                found.error(row.where, f"{what}; this frame gets no label of it")
        num_unlabelled += sum(value < 0 for value in values.values())
        labelled = [frame for frame, value in values.items() if value > 0]
        for start, stop in _runs_of(labelled):
            last = frames[stop - 1].where.rpartition(" ")[2]
            where = frames[start].where + (f" to {last}" if stop - start > 1 else "")
            found.records.append(
                Record(where=where, films=(film,), label=header[column], start=start, end=stop, in_frames=True)
            )
    if num_unlabelled:
        found.warn("file", f"{num_unlabelled} cells are -1, which nobody has labelled; no label is read from them")
    return found


def _frames(found: Annotations, table: Table, *, has_index: bool) -> dict[int, Row]:
    """Frame, counted from 0 -> its row: by the column that numbers them, from 0 or 1, or by their order."""
    header, *rows = table.rows
    base = 1 if has_index and rows[0].cells[0] == "1" else 0 if has_index else header.number + 1
    frames: dict[int, Row] = {}
    expected = 0
    for row in rows:
        number = row.cells[0] if has_index else str(row.number)
        frame = int(number) - base if _INTEGER.fullmatch(number) else -1
        if frame < 0:
            found.error(row.where, f"not a number of a frame: {number[:_MOST_SHOWN] or 'nothing'}; it gets no label")
        elif any(row.cells[len(header.cells) :]):
            found.error(row.where, f"expected {len(header.cells)} fields, as the header has; this frame gets no label")
        elif frame in frames:
            found.error(row.where, f"frame {number} is there already, in {frames[frame].where}; it keeps that label")
        else:
            if frame > expected:
                found.error(row.where, f"{frame - expected} frames are missing before it; they get no label")
            frames[frame] = row
        expected = max(expected, frame + 1)
    return dict(sorted(frames.items()))


def _runs_of(frames: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first frame of each run without a gap, and the one after its last; frames rise."""
    for _, run in groupby(enumerate(frames), lambda pair: pair[1] - pair[0]):
        own = [frame for _, frame in run]
        yield own[0], own[-1] + 1


def _write_columns(film: LabelledFilm, _: Path) -> str:
    """A row a frame, numbered from 0, and a column for each label, whether it occurs or not."""
    frames = {label: [0] * film.num_frames for label in film.labels}
    for segment in film.segments:
        start, stop = film.frames_of(segment)
        frames[segment.label][start:stop] = [1] * (stop - start)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame", *frames])
    writer.writerows([frame, *cells] for frame, cells in enumerate(zip(*frames.values(), strict=True)))
    return text.getvalue()


# === A list of integers ===


def _recognise_list(file: AnnotationFile) -> bool:
    if isinstance(file.json, list):
        return bool(file.json) and all(isinstance(value, int) for value in file.json[:5])
    if file.json is not None or len(file.tables) != 1 or not file.text:
        return False
    words = file.text[:2000].replace(",", " ").split()[:5]
    rows = file.tables[0].rows
    return (
        bool(rows) and all(_INTEGER.fullmatch(word) for word in words) and (len(rows) == 1 or len(rows[0].cells) == 1)
    )


def _read_list(file: AnnotationFile) -> Annotations:
    found = Annotations()
    words = file.json if file.json is not None else _SEPARATOR.split(file.text.strip(" \t\r\n,;"))
    _add_list(found, "frame", words, _film(file, len(words)), {}, "")
    return found


def _add_list(
    found: Annotations, where: str, words: Sequence[Any], film: Film, names: dict[str, str], split: str
) -> None:
    values: list[str | None] = []
    for number, word in enumerate(words):
        is_integer = not isinstance(word, (bool, float)) and _INTEGER.fullmatch(str(word))
        if not is_integer:
            found.error(
                f"{where} {number}",
                f"not a number of a label: {str(word)[:_MOST_SHOWN] or 'nothing'}; it gets no label",
            )
        values.append(str(int(word)) if is_integer else None)
    num_unlabelled = sum(value is not None and value.startswith("-") for value in values)
    if num_unlabelled:
        found.warn(where, f"{num_unlabelled} frames are below 0, which says that they have no label")
    for value, start, stop in _runs(values):
        if value is None or value.startswith("-"):
            continue
        place = f"{where} {start}" if stop - start == 1 else f"{where} {start} to {stop - 1}"
        if names and value not in names:
            found.error(place, f"label {value} has no name; class_names has {', '.join(names)}")
            continue
        label = names.get(value, value)
        found.records.append(
            Record(where=place, films=(film,), label=label, start=start, end=stop, in_frames=True, split=split)
        )


# === Lists of integers of many films ===


def _recognise_lists(file: AnnotationFile) -> bool:
    return isinstance(file.json, dict) and isinstance(file.json.get("labels"), dict) and "class_names" in file.json


def _read_lists(file: AnnotationFile) -> Annotations:
    found = Annotations()
    names, splits = file.json["class_names"], file.json.get("splits")
    if not isinstance(names, dict):
        found.error("class_names", f"expected an object, number -> name; received {type(names).__name__}")
        return found
    splits = {} if splits is None else splits
    if not isinstance(splits, dict) or not all(isinstance(films, list) for films in splits.values()):
        found.error("splits", "expected an object, split -> list of films; no split is read")
        splits = {}
    split_of = {str(film): split for split in _SPLITS for film in splits.get(split, [])}
    for film, words in file.json["labels"].items():
        where = f"{film} frame"
        if not isinstance(words, list) or any(isinstance(word, list) for word in words):
            found.error(film, "expected a list of one integer a frame; several labels at once are not read")
            continue
        labels = {str(number): str(name) for number, name in names.items()}
        _add_list(found, where, words, Film(film, num_frames=len(words)), labels, split_of.get(film, ""))
    return found


FORMATS = (
    Format(
        "a column of 0 and 1 a behaviour (CSV), as of DeepEthogram",
        _recognise_columns,
        _read_columns,
        ending="per-frame.csv",
        write=_write_columns,
    ),
    Format("a list of one integer a frame (text or JSON)", _recognise_list, _read_list),
    Format("lists of one integer a frame with class_names (JSON), as of FERAL", _recognise_lists, _read_lists),
)
