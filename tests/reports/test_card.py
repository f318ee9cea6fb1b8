import dataclasses
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from activity.cli.main import parser
from activity.errors import ModelFileError
from activity.models.classifier import load_classifier
from activity.models.info import TrainingRecord
from activity.models.saving import save_model
from activity.reports.card import model_card, plain_markdown
from activity.training.trainer import train


def squeezed(text):
    """Columns two spaces apart, however wide they are."""
    return re.sub(" {2,}", "  ", text)


CALIBRATION = {
    "temperature": 1.5,
    "threshold": 0.0,
    "coverage": 1.0,
    "num_videos": 90,
    "expected_calibration_error": {"before": 0.1, "after": 0.05},
}


@pytest.fixture
def card_of(ramp_model, tmp_path):
    """A function that gives the card of the model with another record."""

    def card(**changes):
        model = load_classifier(ramp_model)
        info = dataclasses.replace(model.info, threshold=changes.pop("threshold", 0.0))
        facts = {"num_parameters": None, **info.record.as_dict(), "training": info.record.training, **changes}
        record = TrainingRecord(**{name: fact for name, fact in facts.items() if fact is not None})
        model.info = dataclasses.replace(info, record=record)
        return model_card(save_model(model, tmp_path / "changed.keras"))

    return card


def test_a_stack_tells_what_it_rests_on_and_what_to_expect(card_of):
    numbers = {"accuracy": 0.8, "standard_error": 0.02, "head_accuracy": 0.75, "baseline_accuracy": 0.7}
    assert "frames shuffled" not in card_of(estimate={"num_videos": 90, "num_groups": 9, **numbers}).as_text()
    card = card_of(
        stack={"lstm": 0.3, "cosines of rgb": 0.004, "mean": 0.696},
        estimate={"num_videos": 90, "num_groups": 9, "shuffled_accuracy": 0.6, **numbers},
        calibration={**CALIBRATION, "out_of_fold": True},
    )
    text = " ".join(card.as_text().split())
    assert "rests on mean 70%, lstm 30%" in text
    assert "accuracy 0.800 +- 0.020 on 90 training videos of 9 groups, each predicted without its group" in text
    assert (
        "head alone 0.750, baseline 0.700, frames shuffled 0.600" in text
        and "training videos out of fold; expected" in text
    )
    assert card.as_dict()["estimate"]["num_groups"] == 9


