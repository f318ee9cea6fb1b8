import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from activity.datasets.folders import kind_of, scan_folder
from activity.datasets.manifest import list_videos, read_manifest, read_split_files
from activity.datasets.samples import Sample
from activity.errors import DatasetError
from activity.predictor.sources import check_apart, expand_sources


def make_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")
    return folder


def paths_of(listed):
    return [sample.path for sample in listed.samples]


# === A folder per class ===


def test_every_file_counts_but_hidden_ones_images_and_sidecars(tmp_path):
    videos = ["run/LOUD.AVI", "run/no_extension", "run/day 1/cam/a.mp4", "walk/b.webm", "walk/not-video.bin"]
    passed_over = ["run/.hidden.mp4", "run/.cache/c.mp4", "run/._LOUD.AVI", "walk/b.JPG", "walk/b.srt", "walk/R.md"]
    make_files(tmp_path, *videos, *passed_over, ".git/config", "cover.png", "about.json")
    listed = scan_folder(tmp_path)
    assert paths_of(listed) == sorted(videos)
    assert sum(listed.skipped.values()) == len([*passed_over, ".git", "cover.png", "about.json"])
    assert {sample.path: sample.label for sample in listed.samples}["run/day 1/cam/a.mp4"] == "run"
    assert listed.videos_dir == tmp_path and not listed.missing


@pytest.mark.parametrize("suffix", "csv tsv xlsx json boris eaf txt md srt xml jpg jpeg png bmp tif tiff webp".split())
def test_files_that_a_search_skips(suffix):
    assert kind_of(Path(f"run/a.{suffix}")) == kind_of(Path(f"run/a.{suffix.upper()}")) in ("image", "sidecar")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a", "b.jpg/a.mp4", "a.b.AVI"])
def test_what_a_search_takes(name):
    assert kind_of(Path(name)) == ""


def test_groups_are_read_from_ucf_names_only(tmp_path):
    make_files(
        tmp_path,
        *("Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c02.avi", "Archery/v_Archery_g12_c01.avi"),
        *("Biking/v_Biking_g01_c01.avi", "Biking/v_Biking_g03.avi", "Biking/bag_1.avi", "Biking/cam/bag_1.avi"),
    )
    groups = {sample.path.partition("/")[2]: sample.group for sample in scan_folder(tmp_path).samples}
    assert groups == {
        "v_Archery_g01_c01.avi": "v_Archery_g01",
        "v_Archery_g01_c02.avi": "v_Archery_g01",
        "v_Archery_g12_c01.avi": "v_Archery_g12",
        "v_Biking_g01_c01.avi": "v_Biking_g01",  # not the group 01 of another class
        "v_Biking_g03.avi": "v_Biking_g03",
        "bag_1.avi": "Biking/bag_1.avi",
        "cam/bag_1.avi": "Biking/cam/bag_1.avi",
    }


def test_videos_beside_the_class_folders_are_named(tmp_path, caplog):
    make_files(tmp_path, "run/a.avi", "walk/b.avi", "stray.avi", "notes.txt")
    listed = list_videos(tmp_path)
    assert len(listed.samples) == 2 and listed.missing == {"stray.avi": "not in the folder of a label"}
    assert f"{tmp_path}: left out: sidecar (1), not in the folder of a label (1)\n" in caplog.text


def test_a_folder_without_classes(tmp_path):
    videos = make_files(tmp_path / "videos", "a.avi", ".hidden/b.avi")
    with pytest.raises(DatasetError, match="no class folders and no manifest.csv; expected videos/<label>/<video>"):
        scan_folder(videos)


def test_class_folders_without_videos(tmp_path):
    make_files(tmp_path, "run/a.txt", "walk/b.png")
    with pytest.raises(DatasetError, match=r"its class folders hold no videos \(2 other files skipped\)"):
        scan_folder(tmp_path)


def test_our_own_data_set_folder_among_the_classes_is_no_class(tmp_path):
    make_files(tmp_path, "run/a.avi", "walk/b.avi", "dataset/dataset.json", "dataset/frames/a.npy")
    assert paths_of(scan_folder(tmp_path)) == ["run/a.avi", "walk/b.avi"]


def test_a_name_that_is_not_utf8_is_missing(tmp_path, caplog):
    make_files(tmp_path, "run/a.avi", "walk/b.avi")
    try:
        (tmp_path / "walk/b.avi").rename(tmp_path / os.fsdecode(b"walk/caf\xe9.avi"))
    except OSError:
        pytest.skip("this file system has no such names")
    listed = scan_folder(tmp_path)
    assert paths_of(listed) == ["run/a.avi"]
    assert listed.missing == {"walk/caf\\xe9.avi": "its name is not valid UTF-8, which OpenCV cannot open; rename it"}
    assert "no videos of: walk" in caplog.text


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    make_files(tmp_path, "disk/day 1/a.avi", "disk/day 1/cam/b.avi", "videos/walk/c.avi", "videos/run/d.avi")
    (tmp_path / "videos/run/recorded").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/day 1/back").symlink_to(tmp_path / "disk")
    (tmp_path / "videos/run/up").symlink_to(tmp_path / "videos")
    found = ["run/d.avi", "run/recorded/day 1/a.avi", "run/recorded/day 1/cam/b.avi"]
    assert paths_of(scan_folder(tmp_path / "videos")) == [*found, "walk/c.avi"]
    assert expand_sources([str(tmp_path / "videos/run")]) == [str(tmp_path / "videos" / path) for path in found]


