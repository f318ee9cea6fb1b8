import subprocess
import sys

import keras

from activity.devices import gpu_names, prepare_gpus


def test_gpu_names_are_those_of_the_backend():
    names = gpu_names()
    assert all(isinstance(name, str) and name for name in names)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        assert len(names) == len(tf.config.list_physical_devices("GPU"))


def test_preparing_late_does_no_harm():
    keras.ops.ones(3) + 1
    prepare_gpus.cache_clear()
    prepare_gpus()
    prepare_gpus()


def test_the_library_that_tensorflow_misses_is_loaded_from_its_wheel(tmp_path):
    library = tmp_path / "nvidia" / "cusolver" / "lib" / "libcusolver.so.11"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    code = "from activity.devices import _load_cusolver; _load_cusolver()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert "OSError" in done.stderr and str(library) in done.stderr  # it was tried
