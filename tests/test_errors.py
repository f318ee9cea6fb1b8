import os
import pickle
from pathlib import Path

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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a b é 体", "a b é 体"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("gpj.\u202exe\u2028\x9b", "gpj.\\u202exe\\u2028\\x9b"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
        (Path("a/b"), "a/b"),
        ("با\u200cشد", "با\u200cشد"),  # a mark that Persian is written with
    ],
)
def test_names_are_printed_in_one_line_that_does_nothing_to_a_terminal(name, text):
    assert errors.printable(name) == text
    line = str(errors.VideoError(f"has the label {name}", path=name))
    assert line.startswith(f"{text}: ") and "\n" not in line and "\x1b" not in line
    text.encode()


def test_a_path_need_not_be_utf8():
    assert errors.is_utf8("é\x1b") and not errors.is_utf8(os.fsdecode(b"caf\xe9")) and not errors.is_utf8("\ud800")


def test_a_setting_keeps_its_parts_also_in_another_process():
    error = pickle.loads(pickle.dumps(errors.SettingError("epochs", "1 or more", 0)))
    assert (error.name, error.expected, error.received) == ("epochs", "1 or more", 0)
    assert str(error) == "epochs must be 1 or more, received: 0"


def test_an_unknown_name_is_answered_with_the_nearest():
    assert errors.did_you_mean("bidirectonal", ["lstm", "bidirectional"]) == "did you mean 'bidirectional'?"
    assert errors.did_you_mean("xyz", ["lstm", "bidirectional"]) == ""
    assert errors.did_you_mean("segment", ["", "lstm"]) == ""