def test_results_have_a_folder_of_their_own(tmp_path, monkeypatch):
    make_files(tmp_path, "clips/a.mp4")
    monkeypatch.chdir(tmp_path)
    check_apart(Path("results"), ["clips/a.mp4"])
    check_apart(Path("clips/results"), ["clips/a.mp4"])
    (tmp_path / "link").symlink_to("clips")
    for folder in ("clips", "results/../clips", "link"):
        with pytest.raises(DatasetError, match="holds the video clips/a.mp4; expected a folder of its own"):
            check_apart(Path(folder), ["clips/a.mp4"])


def test_labels_that_look_alike_are_named(tmp_path, caplog):
    make_files(tmp_path, "run/a.avi", "walk/b.avi", "Walk /c.avi", "walk on/d.avi")
    list_videos(tmp_path)
    assert "labels differ only by case or spaces: Walk , walk; are they one activity?" in caplog.text


def test_one_label_is_not_enough(tmp_path):
    make_files(tmp_path, "run/a.avi", "run/b.avi")
    (tmp_path / "walk").mkdir()
    with pytest.raises(DatasetError, match="expected videos of two or more activities, found run"):
        list_videos(tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(DatasetError, match="none: no such file or folder; expected a folder of videos or a manifest"):
        list_videos(tmp_path / "none")


# === What is left out ===


def test_whatever_is_left_out_is_listed_or_counted(tmp_path, caplog):
    make_files(tmp_path, "run/a.avi", "run/b.avi", "walk/c.avi", "walk/d.srt", "walk/.e.avi", "walk/@eaDir/c.avi")
    make_files(tmp_path, "@eaDir/run/a.avi", "run/Thumbs.db", "walk/cover.jpg", "#recycle/f.avi")
    for name in ("run/1.avi", "walk/2.avi", "3.avi"):
        (tmp_path / name).symlink_to("/nowhere")
    os.mkfifo(tmp_path / "run/pipe.avi")
    (tmp_path / "run/loop.avi").symlink_to("loop.avi")
    listed = list_videos(tmp_path)
    assert paths_of(listed) == ["run/a.avi", "run/b.avi", "walk/c.avi"]
    nowhere = "it is a link to nowhere"
    assert listed.missing == {
        "3.avi": nowhere,
        "run/1.avi": nowhere,
        "run/loop.avi": "it cannot be opened: Too many levels of symbolic links",
        "run/pipe.avi": "it is a pipe, socket or device",
        "walk/2.avi": nowhere,
    }
    assert listed.skipped == {"hidden": 1, "image": 1, "sidecar": 1, "system": 4}
    assert f"left out: system (4), {nowhere} (3), " in caplog.text


def test_a_folder_that_cannot_be_opened_is_listed(tmp_path, monkeypatch):
    make_files(tmp_path, "run/a.avi", "run/locked/b.avi", "walk/c.avi")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listed = list_videos(tmp_path)
    assert paths_of(listed) == ["run/a.avi", "walk/c.avi"]
    assert listed.missing == {"run/locked": "cannot be opened: Permission denied"}


def test_folders_of_splits_are_no_labels(tmp_path, caplog):
    for split in ("train", "Validation", "test"):
        make_files(tmp_path, f"{split}/run/{split}1.avi", f"{split}/walk/{split}2.avi", f"{split}/stray.avi")
    make_files(tmp_path, "@eaDir/x", ".git/y")
    listed = list_videos(tmp_path)
    found = {sample.path: (sample.label, sample.split) for sample in listed.samples}
    assert found["Validation/run/Validation1.avi"] == ("run", "val") and found["test/walk/test2.avi"] == (
        "walk",
        "test",
    )
    assert len(found) == 6 and listed.missing["train/stray.avi"] == "not in the folder of a label"
    assert f"{tmp_path}: taken for splits: Validation, test, train; the folders in them for labels" in caplog.text


@pytest.mark.parametrize(
    "names",
    [("train/a.avi", "test/b.avi"), ("train/x/a.avi", "bus/x/b.avi"), ("val/x/a.avi", "test/x/b.avi", "c/d.avi")],
)
def test_labels_may_be_named_as_splits_are(tmp_path, names, caplog):
    listed = list_videos(make_files(tmp_path, *names))
    assert {sample.label for sample in listed.samples} == {name.partition("/")[0] for name in names}
    assert {sample.split for sample in listed.samples} == {""}
    assert ("taken for labels" in caplog.text) == ("bus/x/b.avi" not in names)


def test_folders_of_numbered_images_are_videos(tmp_path, caplog):
    make_files(tmp_path, "run/a.avi", *(f"run/one/{i:05d}.jpg" for i in range(3)), "run/one/cover.png")
    make_files(tmp_path, "walk/b.avi", *(f"walk/day 1/two/f{i}.PNG" for i in (8, 9, 10)), "walk/1.jpg", "walk/2.jpg")
    make_files(tmp_path, *(f"walk/mixed/{name}_{i}.png" for name in "xy" for i in range(2)), "walk/single/1.png")
    listed = list_videos(tmp_path)
    assert paths_of(listed) == ["run/a.avi", "run/one", "walk/b.avi", "walk/day 1/two"]
    assert listed.missing == {"walk/mixed": "holds images of 2 sequences (x_, y_); expected a folder for each"}
    assert listed.skipped == {"image": 4}
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,label\nrun/one,run\nwalk/b.avi,walk\nwalk/single,walk\n")
    assert paths_of(list_videos(tmp_path)) == ["run/one", "walk/b.avi"]


# === Names that look alike ===


def test_a_label_written_in_two_ways_is_one(tmp_path):
    names = [unicodedata.normalize(form, "balancé") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    make_files(tmp_path, f"{names[0]}/a.avi", f"{names[1]}/b.avi", "run/c.avi")
    assert {sample.label for sample in list_videos(tmp_path).samples} == {names[0], "run"}


def test_a_file_is_found_however_its_accents_are_written(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é/ä.avi") for form in ("NFC", "NFD"))
    make_files(tmp_path, decomposed, "b.avi")
    (tmp_path / "manifest.csv").write_text(f"path,label,group\n{composed},run,{composed}\nb.avi,walk,{decomposed}\n")
    listed = list_videos(tmp_path)
    assert paths_of(listed) == ["b.avi", decomposed] and not listed.missing
    assert len({sample.group for sample in listed.samples}) == 1


@pytest.mark.parametrize("twin", ["run\u200b", "r\ufe0fun", "\u202erun", "run\x07"])
@pytest.mark.parametrize("column", ["labels", "groups"])
def test_twins_that_look_alike_are_an_error(tmp_path, twin, column):
    make_files(tmp_path, "a.avi", "b.avi", "c.avi")
    names = ("run", twin, "other")
    rows = [
        f"{path}.avi,{path},{name}" if column == "groups" else f"{path}.avi,{name},{path}"
        for path, name in zip("abc", names, strict=True)
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,group", *rows]))
    with pytest.raises(DatasetError, match=f"{column} that look alike but differ: ") as info:
        list_videos(tmp_path)
    invisible = max(twin) if "\x07" not in twin else "\x07"
    assert f"U+{ord(invisible):04X}" in str(info.value) and "(r u n)" in str(info.value)


# === A manifest ===

FILES = ("a.avi", "b.avi", "sub/c.avi")


def manifest(folder, text, name="manifest.csv"):
    make_files(folder, *FILES)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_manifest(tmp_path):
    text = "path,label,group,split,fold,camera\nb.avi, wave ,anna,val,2,\na.avi,run,bob,train,1,left\n"
    manifest(tmp_path, text)
    listed = list_videos(tmp_path)
    assert listed.samples == [
        Sample(path="a.avi", label="run", group="bob", split="train", extra={"fold": "1", "camera": "left"}),
        Sample(path="b.avi", label="wave", group="anna", split="val", extra={"fold": "2", "camera": ""}),
    ]


@pytest.mark.parametrize("text", ["path,label\na.avi,run\nb.avi,wave\n", 'label,path\r\n"run","a.avi"\r\nwave,b.avi'])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])  # Excel begins UTF-8 with a byte order mark
def test_manifest_of_two_columns(tmp_path, text, mark):
    manifest(tmp_path, mark + text.encode())
    assert list_videos(tmp_path).samples == [
        Sample(path="a.avi", label="run", group="a.avi"),
        Sample(path="b.avi", label="wave", group="b.avi"),
    ]


def test_the_csv_itself_may_be_given_and_have_any_name(tmp_path):
    path = manifest(tmp_path, "path,label\na.avi,run\nsub/c.avi,wave\n", "fold1.csv")
    listed = list_videos(path)
    assert listed.videos_dir == tmp_path and paths_of(listed) == ["a.avi", "sub/c.avi"]


def test_a_manifest_wins_over_the_folders(tmp_path):
    manifest(tmp_path, "path,label\na.avi,run\nsub/c.avi,wave\n")
    assert {sample.label for sample in list_videos(tmp_path).samples} == {"run", "wave"}


def test_paths_of_a_manifest_are_brought_to_one_form(tmp_path):
    manifest(tmp_path, "path,label\n./a.avi,run\nsub\\c.avi,wave\n")
    assert paths_of(list_videos(tmp_path)) == ["a.avi", "sub/c.avi"]


def test_files_that_a_manifest_names_but_are_not_there(tmp_path, caplog):
    rows = f"a.avi,run\ngone.avi,run\nb.avi,wave\nsub,wave\npipe.avi,run\nlink.avi,run\n{'x' * 5000}.avi,run\n"
    manifest(tmp_path, f"path,label\n{rows}")
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / "link.avi").symlink_to("nowhere")
    listed = list_videos(tmp_path)
    assert paths_of(listed) == ["a.avi", "b.avi"]
    assert listed.missing == {
        "gone.avi": "named in manifest.csv line 3, but there is no such file",
        "sub": "named in manifest.csv line 5, but it is a folder, and not one of numbered images",
        "pipe.avi": "named in manifest.csv line 6, but it is a pipe, socket or device",
        "link.avi": "named in manifest.csv line 7, but it is a link to nowhere",
        f"{'x' * 5000}.avi": "named in manifest.csv line 8, but it cannot be opened: File name too long",
    }
    assert "left out: there is no such file (1), it is a folder" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"path,label\[,group\]\[,split\] \(or caption for label\), missing label, path; received: $"),
        ("file,label\na.avi,run\n", "missing path; received: file,label"),
        ("path;label\na.avi;run\n", "missing label, path; received: path;label"),
        ("path;label\na.avi;run\n", "path;label; separate the columns by commas"),
        ("Path, Label\na.avi,run\n", "received: Path, Label; write path in the place of 'Path', label of ' Label'"),
        (
            "path,Caption\na.avi,a dog\n",
            "missing label; received: path,Caption; write caption in the place of 'Caption'",
        ),
        ("path,captions\na.avi,a dog\n", "received: path,captions; write caption in the place of 'captions'"),
        ("path,sentence\na.avi,a dog\n", "received: path,sentence; write caption in the place of 'sentence'"),
        ("path,labels\na.avi,run\n", "received: path,labels; write label in the place of 'labels'"),
        ("path,camera\na.avi,run\n", "received: path,camera$"),
        ("path,label,label\na.avi,run,walk\n", "columns that occur more than once: label"),
        ("path,label,Label \na.avi,run,walk\n", "columns that occur more than once: label"),
        (
            "path,label,Split,Start_Seconds\na.avi,run,test,1\n",
            "would be ignored: Split, Start_Seconds; expected small",
        ),
        ("path,label\n", "none of its 0 rows names a file that exists in"),
        ("path,label\nx.avi,run\ny.avi,run\n", "none of its 2 rows names a file that exists in"),
        ("path,label\na.avi,run\nb.avi,run\n./a.avi,wave\n", "lines 2 and 4 both name a.avi"),
        ("path,label\ngone.avi,run\ngone.avi,run\n", "lines 2 and 3 both name gone.avi"),
        ("path,label\n/a.avi,run\n", "line 2: a path must stay inside the folder of the manifest, received /a.avi"),
        ("path,label\nsub/../../a.avi,run\n", "must stay inside the folder of the manifest, received sub/../../a.avi"),
        ("path,label\nC:\\a.avi,run\n", r"must stay inside the folder of the manifest, received C:\\a.avi"),
        ("path,label\na.avi,\n", "line 2: path and label must not be empty, received path='a.avi' label=''"),
        ("path,label\n  ,run\n", "line 2: path and label must not be empty, received path='' label='run'"),
        ("path,label,split\na.avi,run,dev\n", "line 2: split must be one of train, val, test or empty, received dev"),
        ("path,label,group\na.avi,run,\n", "line 2: group must not be empty where the column exists"),
        ("path,label\na.avi,run\nb.avi\n", r"line 3: expected 2 fields \(path,label\), received 1$"),
        (
            "path,label\na.avi,run,fast\n",
            r"manifest.csv: line 2: expected 2 fields \(path,label\), received 3; write a field that holds a comma in",
        ),
        (
            "path,caption,group\na.avi,a dog, then a cat,g1\n",
            r'line 2: expected 3 fields \(path,caption,group\), received 4; .* in quotes: "a dog, then a cat"$',
        ),
        (b"path,label\na.avi,caf\xe9\n", "manifest.csv: not a CSV file in UTF-8: 'utf-8' codec can't decode"),
        (
            'path,caption\na.avi,a cat\nb.avi,"a dog\nc.avi,a cow\n',
            r"manifest.csv: not a CSV file from line 3 on: unexpected end of data; close each quote, and double those "
            r'within a field in quotes: "a ""big"" dog"$',
        ),
        (
            'path,caption\na.avi,"a dog\nb.avi,"a cow"\n',
            "not a CSV file from line 2 on: ',' expected after '\"'; close",
        ),
        ('"path,label\na.avi,run\n', "not a CSV file from line 1 on: unexpected end of data"),
    ],
)
def test_faults_of_a_manifest(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message) as info:
        read_manifest(manifest(tmp_path, text))
    assert info.value.path == tmp_path / "manifest.csv"


