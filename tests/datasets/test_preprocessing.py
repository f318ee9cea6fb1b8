import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from misbehaving import (
    DeadlySpec,
    be_killed_at_the_start,
    be_killed_once,
    decode_after_a_death,
    decode_with_another_version,
    decode_without_the_videos,
    misbehave,
)

from activity.config import ClipSpec, as_dict
from activity.datasets import preprocessing
from activity.datasets.dataset import load_dataset, stack_path
from activity.datasets.films import films_in
from activity.datasets.preprocessing import preprocess
from activity.errors import ActivityError, DatasetError, SettingError
from activity.files import LOCK_NAME
from activity.video.sampling import read_stack

SPEC = ClipSpec(num_frames=4, height=16, width=16)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(preprocessing.__file__).parents[2])}  # this copy of the program


@pytest.fixture
def videos(write_counting_video, tmp_path):
    """Twelve videos of two labels, each of another length, so that no two are the same."""
    for length in range(3, 15):
        write_counting_video(f"videos/{'run' if length % 2 else 'wave'}/{length:02d}.avi", length)
    return tmp_path / "videos"


@pytest.fixture
def decode_here(monkeypatch):
    """Decode in this process, which is faster than starting others; the names of what was decoded."""
    decoded = []

    def one_by_one(todo, work, *_):
        for id_, (path, span) in todo.items():
            decoded.append(path.name)
            yield id_, preprocessing._Outcome(preprocessing._decode_one(id_, path, span, work))

    monkeypatch.setattr(preprocessing, "_decode_all", one_by_one)
    return decoded


def content_of(dataset_dir):
    """Every file of a data set folder; the notes without their order, since workers finish in any."""
    files = {str(p.relative_to(dataset_dir)): p.read_bytes() for p in dataset_dir.rglob("*") if p.is_file()}
    files["decoded.csv"] = b"\n".join(sorted(set(files["decoded.csv"].splitlines())))
    return files


def notes_of(dataset_dir):
    lines = (dataset_dir / "decoded.csv").read_text(encoding="utf-8").splitlines()
    return {row[0]: row[1:] for row in csv.reader(lines)}


def splits_of(dataset):
    return {sample.path: sample.split for sample in dataset.samples}


def reasons_of(dataset):
    return {row["path"]: row["reason"] for row in dataset.problems}


