"""BORIS: exported events, aggregated or tabular, of versions 7 to 9, and `.boris` projects (olivierfriard/BORIS).

Times are those of an observation: of the films of its player 1, one after the other, plus its time offset
(`event2media_file_name` in `boris/observation_operations.py`). Columns are found by name; names that this program does
not know are the independent variables of the user, and carried through.

A project is what is written, as BORIS opens projects and imports observations from them, but not its exported events.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias

from activity.datasets.annotations.content import AnnotationFile, Table
from activity.datasets.annotations.records import Annotations, Film, Format, LabelledFilm, Record, positive

_OBSERVATION, _BEHAVIOR, _SUBJECT = "Observation id", "Behavior", "Subject"
_START, _STOP, _TIME = "Start (s)", "Stop (s)", "Time"
_KINDS = ("Behavior type", "Status")  # Status: before version 8
_SOURCES = ("Source",)
_FILMS = ("Media file name", "Media file path", "Media file")  # of the event; the latter two before version 8
_RATES, _LENGTHS, _TOTAL = ("FPS (frame/s)", "FPS"), ("Media duration (s)",), "Total length"
_OFFSET = "Time offset (s)"
_CARRIED = {_SUBJECT: "subject", _OBSERVATION: "observation", "Behavioral category": "category"}
_COMMENTS = ("Comment", "Comment start", "Comment stop")
_UNUSED = {
    *("Observation date", "Description", "Observation duration", "Observation type", "Coding duration"),
    *("Observation duration by subject by observation", "Duration (s)", "Image index", "Image file path"),
    *("Image index start", "Image index stop", "Image file path start", "Image file path stop", "Modifiers"),
}
_ALL = {_OBSERVATION, _BEHAVIOR, _SUBJECT, _START, _STOP, _TIME, _TOTAL, _OFFSET, *_KINDS, *_SOURCES, *_FILMS}
_ALL |= {*_RATES, *_LENGTHS, *_CARRIED, *_COMMENTS, *_UNUSED}
_MODIFIER = re.compile(r"Modifiers?( #\d+)?")
_PLAYER = re.compile(r"\|?\s*player #(\d+):\s*")
_KEYS = string.digits + string.ascii_lowercase
_NO_SUBJECT = "No focal subject"
_Event: TypeAlias = Literal["", "START", "STOP", "POINT"]
_EVENTS: dict[str, _Event] = {"START": "START", "STOP": "STOP", "POINT": "POINT"}


# === Exported events ===


def _header(table: Table) -> int | None:
    return table.find_header(_BEHAVIOR, _SUBJECT, _START, _STOP, _TIME, _OBSERVATION, *_KINDS, *_FILMS, at_least=4)


def _recognise_table(file: AnnotationFile) -> bool:
    return any(_header(table) is not None for table in file.tables)


def _read_tables(file: AnnotationFile) -> Annotations:
    found = Annotations()
    for table in file.tables:
        header = _header(table)
        if header is None:
            if table.rows:
                found.error(table.rows[0].where, "no header of events of BORIS; this sheet is not read")
            continue
        _read_table(found, table, header)
    return found


def _read_table(found: Annotations, table: Table, header: int) -> None:
    names = {*table.rows[header].cells}
    is_aggregated = _START in names or _STOP in names
    needed: list[tuple[str, ...]] = [(_BEHAVIOR,), *([(_START,), (_STOP,)] if is_aggregated else [(_TIME,), _KINDS])]
    block, players, variables = _block(table, header)
    if not players:
        needed.append((*_SOURCES, *_FILMS))
    absent = [" or ".join(known) for known in needed if not names & {*known}]
    if absent:
        received = ", ".join(filter(None, table.rows[header].cells))
        found.error(table.rows[header].where, f"missing column {', '.join(absent)}; received: {received}")
        return
    rows = [(where, {**block, **cells}) for where, cells in found.rows_below(table, header)]
    queues = _queues(found, rows, players)
    for where, cells in rows:
        films = queues.get(cells.get(_OBSERVATION, ""), ())
        kind = _first(cells, _KINDS).upper()
        if "live" in cells.get("Observation type", "").lower() or "live" in cells.get("Source", "").lower():
            found.warn(where, "a live observation has no film; left out")
            continue
        columns = variables | _columns(cells)
        event = _EVENTS.get(kind, "")
        if not is_aggregated and not event:
            found.error(where, f"expected START, STOP or POINT, received {kind or 'nothing'}")
            continue
        offset = _offset(cells.get(_OFFSET) or 0)
        if offset is None:
            found.error(where, f"not a number of seconds: {_OFFSET} {cells[_OFFSET]}")
            continue
        found.records.append(
            Record(
                where=where,
                films=films,
                label=cells.get(_BEHAVIOR, ""),
                start=cells.get(_START if is_aggregated else _TIME, "") or "nothing",
                end=None if event else cells.get(_STOP, "") or "nothing",
                event=event,
                offset=offset,
                total_seconds=None if names & {*_SOURCES} else positive(cells.get(_TOTAL)),
                columns=columns,
            )
        )


def _block(table: Table, header: int) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """What version 7 writes above the header: cells of all rows, the films of player 1, independent variables."""
    block: dict[str, str] = {}
    variables: dict[str, str] = {}
    players: list[str] = []
    in_variables = False
    for row in table.rows[:header]:
        name, value = (*row.cells, "", "")[:2]
        if name.lower() == "independent variables":
            in_variables = True
        elif in_variables and (name, value) != ("variable", "value"):
            variables[name] = value
        elif name.lower() == "player #1":
            players.append(value)
        elif name in _ALL:
            block[name] = value
    return block, players, {name: value for name, value in variables.items() if value}


def _queues(
    found: Annotations, rows: Iterable[tuple[str, dict[str, str]]], players: list[str]
) -> dict[str, tuple[Film, ...]]:
    """Observation -> its films, as they were played.

    Version 7 names only the film of each event; then they are those, in the order of their first events.
    """
    queues: dict[str, tuple[Film, ...]] = {}
    firsts: dict[str, dict[str, float]] = defaultdict(dict)
    rates: dict[str, float | None] = {}
    said: set[str] = set()
    for where, cells in rows:
        observation, source = cells.get(_OBSERVATION, ""), _first(cells, _SOURCES)
        if source and observation not in queues:
            paths, others = _player_1(source)
            rate, length = (_player_1(_first(cells, names))[0] for names in (_RATES, _LENGTHS))
            queues[observation] = tuple(
                Film(path, rate=_at(rate, index), seconds=_at(length, index)) for index, path in enumerate(paths)
            )
            if others and observation not in said:
                said.add(observation)
                found.warn(where, _other_players(others))
        elif not source and (film := _first(cells, _FILMS)):
            time = positive(cells.get(_START, cells.get(_TIME))) or 0.0
            firsts[observation][film] = min(time, firsts[observation].get(film, time))
            rates[film] = positive(_first(cells, _RATES))
    for observation, films in firsts.items():
        paths = players or sorted(films, key=lambda film: films[film])
        queues.setdefault(observation, tuple(Film(path, rate=rates.get(path)) for path in paths))
    return queues


def _other_players(others: int) -> str:
    return f"films of {others} more players show the same; only those of player 1 get the labels"


def _player_1(text: str) -> tuple[list[str], int]:
    """What a cell has for the films of player 1, and how many other players it names."""
    parts = _PLAYER.split(text)
    if len(parts) == 1:
        return [part.strip() for part in text.partition("|")[0].split(";") if part.strip()], 0
    players = dict(zip(parts[1::2], parts[2::2], strict=True))
    own = players.pop("1", "")
    return [part.strip() for part in own.split(";") if part.strip()], sum(bool(x.strip()) for x in players.values())


def _at(values: list[str], index: int) -> float | None:
    return positive(values[index]) if index < len(values) else None


def _first(cells: dict[str, str], names: Iterable[str]) -> str:
    return next((cells[name] for name in names if cells.get(name)), "")


def _offset(value: Any) -> float | None:
    """Seconds that times are ahead, of either sign; `None` if it is no number."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _columns(cells: dict[str, str]) -> dict[str, str]:
    columns = {ours: cells.get(theirs, "") for theirs, ours in _CARRIED.items()}
    columns["subject"] = "" if columns["subject"] == _NO_SUBJECT else columns["subject"]
    columns["modifiers"] = "|".join(cell for name, cell in cells.items() if _MODIFIER.fullmatch(name) and cell)
    columns["comment"] = "; ".join(dict.fromkeys(cells[name] for name in _COMMENTS if cells.get(name)))
    others = {name: cell for name, cell in cells.items() if name not in _ALL and not _MODIFIER.fullmatch(name)}
    return {name: cell for name, cell in {**others, **columns}.items() if cell}