def test_segments_of_a_manifest(tmp_path, caplog):
    text = "path,label,start_seconds,end_seconds,camera\na.avi,wave,12.5, 15 ,l\nb.avi,run,,,r\na.avi,run,0,12.5,l\n"
    manifest(tmp_path, text + "a.avi,wave,20.0000004,,l\nsub/c.avi,run,0,,l\n")
    listed = list_videos(tmp_path)
    assert listed.samples == [
        Sample(path="a.avi", label="run", group="a.avi", end_seconds=12.5, extra={"camera": "l"}),
        Sample(path="a.avi", label="wave", group="a.avi", start_seconds=12.5, end_seconds=15.0, extra={"camera": "l"}),
        Sample(path="a.avi", label="wave", group="a.avi", start_seconds=20.0, extra={"camera": "l"}),
        Sample(path="b.avi", label="run", group="b.avi", extra={"camera": "r"}),
        Sample(path="sub/c.avi", label="run", group="sub/c.avi", extra={"camera": "l"}),
    ]
    assert not caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.avi,run,x,5", "line 2: start_seconds must be a number of seconds, 0 or more, or empty, received x"),
        (
            "a.avi,run,0:10,0:12",
            "line 2: start_seconds must be a number of seconds, 0 or more, or empty, received 0:10",
        ),
        ("a.avi,run,-1,5", "start_seconds must be a number of seconds, 0 or more, or empty, received -1"),
        ("a.avi,run,1,inf", "end_seconds must be a number of seconds, 0 or more, or empty, received inf"),
        ("a.avi,run,nan,3", "start_seconds must be a number of seconds, 0 or more, or empty, received nan"),
        ("b.avi,run,,\na.avi,run,5,5", "line 3: end_seconds must be above start_seconds, received 5.0 to 5.0"),
        ("a.avi,run,7,5", "end_seconds must be above start_seconds, received 7.0 to 5.0"),
        ("a.avi,run,,0", "end_seconds must be above start_seconds, received 0.0 to 0.0"),
        ("a.avi,run,1,2\nb.avi,run,1,2\n./a.avi,run,1.0,2.0", r"lines 2 and 4 both name a.avi \[1.0-2.0 s\]"),
        ("a.avi,run,,2\na.avi,run,0,2.0000001", r"lines 2 and 3 both name a.avi \[0.0-2.0 s\]"),
        ("a.avi,run,0,\na.avi,run,,", "lines 2 and 3 both name a.avi$"),
    ],
)
def test_faults_of_segments(tmp_path, rows, message):
    with pytest.raises(DatasetError, match=message):
        read_manifest(manifest(tmp_path, f"path,label,start_seconds,end_seconds\n{rows}\n"))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("group", "anna ben anna", "lines 2 and 3 give segments of a.avi different groups, anna and ben; all segments"),
        ("group", "anna anna ben", "lines 2 and 4 give segments of a.avi different groups, anna and ben"),
        ("split", "train test train", "lines 2 and 3 give segments of a.avi different splits, train and test; all seg"),
        ("split", "val val -", "lines 2 and 4 .* of a file must keep to one split"),
    ],
)
def test_segments_of_a_file_are_never_split_across(tmp_path, column, values, message):
    rows = [f"a.avi,run,{i},{i + 1},{value.strip('-')}" for i, value in enumerate(values.split())]
    text = "\n".join([f"path,label,start_seconds,end_seconds,{column}", *rows, "b.avi,run,1,2,train"])
    with pytest.raises(DatasetError, match=message):
        read_manifest(manifest(tmp_path, text))


