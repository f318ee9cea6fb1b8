import pickle

import pytest

from activity import errors


@pytest.mark.parametrize("name", ["VideoError", "DatasetError", "ModelFileError"])
def test_one_except_clause_catches_all_that_a_user_can_cause(name):
    with pytest.raises(errors.ActivityError, match="why"):
        raise getattr(errors, name)("why")


def test_the_line_of_an_error_is_made_of_its_parts():
    error = errors.DatasetError("unfinished", path="out", hint="run it again")
    assert (error.reason, error.path, error.hint) == ("unfinished", "out", "run it again")
    assert str(error) == "out: unfinished; run it again" and str(errors.VideoError("is empty")) == "is empty"


def test_a_setting_keeps_its_parts_also_in_another_process():
    error = pickle.loads(pickle.dumps(errors.SettingError("epochs", "1 or more", 0)))
    assert (error.name, error.expected, error.received) == ("epochs", "1 or more", 0)
    assert str(error) == "epochs must be 1 or more, received: 0"


def test_an_unknown_name_is_answered_with_the_nearest():
    assert errors.did_you_mean("bidirectonal", ["lstm", "bidirectional"]) == "did you mean 'bidirectional'?"
    assert errors.did_you_mean("xyz", ["lstm", "bidirectional"]) == ""
