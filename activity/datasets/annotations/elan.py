"""ELAN: its `.eaf` files (EAF 2.7 to 3.0, www.mpi.nl/tools/elan/EAFv3.0.xsd).

The standard library reads them, and not pympi: it gives no lines, stops at the first fault, and takes any DTD.
"""

from __future__ import annotations

import itertools
import mimetypes
import os
from bisect import bisect
from datetime import datetime, timezone
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from activity.datasets.annotations.content import AnnotationFile, Xml
from activity.datasets.annotations.records import Annotations, Film, Format, LabelledFilm, Record
from activity.errors import printable

_UNITS = {"milliseconds": 1000.0, "PAL-frames": 25.0, "PAL-50-frames": 50.0, "NTSC-frames": 30000 / 1001}
_MOST_PARENTS = 100
_TIER = "activity"
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"
_SOUNDS = (".wav", ".mp3", ".ogg", ".flac", ".m4a", ".aac", ".aif", ".aiff")


def _recognise(file: AnnotationFile) -> bool:
    return file.xml is not None and file.xml.root.tag == "ANNOTATION_DOCUMENT"


def _read(file: AnnotationFile) -> Annotations:
    assert file.xml is not None  # it was recognised
    document, found = file.xml, Annotations()
    film, origin = _film(file, document, found)
    header = document.root.find("HEADER")
    units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    found.tiers = tuple(tier.get("TIER_ID", "") for tier in document.root.iter("TIER"))
    if units not in _UNITS:
        found.error("HEADER", f"TIME_UNITS must be one of {', '.join(_UNITS)}, received {units}")
    if units not in _UNITS or film is None:
        return found
    spans = _Spans(document, found, _UNITS[units])
    for tier in document.root.iter("TIER"):
        columns = {"subject": tier.get("PARTICIPANT", ""), "annotator": tier.get("ANNOTATOR", "")}
        for annotation in _annotations(tier):
            where = f"line {document.lines[annotation]} ({annotation.get('ANNOTATION_ID', '')})"
            times = spans.of(annotation)
            if isinstance(times, str):
                found.error(where, times)
                continue
            found.records.append(
                Record(
                    where=where,
                    films=(film,),
                    label=(annotation.findtext("ANNOTATION_VALUE") or "").strip(),
                    start=times[0],
                    end=times[1],
                    offset=-origin,
                    tier=tier.get("TIER_ID", ""),
                    columns={name: text for name, text in columns.items() if text},
                )
            )
    return found


def _annotations(tier: Element) -> list[Element]:
    return [x for parent in tier.iter("ANNOTATION") for x in parent if x.tag.endswith("_ANNOTATION")]


def _film(file: AnnotationFile, document: Xml, found: Annotations) -> tuple[Film | None, float]:
    """The first film of the document, and the seconds of it that lie before the beginning of the document's clock."""
    films = []
    for media in document.root.iter("MEDIA_DESCRIPTOR"):
        address = media.get("MEDIA_URL") or media.get("RELATIVE_MEDIA_URL") or ""
        path = unquote(urlsplit(address).path) if address.startswith("file:") else address
        if not media.get("MIME_TYPE", "").startswith("audio/") and not path.lower().endswith(_SOUNDS):
            films.append((path, media))
    if not films:
        found.warn("HEADER", f"names no film; one that is called {file.path.stem} is looked for")
        return Film(str(file.path.resolve().with_suffix("")), is_beside=True), 0.0
    (path, media), *others = films
    if others:
        names = ", ".join(path for path, _ in others)
        found.warn("HEADER", f"names {len(films)} films that show the same; only {path} gets the labels, not {names}")
    origin = media.get("TIME_ORIGIN", "0")
    try:
        return Film(path), int(origin) / 1000
    except (ValueError, OverflowError):
        where = f"line {document.lines[media]}"
        found.error(where, f"TIME_ORIGIN is not a number: expected milliseconds, received {origin}; no label is read")
        return None, 0.0