def test_the_problem_of_a_file_that_is_not_there_is_one(tmp_path):
    rows = "gone.avi,run,0,1\ngone.avi,run,1,2\na.avi,run,0,1\nb.avi,wave,0,1\n"
    listed = read_manifest(manifest(tmp_path, "path,label,start_seconds,end_seconds\n" + rows))
    assert listed.missing == {"gone.avi": "named in manifest.csv line 2, but there is no such file"}


def test_segments_that_overlap_under_different_labels_are_named(tmp_path, caplog):
    rows = "a.avi,run,0,10\na.avi,run,5,12\na.avi,wave,9.5,11\na.avi,jump,12,13\nb.avi,wave,0,9\n"
    read_manifest(manifest(tmp_path, "path,label,start_seconds,end_seconds\n" + rows))
    assert (
        "2 pairs of segments overlap under different labels: a.avi [0.0-10.0 s] (run) and a.avi [9.5-11.0 s] (wave), "
        "a.avi [5.0-12.0 s] (run) and a.avi [9.5-11.0 s] (wave)"
    ) in caplog.text


def test_a_video_is_not_a_manifest(write_counting_video):
    with pytest.raises(DatasetError, match="a.avi: expected a folder of labelled videos, or a manifest .csv; this"):
        list_videos(write_counting_video("a.avi", 2))


