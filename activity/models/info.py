"""What a model file says of itself. It is a zip, of which this reads the `config.json` alone: no Keras is needed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from activity.errors import ModelFileError

FORMAT_VERSION = 3  # of the model file; raised when its parts change; 1 had no streams, 2 no windows

_REGISTERED_NAME = "activity>ActivityClassifier"


def read_config(path: Path) -> dict[str, Any]:
    """What `ActivityClassifier.get_config` gave when the file was written.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, or of another version.
    """
    config = _read(path)
    if config.get("registered_name") != _REGISTERED_NAME:
        raise ModelFileError(
            f"a Keras model, but not one of ours; expected {_REGISTERED_NAME}, received "
            f"{config.get('registered_name') or config.get('class_name')}",
            path=path,
        )
    fields = config.get("config")
    version = fields.get("format_version") if isinstance(fields, dict) else None
    if not isinstance(version, int):
        raise ModelFileError("damaged, it does not say which model format it has", path=path)
    if version < FORMAT_VERSION:
        raise ModelFileError(
            f"made by an older activity (model format {version}, this program reads {FORMAT_VERSION}); train it again",
            path=path,
        )
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"made by a newer activity (model format {version}, this program reads {FORMAT_VERSION}); upgrade activity",
            path=path,
        )
    return config["config"]


def check_model_path(path: Path) -> None:
    """Raise `ActivityError` if a model could not be written under this name; asked before hours of training."""
    if path.suffix != ".keras":
        raise ModelFileError("the name of a model file must end in .keras", path=path)
    if path.is_dir():
        raise ModelFileError("a folder has this name; give the model file another", path=path)


def is_model(path: Path) -> bool:
    """Whether a file is a model of ours, of whatever version."""
    try:
        with zipfile.ZipFile(path) as file:
            return json.loads(file.read("config.json"))["registered_name"] == _REGISTERED_NAME
    except Exception:  # as in `_read`
        return False


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelFileError("no such model file", path=path)
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            config = json.loads(file.read("config.json"))
    except Exception as error:  # BadZipFile, KeyError, ValueError, zlib.error: damage shows in any way
        raise ModelFileError(f"not a model file, or cut off; expected a .keras file ({error})", path=path) from error
    if damaged:
        raise ModelFileError(f"damaged, the checksum of {damaged} inside it is wrong", path=path)
    if not isinstance(config, dict):
        raise ModelFileError(
            f"not a model file; expected an object in its config.json, received {config!r:.40}", path=path
        )
    return config
