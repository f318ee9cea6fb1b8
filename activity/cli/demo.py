"""activity demo: the whole flow on small videos that it makes itself, offline."""

from __future__ import annotations

import argparse
from pathlib import Path

from activity.files import check_folder, check_output, lock_folder

EXAMPLES = ["", "--out /tmp/demo"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where everything goes."""
    parser.add_argument("--out", type=Path, default=Path("activity-demo"), metavar="DIR", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    """Run the steps, each shown as the command that does it."""
    check_folder(arguments.out)
    check_output(
        arguments.out,
        overwrite=True,
        foreign=lambda folder: None if (folder / "videos" / "manifest.csv").is_file() else folder,
        what="a folder of the demo",
    )
    from activity.apps.demo import run_demo

    with lock_folder(arguments.out, "demo"):
        run_demo(arguments.out, say=print)
