"""The recipes under data/: the manifest script does what its pages say, and the pages show commands that exist."""

import csv
import glob
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from activity.cli.main import main
from activity.datasets.dataset import load_dataset
from activity.video.writer import write_video

DATA = Path(__file__).parents[1] / "data"
SCRIPT = DATA / "make_manifest.py"
RECIPES = sorted(DATA.glob("*.md"))

KTH_ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
WEIZMANN_ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
WEIZMANN_PERSONS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")


def make_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def make_manifest(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def read_rows(videos):
    with (videos / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def kth_names():
    """Every file of the published archives; person13_handclapping_d3 was never recorded."""
    names = [
        f"{action}/person{person:02d}_{action}_d{setting}_uncomp.avi"
        for action in KTH_ACTIONS
        for person in range(1, 26)
        for setting in range(1, 5)
    ]
    names.remove("handclapping/person13_handclapping_d3_uncomp.avi")
    return names


def weizmann_names():
    """Every file of the published archives; lena walks, runs and skips twice."""
    names = [f"{action}/{person}_{action}.avi" for action in WEIZMANN_ACTIONS for person in WEIZMANN_PERSONS]
    for action in ("walk", "run", "skip"):
        names.remove(f"{action}/lena_{action}.avi")
        names += [f"{action}/lena_{action}{take}.avi" for take in (1, 2)]
    return names


def commands(recipe):
    """The indented lines of a page: commands, and what they print or make."""
    return [line.strip() for line in recipe.read_text("utf-8").splitlines() if line.startswith("    ")]


# make_manifest.py, KTH


def test_kth_whole_set(tmp_path):
    videos = make_files(tmp_path / "kth", kth_names())
    done = make_manifest("kth", videos)
    assert (done.returncode, done.stderr) == (0, "")
    expected = "599 videos, 6 labels, 25 groups, 191 train, 192 val, 216 test"
    assert expected in done.stdout and expected in (DATA / "kth.md").read_text("utf-8")

    rows = read_rows(videos)
    assert list(rows[0]) == ["path", "label", "group", "split"]
    assert [row["path"] for row in rows] == sorted(kth_names())
    assert rows[0] == {
        "path": "boxing/person01_boxing_d1_uncomp.avi",
        "label": "boxing",
        "group": "person01",
        "split": "val",
    }
    assert all(row["label"] == row["path"].split("/")[0] for row in rows)


def test_kth_persons_are_the_official_ones(tmp_path):
    videos = make_files(tmp_path, kth_names())
    make_manifest("kth", videos)
    persons = {}
    for row in read_rows(videos):
        persons.setdefault(row["split"], set()).add(int(row["group"].removeprefix("person")))
    assert persons == {
        "train": {11, 12, 13, 14, 15, 16, 17, 18},
        "val": {19, 20, 21, 23, 24, 25, 1, 4},
        "test": {22, 2, 3, 5, 6, 7, 8, 9, 10},
    }


def test_kth_page_lists_the_same_persons():
    table = re.findall(r"^\| (train|val|test) \| ([\d, ]+) \|$", (DATA / "kth.md").read_text("utf-8"), re.MULTILINE)
    assert {split: {int(person) for person in persons.split(",")} for split, persons in table} == {
        "train": {11, 12, 13, 14, 15, 16, 17, 18},
        "val": {19, 20, 21, 23, 24, 25, 1, 4},
        "test": {22, 2, 3, 5, 6, 7, 8, 9, 10},
    }


@pytest.mark.parametrize("name", ["person26_boxing_d1_uncomp.avi", "person01_boxing_d5_uncomp.avi", "boxing.avi"])
def test_kth_name_that_does_not_fit(tmp_path, name):
    videos = make_files(tmp_path, ["person01_boxing_d1_uncomp.avi", name])
    done = make_manifest("kth", videos)
    assert done.returncode == 1 and done.stdout == ""
    assert f"{videos / name}: expected personNN_ACTION_dD_uncomp.avi" in done.stderr
    assert "names that do not fit: 1; no manifest written" in done.stderr
    assert not (videos / "manifest.csv").exists()


# make_manifest.py, Weizmann


def test_weizmann_whole_set(tmp_path):
    videos = make_files(tmp_path / "weizmann", weizmann_names())
    done = make_manifest("weizmann", videos)
    assert (done.returncode, done.stderr) == (0, "")
    assert "93 videos, 10 labels, 9 groups" in done.stdout

    rows = read_rows(videos)
    assert list(rows[0]) == ["path", "label", "group"]
    assert {row["label"] for row in rows} == set(WEIZMANN_ACTIONS)
    assert {row["group"] for row in rows} == set(WEIZMANN_PERSONS)
    by_path = {row["path"]: (row["label"], row["group"]) for row in rows}
    assert by_path["walk/lena_walk1.avi"] == by_path["walk/lena_walk2.avi"] == ("walk", "lena")
    assert by_path["wave1/ido_wave1.avi"] == ("wave1", "ido")
    assert by_path["wave2/ido_wave2.avi"] == ("wave2", "ido")


def test_weizmann_page_leaves_90_clips(tmp_path):
    page = (DATA / "weizmann.md").read_text("utf-8")
    removed = next(line.split()[1:] for line in page.splitlines() if line.startswith("    rm "))
    make_files(tmp_path / "weizmann", weizmann_names())
    for path in removed:
        (tmp_path / path).unlink()
    done = make_manifest("weizmann", tmp_path / "weizmann")
    expected = "90 videos, 10 labels, 9 groups"
    assert expected in done.stdout and expected in page
    pairs = [(row["label"], row["group"]) for row in read_rows(tmp_path / "weizmann")]
    assert len(set(pairs)) == len(pairs) == 90


def test_weizmann_first_take_without_a_number(tmp_path):
    videos = make_files(tmp_path, ["lena_walk.avi"])
    assert make_manifest("weizmann", videos).returncode == 0
    assert read_rows(videos) == [{"path": "lena_walk.avi", "label": "walk", "group": "lena"}]


def test_weizmann_every_name_that_does_not_fit_is_named(tmp_path):
    videos = make_files(tmp_path, ["bend/daria_bend.avi", "backgrounds/bg_038.avi", "bend/anna_bend.avi"])
    done = make_manifest("weizmann", videos)
    assert done.returncode == 1
    assert done.stderr.count("expected PERSON_ACTION.avi") == 2
    assert "bg_038.avi" in done.stderr and "anna_bend.avi" in done.stderr and "bend/daria_bend" not in done.stderr
    assert not (videos / "manifest.csv").exists()


# make_manifest.py, both


def test_hidden_files_and_archives_are_passed_over(tmp_path):
    names = ["daria_bend.avi", "._daria_bend.avi", ".cache/x.avi", "bend.zip", "notes.txt", "classification_masks.mat"]
    videos = make_files(tmp_path, names)
    assert make_manifest("weizmann", videos).returncode == 0
    assert [row["path"] for row in read_rows(videos)] == ["daria_bend.avi"]


def test_a_manifest_is_never_replaced_without_force(tmp_path):
    videos = make_files(tmp_path, ["daria_bend.avi"])
    (videos / "manifest.csv").write_text("mine\n", encoding="utf-8")
    done = make_manifest("weizmann", videos)
    assert done.returncode == 1 and "--force replaces it" in done.stderr
    assert (videos / "manifest.csv").read_text("utf-8") == "mine\n"

    assert make_manifest("weizmann", videos, "--force").returncode == 0
    assert len(read_rows(videos)) == 1
    assert sorted(path.name for path in videos.iterdir()) == ["daria_bend.avi", "manifest.csv"]


def test_force_keeps_the_old_manifest_when_a_name_does_not_fit(tmp_path):
    videos = make_files(tmp_path, ["daria_bend.avi", "odd.avi"])
    (videos / "manifest.csv").write_text("mine\n", encoding="utf-8")
    assert make_manifest("weizmann", videos, "--force").returncode == 1
    assert (videos / "manifest.csv").read_text("utf-8") == "mine\n"


def test_no_videos(tmp_path):
    done = make_manifest("kth", tmp_path)
    assert done.returncode == 1 and "no videos found" in done.stderr
    done = make_manifest("kth", tmp_path / "nowhere")
    assert done.returncode == 1 and "expected a folder of videos" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unknown_data_set_is_a_usage_error(tmp_path):
    done = make_manifest("ucf101", tmp_path)
    assert done.returncode == 2 and "kth" in done.stderr and "weizmann" in done.stderr


# the pages


def test_readme_links_every_page_and_every_link_exists():
    links = set(re.findall(r"\]\(([^)]+\.md)\)", (DATA / "README.md").read_text("utf-8")))
    assert links == {path.name for path in RECIPES} - {"README.md"}


def test_only_recipes_live_here():
    kept = [path for path in DATA.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in kept} <= {".csv", ".md", ".py"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_script_commands_on_the_page_run(recipe, tmp_path):
    shown = [shlex.split(line) for line in commands(recipe) if line.startswith("python ")]
    expected = {"README": [*IMITATIONS], "hmdb51": [], "ucf101": []}.get(recipe.stem, [recipe.stem])
    assert [data_set for _, _, data_set, _ in shown] == expected
    for _, script, data_set, _videos in shown:
        assert DATA.parent / script == SCRIPT
        make_files(tmp_path, IMITATIONS[data_set](tmp_path))
        assert make_manifest(data_set, tmp_path / data_set).returncode == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_activity_commands_on_the_page_name_what_the_page_made(recipe):
    """Each line parses as a shell line, and a data set or model that is read was written by a line above it."""
    made = set()
    for line in commands(recipe):
        if not line.startswith("activity "):
            continue
        words = shlex.split(line)
        command, operands = words[1], []
        for word in words[2:]:
            if word.startswith("--"):
                break
            operands.append(word)
        assert command in ("preprocess", "train", "evaluate", "cross-validate")
        if command != "preprocess":
            assert set(operands) <= made, line
        if "--out" in words:
            made.add(words[words.index("--out") + 1])
    assert made


@pytest.mark.parametrize("name", ["kth", "weizmann"])
def test_rows_shown_on_the_page_are_the_rows_written(name, tmp_path):
    videos = make_files(tmp_path, kth_names() if name == "kth" else weizmann_names())
    make_manifest(name, videos)
    first_rows = (videos / "manifest.csv").read_text("utf-8").splitlines()[:3]
    assert "\n".join(f"    {row}" for row in first_rows) in (DATA / f"{name}.md").read_text("utf-8")


def test_manifest_shown_in_the_readme_is_a_table():
    lines = commands(DATA / "README.md")
    start = lines.index("path,label,group,split,camera")
    rows = list(csv.DictReader(lines[start : start + 4]))
    assert [row["split"] for row in rows] == ["train", "test", "test"]
    assert all(None not in row and None not in row.values() for row in rows)
    splits = {}
    for row in rows:
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(of_group) == 1 for of_group in splits.values())  # the example must not leak itself


# === From an imitation of each set to a data set, by the command on its page ===


def imitate_ucf101(folder):
    names = {split: [] for split in ("train", "test")}
    for label in ("Archery", "Bowling"):
        for group, split in ((1, "test"), (8, "train"), (9, "train"), (10, "train")):
            names[split] += [f"{label}/v_{label}_g{group:02d}_c{take:02d}.avi" for take in (1, 2)]
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    ids = {"Archery": 1, "Bowling": 2}
    train = [f"{name} {ids[name.partition('/')[0]]}\n" for name in names["train"]]
    (lists / "trainlist01.txt").write_text("".join(train))
    (lists / "testlist01.txt").write_text("".join(f"{name}\n" for name in names["test"]))
    return [f"UCF-101/{name}" for name in names["train"] + names["test"]]


def imitate_hmdb51(folder):
    lists = folder / "testTrainMulti_7030_splits"
    lists.mkdir()
    names = []
    for label in ("brush_hair", "cartwheel"):
        rows = [(f"Clip_#{i}_{label}_u_nm_np1_ba_goo_0.avi", (1, 1, 1, 1, 2, 2, 0)[i]) for i in range(7)]
        (lists / f"{label}_test_split1.txt").write_text("".join(f"{name} {number} \n" for name, number in rows))
        names += [f"hmdb51/{label}/{name}" for name, _ in rows]
    return names


def imitate_kth(folder):
    return [f"kth/{a}/person{p:02d}_{a}_d1_uncomp.avi" for a in KTH_ACTIONS[:2] for p in (1, 2, 11, 12, 13, 19, 22)]


def imitate_weizmann(folder):
    return [f"weizmann/{a}/{p}_{a}.avi" for a in ("bend", "walk") for p in WEIZMANN_PERSONS[:6]]


def write_tree(folder, files):
    """Write text files, and JSON where the content is no text."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


MSVD_CLIPS = [f"{id_}_{5 * i}_{5 * i + 5}" for id_ in ("-4wsuPCjDBc", "a_b_c", "mv89psg6zh4", "x", "y") for i in (1, 2)]


def imitate_msvd(folder):
    lines = [
        "# descriptions of clips",
        "#" * 20,
        "",
        *(f"{x} {y}" for x in MSVD_CLIPS for y in ("a  dog runs", "a cat")),
    ]
    write_tree(folder / "msvd", {"AllVideoDescriptions.txt": "\n".join([*lines, "gone_1_2 a bee", ""])})
    return [f"msvd/YouTubeClips/{clip}.avi" for clip in MSVD_CLIPS]


def imitate_msr_vtt(folder):
    parts = {"train": range(4), "validate": (4, 5), "test": (6, 7)}
    for name, splits in {"train_val": ("train", "validate"), "test": ("test",)}.items():
        of = {number: split for split in splits for number in parts[split]}
        about = {
            "info": {"year": "2016"},
            "videos": [
                {"video_id": f"video{i}", "url": f"https://www.youtube.com/watch?v=id{i // 2}", "split": split, "id": i}
                for i, split in of.items()
            ],
            "sentences": [
                {"sen_id": i, "video_id": f"video{i}", "caption": f"{word} video {i}"}
                for i in of
                for word in ("a", "the")
            ],
        }
        write_tree(folder / "msr-vtt", {f"annotations/{name}_videodatainfo.json": about})
    return [f"msr-vtt/{'TestVideo' if i > 5 else 'TrainValVideo'}/video{i}.mp4" for i in range(8)]


FLICKR_NAMES = [f"{number}_693b08cb0e.jpg" for number in range(1000, 1008)]


def token_lines(names):
    return "".join(f"{name}#{number}\tCaption {number} , of {name} .\n" for name in names for number in range(5))


def imitate_flickr8k(folder):
    lists = {"trainImages": FLICKR_NAMES[:4], "devImages": FLICKR_NAMES[4:5], "testImages": FLICKR_NAMES[5:7]}
    files = {f"Flickr_8k.{name}.txt": "".join(f"{x}\n" for x in names) for name, names in lists.items()}
    write_tree(folder / "flickr8k", {**files, "Flickr8k.token.txt": token_lines([*FLICKR_NAMES, "1007.jpg.1"])})
    return [f"flickr8k/Flicker8k_Dataset/{name}" for name in FLICKR_NAMES]


def imitate_flickr30k(folder):
    splits = dict(zip(FLICKR_NAMES, ["train"] * 4 + ["val"] + ["test"] * 2, strict=False))
    images = [{"filename": name, "split": split, "sentences": []} for name, split in splits.items()]
    write_tree(
        folder / "flickr30k",
        {"results_20130124.token": token_lines(FLICKR_NAMES), "dataset_flickr30k.json": {"images": images}},
    )
    return [f"flickr30k/flickr30k-images/{name}" for name in FLICKR_NAMES]


def imitate_coco(folder):
    paths = []
    for part, ids in {"train2017": range(1, 7), "val2017": (139, 285)}.items():
        images = [{"id": i, "file_name": f"{i:012}.jpg", "license": 3} for i in ids]
        texts = [{"id": 10 * i + k, "image_id": i, "caption": f"Image {i}, {k}."} for k in range(5) for i in ids]
        write_tree(folder / "coco", {f"annotations/captions_{part}.json": {"images": images, "annotations": texts}})
        paths += [f"coco/{part}/{image['file_name']}" for image in images]
    return paths


IMITATIONS = {
    "kth": imitate_kth,
    "weizmann": imitate_weizmann,
    "msvd": imitate_msvd,
    "msr-vtt": imitate_msr_vtt,
    "flickr8k": imitate_flickr8k,
    "flickr30k": imitate_flickr30k,
    "coco": imitate_coco,
}


@pytest.mark.parametrize(
    ("data_set", "said", "left_out", "first_row"),
    [
        (
            "msvd",
            "10 files, 5 groups, 20 captions",
            "1 captions of 1 files that are not there, left out: gone_1_2.avi",
            {"path": "YouTubeClips/-4wsuPCjDBc_5_10.avi", "caption": "a dog runs", "group": "-4wsuPCjDBc"},
        ),
        (
            "msr-vtt",
            "8 files, 4 groups, 16 captions, 4 train, 2 val, 2 test",
            "",
            {"path": "TrainValVideo/video0.mp4", "caption": "a video 0", "group": "id0", "split": "train"},
        ),
        (
            "flickr8k",
            "7 files, 35 captions, 4 train, 1 val, 2 test",
            "1 files without a caption or split, left out: Flicker8k_Dataset/1007_693b08cb0e.jpg",
            {
                "path": "Flicker8k_Dataset/1000_693b08cb0e.jpg",
                "caption": "Caption 0 , of 1000_693b08cb0e.jpg .",
                "split": "train",
            },
        ),
        (
            "flickr30k",
            "7 files, 35 captions, 4 train, 1 val, 2 test",
            "1 files without a caption or split, left out: flickr30k-images/1007_693b08cb0e.jpg",
            {
                "path": "flickr30k-images/1000_693b08cb0e.jpg",
                "caption": "Caption 0 , of 1000_693b08cb0e.jpg .",
                "split": "train",
            },
        ),
        (
            "coco",
            "8 files, 40 captions, 6 train, 2 test",
            "",
            {"path": "train2017/000000000001.jpg", "caption": "Image 1, 0.", "split": "train"},
        ),
    ],
)
def test_manifests_of_captions(data_set, said, left_out, first_row, tmp_path):
    make_files(tmp_path, IMITATIONS[data_set](tmp_path))
    done = make_manifest(data_set, tmp_path / data_set)
    assert (done.returncode, done.stderr.strip()) == (0, left_out)
    assert done.stdout.strip() == f"{tmp_path / data_set / 'manifest.csv'}: {said}"
    assert read_rows(tmp_path / data_set)[0] == first_row


def test_msvd_lists_give_the_split_and_divided_groups_are_said(tmp_path):
    make_files(tmp_path, imitate_msvd(tmp_path))
    lists = {"train": MSVD_CLIPS[:5], "val": MSVD_CLIPS[5:6], "test": MSVD_CLIPS[6:9]}
    write_tree(tmp_path / "msvd", {f"{split}_list.txt": "\n".join(clips) + "\n" for split, clips in lists.items()})
    done = make_manifest("msvd", tmp_path / "msvd")
    assert done.stdout.endswith("9 files, 6 groups, 18 captions, 5 train, 1 val, 3 test\n")
    assert "1 files without a caption or split, left out: YouTubeClips/y_10_15.avi" in done.stderr
    assert "1 groups are in more than one part of the published split; a score will be a little" in done.stderr
    groups = {row["path"]: row["group"] for row in read_rows(tmp_path / "msvd")}
    assert groups["YouTubeClips/mv89psg6zh4_5_10.avi"] == "YouTubeClips/mv89psg6zh4_5_10.avi"
    assert groups["YouTubeClips/a_b_c_5_10.avi"] == groups["YouTubeClips/a_b_c_10_15.avi"] == "a_b_c"


def test_flickr8k_as_a_csv_has_captions_with_commas(tmp_path):
    make_files(tmp_path, [f"Images/{name}" for name in FLICKR_NAMES[:2]])
    rows = [f"{FLICKR_NAMES[0]},A dog , running , barks .", f'{FLICKR_NAMES[1]},"A cat, sleeping"']
    write_tree(tmp_path, {"captions.txt": "\n".join(["image,caption", *rows, ""])})
    assert make_manifest("flickr8k", tmp_path).stdout.endswith("2 files, 2 captions\n")
    assert [row["caption"] for row in read_rows(tmp_path)] == ["A dog , running , barks .", "A cat, sleeping"]


@pytest.mark.parametrize(
    ("data_set", "files", "message"),
    [
        ("msvd", {}, "expected one file AllVideoDescriptions.txt, found none"),
        ("msvd", {"AllVideoDescriptions.txt": "# x\na b c\n"}, "line 2: expected 'ID_START_END caption', received a"),
        ("msr-vtt", {"train_val_videodatainfo.json": "{"}, "has another form than expected (JSONDecodeError("),
        (
            "msr-vtt",
            {"train_val_videodatainfo.json": {"images": []}},
            "another form than expected (KeyError('videos'))",
        ),
        ("flickr8k", {"captions.txt": "file,text\n"}, "expected the header image,caption, received file,text"),
        (
            "flickr30k",
            {"a/results_20130124.token": "", "b/results_20130124.token": ""},
            "found a/results_20130124.token and",
        ),
        ("flickr30k", {"results_20130124.token": "a.jpg 0\n"}, "line 1: expected 'image.jpg#0', a tab and a caption"),
        (
            "coco",
            {"captions_train2017.json": {"images": [], "annotations": []}},
            "expected one file captions_val2017.json",
        ),
        (
            "flickr30k",
            {"results_20130124.token": "a.jpg#0\tx\n", "one/a.jpg": "", "two/a.jpg": ""},
            "files of one name: one/a.jpg and two/a.jpg",
        ),
        ("flickr30k", {"results_20130124.token": "a.jpg#0\tx\n"}, "no file that has a caption found"),
    ],
)
def test_captions_of_another_form(data_set, files, message, tmp_path):
    write_tree(tmp_path, files)
    done = make_manifest(data_set, tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr and done.stderr.endswith("; no manifest written\n")
    assert not (tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("name", "imitate", "splits", "group"),
    [
        ("ucf101", imitate_ucf101, {"train": 8, "val": 4, "test": 4}, "v_Archery_g08"),
        (
            "hmdb51",
            imitate_hmdb51,
            {"train": 6, "val": 2, "test": 4},
            "cartwheel/Clip_#0_cartwheel_u_nm_np1_ba_goo_0.avi",
        ),
        ("kth", imitate_kth, {"train": 6, "val": 4, "test": 4}, "person22"),
        ("weizmann", imitate_weizmann, {"train": 6, "val": 2, "test": 4}, "denis"),
        ("msvd", imitate_msvd, {"train": 6, "val": 2, "test": 2}, "a_b_c"),
        ("msr-vtt", imitate_msr_vtt, {"train": 4, "val": 2, "test": 2}, "id3"),
        ("flickr8k", imitate_flickr8k, {"train": 4, "val": 1, "test": 2}, "Flicker8k_Dataset/1003_693b08cb0e.jpg"),
        ("flickr30k", imitate_flickr30k, {"train": 4, "val": 1, "test": 2}, "flickr30k-images/1003_693b08cb0e.jpg"),
        ("coco", imitate_coco, {"train": 4, "val": 2, "test": 2}, "val2017/000000000285.jpg"),
    ],
)
def test_the_command_of_the_page_makes_a_data_set(name, imitate, splits, group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for path in imitate(tmp_path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        frames = rng.integers(0, 256, (5, 16, 16, 3), np.uint8)
        if path.endswith(".jpg"):
            assert cv2.imwrite(path, frames[0])
        else:
            write_video(Path(path), frames, frames_per_second=10)
    if name in IMITATIONS:
        assert make_manifest(name, tmp_path / name).returncode == 0
    (line,) = [line for line in commands(DATA / f"{name}.md") if line.startswith("activity preprocess")]
    words = [found for word in shlex.split(line)[1:] for found in sorted(glob.glob(word)) or [word]]
    assert main([*words, "--size", "16", "--num-frames", "4", "--workers", "1"]) == 0
    dataset = load_dataset(Path(words[words.index("--out") + 1]))
    assert Counter(sample.split for sample in dataset.samples) == splits
    assert dataset.problems == []
    assert group in {sample.group for sample in dataset.samples}
    assert all(sample.captions or sample.label for sample in dataset.samples)
