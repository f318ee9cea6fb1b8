import dataclasses
import math
import random

import pytest

from activity.datasets import samples as dataset
from activity.datasets.samples import (
    Sample,
    VideoList,
    caption_counts,
    content_of,
    file_of,
    in_order,
    labels_of,
    labels_without,
    with_ids,
)


def listed(folder, *paths, spans=((None, None),)):
    """Files of one and the same content; of each, the segments of some spans."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"video")
    return VideoList(
        folder,
        [
            Sample(path=path, label="run", group=path, start_seconds=start, end_seconds=end)
            for path in paths
            for start, end in spans
        ],
    )


def test_labels_are_sorted():
    samples = [Sample(path=label, label=label, group=label) for label in ("wave", "Jump", "run", "wave")]
    assert labels_of(samples) == ["Jump", "run", "wave"]


def test_samples_without_a_label_have_none():
    samples = [Sample(path=str(i), label=label, group=str(i), split="train") for i, label in enumerate(["run", "", ""])]
    assert labels_of(samples) == ["run"] and labels_without(samples, "test") == ["run"]
    assert labels_without(samples, "train") == [] and labels_of(samples[1:]) == []


def test_captions_are_counted_in_a_line():
    captions = [("A dog runs.", "a dog"), (), ("Ein Hund",)]
    samples = [Sample(path=str(i), label="", group=str(i), captions=of) for i, of in enumerate(captions)]
    assert caption_counts(samples) == "3 captions of 2 samples (1.5 each), 7 words, 5 of them distinct"
    assert caption_counts(samples[1:2]) == ""


# === Segments ===


@pytest.mark.parametrize(
    ("start", "end", "name", "span"),
    [
        (None, None, "a.mp4", (0.0, math.inf)),
        (12.0, 15.5, "a.mp4 [12.0-15.5 s]", (12.0, 15.5)),
        (None, 15.5, "a.mp4 [0.0-15.5 s]", (0.0, 15.5)),
        (12.25, None, "a.mp4 [12.25 s to the end]", (12.25, math.inf)),
    ],
)
def test_a_segment_is_known_by_its_times(start, end, name, span):
    sample = Sample(path="a.mp4", label="run", group="a.mp4", start_seconds=start, end_seconds=end)
    assert (sample.name, sample.span, sample.is_segment) == (name, span, name != "a.mp4")


def test_order_is_by_path_and_then_by_time(tmp_path):
    samples = listed(tmp_path, "a.avi", "b.avi", spans=[(None, 2.0), (2.0, 3.0), (10.0, None)]).samples
    shuffled = random.Random(1).sample(samples, len(samples))
    assert shuffled != samples and in_order(shuffled) == samples


# === Ids ===


def test_every_path_has_an_id_of_its_own(tmp_path):
    paths = ["走/α.avi", "跑/β.avi", "run/a_b.avi", "run_a/b.avi", "run/a b.avi", "run/a-b.avi", "run/a/b.avi"]
    paths += [f"{label}/{'long' * 30}.avi" for label in ("run", "walk")]
    identified = with_ids(listed(tmp_path, *paths)).samples
    assert len({sample.sample_id for sample in identified}) == len(paths)
    assert len({content_of(sample) for sample in identified}) == 1


def test_a_plain_path_can_be_read_off_its_id(tmp_path):
    (sample,) = with_ids(listed(tmp_path, "run/v_run_g01.avi")).samples
    assert sample.sample_id == f"run_v_run_g01.avi-{content_of(sample)}"


def test_segments_of_a_file_have_ids_of_their_own_and_the_whole_file_keeps_its(tmp_path):
    spans = [(None, None), (None, 5.0), (0.000001, 5.0), (1e-5, 100.0), (12.0, 15.5), (12.0, None)]
    whole, *segments = with_ids(listed(tmp_path, "a/a.avi", spans=spans)).samples
    digest = content_of(whole)
    assert whole.sample_id == f"a_a.avi-{digest}" and len(digest) == 16
    assert [content_of(sample).removeprefix(digest) for sample in segments] == [
        "_0_5",
        "_0.000001_5",
        "_0.00001_100",
        "_12_15.5",
        "_12_inf",
    ]
    assert all(sample.sample_id == f"a_a.avi-{content_of(sample)}" for sample in segments)
    assert {file_of(content_of(sample)) for sample in [whole, *segments]} == {digest}


def test_a_file_is_read_once_for_all_its_segments(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(dataset, "digest_of_file", lambda path: read.append(path.name) or "0123")
    samples = with_ids(listed(tmp_path, "a/a.avi", "a/b.avi", spans=[(float(i), i + 1.0) for i in range(20)])).samples
    assert len(samples) == 40 and sorted(read) == ["a.avi", "b.avi"]


def test_a_file_that_cannot_be_opened_is_missing_with_all_its_segments(tmp_path):
    videos = listed(tmp_path, "a.avi", "b.avi", spans=[(None, 1.0), (1.0, 2.0)])
    (tmp_path / "a.avi").unlink()
    identified = with_ids(dataclasses.replace(videos, missing={"c.avi": "gone"}))
    assert [sample.path for sample in identified.samples] == ["b.avi", "b.avi"]
    assert identified.missing == {"c.avi": "gone", "a.avi": "cannot be opened: No such file or directory"}
