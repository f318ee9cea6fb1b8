"""activity describe, and the commands around it, as they are typed."""

import csv
import json

import pytest
from conftest import CAPTIONS

from activity.cli.main import main


def run(capsys, *words):
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_it_prints_a_line_for_each_source(caption_model, ramp_videos, tmp_path, capsys):
    (tmp_path / "broken.avi").write_bytes(b"no video")
    sources = [ramp_videos / "darkens" / "p0_0.avi", tmp_path / "broken.avi", ramp_videos / "brightens" / "p0_0.avi"]
    status, out, err = run(capsys, "describe", caption_model, *sources, "--csv", tmp_path / "table.csv")
    assert status == 1 and "broken.avi" in err
    lines = out.splitlines()
    assert [line.split("  ", 1)[0] for line in lines] == [str(sources[0]), str(sources[2])]
    assert lines[0].split("  ", 1)[1] in CAPTIONS["darkens"]
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["source", "caption", "log_probability", "duration_seconds", "error"]
    assert rows[1]["error"] and not rows[1]["caption"] and rows[2]["caption"] in CAPTIONS["brightens"]
    status, _, err = run(capsys, "describe", caption_model, sources[0], "--csv", tmp_path / "table.csv")
    assert status == 1 and "--overwrite" in err


def test_json_has_the_keys_of_the_contract(caption_model, ramp_videos, capsys):
    path = ramp_videos / "darkens" / "p0_0.avi"
    status, out, _ = run(capsys, "describe", caption_model, path, "--json", "--top-k", "3", "--timeline")
    (values,) = map(json.loads, out.splitlines())
    assert status == 0 and list(values) == [
        "source",
        "caption",
        "log_probability",
        "top",
        "duration_seconds",
        "segments",
    ]
    assert len(values["top"]) == 3 and values["log_probability"] <= 0
    assert values["segments"][0]["start_seconds"] == 0


def test_random_sentences_have_a_seed(caption_model, ramp_videos, capsys):
    words = ["describe", caption_model, ramp_videos / "darkens", "--temperature", "3"]
    first, again, other = (run(capsys, *words, "--seed", seed)[1] for seed in (1, 1, 2))
    assert first == again != other


def test_it_writes_subtitles_and_annotated_videos(caption_model, ramp_videos, tmp_path, capsys):
    source = ramp_videos / "darkens" / "p0_0.avi"
    words = ["describe", caption_model, source, "--out", tmp_path / "out", "--annotate", tmp_path / "videos"]
    status, out, _ = run(capsys, *words)
    assert status == 0 and len(out.splitlines()) == 2  # of the video, and of its only part
    assert {path.name for path in (tmp_path / "out").iterdir() if path.suffix in (".json", ".csv", ".srt")} == {
        "p0_0.json",
        "p0_0.csv",
        "p0_0.srt",
    }
    caption = json.loads((tmp_path / "out" / "p0_0.json").read_text())["segments"][0]["caption"]
    assert caption in CAPTIONS["darkens"]
    subtitles = (tmp_path / "out" / "p0_0.srt").read_bytes().decode()
    assert subtitles.startswith("1\r\n00:00:00,000 --> 00:00:00,") and caption in subtitles
    with (tmp_path / "out" / "p0_0.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["start_seconds", "end_seconds", "caption", "log_probability"] and row["caption"] == caption
    assert (tmp_path / "videos" / "p0_0.mp4").stat().st_size > 500
    status, _, err = run(capsys, *words)
    assert status == 1 and "--overwrite" in err
    status, _, err = run(capsys, "describe", caption_model, source, "--out", source.parent)
    assert status == 1 and "expected a folder of its own for the results" in err


def test_it_generates_sentences_without_a_video(caption_model, capsys):
    words = ["generate", caption_model, "--temperature", "0.3", "--seed", 1]
    status, five, _ = run(capsys, *words)
    assert status == 0 and len(five.splitlines()) == 5
    assert run(capsys, *words, "--num", 2)[1].splitlines() == five.splitlines()[:2]
    (line,) = run(capsys, *words, "--num", 1, "--json")[1].splitlines()
    assert list(json.loads(line)) == ["caption", "log_probability"]
    assert {caption for captions in CAPTIONS.values() for caption in captions} & set(five.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top-k", "6"], "--top-k must be 1 to 5, the sentences that --beams 5 finds, received 6"),
        (["--temperature", "1", "--top-k", "2"], "--temperature draws one sentence, so --top-k must be 1, received 2"),
        (["--temperature", "1", "--beams", "2"], "--beams is of the search for the most probable words"),
        (["--seed", "3"], "--seed is of random words; expected --temperature too"),
        (["--top-p", "0.5"], "--top-p is of random words; expected --temperature too"),
        (["--temperature", "0"], "must be 0.001 to 100"),
        (["--beams", "0"], "must be 1 to 100"),
    ],
)
def test_wrong_usage_is_said(caption_model, words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "describe", caption_model, "clip.avi", *words)
    assert message in capsys.readouterr().err


