"""Exports as BORIS writes them: columns of `export_observation.py` and `export_events.py` of versions 7, 8 and 9."""

import json

import pytest

AGGREGATED = (
    "Observation id,Observation date,Description,Observation type,Source,Time offset (s),Coding duration,"
    "Media duration (s),FPS (frame/s),weather,Subject,Observation duration by subject by observation,Behavior,"
    "Behavioral category,Modifier #1,Behavior type,Start (s),Stop (s),Duration (s),Media file name,Image index start,"
    "Image index stop,Image file path start,Image file path stop,Comment start,Comment stop"
).split(",")
TABULAR = (
    "Observation id,Observation date,Description,Observation duration,Observation type,Source,Time offset (s),"
    "Media duration (s),FPS,Subject,Behavior,Behavioral category,Behavior type,Time,Media file name,Image index,"
    "Image file path,Comment"
).split(",")


def table(columns, *rows, separator="\t", **common):
    """Lines of an export; what a row does not say is as common to all rows, or empty."""
    cells = [[str({**common, **row}.get(column, "")) for column in columns] for row in rows]
    return [separator.join(row) for row in (columns, *cells)]


def aggregated(*rows, separator="\t", **more):
    common = {
        "Observation id": "obs 1",
        "Observation type": "Media file",
        "Source": "player #1:C:\\Users\\me\\films\\a.avi",
        "Time offset (s)": "0.0",
        "Media duration (s)": "10.000",
        "FPS (frame/s)": "10.000",
        "Subject": "No focal subject",
        "Behavioral category": "",
        "Behavior type": "STATE",
    }
    return table(AGGREGATED, *rows, separator=separator, **{**common, **more})


def state(start, stop, behavior, **more):
    return {"Behavior": behavior, "Start (s)": start, "Stop (s)": stop, **more}


def point(time, behavior, **more):
    return state(time, time, behavior, **{"Behavior type": "POINT", "Duration (s)": "NA", **more})


@pytest.mark.parametrize("separator, name", [("\t", "events.tsv"), (",", "events.csv"), (";", "semicolons.csv")])
def test_aggregated_events_give_the_rows_of_a_manifest(write, same_as_by_hand, separator, name):
    lines = aggregated(
        state("1.500", "4.000", "run", Subject="anna", weather="rain", **{"Modifier #1": "fast"}),
        state("2.000", "3.000", "wave", Subject="ben", **{"Behavioral category": "hands", "Comment start": "left"}),
        separator=separator,
    )
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,subject,observation,category,modifiers,weather,comment",
            "a.avi,run,1.5,4,anna,obs 1,,fast,rain,",
            "a.avi,wave,2,3,ben,obs 1,hands,,,left",
        ],
        write(name, lines),
    )
    assert not problems


def test_points_have_the_length_that_is_asked_for(write, same_as_by_hand, problems_of):
    file = write("e.tsv", aggregated(point("0.200", "hop"), point("5.000", "hop"), state("1.000", "2.000", "run")))
    same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,observation",
            "a.avi,hop,0,0.7,obs 1",
            "a.avi,hop,4.5,5.5,obs 1",
            "a.avi,run,1,2,obs 1",
        ],
        file,
        point_seconds=1.0,
    )
    labels, problems = problems_of(file)
    assert labels == ["run"]
    assert problems == [
        f"e.tsv: row {row}: WARNING: a POINT event has no length, and is left out; --point-seconds S gives it one"
        for row in (2, 3)
    ]


QUEUE = {"Source": "player #1:/home/me/a.avi;/home/me/day 1/c.avi|player #2:/home/me/b.avi"}
QUEUE |= {"Media duration (s)": "10.000;6.000|10.000", "FPS (frame/s)": "10.000;10.000|10.000"}


def test_films_queued_in_one_player_have_one_clock(write, same_as_by_hand):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,observation",
            "a.avi,run,1,2,obs 1",
            "a.avi,walk,9,10,obs 1",
            "day 1/c.avi,walk,0,1.5,obs 1",
            "day 1/c.avi,run,3.25,6,obs 1",
        ],
        write(
            "e.tsv",
            aggregated(
                state("1.000", "2.000", "run"),
                state("13.250", "16.000", "run"),
                state("9.000", "11.500", "walk"),
                **QUEUE,
            ),
        ),
    )
    assert list(problems.values()) == [
        "WARNING: films of 1 more players show the same; only those of player 1 get the labels",
        "WARNING: goes on from one film to the next, so it is divided: a.avi, day 1/c.avi",
    ]
    assert list(problems) == ["e.tsv: row 2", "e.tsv: row 4"]