def write_manifest(videos_dir, rows):
    with (videos_dir / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


# === The first run ===


def test_whole_run(videos, tmp_path):
    (videos / "run" / "broken.mp4").write_bytes(b"")
    (videos / "wave" / "cover.jpg").write_bytes(b"image")
    whole = (videos / "run" / "13.avi").read_bytes()
    (videos / "run" / "cut.avi").write_bytes(whole[: (whole.index(b"movi") + whole.rindex(b"idx1")) // 2])
    dataset = preprocess(videos, tmp_path / "out", SPEC, num_workers=2, seed=5)

    assert dataset == load_dataset(tmp_path / "out")
    assert len(dataset.samples) == 13 and dataset.labels == ["run", "wave"]
    assert [sample.path for sample in dataset.samples] == sorted(sample.path for sample in dataset.samples)
    for sample in dataset.samples:
        stack, sampled = read_stack(videos / sample.path, SPEC)
        for s, stream in enumerate(SPEC.streams):
            np.testing.assert_array_equal(dataset.frames(sample, stream), stack[:, s])
        assert (sample.num_frames, sample.duration_seconds) == (sampled.num_frames, sampled.num_frames / 10)
        assert sample.label == sample.path.partition("/")[0]
    assert {sample.split for sample in dataset.samples} == {"train", "val", "test"}

    last_line = f"2 problems: {tmp_path / 'out' / 'problems.csv'}: run/broken.mp4, run/cut.avi"
    assert dataset.as_text().splitlines()[-1] == last_line
    broken, cut = dataset.problems
    assert broken == {
        "path": "run/broken.mp4",
        "reason": "the file is empty (0 bytes)",
        "frames_read": "0",
        "frames_claimed": "0",
    }
    assert cut["path"] == "run/cut.avi" and cut["frames_claimed"] == "13"
    assert re.match(rf"ends after {cut['frames_read']} frames .* the frames before that are used", cut["reason"])

    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert about["format_version"] == 2 and ClipSpec(**about["spec"]) == SPEC and about["seed"] == 5
    assert about["labels"] == ["run", "wave"] and about["num_skipped"] == 1
    assert about["videos_dir"] == str(videos.resolve())
    assert set(about["versions"]) == {"activity", "opencv"}
    counts = defaultdict(dict)
    for sample in dataset.samples:
        counts[sample.label][sample.split] = counts[sample.label].get(sample.split, 0) + 1
    assert about["counts"] == counts

    notes = notes_of(tmp_path / "out")
    assert len(notes) == 14
    assert {notes[sample.sample_id][0] for sample in dataset.samples} == {str(s.num_frames) for s in dataset.samples}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"dataset.json", "manifest.csv", "problems.csv", "decoded.csv", "digests.txt"} | {
        *SPEC.streams[1:],
        "frames",
    }
    for folder in ("frames", "motion", "motion_crop"):
        assert {p.stem for p in (tmp_path / "out" / folder).glob("*.npy")} == {s.sample_id for s in dataset.samples}


def test_at_a_rate_a_stack_is_as_long_as_its_video(videos, tmp_path, decode_here):
    spec = ClipSpec(num_frames=4, height=16, width=16, frames_per_second=10)
    dataset = preprocess(videos, tmp_path / "out", spec)
    assert all(len(dataset.frames(sample)) == sample.num_frames for sample in dataset.samples)


def test_columns_of_the_user_are_carried_through(videos, tmp_path, decode_here, caplog):
    paths = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.avi"))
    rows = [(path, path[:3], f"g{i}", i % 5, "01:30", "mine") for i, path in enumerate(paths)]
    write_manifest(videos, [("path", "label", "group", "fold", "num_frames", "sample_id"), *rows])
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    with (tmp_path / "out" / "manifest.csv").open() as file:
        header = file.readline().strip()
    assert header == "sample_id,path,label,group,split,num_frames,duration_seconds,fold"
    assert "columns of the manifest that preprocess sets itself, replaced: sample_id, num_frames\n" in caplog.text
    loaded = load_dataset(tmp_path / "out")
    assert [sample.extra for sample in loaded.samples] == [{"fold": str(i % 5)} for i in range(12)]
    assert dataset == loaded
    assert [sample.num_frames for sample in loaded.samples] == [int(Path(path).stem) for path in paths]


def test_what_a_manifest_misses_is_a_problem(videos, tmp_path, decode_here):
    names = ["run/03.avi", "run/05.avi", "run/07.avi", "wave/04.avi", "wave/06.avi", "wave/gone.avi"]
    write_manifest(videos, [("path", "label"), *((name, name.partition("/")[0]) for name in names)])
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    assert len(dataset.samples) == 5
    assert reasons_of(dataset) == {"wave/gone.avi": "named in manifest.csv line 7, but there is no such file"}


def test_a_file_that_may_not_be_opened_is_a_problem(videos, tmp_path, decode_here, monkeypatch):
    open_ = Path.open

    def refuse(path, *arguments, **options):
        if path.name == "03.avi":
            raise PermissionError(13, "Permission denied")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    dataset = preprocess(videos, tmp_path / "dataset", SPEC)
    assert reasons_of(dataset) == {"run/03.avi": "cannot be opened: Permission denied"}
    assert len(dataset.samples) == 11


def write_images(folder, numbers, *, suffix="png"):
    """Images whose red is their number, as those of `write_counting_video`."""
    folder.mkdir(parents=True)
    for number in numbers:
        image = np.full((16, 16, 3), (7, 255 - number, number), np.uint8)
        assert cv2.imwrite(str(folder / f"f{number:04d}.{suffix}"), image)


def test_a_folder_of_images_is_a_video(videos, tmp_path, decode_here, caplog):
    write_images(videos / "run/images", range(10))
    write_images(videos / "wave/gappy", [1, 2, 3, 7, 9, 10])
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    assert "2 folders of numbered images are taken for videos of 25 images a second (--image-rate)" in caplog.text
    samples = {sample.path: sample for sample in dataset.samples}
    images, gappy = samples["run/images"], samples["wave/gappy"]
    assert (images.num_frames, images.duration_seconds) == (10, 0.4) and len(samples) == 14
    np.testing.assert_array_equal(dataset.frames(images)[:, 0, 0, 0], [1, 3, 6, 8])
    assert (gappy.num_frames, gappy.duration_seconds) == (6, 0.4)
    assert reasons_of(dataset) == {
        "wave/gappy": "images are missing: 4-6, 8, of 1-10; their time passes without a frame"
    }
    decode_here.clear()
    preprocess(videos, tmp_path / "out", SPEC)
    assert decode_here == []
    again = preprocess(videos, tmp_path / "out", SPEC, images_per_second=5)
    assert decode_here == ["images", "gappy"]
    assert {s.duration_seconds for s in again.samples if s.path in ("run/images", "wave/gappy")} == {2}
    (videos / "run/images/f0003.png").write_bytes(b"")
    damaged = reasons_of(preprocess(videos, tmp_path / "out", SPEC))["run/images"]
    assert damaged.startswith("ends after 3 frames (0.12 s) of a claimed 10")


def test_images_are_taken_at_a_rate_by_their_numbers(videos, tmp_path, decode_here):
    write_images(videos / "run/images", [0, 1, 2, 3, 20, 21, 22, 23])
    spec = ClipSpec(num_frames=4, height=16, width=16, frames_per_second=5, streams=("rgb",))
    dataset = preprocess(videos, tmp_path / "out", spec, images_per_second=10)
    (sample,) = (sample for sample in dataset.samples if sample.path == "run/images")
    reds = dataset.frames(sample)[:, 0, 0, 0].tolist()
    assert reds == [0, 2, *[20] * 9, 22] and sample.duration_seconds == 2.4


def test_a_first_run_that_makes_nothing_leaves_nothing(tmp_path, decode_here):
    for name in ("run/a.mp4", "wave/b.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True)
        (tmp_path / "videos" / name).write_bytes(b"")
    with pytest.raises(DatasetError, match="none of 2 videos can be read"):
        preprocess(tmp_path / "videos", tmp_path / "out", SPEC)
    assert not (tmp_path / "out").exists()


def test_a_run_that_failed_is_not_called_unfinished(videos, tmp_path, decode_here):
    (videos / "wave").rename(tmp_path / "wave")
    (videos / "wave").mkdir()
    (videos / "wave/a.mp4").write_bytes(b"")
    with pytest.raises(DatasetError, match="no readable video of: wave"):
        preprocess(videos, tmp_path / "out", SPEC)
    with pytest.raises(DatasetError, match="out: preprocess could not complete it: .*no readable video of: wave"):
        load_dataset(tmp_path / "out")
    shutil.copytree(tmp_path / "wave", videos / "wave", dirs_exist_ok=True)
    decode_here.clear()
    assert len(preprocess(videos, tmp_path / "out", SPEC).samples) == 12
    assert len(decode_here) == 6  # the others were kept
    assert load_dataset(tmp_path / "out").samples


def test_no_video_can_be_read(tmp_path, decode_here):
    for name in ("run/a.mp4", "wave/b.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True)
        (tmp_path / "videos" / name).write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"none of 2 videos can be read; first problem: run/a.mp4: the file is empty \(0 bytes\)"
    ):
        preprocess(tmp_path / "videos", tmp_path / "out", SPEC)


def test_a_name_that_is_not_utf8_is_a_problem(videos, tmp_path, decode_here):
    try:
        (videos / "run/03.avi").rename(videos / os.fsdecode(b"run/\xe9.avi"))
    except OSError:
        pytest.skip("this file system has no such names")
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    assert list(reasons_of(dataset)) == ["run/\\xe9.avi"] and len(dataset.samples) == 11


def test_a_label_without_readable_videos_is_named(videos, tmp_path, decode_here, caplog):
    (videos / "fall").mkdir()
    (videos / "fall/a.mp4").write_bytes(b"")
    assert preprocess(videos, tmp_path / "out", SPEC).labels == ["run", "wave"]
    assert "no readable video of: fall" in caplog.text


def test_one_readable_label_is_not_enough(videos, tmp_path, decode_here):
    for path in (videos / "wave").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"videos: no readable video of: wave; first problem: wave/04.avi: the file is empty"
    ):
        preprocess(videos, tmp_path / "out", SPEC)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seconds_per_video": 0}, "seconds_per_video must be above 0, received: 0"),
        ({"seconds_per_video": float("nan")}, "seconds_per_video must be above 0, received: nan"),
        ({"seed": -1}, "seed must be 0 or more, received: -1"),
    ],
)
def test_options_out_of_range(videos, tmp_path, option, message):
    with pytest.raises(SettingError, match=message):
        preprocess(videos, tmp_path / "out", SPEC, **option)
    assert not (tmp_path / "out").exists()


