"""Keras: imported here and nowhere else, when something of it is first used, with the settings that models need.

    from activity.models.backend import keras, ops

costs nothing by itself, so that tables and commands that compute nothing can name what Keras has.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from activity.errors import ActivityError, one_line

BACKENDS = ("tensorflow", "jax", "torch")
_NEEDED = {"floatx": "float32", "image_data_format": "channels_last", "epsilon": 1e-7}

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import keras as keras
    from keras import ops as ops
else:

    class _Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            _import_keras()
            return getattr(sys.modules[self.__name__], name)

    keras, ops = _Lazy("keras"), _Lazy("keras.ops")


def keras_home() -> Path:
    """The folder of Keras' settings and downloaded weights."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")).expanduser()


@cache
def _import_keras() -> None:
    """Import the real module. Settings of the user's `keras.json` that no model here works with are overruled."""
    settings_path = keras_home() / "keras.json"
    try:
        stored = json.loads(settings_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # as Keras does
        stored = {}
    if not isinstance(stored, dict):
        reason = f"expected an object with the settings of Keras, received: {stored!r:.40}"
        raise ActivityError(reason, path=settings_path, hint="mend or remove this file")
    named = os.environ.get("KERAS_BACKEND")
    backend, source = (named, "KERAS_BACKEND") if named else (stored.get("backend", "tensorflow"), settings_path)
    hint = f"choose another with KERAS_BACKEND={'|'.join(BACKENDS)}"
    if backend not in BACKENDS:
        reason = f"expected a Keras backend of {', '.join(BACKENDS)}, received: {backend}"
        raise ActivityError(reason, path=source, hint=hint)
    if importlib.util.find_spec(backend) is None:
        raise ActivityError(f"the Keras backend {backend} is not installed", path=source, hint=hint)
    try:
        module = importlib.import_module("keras")
    except Exception as error:  # on settings that it does not expect it fails in any way
        reason = f"Keras with the backend {backend} cannot be imported: {one_line(error)}"
        raise ActivityError(reason, path=source, hint=hint) from error
    for name, value in _NEEDED.items():
        received = getattr(module.config, name)()
        if received != value:
            _logger.warning("%s: %s %s is ignored, models here need %s", settings_path, name, received, value)
            getattr(module.config, f"set_{name}")(value)
