"""Names of films, clocks, and what is said of several files."""

import dataclasses
import logging

import numpy as np
import pytest
from PIL import Image

from activity.datasets.annotations.matching import list_labelled
from activity.errors import DatasetError, SettingError
from activity.files import read_csv, write_csv
from activity.video.images import probe

HEADER = "video,label,start,end"


@pytest.mark.parametrize(
    "name, path",
    [
        ("a.avi", "a.avi"),
        ("/home/me/study/a.avi", "a.avi"),
        ("C:\\Users\\me\\a.avi", "a.avi"),
        ("\\\\server\\share\\X\\SAME.AVI", "x/same.avi"),
        ("/data/upload/4/y/same.avi", "y/same.avi"),
        ("./day 1/c.avi", "day 1/c.avi"),
        ("0a1b2c3d-a.avi", "a.avi"),
        ("/data/upload/7/0a1b2c3d-d.avi", "slow/d.avi"),
        ("d", "slow/d.avi"),
    ],
)
def test_films_are_found_by_the_end_of_their_path_then_by_their_name(write, films, name, path):
    listed = list_labelled(films, [write("m.csv", [HEADER, f"{name},run,0,1"])])
    assert [sample.path for sample in listed.samples] == [path] and not listed.problems


@pytest.mark.parametrize(
    "name, path, told",
    [
        ("/other/folder/c.avi", "day 1/c.avi", True),
        ("day 2/c.avi", "day 1/c.avi", True),
        ("D:\\day 2\\c.avi", "day 1/c.avi", True),
        ("day 1/a.avi", "a.avi", True),
        ("day 2/a.avi", "a.avi", False),  # no folder here has that name: those of another machine
        ("/data/upload/7/0a1b2c3d-c.avi", "day 1/c.avi", False),  # Label Studio keeps no folder
        ("c.avi", "day 1/c.avi", False),
    ],
)
def test_a_film_of_another_folder_is_said_once(write, films, name, path, told):
    listed = list_labelled(films, [write("m.csv", [HEADER, f"{name},run,0,1", f"{name},run,1,2"])])
    assert {sample.path for sample in listed.samples} == {path}
    expected = {"m.csv: row 2": f"WARNING: {name} is taken for {path}, by its name alone; their folders differ"}
    assert listed.problems == (expected if told else {})


def test_an_exact_path_is_no_name_of_two(write, films):
    (films / "same.avi").symlink_to(films / "x" / "same.avi")
    try:
        listed = list_labelled(films, [write("m.csv", [HEADER, "same.avi,run,0,1"])])
        assert [sample.path for sample in listed.samples] == ["same.avi"]
    finally:
        (films / "same.avi").unlink()


def test_names_that_differ_by_case_only_are_two(write, films):
    (films / "A.avi").symlink_to(films / "a.avi")
    try:
        listed = list_labelled(films, [write("m.csv", [HEADER, "A.avi,run,0,1", "/x/a.avi,run,1,2"])])
        assert [(sample.path, sample.span[0]) for sample in listed.samples] == [("A.avi", 0.0), ("a.avi", 1.0)]
    finally:
        (films / "A.avi").unlink()


def test_a_film_whose_length_only_decoding_would_tell_has_no_end(write, films, monkeypatch):
    module = "activity.datasets.annotations.matching"
    monkeypatch.setattr(f"{module}.index_frames", lambda _: None)
    monkeypatch.setattr(f"{module}.probe", lambda path: dataclasses.replace(probe(path), num_frames_claimed=0))
    listed = list_labelled(films, [write("m.csv", [HEADER, "a.avi,run,0,500", "a.avi,walk,7,"])])
    assert [sample.span for sample in listed.samples] == [(0.0, 500.0), (7.0, float("inf"))]
    old = ["Observation id,Media file,Subject,Behavior,Behavior type,Start (s),Stop (s)"]
    old += ["1,a.avi,anna,run,STATE,1,2", "1,b.avi,anna,run,STATE,13,14"]
    with pytest.raises(DatasetError, match="the length of a.avi is not known, so no time of the next film is"):
        list_labelled(films, [write("old.csv", old)])


def test_two_names_for_one_film_are_said(write, problems_of):
    rows = ["/day 1/c.avi,run,0,1", "/day 2/c.avi,run,1,2", "c.avi,run,2,3", "D:\\day 1\\c.avi,run,3,4"]
    labels, problems = problems_of(write("m.csv", [HEADER, *rows]))
    assert labels == ["run"] * 4
    assert problems == ["m.csv: row 3: WARNING: /day 1/c.avi and /day 2/c.avi are both taken for day 1/c.avi"]