def test_copies_share_a_group(videos, tmp_path, decode_here, caplog):
    for i in range(4):
        shutil.copy(videos / "run" / "05.avi", videos / "run" / f"copy{i}.avi")
    shutil.copy(videos / "run" / "07.avi", videos / "wave" / "07.avi")
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    groups = {sample.path: sample.group for sample in dataset.samples}
    assert {groups[f"run/copy{i}.avi"] for i in range(4)} == {groups["run/05.avi"]} == {"run/05.avi"}
    assert groups["wave/07.avi"] == groups["run/07.avi"]
    assert "run/copy0.avi has the same content as run/05.avi" in caplog.text
    assert "wave/07.avi has the same content as run/07.avi under another label (run, wave)" in caplog.text


def test_labels_that_a_split_lacks_are_named(videos, tmp_path, decode_here, write_counting_video, caplog):
    write_counting_video("videos/fall/once.avi", 20)
    preprocess(videos, tmp_path / "out", SPEC)
    assert "no val videos of: fall" in caplog.text and "no test videos of: fall" in caplog.text
    assert "no train videos" not in caplog.text


# === Segments of long videos ===

SEGMENTS = [
    (f"{name}.avi", label, start, start + 1.5) for name in "abcdef" for start, label in ((0, "run"), (4, "wave"))
]


@pytest.fixture
def long_videos(write_counting_video, tmp_path):
    """Six videos of 10 seconds, of which two segments each are labelled."""
    for i, name in enumerate("abcdef"):
        write_counting_video(f"long/{name}.avi", 100 + i)
    write_segments(tmp_path / "long", SEGMENTS)
    return tmp_path / "long"


def write_segments(videos_dir, rows):
    write_manifest(videos_dir, [("path", "label", "start_seconds", "end_seconds"), *rows])


def test_segments_are_samples_that_keep_together(long_videos, tmp_path):
    dataset = preprocess(long_videos, tmp_path / "out", SPEC, num_workers=2)
    assert dataset == load_dataset(tmp_path / "out") and not dataset.problems
    assert [(s.path, s.label, s.span[0], s.end_seconds) for s in dataset.samples] == SEGMENTS
    for sample in dataset.samples:
        assert (sample.num_frames, sample.duration_seconds, sample.group) == (15, 1.5, sample.path)
        expected = 10 * sample.span[0] + np.array([1, 5, 9, 13])
        np.testing.assert_array_equal(dataset.frames(sample)[:, 0, 0, 0], expected)
    splits = defaultdict(set)
    for sample in dataset.samples:
        splits[sample.path].add(sample.split)
    assert all(len(found) == 1 for found in splits.values()) and set.union(*splits.values()) == {"train", "val", "test"}
    assert "12 segments of 6 videos, 6 groups" in dataset.as_text()
    header = (tmp_path / "out" / "manifest.csv").read_text().splitlines()[0]
    assert header == "sample_id,path,label,group,split,num_frames,duration_seconds,start_seconds,end_seconds"


def test_only_segments_that_changed_are_decoded_again(long_videos, tmp_path, decode_here, caplog):
    first = preprocess(long_videos, tmp_path / "out", SPEC)
    assert len(decode_here) == 12
    decode_here.clear()
    changed = [
        ("b.avi", "run", 0, 2),
        *(row for row in SEGMENTS if row[:3] != ("b.avi", "run", 0)),
        ("c.avi", "run", 8, ""),
    ]
    write_segments(long_videos, changed)
    second = preprocess(long_videos, tmp_path / "out", SPEC)
    assert decode_here == ["b.avi", "c.avi"] and "gone" not in caplog.text
    assert {s.name: s.num_frames for s in second.samples if s not in first.samples} == {
        "b.avi [0.0-2.0 s]": 20,
        "c.avi [8.0 s to the end]": 22,
    }
    assert {s.path: s.split for s in second.samples} == splits_of(first)  # what is new goes where its file is
    assert {p.stem for p in (tmp_path / "out/frames").glob("*.npy")} == {s.sample_id for s in second.samples}

    write_segments(long_videos, SEGMENTS[1:])
    preprocess(long_videos, tmp_path / "out", SPEC)
    assert "2 videos are gone, dropped from the data set" in caplog.text  # one of a and one of c


def test_segments_that_a_video_does_not_hold_are_problems(long_videos, tmp_path, decode_here):
    write_segments(long_videos, [*SEGMENTS, ("a.avi", "run", 12, 15), ("b.avi", "wave", 9, 11), ("x.avi", "run", 1, 2)])
    dataset = preprocess(long_videos, tmp_path / "out", SPEC)
    assert dataset.problems == [
        {
            "path": "a.avi [12.0-15.0 s]",
            "reason": "the segment starts at 12.0 s, but the video ends at 10.0 s",
            "frames_read": "0",
            "frames_claimed": "100",
        },
        {
            "path": "b.avi [9.0-11.0 s]",
            "reason": "the segment ends at 11.0 s, but the video ends at 10.10 s; the frames before that are used",
            "frames_read": "11",
            "frames_claimed": "11",
        },
        {
            "path": "x.avi",
            "reason": "named in manifest.csv line 16, but there is no such file",
            "frames_read": "",
            "frames_claimed": "",
        },
    ]
    assert len(dataset.samples) == 13


def test_segments_of_a_copy_share_the_group_of_its_original(long_videos, tmp_path, decode_here, caplog):
    shutil.copy(long_videos / "a.avi", long_videos / "copy.avi")
    write_segments(long_videos, [*SEGMENTS, ("copy.avi", "wave", 0, 1.5), ("copy.avi", "run", 7, 8)])
    groups = {sample.name: sample.group for sample in preprocess(long_videos, tmp_path / "out", SPEC).samples}
    assert groups["copy.avi [0.0-1.5 s]"] == groups["copy.avi [7.0-8.0 s]"] == groups["a.avi [4.0-5.5 s]"] == "a.avi"
    assert "copy.avi [0.0-1.5 s] has the same content as a.avi under another label (run, wave)" in caplog.text
    assert "copy.avi [7.0-8.0 s] has the same content as a.avi\n" in caplog.text


