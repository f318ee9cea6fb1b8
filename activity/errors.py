"""What can go wrong for a user.

    ActivityError
      VideoError        one video cannot be read, or not as asked
      DatasetError      the videos, manifest, split or data set folder do not fit together
      ModelFileError    a model or weights file is missing, damaged or not ours

Each carries one line: what happened, what was expected, what was received. Anything else that is raised is a bug.
"""

from __future__ import annotations

import os
from pathlib import Path


class ActivityError(Exception):
    """Base class of everything the command line answers with one line and exit status 1."""


class VideoError(ActivityError):
    """A video cannot be read, written, or turned into a clip."""


class DatasetError(ActivityError):
    """Videos, labels, splits or a data set folder do not fit together."""


class ModelFileError(ActivityError):
    """A model or weights file is missing, damaged, of another version, or not ours."""


def printable(path: str | Path) -> str:
    """A path as text that any terminal and file takes: bytes that are not UTF-8 are spelled out in hexadecimal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