# === Captions ===


def test_rows_of_one_video_are_its_captions(tmp_path, caplog):
    rows = 'b.avi,"a dog, running",x\na.avi,a cat,y\nb.avi,ein Hund,x\n./b.avi,=1+2,x\n'
    listed = list_videos(manifest(tmp_path, "path,caption,camera\n" + rows))
    assert listed.samples == [
        Sample(path="a.avi", label="", group="a.avi", extra={"camera": "y"}, captions=("a cat",)),
        Sample(
            path="b.avi",
            label="",
            group="b.avi",
            extra={"camera": "x"},
            captions=("a dog, running", "ein Hund", "=1+2"),
        ),
    ]
    assert not listed.missing and "no videos of" not in caplog.text


def test_captions_beside_labels(tmp_path):
    text = "path,label,caption\na.avi,run,somebody runs\nb.avi,,a bee\na.avi,run,a run\nsub/c.avi,run,\n"
    listed = list_videos(manifest(tmp_path, text))
    found = {sample.path: (sample.label, sample.captions) for sample in listed.samples}
    assert found == {"a.avi": ("run", ("somebody runs", "a run")), "b.avi": ("", ("a bee",)), "sub/c.avi": ("run", ())}
    assert not listed.missing


def test_segments_have_captions_of_their_own(tmp_path):
    rows = "a.avi,one,0,5\na.avi,two,5,\na.avi,eins,,5.0\nb.avi,three,,\n"
    listed = list_videos(manifest(tmp_path, "path,caption,start_seconds,end_seconds\n" + rows))
    found = [(sample.name, sample.captions) for sample in listed.samples]
    assert found == [
        ("a.avi [0.0-5.0 s]", ("one", "eins")),
        ("a.avi [5.0 s to the end]", ("two",)),
        ("b.avi", ("three",)),
    ]


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("  a \t dog\r\n\nruns  ", "a dog runs"),
        ("caf" + "e\u0301", "caf\xe9"),
        ("a\u3000b\u2028c\xa0d", "a b c d"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
)
def test_a_caption_is_one_line_of_composed_letters(tmp_path, text, caption, caplog):
    listed = list_videos(manifest(tmp_path, f'path,caption\na.avi,"{text}"\n'))
    assert listed.samples[0].captions == (caption,)
    assert "control" not in caplog.text


def test_control_characters_of_captions_are_removed_with_a_word(tmp_path, caplog):
    rows = ["a.avi,a\x07dog", "a.avi,\u202egod a\u202c", "b.avi,a\x1b [31mdog", "b.avi,well"]
    listed = list_videos(manifest(tmp_path, "path,caption\n" + "\n".join(rows)))
    assert [sample.captions for sample in listed.samples] == [("adog", "god a"), ("a [31mdog", "well")]
    assert "manifest.csv: control characters are removed from 3 captions: lines 2, 3, 4" in caplog.text


@pytest.mark.parametrize("empty", ["", "   ", '" \n "', "\u200b\u200d", "\x07", "...", "!!", "\u3002"])
def test_a_caption_without_words_is_listed_and_the_run_goes_on(tmp_path, empty, caplog):
    rows = f"a.avi,a cat\nb.avi,{empty}\na.avi,{empty}\nb.avi,{empty}\n"
    path = manifest(tmp_path, "path,caption\n" + rows)
    listed = list_videos(path)
    assert [(sample.path, sample.captions) for sample in listed.samples] == [("a.avi", ("a cat",))]
    assert set(listed.missing) == {"a.avi", "b.avi"}
    last = path.read_text().rstrip("\n").count("\n") + 1
    assert listed.missing["b.avi"] == (
        f"named in manifest.csv lines {3 if last == 5 else 4}, {last}, but its caption has no words"
    )
    assert "left out: its caption has no words (2)" in caplog.text


