import copy
import dataclasses
import json
import zipfile
from pathlib import Path

import pytest

from activity.config import ClipSpec, TrainConfig, as_dict
from activity.errors import ActivityError, ModelFileError
from activity.models.info import ModelInfo, TrainingRecord, check_takes_videos, is_model, read_info
from activity.reports.card import ModelCard

OLD = Path(__file__).parent / "data" / "model_v3.keras"

INFO = ModelInfo(
    spec=ClipSpec(num_frames=4),
    labels=("jump", "sit"),
    clip_seconds=2.0,
    window_seconds=1.5,
    threshold=0.25,
    record=TrainingRecord(
        training=TrainConfig(head="gru"),
        num_videos={"train": 3, "val": 0, "test": 1},
        num_split_groups=0,
        trained=("aa", "bb"),
        calibration={
            "temperature": 1.5,
            "num_videos": 4,
            "expected_calibration_error": {"before": 0.2, "after": 0.1},
        },
        history=({"stage": "head", "epoch": 0, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5},),
        updates=(
            {
                "scheme": "replay",
                "num_new": 3,
                "num_old": 0,
                "added": ["sit"],
                "old": {"num_videos": 0, "reason": "none"},
                "new": {"num_videos": 1, "split": "val", "before": 0.0, "after": 1.0},
            },
        ),
        seconds=0.0,
    ),
)


def test_it_survives_json():
    assert ModelInfo.from_dict(json.loads(json.dumps(INFO.as_dict()))) == INFO
    plain = dataclasses.replace(INFO, record=TrainingRecord())
    assert "record" not in plain.as_dict() and ModelInfo.from_dict(plain.as_dict()) == plain


def test_facts_and_settings_of_other_versions_are_left_out():
    values = INFO.as_dict()
    values["record"]["mood"] = "good"
    values["record"]["training"]["scheduler"] = "cosine"
    assert ModelInfo.from_dict(values) == INFO


def test_the_record_changes_by_copies():
    changed = INFO.with_record(command="activity train")
    assert (changed.record.command, INFO.record.command) == ("activity train", "")
    assert changed.record.trained == INFO.record.trained and changed.labels == INFO.labels
    with pytest.raises(dataclasses.FrozenInstanceError):
        INFO.threshold = 0.5


def test_a_model_file_of_the_version_before_is_read():
    info = read_info(OLD)
    assert info.spec == ClipSpec(num_frames=4, height=16, width=16) and info.labels == ("jump", "sit_down")
    assert info.threshold == 0.25 and info.clip_seconds >= info.window_seconds > 0
    record = info.record
    before = {"head": "chunks", "units": 128, "stack": False, "val_split": True, "mixup": 0.0}
    assert record.training == TrainConfig(backbone="small_cnn", members=1, epochs=3, batch_size=4, **before)
    assert (len(record.trained), len(record.held_out), record.num_split_groups) == (8, 2, 0)
    assert record.num_videos == {"train": 6, "val": 2, "test": 2} and record.calibration is None
    assert len(record.history) == 3 and record.command.startswith("activity train dataset")
    assert record.versions["activity"] == "0.1.0" and record.num_parameters > 0


# === Model files from strangers ===


def changed(keys, value):
    """What `INFO` is in a file, with another value at a place."""
    values = copy.deepcopy(json.loads(json.dumps(INFO.as_dict())))
    *way, last = keys.split(".")
    place = values
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    return values


@pytest.mark.parametrize(
    "value",
    [None, "x", -1, pytest.param(10**400, id="huge"), float("nan"), [], {}, [1], {"a": 1}, True, ["a", "a"], [""]],
)
@pytest.mark.parametrize(
    "keys",
    [
        *("spec", "spec.num_frames", "spec.height", "spec.streams", "spec.resize", "labels"),
        *("clip_seconds", "window_seconds", "threshold", "rows_per_second", "spec.num_features"),
        *("record.training", "record.training.features", "record.training.head"),
        *("record.training.epochs", "record.training.dropout", "record.num_videos", "record.num_videos.val"),
        *("record.trained", "record.calibration.temperature", "record.history", "record.history.0.loss"),
        *("record.updates", "record.updates.0.old", "record.updates.0.new.before", "record.updates.0.added"),
    ],
)
def test_every_field_is_validated(keys, value):
    """What is read has the types that it must have, or it is refused in one line."""
    try:
        info = ModelInfo.from_dict(changed(keys, value))
    except (KeyError, TypeError, ActivityError):
        return
    assert info.window_seconds > 0 and info.threshold >= 0 and all(isinstance(x, str) for x in info.labels)
    card = ModelCard(OLD, 1, info)
    assert card.as_text() and card.as_markdown() and json.dumps(card.as_dict(), allow_nan=False)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "2", None])
