"""The JSON of ActivityNet's releases."""


def release(**database):
    taxonomy = [{"parentName": "Sports", "nodeName": "Run", "nodeId": 1, "parentId": 0}]
    return {"version": "VERSION 1.3", "taxonomy": taxonomy, "database": database}


def video(subset, *annotations, duration=10.0):
    return {
        "duration": duration,
        "subset": subset,
        "resolution": "320x240",
        "url": "https://www.youtube.com/watch?v=sJeuwQn0mXs",
        "annotations": [{"segment": [start, end], "label": label} for start, end, label in annotations],
    }


def test_subsets_are_splits_and_names_are_without_ending(write, same_as_by_hand):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,split",
            "a.avi,Long jump,0.01,2.5,train",
            "a.avi,Run,1,3.333333,train",
            "day 1/c.avi,Run,0,6,val",
        ],
        write(
            "activity_net.v1-3.min.json",
            release(
                a=video("training", (1, 3.3333333, "Run"), (0.01, 2.5, "Long jump")),
                c=video("validation", (0, 6.0, "Run"), duration=6.0),
                hidden=video("testing"),
            ),
        ),
    )
    assert list(problems.values()) == ["WARNING: 1 videos have no annotations, and are left out"]


def test_files_are_found_as_the_crawler_calls_them(write, films, same_as_by_hand):
    (films / "v_sJeuwQn0mXs.avi").symlink_to(films / "a.avi")
    try:
        same_as_by_hand(
            ["path,label,start_seconds,end_seconds,split", "v_sJeuwQn0mXs.avi,Run,1,3,train"],
            write("an.json", release(sJeuwQn0mXs=video("training", (1, 3, "Run")))),
        )
    finally:
        (films / "v_sJeuwQn0mXs.avi").unlink()


def test_faults_are_named_with_video_and_annotation(write, films, problems_of):
    content = release(
        a=video(
            "training", (1, 3, "Run"), (3, 1, "Run"), (2, 2, "Run"), (-1, 1, "Run"), (20, 21, "Run"), ("x", 3, "Run")
        ),
        b=video("holiday", (1, 30, "Run"), duration=30.0),
        gone=video("training", (1, 3, "Run"), (4, 5, "Run")),
        empty={"annotations": None},
    )
    content["database"]["a"]["annotations"] += [{"label": "Run"}, {"segment": [4, 5]}]
    labels, problems = problems_of(write("an.json", content))
    assert labels == ["Run", "Run"]
    assert sorted(problems) == [
        "an.json: video a annotation 2: ERROR: end before start: 3 to 1",
        "an.json: video a annotation 3: ERROR: no length: 2 to 2",
        "an.json: video a annotation 4: ERROR: negative time: begins at -1 s",
        "an.json: video a annotation 5: ERROR: beyond the film's end: begins at 20 s, that of a.avi is at 10.00 s",
        "an.json: video a annotation 6: ERROR: not a number: expected seconds, or mm:ss, received x",
        "an.json: video a annotation 7: ERROR: missing segment: expected label and segment, its start and end; "
        "received {'label': 'Run'}",
        "an.json: video a annotation 8: ERROR: has no label",
        "an.json: video b annotation 1: WARNING: b.avi lasts 10.00 s, but its labels are of a film of 30.00 s; "
        "WARNING: ends at 30 s, beyond the film's end at 10.00 s; it is cut there",
        "an.json: video b: WARNING: subset holiday is none of training, train, validation, val, testing, test; it is "
        "split as if it had none",
        "an.json: video empty: ERROR: expected an object with annotations, a list",
        f"an.json: video gone annotation 1: ERROR: there is no film gone in {films}",
        f"an.json: video gone annotation 2: ERROR: there is no film gone in {films}",
    ]
