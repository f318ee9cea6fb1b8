"""Exports as Label Studio writes them (`JSON`), with regions of `TimelineLabels`."""


def region(start, end, *labels, name="r1", tier="videoLabels"):
    return {
        "id": name,
        "type": "timelinelabels",
        "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": list(labels)},
        "origin": "manual",
        "to_name": "video",
        "from_name": tier,
    }


def annotation(*regions, **more):
    return {"id": 1, "completed_by": 7, "result": list(regions), "was_cancelled": False, "ground_truth": False, **more}


def task(video, *annotations, number=1, **more):
    return {
        "id": number,
        "data": {"title": "a film", "video": video},
        "annotations": list(annotations),
        "predictions": [],
        "drafts": [],
        "meta": {},
        "file_upload": "1b2c3d4e-a.avi",
        "project": 3,
        **more,
    }


def test_ranges_count_frames_from_1_at_the_rate_of_the_configuration(write, same_as_by_hand):
    problems = same_as_by_hand(
        [
            "path,label,start_seconds,end_seconds,tier,annotator",
            "a.avi,run,0,1,videoLabels,7",
            "a.avi,jump,1,1.04,videoLabels,7",
            "day 1/c.avi,walk,2,3,videoLabels,me@here.org",
        ],
        write(
            "export.json",
            [
                task("/data/upload/3/1b2c3d4e-a.avi", annotation(region(1, 25, "run"), region(26, 26, "jump"))),
                task(
                    "/data/local-files/?d=films/day%201/c.avi",
                    annotation(region(51, 75, "walk"), completed_by={"id": 2, "email": "me@here.org"}),
                    number=2,
                ),
            ],
        ),
        label_rate=25,
    )
    assert problems == {
        "export.json: task 1 region r1": "WARNING: a.avi has 10 frames a second, but --label-rate 25; "
        "frames are counted at 25",
        "export.json: task 2 region r1": "WARNING: day 1/c.avi has 10 frames a second, but --label-rate 25; "
        "frames are counted at 25",
    }


def test_without_a_rate_that_of_the_film_counts_and_it_is_said(write, same_as_by_hand):
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier,annotator", "a.avi,run,0,1,videoLabels,7"],
        write("export.json", [task("s3://bucket/films/a.avi", annotation(region(1, 10, "run")))]),
    )
    assert list(problems.values()) == [
        "WARNING: frames are counted at 10 a second, the rate of a.avi; this tool counts 24 unless it was told another "
        "rate: say with --label-rate which it was"
    ]


def test_a_rate_in_the_data_of_a_task_counts(write, same_as_by_hand):
    with_rate = task("https://here.org/films/a.avi?token=1", annotation(region(1, 20, "run")))
    with_rate["data"]["fps"] = 20
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier,annotator", "a.avi,run,0,1,videoLabels,7"],
        write("export.json", [with_rate]),
    )
    assert list(problems.values()) == [
        "WARNING: a.avi has 10 frames a second, but its labels 20; frames are counted at 20"
    ]


def test_labels_of_the_sound_are_in_seconds(write, same_as_by_hand):
    sound = {
        "id": "x",
        "type": "labels",
        "value": {"start": 1.25, "end": 2.5, "channel": 0, "labels": ["run"]},
        "to_name": "audio",
        "from_name": "tricks",
    }
    problems = same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier,annotator", "a.avi,run,1.25,2.5,tricks,7"],
        write("export.json", [task("a.avi", annotation(sound))]),
    )
    assert not problems