def test_windows_have_a_length(value):
    with pytest.raises(ActivityError, match="window_seconds"):
        ModelInfo.from_dict(changed("window_seconds", value))


def rewritten(path, *, extra=(), config=None, compression=zipfile.ZIP_STORED):
    """The old model file with other parts."""
    with zipfile.ZipFile(OLD) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, config if config and name == "config.json" else old.read(name))
        for name, content in extra:
            new.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["assets/x", "../../x", "/etc/x", "zeros.bin", "_self_destruct.py"])
def test_a_part_that_no_model_file_has_is_refused(tmp_path, name):
    path = rewritten(tmp_path / "m.keras", extra=[(name, b"x")])
    with pytest.raises(ModelFileError, match="has a part that model files have not"):
        read_info(path)
    assert not is_model(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="has a part that model files have not: 'config.json'"):
        read_info(rewritten(tmp_path / "m.keras", extra=[("config.json", b"{}")]))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = rewritten(tmp_path / "m.keras", config=b" " * (33 << 20), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(ModelFileError, match="its config.json would unpack to 34,603,008 bytes; expected at most"):
        read_info(bomb)
    assert not is_model(bomb)


def test_nested_lists_are_one_line(tmp_path):
    with pytest.raises(ModelFileError, match="not a model file, or cut off"):
        read_info(rewritten(tmp_path / "m.keras", config=b"[" * 200_000 + b"]" * 200_000))


@pytest.mark.parametrize(("old", "now"), [("segments", "chunks"), ("lstm", "lstm_plain"), ("gru", "gru")])
def test_heads_of_earlier_files_have_their_names_of_today(old, now):
    settings = as_dict(TrainConfig(head=old))
    for name in ("stack", "val_split", "mixup"):  # there was no stack, and the validation split was kept
        del settings[name]
    then = TrainConfig(head=now, stack=False, val_split=True, mixup=0.0)
    assert TrainingRecord.from_dict({"training": settings}).training == then
    assert TrainingRecord.from_dict({"training": as_dict(TrainConfig(head="lstm"))}).training.head == "lstm"


FEATURES = ModelInfo(
    spec=ClipSpec(streams=("features",), num_features=7),
    labels=("run", "walk"),
    clip_seconds=2.0,
    window_seconds=1.0,
    rows_per_second=3.5,
)


def test_a_record_of_before_mixup_has_none():
    settings = as_dict(TrainConfig())
    del settings["mixup"]
    assert TrainingRecord.from_dict({"training": settings}).training == TrainConfig(mixup=0.0)


def test_a_model_of_features_knows_how_long_a_row_lasts():
    assert ModelInfo.from_dict(json.loads(json.dumps(FEATURES.as_dict()))) == FEATURES
    assert "rows_per_second" not in INFO.as_dict()
    for rate in (None, 0.0, float("nan"), 1e300):
        with pytest.raises(ActivityError, match="rows_per_second must be 0.000001 to 1000000"):
            dataclasses.replace(FEATURES, rows_per_second=rate)
    with pytest.raises(ActivityError, match="rows_per_second must be none: the model takes videos, received: 2"):
        dataclasses.replace(INFO, rows_per_second=2)


def test_what_needs_frames_refuses_a_model_of_features():
    check_takes_videos(INFO, "the page")
    with pytest.raises(
        ActivityError, match="the page needs a model of videos; this one takes feature files, 16 evenly"
    ):
        check_takes_videos(FEATURES, "the page")
