"""Timelines and manifests of this program as annotations."""

import pytest

from activity.datasets.annotations.matching import pair_films, read_labels
from activity.errors import DatasetError

RUN, SIT = (0.0, 1.5, "run"), (1.5, 3.0, "sit")
ROWS = [dict(zip(("start_seconds", "end_seconds", "label", "probability"), (*x, 0.9), strict=True)) for x in (RUN, SIT)]
TABLE = ["start_seconds,end_seconds,label,probability", "0,1.5,run,0.9", "1.5,3,sit,0.9"]
MANIFEST = ["path,label,start_seconds,end_seconds", "x/a.avi,run,,1.5", "x/a.avi,sit,1.5,3", "x/a.avi,,3,4"]


@pytest.mark.parametrize(
    "name, content, film, seconds",
    [
        ("t.json", {"source": "x\\a.avi", "duration_seconds": 3.0, "segments": ROWS}, "x/a.avi", 3.0),
        ("a.csv", TABLE, "a", None),
        ("manifest.csv", MANIFEST, "x/a.avi", None),
    ],
)
def test_files_of_this_program_are_read_without_films(write, name, content, film, seconds):
    (labels,), num_wrong = read_labels([[write(name, content)]])
    assert num_wrong == 0 and list(labels) == [film]
    assert labels[film].spans == [RUN, SIT] and labels[film].seconds == seconds


def test_a_whole_film_of_a_data_set_has_its_length(write):
    rows = ["sample_id,path,label,duration_seconds", "1,a.avi,run,7.5"]
    (labels,), _ = read_labels([[write("manifest.csv", rows)]])
    assert labels["a.avi"].spans == [(0.0, float("inf"), "run")] and labels["a.avi"].seconds == 7.5


def test_a_segment_without_times_is_an_error(write, caplog):
    damaged = {"source": "a.avi", "segments": [{"label": "run"}, *ROWS]}
    (labels,), num_wrong = read_labels([[write("t.json", damaged)]])
    assert num_wrong == 1 and labels["a.avi"].spans == [RUN, SIT]
    assert "segment 1: expected label, start_seconds and end_seconds" in caplog.text


def test_films_at_hand_tell_lengths_and_rates(write, films):
    frames = write("d_labels.csv", [",run", *(f"{i},{int(i < 10)}" for i in range(50))])
    (labels,), _ = read_labels([[frames]], films)
    assert labels["slow/d.avi"].spans == [(0.0, 2.0, "run")] and labels["slow/d.avi"].seconds == pytest.approx(10.0)


def test_frame_numbers_without_films_need_a_rate(write, caplog):
    frames = write("d_labels.csv", [",run", *(f"{i},{int(i < 10)}" for i in range(50))])
    (labels,), num_wrong = read_labels([[frames]])
    assert num_wrong == 1 and not labels and "give it with --label-rate" in caplog.text
    (labels,), num_wrong = read_labels([[frames]], label_rate=5)
    (film,) = labels.values()
    assert num_wrong == 0 and film.spans == [(0.0, 2.0, "run")] and film.seconds == 10.0


def test_an_option_is_in_vain_only_if_no_file_needs_it(write, caplog):
    frames, table = write("a_labels.csv", [",run", "0,1", "1,0"]), write("a.csv", TABLE)
    read_labels([[frames], [table]], label_rate=5)
    assert "does nothing here" not in caplog.text
    read_labels([[table], [table]], label_rate=5)
    assert "--label-rate does nothing here: these files count in seconds" in caplog.text


def test_a_folder_that_is_not_there_is_an_error(write, tmp_path):
    with pytest.raises(DatasetError, match="expected the folder of the videos"):
        read_labels([[write("a.csv", TABLE)]], tmp_path / "none")


@pytest.mark.parametrize(
    "names, others, pairs",
    [
        (["a.avi"], ["/data/A.avi"], {"a.avi": "/data/A.avi"}),
        (["a"], ["x/a.mp4"], {"a": "x/a.mp4"}),
        (["x/a.mp4"], ["a"], {"x/a.mp4": "a"}),
        (["x/a.avi", "y/a.avi"], ["/d/y/a.avi", "/d/x/a.avi"], {"x/a.avi": "/d/x/a.avi", "y/a.avi": "/d/y/a.avi"}),
        (["x/a.avi", "y/a.avi"], ["a.avi"], {}),
        (["x/a.avi"], ["x/a.avi", "y/a.avi"], {"x/a.avi": "x/a.avi"}),
        (["a.avi"], ["b.avi"], {}),
    ],
)
def test_films_are_paired_where_it_is_clear(names, others, pairs):
    assert pair_films(names, others) == pairs
    assert pair_films(others, names) == {other: name for name, other in pairs.items()}