def test_a_file_of_segments_may_be_renamed(long_videos, tmp_path, decode_here, caplog):
    first = splits_of(preprocess(long_videos, tmp_path / "out", SPEC))
    renamed = next(path for path, split in first.items() if split == "test")
    (long_videos / renamed).rename(long_videos / "z.avi")
    rows = [("z.avi" if path == renamed else path, label, start, end + 0.5) for path, label, start, end in SEGMENTS]
    write_segments(long_videos, rows)  # and other times
    second = splits_of(preprocess(long_videos, tmp_path / "out", SPEC))
    assert second.pop("z.avi") == first.pop(renamed) == "test" and second == first


# === The folder that is there already ===


def test_a_second_run_decodes_nothing(videos, tmp_path, decode_here):
    (videos / "run" / "broken.mp4").write_bytes(b"")
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "frames").iterdir()}
    decode_here.clear()
    preprocess(videos, tmp_path / "out", SPEC)
    assert decode_here == []
    assert content_of(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_videos_are_added_changed_removed_and_renamed(videos, tmp_path, decode_here, write_counting_video):
    first = preprocess(videos, tmp_path / "out", SPEC)
    features = tmp_path / "out" / "features" / "tiny-0123" / f"{first.samples[0].sample_id}.npy"
    features.parent.mkdir(parents=True)
    features.touch()
    gone, kept = (features.with_name(f"{film.whole(2.5).sample_id}.npy") for film in films_in(first.samples)[:2])
    gone.touch()
    kept.touch()
    decode_here.clear()

    write_counting_video("videos/run/new.avi", 30)
    write_counting_video("videos/run/09.avi", 31)
    (videos / "run" / "03.avi").unlink()
    (videos / "wave" / "04.avi").rename(videos / "wave" / "other name.avi")
    second = preprocess(videos, tmp_path / "out", SPEC)

    assert sorted(decode_here) == ["09.avi", "new.avi", "other name.avi"]
    assert {sample.path: sample.num_frames for sample in second.samples} == {
        **{s.path: s.num_frames for s in first.samples if s.path not in ("run/03.avi", "wave/04.avi")},
        **{"run/09.avi": 31, "run/new.avi": 30, "wave/other name.avi": 4},
    }
    stacks = {path.stem for path in (tmp_path / "out" / "frames").glob("*.npy")}
    assert stacks == {sample.sample_id for sample in second.samples}
    assert first.samples[0].path == "run/03.avi" and not features.exists()
    assert not gone.exists() and kept.exists()


def test_the_number_of_videos_that_are_gone_is_logged(videos, tmp_path, decode_here, caplog):
    preprocess(videos, tmp_path / "out", SPEC)
    (videos / "wave/04.avi").rename(videos / "wave/other name.avi")
    (videos / "wave/06.avi").unlink()
    (videos / "wave/08.avi").unlink()
    preprocess(videos, tmp_path / "out", SPEC)
    assert "2 videos are gone, dropped from the data set" in caplog.text


def test_a_data_set_of_other_videos_is_not_replaced(videos, tmp_path, decode_here, write_counting_video):
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    for length in range(20, 26):
        write_counting_video(f"others/{'run' if length % 2 else 'wave'}/{length}.avi", length)
    message = "out: was made from .*videos, and none of its 12 videos is in .*others; choose another --out, or delete"
    with pytest.raises(DatasetError, match=message):
        preprocess(tmp_path / "others", tmp_path / "out", SPEC)
    assert content_of(tmp_path / "out") == before


def test_videos_may_be_moved(videos, tmp_path, decode_here):
    first = preprocess(videos, tmp_path / "out", SPEC)
    videos.rename(tmp_path / "moved")
    decode_here.clear()
    assert preprocess(tmp_path / "moved", tmp_path / "out", SPEC).samples == first.samples
    assert decode_here == []


def test_what_is_known_keeps_its_split(videos, tmp_path, decode_here, write_counting_video, caplog):
    first = splits_of(preprocess(videos, tmp_path / "out", SPEC))
    held_out = next(path for path, split in first.items() if split == "val")
    tested = next(path for path, split in first.items() if split == "test")
    (videos / held_out).rename((videos / held_out).with_name("renamed.avi"))
    shutil.copy(videos / tested, (videos / tested).with_name("00 a copy that comes first.avi"))
    write_counting_video("videos/run/new.avi", 30)
    second = splits_of(preprocess(videos, tmp_path / "out", SPEC))
    assert second.pop("run/new.avi") == "train"
    assert "1 new groups were added to train; too few to divide among the splits" in caplog.text
    assert second.pop(f"{Path(held_out).parent}/renamed.avi") == first.pop(held_out) == "val"
    assert second.pop(f"{Path(tested).parent}/00 a copy that comes first.avi") == "test"
    assert second == first


def test_many_new_groups_are_divided(videos, tmp_path, decode_here, write_counting_video):
    first = splits_of(preprocess(videos, tmp_path / "out", SPEC))
    for length in range(20, 32):
        write_counting_video(f"videos/{'run' if length % 2 else 'wave'}/{length}.avi", length)
    second = splits_of(preprocess(videos, tmp_path / "out", SPEC))
    new = {split for path, split in second.items() if path not in first}
    assert new == {"train", "val", "test"}
    assert {path: second[path] for path in first} == first


def test_another_seed_gives_other_splits(videos, tmp_path, decode_here):
    splits = [splits_of(preprocess(videos, tmp_path / "out", SPEC, seed=seed)) for seed in (0, 1, 0)]
    assert splits[0] == splits[2] != splits[1]
    assert len(decode_here) == 12


def test_a_folder_of_another_spec_is_refused(videos, tmp_path, decode_here):
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    message = "was made with 4 evenly spaced frames, 16x16 px .*; received 8 evenly spaced frames, 16x16 px .*; choose"
    with pytest.raises(DatasetError, match=message):
        preprocess(videos, tmp_path / "out", ClipSpec(num_frames=8, height=16, width=16))
    assert content_of(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["thesis.txt", ".hidden", "frames/a.npy"])
def test_a_folder_of_something_else_is_refused(videos, tmp_path, name):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).touch()
    with pytest.raises(DatasetError, match="out: exists and is not a data set folder; choose another --out"):
        preprocess(videos, tmp_path / "out", SPEC)
    with pytest.raises(DatasetError, match="exists and is not a data set folder"):
        preprocess(videos, tmp_path / "out" / name, SPEC)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [tmp_path / "out" / name]


@pytest.mark.parametrize(
    "left", [(), ("frames/",), (".dataset.json.123.tmp",), ("frames/", ".tmp-123-dataset.json"), (LOCK_NAME,)]
)
def test_an_empty_folder_is_taken(videos, tmp_path, decode_here, left):
    (tmp_path / "out").mkdir()
    for name in left:
        (tmp_path / "out" / name).mkdir() if name.endswith("/") else (tmp_path / "out" / name).touch()
    assert len(preprocess(videos, tmp_path / "out", SPEC).samples) == 12