def test_a_time_offset_is_taken_away(write, same_as_by_hand, problems_of):
    rows = state("5401.000", "5402.000", "run"), state("5403.000", "5404.000", "walk")
    file = write("e.tsv", aggregated(*rows, **{"Time offset (s)": "5400.0"}))
    same_as_by_hand(
        ["path,label,start_seconds,end_seconds,observation", "a.avi,run,1,2,obs 1", "a.avi,walk,3,4,obs 1"], file
    )
    early = write("early.tsv", aggregated(state("5.0", "6.0", "run"), rows[0], **{"Time offset (s)": "5400.0"}))
    assert problems_of(early) == (
        ["run"],
        ["early.tsv: row 2: ERROR: negative time: begins at -5395 s (5.0 less an offset of 5400 s)"],
    )


def tabular(*rows, **more):
    common = {
        "Observation id": "obs 1",
        "Observation type": "Media file(s)",
        "Source": "player #1:/Users/me/films/a.avi",
        "Time offset (s)": "0.0",
        "Media duration (s)": "10.000",
        "FPS": "10.000",
        "Subject": "anna",
    }
    return table(TABULAR, *rows, **{**common, **more})


def event(time, kind, behavior, **more):
    return {"Time": time, "Behavior type": kind, "Behavior": behavior, **more}


def test_tabular_events_are_paired_also_where_behaviours_overlap(write, same_as_by_hand):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,subject,observation,comment",
            "a.avi,run,1,4,anna,obs 1,stumbles",
            "a.avi,run,1.5,2,ben,obs 1,",
            "a.avi,wave,2,5,anna,obs 1,",
            "a.avi,run,4,6,anna,obs 1,",
        ],
        write(
            "tabular.tsv",
            tabular(
                event("1.000", "START", "run"),
                event("1.500", "START", "run", Subject="ben"),
                event("2.000", "START", "wave"),
                event("2.000", "STOP", "run", Subject="ben"),
                event("4.000", "STOP", "run", Comment="stumbles"),
                event("4.000", "START", "run"),
                event("5.000", "STOP", "wave"),
                event("6.000", "STOP", "run"),
            ),
        ),
    )
    assert not problems


def test_columns_of_an_event_that_nobody_knows_do_not_part_its_halves(write, problems_of):
    lines = tabular(event("1.0", "START", "run"), event("2.0", "STOP", "run"))
    labels, problems = problems_of(
        write("t.tsv", [f"{a}\t{b}" for a, b in zip(lines, ["Clock", "1", "2"], strict=True)])
    )
    assert labels == ["run"] and not problems


def test_an_event_without_its_other_half_is_an_error(write, problems_of):
    labels, problems = problems_of(
        write(
            "t.tsv",
            tabular(
                event("1.000", "STOP", "run"),
                event("2.000", "START", "run"),
                event("3.000", "START", "run"),
                event("4.000", "STOP", "run", Subject="ben"),
                event("5.000", "STOP", "run"),
                event("6.000", "START", "wave", Subject=""),
                event("7.000", "GO", "wave"),
            ),
        )
    )
    assert labels == ["run"]
    assert sorted(problems) == [
        "t.tsv: row 2: ERROR: STOP of run (anna) at 1.000 without a START before it",
        "t.tsv: row 3: ERROR: START of run (anna) at 2.000 without a STOP after it",
        "t.tsv: row 5: ERROR: STOP of run (ben) at 4.000 without a START before it",
        "t.tsv: row 7: ERROR: START of wave at 6.000 without a STOP after it",
        "t.tsv: row 8: ERROR: expected START, STOP or POINT, received GO",
    ]


