"""Formats are told apart by what a file holds, whatever it is called; what is written in one can be read again."""

import json

import pytest

from activity.datasets.annotations.content import AnnotationFile
from activity.datasets.annotations.formats import FORMATS, WRITTEN, read_annotations
from activity.datasets.annotations.matching import list_labelled
from activity.datasets.annotations.records import LabelledFilm
from activity.datasets.samples import Segment
from activity.errors import DatasetError

EXAMPLES = {
    "ActivityNet (JSON)": {"database": {"a": {"annotations": [{"label": "run", "segment": [0, 1]}]}}},
    "BORIS events, aggregated or tabular (CSV, TSV, XLSX)": [
        "Observation id,Source,Subject,Behavior,Behavior type,Start (s),Stop (s)",
        "1,a.avi,anna,run,STATE,0,1",
    ],
    "BORIS project (.boris)": {"behaviors_conf": {}, "observations": {}},
    "Create ML (CSV or JSON)": ["video,label,start,end", "a.avi,run,0,1"],
    "ELAN (.eaf)": '<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT/>',
    "a column of 0 and 1 a behaviour (CSV), as of DeepEthogram": [",background,run", "0,1,0", "1,0,1"],
    "a list of one integer a frame (text or JSON)": ["0", "0", "1"],
    "lists of one integer a frame with class_names (JSON), as of FERAL": {"labels": {}, "class_names": {}},
    "Label Studio (JSON)": [{"id": 1, "data": {"video": "a.avi"}, "annotations": []}],
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_and_no_other_recognises_its_files(write, name):
    file = AnnotationFile(write("labels.txt", EXAMPLES[name]))
    assert [format.name for format in FORMATS.values() if format.recognise(file)] == [name]
    assert read_annotations(file.path)[0].name == name


@pytest.mark.parametrize(
    "content",
    [
        "<html/>",
        {"results": {}},
        [{"a": 1}],
        [],
        "Dear all,\n\nthe labels are in the other file.\n",
        ["a,b,c", "1,2,3"],
        [","],
    ],
)
def test_what_is_none_of_them_is_refused_with_what_is_known(write, content):
    with pytest.raises(DatasetError, match="not a file of annotations that is known.*ActivityNet.*Label Studio"):
        read_annotations(write("labels.txt", content if content else "[]"))


def test_a_manifest_of_ours_is_refused_kindly(write):
    file = write("manifest.csv", ["path,label,start_seconds,end_seconds", "a.avi,run,0,1"])
    with pytest.raises(DatasetError, match="a manifest of this program needs no --labels; put it into the folder"):
        read_annotations(file)


# === Writing ===

SEGMENTS = (
    Segment(0.0, 1.234, "run", 0.9),
    Segment(1.234, 2.5, 'walk, <slowly> & "well"', 0.8),
    Segment(4.0, 4.3, "run", 0.7),  # after a gap that is unknown
    Segment(9.0, 10.0, "прыжок", 0.6),
)
LABELS = ("run", 'walk, <slowly> & "well"', "прыжок", "never")


def film_at(path, segments=SEGMENTS, **more):
    facts = {"seconds": 10.0, "rate": 10.0, "num_frames": 100, "labels": LABELS, "segments": segments}
    return LabelledFilm(address=str(path), **{**facts, **more})


@pytest.fixture
def write_as(films, tmp_path):
    """A function that writes a film's labels in a format; those by frame are called as their film."""

    def write(name, film):
        path = tmp_path / "labels" / f"a.{WRITTEN[name].ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(WRITTEN[name].write(film, path), encoding="utf-8")
        return path

    return write


def test_what_can_be_written():
    assert {name: format.ending for name, format in WRITTEN.items()} == {
        "activitynet": "activitynet.json",
        "boris": "boris",
        "eaf": "eaf",
        "label-studio": "label-studio.json",
        "per-frame": "per-frame.csv",
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_labels_come_back_within_a_frame_and_without_a_problem(films, write_as, name):
    path = write_as(name, film_at(films / "a.avi"))
    assert read_annotations(path)[0] is WRITTEN[name]
    listed = list_labelled(films, [path])
    assert not listed.problems
    assert [(x.path, x.label) for x in listed.samples] == [("a.avi", segment.label) for segment in SEGMENTS]
    for sample, segment in zip(listed.samples, SEGMENTS, strict=True):
        assert sample.span == pytest.approx((segment.start_seconds, segment.end_seconds), abs=0.1)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_film_without_labels_has_a_file_that_says_so(films, write_as, name):
    format, found = read_annotations(write_as(name, film_at(films / "a.avi", ())))
    assert format is WRITTEN[name] and found.records == []


@pytest.mark.parametrize("name", ["boris", "eaf", "label-studio"])
def test_a_film_is_found_by_its_folder(films, write_as, name):
    (listed,) = list_labelled(films, [write_as(name, film_at(films / "day 1" / "c.avi", SEGMENTS[:1]))]).samples
    assert listed.path == "day 1/c.avi"


@pytest.mark.parametrize("name", ["label-studio", "per-frame"])
def test_a_label_shorter_than_a_frame_keeps_one(films, write_as, name):
    film = film_at(films / "a.avi", (Segment(2.02, 2.04, "run", 0.9), Segment(9.99, 10.0, "run", 0.9)))
    samples = list_labelled(films, [write_as(name, film)]).samples
    assert [x.span for x in samples] == [pytest.approx((2.0, 2.1)), pytest.approx((9.9, 10.0))]


def test_elan_reads_its_document(films, write_as):
    elan = pytest.importorskip("pympi")
    document = elan.Elan.Eaf(str(write_as("eaf", film_at(films / "a.avi"))))
    assert list(document.get_tier_names()) == ["activity"]
    assert [row[:3] for row in document.get_annotation_data_for_tier("activity")] == [
        (round(1000 * x.start_seconds), round(1000 * x.end_seconds), x.label) for x in SEGMENTS
    ]
    (media,) = document.media_descriptors
    assert media["MEDIA_URL"] == (films / "a.avi").as_uri()
    assert media["RELATIVE_MEDIA_URL"].startswith("../") and media["RELATIVE_MEDIA_URL"].endswith("/a.avi")


def test_segments_that_overlap_are_in_a_tier_each_label(films, write_as):
    elan = pytest.importorskip("pympi")
    both = (Segment(0.0, 2.0, "run", 0.9), Segment(1.0, 3.0, "wave", 0.8), Segment(4.0, 5.0, "run", 0.7))
    document = elan.Elan.Eaf(str(write_as("eaf", film_at(films / "a.avi", both))))
    assert document.get_annotation_data_for_tier("activity run") == [(0, 2000, "run"), (4000, 5000, "run")]
    assert document.get_annotation_data_for_tier("activity wave") == [(1000, 3000, "wave")]


def test_a_project_of_boris_has_its_ethogram_and_an_observation(films, write_as):
    project = json.loads(write_as("boris", film_at(films / "a.avi")).read_text())
    assert [entry["code"] for entry in project["behaviors_conf"].values()] == list(LABELS)
    observation = project["observations"]["a"]
    assert observation["file"]["1"] == [str(films / "a.avi")]
    assert observation["media_info"]["fps"] == {str(films / "a.avi"): 10.0}
    assert observation["events"][:2] == [[0.0, "", "run", "", "", "NA"], [1.234, "", "run", "", "", "NA"]]


def test_a_task_of_label_studio_is_a_prediction_with_frames_from_1(films, write_as):
    (task,) = json.loads(write_as("label-studio", film_at(films / "day 1" / "c.avi")).read_text())
    assert set(task) == {"data", "predictions"} and task["data"]["fps"] == 10.0
    assert task["data"]["video"].startswith("/data/local-files/?d=") and "day%201/c.avi" in task["data"]["video"]
    first, *_ = task["predictions"][0]["result"]
    assert first["value"] == {"ranges": [{"start": 1, "end": 12}], "timelinelabels": ["run"]}
    assert (first["type"], first["from_name"], first["to_name"], first["score"]) == (
        *("timelinelabels", "videoLabels", "video"),
        0.9,
    )


def test_an_address_on_the_network_stays_one(write_as):
    film = film_at("https://here.org/films/a.avi")
    assert json.loads(write_as("label-studio", film).read_text())[0]["data"]["video"] == film.address
    assert f'MEDIA_URL="{film.address}"' in write_as("eaf", film).read_text()


def test_a_row_a_frame_and_a_column_a_label(films, write_as):
    film = film_at(films / "a.avi", (Segment(0.1, 0.2, "run", 0.9),), num_frames=3, labels=("walk", "run"))
    assert write_as("per-frame", film).read_text() == "frame,walk,run\n0,0,0\n1,0,1\n2,0,0\n"
