"""Small films of known rate and length, and what they are compared with: rows of a manifest by hand."""

import json

import numpy as np
import pytest

from activity.datasets.annotations.matching import list_labelled
from activity.datasets.manifest import read_manifest
from activity.video.writer import write_video

FILMS = {  # path -> frames, frames a second
    "a.avi": (100, 10),
    "b.avi": (100, 10),
    "day 1/c.avi": (60, 10),
    "slow/d.avi": (50, 5),
    "x/same.avi": (20, 10),
    "y/same.avi": (20, 10),
}


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """The folder of these films."""
    folder = tmp_path_factory.mktemp("films")
    for path, (num_frames, rate) in FILMS.items():
        (folder / path).parent.mkdir(exist_ok=True)
        frames = (np.full((8, 8, 3), index % 250, np.uint8) for index in range(num_frames))
        write_video(folder / path, frames, frames_per_second=rate)
    return folder


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of annotations: text as it is, rows with tabs, or JSON."""

    def write_(name, content):
        if isinstance(content, list) and all(isinstance(row, str) for row in content):
            content = "\n".join(content) + "\n"
        elif not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_


def rows_of(listed):
    """What a manifest would have: path, label, start, end, and what else there is."""
    return [
        (x.path, x.label, *x.span, x.group, x.split, tuple(sorted((k, v) for k, v in x.extra.items() if v)))
        for x in listed.samples
    ]


@pytest.fixture
def same_as_by_hand(films):
    """A function that fails unless files of annotations give the rows of a manifest; returns their problems."""

    def same(manifest, *files, **options):
        by_hand = films / "by_hand.csv"
        by_hand.write_text("\n".join(manifest) + "\n")
        try:
            expected = rows_of(read_manifest(by_hand))
        finally:
            by_hand.unlink()
        listed = list_labelled(films, files, **options)
        assert rows_of(listed) == expected
        return listed.problems

    return same


@pytest.fixture
def problems_of(films):
    """A function that returns the labels that were read, and the problems as lines."""

    def problems(*files, **options):
        listed = list_labelled(films, files, **options)
        return [x.label for x in listed.samples], [f"{place}: {what}" for place, what in listed.problems.items()]

    return problems
