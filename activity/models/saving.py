"""Model files: written whole or not at all, and read without running anything that is in them."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from activity.errors import ModelFileError, one_line
from activity.files import atomic_path, remove_leftovers
from activity.models.backend import keras
from activity.models.devices import prepare_gpus
from activity.models.info import WEIGHTS_NAME, check_model_path, is_model, read_config, read_info

_Model = TypeVar("_Model", bound="keras.Model")


def save_model(model: keras.Model, path: Path) -> Path:
    """Write one `.keras` file; an older file is replaced only once the new file is whole.

    Raises:
        ModelFileError: the name does not end in `.keras`, a file has it that is not a model of ours, or a weight is
            not a finite number.
    """
    path = Path(path)
    check_model_path(path)
    if path.exists() and not is_model(path):
        raise ModelFileError("exists and is not a model file of ours, so it is not replaced", path=path)
    check_finite(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with atomic_path(path) as temporary:
        model.save(temporary)
    return path


def load_model(path: Path, kind: type[_Model], *, task: str) -> _Model:
    """Read a model file; nothing else is needed. It may come from a stranger: nothing in it is run.

    Args:
        path: a `.keras` file.
        kind: class of the model: `ActivityClassifier` or `ActivityCaptioner`.
        task: of these models, as `activity.models.info.read_info` takes it.

    Raises:
        ModelFileError: there is no such file, it is cut off, not ours, of a newer version, for another task, or holds a
            weight that is not a finite number.
    """
    path = Path(path)
    read_info(path, task=task)  # says what is wrong
    prepare_gpus()
    # Not by `keras.saving.load_model`: it would also carry out what the file says on compiling, and unpack assets.
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as file:
        if WEIGHTS_NAME not in file.namelist():
            raise ModelFileError("damaged, there are no weights in it", path=path)
        weights_path = Path(file.extract(WEIGHTS_NAME, folder))
        try:
            model = _built(kind, read_config(path), most_weights=_count_numbers(weights_path))
            model.load_weights(weights_path)
            check_finite(model)
        except Exception as error:  # Keras fails in any way on a file whose parts do not fit together
            raise ModelFileError(_reason_of(error), path=path) from error
    return model


def _reason_of(error: Exception) -> str:
    if isinstance(error, ModelFileError):
        return error.reason
    if "safe_mode" in str(error) or "unsafe_deserialization" in str(error):
        return "holds code that it wants to be run; models of ours hold none"  # not Keras' advice to let it
    text = one_line(error).rpartition("Exception encountered: ")[2]  # Keras puts it last
    return f"damaged, or made by another version of activity or Keras: {type(error).__name__}: {text}"


def _count_numbers(weights_path: Path) -> int:
    """How many numbers a weights file holds; raises `ModelFileError` if it does not hold all that it names."""
    sizes: dict[int, int] = {}  # of each object by its place in the file, where several names may have one
    num_bytes = 0
    with h5py.File(weights_path) as file:
        groups = [file]
        while groups:
            group = groups.pop()
            for name in group:
                part: Any = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
                is_data = isinstance(part, h5py.Dataset) and not part.external and not part.is_virtual
                if not is_data and not isinstance(part, h5py.Group):
                    raise ModelFileError(f"its weights {group.name}/{name} are not inside it")
                place = h5py.h5o.get_info(part.id).addr
                if place not in sizes and not is_data:
                    groups.append(part)
                elif place not in sizes:
                    num_bytes += part.nbytes
                sizes[place] = part.size if is_data else 0
    if num_bytes > weights_path.stat().st_size:
        raise ModelFileError(f"its weights would unpack to {num_bytes:,} bytes; models of ours are not compressed")
    return sum(sizes.values())


def _built(kind: type[_Model], config: dict[str, Any], *, most_weights: int) -> _Model:
    """The model of a config with fresh weights.

    Raises:
        ModelFileError: it needs more weights than that, of which none is made; or its outputs do not fit what it tells.
    """
    scope = keras.StatelessScope(initialize_variables=False)  # in it, weights have shapes but take no memory
    try:
        with scope:
            model = kind.from_config(config)
            if model.count_params() > most_weights:
                raise ModelFileError(f"needs {model.count_params():,} weights, but holds {most_weights:,}")
            kind_of_names = "words" if model.info.words else "labels"
            num_names, num_outputs = len(getattr(model.info, kind_of_names)), model.output_shape[-1]
            if num_names != num_outputs - model.num_more_outputs:
                raise ModelFileError(f"damaged: {num_names} {kind_of_names}, but {num_outputs} outputs")
            scope.initialize_variables = True
    except Exception:
        keras.utils.clear_session()  # else the next model would make those weights too
        raise
    return model


def check_finite(model: keras.Model) -> None:
    """Raise `ModelFileError` if a weight is not a finite number, with which every answer would be `nan`."""
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ModelFileError(f"its weights {weight.path} are not finite numbers", hint="train it again")