def test_it_tells_what_the_file_knows(ramp_model, ramp_run, ramp_dataset):
    card = model_card(ramp_model)
    about = card.as_dict()
    assert set(json.loads(json.dumps(about))) == set(about)
    assert about["labels"] == ["brightens", "darkens"] and card.info.spec == ramp_dataset.spec
    assert about["num_bytes"] == ramp_model.stat().st_size
    assert about["num_parameters"] == ramp_run.classifier.count_params()
    pairs = Counter((sample.label, sample.split) for sample in ramp_dataset.samples)
    counts = {(label, split): n for label, numbers in about["counts"].items() for split, n in numbers.items() if n}
    assert counts == pairs and len(pairs) == 6
    assert sum(about["num_groups"].values()) == 8 and about["num_torn_groups"] == 0
    last = ramp_run.history[-1]
    assert about["scores"] == {name: last[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    assert set(about["changed"]) == {
        "backbone", "weights", "units", "members", "stack", "val_split", "dropout", "epochs", "learning_rate"
    }  # fmt: skip
    assert about["seconds"] == pytest.approx(sum(stage.seconds for stage in ramp_run.stages), abs=0.1)
    assert about["date"][:2] == "20" and about["date"].endswith("+00:00")
    assert not {"trained", "held_out", "history"} & set(about)


def test_of_a_model_trained_from_python_it_gives_a_command_that_would(ramp_model, ramp_dataset, frozen_config):
    card = model_card(ramp_model)
    assert not card.as_dict()["command_recorded"]
    program, *words = shlex.split(card.command)
    arguments = parser().parse_args(words)
    assert program == "activity" and str(arguments.dataset) == str(ramp_dataset.dataset_dir)
    assert arguments.streams == ramp_dataset.spec.streams
    for name, value in dataclasses.asdict(frozen_config).items():
        assert getattr(arguments, name) == value
    assert "\n  as a command  activity train" in squeezed(card.as_text())


def test_the_same_is_told_in_a_terminal_and_on_a_page(card_of):
    error = {"before": 0.2, "after": 0.125}
    calibration = {"temperature": 1.5, "num_videos": 8, "expected_calibration_error": error}
    command = "activity train 'my data' --out a|b.keras"
    card = card_of(command=command, threshold=0.5, calibration=calibration)
    text, page = card.as_text(), card.as_markdown()
    assert "\n  command  activity train 'my data' --out a|b.keras\n" in squeezed(text)
    assert "| command | activity train 'my data' --out a\\|b.keras |" in page
    for words in (
        "2: brightens, darkens",
        "6 frames, spread evenly over the video",
        "32 x 32 pixels",
        'below a probability of 0.500 the answer is "unknown"',
        "rgb, motion",
        "Its splits share no group",
        "temperature 1.50, by 8 validation videos; expected calibration error 0.200 before, 0.125 after calibration",
        "The validation score is that of 8 videos, which calibrated it too",
    ):
        assert words in text and words in page
    assert page.splitlines()[0] == "# changed.keras" and "## Limits" in page


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("motion_crop, 0.5 s & more", "motion_crop, 0.5 s & more"),
        ("a|b\\c\n", r"a\|b\\c\\n"),
        ("**bold** _it_ `code` ~~gone~~", r"\*\*bold\*\* \_it\_ \`code\` \~\~gone\~\~"),
        ("<img src=x> &lt; $$x$$", r"\<img src=x\> \&lt; \$\$x\$\$"),
        ("[a](https://b.c) WWW.b.c a@b.c", r"\[a\](https\://b.c) WWW\.b.c a\@b.c"),
    ],
)
def test_what_the_file_holds_is_no_markup(text, escaped):
    assert plain_markdown(text) == escaped


UPDATE = {
    "scheme": "replay",
    "added": ["waves"],
    "num_new": 3,
    "num_old": 2,
    "old": {"num_videos": 4, "split": "test", "before": 1.0, "after": 0.75},
    "new": {"num_videos": 0, "reason": "none"},
}


def test_updates_are_told(card_of):
    text = squeezed(card_of(updates=[{**UPDATE, "command": "activity update a b --out c"}]).as_text())
    assert "update 1\n  scheme  replay: 3 new training videos, 2 old ones\n" in text
    assert "  new labels  waves\n  old videos  4 of test, accuracy 1.000 before, 0.750 after\n" in text
    assert "  new videos" not in text and "activity update a b --out c" in text


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        (
            {"num_groups": {"train": 5, "val": 2, "test": 1}, "num_split_groups": 2},
            "2 groups .* in more than one split",
        ),
        (
            {"num_groups": {"train": 9, "val": 4, "test": 3}, "num_videos": {"train": 9, "val": 4, "test": 3}},
            "Each video is a group of its own",
        ),
        ({"num_groups": None}, "is not recorded"),
        ({"num_videos": {"train": 9, "val": 0, "test": 3}}, "It has no score on videos it was not trained on"),
        ({"threshold": 0.4}, "Something quite different"),
        ({"updates": (UPDATE, UPDATE)}, "from before it was updated with 6 new videos"),
        ({"updates": (UPDATE,), "num_videos": {"train": 9, "val": 0, "test": 3}}, "are those of its last update"),
        ({}, "whatever a video shows"),
    ],
)
def test_it_names_the_limits(card_of, changes, limit):
    card = card_of(**changes)
    assert re.search(limit, "\n".join(card.limits))
    assert all(line in card.as_text() for line in card.limits)


def test_numbers_that_a_new_training_counted_again_are_not_called_old(card_of):
    card = card_of(updates=(UPDATE, {**UPDATE, "scheme": "retrain"}))
    assert not any("before it was updated" in limit for limit in card.limits)


