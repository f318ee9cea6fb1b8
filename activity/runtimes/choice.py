"""Which library computes a model: Keras, or on a CPU OpenVINO or ONNX Runtime, which are faster there."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator

from activity.errors import ActivityError, ModelFileError, SettingError, one_line
from activity.models.devices import has_gpu
from activity.runtimes.formats import FORMATS

RUNTIMES = ("auto", "keras", "openvino", "openvino-bf16", "onnx")
_NAMES = {"keras": "Keras", "openvino": "OpenVINO", "onnx": "ONNX Runtime"}

_logger = logging.getLogger(__name__)


def choose(runtime: str) -> str:
    """The runtime to use, one of `RUNTIMES` other than `auto`.

    Raises:
        ActivityError: that name is unknown, or what it needs is not installed.
    """
    if runtime not in RUNTIMES:
        raise SettingError("runtime", f"one of {', '.join(RUNTIMES)}", runtime)
    if runtime == "auto":
        installed = (name for name in RUNTIMES if name in FORMATS and FORMATS[name].is_readable)
        return next(installed, "keras") if not has_gpu() else "keras"
    if runtime != "keras" and not FORMATS[format_of(runtime)].is_readable:
        package = FORMATS[format_of(runtime)].reader
        reason = f"the runtime {runtime} needs {package}, which is not installed"
        raise ActivityError(reason, hint=f"pip install {package}")
    if runtime == "openvino-bf16":
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ActivityError("this CPU does not compute in bfloat16", hint="use the runtime openvino")
    return runtime


def format_of(runtime: str) -> str:
    """The key in `FORMATS` of the files that a runtime reads."""
    return runtime.partition("-")[0]


def is_bf16(runtime: str) -> bool:
    """Whether features of this runtime differ visibly from those of the others."""
    return runtime.endswith("-bf16")


def describe(runtime: str) -> str:
    """A runtime with its version and number format, such as `openvino 2025.4.0, float32`."""
    if runtime == "keras":
        return "keras"
    return f"{FORMATS[format_of(runtime)].version}, {'bfloat16' if is_bf16(runtime) else 'float32'}"


@functools.cache
def tell_once(subject: str, task: str, runtime: str) -> None:
    """Log which runtime computes something, such as `model.keras: predicting with OpenVINO (CPU)`, once a process."""
    place = "" if runtime == "keras" else f" (CPU, {describe(runtime)})"
    _logger.info("%s: %s with %s%s", subject, task, _NAMES[format_of(runtime)], place)


@contextlib.contextmanager
def falling_back(runtime: str, chosen: str) -> Iterator[None]:
    """Continue after the block if it fails and `chosen`, what `choose` made of `runtime`, was not asked for by name.

    Raises:
        ActivityError: the block fails, and this runtime was asked for by name.
    """
    try:
        yield
    except ModelFileError:
        raise
    except Exception as error:  # exporters and runtimes fail in any way
        reason = one_line(error)
        if runtime != "auto":
            raise ActivityError(f"{chosen} cannot compute this model: {reason}") from error
        _logger.warning("%s is not used: %s", chosen, reason)
