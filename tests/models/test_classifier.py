import dataclasses
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from activity.datasets.dataset import Stacks
from activity.errors import ModelFileError
from activity.models.classifier import FORMAT_VERSION, load_classifier, predict
from activity.models.saving import save_model
from activity.training.trainer import build_classifier
from activity.video.clips import pad_right


def clip_of(dataset, index):
    return pad_right(Stacks(dataset.frames, dataset.samples, dataset.spec.streams)[index][:], dataset.spec.num_frames)


def test_end_to_end_equals_backbone_then_head(ramp_run, ramp_dataset):
    classifier = ramp_run.classifier
    for index in range(4):
        frames, mask = clip_of(ramp_dataset, index)
        whole = predict(classifier, {"frames": frames[None], "mask": mask[None]})
        features, mask = pad_right(classifier.extract_stack_features(frames[mask]), len(mask))
        np.testing.assert_allclose(classifier.predict_features(features[None], mask[None]), whole, atol=1e-5)


def test_what_stands_in_padded_frames_never_matters(ramp_run, ramp_dataset):
    shorter = next(i for i, sample in enumerate(ramp_dataset.samples) if sample.num_frames == 4)
    frames, mask = clip_of(ramp_dataset, shorter)
    noisy = np.where(
        mask[:, None, None, None, None], frames, np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8)
    )
    assert not np.array_equal(frames, noisy)
    inputs = [{"frames": pixels[None], "mask": mask[None]} for pixels in (frames, noisy)]
    np.testing.assert_array_equal(*(predict(ramp_run.classifier, each) for each in inputs))


def test_a_model_file_gives_the_same_probabilities(ramp_run, ramp_model, ramp_dataset):
    loaded = load_classifier(ramp_model)
    frames, mask = clip_of(ramp_dataset, 0)
    inputs = {"frames": frames[None], "mask": mask[None]}
    np.testing.assert_array_equal(predict(loaded, inputs), predict(ramp_run.classifier, inputs))
    assert loaded.spec == ramp_dataset.spec
    assert loaded.labels == ("brightens", "darkens")
    assert loaded.clip_seconds == pytest.approx(ramp_run.classifier.clip_seconds)
    assert loaded.info.record.training.backbone == "small_cnn"
    assert loaded.info.record.versions["keras"] == keras.__version__


DATA = Path(__file__).parent / "data"


def test_a_model_file_of_the_version_before_gives_the_same_probabilities():
    """Format 3 as activity 0.1 wrote it: layers by their registered names, the training metadata as a dictionary."""
    stored = np.load(DATA / "model_v3.npz")
    loaded = load_classifier(DATA / "model_v3.keras")
    predicted = predict(loaded, {"frames": stored["frames"], "mask": stored["mask"]})
    np.testing.assert_allclose(predicted, stored["probabilities"], atol=1e-6)
    assert loaded.spec.streams == ("rgb", "motion", "motion_crop") and loaded.labels == ("jump", "sit_down")
    assert (loaded.temperature, loaded.threshold) == (1.5, 0.25)


def test_a_fresh_process_needs_nothing_but_the_file(ramp_run, ramp_model, ramp_dataset, tmp_path):
    frames, mask = clip_of(ramp_dataset, 1)
    moved = tmp_path / "elsewhere.keras"
    moved.write_bytes(ramp_model.read_bytes())
    np.savez(tmp_path / "clip.npz", frames=frames[None], mask=mask[None])
    code = (
        "import json, numpy as np; from pathlib import Path; "
        "from activity.models.classifier import load_classifier, predict; "
        "clip = dict(np.load('clip.npz')); model = load_classifier(Path('elsewhere.keras')); "
        "print(json.dumps(predict(model, clip).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    here = predict(ramp_run.classifier, {"frames": frames[None], "mask": mask[None]})
    np.testing.assert_allclose(json.loads(done.stdout), here, atol=1e-6)


def test_a_model_file_holds_no_optimizer(ramp_model):
    with zipfile.ZipFile(ramp_model) as file:
        weights = file.read("model.weights.h5")
    assert b"optimizer" not in weights


def test_saving_replaces_the_old_file_only_when_the_new_one_is_whole(ramp_run, tmp_path, monkeypatch):
    path = tmp_path / "m.keras"
    save_model(ramp_run.classifier, path)
    old = path.read_bytes()

    def fail(self, target):
        target.write_text("half a")
        raise OSError("No space left on device")

    monkeypatch.setattr(type(ramp_run.classifier), "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(ramp_run.classifier, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_without_keras_is_refused(ramp_run, tmp_path):
    with pytest.raises(ModelFileError, match=r"m.h5: the name of a model file must end in .keras"):
        save_model(ramp_run.classifier, tmp_path / "m.h5")


def test_a_folder_is_not_replaced_by_a_model(ramp_run, tmp_path):
    (tmp_path / "m.keras").mkdir()
    with pytest.raises(ModelFileError, match="m.keras: a folder has this name"):
        save_model(ramp_run.classifier, tmp_path / "m.keras")


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match="no such model file"):
        load_classifier(tmp_path / "none.keras")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_cut_off_file(ramp_model, tmp_path, share):
    content = ramp_model.read_bytes()
    path = tmp_path / "cut.keras"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match="not a model file, or cut off"):
        load_classifier(path)


