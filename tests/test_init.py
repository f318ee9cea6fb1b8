import subprocess
import sys

import pytest

import activity
from activity.errors import SettingError


@pytest.mark.parametrize("name", activity.__all__)
def test_the_names_people_need_are_at_the_top(name):
    thing = getattr(activity, name)
    assert thing.__name__ == name and thing.__module__.startswith("activity.") and thing.__doc__
    assert name in dir(activity)


def test_there_are_seven():
    assert len(activity.__all__) == 7


def test_another_name_is_an_error():
    with pytest.raises(AttributeError, match="module 'activity' has no attribute 'predict'"):
        _ = activity.predict
    with pytest.raises(ImportError, match="cannot import name 'predict'"):
        from activity import predict  # noqa: F401


def test_the_import_alone_costs_nothing():
    program = """
import sys
import activity
from activity.errors import SettingError
print(*sorted({"cv2", "keras", "numpy", "tensorflow"} & set(sys.modules)))
from activity import Predictor
print(*sorted({"keras", "tensorflow"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n\n", "")


WRONG = {  # what people pass by mistake, as Python's other libraries take it
    "preprocess": (("videos", "data set", {}), "spec must be a ClipSpec, received: an object of type dict"),
    "train": (("data set", activity.TrainConfig()), "dataset must be a Dataset, as preprocess"),
    "evaluate": (("model.keras", "data set"), "classifier must be a classifier, as train and load_classifier give it"),
    "Predictor": (("model.keras",), "model must be a model in memory (a file is read by Predictor.load)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_another_type_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, reason = WRONG[name]
    with pytest.raises(SettingError) as caught:
        getattr(activity, name)(*arguments, **({"work_dir": "work"} if name == "train" else {}))
    assert str(caught.value).startswith(reason) and "an object of type " in str(caught.value)
    assert not list(tmp_path.iterdir())
