"""The program, as `activity` or `python -m activity`. It imports little, so that Ctrl-C is caught from the start."""

import sys


def run() -> None:
    """The command line, `activity.cli.main`; also while that is imported, Ctrl-C ends with a line and 130."""
    try:
        from activity.cli.main import run as run_command

        run_command()
    except KeyboardInterrupt:  # no command has begun; those say themselves how they continue
        sys.stderr.write("activity: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