def test_flipped_bits_are_noticed(ramp_model, tmp_path):
    content = bytearray(ramp_model.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "bits.keras"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged|not a model file"):
        load_classifier(path)


def test_a_keras_model_that_is_not_ours(tmp_path):
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "other.keras")
    with pytest.raises(ModelFileError, match="not one of ours; .*, received Functional"):
        load_classifier(tmp_path / "other.keras")


@pytest.fixture
def with_part(ramp_model, tmp_path):
    """A function that copies the model file with another content of one of its parts."""

    def write(part, change):
        path = tmp_path / "changed.keras"
        with zipfile.ZipFile(ramp_model) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, change(old.read(name)) if name == part else old.read(name))
        return path

    return write


def change_of_config(change):
    def changed(content):
        config = json.loads(content)
        change(config["config"])
        return json.dumps(config)

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(format_version=FORMAT_VERSION + 1), "made by a newer activity"),
        (lambda config: config.pop("format_version"), "damaged, it does not say which model format"),
        (lambda config: config.update(format_version="1"), "damaged, it does not say which model format"),
        (lambda config: config["spec"].update(stride=2), "another version .* unexpected keyword argument 'stride'"),
        (lambda config: config.pop("labels"), "another version .*'labels'"),
        (lambda config: config["head"].update(config=[]), "damaged, or made by another version"),
        (lambda config: config.update(labels=["a", "b", "c"]), "damaged: 3 labels, but 2 outputs"),
        (lambda config: config.update(labels=["a"]), "damaged: 1 labels, but 2 outputs"),
    ],
)
def test_a_config_of_another_program_is_told_in_one_line(with_part, change, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        load_classifier(with_part("config.json", change_of_config(change)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("config.json", b"[]", r"expected an object in its config.json, received \[\]"),
        ("config.json", b"\xff", "not a model file, or cut off"),
        ("config.json", b'{"registered_name": "activity>ActivityClassifier", "config": 3}', "does not say which model"),
        ("metadata.json", b"no JSON", None),
        ("model.weights.h5", b"no HDF5", "damaged, or made by another version"),
    ],
)
def test_damaged_parts_are_told_in_one_line(with_part, part, content, message):
    path = with_part(part, lambda _: content)
    if message is None:  # nothing is read from it
        assert load_classifier(path).labels == ("brightens", "darkens")
        return
    with pytest.raises(ModelFileError, match=message) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)


# === Model files from strangers ===


