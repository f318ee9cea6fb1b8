import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import NOISE_SPEC

from activity.config import ClipSpec, as_dict
from activity.datasets.dataset import (
    MANIFEST_COLUMNS,
    Stacks,
    load_dataset,
    stack_path,
    stream_dir,
    write_stacks,
)
from activity.datasets.samples import Sample
from activity.errors import DatasetError, VideoError
from activity.files import write_csv

# === Frame stacks ===


@pytest.mark.parametrize(("rate", "length"), [(None, 4), (10, 200)])
def test_a_stack_is_an_ordinary_npy_file(write_counting_video, tmp_path, rate, length):
    spec = ClipSpec(num_frames=4, height=20, width=31, frames_per_second=rate)
    for stream in spec.streams:
        stream_dir(tmp_path, stream).mkdir()
    sampled = write_stacks(write_counting_video("a.avi", 200), spec, tmp_path, "a-1")
    stacks = [np.load(tmp_path / folder / "a-1.npy") for folder in ("frames", "motion", "motion_crop")]
    for stack in stacks:
        assert stack.shape == (length, 20, 31, 3) and stack.dtype == np.uint8
    assert (stacks[0][:, 0, 0, 0] / 10).tolist() == pytest.approx(sampled.timestamps_seconds)
    assert (stacks[1][1:, 0, 0, 0] == 130).all()  # 127.5 + 2 * 1, to the nearest even


def test_no_stack_of_what_is_no_video(tmp_path):
    (tmp_path / "a.avi").write_bytes(b"text")
    (tmp_path / "frames").mkdir()
    with pytest.raises(VideoError, match="this is a text file"):
        write_stacks(tmp_path / "a.avi", dataclasses.replace(NOISE_SPEC, streams=("rgb",)), tmp_path, "a-1")
    assert os.listdir(tmp_path / "frames") == []


def test_frames_of_a_sample(dataset):
    frames = dataset.frames(dataset.samples[1])
    assert frames.shape == (40, 16, 16, 3) and isinstance(frames, np.memmap)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a.npy: cannot be read \(.*No such file.*\); run the same preprocess command again"),
        (b"\x93NUMPY", "a.npy: cannot be read .* run the same preprocess command again"),
        (b"", "a.npy: cannot be read .* run the same preprocess command again"),
        (np.zeros((2, 16, 17, 3), np.uint8), r"expected \(N, \(16, 16, 3\)\) uint8 .* received \(2, 16, 17, 3\)"),
        (np.zeros((0, 16, 16, 3), np.uint8), r"with N >= 1, received \(0, 16, 16, 3\)"),
        (np.zeros((2, 16, 16, 3), np.float32), "expected .* uint8"),
    ],
)
def test_stacks_that_are_damaged(dataset, content, message):
    path = stack_path(dataset.dataset_dir, "a")
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(DatasetError, match=message):
        dataset.frames(dataset.samples[0])


def test_all_streams_of_a_sample_side_by_side(dataset):
    stack = Stacks(dataset.frames, dataset.samples, NOISE_SPEC.streams)[1]
    assert len(stack) == 40
    part = stack[5:9]
    assert part.shape == (4, 2, 16, 16, 3)
    for s, stream in enumerate(NOISE_SPEC.streams):
        np.testing.assert_array_equal(part[:, s], dataset.frames(dataset.samples[1], stream)[5:9])


def test_a_stream_that_was_not_made_is_named(dataset):
    with pytest.raises(DatasetError, match="has no stream motion_crop; it was made with rgb, motion"):
        dataset.with_streams(("rgb", "motion_crop"))


