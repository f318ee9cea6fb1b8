import json
import os
import subprocess
import sys

import pytest

ASK = """
import logging, sys
from activity.errors import ActivityError
from activity.models.backend import keras, ops

logging.basicConfig(format="%(message)s")
assert "keras" not in sys.modules, "it is imported on first use"
try:
    print(keras.config.floatx(), keras.config.image_data_format(), ops.ones(1).dtype)
except ActivityError as error:
    print(error)
"""


def ask(tmp_path, settings, program=ASK, **variables):
    """What a fresh process prints and logs where the user's Keras has these settings."""
    (tmp_path / "keras.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    env = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "", "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=90)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines(), [line for line in run.stderr.splitlines() if "keras.json" in line]


def test_settings_that_no_model_here_works_with_are_overruled_and_named(tmp_path):
    said, warned = ask(tmp_path, {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.5})
    assert said == ["float32 channels_last <dtype: 'float32'>"]
    assert warned == [
        f"{tmp_path}/keras.json: floatx float16 is ignored, models here need float32",
        f"{tmp_path}/keras.json: image_data_format channels_first is ignored, models here need channels_last",
        f"{tmp_path}/keras.json: epsilon 0.5 is ignored, models here need 1e-07",
    ]


@pytest.mark.parametrize(
    ("settings", "variables", "words"),
    [
        ({"backend": "theano"}, {}, ["keras.json: expected a Keras backend of", "received: theano", "KERAS_BACKEND="]),
        ({}, {"KERAS_BACKEND": "numpy"}, ["KERAS_BACKEND: expected a Keras backend of", "received: numpy"]),
        ([], {}, ["keras.json: expected an object with the settings of Keras, received: []", "mend or remove"]),
        ({"epsilon": "small"}, {}, ["keras.json: Keras with the backend tensorflow cannot be imported"]),
        ({"floatx": "float8"}, {}, ["keras.json: Keras with the backend tensorflow", "floatx=float8"]),
    ],
)
def test_a_backend_or_setting_that_cannot_be_is_one_line(tmp_path, settings, variables, words):
    (said,), _ = ask(tmp_path, settings, **variables)
    assert all(word in said for word in words), said


def test_a_backend_that_is_not_installed_is_one_line(tmp_path):
    absent = f"import sys; sys.modules['torch'] = None\n{ASK}"
    (said,), _ = ask(tmp_path, "not JSON", absent, KERAS_BACKEND="torch")
    assert said.startswith("KERAS_BACKEND: the Keras backend torch is not installed; choose another with")
    assert "KERAS_BACKEND=tensorflow|jax|torch" in said