VERSION_7 = """\
Observation id\tobs 7\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Media file(s)\t\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Player #1\tD:/films/a.avi\t\t\t\t\t\t\t
Player #1\tD:/films/day 1/c.avi\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Observation date\t2016-11-27 01:57:26\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Description\t\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time offset (s)\t2.0\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
independent variables\t\t\t\t\t\t\t\t
variable\tvalue\t\t\t\t\t\t\t
weather\train\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tComment\tStatus
3.300\tD:/films/a.avi\t16.000\t10.0\tanna\trun\t\t\tSTART
7.750\tD:/films/a.avi\t16.000\t10.0\tanna\trun\t\t\tSTOP
13.000\tD:/films/day 1/c.avi\t16.000\t10.0\tanna\twalk\t\t\tSTART
14.500\tD:/films/day 1/c.avi\t16.000\t10.0\tanna\twalk\t\t\tSTOP
"""


def test_tabular_events_of_version_7_have_a_block_above_their_header(write, same_as_by_hand, problems_of):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,subject,observation,weather",
            "a.avi,run,1.3,5.75,anna,obs 7,rain",
            "day 1/c.avi,walk,1,2.5,anna,obs 7,rain",
        ],
        write("seven.tsv", VERSION_7),
    )
    assert not problems


def test_aggregated_events_of_version_7_name_the_film_of_each_event_only(write, same_as_by_hand, problems_of):
    columns = "Observation id,Media file,Total length,FPS,Subject,Behavior,Modifiers,Behavior type,Start (s),Stop (s)"

    def lines(*rows):
        return [columns, *(f"obs 1,{film},16.0,10.0,anna,{behavior},,STATE,{times}" for film, behavior, times in rows)]

    both = lines(("a.avi", "run", "1.8,8.125"), ("day 1/c.avi", "walk", "11.0,12.0"))
    same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,subject,observation",
            "a.avi,run,1.8,8.125,anna,obs 1",
            "day 1/c.avi,walk,1,2,anna,obs 1",
        ],
        write("old.csv", both),
    )
    one = write("one.csv", lines(("day 1/c.avi", "walk", "11.0,12.0")))
    _, problems = problems_of(one, write("both.csv", both))
    assert problems == [
        "one.csv: row 2: ERROR: the films of the observation, day 1/c.avi, last 6.00 s, but its labels are of 16.00 s "
        "in all: which films came before is not known"
    ]


def test_workbooks_are_read_sheet_by_sheet(tmp_path, same_as_by_hand):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in {
        "obs 1": [event(1.0, "START", "run"), event(4, "STOP", "run")],
        "obs 2": [event(2.5, "START", "walk"), event(3.5, "STOP", "walk"), event(5, "STOP", "walk")],
    }.items():
        sheet = book.create_sheet(title)
        for line in tabular(*rows, **{"Observation id": title}):
            sheet.append(
                [float(cell) if cell.replace(".", "").isdigit() else cell or None for cell in line.split("\t")]
            )
    path = tmp_path / "events.xlsx"
    book.save(path)
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,subject,observation",
            "a.avi,run,1,4,anna,obs 1",
            "a.avi,walk,2.5,3.5,anna,obs 2",
        ],
        path,
    )
    assert problems == {"events.xlsx: sheet obs 2 row 4": "ERROR: STOP of walk (anna) at 5 without a START before it"}


def project(**observations):
    return {
        "time_format": "hh:mm:ss",
        "project_name": "test",
        "project_format_version": "7.0",
        "subjects_conf": {"0": {"key": "1", "name": "anna", "description": ""}},
        "behaviors_conf": {
            "0": {"type": "Point event", "key": "h", "code": "hop", "category": "", "modifiers": {}},
            "1": {"type": "State event", "key": "r", "code": "run", "category": "legs", "modifiers": {}},
            "2": {"type": "State event", "key": "w", "code": "wave", "category": "", "modifiers": {}},
        },
        "observations": observations,
    }


def observation(*events, films=("a.avi",), offset=0.0, type="MEDIA"):
    lengths, rates = {film: 10.0 if film == "a.avi" else 6.0 for film in films}, dict.fromkeys(films, 10.0)
    return {
        "file": {"1": list(films), "2": []} if films else [],
        "type": type,
        "date": "2016-12-10T15:44:57",
        "description": "",
        "time offset": offset,
        "events": list(events),
        "independent_variables": {"weather": "rain", "place": ""},
        "media_info": {"length": lengths, "fps": rates, "hasVideo": {}, "offset": {"1": 0.0}},
    }