def test_features_take_the_place_of_frames_which_people_can_still_see(dataset, tmp_path_factory, caplog):
    features_dir = tmp_path_factory.mktemp("features")
    lasting = [dataclasses.replace(sample, duration_seconds=2.0) for sample in dataset.samples]
    for sample in lasting:
        np.save(features_dir / f"{sample.sample_id}.npy", np.zeros((4, 7), np.float32))
    dataset = dataclasses.replace(dataset, samples=lasting)
    given = dataset.with_features(features_dir)
    assert given.spec.streams == ("features",) and given.spec.item_shape == (7,)
    assert given.with_features(str(features_dir)) is given
    np.testing.assert_array_equal(given.frames(given.samples[0]), dataset.frames(dataset.samples[0], "rgb"))
    assert "2 rows a second, and the data set samples 10: each comes about 5 times" in caplog.text
    with pytest.raises(DatasetError, match="has no stream features; it was made with rgb, motion"):
        dataset.with_streams(given.spec.streams)


@pytest.mark.parametrize("stream", ["motion_crop", "closeup"])
def test_a_stream_is_known_by_its_old_name_too(dataset, stream, caplog):
    caplog.set_level("INFO")
    whole = dataclasses.replace(dataset, spec=dataclasses.replace(dataset.spec, streams=("rgb", "motion_crop")))
    assert whole.with_streams((stream,)).spec.streams == ("motion_crop",)
    assert ("closeup is now called motion_crop" in caplog.text) == (stream == "closeup")


# === Opening a folder ===


def write_folder(folder, about=None, rows=None):
    about = about or {"format_version": 2, "spec": as_dict(NOISE_SPEC), "videos_dir": "/videos"}
    (folder / "dataset.json").write_text(json.dumps(about))
    row = dict(zip(MANIFEST_COLUMNS, ["a-1", "run/a.avi", "run", "anna", "train", "7", "0.7"], strict=True))
    rows = [{**row, "fold": "2"}] if rows is None else rows
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_csv(folder / "problems.csv", ["path", "reason"], [{"path": "b.avi", "reason": "empty"}])


def test_load_dataset(tmp_path):
    write_folder(tmp_path)
    dataset = load_dataset(tmp_path)
    assert dataset.spec == NOISE_SPEC and dataset.videos_dir == Path("/videos") and dataset.labels == ["run"]
    assert dataset.samples == [
        Sample(
            sample_id="a-1",
            path="run/a.avi",
            label="run",
            group="anna",
            split="train",
            num_frames=7,
            duration_seconds=0.7,
            extra={"fold": "2"},
        )
    ]
    assert dataset.problems == [{"path": "b.avi", "reason": "empty"}]
    assert dataset.split("train") == dataset.samples
    with pytest.raises(DatasetError, match="manifest.csv has no samples in the split 'test'"):
        dataset.split("test")


def write_captions(folder, *rows):
    write_csv(
        folder / "captions.csv",
        ["sample_id", "caption"],
        [dict(zip(["sample_id", "caption"], x, strict=True)) for x in rows],
    )


def test_captions_of_a_data_set_are_in_their_order(tmp_path, caplog):
    write_folder(tmp_path)
    write_captions(tmp_path, ("a-1", "-> a dog"), ("a-1", "=1+2"), ("a-1", "\"a\", 'b'"))
    (sample,) = load_dataset(tmp_path).samples
    assert sample.captions == ("-> a dog", "=1+2", "\"a\", 'b'") and sample.extra == {"fold": "2"}
    assert not caplog.text


def test_captions_of_unknown_samples_are_said(tmp_path, caplog):
    write_folder(tmp_path)
    write_captions(tmp_path, ("a-1", "a dog"), ("b-1", "a cat"), ("b-1", "a bee"), ("c-1", "a cow"))
    assert load_dataset(tmp_path).samples[0].captions == ("a dog",)
    assert "captions.csv: has captions of 2 samples that are not in manifest.csv: b-1, c-1" in caplog.text


