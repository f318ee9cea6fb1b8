"""activity serve: the web page."""

from __future__ import annotations

import argparse
from pathlib import Path

from activity.cli.checks import check_runtime
from activity.cli.options import add_model, add_runtime, in_range, positive_int, seconds
from activity.models.info import read_info

EXAMPLES = ["model.keras", "model.keras --port 8000 --examples good.mp4 bad.mp4"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the address, and which videos are accepted."""
    add_model(parser)
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; default: %(default)s, this computer only. 0.0.0.0 lets anyone in who can reach it",
    )
    add("--port", type=in_range(int, 0, 65535), default=7860, help="0: any that is free; default: %(default)s")
    add("--allow-host", nargs="+", default=[], metavar="NAME", help="names of this page, where a proxy serves it")
    add("--max-seconds", type=seconds, default=600.0, metavar="S", help="longest video accepted; default: %(default)g")
    add("--max-megabytes", type=positive_int, default=500, metavar="N", help="in a file; default: %(default)s")
    add("--examples", type=Path, nargs="+", default=[], metavar="FILE", help="to try, on the page")
    add_runtime(parser, "the model")


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    read_info(arguments.model, task=None)
    check_runtime(arguments.runtime)
    from activity.apps.web import serve

    serve(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        names=arguments.allow_host,
        runtime=arguments.runtime,
        max_seconds=arguments.max_seconds,
        max_megabytes=arguments.max_megabytes,
        examples=arguments.examples,
        say=lambda line: print(line, flush=True),
    )