@pytest.mark.parametrize("name", ["manifest.csv", "problems.csv", "decoded.csv", "frames", "motion_crop"])
def test_what_is_lost_is_made_again(videos, tmp_path, decode_here, name):
    (videos / "run" / "broken.mp4").write_bytes(b"")
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    lost = tmp_path / "out" / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    preprocess(videos, tmp_path / "out", SPEC)
    assert content_of(tmp_path / "out") == before


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "rubbish", "shape", "bit"])
@pytest.mark.parametrize("stream", ["rgb", "motion"])
def test_a_damaged_stack_is_made_again(videos, tmp_path, decode_here, damage, stream, caplog):
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    path = stack_path(tmp_path / "out", dataset.samples[0].sample_id, stream)
    whole = path.read_bytes()
    contents = {"cut": whole[:-1], "longer": whole + b"0", "empty": b"", "rubbish": bytes(len(whole))}
    contents["bit"] = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(contents.get(damage, whole))
    if damage == "shape":
        np.save(path, np.zeros((4, 8, 32, 3), np.uint8))
    decode_here.clear()
    preprocess(videos, tmp_path / "out", SPEC)
    assert decode_here == ["03.avi"]
    assert f"{path}: " in caplog.text and "; it is made again" in caplog.text
    assert content_of(tmp_path / "out") == before


def test_another_opencv_tries_again_what_failed(videos, tmp_path, decode_here):
    (videos / "run/broken.mp4").write_bytes(b"")
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    about = json.loads(before["dataset.json"])
    about["versions"]["opencv"] = "4.0.0"
    (tmp_path / "out/dataset.json").write_text(json.dumps(about))
    decode_here.clear()
    for _ in range(2):
        preprocess(videos, tmp_path / "out", SPEC)
        assert decode_here == ["broken.mp4"]
        assert content_of(tmp_path / "out") == before


@pytest.mark.parametrize("num_bytes", range(1, 60, 4))
def test_a_note_that_was_cut_costs_one_decoding(videos, tmp_path, decode_here, num_bytes):
    (videos / "run" / "бег.mp4").write_bytes("рисунок, ".encode() * 9 + b"\xff\0")  # its reason is quoted
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    notes = tmp_path / "out" / "decoded.csv"
    lines = sorted(notes.read_bytes().splitlines(keepends=True), key=lambda line: b'"' in line)
    notes.write_bytes(b"".join(lines)[:-num_bytes])
    decode_here.clear()
    preprocess(videos, tmp_path / "out", SPEC)
    assert decode_here == ["бег.mp4"]
    assert content_of(tmp_path / "out") == before


@pytest.mark.parametrize(
    "spoil", [lambda line: line.replace(b",3", b",9", 1), lambda line: line[:-3] + b"x" + line[-2:]]
)
def test_a_note_that_is_damaged_is_no_note(videos, tmp_path, decode_here, spoil):
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    notes = tmp_path / "out" / "decoded.csv"
    for at in range(0, 120, 7):
        lines = notes.read_bytes().splitlines(keepends=True)
        flipped = bytearray(b"".join(lines))
        flipped[at] ^= 4
        notes.write_bytes(flipped)
        preprocess(videos, tmp_path / "out", SPEC)
        assert content_of(tmp_path / "out") == before, at
    notes.write_bytes(spoil(lines[0]) + b"".join(lines[1:]))
    decode_here.clear()
    preprocess(videos, tmp_path / "out", SPEC)
    assert decode_here == ["03.avi"] and content_of(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [("manifest.csv", b"\xe5"), ("manifest.csv", b"\0"), ("manifest.csv", b'"'), ("problems.csv", b"\xe5")],
)
def test_a_table_that_cannot_be_read_is_an_error_of_ours(videos, tmp_path, decode_here, name, damage):
    (videos / "run" / "broken.mp4").write_bytes(b"")
    preprocess(videos, tmp_path / "out", SPEC)
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes().replace(b"num_frames", damage).replace(b"path", damage))
    with pytest.raises(DatasetError, match=rf"{name}: damaged .*; delete it and run the same preprocess command again"):
        load_dataset(tmp_path / "out")


def test_notes_of_an_earlier_version_hold(videos, tmp_path, decode_here):
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    notes = tmp_path / "out" / "decoded.csv"
    notes.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in notes.read_text().splitlines()))
    decode_here.clear()
    preprocess(videos, tmp_path / "out", SPEC)
    assert decode_here == [] and content_of(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["manifest.csv", "problems.csv", "dataset.json"])
def test_a_table_that_was_changed_is_used_but_not_unsaid(videos, tmp_path, decode_here, name, caplog):
    (videos / "run" / "broken.mp4").write_bytes(b"")
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    assert load_dataset(tmp_path / "out") == dataset and "changed by hand" not in caplog.text
    path = tmp_path / "out" / name
    path.write_bytes(
        path.read_bytes().replace(b"broken", b"BROKEN").replace(b"run/03", b"run/33").replace(b"val", b"fal")
    )
    if name != "manifest.csv":
        load_dataset(tmp_path / "out")
    else:
        with pytest.raises(DatasetError, match="manifest.csv: damaged .*split fal"):
            load_dataset(tmp_path / "out")
    assert f"{path}: damaged, or changed by hand since preprocess wrote it" in caplog.text


