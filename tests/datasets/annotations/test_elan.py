"""Documents as ELAN 6 saves them (EAF 3.0)."""

import pytest

from activity.datasets.annotations.content import AnnotationFile
from activity.datasets.annotations.elan import FORMATS
from activity.datasets.annotations.matching import list_labelled

HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2020-03-13T10:43:59+12:00" FORMAT="3.0" VERSION="3.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
"""
TAIL = """\
    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
    <CONSTRAINT DESCRIPTION="1-1 association with a parent annotation" STEREOTYPE="Symbolic_Association"/>
</ANNOTATION_DOCUMENT>
"""
VIDEO = (
    '<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/me/films/{0}" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./{0}"{1}/>'
)
SOUND = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/me/a.wav" MIME_TYPE="audio/x-wav" RELATIVE_MEDIA_URL="./a.wav"/>'


def document(times, *tiers, media=None, units="milliseconds"):
    """A document with these time slots, name -> value or `None`, and tiers."""
    slots = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="{name}"{"" if value is None else f" TIME_VALUE={chr(34)}{value}{chr(34)}"}/>\n'
        for name, value in times.items()
    )
    media = media or (SOUND, VIDEO.format("a.avi", ""))
    header = f'<HEADER MEDIA_FILE="" TIME_UNITS="{units}">\n{chr(10).join(media)}\n</HEADER>\n'
    return f"{HEAD}{header}<TIME_ORDER>\n{slots}</TIME_ORDER>\n{''.join(tiers)}{TAIL}"


def tier(name, *annotations, more=""):
    inner = "\n".join(f"<ANNOTATION>\n{annotation}\n</ANNOTATION>" for annotation in annotations)
    return f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="{name}"{more}>\n{inner}\n</TIER>\n'


def aligned(name, first, last, value):
    return (
        f'<ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}" TIME_SLOT_REF1="{first}" TIME_SLOT_REF2="{last}">'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>"
    )


def reference(name, parent, value, previous=""):
    previous = f' PREVIOUS_ANNOTATION="{previous}"' if previous else ""
    return (
        f'<REF_ANNOTATION ANNOTATION_ID="{name}" ANNOTATION_REF="{parent}"{previous}>'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></REF_ANNOTATION>"
    )


TIMES = {"ts1": 0, "ts2": 900, "ts3": None, "ts4": None, "ts5": 3000, "ts6": 4500}
PARTICIPANT = ' PARTICIPANT="Maxwell Smart" ANNOTATOR="Robert"'


def test_slots_without_a_value_lie_evenly_between_their_neighbours(write, same_as_by_hand):
    text = document(
        TIMES,
        tier(
            "legs",
            aligned("a1", "ts1", "ts2", "run"),
            aligned("a2", "ts2", "ts3", "walk"),
            aligned("a3", "ts3", "ts4", "run"),
            aligned("a4", "ts4", "ts5", " walk\n"),
            more=PARTICIPANT,
        ),
        tier("empty"),
    )
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,tier,subject,annotator",
            "a.avi,run,0,0.9,legs,Maxwell Smart,Robert",
            "a.avi,walk,0.9,1.6,legs,Maxwell Smart,Robert",
            "a.avi,run,1.6,2.3,legs,Maxwell Smart,Robert",
            "a.avi,walk,2.3,3,legs,Maxwell Smart,Robert",
        ],
        write("a.eaf", text),
    )
    assert not problems


WORDS = document(
    TIMES,
    tier("legs", aligned("a1", "ts1", "ts2", "run"), aligned("a2", "ts2", "ts5", "walk")),
    tier("how", reference("a3", "a1", "fast"), reference("a4", "a2", "slow"), more=' PARENT_REF="legs"'),
    tier("why", reference("a5", "a4", "rain"), more=' PARENT_REF="how"'),
    tier("steps", *(reference(f"b{n}", "a2", f"step{n}", f"b{n - 1}" if n else "") for n in range(3))),
    tier("other", aligned("a7", "ts5", "ts6", "sit")),
)


def test_a_reference_has_the_time_of_its_parent(write, same_as_by_hand):
    file = write("a.eaf", WORDS)
    same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier", "a.avi,fast,0,0.9,how", "a.avi,slow,0.9,3,how"],
        file,
        tiers=["how"],
    )
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier", "a.avi,rain,0.9,3,why", "a.avi,sit,3,4.5,other"],
        file,
        tiers=["other", "why"],
    )
    assert not problems


def test_references_of_one_tier_to_one_parent_share_its_time(write, same_as_by_hand):
    same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,tier",
            *(f"a.avi,step{n},{0.9 + n * 0.7:.1f},{0.9 + (n + 1) * 0.7:.1f},steps" for n in range(3)),
        ],
        write("a.eaf", WORDS),
        tiers=["steps"],
    )


def test_all_tiers_are_read_unless_some_are_chosen(write, problems_of):
    labels, problems = problems_of(write("a.eaf", WORDS))
    assert labels == ["fast", "run", "step0", "rain", "slow", "walk", "step1", "step2", "sit"]
    assert not problems


def test_an_unknown_tier_is_an_error(write, problems_of):
    labels, problems = problems_of(write("a.eaf", WORDS), tiers=["legs", "lags"])
    assert labels == ["run", "walk"]
    assert problems == [
        "a.eaf: tiers: ERROR: there is no tier lags; expected one of legs (2), how (2), why (1), steps (3), other (1); "
        "did you mean 'legs'?"
    ]


def test_the_time_origin_is_where_the_clock_begins_in_the_film(write, same_as_by_hand):
    media = SOUND, VIDEO.format("day%201/c.avi", ' TIME_ORIGIN="500"')
    text = document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "run")), media=media)
    same_as_by_hand(["path,label,start_seconds,end_seconds,tier", "day 1/c.avi,run,0.5,1.4,legs"], write("c.eaf", text))


def test_of_several_films_the_first_has_the_labels(write, problems_of):
    media = VIDEO.format("a.avi", ""), VIDEO.format("b.avi", ' TIME_ORIGIN="40"')
    labels, problems = problems_of(
        write("c.eaf", document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "run")), media=media))
    )
    assert labels == ["run"]
    assert problems == [
        "c.eaf: HEADER: WARNING: names 2 films that show the same; only /C:/Users/me/films/a.avi gets the labels, not "
        "/C:/Users/me/films/b.avi"
    ]


def test_without_a_film_its_own_name_counts(write, same_as_by_hand):
    text = document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "run")), media=[SOUND])
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier", "b.avi,run,0,0.9,legs"], write("b.eaf", text)
    )
    assert list(problems.values()) == ["WARNING: names no film; one that is called b is looked for"]


def test_without_a_film_its_folder_may_be_one_of_labels(write, films):
    text = document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "run")), media=[SOUND])
    listed = list_labelled(films, [write("c.eaf", text)])
    assert [sample.path for sample in listed.samples] == ["day 1/c.avi"]
    assert list(listed.problems.values()) == ["WARNING: names no film; one that is called c is looked for"]


def test_frames_may_be_the_unit(write, same_as_by_hand):
    text = document({"ts1": 25, "ts2": 50}, tier("legs", aligned("a1", "ts1", "ts2", "run")), units="PAL-frames")
    same_as_by_hand(["path,label,start_seconds,end_seconds,tier", "a.avi,run,1,2,legs"], write("a.eaf", text))


def test_faults_are_named_with_their_line(write, problems_of):
    text = document(
        {"ts0": None, "ts1": 0, "ts2": 900, "ts3": "soon", "ts4": 3000},
        tier(
            "legs",
            aligned("a1", "ts1", "ts2", "run"),
            aligned("a2", "ts0", "ts2", "walk"),
            aligned("a3", "ts3", "ts4", "walk"),
            aligned("a4", "ts9", "ts4", "walk"),
            aligned("a5", "ts4", "ts2", "walk"),
            aligned("a6", "ts4", "ts4", "walk"),
            aligned("a7", "ts2", "ts4", ""),
        ),
        tier("how", reference("b1", "a99", "fast"), reference("b2", "b3", "slow"), reference("b3", "b2", "slow")),
    )
    labels, problems = problems_of(write("a.eaf", text))
    assert labels == ["run"]
    assert problems == [
        "a.eaf: line 13: ERROR: TIME_VALUE of ts3 is not a number: soon; its annotations are not read",
        "a.eaf: line 21 (a2): ERROR: its time slot ts0 has no time, nor neighbours on both sides",
        "a.eaf: line 24 (a3): ERROR: its time slot ts3 has no time, nor neighbours on both sides",
        "a.eaf: line 27 (a4): ERROR: its time slot ts9 is not in TIME_ORDER",
        "a.eaf: line 41 (b1): ERROR: refers to a99, and there is no such parent",
        "a.eaf: line 44 (b2): ERROR: refers to itself: b2 -> b3 -> b2",
        "a.eaf: line 47 (b3): ERROR: refers to itself: b3 -> b2 -> b3",
        "a.eaf: line 30 (a5): ERROR: end before start: 3.0 to 0.9",
        "a.eaf: line 33 (a6): ERROR: no length: 3.0 to 3.0",
        "a.eaf: line 36 (a7): ERROR: has no label",
    ]


@pytest.mark.parametrize(
    "media, units, reason",
    [
        ([VIDEO.format("a.avi", ' TIME_ORIGIN="x"')], "milliseconds", "TIME_ORIGIN is not a number"),
        ([VIDEO.format("a.avi", "")], "weeks", "TIME_UNITS must be one of milliseconds"),
    ],
)
def test_without_a_clock_nothing_is_read(write, problems_of, media, units, reason):
    good = document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "run")))
    bad = document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "jump")), media=media, units=units)
    labels, problems = problems_of(write("good.eaf", good), write("bad.eaf", bad))
    assert labels == ["run"] and reason in problems[0] and len(problems) == 1


def test_what_pympi_writes_is_read_as_pympi_reads_it(tmp_path):
    elan = pytest.importorskip("pympi.Elan", reason="pympi is not installed")
    document = elan.Eaf()
    document.add_linked_file("file:///films/a.mp4", "./a.mp4", "video/mp4", 250)
    document.add_tier("legs")
    for start, end, label in [(0, 800, "run"), (800, 2000, "walk"), (2500, 2600, "é <&>")]:
        document.add_annotation("legs", start, end, label)
    document.add_linguistic_type("association", "Symbolic_Association", timealignable=False)
    document.add_tier("how", "association", "legs")
    document.add_ref_annotation("how", "legs", 1000, "slow")
    document.to_file(path := str(tmp_path / "a.eaf"))
    read = FORMATS[0].read(AnnotationFile(tmp_path / "a.eaf"))
    theirs = elan.Eaf(path)
    for name in ("legs", "how"):
        expected = sorted(
            (start / 1000, end / 1000, label) for start, end, label, *_ in theirs.get_annotation_data_for_tier(name)
        )
        assert sorted((x.start, x.end, x.label) for x in read.records if x.tier == name) == expected
    assert {(x.films[0].name, x.offset) for x in read.records} == {("/films/a.mp4", -0.25)} and not read.problems


def test_a_chain_of_parents_without_end_is_refused(write, problems_of):
    chain = [reference(f"b{n}", f"b{n + 1}", "x") for n in range(500)]
    text = document(TIMES, tier("legs", aligned("a1", "ts1", "ts2", "run")), tier("how", *chain))
    labels, problems = problems_of(write("a.eaf", text))
    assert labels == ["run"]
    assert "b0): ERROR: has more than 100 parents, one above the other" in problems[0]
    assert "refers to b500, and there is no such parent" in problems[-1]
