"""The command line: parse, run a command, turn its errors into one line and an exit status.

Results go to stdout, progress and logs to stderr. Nothing heavy is imported here: `activity --help` answers at once.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence

from activity.cli.commands import COMMANDS, say_error
from activity.cli.options import parser
from activity.errors import ActivityError
from activity.files import of_system

_HOW_TO_GO_ON = {
    "preprocess": "; the same command goes on from here",
    "tune": "; the same command goes on from here",
    "train": "; the same command with --resume goes on from here",
}


def run() -> None:
    """The program: `main` without the lines that TensorFlow's C++ writes to stderr, which no setting silences.

    Python keeps the terminal; what C++ writes goes nowhere, unless `-v` is given. Its errors come back as exceptions.
    """
    if not {"-v", "--verbose"} & set(sys.argv):
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
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 an error in one line, 2 usage, 130 interrupted."""
    arguments = parser().parse_args(argv)
    arguments.command_line = shlex.join(["activity", *(sys.argv[1:] if argv is None else argv)])
    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.INFO, format="%(message)s", force=True)
    for library in ("matplotlib", "h5py", "tensorflow", "jax", "PIL", "httpx"):
        logging.getLogger(library).setLevel(logging.ERROR)  # their advice is for programmers
    try:
        return COMMANDS[arguments.command](arguments) or 0
    except (ActivityError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output had enough, as `| head` does
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (Python flushes stdout once more at exit)
            return 1
        if arguments.verbose:
            raise
        say_error(of_system(error) if isinstance(error, OSError) else str(error))
        return 1
    except KeyboardInterrupt:
        say_error(f"stopped{_HOW_TO_GO_ON.get(arguments.command, '')}")
        return 130


if __name__ == "__main__":
    run()
