"""activity completion: a script that completes the words of the commands in a shell."""

from __future__ import annotations

import argparse
from pathlib import Path

from activity.cli.options import one_of

EXAMPLES = [
    "bash > ~/.local/share/bash-completion/completions/activity",
    "zsh > ~/.zfunc/_activity",
]

_SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", type=one_of(_SHELLS), choices=_SHELLS)


def run(arguments: argparse.Namespace) -> None:
    """Print the script."""
    import shtab

    from activity.cli.main import parser

    program = parser()
    _complete_files(program)
    print(shtab.complete(program, shell=arguments.shell))


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments name files."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_files(child)
        elif action.type is Path or action.dest == "sources":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
