"""Progress on stderr: a bar on a terminal, else a line a minute, which a log can hold."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

_LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, about {remaining} left"


def progress_bar(iterable: Any = None, **options: Any) -> tqdm:
    """A tqdm bar. Where stderr is no terminal, only work of more than 30 seconds shows, as a line a minute.

    A bar within another goes when it is done: a search has hundreds of them.
    """
    options = {"leave": None, **options}
    if not sys.stderr.isatty():
        options |= {"delay": 30, "mininterval": 60, "bar_format": _LINE, "file": _Lines(), "leave": False}
    return tqdm(iterable, **options)


class _Lines:
    """Stderr for a bar that would go back to the beginning of its line: each state becomes a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
