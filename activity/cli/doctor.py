"""activity doctor: does this installation work?"""

from __future__ import annotations

import argparse

EXAMPLES = ["", "--expect-gpu"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is expected of the machine."""
    parser.add_argument("--expect-gpu", action="store_true", help="fail if no GPU can be used")


def run(arguments: argparse.Namespace) -> int:
    """Print the checks; 1 if one fails that nothing works without."""
    from activity.apps.doctor import examine, format_checks

    checks = examine(expect_gpu=arguments.expect_gpu)
    print(format_checks(checks))
    return int(any(check.required and not check.ok for check in checks))