# === Projects ===


def _recognise_project(file: AnnotationFile) -> bool:
    return isinstance(file.json, dict) and {"observations", "behaviors_conf"} <= file.json.keys()


def _read_project(file: AnnotationFile) -> Annotations:
    found, project = Annotations(), file.json
    behaviors = {
        str(entry.get("code")): (str(entry.get("type")), str(entry.get("category") or ""))
        for entry in _values(project["behaviors_conf"])
        if isinstance(entry, dict)
    }
    observations = project["observations"]
    for name, observation in observations.items() if isinstance(observations, dict) else ():
        where = f"observation {name}"
        if not isinstance(observation, dict) or not isinstance(observation.get("events"), list):
            found.error(where, "expected an object with events, a list")
        elif observation.get("type", "MEDIA") != "MEDIA":
            if observation["events"]:
                found.warn(where, f"of type {observation['type']} has no film; its events are left out")
        elif films := _films(found, where, observation):
            _read_observation(found, name, observation, films, behaviors)
        elif observation["events"]:
            found.error(where, "names no film for player 1")
    return found


def _films(found: Annotations, where: str, observation: dict[str, Any]) -> tuple[Film, ...]:
    players = observation.get("file")
    players = players if isinstance(players, dict) else {}
    info = observation.get("media_info")
    info = info if isinstance(info, dict) else {}
    if others := sum(bool(films) for number, films in players.items() if number != "1"):
        found.warn(where, _other_players(others))

    def of(key: str, path: str) -> float | None:
        values = info.get(key)
        return positive(values.get(path)) if isinstance(values, dict) else None

    own = players.get("1")
    paths = [path for path in (own if isinstance(own, list) else []) if isinstance(path, str)]
    return tuple(Film(path, rate=of("fps", path), seconds=of("length", path)) for path in paths)


