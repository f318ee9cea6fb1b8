"""Which processors the Keras backend computes on, and what Keras itself cannot ask of it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activity.models.backend import keras

if TYPE_CHECKING:
    import numpy as np


def has_gpu() -> bool:
    """Whether Keras would compute on a GPU; it is only asked, which takes seconds, where there may be one."""
    devices = Path("/dev")
    if not any([*devices.glob("nvidia[0-9]*"), *devices.glob("dxg"), *devices.glob("kfd")]):
        return False
    return bool(gpu_names())


def gpu_names() -> list[str]:
    """Names of the GPUs that the Keras backend can use; empty on a CPU."""
    prepare_gpus()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    if backend == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


@cache
def prepare_gpus() -> None:
    """Let TensorFlow find its CUDA libraries, and take GPU memory as it needs it. Call before the first computation.

    Whatever makes or loads a model calls this; with another backend, or without a GPU, it does nothing.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    _load_cusolver()
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # the caller has computed already; then it cannot be told any more
            tf.config.experimental.set_memory_growth(gpu, True)


def gradient(function: Callable[[Any], Any], point: np.ndarray) -> np.ndarray:
    """The gradient, float32, at a point, of a function of Keras layers and ops from a tensor to a scalar."""
    import numpy as np

    x = keras.ops.convert_to_tensor(point)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return np.asarray(tape.gradient(y, x), np.float32)
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(x), np.float32)
    import torch

    x = x.detach().requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have a gradient only in training mode
        (slope,) = torch.autograd.grad(function(x), x)
    return np.asarray(slope.cpu(), np.float32)


def _load_cusolver() -> None:
    """TensorFlow 2.21 does not look into the wheel of libcusolver, and then skips every GPU: load it beforehand."""
    if importlib.util.find_spec("nvidia") is None:
        return
    spec = importlib.util.find_spec("nvidia.cusolver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in Path(folder, "lib").glob("libcusolver.so.*"):
            ctypes.CDLL(str(library))
