"""The command line: parse, run a command, turn its errors into one line and an exit status.

Each command is a module beside this one, with its `EXAMPLES` (without its name), `add_arguments(parser)`, and
`run(arguments)`, which may return an exit status. Where the work can be continued after it was stopped, `CONTINUE` says
how.

Results go to stdout, progress and logs to stderr. Nothing heavy is imported here: `activity --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any

from activity._version import __version__
from activity.cli.output import say_error
from activity.errors import ActivityError, printable

COMMANDS = {  # what each does, in order of the help
    "demo": "make small videos, learn from them, label new ones; offline",
    "preprocess": "decode labelled videos into a data set folder",
    "train": "train a model",
    "update": "train a model with new videos and labels, and measure forgetting",
    "evaluate": "measure a model on videos it was not trained with",
    "cross-validate": "train and evaluate once per fold of groups",
    "tune": "search for a better recipe, without the test split",
    "agree": "compare two annotations of the same videos, of persons or models",
    "classify": "label videos with a model",
    "describe": "write a sentence for each video or image",
    "generate": "write random sentences in the style of a model's captions, or orders of activities",
    "export": "write a model as one graph for programs of your own",
    "info": "tell what a model recognises and how it was trained",
    "serve": "show a web page that labels or describes videos",
    "doctor": "check versions, devices, codecs and weights",
    "completion": "print a script that completes the words of these commands in a shell",
}
_EPILOG = """\
a first try, without any videos of your own:
  activity demo

from a folder per activity to labels for new videos:
  activity preprocess videos --out dataset
  activity train dataset --out model.keras
  activity evaluate model.keras dataset --out report
  activity classify model.keras new.mp4

exit status: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 stopped
"""


def parser(words: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of the whole program.

    Arguments that it returns also hold the name of the `command` and its `parser`.

    Args:
        words: of a command line; only commands among them are imported and get their arguments.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show details, and tracebacks of errors")
    program = argparse.ArgumentParser(
        prog="activity",
        description="Learn to recognise the activities in a folder of labelled videos, then label any new video.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.add_argument("--version", action="version", version=f"activity {__version__}")
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help in COMMANDS.items():
        about: dict[str, Any] = {"description": f"{help[0].upper()}{help[1:]}.", "parents": [common]}
        added = commands.add_parser(name, help=help, formatter_class=argparse.RawDescriptionHelpFormatter, **about)
        added.set_defaults(parser=added)
        if name in words:
            command = _module_of(name)
            examples = (f"  activity {name} {words}".rstrip() for words in command.EXAMPLES)
            added.epilog = "\n".join(["examples:", *examples])
            command.add_arguments(added)
    return program


def _module_of(name: str) -> ModuleType:
    return importlib.import_module(f"activity.cli.{name.replace('-', '_')}")


def run() -> None:
    """The program: `main` without the lines that TensorFlow's C++ writes to stderr, which no setting silences.

    Python keeps the terminal; what C++ writes goes nowhere, unless `-v` is given. Its errors come back as exceptions.
    """
    if sys.stderr is None:  # it was closed: who did that wants to hear nothing, but has the results
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w")  # noqa: SIM115
    elif not {"-v", "--verbose"} & set(sys.argv):
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file need not be valid UTF-8
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a container is stopped: tidy up, as after Ctrl-C
    gc.set_threshold(100_000)  # importing Keras makes objects that all stay: to look for garbage among them costs 0.7 s
    status = main()
    if status == 130:
        # A thread may hang in a decoder, in C. At its exit Python would wait for some, and one that comes back while
        # Python ends would abort the process. All is tidied up by now.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: while Python ends, Ctrl-C must not make it a failure
    sys.exit(status)


class _Formatter(logging.Formatter):
    """Lines in which names of files and labels cannot command a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(record.message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 an error in one line, 2 usage, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser(words).parse_args(words)
    command = _module_of(arguments.command)
    arguments.command_line = shlex.join(["activity", *words])
    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.INFO, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter())
    for library in ("matplotlib", "h5py", "tensorflow", "jax", "PIL", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)  # their advice is for programmers
    try:
        return command.run(arguments) or 0
    except (ActivityError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output had enough, as `| head` does
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (Python flushes stdout once more at exit)
            return 1
        if arguments.verbose:
            raise
        from activity.files import of_system

        say_error(of_system(error) if isinstance(error, OSError) else str(error))
        return 1
    except KeyboardInterrupt:
        say_error("; ".join(["stopped", *getattr(command, "CONTINUE", [])]))
        return 130


if __name__ == "__main__":
    run()
