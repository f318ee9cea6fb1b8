"""Progress on stderr."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Any = None, **options: Any) -> tqdm:
    """A tqdm bar. Where stderr is no terminal, only work of more than 30 seconds shows, once a minute.

    A bar within another goes when it is done: a search has hundreds of them.
    """
    options = {"leave": None, **options}
    if not sys.stderr.isatty():
        options |= {"delay": 30, "mininterval": 60, "ascii": True}
    return tqdm(iterable, **options)
