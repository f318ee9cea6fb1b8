"""Whether what the help promises can be typed. What commands do with it: test_cli.py."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest

from activity.cli.main import COMMANDS, main, parser
from activity.cli.options import stream_names
from activity.config import TrainConfig, as_dict

MODULES = {name: importlib.import_module(f"activity.cli.{name.replace('-', '_')}") for name in COMMANDS}
EXAMPLES = [f"{name} {words}" for name, command in MODULES.items() for words in command.EXAMPLES]


def test_every_command_has_all_parts():
    for name, command in MODULES.items():
        assert COMMANDS[name] and command.EXAMPLES and command.add_arguments and command.run


def test_only_the_command_that_is_typed_is_imported():
    program = "import sys; from activity.cli.main import main; main(['info', 'none.keras']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {name for name in COMMANDS if f"activity.cli.{name}" in done.stdout.split()} == {"info"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_taken(example):
    words = shlex.split(example.partition(" (")[0].partition(" > ")[0])
    arguments = parser().parse_args(words)
    assert arguments.command == words[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_examples(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  activity {name} {words}".rstrip() in shown for words in MODULES[name].EXAMPLES)
    assert not re.search(r"default: \S+; default:", " ".join(shown.split()))


def test_the_recipe_has_an_option_for_each_field_with_its_default_and_its_meaning(capsys):
    arguments = parser().parse_args(["train", "dataset", "--out", "model.keras"])
    assert {name: getattr(arguments, name) for name in as_dict(TrainConfig())} == as_dict(TrainConfig())
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--layers N number of LSTM layers (head `stacked` only); default: 2 --merge-mode {concat,sum," in shown
    assert "--flip mirror whole clips at random" in shown


def test_help_tells_the_exit_statuses(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "exit status: 0 done, 1 an error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train d --out m.keras --head bidirectonal", "--head: invalid choice: 'bidirectonal' (choose from lstm, "),
        ("train d --out m.keras --backbone mobilnet_v2", "; did you mean 'mobilenet_v2'?"),
        ("train d --out m.keras --streams rgb,moton", "--streams: invalid choice: 'moton' (choose from rgb, "),
        ("preprocess v --out d --streams rbg", "; did you mean 'rgb'?"),
        ("classify m.keras v --runtime openvin", "; did you mean 'openvino'?"),
        ("preprocess v --out d --executor rey", "; did you mean 'ray'?"),
        ("export m.keras --out m --format onx", "; did you mean 'onnx'?"),
        ("update m.keras d --out n.keras --scheme new_only", "; did you mean 'new-only'?"),
        ("evaluate m.keras d --split tset", "; did you mean 'test'?"),
        ("completion bsh", "; did you mean 'bash'?"),
    ],
)
def test_an_unknown_choice_is_answered_with_the_nearest(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"activity {arguments.split()[0]}: error: argument ") and message in last


def test_the_old_name_of_a_stream_is_taken():
    assert stream_names("motion,closeup") == ("motion", "closeup")  # ClipSpec translates it, with a line


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_nothing_is_coloured(no_color):
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", **no_color}
    command = [sys.executable, "-m", "activity", "train", "no-such-folder", "--out", "m.keras"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and done.stderr.startswith("activity: no-such-folder: ")
    assert "\x1b" not in done.stdout + done.stderr