def test_a_damaged_manifest_is_not_ignored(videos, tmp_path, decode_here):
    preprocess(videos, tmp_path / "out", SPEC)
    before = content_of(tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.csv"
    manifest.write_text("path,label\nrun/03.avi,run\n")
    with pytest.raises(DatasetError, match="manifest.csv: damaged .*; delete it and run the same preprocess command"):
        preprocess(videos, tmp_path / "out", SPEC)
    manifest.unlink()
    preprocess(videos, tmp_path / "out", SPEC)
    assert content_of(tmp_path / "out") == before


# === Captions ===


@pytest.fixture
def captions(videos):
    """A manifest of captions, two for each of the twelve videos but the last, which has one."""
    paths = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.avi"))
    rows = [(path, f"{'one' if take else '=two'}, {path}") for take in range(2) for path in paths][:-1]
    write_manifest(videos, [("path", "caption"), *rows])
    return videos


def test_a_data_set_of_captions(captions, tmp_path, decode_here, caplog):
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    assert dataset == load_dataset(tmp_path / "out") and dataset.labels == [] and len(dataset.samples) == 12
    for sample in dataset.samples[:-1]:
        assert sample.captions == (f"=two, {sample.path}", f"one, {sample.path}") and sample.label == ""
    assert len(dataset.samples[-1].captions) == 1
    assert {sample.split for sample in dataset.samples} == {"train", "val", "test"}
    assert dataset.problems == [] and "no videos of" not in caplog.text
    header, first, *_ = (tmp_path / "out" / "captions.csv").read_text().splitlines()
    assert header == "sample_id,caption" and first == f'{dataset.samples[0].sample_id},"\'=two, run/03.avi"'
    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    of = {
        split: sum(len(s.captions) for s in dataset.samples if s.split == split) for split in ("train", "val", "test")
    }
    assert about["captions"] == of and about["labels"] == [] and about["counts"] == {}
    assert "23 captions of 12 samples" in dataset.as_text()


def test_other_captions_decode_nothing_again(captions, tmp_path, decode_here):
    first = preprocess(captions, tmp_path / "out", SPEC)
    decode_here.clear()
    write_manifest(captions, [("path", "caption"), *((s.path, f"three of {s.path}") for s in first.samples)])
    second = preprocess(captions, tmp_path / "out", SPEC)
    assert decode_here == [] and splits_of(second) == splits_of(first)
    assert [sample.captions for sample in second.samples] == [(f"three of {s.path}",) for s in first.samples]


def test_captions_that_are_gone_leave_no_table(captions, tmp_path, decode_here, caplog):
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    write_manifest(captions, [("path", "label"), *((s.path, s.path.partition("/")[0]) for s in dataset.samples)])
    assert preprocess(captions, tmp_path / "out", SPEC).labels == ["run", "wave"]
    assert not (tmp_path / "out" / "captions.csv").exists()
    assert "captions" not in json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert "captions" not in (tmp_path / "out" / "digests.txt").read_text()
    assert "captions.csv" not in caplog.text


@pytest.mark.parametrize("change", ["delete", "edit"])
def test_captions_that_were_lost_or_edited_are_written_again(captions, tmp_path, decode_here, change, caplog):
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    before, path = content_of(tmp_path / "out"), tmp_path / "out" / "captions.csv"
    if change == "delete":
        path.unlink()
        assert not load_dataset(tmp_path / "out").samples[0].captions
        assert f"{path}: gone, though preprocess wrote it; run the same preprocess command again" in caplog.text
    else:
        path.write_text(path.read_text().replace("one, run/03", "mine, run/03"))
        assert load_dataset(tmp_path / "out").samples[0].captions[1] == "mine, run/03.avi"
        assert f"{path}: damaged, or changed by hand since preprocess wrote it; it is used as it is" in caplog.text
    assert preprocess(captions, tmp_path / "out", SPEC) == dataset
    kept = tmp_path / "out" / "captions.changed-1.csv"
    assert kept.exists() == (change == "edit")
    kept.unlink(missing_ok=True)
    assert content_of(tmp_path / "out") == before


def test_a_file_of_the_user_by_that_name_is_neither_read_nor_lost(captions, tmp_path, decode_here, caplog):
    paths = [path.relative_to(captions).as_posix() for path in sorted(captions.rglob("*.avi"))]
    with_captions = (captions / "manifest.csv").read_text()
    write_manifest(captions, [("path", "label"), *((path, path.partition("/")[0]) for path in paths)])
    preprocess(captions, tmp_path / "out", SPEC)
    path = tmp_path / "out" / "captions.csv"
    path.write_text("of the user\n")
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    assert not any(sample.captions for sample in dataset.samples) and path.read_text() == "of the user\n"
    assert f"{path}: not a table of captions, with the columns sample_id,caption; not read" in caplog.text
    (captions / "manifest.csv").write_text(with_captions)
    assert all(sample.captions for sample in preprocess(captions, tmp_path / "out", SPEC).samples)
    assert (tmp_path / "out" / "captions.changed-1.csv").read_text() == "of the user\n"


def test_an_empty_caption_is_a_problem(captions, tmp_path, decode_here):
    with (captions / "manifest.csv").open("a") as file:
        file.write("run/03.avi,\n")
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    assert reasons_of(dataset) == {"run/03.avi": "named in manifest.csv line 25, but its caption has no words"}
    assert len(dataset.samples[0].captions) == 2


def test_no_captioned_video_can_be_read(captions, tmp_path, decode_here):
    for name in ("a", "b"):
        (captions / f"{name}.avi").write_bytes(b"")
    write_manifest(captions, [("path", "caption"), ("a.avi", "a"), ("b.avi", "b")])
    with pytest.raises(DatasetError, match="none of 2 videos can be read; first problem: a.avi: the file is empty"):
        preprocess(captions, tmp_path / "out", SPEC)
    write_manifest(captions, [("path", "caption", "label"), ("a.avi", "a", ""), ("run/03.avi", "", "run")])
    with pytest.raises(DatasetError, match="no readable video with a caption; first problem: a.avi: the file is empty"):
        preprocess(captions, tmp_path / "out", SPEC)


def test_a_split_without_captions_is_named(captions, tmp_path, decode_here, caplog):
    rows = [("run/03.avi", "a", "train"), ("run/05.avi", "b", "train"), ("run/07.avi", "c", "val")]
    write_manifest(captions, [("path", "caption", "split"), *rows])
    preprocess(captions, tmp_path / "out", SPEC)
    assert "no test videos with captions" in caplog.text and "no val videos" not in caplog.text


def test_segments_and_copies_with_captions_keep_to_one_split(captions, tmp_path, decode_here):
    shutil.copy(captions / "run/13.avi", captions / "copy.avi")
    rows = [(f"{label}/{n:02d}.avi", f"{n}", "", "") for n in range(3, 13) for label in [("wave", "run")[n % 2]]]
    rows += [("run/13.avi", f"{i}", i / 10, (i + 1) / 10) for i in range(10)] + [("copy.avi", "copy", "", "")]
    write_manifest(captions, [("path", "caption", "start_seconds", "end_seconds"), *rows])
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    assert len({sample.split for sample in dataset.samples if sample.path in ("run/13.avi", "copy.avi")}) == 1
    assert len({sample.split for sample in dataset.samples}) == 3


def test_images_with_captions_go_the_way_of_videos(captions, tmp_path, decode_here, caplog):
    rng, rows = np.random.default_rng(0), [("run/03.avi", "a video")]
    (captions / "images").mkdir()
    for number in range(6):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        assert cv2.imwrite(str(captions / f"images/{number}.png"), image[..., ::-1])
        rows += [(f"images/{number}.png", text) for text in (f"image {number}", "noise")]
    (captions / "images/cut.png").write_bytes((captions / "images/5.png").read_bytes()[:300])
    write_manifest(captions, [("path", "caption"), *rows, ("images/cut.png", "cut")])
    dataset = preprocess(captions, tmp_path / "out", SPEC)
    *images, video = dataset.samples
    assert [sample.captions for sample in images] == [(f"image {number}", "noise") for number in range(6)]
    rng = np.random.default_rng(0)
    for sample in images:
        assert (sample.num_frames, sample.duration_seconds) == (1, 0.0)
        assert (dataset.frames(sample, "rgb") == rng.integers(0, 256, (1, 16, 16, 3), np.uint8)).all()
        for stream in ("motion", "motion_crop"):
            assert (dataset.frames(sample, stream) == 128).all() and dataset.num_frames(sample, stream) == 1
    assert (video.path, video.num_frames) == ("run/03.avi", 3)
    assert set(reasons_of(dataset)) == {"images/cut.png"}
    assert reasons_of(dataset)["images/cut.png"].startswith("the image cut.png cannot be read (")
    assert "images/" not in caplog.text
    decode_here.clear()
    preprocess(captions, tmp_path / "out", SPEC)
    assert decode_here == []


# === A folder of an earlier version ===

OLD = Path(__file__).parent / "data"  # dataset_v2 and its videos: format 2, when the stream motion_crop was "closeup"


@pytest.fixture
def old(tmp_path):
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_an_old_data_set_is_read(old):
    dataset = load_dataset(old / "dataset_v2")
    assert dataset.spec == ClipSpec(num_frames=2, height=16, width=16) and dataset.labels == ["left", "right"]
    for sample in dataset.samples:
        for stream, folder in (("rgb", "frames"), ("motion", "motion"), ("motion_crop", "closeup")):
            kept = np.load(old / "dataset_v2" / folder / f"{sample.sample_id}.npy")
            np.testing.assert_array_equal(dataset.frames(sample, stream), kept)


def test_an_old_data_set_is_extended_in_place(old, decode_here, write_counting_video):
    before = load_dataset(old / "dataset_v2")
    same = preprocess(old / "videos", old / "dataset_v2", before.spec)
    assert decode_here == [] and same.samples == before.samples
    write_counting_video("videos/right/new.avi", 5)
    longer = preprocess(old / "videos", old / "dataset_v2", before.spec)
    assert decode_here == ["new.avi"] and len(longer.samples) == 5
    assert len(list((old / "dataset_v2" / "closeup").glob("*.npy"))) == 5
    assert not (old / "dataset_v2" / "motion_crop").exists()
    assert longer.frames(longer.samples[-1], "motion_crop").shape == (2, 16, 16, 3)


# === When things go wrong on the way ===


def run_script(tmp_path, videos, line):
    """Run `preprocess` in a program of its own, with one line of sabotage; `num_done` counts finished videos."""
    script = tmp_path / "script.py"
    script.write_text(f"""\
import os, resource, signal, sys
from pathlib import Path
from activity.config import ClipSpec
from activity.datasets import preprocessing

num_done = 0
outcome = preprocessing._outcome

def count(*arguments):
    global num_done
    num_done += 1
    {line}
    return outcome(*arguments)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
    count.__globals__["preprocessing"]._outcome = count
    {line}
    preprocessing.preprocess(Path(sys.argv[1]), Path(sys.argv[2]), ClipSpec(**{as_dict(SPEC)!r}), num_workers=2)
""")
    return subprocess.run(
        [sys.executable, str(script), str(videos), str(tmp_path / "out")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("num_done == 5 and os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("num_done == 5 and os.killpg(0, signal.SIGINT)", -signal.SIGINT),  # Ctrl-C reaches the workers too
    ],
)
def test_a_run_that_was_killed_continues_where_it_was(videos, tmp_path, decode_here, line, status):
    (videos / "run" / "broken.mp4").write_bytes(b"")
    run = run_script(tmp_path, videos, line)
    assert run.returncode == status, run.stderr
    with pytest.raises(DatasetError, match="unfinished; run the same preprocess command again to complete it"):
        load_dataset(tmp_path / "out")
    assert len(notes_of(tmp_path / "out")) == 4

    dataset = preprocess(videos, tmp_path / "out", SPEC)
    assert len(decode_here) == 13 - 4 and len(dataset.samples) == 12
    preprocess(videos, tmp_path / "clean", SPEC)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "clean")


def test_a_second_preprocess_on_the_same_folder_ends_at_once(videos, tmp_path, monkeypatch):
    second = []

    def meanwhile(*arguments):
        line = ["-m", "activity", "preprocess", str(videos), "--out", str(tmp_path / "out")]
        second.append(subprocess.run([sys.executable, *line], env=ENVIRONMENT, capture_output=True, text=True))
        yield from decode_all(*arguments)

    decode_all = preprocessing._decode_all
    monkeypatch.setattr(preprocessing, "_decode_all", meanwhile)
    dataset = preprocess(videos, tmp_path / "out", SPEC, num_workers=2)
    (run,) = second
    assert run.returncode == 1 and run.stderr == (
        f"activity: {tmp_path / 'out'}: in use by another command (preprocess, process {os.getpid()}); "
        "wait until it ends\n"
    )
    assert len(dataset.samples) == 12 and not (tmp_path / "out" / LOCK_NAME).exists()


def test_stacks_are_dropped_only_after_the_tables_are_written(videos, tmp_path, decode_here, monkeypatch):
    first = preprocess(videos, tmp_path / "out", SPEC)
    (videos / "run/03.avi").unlink()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preprocessing, "write_csv", fail)
    with pytest.raises(OSError, match="No space left"):
        preprocess(videos, tmp_path / "out", SPEC)
    assert load_dataset(tmp_path / "out").samples == first.samples and len(first.samples) == 12
    assert all(len(first.frames(sample)) for sample in first.samples)


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_is_no_fault_of_a_video(videos, tmp_path, decode_here):
    run = run_script(tmp_path, videos, "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))")
    assert run.returncode == 1 and re.search(r"^OSError: .*File too large", run.stderr, re.MULTILINE)
    assert notes_of(tmp_path / "out") == {} and not list((tmp_path / "out").rglob(".*"))
    dataset = preprocess(videos, tmp_path / "out", SPEC)
    assert len(dataset.samples) == 12 and dataset.problems == []


