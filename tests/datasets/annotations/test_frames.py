"""Labels frame by frame."""

import pytest

from activity.datasets.annotations.matching import list_labelled
from activity.errors import DatasetError


def deepethogram(*columns):
    """A table as `DataFrame.to_csv` writes it: the first column is the number of the frame, without a name."""
    names, values = zip(*columns, strict=True)
    rows = enumerate(zip(*values, strict=True))
    return [",".join(["", *names]), *(",".join(map(str, (index, *cells))) for index, cells in rows)]


def film_of(length, **runs):
    """Columns of 0 and 1: name -> first frame and the one after the last."""
    return [(name, [int(start <= i < stop) for i in range(length)]) for name, (start, stop) in runs.items()]


def test_a_column_a_behaviour_gives_its_runs(write, same_as_by_hand):
    columns = film_of(100, background=(0, 20), run=(20, 50), wave=(30, 100))
    file = write("a_labels.csv", deepethogram(*columns))
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds", "a.avi,background,0,2", "a.avi,run,2,5", "a.avi,wave,3,10"], file
    )
    assert not problems


def test_the_rate_of_the_labels_may_be_given(write, same_as_by_hand):
    file = write("a.csv", deepethogram(*film_of(50, run=(10, 20), wave=(20, 25))))
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds", "a.avi,run,2,4", "a.avi,wave,4,5"], file, label_rate=5
    )
    assert problems == {
        "a.csv: row 12 to 21": "WARNING: a.avi has 10 frames a second, but --label-rate 5; frames are counted at 5"
    }


@pytest.mark.parametrize(
    "place, told",
    [
        ("labels/c_labels.csv", False),  # a folder of their own, flat
        ("labels/day 1/c_labels.csv", False),  # or laid out as the films are
        ("labels/slow/c_labels.csv", True),  # which is the folder of another film
    ],
)
@pytest.mark.parametrize("ending", [".csv", ".txt"])
def test_labels_may_be_kept_in_a_folder_of_their_own(films, tmp_path, place, told, ending):
    file = (tmp_path / place).with_suffix(ending)
    file.parent.mkdir(parents=True)
    file.write_text("1\n" * 60 if ending == ".txt" else "\n".join(deepethogram(*film_of(60, run=(0, 60)))))
    listed = list_labelled(films, [file])
    assert [(sample.path, sample.span) for sample in listed.samples] == [("day 1/c.avi", (0.0, 6.0))]
    found = [reason for reason in listed.problems.values() if "folders differ" in reason]
    assert len(found) == told
    if told:
        assert f"{tmp_path}/labels/slow/c is taken for day 1/c.avi, by its name alone; their folders differ" in found[0]


def test_what_nobody_has_labelled_and_what_is_no_number_give_no_label(write, problems_of):
    run = [1] * 10 + [-1] * 5 + [0] * 85
    lines = deepethogram(("run", run), ("wave", [0] * 99 + [1]))
    lines[4] = "3,yes,0"
    lines[5] = "4,1"
    labels, problems = problems_of(write("b_labels.csv", lines))
    assert labels == ["run", "run", "wave"]
    assert problems == [
        "b_labels.csv: row 5: ERROR: not a number 0, 1 or -1 in column run: yes; this frame gets no label of it",
        "b_labels.csv: row 6: ERROR: not a number 0, 1 or -1 in column wave: nothing; this frame gets no label of it",
        "b_labels.csv: file: WARNING: 5 cells are -1, which nobody has labelled; no label is read from them",
    ]


def test_a_row_with_more_fields_than_columns_gives_no_label(write, problems_of):
    lines = deepethogram(*film_of(100, run=(0, 10)))
    lines[5] += ",1"
    labels, problems = problems_of(write("a.csv", lines))
    assert labels == ["run", "run"]
    assert problems == ["a.csv: row 6: ERROR: expected 2 fields, as the header has; this frame gets no label"]
    assert labels == ["run", "run"]