def test_a_row_in_another_encoding_is_an_error_and_the_others_are_read(write, problems_of):
    content = f"{HEADER}\na.avi,run,0,1\na.avi,f\xfcttern,1,2\nb\xe9.avi,run,0,1\nb.avi,run,0,1\n".encode("latin-1")
    labels, problems = problems_of(write("m.csv", content))
    assert labels == ["run", "run"]
    assert problems == [
        "m.csv: row 3: ERROR: wrong encoding: expected UTF-8, received f\\xfcttern; save the file as UTF-8",
        "m.csv: row 4: ERROR: wrong encoding: expected UTF-8, received b\\xe9.avi; save the file as UTF-8",
    ]


def test_what_cannot_be_written_is_spelled_out(write, films, tmp_path):
    """A column in another encoding; and names in JSON may be no text at all."""
    names = {"database": {"\ud800": {"annotations": [{"label": "run", "segment": [0, 1]}]}}}
    good = write("m.csv", [HEADER, "a.avi,run,0,1", "b.avi,walk,0,1"])
    column = write("c.csv", f"{HEADER},gr\xf6\xdfe\na.avi,run,1,2,3\n".encode("latin-1"))
    listed = list_labelled(films, [good, column, write("n.json", names)])
    assert len(listed.samples) == 2
    write_csv(tmp_path / "problems.csv", ["path"], [{"path": f"{a}: {b}"} for a, b in listed.problems.items()])
    assert [row["path"] for row in read_csv(tmp_path / "problems.csv")] == [
        "c.csv: row 2: ERROR: wrong encoding: expected UTF-8, received gr\\xf6\\xdfe; save the file as UTF-8",
        "n.json: video \\ud800 annotation 1: ERROR: wrong encoding: expected UTF-8, received \\ud800; "
        "save the file as UTF-8",
    ]


def test_a_file_that_is_empty_or_unknown_is_an_error_and_the_others_are_read(write, problems_of, tmp_path):
    good = write("m.csv", [HEADER, "a.avi,run,0,1"])
    labels, problems = problems_of(write("empty.csv", ""), good, tmp_path / "none.csv", write("header.csv", [HEADER]))
    assert labels == ["run"]
    assert problems == [
        "empty.csv: ERROR: the file is empty; expected annotations",
        "none.csv: ERROR: no such file; expected annotations of another tool",
        "header.csv: ERROR: holds no labels; it is taken for Create ML (CSV or JSON)",
    ]


def test_without_a_good_row_the_first_problem_is_raised(write, films, tmp_path):
    with pytest.raises(DatasetError, match="can be used; first problem: m.csv: row 2: ERROR: end before start: 2 to 1"):
        list_labelled(films, [write("m.csv", [HEADER, "a.avi,run,2,1"])])
    with pytest.raises(DatasetError, match="expected the folder of the videos that the labels are of"):
        list_labelled(tmp_path / "none", [tmp_path / "m.csv"])


@pytest.mark.parametrize("option", ["label_rate", "point_seconds"])
def test_settings_are_above_0(films, option):
    with pytest.raises(SettingError, match=f"{option} must be above 0, received: -1"):
        list_labelled(films, [], **{option: -1})


def test_options_in_vain_are_named(write, films, caplog):
    list_labelled(films, [write("m.csv", [HEADER, "a.avi,run,0,1"])], tiers=["legs"], label_rate=25, point_seconds=1)
    said = [record.message for record in caplog.records if "does nothing" in record.message]
    assert said == [
        "--tier does nothing here: these files have no tiers",
        "--label-rate does nothing here: these files count in seconds",
        "--point-seconds does nothing here: these files have no events without a length",
    ]


def test_problems_are_logged_with_file_and_row_but_not_without_end(write, films, caplog):
    rows = [f"a.avi,run,{2 + number},1" for number in range(40)]
    file = write("m.csv", [HEADER, "a.avi,run,0,1", *rows, *["a.avi,,1,2"] * 7])
    listed = list_labelled(films, [file])
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert errors[0] == f"ERROR {file}: row 3: end before start: 2 to 1"
    assert len(errors) == 30 and len(listed.problems) == 47
    assert "ERROR: 11 more, in problems.csv" in caplog.messages
    caplog.clear()
    list_labelled(films, [write("m.csv", [HEADER, "a.avi,run,0,1", *["a.avi,,1,2"] * 7])])
    assert f"ERROR {file}: row 3, row 4, row 5, row 6, row 7 and 2 more: has no label" in caplog.messages