def test_of_a_file_that_is_not_there_that_is_said(tmp_path):
    listed = list_videos(manifest(tmp_path, "path,caption\na.avi,a cat\ngone.avi,\ngone.avi,a dog\n"))
    assert listed.missing == {"gone.avi": "named in manifest.csv line 3, but there is no such file"}


def test_an_empty_caption_beside_others_of_a_labelled_video_is_listed(tmp_path):
    text = "path,label,caption\na.avi,run,\na.avi,run,a run\nb.avi,walk,\n"
    listed = list_videos(manifest(tmp_path, text))
    assert [(sample.label, sample.captions) for sample in listed.samples] == [("run", ("a run",)), ("walk", ())]
    assert listed.missing == {"a.avi": "named in manifest.csv line 2, but its caption has no words"}


def test_a_caption_of_signs_that_count_as_words_is_one(tmp_path):
    listed = list_videos(manifest(tmp_path, "path,caption\na.avi,50 %\nb.avi,&\n"))
    assert [sample.captions for sample in listed.samples] == [("50 %",), ("&",)]


@pytest.mark.parametrize(
    ("columns", "note"),
    [
        ("path,label,captions", "'captions' is not read; write caption in its place if it is that"),
        ("path,caption,Labels", "'Labels' is not read; write label in its place if it is that"),
        ("path,label,camera", ""),
        ("path,label,caption,captions", ""),
    ],
)
def test_a_column_that_is_nearly_one_of_ours_is_named(tmp_path, columns, note, caplog):
    row = ",".join(["a.avi", "run", "x", "y"][: columns.count(",") + 1])
    listed = list_videos(
        manifest(tmp_path, f"{columns}\n{row}\n{row.replace('a.avi', 'b.avi').replace('run', 'walk')}\n")
    )
    assert len(listed.samples) == 2
    assert note in caplog.text and ("is not read" in caplog.text) == bool(note)


