import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from activity.models.devices import gpu_names, gradient, prepare_gpus


def test_gpu_names_are_those_of_the_backend():
    names = gpu_names()
    assert all(isinstance(name, str) and name for name in names)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        assert len(names) == len(tf.config.list_physical_devices("GPU"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is TensorFlow that takes all memory")
def test_preparing_late_does_no_harm(monkeypatch):
    import tensorflow as tf

    asked = []

    def refuse(gpu, enable):
        asked.append((gpu, enable))
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    prepare_gpus.cache_clear()
    prepare_gpus()
    prepare_gpus()
    assert asked == [("GPU:0", True)]


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
