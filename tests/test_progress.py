import re
import sys
import time

import pytest

from activity.progress import clock, format_table, progress_bar, video_bar


class Terminal:
    def __init__(self, stream):
        self.write, self.flush = stream.write, stream.flush

    def isatty(self):
        return True


@pytest.fixture
def at_once(monkeypatch):
    """As if half a minute had passed before each step."""
    now = [0.0]

    def later():
        now[0] += 31.0
        return now[0]

    monkeypatch.setattr("tqdm.std.time", later)


def test_cells_cannot_command_a_terminal():
    assert format_table([("label", "n"), ("\x1b[31mred\n", 1)], "lr") == ["label          n", "\\x1b[31mred\\n  1"]


def test_short_work_says_nothing_in_a_log(capsys):
    assert list(progress_bar(range(3), desc="videos")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_long_work_says_lines_in_a_log(capsys, at_once):
    for _ in progress_bar(range(4), desc="videos", unit="video"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and len(set(lines)) == len(lines)
    assert all(line.startswith("videos: ") and " of 4, " in line for line in lines)
    assert not any(character in "".join(lines) for character in "\r\x1b█|")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    for _ in progress_bar(range(4), desc="videos", mininterval=0):
        time.sleep(0.01)
    written = capsys.readouterr().err
    assert "\rvideos: " in written and "| 4/4 [" in written


def test_a_video_shows_the_time_that_it_has_come_to(capsys, at_once):
    with video_bar("match.mp4", 544.0) as bar:
        bar.update(100.0)
        bar.update(100.0)
        bar.update(400.0)  # its header was wrong
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", about ")[0] for line in lines] == ["match.mp4: 3:20 of 9:04", "match.mp4: 10:00 of 10:00"]
    assert re.fullmatch(r"0\d:\d\d left", lines[0].partition(", about ")[2])


def test_a_video_of_unknown_length_shows_the_time_alone(capsys, at_once):
    with video_bar("live.webm", 0.0) as bar:
        bar.update(100.0)
        bar.update(100.0)
        bar.update(400.0)
    assert capsys.readouterr().err.splitlines() == ["live.webm: 3:20 so far", "live.webm: 10:00 so far"]


def test_a_clock():
    assert [clock(seconds) for seconds in (0, 59.9, 61, 3599, 3600, 36061)] == [
        *("0:00", "0:59", "1:01", "59:59", "1:00:00", "10:01:01")
    ]


def test_a_table_is_as_wide_as_its_cells():
    rows = [("label", "train", ""), ("sit_down", 12, "(few)"), ("run", 103, "")]
    assert format_table(rows, align="lrl") == ["label     train", "sit_down     12  (few)", "run         103"]
    assert format_table(rows) == ["label     train", "sit_down  12     (few)", "run       103"]
    assert format_table([("a", 1, 10), ("b", 20, 2)], align="lr") == ["a   1  10", "b  20   2"]
    assert format_table([]) == []