def test_what_is_no_label_is_counted_and_left_out(write, problems_of):
    box = {"id": "b", "type": "videorectangle", "value": {"sequence": [], "labels": ["dog"]}, "from_name": "box"}
    labels, problems = problems_of(
        write(
            "export.json",
            [
                task(
                    "a.avi",
                    annotation(region(1, 10, "run"), box),
                    annotation(region(5, 20, "fall"), was_cancelled=True),
                    annotation(region(1, 9, "run"), completed_by=8),
                    predictions=[{"model_version": "x", "result": [region(40, 50, "jump")]}],
                    drafts=[{"result": []}],
                )
            ],
        ),
        label_rate=10,
    )
    assert labels == ["run", "run"]
    assert problems == [
        "export.json: task 1: WARNING: has 2 annotations; all are read, with their annotator in a column",
        "export.json: file: WARNING: 1 cancelled annotations are not read; WARNING: 1 predictions are not read; "
        "WARNING: 1 drafts are not read; "
        "WARNING: 1 results of type videorectangle have no start and end, and are not read",
    ]


def test_faults_are_named_with_task_and_region(write, films, problems_of):
    labels, problems = problems_of(
        write(
            "export.json",
            [
                task(
                    "a.avi",
                    annotation(region(1, 10, "run"), region(0, 5, "jump", name="r2"), region(9, 3, "x", name="r3")),
                ),
                task("", annotation(region(1, 5, "jump")), number=2),
                task("ffffffff-nowhere.mp4", annotation(region(1, 5, "jump")), number=3),
                task("b.avi", annotation(region("one", 5, "jump"), region(1, 500, "walk", name="r2")), number=4),
                {"id": 5, "data": {"video": "a.avi"}, "annotations": "none"},
                "six",
            ],
        ),
        label_rate=10,
    )
    assert labels == ["run", "walk"]
    assert sorted(problems) == [
        "export.json: task 1 region r2: ERROR: begins at frame 0; Label Studio counts frames from 1",
        "export.json: task 1 region r3: ERROR: end before start: 8 to 3 (frames, counted from 0)",
        "export.json: task 2 region r1: ERROR: names no film",
        f"export.json: task 3 region r1: ERROR: there is no film ffffffff-nowhere.mp4 in {films}",
        "export.json: task 4 region r1: ERROR: not a number: expected a number of a frame, received one",
        "export.json: task 4 region r2: WARNING: ends at 50 s, beyond the film's end at 10.00 s; it is cut there",
        "export.json: task 5: ERROR: expected an object with data and annotations",
        "export.json: task 6: ERROR: expected an object with data and annotations",
    ]


def test_what_is_wrong_with_a_region_is_said_once_whatever_it_has_many_of(write, problems_of, caplog):
    beyond = region(900, 901, "run", "walk", name="r2")
    beyond["value"]["ranges"] *= 2
    tasks = [task("a.avi", annotation(region(1, 25, "run"), beyond))]
    _, problems = problems_of(write("export.json", tasks), label_rate=10)
    reason = "ERROR: beyond the film's end: begins at 89.9 s, that of a.avi is at 10.00 s"
    assert problems == [f"export.json: task 1 region r2: {reason}"]
    assert [text.rpartition("export.json: ")[2] for text in caplog.messages if "beyond" in text] == [
        "task 1 region r2: beyond the film's end: begins at 89.9 s, that of a.avi is at 10.00 s"
    ]


def test_tags_are_tiers(write, same_as_by_hand):
    file = write("e.json", [task("a.avi", annotation(region(1, 10, "run"), region(1, 10, "fast", tier="how")))])
    same_as_by_hand(
        ["path,label,start_seconds,end_seconds,tier,annotator", "a.avi,fast,0,1,how,7"],
        file,
        tiers=["how"],
        label_rate=10,
    )


def test_an_address_that_is_none_is_a_name(write, films, problems_of):
    tasks = [
        task("a.avi", annotation(region(1, 10, "run"))),
        task("https://[a.avi", annotation(region(1, 10, "run")), number=2),
    ]
    labels, problems = problems_of(write("e.json", tasks), label_rate=10)
    assert labels == ["run"]
    assert problems[0].startswith("e.json: task 2 region r1: ERROR: there is no film [a.avi in")