def test_each_command_names_the_other(caption_model, ramp_model, ramp_videos, capsys):
    path = ramp_videos / "darkens" / "p0_0.avi"
    status, _, err = run(capsys, "classify", caption_model, path)
    assert status == 1 and "this one writes sentences; try: activity describe captioner.keras SOURCE..." in err
    status, _, err = run(capsys, "describe", ramp_model, path)
    assert status == 1 and "this one labels activities; try: activity classify ramps.keras SOURCE..." in err


def test_export_writes_two_graphs_and_replaces_neither_unasked(caption_model, tmp_path, capsys):
    command = ["export", caption_model, "--format", "savedmodel", "--out", tmp_path / "saved"]
    status, out, err = run(capsys, *command)
    assert status == 0 and "matches Keras on 11 test clips" in out and f"wrote {tmp_path / 'saved'}" in err
    assert {"saved_model.pb", "network.json", "step"} <= {path.name for path in (tmp_path / "saved").iterdir()}
    (tmp_path / "m.step.xml").write_text("mine")
    status, _, err = run(capsys, "export", caption_model, "--format", "openvino", "--out", tmp_path / "m.xml")
    assert status == 1 and "m.step.xml" in err and (tmp_path / "m.step.xml").read_text() == "mine"


def test_an_unknown_runtime_is_told_before_the_work(caption_model, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "describe", caption_model, "clip.avi", "--runtime", "abacus")
    assert "abacus" in capsys.readouterr().err


def test_train_evaluate_describe_and_tell(captioned_dataset, caption_config, ramp_videos, tmp_path, capsys):
    model, dataset = tmp_path / "m.keras", captioned_dataset.dataset_dir
    recipe = [
        *("--task", "describe", "--backbone", "small_cnn", "--weights", caption_config.weights, "--units", 16),
        *("--members", 1, "--decoder-units", 24, "--max-words", 6, "--epochs", 30, "--learning-rate", 0.01),
    ]
    status, out, _ = run(capsys, "train", dataset, "--out", model, *recipe)
    assert status == 0 and out.splitlines()[1].split() == "vocabulary 6 words; sentences of up to 6".split()
    assert (tmp_path / "m.training" / "learning_curves.png").is_file()
    status, out, _ = run(capsys, "evaluate", model, dataset, "--json", "--out", tmp_path / "report")
    values = json.loads(out)
    assert status == 0 and values["num_videos"] == 8 and values["baseline"]["exact"] <= 1
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.html", "scores.json", "report.txt", "captions.csv", "worst.png", "learning_curves.png"} <= names
    page = (tmp_path / "report" / "report.html").read_text()
    assert "the caption of the nearest training video" in page and "it gets darker" in page
    status, out, _ = run(capsys, "info", model)
    assert "decoder LSTM of 24" in out and "a sentence of up to 6 words" in out and "6: " in out
    assert "--task describe" in out
    status, out, _ = run(capsys, "info", model, "--markdown")
    assert "A model that writes sentences on videos, of 6 words" in out
    status, out, _ = run(capsys, "info", model, "--json")
    assert json.loads(out)["words"] and json.loads(out)["max_words"] == 6
    status, _, err = run(capsys, "train", dataset, "--out", tmp_path / "n.keras")
    assert status == 1 and "it has captions and no labels" in err and "--task describe" in err
