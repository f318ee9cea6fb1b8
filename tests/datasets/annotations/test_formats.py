"""Formats are told apart by what a file holds, whatever it is called."""

import pytest

from activity.datasets.annotations.content import AnnotationFile
from activity.datasets.annotations.formats import FORMATS, read_annotations
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