class _Spans:
    """Start and end of annotations, in seconds on the clock of the document.

    A `TIME_SLOT` without a value lies between its neighbours in `TIME_ORDER`, those side by side evenly, as ELAN puts
    them. A `REF_ANNOTATION` has the time of its parent; several of one tier share that evenly.
    """

    def __init__(self, document: Xml, found: Annotations, ticks_per_second: float) -> None:
        self._annotations: dict[str, Element] = {}
        self._siblings: dict[Element, list[Element]] = {}
        self._slots: dict[str, float | None] = {}
        for tier in document.root.iter("TIER"):
            children: dict[str, list[Element]] = {}
            for annotation in _annotations(tier):
                self._annotations[annotation.get("ANNOTATION_ID", "")] = annotation
                if annotation.tag == "REF_ANNOTATION":
                    siblings = children.setdefault(annotation.get("ANNOTATION_REF", ""), [])
                    siblings.append(annotation)
                    self._siblings[annotation] = siblings
        order: list[tuple[str, float | None]] = []
        for slot in document.root.iter("TIME_SLOT"):
            name, value = slot.get("TIME_SLOT_ID", ""), slot.get("TIME_VALUE")
            try:
                order.append((name, None if value is None else int(value) / ticks_per_second))
            except (ValueError, OverflowError):
                line = f"line {document.lines[slot]}"
                found.error(line, f"TIME_VALUE of {name} is not a number: {value}; its annotations are not read")
                self._slots[name] = None
        known = [(index, seconds) for index, (_, seconds) in enumerate(order) if seconds is not None]
        indices = [index for index, _ in known]
        for index, (name, seconds) in enumerate(order):
            place = bisect(indices, index)
            if seconds is None and 0 < place < len(known):
                (before, first), (after, last) = known[place - 1], known[place]
                seconds = round(first + (last - first) * (index - before) / (after - before), 6)
            self._slots[name] = seconds

    def of(self, annotation: Element, seen: tuple[str, ...] = ()) -> tuple[float, float] | str:
        """Start and end of an annotation, or why it has none."""
        name = annotation.get("ANNOTATION_ID", "")
        if name in seen:
            return f"refers to itself: {' -> '.join((*seen, name))}"
        if len(seen) > _MOST_PARENTS:
            return f"has more than {_MOST_PARENTS} parents, one above the other"
        if annotation.tag != "REF_ANNOTATION":
            start, end = (self._time(annotation.get(f"TIME_SLOT_REF{number}", "")) for number in (1, 2))
            return start if isinstance(start, str) else end if isinstance(end, str) else (start, end)
        parent = self._annotations.get(annotation.get("ANNOTATION_REF", ""))
        if parent is None:
            return f"refers to {annotation.get('ANNOTATION_REF') or 'nothing'}, and there is no such parent"
        times = self.of(parent, (*seen, name))
        siblings = self._siblings[annotation]
        if isinstance(times, str) or len(siblings) == 1:
            return times
        start, end = times
        place, part = siblings.index(annotation), (end - start) / len(siblings)
        return round(start + place * part, 6), round(start + (place + 1) * part, 6)

    def _time(self, slot: str) -> float | str:
        seconds = self._slots.get(slot)
        if seconds is None:
            why = "has no time, nor neighbours on both sides" if slot in self._slots else "is not in TIME_ORDER"
            return f"its time slot {slot or '(none)'} {why}"
        return seconds


def _write(film: LabelledFilm, path: Path) -> str:
    """A document (EAF 3.0) with the labels in one tier; ELAN finds the film by its place, or else from the document."""
    ElementTree.register_namespace("xsi", _SCHEMA)
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            **{
                "AUTHOR": "",
                "DATE": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "FORMAT": "3.0",
                "VERSION": "3.0",
            },
            f"{{{_SCHEMA}}}noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    mime = mimetypes.guess_type(film.name)[0] or "unknown"
    SubElement(header, "MEDIA_DESCRIPTOR", {**_media(film, path), "MIME_TYPE": mime})
    last = SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId")
    last.text = str(len(film.segments))
    order = SubElement(root, "TIME_ORDER")
    pairs = itertools.pairwise(sorted(film.segments, key=lambda segment: segment.start_seconds))
    overlap = any(one.end_seconds > other.start_seconds for one, other in pairs)  # which a tier cannot hold
    tiers: dict[str, ElementTree.Element] = {}
    if not overlap:
        tiers[_TIER] = SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=_TIER)
    for number, segment in enumerate(film.segments, start=1):
        start = round(1000 * segment.start_seconds)
        slots = {f"ts{2 * number - 1}": start, f"ts{2 * number}": max(round(1000 * segment.end_seconds), start + 1)}
        for name, milliseconds in slots.items():
            SubElement(order, "TIME_SLOT", TIME_SLOT_ID=name, TIME_VALUE=str(milliseconds))
        names = dict(zip(("TIME_SLOT_REF1", "TIME_SLOT_REF2"), slots, strict=True))
        name = f"{_TIER} {printable(segment.label)}" if overlap else _TIER
        if name not in tiers:
            tiers[name] = SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=name)
        annotation = SubElement(tiers[name], "ANNOTATION")
        aligned = SubElement(annotation, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{number}", **names})
        SubElement(aligned, "ANNOTATION_VALUE").text = printable(segment.label)  # XML has no control characters
    flags = {"GRAPHIC_REFERENCES": "false", "TIME_ALIGNABLE": "true"}
    SubElement(root, "LINGUISTIC_TYPE", {**flags, "LINGUISTIC_TYPE_ID": "default-lt"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _media(film: LabelledFilm, path: Path) -> dict[str, str]:
    if film.is_url:
        return {"MEDIA_URL": film.address}
    try:
        relative = PurePath(os.path.relpath(film.address, path.parent)).as_posix()
    except ValueError:  # on another drive of Windows
        return {"MEDIA_URL": Path(film.address).as_uri()}
    relative = relative if relative.startswith("../") else f"./{relative}"
    return {"MEDIA_URL": Path(film.address).as_uri(), "RELATIVE_MEDIA_URL": printable(relative)}


FORMATS = (Format("ELAN (.eaf)", _recognise, _read, ending="eaf", write=_write),)
