import dataclasses
import json
from pathlib import Path

import pytest

from activity.config import ClipSpec, TrainConfig
from activity.models.info import ModelInfo, TrainingRecord, read_info

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
        calibration={"temperature": 1.5},
        updates=({"scheme": "replay"},),
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
    assert record.training == TrainConfig(backbone="small_cnn", members=1, epochs=3, batch_size=4)
    assert (len(record.trained), len(record.held_out), record.num_split_groups) == (8, 2, 0)
    assert record.num_videos == {"train": 6, "val": 2, "test": 2} and record.calibration is None
    assert len(record.history) == 3 and record.command.startswith("activity train dataset")
    assert record.versions["activity"] == "0.1.0" and record.num_parameters > 0