def rewritten(path, out, *, config=None, weights=None):
    """A model file with its config, or the HDF5 file of its weights, changed by a function."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json" and config:
                values = json.loads(content)
                config(values["config"])
                content = json.dumps(values)
            if name == "model.weights.h5" and weights:
                buffer = io.BytesIO(content)
                with h5py.File(buffer, "r+") as file:
                    weights(file, _dataset_names(file))
                content = buffer.getvalue()
            new.writestr(name, content)
    return out


def _dataset_names(file):
    names = []
    file.visititems(lambda name, part: names.append(name) if isinstance(part, h5py.Dataset) and part.size > 1 else None)
    return names


def not_a_number(file, names):
    file[names[-1]][...] = np.nan


def elsewhere(file, names):
    del file[names[0]]
    file[names[0]] = h5py.ExternalLink("/etc/other.h5", "x")


def of_another_file(file, names):
    shape = file[names[0]].shape
    del file[names[0]]
    file.create_dataset(names[0], shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def compressed(file, names):
    del file[names[0]]
    file.create_dataset(names[0], (10**4, 10**4), "f4", compression="gzip", fillvalue=1.0)


def in_itself(file, names):
    file["again"] = file["/"]


def with_code(config):
    layer = {"name": "evil", "function": {"class_name": "__lambda__", "config": {"value": "YQ=="}}}
    config["head"] = {"module": "keras.layers", "class_name": "Lambda", "config": layer, "registered_name": None}


def too_large(config):
    with_units(config["head"], 10**9)


def with_units(config, units):
    """Change the number of units wherever a layer, or a cell inside it, names one."""
    if isinstance(config, dict):
        config.pop("build_config", None)
        if "units" in config:
            config["units"] = units
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            with_units(value, units)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": not_a_number}, "its weights .* are not finite numbers"),
        ({"weights": elsewhere}, "its weights .* are not inside it"),
        ({"weights": of_another_file}, "its weights .* are not inside it"),
        ({"weights": compressed}, "its weights would unpack to 4[0-9,]{10} bytes"),
        ({"config": with_code}, "holds code that it wants to be run; models of ours hold none"),
    ],
)
def test_a_file_that_would_do_harm_is_refused(ramp_model, tmp_path, change, reason):
    with pytest.raises(ModelFileError, match=reason) as raised:
        load_classifier(rewritten(ramp_model, tmp_path / "m.keras", **change))
    assert "safe_mode" not in str(raised.value) and "unsafe" not in str(raised.value)
    assert load_classifier(ramp_model).labels == ("brightens", "darkens")


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("lstm_plain", "needs [0-9,]{13,} weights, but holds [0-9,]{1,9}$"),
        ("lstm", "Received: input_shape=.*250000000"),  # by the layer after it, before anything of that size is made
    ],
)
def test_a_file_that_names_a_billion_units_is_refused(ramp_dataset, frozen_config, tmp_path, head, reason):
    classifier = build_classifier(ramp_dataset, dataclasses.replace(frozen_config, head=head))
    save_model(classifier, tmp_path / "m.keras")
    with pytest.raises(ModelFileError, match=reason):
        load_classifier(rewritten(tmp_path / "m.keras", tmp_path / "large.keras", config=too_large))


@pytest.mark.parametrize(
    ("absent", "reason"),
    [("model.weights.h5", "damaged, there are no weights in it"), ("config.json", "not a model file, or cut off")],
)
def test_a_file_without_a_part_is_refused(ramp_model, tmp_path, absent, reason):
    with zipfile.ZipFile(ramp_model) as old, zipfile.ZipFile(tmp_path / "m.keras", "w") as new:
        for name in sorted({*old.namelist()} - {absent}):
            new.writestr(name, old.read(name))
    with pytest.raises(ModelFileError, match=reason):
        load_classifier(tmp_path / "m.keras")


def test_names_of_one_place_are_followed_once(ramp_model, tmp_path):
    assert load_classifier(rewritten(ramp_model, tmp_path / "m.keras", weights=in_itself)).labels


def test_a_model_that_can_only_answer_nan_is_not_saved(ramp_model, tmp_path):
    classifier = load_classifier(ramp_model)
    classifier.head.weights[-2].assign(np.full(classifier.head.weights[-2].shape, np.inf))
    with pytest.raises(ModelFileError, match="its weights .* are not finite numbers; train it again"):
        save_model(classifier, tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_model_of_ours_is_not_replaced(ramp_run, tmp_path):
    path = tmp_path / "foreign.keras"
    path.write_text("of the user")
    with pytest.raises(ModelFileError, match="foreign.keras: exists and is not a model file of ours"):
        save_model(ramp_run.classifier, path)
    assert path.read_text() == "of the user"
    path.unlink()
    assert save_model(ramp_run.classifier, save_model(ramp_run.classifier, path)) == path