def test_a_stuck_a_crashing_and_a_huge_video_are_given_up_and_tried_again(videos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "_decode_one", misbehave)
        dataset = preprocess(videos, tmp_path / "out", SPEC, num_workers=2, seconds_per_video=3)
    assert reasons_of(dataset) == {
        "run/03.avi": "decoding took longer than 3 s and was stopped; allow more with --time-limit",
        "wave/04.avi": "decoding crashed the worker process (exit code 3)",
        "run/05.avi": "there was not enough memory to decode it (Unable to allocate 9 GiB)",
        "wave/06.avi": "decoding failed, which is a fault of this program: ValueError('no such thing')",
    }
    assert len(dataset.samples) == 8
    again = preprocess(videos, tmp_path / "out", SPEC, num_workers=1)
    assert len(again.samples) == 12 and again.problems == []
    undisturbed = preprocess(videos, tmp_path / "clean", SPEC, num_workers=1)
    assert splits_of(again) == splits_of(undisturbed)  # those of the eight, and of the four that came later
    assert content_of(tmp_path / "out") == content_of(tmp_path / "clean")


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (
            decode_with_another_version,
            "machine .* has activity .*; expected activity 0.0.1, opencv 1.2; install",
        ),
        (
            decode_without_the_videos,
            "elsewhere: the machine .* does not see this folder; all machines of a cluster",
        ),
    ],
)
def test_a_machine_that_would_decode_otherwise_ends_the_run(videos, tmp_path, monkeypatch, decode, message):
    """Its videos would be listed as if they could not be read."""
    monkeypatch.setattr(preprocessing, "_decode_one", decode)
    with pytest.raises(ActivityError, match=message):
        preprocess(videos, tmp_path / "out", SPEC, num_workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_video_whose_process_was_killed_is_tried_again(videos, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "_decode_one", be_killed_once)
        dataset = preprocess(videos, tmp_path / "out", SPEC, num_workers=2)
    assert len(dataset.samples) == 12 and dataset.problems == []
    assert "videos are tried again: decoding crashed the worker process (exit code -9)" in caplog.text
    preprocess(videos, tmp_path / "clean", SPEC, num_workers=2)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "clean")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_worker_that_is_killed_before_its_first_video_is_replaced(videos, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ACTIVITY_TEST_MARK", str(tmp_path / "mark"))
    monkeypatch.setattr(preprocessing, "_prepare_worker", be_killed_at_the_start)
    dataset = preprocess(videos, tmp_path / "out", SPEC, num_workers=1)
    assert (tmp_path / "mark").exists() and len(dataset.samples) == 12 and dataset.problems == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_worker_that_is_killed_while_it_takes_a_video_holds_up_nobody(videos, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ACTIVITY_TEST_MARK", str(tmp_path / "mark"))
    monkeypatch.setattr(preprocessing, "_decode_one", decode_after_a_death)
    started = time.monotonic()
    dataset = preprocess(videos, tmp_path / "out", DeadlySpec(**as_dict(SPEC)), num_workers=2)
    assert "1 videos are tried again: decoding crashed the worker process (exit code -9)" in caplog.text
    assert len(dataset.samples) == 12 and dataset.problems == []
    assert time.monotonic() - started < 40, "a lock that the dead process held made the others wait"


@pytest.mark.real
def test_what_workers_log_is_seen(real_data, videos, tmp_path, caplog):
    shutil.copy(real_data / "videos" / "torture" / "syn_trunc_half.flv", videos / "run")
    spec = ClipSpec(num_frames=2, height=16, width=16, streams=("rgb",))
    with caplog.at_level("INFO"):
        preprocess(videos, tmp_path / "out", spec, num_workers=1)
    assert "syn_trunc_half.flv: frame 33 is not where the container says" in caplog.text


@pytest.mark.real
def test_odd_and_broken_files(real_data, tmp_path):
    torture = real_data / "videos" / "torture"
    with (torture / "expected.csv").open() as file:
        expected = {row["path"]: row["opencv_4_14"].partition("|")[0] for row in csv.DictReader(file)}
    for i, name in enumerate(sorted(expected)):
        link = tmp_path / "videos" / ("even", "odd")[i % 2] / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(torture / name)
    dataset = preprocess(tmp_path / "videos", tmp_path / "out", SPEC, num_workers=2)

    num_frames = {Path(sample.path).name: sample.num_frames for sample in dataset.samples}
    reasons = {Path(path).name: reason for path, reason in reasons_of(dataset).items()}
    for name, text in expected.items():
        count = int(text) if text.isdigit() else 0
        if name == "syn_av1.mp4" and name not in num_frames:  # not every OpenCV decodes AV1
            assert "codec av01" in reasons[name]
        elif count:
            assert num_frames[name] == count, name
        else:
            assert name not in num_frames and reasons[name]
    for name in ("syn_bitrot.avi", "syn_trunc_half.avi", "dc_corrupted.mp4"):
        assert reasons[name].startswith(f"ends after {num_frames[name]} frames")
    assert "Traceback" not in " ".join(reasons.values())
    twins = {s.group for s in dataset.samples if Path(s.path).name in ("syn_UPPER.AVI", "syn_no_extension")}
    assert len(twins) == 1


def test_files_of_the_user_in_the_folder_are_kept(ramp_videos, tmp_path, caplog):
    dataset_dir = tmp_path / "dataset"
    spec = ClipSpec(num_frames=2, height=16, width=16, streams=("rgb",))
    preprocess(ramp_videos, dataset_dir, spec, num_workers=1)
    (dataset_dir / "frames" / "mine.npy").write_text("of the user")
    (dataset_dir / ".tmp-mine").write_text("of the user")
    (dataset_dir / ".tmp-folder").mkdir()
    manifest = dataset_dir / "manifest.csv"
    changed = manifest.read_text().replace("darkens", "dims")
    manifest.write_text(changed)
    before = manifest.stat().st_mtime_ns
    preprocess(ramp_videos, dataset_dir, spec, num_workers=1)
    assert manifest.stat().st_mtime_ns != before and "dims" not in manifest.read_text()
    assert (dataset_dir / "manifest.changed-1.csv").read_text() == changed
    assert "manifest.csv: written anew; as it was, it is now manifest.changed-1.csv" in caplog.text
    assert (dataset_dir / "frames" / "mine.npy").read_text() == "of the user"
    assert (dataset_dir / ".tmp-mine").is_file() and (dataset_dir / ".tmp-folder").is_dir()