def _read_observation(
    found: Annotations,
    name: str,
    observation: dict[str, Any],
    films: tuple[Film, ...],
    behaviors: dict[str, tuple[str, str]],
) -> None:
    offset = _offset(observation.get("time offset") or 0)
    if offset is None:
        found.error(f"observation {name}", f"not a number of seconds: time offset {observation['time offset']}")
        return
    variables = observation.get("independent_variables")
    variables = {str(k): str(v) for k, v in variables.items() if v} if isinstance(variables, dict) else {}
    num_seen: Counter[tuple[str, str, str]] = Counter()
    for number, event in enumerate(observation["events"], start=1):
        where = f"observation {name} event {number}"
        if not isinstance(event, list) or len(event) < 3:
            found.error(where, f"expected a list of time, subject and behavior, received {event}")
            continue
        time, subject, code, modifiers, comment = (event[0], *(str(x or "") for x in (*event[1:], "", "")))[:5]
        if code not in behaviors:
            found.error(where, f"behavior {code} is not in the ethogram of the project")
            continue
        kind, category = behaviors[code]
        key = subject, code, modifiers
        state: _Event = "STOP" if num_seen[key] % 2 else "START"
        num_seen[key] += 1
        columns = {
            **variables,
            **{"subject": subject, "observation": name, "category": category},
            **{"modifiers": modifiers, "comment": comment},
        }
        found.records.append(
            Record(
                where=where,
                films=films,
                label=code,
                start=time,
                event="POINT" if kind.lower().startswith("point") else state,
                offset=offset,
                columns={column: text for column, text in columns.items() if text},
            )
        )


def _values(table: Any) -> Iterable[Any]:
    return table.values() if isinstance(table, dict) else ()


def _write_project(film: LabelledFilm, _: Path) -> str:
    """A project (format 7.0, of versions 7 to 9) with the ethogram of all labels, and an observation of the film.

    A state has an event at its start and at its end. Behaviors beyond the 36th share keys; BORIS then asks for one.
    """
    path, now = film.address, datetime.now().isoformat(timespec="seconds")
    times = [(round(t, 3), x.label) for x in film.segments for t in (x.start_seconds, x.end_seconds)]
    observation = {
        **{"type": "MEDIA", "date": now, "description": "", "time offset": 0.0, "observation time interval": [0, 0]},
        **{"independent_variables": {}, "visualize_spectrogram": False, "visualize_waveform": False},
        **{"close_behaviors_between_videos": False, "scan_sampling_time": 0},
        "file": {str(player): [path] if player == 1 else [] for player in range(1, 9)},
        "media_info": {
            **{"length": {path: film.seconds}, "fps": {path: film.rate}, "hasVideo": {path: True}},
            **{"hasAudio": {path: False}, "offset": {"1": 0.0}},
        },
        "events": [[seconds, "", label, "", "", "NA"] for seconds, label in times],  # NA: index of the frame
    }
    behaviors = {
        str(number): {
            **{"type": "State event", "key": _KEYS[number % len(_KEYS)], "code": label, "description": ""},
            **{"color": "", "category": "", "modifiers": {}, "excluded": "", "coding map": ""},
        }
        for number, label in enumerate(film.labels)
    }
    name = PurePath(film.name).stem
    project = {
        **{"time_format": "seconds", "project_date": now, "project_name": name, "project_description": ""},
        **{"project_format_version": "7.0", "subjects_conf": {}, "behaviors_conf": behaviors},
        **{"behavioral_categories": [], "behavioral_categories_config": {}, "independent_variables": {}},
        **{"coding_map": {}, "behaviors_coding_map": [], "converters": {}, "observations": {name: observation}},
    }
    return json.dumps(project, indent=1, allow_nan=False) + "\n"


FORMATS = (
    Format("BORIS events, aggregated or tabular (CSV, TSV, XLSX)", _recognise_table, _read_tables),
    Format("BORIS project (.boris)", _recognise_project, _read_project, ending="boris", write=_write_project),
)
