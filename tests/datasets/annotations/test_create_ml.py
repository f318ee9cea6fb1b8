"""Tables of action classifiers of Create ML."""

import pytest


@pytest.mark.parametrize(
    "header",
    ["videoPath,label,startTime,endTime", "video,label,start,end", "file_name,label,start_time,end_time"],
)
def test_times_are_seconds_or_a_clock(write, same_as_by_hand, header):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds",
            "a.avi,Jumping Jacks,1.5,4",
            "a.avi,Squats,5,7.25",
            "day 1/c.avi,Squats,0,3",
            "slow/d.avi,Squats,,",
        ],
        write(
            "annotations.csv",
            [
                header,
                "a.avi,Jumping Jacks,1.5,4",
                "a.avi,Squats,00:05,0:00:07.25",
                '"day 1/c.avi",Squats,,0:03',
                "d.avi,Squats,,",
            ],
        ),
    )
    assert not problems


def test_further_columns_are_carried_and_json_is_a_table_too(write, same_as_by_hand):
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds,person", "a.avi,run,1,2,anna", "b.avi,walk,0,2,ben"],
        write(
            "annotations.json",
            [
                {"video": "a.avi", "label": "run", "start": 1.0, "end": 2.0, "person": "anna"},
                {"video": "b.avi", "label": "walk", "start": 0, "end": "00:02", "person": "ben"},
            ],
        ),
    )
    assert not problems


def test_faults_are_named_with_their_row(write, films, problems_of):
    labels, problems = problems_of(
        write(
            "m.csv",
            [
                "video,label,start,end",
                "a.avi,run,1,2",
                "a.avi,run,2,1",
                "a.avi,run,2,2",
                "a.avi,run,-1,2",
                "a.avi,run,-0:01,2",
                "a.avi,run,11,12",
                "a.avi,run,9,12",
                "a.avi,walk,1,two",
                "aa.avi,run,1,2",
                "same.avi,run,1,2",
                "b.avi,,1,2",
                ",run,1,2",
                "b.avi,run,nan,2",
                "a.avi,run,1,2",
                "a.avi,walk,1,2",
                "x/same.avi,walk,0,2.05",
            ],
        )
    )
    assert labels == ["run", "walk", "run", "walk"]
    assert problems == [
        "m.csv: row 3: ERROR: end before start: 2 to 1",
        "m.csv: row 4: ERROR: no length: 2 to 2",
        "m.csv: row 5: ERROR: negative time: begins at -1 s",
        "m.csv: row 6: ERROR: negative time: begins at -1 s",
        "m.csv: row 7: ERROR: beyond the film's end: begins at 11 s, that of a.avi is at 10.00 s",
        "m.csv: row 8: WARNING: ends at 12 s, beyond the film's end at 10.00 s; it is cut there",
        "m.csv: row 9: ERROR: not a number: expected seconds, or mm:ss, received two",
        f"m.csv: row 10: ERROR: there is no film aa.avi in {films}; did you mean 'a.avi'?",
        "m.csv: row 11: ERROR: 2 films of one name, x/same.avi, y/same.avi; expected more of the path of same.avi",
        "m.csv: row 12: ERROR: has no label",
        "m.csv: row 13: ERROR: names no film",
        "m.csv: row 14: ERROR: not a number: expected seconds, or mm:ss, received nan",
        "m.csv: row 15: WARNING: the same as m.csv row 2, kept once",
    ]


def test_fields_that_have_no_column_are_an_error(write, problems_of):
    rows = ["a.avi,run,0,1,,", "a.avi,walk,1,2,slowly", "a.avi,run,2,3"]
    labels, problems = problems_of(write("m.csv", ["video,label,start,end", *rows]))
    assert labels == ["run", "run"]
    assert problems == ["m.csv: row 3: ERROR: expected 4 fields, as the header has, received 5"]


@pytest.mark.parametrize(
    "header, missing",
    [
        ("video,start,end", "missing column label"),
        ("video,label,start", "missing column end, where there is start"),
        ("video,label,label", "columns that occur more than once: label"),
    ],
)
def test_a_missing_column_is_named(write, problems_of, header, missing):
    good = write("good.csv", ["video,label,start,end", "a.avi,run,1,2"])
    labels, problems = problems_of(write("bad.csv", [header, "a.avi,1,2"]), good)
    assert labels == ["run"] and problems[0].startswith(f"bad.csv: row 1: ERROR: {missing}") and len(problems) == 1


def test_a_split_of_the_labels_counts_as_that_of_a_manifest(write, same_as_by_hand, problems_of):
    by_hand = ["path,label,start_seconds,end_seconds,split", "a.avi,run,1,2,test", "b.avi,walk,0,2,train"]
    rows = ["video,label,start,end,split", "a.avi,run,1,2,Test", "b.avi,walk,0,2,train"]
    assert not same_as_by_hand(by_hand, write("m.csv", rows))
    labels, problems = problems_of(write("n.csv", [*rows, "day 1/c.avi,run,0,1,trial"]))
    assert labels == ["run", "walk"]
    (problem,) = problems
    assert "row 4" in problem and "ERROR: split must be one of train, val, test or empty, received trial" in problem


def test_captions_beside_labels_are_said_not_to_be_read(write, problems_of):
    rows = ["video,label,start,end,caption", "a.avi,run,1,2,a man runs", "b.avi,walk,0,2,a man walks"]
    labels, problems = problems_of(write("m.csv", rows))
    assert labels == ["run", "walk"]
    (problem,) = problems
    assert "WARNING: its caption is not read; sentences come from a manifest with a column caption" in problem


def test_a_decimal_comma_is_told_how_to_write_it(write, problems_of):
    rows = ["video;label;start;end", "a.avi;run;0,5;2", "b.avi;walk;0;2"]
    labels, problems = problems_of(write("m.csv", rows))
    assert labels == ["walk"]
    assert "received 0,5; write a point in place of the comma" in problems[0]
