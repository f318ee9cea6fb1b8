import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest

from activity.datasets.annotations.formats import WRITTEN
from activity.datasets.annotations.matching import list_labelled
from activity.errors import VideoError
from activity.files import read_csv


@pytest.mark.parametrize(
    "option", [["--timeline"], ["--out", "d"], ["--annotate", "d"], ["--explain", "d"], ["--statistics", "d.csv"]]
)
def test_options_that_need_a_whole_video_are_refused_for_a_live_source(run, option):
    status, _, err = run("classify", "m.keras", "0", *option)
    assert status == 2 and "need a whole file, not a live source" in err


def test_classify_prints_a_line_a_file(run, folder, ramp_videos):
    files = [ramp_videos / "darkens" / "p0_0.avi", ramp_videos / "brightens" / "p0_0.avi"]
    status, out, _ = run("classify", folder / "model.keras", *files, "--top-k", 1)
    assert status == 0
    for file, line in zip(files, out.splitlines(), strict=True):
        assert re.fullmatch(rf"{re.escape(str(file))}  (brightens|darkens) [01]\.\d{{3}}", line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_where_the_table_cannot_be_written_all_labels_are_printed(run, folder, ramp_videos):
    files = sorted((ramp_videos / "darkens").glob("p0_*.avi"))
    status, out, err = run("classify", folder / "model.keras", *files, "--json", "--csv", "/dev/full")
    assert status == 1 and [json.loads(line)["source"] for line in out.splitlines()] == [str(file) for file in files]
    assert "activity: No space left on device: /dev/full" in err.splitlines()


def test_classify_as_json_and_csv_continues_after_a_bad_file(run, folder, ramp_videos, tmp_path):
    good, bad = ramp_videos / "darkens" / "p0_0.avi", tmp_path / "bad.mp4"
    bad.write_text("text")
    table = tmp_path / "out.csv"
    status, out, _ = run("classify", folder / "model.keras", bad, good, "--json", "--csv", table)
    assert status == 1
    failure, result = map(json.loads, out.splitlines())
    assert failure == {"source": str(bad), "error": "this is a text file, not a video"}
    assert set(result) == {"source", "label", "probability", "top", "duration_seconds"}
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == [failure["error"], ""]
    assert rows[1]["label"] == result["label"] and float(rows[1]["probability"]) == result["probability"]


@pytest.mark.parametrize("runtime", ["keras", "openvino"])
def test_classify_draws_explanations(run, folder, ramp_videos, tmp_path, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    bad = tmp_path / "bad.mp4"
    bad.write_text("text")
    files = [ramp_videos / "darkens" / "p0_0.avi", bad, ramp_videos / "brightens" / "p0_0.avi"]
    plain = run("classify", folder / "model.keras", *files, "--runtime", runtime)
    drawn = run("classify", folder / "model.keras", *files, "--runtime", runtime, "--explain", tmp_path / "why" / "x")
    assert drawn[:2] == plain[:2] and drawn[0] == 1
    written = [tmp_path / "why" / "x" / name for name in ("p0_0.png", "p0_0-2.png")]
    assert sorted((tmp_path / "why" / "x").glob("[!.]*")) == sorted(written)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert [line for line in drawn[2].splitlines() if "wrote" in line] == [f"wrote {path}" for path in written]
    assert ("explained by keras" in drawn[2]) is (runtime == "openvino")


def test_classify_prints_a_timeline(run, folder, ramp_videos):
    file = ramp_videos / "darkens" / "p0_0.avi"
    status, out, _ = run("classify", folder / "model.keras", file, "--timeline")
    assert status == 0
    first, *segments = out.splitlines()
    assert first.startswith(str(file)) and segments
    assert all(re.fullmatch(r" +\d+\.\d\d - +\d+\.\d\d s  (brightens|darkens) [01]\.\d{3}", line) for line in segments)
    _, out, _ = run("classify", folder / "model.keras", file, "--timeline", "--json")
    assert set(json.loads(out)["segments"][0]) == {"start_seconds", "end_seconds", "label", "probability"}


def test_the_most_probable_labels_are_in_the_table_too(run, folder, ramp_videos, tmp_path):
    file = ramp_videos / "darkens" / "p0_0.avi"
    _, out, _ = run(
        "classify", folder / "model.keras", file, tmp_path / "no.mp4", "--csv", tmp_path / "t.csv", "--json"
    )
    good, bad = csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines())
    top = json.loads(out.splitlines()[0])["top"]
    assert [(good[f"top_{rank}_label"], float(good[f"top_{rank}_probability"])) for rank in (1, 2)] == [
        (best["label"], best["probability"]) for best in top
    ]
    assert bad["error"] and bad["top_1_label"] == "" and list(good)[:3] == ["source", "label", "probability"]


def test_results_are_printed_where_nobody_listens_to_errors(folder):
    command = f"{sys.executable} -m activity info {folder}/model.keras 2>&-"
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.startswith(f"{folder}/model.keras")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_a_table_goes_into_an_open_file(folder, ramp_videos, tmp_path, name):
    video = ramp_videos / "darkens" / "p0_0.avi"
    command = f"{sys.executable} -m activity classify {folder}/model.keras {video} --csv {name} > {tmp_path}/all.txt"
    subprocess.run(command, shell=True, check=True)
    starts = [line[:30] for line in (tmp_path / "all.txt").read_text(encoding="utf-8").splitlines()]
    assert sorted(starts) == sorted([str(video)[:30]] * 2 + ["source,label,probability,durat"])
    assert not Path("/dev/.digests.txt").exists() and not Path("/dev/fd/.digests.txt").exists()


def test_an_image_that_is_named_is_labelled_and_explained(run, folder, ramp_videos, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    for name in ("a.png", "cover.webp"):
        assert cv2.imwrite(str(tmp_path / name), image)
    shutil.copy(ramp_videos / "darkens" / "p0_0.avi", tmp_path)
    status, out, _ = run(
        "classify", folder / "model.keras", tmp_path / "a.png", "--explain", tmp_path / "why", "--json"
    )
    assert status == 0 and json.loads(out)["duration_seconds"] == 0.0 and (tmp_path / "why" / "a.png").is_file()
    status, out, _ = run("classify", folder / "model.keras", tmp_path / "cover.webp", tmp_path, "--top-k", "1")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [f"{tmp_path}/cover.webp", f"{tmp_path}/p0_0.avi"]
    status, _, err = run("classify", folder / "model.keras", tmp_path / "a.png", "--out", tmp_path / "timeline")
    assert status == 1 and "a.png: an image lasts no time, so it has no timeline; expected a video" in err


def test_what_this_program_has_made_is_not_taken_for_videos(run, folder, ramp_videos, tmp_path):
    shutil.copytree(folder, tmp_path / "work", ignore=shutil.ignore_patterns("features"))
    shutil.copy(ramp_videos / "darkens" / "p0_0.avi", tmp_path / "work")
    status, out, err = run("classify", folder / "model.keras", tmp_path / "work")
    assert status == 0 and len(out.splitlines()) == 1
    assert re.search(r"work: skipped by name: .*1 data set.*, [1-9] model", err)


def test_a_single_video_shows_how_far_it_is(run, folder, ramp_videos, monkeypatch):
    minutes = itertools.count()
    monkeypatch.setattr("tqdm.std.time", lambda: 60.0 * next(minutes))
    _, _, err = run("classify", folder / "model.keras", ramp_videos / "darkens" / "p0_0.avi")
    assert re.search(r"^p0_0\.avi: 0:0\d of 0:0\d, about \S+ left$", err, re.MULTILINE)
    _, _, err = run("classify", folder / "model.keras", ramp_videos / "darkens")  # labels show how far several are
    assert " left" not in err


@pytest.mark.parametrize("labels_per", ["window", "step"])
def test_a_timeline_shows_from_its_first_second_how_long_it_will_take(
    run, folder, lamp_model, lamp_videos, monkeypatch, labels_per
):
    terminal, now = io.StringIO(), itertools.count()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std.time", lambda: 0.2 * next(now))
    model = lamp_model if labels_per == "step" else folder / "model.keras"
    status, _, _ = run("classify", model, lamp_videos / "film3.avi", "--timeline")
    assert status == 0
    shown, found, _ = terminal.getvalue().partition(f"{lamp_videos / 'film3.avi'}  ")
    assert found and shown.endswith(" \r"), "the bar is still there when the result comes"
    states = re.findall(r"\rfilm3\.avi: (\d:\d\d) of (\d:\d\d), about (\S+) left", shown)
    assert all(now == "0:00" for now, _, _ in states[:3]) and re.fullmatch(r"\d\d:\d\d", states[2][2])  # at 0.1 s
    assert len(states) > 20 and states[-1][0] == states[0][1]


def test_a_film_from_a_url_shows_how_far_it_is(run, folder, ramp_videos, monkeypatch):
    film = ramp_videos / "darkens" / "p0_0.avi"
    handler = partial(SimpleHTTPRequestHandler, directory=film.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        minutes = itertools.count()
        monkeypatch.setattr("tqdm.std.time", lambda: 60.0 * next(minutes))
        url = f"http://127.0.0.1:{server.server_port}/{film.name}"
        status, _, err = run("classify", folder / "model.keras", url)
        server.shutdown()
    assert status == 0 and re.search(r"^p0_0\.avi: 0:0\d of 0:0\d, about \S+ left$", err, re.MULTILINE), err


def test_classify_writes_timelines_and_annotated_videos(run, folder, ramp_videos, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    bad = tmp_path / "bad.mp4"
    bad.write_text("text")
    sources = [ramp_videos / "darkens" / "p0_0.avi", bad, ramp_videos / "brightens" / "p0_0.avi"]
    places = ("--out", tmp_path / "out", "--annotate", tmp_path / "videos")
    status, out, err = run("classify", folder / "model.keras", *sources, *places, "--json", "--top-k", 1)
    assert status == 1
    good = [line for line in map(json.loads, out.splitlines()) if "error" not in line]
    names = ("p0_0", "p0_0-2")  # two sources share their name
    for name, result in zip(names, good, strict=True):
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text()) == result
    expected = {tmp_path / "out" / f"{name}.{kind}" for name in names for kind in ("json", "csv", "srt", "png")}
    expected |= {tmp_path / "videos" / f"{name}.mp4" for name in names}
    assert {*(tmp_path / "out").glob("[!.]*"), *(tmp_path / "videos").glob("[!.]*")} == expected
    assert {line.removeprefix("wrote ") for line in err.splitlines() if "wrote" in line} == set(map(str, expected))


def test_classify_writes_the_formats_that_are_asked_for(run, folder, ramp_videos, tmp_path):
    file, out = ramp_videos / "darkens" / "p0_0.avi", tmp_path / "out"
    words = ("classify", folder / "model.keras", file, "--out", out, "--format", "eaf", "--format", "json")
    status, _, err = run(*words)
    assert status == 0
    assert {path.name for path in out.glob("[!.]*")} == {"p0_0.eaf", "p0_0.json"}
    assert [line for line in err.splitlines() if "wrote" in line] == [
        f"wrote {out / name}" for name in ("p0_0.eaf", "p0_0.json")
    ]
    status, _, err = run(*words)
    assert status == 1 and "p0_0.eaf" in err and "--overwrite" in err
    assert run(*words, "--overwrite")[0] == 0
    (out / "p0_0.eaf").write_text("corrected by hand")
    status, _, err = run(*words, "--overwrite")
    assert status == 1 and (out / "p0_0.eaf").read_text() == "corrected by hand"


def test_labels_that_are_written_are_trained_on(run, folder, ramp_videos, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for name in ("p0_0.avi", "p1_0.avi"):
        shutil.copy(ramp_videos / "darkens" / name, films)
    formats = ("boris", "eaf", "label-studio", "activitynet", "per-frame")
    words = [word for name in formats for word in ("--format", name)]
    status, out, _ = run("classify", folder / "model.keras", films, "--out", tmp_path / "out", "--json", *words)
    assert status == 0
    expected = [(x["label"], x["start_seconds"], x["end_seconds"]) for x in json.loads(out.splitlines()[0])["segments"]]
    for name in formats:
        (file,) = (tmp_path / "out").glob(f"p0_0.{WRITTEN[name].ending}")
        listed = list_labelled(films, [file])
        assert not listed.problems, name
        for sample, (label, start, end) in zip(listed.samples, expected, strict=True):
            assert sample.label == label and sample.span == pytest.approx((start, end), abs=0.11), name


def test_a_format_needs_a_folder_a_name_that_is_known_and_a_film(run, one_line, folder, feature_model, tmp_path):
    status, _, err = run("classify", folder / "model.keras", "a.avi", "--format", "eaf")
    assert status == 2 and "--format says how timelines are written; expected --out DIR beside it" in err
    status, _, err = run("classify", folder / "model.keras", "a.avi", "--out", tmp_path, "--format", "elan")
    assert status == 2 and "eaf" in err
    status, _, err = run("classify", feature_model, "a.npy", "--out", tmp_path, "--format", "csv", "--format", "eaf")
    assert status == 1 and "--format eaf needs a model of videos; this one takes feature files" in one_line(err)


def test_a_video_that_can_no_longer_be_read_does_not_stop_the_others(run, folder, ramp_videos, tmp_path, monkeypatch):
    sources = [ramp_videos / "darkens" / "p0_0.avi", ramp_videos / "brightens" / "p0_0.avi"]
    failures = iter([VideoError("gone"), None])

    def annotate(source, prediction, out_path):
        if error := next(failures):
            raise error
        return out_path

    monkeypatch.setattr("activity.reports.annotation.annotate", annotate)
    status, out, err = run("classify", folder / "model.keras", *sources, "--annotate", tmp_path / "videos")
    assert status == 1 and "activity: gone" in err and f"wrote {tmp_path / 'videos' / 'p0_0-2.mp4'}" in err


def test_a_folder_or_pattern_without_videos_does_not_stop_the_others(run, folder, ramp_videos, tmp_path):
    sources = [tmp_path, f"{tmp_path}/*.mp4", ramp_videos / "darkens" / "p0_0.avi"]
    status, out, err = run("classify", folder / "model.keras", *sources)
    assert status == 1 and len(out.splitlines()) == 1
    assert err.splitlines() == [
        f"activity: {tmp_path}: a folder that holds no videos",
        f"activity: {tmp_path}/*.mp4: cannot be opened: No such file or directory",
    ]


def test_python_command_line_and_reloaded_model_agree(run, folder, ramp_videos):
    from activity.predictor.predictor import Predictor

    file = ramp_videos / "brightens" / "p3_1.avi"
    _, out, _ = run("classify", folder / "model.keras", file, "--json")
    assert json.loads(out)["probability"] == Predictor.load(folder / "model.keras").predict(file).probability


def test_classify_takes_folders_and_patterns(run, folder, ramp_videos):
    (ramp_videos / "darkens" / "notes.txt").write_text("a sidecar")
    _, out, _ = run("classify", folder / "model.keras", ramp_videos / "darkens", f"{ramp_videos}/bright*/p1_*.avi")
    assert len(out.splitlines()) == 16 + 2


def classify_as_a_program(*arguments):
    command = [sys.executable, "-m", "activity", "classify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_gives_its_answer_and_a_line_on_what_computes(folder, ramp_videos):
    classify_as_a_program(folder / "model.keras", ramp_videos / "darkens" / "p0_0.avi")  # exports, if need be
    done = classify_as_a_program(folder / "model.keras", ramp_videos / "darkens" / "p0_0.avi")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()  # not a word from TensorFlow, CUDA or FFmpeg
    assert "model.keras: predicting with " in line
    assert len(done.stdout.splitlines()) == 1


def test_a_name_that_is_not_utf8_can_be_printed(folder, ramp_videos, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff.avi"
    try:
        shutil.copy(ramp_videos / "darkens/p0_0.avi", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    done = classify_as_a_program(folder / "model.keras", odd, "--csv", tmp_path / "t.csv")
    assert "udcff.avi: " in done.stderr and "Traceback" not in done.stderr
    assert "udcff.avi" in (tmp_path / "t.csv").read_text(encoding="utf-8")


def test_a_reader_that_has_enough_is_no_error(folder, ramp_videos):
    command = f"{sys.executable} -m activity classify {folder}/model.keras {ramp_videos}/darkens | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert [line for line in done.stderr.splitlines() if "predicting with" not in line and "exporting" not in line] == [
        f"{ramp_videos}/darkens: skipped by name: 1 sidecar"
    ]


def test_a_reader_that_has_enough_does_not_cost_the_table(folder, ramp_videos, tmp_path):
    command = f"{sys.executable} -m activity classify {folder}/model.keras {ramp_videos} --csv {tmp_path}/t.csv | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "who read the results has gone; the files are written all the same" in done.stderr
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + len(list(ramp_videos.rglob("*.avi")))


def test_a_name_does_not_command_the_terminal(folder, tmp_path):
    (tmp_path / "b\x1b[2J.mp4").write_text("hello")
    done = classify_as_a_program(folder / "model.keras", tmp_path / "b\x1b[2J.mp4")
    assert "\x1b" not in done.stdout + done.stderr and r"b\x1b[2J.mp4: this is a text file" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("classify", "0"), "a live source needs a model of videos; this one takes feature files, 6 evenly"),
        (("classify", "clip.npy", "--explain", "why"), "--explain needs a model of videos"),
        (("classify", "clip.npy", "--annotate", "drawn"), "--annotate needs a model of videos"),
        (("classify", "clip.npy", "--runtime", "keras", "--follow"), "a live source needs a model of videos"),
        (("export", "--format", "savedmodel", "--out", "exported"), "export needs a model of videos"),
        (("serve",), "the page needs a model of videos"),
    ],
)
def test_what_needs_frames_refuses_a_model_of_feature_files(
    run, one_line, feature_model, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    command, *options = words
    status, _, err = run(command, feature_model, *options)
    assert status == 1 and message in one_line(err)


def test_rows_have_the_length_that_is_asked_for(run, feature_model, folder, ramp_features, ramp_videos):
    file = ramp_features / "darkens" / "p0_0.npy"
    seconds = []
    for rate in (2, 4):
        status, out, err = run("classify", feature_model, file, "--json", "--rows-per-second", rate)
        assert status == 0 and "median of training" not in err
        seconds.append(json.loads(out)["duration_seconds"])
    assert seconds[0] == 2 * seconds[1]
    status, _, err = run("classify", folder / "model.keras", ramp_videos, "--rows-per-second", 2)
    assert status == 2 and "--rows-per-second is for models of feature files; this one takes videos" in err


def test_classify_writes_the_statistics_of_all_timelines(run, folder, ramp_videos, tmp_path):
    bad, table = tmp_path / "bad.mp4", tmp_path / "budget.csv"
    bad.write_text("text")
    files = [ramp_videos / "darkens" / "p0_0.avi", bad, ramp_videos / "brightens" / "p0_0.avi"]
    words = ("classify", folder / "model.keras", *files, "--json", "--statistics", table)
    status, out, err = run(*words)
    assert status == 1 and f"wrote {table}" in err and f"wrote {tmp_path / 'budget.transitions.csv'}" in err
    results = [result for result in map(json.loads, out.splitlines()) if "segments" in result]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {str(files[0]), str(files[2]), "all"}
    for result in results:
        for label in {segment["label"] for segment in result["segments"]}:
            (row,) = (row for row in rows if (row["source"], row["label"]) == (result["source"], label))
            own = [x for x in result["segments"] if x["label"] == label]
            seconds = sum(x["end_seconds"] - x["start_seconds"] for x in own)
            assert int(row["num_bouts"]) == len(own) and float(row["latency_seconds"]) == own[0]["start_seconds"]
            assert float(row["total_seconds"]) == pytest.approx(seconds)
            assert float(row["fraction"]) == pytest.approx(seconds / result["duration_seconds"])
    assert len(results) == 2
    before = table.read_bytes()
    status, _, err = run(*words)
    assert status == 1 and "budget.csv: exists, a time budget of ours" in err and table.read_bytes() == before
    assert f"wrote {table}" in run(*words, "--overwrite")[2]


def test_statistics_count_a_film_once_however_it_is_called(run, folder, ramp_videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(next(ramp_videos.glob("darkens/*.avi")), "a.avi")
    shutil.copy(next(ramp_videos.glob("brightens/*.avi")), "b.avi")
    Path("link.avi").symlink_to("a.avi")
    sources = ("a.avi", "./a.avi", "b.avi", "link.avi", str(tmp_path / "a.avi"))
    status, out, err = run("classify", folder / "model.keras", *sources, "--statistics", "budget.csv")
    assert status == 0 and len(out.splitlines()) > len(sources)  # each is labelled
    assert {row["source"] for row in read_csv(Path("budget.csv"))} == {"a.avi", "b.avi", "all"}
    told = "budget.csv: files that other sources are too count once; left out: "
    assert f"{told}./a.avi, {tmp_path / 'a.avi'}, link.avi\n" in err


@pytest.mark.parametrize(
    "options, status, message",
    [
        (["--statistics", "budget"], 2, "expected the name of a file that ends in .csv, received: budget"),
        (["--statistics", "none/budget.csv"], 1, "there is no folder none"),
        (["--statistics", "a.csv", "--csv", "a.csv"], 1, "both a table of predictions and a time budget would have"),
    ],
)
def test_statistics_need_a_place_of_their_own(
    run, folder, ramp_videos, tmp_path, monkeypatch, options, status, message
):
    monkeypatch.chdir(tmp_path)
    words = run("classify", folder / "model.keras", ramp_videos / "darkens" / "p0_0.avi", *options)
    assert words[0] == status and message in words[2]
    assert not list(tmp_path.iterdir())