def test_overlaps_are_said_once_and_films_without_labels_too(write, films, caplog):
    file = write("m.csv", [HEADER, "a.avi,run,0,2", "a.avi,walk,1,3"])
    listed = list_labelled(films, [file])
    assert [sample.label for sample in listed.samples] == ["run", "walk"] and not listed.problems
    assert [message for message in caplog.messages if "segments overlap" in message] == [
        "1 pairs of segments overlap under different labels: a.avi [0.0-2.0 s] (run) and a.avi [1.0-3.0 s] (walk); "
        "train --multi-label learns both"
    ]
    assert (
        f"{file}: does not name 5 files beside its videos: b.avi, day 1/ (1), slow/ (1) and 2 more" in caplog.messages
    )


def test_films_whose_rows_are_wrong_are_named_all_the_same(write, films, caplog):
    rows = ["a.avi,run,0,1", "b.avi,run,5,4", "day 1/c.avi,,0,1", "slow/d.avi,run,3,x", "y/same.avi,run,900,901"]
    list_labelled(films, [write("m.csv", [HEADER, *rows])])
    assert [text for text in caplog.messages if "does not name" in text] == [
        f"{write('m.csv', [])}: does not name 1 files beside its videos: x/ (1)"
    ]


def test_a_manifest_in_the_folder_is_not_read_and_labels_beside_films_are_none(films, caplog):
    manifest, labels = films / "manifest.csv", films / "labels.of.films"
    manifest.write_text("path,label\nb.avi,walk\n")
    labels.write_text(f"{HEADER}\na.avi,run,0,1\n")
    try:
        listed = list_labelled(films, [labels])
    finally:
        manifest.unlink()
        labels.unlink()
    assert [(sample.path, sample.label) for sample in listed.samples] == [("a.avi", "run")]
    assert f"{manifest} is not read: the labels are those of --labels" in caplog.messages
    (unnamed,) = (message for message in caplog.messages if "does not name" in message)
    assert unnamed.endswith("does not name 5 files beside its videos: b.avi, day 1/ (1), slow/ (1) and 2 more")


def test_folders_of_images_have_the_rate_that_is_given(write, tmp_path):
    folder = tmp_path / "films" / "walk"
    folder.mkdir(parents=True)
    for number in range(1, 21):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f"{number:04}.png")
    file = write("walk.txt", " ".join(["0"] * 5 + ["1"] * 15))
    listed = list_labelled(tmp_path / "films", [file], images_per_second=5)
    assert [(x.path, x.label, x.span) for x in listed.samples] == [("walk", "0", (0.0, 1.0)), ("walk", "1", (1.0, 4.0))]
    assert not listed.problems


def test_a_film_that_does_not_open_is_left_to_the_decoder(write, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    (films / "broken.avi").write_bytes(b"RIFF nothing")
    seconds = write("m.csv", [HEADER, "broken.avi,run,0,1", "broken.avi,walk,1,200"])
    assert len(list_labelled(films, [seconds]).samples) == 2
    frames = write("broken.txt", "0 0 1 1")
    with pytest.raises(DatasetError, match=r"broken.avi cannot be opened \(.*\), so its rate is unknown; give it"):
        list_labelled(films, [frames])
    assert len(list_labelled(films, [frames], label_rate=2).samples) == 2


def test_a_column_called_group_is_the_group(write, same_as_by_hand, problems_of):
    rows = ["a.avi,run,0,1,anna", "a.avi,walk,1,2,anna", "b.avi,run,0,1,"]
    file = write("m.csv", [f"{HEADER},group", *rows])
    assert not same_as_by_hand(
        ["path,label,start_seconds,end_seconds,group", *rows[:2], "b.avi,run,0,1,b.avi"],
        file,
    )
    _, problems = problems_of(write("two.csv", [f"{HEADER},group", rows[0], "a.avi,walk,1,2,ben"]))
    assert problems == [
        "two.csv: row 3: ERROR: a.avi has two groups, anna and ben; all labels of a film must keep to one group"
    ]


def test_numbers_without_measure_are_none(write, problems_of):
    huge = "9" * 400
    entries = [{"video": "a.avi", "label": "run", "start": 0, "end": end} for end in (1, int(huge), True, [2], 1e309)]
    labels, problems = problems_of(write("m.json", entries))
    assert labels == ["run"] and len(problems) == 4
    assert all("ERROR: not a number: expected seconds, or mm:ss, received" in problem for problem in problems)