@pytest.mark.parametrize(
    "content", ["sample_id,text\na-1,a dog\n", "sample_id,caption\na-1, \n", "sample_id,caption\na-1\n", "\xe5"]
)
def test_captions_that_are_damaged(tmp_path, content):
    spec = as_dict(NOISE_SPEC)
    write_folder(tmp_path, {"format_version": 2, "spec": spec, "videos_dir": "/videos", "captions": {"train": 1}})
    (tmp_path / "captions.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DatasetError, match="captions.csv: damaged .*; delete it and run the same preprocess command"):
        load_dataset(tmp_path)


def described(**captions):
    """Samples by their path: label, split and captions."""
    return [
        Sample(path=path, label=label, group=path, split=split, sample_id=path, captions=tuple(several))
        for path, (label, split, *several) in captions.items()
    ]


def test_counts_of_captions(dataset):
    samples = described(a=("", "train", "a dog", "ein Hund"), b=("", "test", "a cat"))
    lines = dataclasses.replace(dataset, samples=samples).as_text().splitlines()
    assert [line.split() for line in lines[:2]] == [["train", "val", "test"], ["all", "1", "0", "1"]]
    assert lines[2].startswith("2 videos, 2 groups, ")
    assert lines[3] == "3 captions of 2 samples (1.5 each), 6 words, 5 of them distinct"


def test_counts_of_labels_and_captions(dataset):
    samples = described(a=("run", "train", "a dog"), b=("", "test", "a cat"), c=("walk", "test"))
    lines = dataclasses.replace(dataset, samples=samples).as_text().splitlines()
    rows = [line.split("  ") for line in lines[:5]]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["label", "train", "val", "test"],
        ["run", "1", "0", "0"],
        ["walk", "0", "0", "1"],
        ["(no label)", "0", "0", "1"],
        ["all", "1", "0", "2"],
    ]


def test_what_needs_labels_takes_the_labelled_samples(dataset, caplog):
    samples = described(a=("run", "train", "a dog"), b=("", "test", "a cat"), c=("walk", "test"))
    both = dataclasses.replace(dataset, samples=samples)
    assert [sample.path for sample in both.labelled().samples] == ["a", "c"]
    assert f"{dataset.dataset_dir}: 1 of its 3 samples have no label, left out" in caplog.text
    caplog.clear()
    assert dataset.labelled() == dataset and not caplog.text
    message = "it has captions and no labels; expected labels of activities; captions are for: activity train .* --task"
    with pytest.raises(DatasetError, match=message):
        dataclasses.replace(dataset, samples=samples[1:2]).labelled()
    with pytest.raises(DatasetError, match="it has samples and no labels; .*; run the same preprocess command again"):
        dataclasses.replace(dataset, samples=[dataclasses.replace(samples[1], captions=())]).labelled()


def test_a_manifest_that_went_through_excel(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_dataset(tmp_path).samples[0].sample_id == "a-1"


@pytest.mark.parametrize(
    "row",
    [
        {"path": "run/a.avi", "label": "run"},
        dict(zip(MANIFEST_COLUMNS, ["a-1", "run/a.avi", "run", "anna", "train", "seven", "0.7"], strict=True)),
    ],
)
def test_a_manifest_that_is_damaged(tmp_path, row):
    write_folder(tmp_path, rows=[row])
    with pytest.raises(DatasetError, match="manifest.csv: damaged .*; delete it and run the same preprocess command"):
        load_dataset(tmp_path)


def test_a_folder_that_is_no_data_set(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DatasetError, match="not a data set folder .* activity preprocess VIDEOS --out"):
            load_dataset(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3"])
def test_a_description_that_is_not_ours(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match="dataset.json: not a data set description of ours"):
        load_dataset(tmp_path)


def test_a_folder_of_a_newer_version(tmp_path):
    write_folder(tmp_path, about={"format_version": 99})
    with pytest.raises(DatasetError, match=r"made by a newer activity \(format 99, this program reads 2\)"):
        load_dataset(tmp_path)


def test_a_folder_that_is_unfinished(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "manifest.csv").unlink()
    with pytest.raises(DatasetError, match="unfinished; run the same preprocess command again"):
        load_dataset(tmp_path)


def test_a_data_set_from_before_there_were_streams_has_one(tmp_path):
    spec = {name: value for name, value in as_dict(NOISE_SPEC).items() if name != "streams"}
    write_folder(tmp_path, about={"format_version": 1, "spec": spec, "videos_dir": "/videos"})
    assert load_dataset(tmp_path).spec.streams == ("rgb",)