def test_projects_are_read_too(write, same_as_by_hand):
    first = observation(
        [1.3, "anna", "run", "", ""],
        [2.0, "", "wave", "left", "", 20],
        [2.5, "anna", "run", "", "stops"],
        [3.0, "anna", "hop", "", "high"],
        [4.0, "", "wave", "left", ""],
        [5.0, "", "fly", "", ""],
        [6.0, "anna", "run", "", ""],
        ["7.0"],
    )
    second = observation(
        [112.0, "", "run", "", ""], [113.5, "", "run", "", ""], films=("a.avi", "day 1/c.avi"), offset=100.0
    )
    live = observation([1.0, "", "hop", "", ""], films=(), type="LIVE")
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,subject,observation,category,modifiers,comment,weather",
            "a.avi,run,1.3,2.5,anna,one,legs,,stops,rain",
            "a.avi,wave,2,4,,one,,left,,rain",
            "a.avi,hop,2.75,3.25,anna,one,,,high,rain",
            "day 1/c.avi,run,2,3.5,,two,legs,,,rain",
        ],
        write("study.boris", json.dumps(project(one=first, two=second, three=live), indent=1)),
        point_seconds=0.5,
    )
    assert problems == {
        "study.boris: observation one event 6": "ERROR: behavior fly is not in the ethogram of the project",
        "study.boris: observation one event 7": "ERROR: START of run (anna) at 6.0 without a STOP after it",
        "study.boris: observation one event 8": "ERROR: expected a list of time, subject and behavior, "
        "received ['7.0']",
        "study.boris: observation three": "WARNING: of type LIVE has no film; its events are left out",
    }


def test_a_column_that_is_missing_is_named(write, problems_of):
    good = write("good.tsv", aggregated(state("1.0", "2.0", "run")))
    no_stop = [line.split("\t") for line in aggregated(state("1.0", "2.0", "run"))]
    index = no_stop[0].index("Stop (s)")
    lines = ["\t".join(cell for place, cell in enumerate(row) if place != index) for row in no_stop]
    labels, problems = problems_of(good, write("bad.tsv", lines))
    assert labels == ["run"]
    assert problems[0].startswith("bad.tsv: row 1: ERROR: missing column Stop (s); received: Observation id, ")


def test_a_point_may_be_at_the_very_end(write, same_as_by_hand):
    file = write("e.tsv", aggregated(point("10.000", "hop")))
    rows = ["path,label,start_seconds,end_seconds,observation", "a.avi,hop,9.75,10,obs 1"]
    assert not same_as_by_hand(rows, file, point_seconds=0.5)


def test_an_offset_that_is_no_number_shifts_nothing_in_silence(write, problems_of):
    rows = state("1.0", "2.0", "run"), state("3.0", "4.0", "run", **{"Time offset (s)": "00:10"})
    labels, problems = problems_of(write("e.tsv", aggregated(*rows)))
    assert labels == ["run"]
    assert problems == ["e.tsv: row 3: ERROR: not a number of seconds: Time offset (s) 00:10"]
    good = observation([1, "", "run", "", ""], [2, "", "run", "", ""])
    labels, problems = problems_of(write("s.boris", project(one=good, two={**good, "time offset": "soon"})))
    assert labels == ["run"]
    assert problems == ["s.boris: observation two: ERROR: not a number of seconds: time offset soon"]


def test_a_rate_that_is_not_that_of_the_film_is_said(write, problems_of):
    labels, problems = problems_of(
        write("e.tsv", aggregated(state("1.0", "2.0", "run"), **{"FPS (frame/s)": "25.000"}))
    )
    assert labels == ["run"]
    assert problems == ["e.tsv: row 2: WARNING: a.avi has 10 frames a second, but its labels 25"]


def test_live_observations_and_events_without_a_film_are_named(write, problems_of):
    rows = [state("1.0", "2.0", "run"), state("3.0", "4.0", "run", **{"Observation id": "obs 2", "Source": ""})]
    live = {"Observation id": "obs 3", "Source": "NA", "Observation type": "Live observation"}
    labels, problems = problems_of(write("e.tsv", aggregated(*rows, state("3.0", "4.0", "run", **live))))
    assert labels == ["run"]
    assert problems == [
        "e.tsv: row 4: WARNING: a live observation has no film; left out",
        "e.tsv: row 3: ERROR: names no film",
    ]