@pytest.mark.parametrize("base", [0, 1])
def test_frames_are_those_that_the_first_column_numbers(write, problems_of, films, base):
    rows = [(number, int(number < 10 or number >= 40)) for number in [*range(20), *range(30, 60), 5, 99]]
    lines = [",run", *(f"{number + base},{value}" for number, value in rows), "x,1"]
    listed = list_labelled(films, [write("a.csv", lines)])
    assert [sample.span for sample in listed.samples] == [(0.0, 1.0), (4.0, 6.0), (9.9, 10.0)]
    assert listed.problems == {
        "a.csv: row 22": "ERROR: 10 frames are missing before it; they get no label",
        "a.csv: row 52": f"ERROR: frame {5 + base} is there already, in row 7; it keeps that label",
        "a.csv: row 53": "ERROR: 39 frames are missing before it; they get no label",
        "a.csv: row 54": "ERROR: not a number of a frame: x; it gets no label",
    }


@pytest.mark.parametrize("lines", [["run", *"1" * 10, "", *"0" * 88, "1"], [*"1" * 10, "", *"0" * 88, "1"]])
def test_an_empty_row_is_a_frame_too(write, films, lines):
    listed = list_labelled(films, [write("a.csv", lines)])
    assert [sample.span for sample in listed.samples if sample.label in ("run", "1")] == [(0.0, 1.0), (9.9, 10.0)]
    assert list(listed.problems.values()) in (
        ["ERROR: 1 frames are missing before it; they get no label"],
        ["ERROR: not a number of a label: nothing; it gets no label"],
    )


def test_a_table_of_another_length_than_its_film_is_said(write, problems_of):
    _, problems = problems_of(write("a.csv", deepethogram(*film_of(60, run=(10, 20)))))
    assert problems == ["a.csv: row 12 to 21: WARNING: a.avi lasts 10.00 s, but its labels are of a film of 6.00 s"]


NUMBERS = [0] * 10 + [2] * 20 + [-1] * 30 + [1] * 40
ROWS = ["path,label,start_seconds,end_seconds", "a.avi,0,0,1", "a.avi,2,1,3", "a.avi,1,6,10"]


@pytest.mark.parametrize("separator", ["\n", ",", " ", "\r\n", ", "])
def test_a_list_of_integers_gives_its_runs(write, same_as_by_hand, separator):
    problems = same_as_by_hand(ROWS, write("a.txt", separator.join(map(str, NUMBERS))))
    assert list(problems.values()) == ["WARNING: 30 frames are below 0, which says that they have no label"]


def test_a_list_may_be_json_and_names_what_is_no_number(write, same_as_by_hand):
    assert len(same_as_by_hand(ROWS, write("a.json", NUMBERS))) == 1
    problems = same_as_by_hand([*ROWS[:-1], "a.avi,1,6,9.9"], write("a.json", [*NUMBERS[:-1], 1.5]))
    assert problems["a.json: frame 99"] == "ERROR: not a number of a label: 1.5; it gets no label"


def test_what_is_no_integer_is_named_with_its_frame(write, problems_of):
    labels, problems = problems_of(write("a.txt", "\n".join([*map(str, NUMBERS[:8]), "two", *map(str, NUMBERS[9:])])))
    assert labels == ["0", "0", "2", "1"]
    assert problems[0] == "a.txt: frame 8: ERROR: not a number of a label: two; it gets no label"


def test_lists_of_many_films_have_names_and_splits(write, same_as_by_hand):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,split",
            "a.avi,other,0,1,train",
            "a.avi,walk,1,3,train",
            "a.avi,run,6,10,train",
            "day 1/c.avi,run,0,6,test",
        ],
        write(
            "feral.json",
            {
                "is_multilabel": False,
                "splits": {"train": ["a.avi"], "val": [], "test": ["c.avi"], "inference": []},
                "class_names": {"0": "other", "1": "run", "2": "walk"},
                "labels": {"a.avi": NUMBERS, "c.avi": [1] * 60, "b.avi": [[1, 0]], "d.avi": [7] * 50},
            },
        ),
    )
    assert problems == {
        "feral.json: a.avi frame": "WARNING: 30 frames are below 0, which says that they have no label",
        "feral.json: b.avi": "ERROR: expected a list of one integer a frame; several labels at once are not read",
        "feral.json: d.avi frame 0 to 49": "ERROR: label 7 has no name; class_names has 0, 1, 2",
    }


def test_a_column_of_times_is_no_behaviour(write, films):
    """As in tables of behaviours that BORIS samples at an interval: their rows are no frames."""
    rows = [f"{0.5 * number},{number % 2},0" for number in range(20)]
    with pytest.raises(DatasetError, match="not a file of annotations that is known"):
        list_labelled(films, [write("a.csv", ["time,run,wave", *rows])])
