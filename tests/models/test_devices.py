import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from activity.models.devices import gpu_names, gradient, prepare_gpus

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="stands in for TensorFlow's GPUs")


@pytest.fixture
def two_gpus(monkeypatch):
    """TensorFlow as it is on a machine with two GPUs, after the first computation; the GPUs it was set up for."""
    import tensorflow as tf

    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    asked = []

    def set_memory_growth(gpu, enable):
        asked.append((gpu, enable))
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_memory_growth)
    details = {gpus[0]: {"device_name": "Tesla T4"}, gpus[1]: {}}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    prepare_gpus.cache_clear()
    yield gpus, asked
    prepare_gpus.cache_clear()


@on_tensorflow
def test_gpu_names_are_those_of_the_backend(two_gpus):
    assert gpu_names() == ["Tesla T4", "/physical_device:GPU:1"]  # not every driver tells the name


@on_tensorflow
def test_preparing_late_does_no_harm_and_happens_once(two_gpus):
    gpus, asked = two_gpus
    prepare_gpus()
    prepare_gpus()
    assert asked == [(gpu, True) for gpu in gpus]


def test_a_gradient_is_the_slope_of_a_function():
    point = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    slope = gradient(lambda x: ops.sum(x**3), point)
    assert slope.dtype == np.float32
    np.testing.assert_allclose(slope, 3 * point**2, rtol=1e-5)


def test_a_gradient_passes_through_layers():
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 3))
    model = keras.Model(x, keras.layers.Dropout(0.5)(keras.layers.LSTM(4)(x)))
    rng = np.random.default_rng(0)
    point, step = rng.normal(size=(2, 1, 5, 3)).astype(np.float32)

    def function(x):
        return ops.sum(model(x, training=False))

    ahead, behind = (ops.convert_to_numpy(function(ops.convert_to_tensor(point + h * step))) for h in (0.01, -0.01))
    assert (gradient(function, point) * step).sum() == pytest.approx(float(ahead - behind) / 0.02, rel=1e-2)


def test_the_library_that_tensorflow_misses_is_loaded_from_its_wheel(tmp_path):
    library = tmp_path / "nvidia" / "cusolver" / "lib" / "libcusolver.so.11"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    code = "from activity.models.devices import _load_cusolver; _load_cusolver()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert "OSError" in done.stderr and str(library) in done.stderr  # it was tried
