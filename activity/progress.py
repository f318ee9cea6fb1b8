"""Output for a terminal: tables, and progress on stderr (a bar, or a line a minute where a log holds it)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from activity.errors import printable

if TYPE_CHECKING:
    from tqdm import tqdm

_LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} so far, about {remaining} left"


def format_table(rows: Iterable[Sequence[object]], align: str = "") -> list[str]:
    """Lines of a table: columns as wide as their widest cell, two spaces apart.

    Args:
        rows: cells of each row, all rows of one length; a header is the first row.
        align: a letter for each column, `l` left or `r` right; columns without one are aligned as the last letter says,
            and left without any.
    """
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    sides = {"l": str.ljust, "r": str.rjust}
    columns = [sides[letter] for letter in align.ljust(len(widths), align[-1:] or "l")]
    cells = ([pad(cell, width) for pad, cell, width in zip(columns, row, widths, strict=True)] for row in texts)
    return ["  ".join(row).rstrip() for row in cells]


def clock(seconds: float) -> str:
    """A time as `3:20`, or `1:03:20`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def video_bar(desc: str, total_seconds: float) -> tqdm:
    """A progress bar that counts the seconds of a video, as its header tells them: `3:20 of 9:04, about 00:40 left`.

    Where it tells none, `total_seconds` 0: `3:20 so far`.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            return {**super().format_dict, "now": clock(self.n), "end": clock(max(self.n, self.total))}

    line = "{desc}: {now} of {end}, about {remaining} left" if total_seconds > 0 else "{desc}: {now} so far"
    return Bar(
        total=max(total_seconds, 0.0), desc=desc, **_options({"bar_format": line, "leave": False, "smoothing": 0})
    )


def progress_bar(iterable: Any = None, **options: Any) -> tqdm:
    """A tqdm bar. Where stderr is no terminal, only work of more than 30 seconds shows, as a line a minute.

    A bar within another disappears when it is done: a search has hundreds of them.
    """
    from tqdm import tqdm

    return tqdm(iterable, **_options({"leave": None, **options}))


def _options(options: dict[str, Any]) -> dict[str, Any]:
    if sys.stderr.isatty():
        return options
    lines = {"delay": 30, "mininterval": 60, "file": _Lines(), "leave": False}
    return {"bar_format": _LINE, **options, **lines}


class _Lines:
    """Stderr for a bar that would return to the beginning of its line: each state becomes a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