def test_captions_that_repeat_are_kept_once_and_it_is_said(tmp_path, caplog):
    rows = "a.avi,a cat\na.avi,a dog\na.avi, a  cat \nb.avi,a cat\na.avi,a cat\n"
    listed = list_videos(manifest(tmp_path, "path,caption\n" + rows))
    assert [sample.captions for sample in listed.samples] == [("a cat", "a dog"), ("a cat",)]
    assert "manifest.csv: 2 captions are there more than once, kept once: lines 4, 6" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,caption,split\na.avi,x,train\nb.avi,y,test\na.avi,z,val\n",
            "lines 2 and 4 both name a.avi; expected the same split, received train and val; rows of one video may",
        ),
        ("path,caption,group\na.avi,x,anna\na.avi,z,ben\n", "expected the same group, received anna and ben"),
        (
            "path,caption,label\na.avi,x,run\na.avi,z,\n",
            "lines 2 and 3 .* expected the same label, received run and none",
        ),
        ("path,caption,fold\na.avi,x,1\na.avi,x,2\n", "expected the same fold, received 1 and 2"),
        ("path,label,Caption\na.avi,run,x\n", "columns that would be ignored: Caption; expected small letters"),
        ("path,caption\n,x\n", "line 2: path and label must not be empty, received path=''"),
        (
            "path,caption\na.avi,\nb.avi,\n",
            "none of its 2 rows names a file that exists in .* and says something of it",
        ),
        (
            "path,caption,split,start_seconds\na.avi,x,train,1\na.avi,z,val,5\n",
            "lines 2 and 3 give segments of a.avi different splits, train and val",
        ),
        (
            "path,caption,group,start_seconds\na.avi,x,anna,1\na.avi,z,ben,5\n",
            "lines 2 and 3 give segments of a.avi different groups, anna and ben",
        ),
    ],
)
def test_faults_of_captions(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        list_videos(manifest(tmp_path, text))


def test_one_label_is_not_enough_without_captions(tmp_path):
    with pytest.raises(DatasetError, match="expected videos of two or more activities, found run"):
        list_videos(manifest(tmp_path, "path,label,caption\na.avi,run,\nb.avi,run,\n"))
    assert len(list_videos(manifest(tmp_path, "path,label,caption\na.avi,run,\nb.avi,run,x\n")).samples) == 2


def test_segments_overlap_under_different_labels_only_where_they_have_some(tmp_path, caplog):
    rows = "a.avi,run,x,0,10\na.avi,,y,5,12\n"
    list_videos(manifest(tmp_path, "path,label,caption,start_seconds,end_seconds\n" + rows))
    assert "segments overlap" not in caplog.text


def test_a_folder_of_images_that_are_named_is_no_video(tmp_path, caplog):
    make_files(tmp_path, *(f"train2017/{number:012}.jpg" for number in range(3)), "other/1.png", "other/2.png", "c.avi")
    rows = "train2017/000000000000.jpg,a dog\ntrain2017/000000000002.jpg,a cat\n"
    (tmp_path / "manifest.csv").write_text("path,caption\n" + rows)
    assert len(list_videos(tmp_path).samples) == 2
    assert "does not name 2 files beside its videos: c.avi, other\n" in caplog.text


# === Official split lists ===

HMDB_NAMES = {
    "brush_hair": ["April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "old_0.avi"],
    "fall_floor": ["Kampf(2)_fall_floor_f_cm_np1_ri_med_3.avi", "21_fall!_floor_l_cm_np1_le_med_1.avi"],
}


@pytest.fixture
def ucf(tmp_path):
    """A corner of UCF101 and its lists, in their published form."""
    names = [f"{c}/v_{c}_g{g:02d}_c01.avi" for c in ("ApplyEyeMakeup", "Archery") for g in (1, 2, 8, 9)]
    make_files(tmp_path / "UCF-101", *names)
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 Archery\r\n")
    (lists / "trainlist01.txt").write_bytes(
        "".join(f"{n} {1 + ('Archery' in n)}\r\n" for n in names if "g01" not in n).encode()
    )
    (lists / "testlist01.txt").write_bytes("".join(f"{n}\r\n" for n in names if "g01" in n).encode())
    return tmp_path


@pytest.fixture
def hmdb(tmp_path):
    """A corner of HMDB51 and its lists, in their published form: a space ends each line."""
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for label, names in HMDB_NAMES.items():
        make_files(tmp_path / "hmdb51", *(f"{label}/{name}" for name in names))
        rows = [f"{name} {number} \n" for name, number in zip(names, (1, 2, 0), strict=False)]
        (lists / f"{label}_test_split1.txt").write_text("".join(rows))
    return tmp_path


def test_ucf101_lists(ucf):
    listed = list_videos(ucf / "UCF-101", split_files=sorted((ucf / "ucfTrainTestlist").glob("*.txt")))
    splits = {sample.path: sample.split for sample in listed.samples}
    assert Counter(splits.values()) == {"train": 6, "test": 2}
    assert all((split == "test") == ("_g01_" in path) for path, split in splits.items())
    assert not listed.missing


def test_videos_that_no_list_names_are_left_out(ucf, caplog):
    list_path = ucf / "ucfTrainTestlist" / "testlist01.txt"
    listed = list_videos(ucf / "UCF-101", split_files=[list_path])
    assert {sample.split for sample in listed.samples} == {"test"} and len(listed.samples) == 2
    assert "6 of 8 videos are not used by the split lists, left out" in caplog.text


def test_videos_that_only_a_list_names_are_missing(ucf):
    (ucf / "UCF-101/Archery/v_Archery_g02_c01.avi").unlink()
    listed = list_videos(ucf / "UCF-101", split_files=(ucf / "ucfTrainTestlist").glob("t*list01.txt"))
    assert listed.missing == {"Archery/v_Archery_g02_c01.avi": "named in the split lists, but there is no such file"}


def test_lists_also_apply_below_the_class_folder_and_to_a_manifest(ucf):
    inner = ucf / "UCF-101/Archery/cam"
    inner.mkdir()
    (ucf / "UCF-101/Archery/v_Archery_g02_c01.avi").rename(inner / "v_Archery_g02_c01.avi")
    listed = list_videos(ucf / "UCF-101", split_files=(ucf / "ucfTrainTestlist").glob("t*list01.txt"))
    assert len(listed.samples) == 8 and not listed.missing


def test_hmdb51_lists(hmdb):
    listed = list_videos(hmdb / "hmdb51", split_files=sorted((hmdb / "testTrainMulti_7030_splits").iterdir()))
    brush, fall = HMDB_NAMES["brush_hair"], HMDB_NAMES["fall_floor"]
    assert {sample.path: sample.split for sample in listed.samples} == {
        f"brush_hair/{brush[0]}": "train",
        f"brush_hair/{brush[1]}": "test",
        f"fall_floor/{fall[0]}": "train",
        f"fall_floor/{fall[1]}": "test",
    }
    assert not listed.missing


def test_a_video_that_is_unused_and_not_there_is_not_missed(hmdb):
    (hmdb / "hmdb51/brush_hair/old_0.avi").unlink()
    listed = list_videos(hmdb / "hmdb51", split_files=sorted((hmdb / "testTrainMulti_7030_splits").iterdir()))
    assert len(listed.samples) == 4 and not listed.missing


def test_lists_of_two_splits_contradict_each_other(ucf):
    lists = ucf / "ucfTrainTestlist"
    (lists / "testlist02.txt").write_text("Archery/v_Archery_g08_c01.avi\n")
    message = "testlist02.txt: Archery/v_Archery_g08_c01.avi is test here but train in another list; give the lists of"
    with pytest.raises(DatasetError, match=message):
        read_split_files([lists / "trainlist01.txt", lists / "testlist02.txt"])


def test_an_unused_video_of_one_hmdb51_list_is_used_by_another(hmdb):
    lists = hmdb / "testTrainMulti_7030_splits"
    (lists / "brush_hair_test_split2.txt").write_text("old_0.avi 1 \n")
    with pytest.raises(DatasetError, match="brush_hair/old_0.avi is train here but unused in another list"):
        read_split_files(sorted(lists.iterdir()))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("brush_hair_test_split1.txt", "a.avi 3 \n", "expected lines 'NAME.avi 0|1|2' as HMDB51 publishes them"),
        ("brush_hair_test_split1.txt", "a.avi\n", "expected lines 'NAME.avi 0|1|2' as HMDB51 publishes them"),
        ("trainlist01.txt", "v_Archery_g01_c01.avi 1\n", "expected UCF101's trainlistNN.txt / testlistNN.txt"),
        ("mylist.txt", "Archery/a.avi\n", "or HMDB51's LABEL_test_splitN.txt"),
    ],
)
def test_lists_of_another_form(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=message.replace("|", r"\|")):
        read_split_files([tmp_path / name])


def test_a_list_that_is_not_utf8(tmp_path):
    (tmp_path / "trainlist01.txt").write_bytes(b"Caf\xe9/v_Caf\xe9_g01_c01.avi 1\n")
    with pytest.raises(DatasetError, match="trainlist01.txt: not a split list in UTF-8: 'utf-8' codec can't decode"):
        read_split_files([tmp_path / "trainlist01.txt"])


def test_no_such_list(tmp_path):
    with pytest.raises(DatasetError, match="trainlist01.txt: no such split list"):
        read_split_files([tmp_path / "trainlist01.txt"])


