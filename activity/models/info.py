"""What a model file says of itself. It is a zip, of which this reads the `config.json` alone: no Keras is needed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from activity.errors import ModelFileError

FORMAT_VERSION = 3  # of the model file; raised when its parts change; 1 had no streams, 2 no windows


def read_config(path: Path) -> dict[str, Any]:
    """What `ActivityClassifier.get_config` gave when the file was written.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, or of another version.
    """
    config = _read(path)
    if config.get("registered_name") != "activity>ActivityClassifier":
        raise ModelFileError(
            f"{path}: a Keras model, but not one of ours; expected activity>ActivityClassifier, received "
            f"{config.get('registered_name') or config.get('class_name')}"
        )
    fields = config.get("config")
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if not isinstance(version, int):
        raise ModelFileError(f"{path}: damaged, it does not say which model format it has")
    if version < FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: made by an older activity (model format {version}, this program reads {FORMAT_VERSION}); train "
            "it again"
        )
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: made by a newer activity (model format {version}, this program reads {FORMAT_VERSION}); "
            "upgrade activity"
        )
    return config["config"]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            config = json.loads(file.read("config.json"))
    except Exception as error:  # BadZipFile, KeyError, ValueError, zlib.error: damage shows in any way
        raise ModelFileError(f"{path}: not a model file, or cut off; expected a .keras file ({error})") from error
    if damaged:
        raise ModelFileError(f"{path}: damaged, the checksum of {damaged} inside it is wrong")
    if not isinstance(config, dict):
        raise ModelFileError(
            f"{path}: not a model file; expected an object in its config.json, received {config!r:.40}"
        )
    return config
