"""What can go wrong for a user.

    ActivityError
      SettingError      an option or a field of a configuration is out of range
      VideoError        one video cannot be read, or not as asked
      DatasetError      the videos, manifest, split or data set folder do not fit together
      ModelFileError    a model or weights file is missing, damaged or not ours

Each says in one line what happened, what was expected, what was received; its parts are fields, so that nobody needs to
parse the line. Anything else that is raised is a bug.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def printable(path: str | Path) -> str:
    r"""A path or name as text that any terminal and file takes, in one line.

    Bytes that are not UTF-8, control characters, and those that turn the direction of text are spelled out: `\xe9`,
    `\x1b`, `\n`, `\u202e`.
    """

    def spell(found: re.Match[str]) -> str:
        is_byte = "\udc80" <= found[0] <= "\udcff"  # as Python keeps bytes that are not UTF-8
        return f"\\x{ord(found[0]) - 0xDC00:02x}" if is_byte else found[0].encode("unicode_escape").decode()

    return _UNPRINTABLE.sub(spell, str(path))


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def is_utf8(path: str | Path) -> bool:
    """Whether a path can be written in UTF-8: on Linux and macOS it may be any bytes."""
    return not re.search(r"[\ud800-\udfff]", str(path))


_RENAMED = {"segments": "chunks"}  # a head


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that offers the known name nearest to an unknown one, or its name today; empty if none is near."""
    from difflib import get_close_matches

    renamed = _RENAMED.get(name)
    if renamed and renamed in set(known):
        return f"it is now called '{renamed}'"

    return "".join(f"did you mean '{near}'?" for near in get_close_matches(name, known, n=1))


def one_line(error: Exception) -> str:
    """The message of an error of a library, in a line of bounded length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


class ActivityError(Exception):
    """Base class of everything the command line answers with one line and exit status 1.

    Args:
        reason: what happened, what was expected, what was received.
        path: the file, folder or source that it concerns.
        hint: what to do about it.
    """

    def __init__(self, reason: str, *, path: Path | str | None = None, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.path, self.hint = reason, path, hint

    def __str__(self) -> str:
        where = "" if self.path is None else f"{printable(self.path)}: "
        what = re.sub(r"\s*[\r\n]\s*", " ", f"{self.reason}{self.hint and f'; {self.hint}'}")  # of a library
        return f"{where}{printable(what)}"


class SettingError(ActivityError):
    """A setting is out of range.

    Args:
        name: of the setting, as in Python.
        expected: the values that it may have.
        received: the value that it was given.
    """

    def __init__(self, name: str, expected: str, received: object) -> None:
        super().__init__(f"{name} must be {expected}, received: {received}")
        self.name, self.expected, self.received = name, expected, received
        self.args = (name, expected, received)  # what a copy in another process is made of


def check_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise `SettingError` unless an argument is of this type: an attribute that it lacks would say nothing."""
    if not isinstance(value, kind):
        raise SettingError(name, expected, f"an object of type {type(value).__name__}")


class VideoError(ActivityError):
    """A video cannot be read, written, or turned into a clip."""


class DatasetError(ActivityError):
    """Videos, labels, splits or a data set folder do not fit together."""


class ModelFileError(ActivityError):
    """A model or weights file is missing, damaged, of another version, or not ours."""