def test_a_model_without_a_record_has_a_card(ramp_model, tmp_path):
    model = load_classifier(ramp_model)
    model.info = dataclasses.replace(model.info, record=TrainingRecord())
    card = model_card(save_model(model, tmp_path / "m.keras"))
    assert (card.scores, card.changed, card.command) == ({}, {}, "")
    assert "  date  not recorded" in squeezed(card.as_text()) and "## Training" in card.as_markdown()


def test_what_was_trained_before_groups_and_dates_were_recorded(card_of):
    old = dict.fromkeys(("counts", "num_groups", "num_split_groups", "date", "seconds", "dataset"))
    text = card_of(**old).as_text()
    assert "  date  not recorded" in squeezed(text) and "activity train DATASET --out" in text


def test_without_a_val_split_there_is_no_such_score(ramp_dataset, frozen_config, tmp_path):
    samples = [dataclasses.replace(s, split="test") if s.split == "val" else s for s in ramp_dataset.samples]
    dataset = dataclasses.replace(ramp_dataset, samples=samples)
    run = train(dataset, dataclasses.replace(frozen_config, epochs=1), work_dir=tmp_path / "run")
    card = model_card(save_model(run.classifier, tmp_path / "m.keras"))
    assert set(card.scores) == {"loss", "accuracy"} and "validation  " not in card.as_text()
    assert "It has no score on videos it was not trained on: see `activity evaluate`." in card.limits


def test_a_file_that_is_no_model(tmp_path):
    with pytest.raises(ModelFileError, match="no such model file"):
        model_card(tmp_path / "none.keras")


def test_a_config_of_another_program_is_told_in_one_line(ramp_model, tmp_path):
    def changed(content):
        config = json.loads(content)
        del config["config"]["labels"]
        return json.dumps(config)

    with zipfile.ZipFile(ramp_model) as old, zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, changed(old.read(name)) if name == "config.json" else old.read(name))
    with pytest.raises(ModelFileError, match=r"m.keras: damaged, or made by another version of activity: .*labels"):
        model_card(tmp_path / "m.keras")


def test_neither_keras_nor_numpy_is_imported(ramp_model):
    heavy = {"keras", "tensorflow", "numpy", "cv2", "h5py"}
    program = (
        f"import sys; from activity.reports.card import model_card; model_card({str(ramp_model)!r}).as_markdown(); "
        f"print(*sorted({heavy} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "\n", "")


def test_a_model_file_of_the_version_before_has_a_card():
    card = model_card(Path(__file__).parents[1] / "models" / "data" / "model_v3.keras")
    about = json.loads(json.dumps(card.as_dict()))
    assert about["num_videos"] == {"train": 6, "val": 2, "test": 2} and about["num_torn_groups"] == 0
    assert about["command"].startswith("activity train dataset --out model_v3.keras") and about["command_recorded"]
    assert "Its splits share no group" in card.as_text() and "jump, sit_down" in card.as_markdown()


def test_a_page_for_strangers_shows_no_path(card_of):
    card = card_of(dataset="/home/anna/videos", command="activity train /home/anna/videos --out m.keras")
    assert "/home/anna" in card.as_markdown()
    page = card.as_markdown(with_paths=False)
    assert "/home/anna" not in page and "brightens" in page and "## Limits" in page


def test_a_model_of_feature_files_names_where_they_came_from(feature_model, ramp_features):
    card = model_card(feature_model)
    text = squeezed(card.as_text())
    assert "clip  6 rows, spread evenly over the video" in text
    assert re.search(r"row  5 features of another network; [\d.]+ of them a second \(median of training\)", text)
    assert f"feature files  {ramp_features}" in text and "architecture  feature files, head lstm" in text
    assert "frame" not in text.partition("data\n")[0] and "streams" not in text
    assert (
        "They must come" not in text and "they must come from the very network that made those of its training" in text
    )
    assert "not the default  features " in text and "backbone" not in text
    assert str(ramp_features) not in card.as_markdown(with_paths=False)
    words = shlex.split(card.command)
    assert parser().parse_args(words[1:]).features == str(ramp_features) and "--streams" not in words
    assert card.as_dict()["spec"]["num_features"] == 5 and card.as_dict()["training"]["features"] == str(ramp_features)
