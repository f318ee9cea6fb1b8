import json
import shlex


def test_an_updated_model_remembers_both_commands(run, folder, ramp_videos, monkeypatch, tmp_path):
    from activity.models.classifier import load_classifier

    model = load_classifier(folder / "model.keras")
    model.info = model.info.with_record(trained=model.info.record.trained[4:])  # as if these had come since
    monkeypatch.setattr("activity.models.classifier.load_classifier", lambda _: model)
    new = tmp_path / "new.keras"
    status, _, err = run("update", folder / "model.keras", folder / "dataset", "--out", new, "--epochs", 1)
    assert status == 0, err
    about = json.loads(run("info", new, "--json")[1])
    assert shlex.split(about["command"])[:2] == ["activity", "train"]
    assert shlex.split(about["updates"][0]["command"])[:3] == ["activity", "update", str(folder / "model.keras")]