def test_lists_cannot_tell_files_of_one_label_and_name_apart(ucf):
    make_files(ucf / "UCF-101", "Archery/again/v_Archery_g01_c01.avi", "Archery/more/v_Archery_g01_c01.avi")
    with pytest.raises(DatasetError, match="split lists name files only by label and name, which .* share"):
        list_videos(ucf / "UCF-101", split_files=[ucf / "ucfTrainTestlist" / "trainlist01.txt"])


def test_a_list_names_all_segments_of_a_file(ucf, caplog):
    names = [path.relative_to(ucf / "UCF-101").as_posix() for path in sorted((ucf / "UCF-101").rglob("*.avi"))]
    rows = [f"{name},{name.partition('/')[0]},{start},{start + 1}" for name in names for start in (0, 3)]
    rows.append(f"{names[0]},Other,5,6")  # no list names the file under this label
    (ucf / "UCF-101/manifest.csv").write_text("\n".join(["path,label,start_seconds,end_seconds", *rows]))
    listed = list_videos(ucf / "UCF-101", split_files=(ucf / "ucfTrainTestlist").glob("t*list01.txt"))
    assert Counter(sample.split for sample in listed.samples) == {"train": 12, "test": 4}
    assert all((sample.split == "test") == ("_g01_" in sample.path) for sample in listed.samples)
    assert [sample.name for sample in listed.samples[:2]] == [f"{names[0]} [0.0-1.0 s]", f"{names[0]} [3.0-4.0 s]"]
    assert "1 of 17 videos are not used by the split lists, left out" in caplog.text and not listed.missing


def test_lists_of_another_data_set(ucf):
    path = ucf / "trainlist01.txt"
    path.write_text("Biking/v_Biking_g01_c01.avi 11\n")
    with pytest.raises(DatasetError, match="none of the 1 videos in the split lists is there"):
        list_videos(ucf / "UCF-101", split_files=[path])


def test_groups_that_differ_only_by_case_are_named(tmp_path, caplog):
    for name in "ab":
        (tmp_path / f"{name}.avi").write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("path,label,group\na.avi,run,anna\nb.avi,walk,Anna\n")
    list_videos(tmp_path)
    assert "groups differ only by case or spaces: Anna, anna; are they one person or recording?" in caplog.text


def test_a_label_whose_folder_holds_a_file_of_the_name_of_ours_is_kept(tmp_path):
    for label in ("run", "walk"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.avi").write_bytes(b"x")
    (tmp_path / "walk" / "dataset.json").write_text('{"kaggle": "meta"}')
    assert {sample.label for sample in list_videos(tmp_path).samples} == {"run", "walk"}


def test_files_beside_those_of_a_manifest_are_named(tmp_path, caplog):
    for name in ("a.avi", "b.avi", "new.avi", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("path,label\na.avi,run\nb.avi,walk\n")
    list_videos(tmp_path)
    assert "manifest.csv: does not name 1 files beside its videos: new.avi" in caplog.text


def test_a_pattern_that_names_folders_searches_them(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.avi", "more/b.avi"):
        (tmp_path / name).write_bytes(b"x")
    assert expand_sources([f"{tmp_path}/*"]) == [f"{tmp_path}/a.avi", f"{tmp_path}/more/b.avi"]


def test_folders_beside_those_of_a_manifest_are_named(tmp_path, caplog):
    make_files(tmp_path, "bend/a.avi", "run/a.avi", "wave1/a.avi", "wave1/b.avi", "wave1/readme.txt", ".cache/x.avi")
    make_files(tmp_path, "data/frames/a.avi")
    (tmp_path / "data" / "dataset.json").write_text('{"format_version": 2, "spec": {}}')
    (tmp_path / "manifest.csv").write_text("path,label\nbend/a.avi,bend\nrun/a.avi,run\n")
    list_videos(tmp_path)
    assert "manifest.csv: does not name 2 files beside its videos: wave1/ (2)" in caplog.text
    caplog.clear()
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    (tmp_path / "manifest.csv").write_text("path,label\nbend/a.avi,bend\nlinked/a.avi,run\nwave1/a.avi,wave1\n")
    list_videos(tmp_path)
    assert "does not name 1 files beside its videos: wave1/b.avi" in caplog.text


def test_a_manifest_of_another_case_is_not_passed_over_unsaid(tmp_path, caplog):
    make_files(tmp_path, "run/a.avi", "walk/a.avi", "notes.txt")
    (tmp_path / "Manifest.csv").write_text("path,label,group\nrun/a.avi,run,anna\nwalk/a.avi,walk,anna\n")
    if (tmp_path / "manifest.csv").exists():
        pytest.skip("this file system takes both names for one")
    listed = list_videos(tmp_path)
    assert f"{tmp_path}/Manifest.csv is not read; call it manifest.csv" in caplog.text
    assert listed.skipped == {"sidecar": 2}


def test_folders_without_videos_do_not_turn_splits_into_labels(tmp_path, caplog):
    make_files(tmp_path, *(f"{split}/{label}/a.avi" for split in ("train", "test") for label in ("run", "walk")))
    make_files(tmp_path, "docs/readme.txt", "val/readme.txt")
    listed = list_videos(tmp_path)
    assert {(sample.split, sample.label) for sample in listed.samples} == {
        (split, label) for split in ("train", "test") for label in ("run", "walk")
    }
    assert listed.skipped == {"sidecar": 2}
    make_files(tmp_path, "extra/b.avi")
    assert {sample.label for sample in list_videos(tmp_path).samples} == {"train", "test", "extra"}
    assert "as splits, each would hold the folders of labels (but: extra)" in caplog.text


def test_a_manifest_in_another_encoding_is_named_by_it(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label\na.avi,run\n", encoding="utf-16")
    with pytest.raises(DatasetError, match="not a CSV file in UTF-8, but in UTF-16; save it as CSV UTF-8"):
        list_videos(tmp_path)
