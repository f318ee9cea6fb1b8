import dataclasses
import json
import logging
import re
import shutil

import keras
import numpy as np
import pytest
from conftest import SPEC

from activity.cli.main import main
from activity.config import TrainConfig
from activity.datasets.preprocessing import preprocess
from activity.datasets.samples import content_of
from activity.errors import ActivityError, DatasetError, ModelFileError
from activity.models.classifier import load_classifier
from activity.models.info import TrainingRecord
from activity.models.saving import save_model
from activity.models.stack import is_stack, stack_fractions
from activity.predictor.predictor import Predictor
from activity.training.trainer import build_classifier, train
from activity.training.updating import Comparison, expand_labels, update
from activity.video.writer import write_video


@pytest.fixture(scope="module")
def grown(ramp_videos, tmp_path_factory):
    """The ramps, preprocessed; then 16 videos that brighten a little, by the same people, preprocessed again."""
    folder = tmp_path_factory.mktemp("grown")
    videos_dir = folder / "videos"
    shutil.copytree(ramp_videos, videos_dir)
    preprocess(videos_dir, folder / "dataset", SPEC, num_workers=1)
    rng = np.random.default_rng(7)
    rows = []
    (videos_dir / "glows").mkdir()
    for person in range(8):
        for take in range(2):
            ramp = np.linspace(70 + 5 * person, 155, 6 + take)
            frames = (ramp[:, None, None, None] + rng.integers(0, 20, (len(ramp), 24, 24, 3))).astype(np.uint8)
            path = f"glows/p{person}_{take}.avi"
            write_video(videos_dir / path, frames, frames_per_second=10)
            rows.append(f"{path},glows,person{person},{'left' if person < 4 else 'right'}\n")
    with (videos_dir / "manifest.csv").open("a") as file:
        file.writelines(rows)
    return preprocess(videos_dir, folder / "dataset", SPEC, num_workers=1)


def part_of(dataset, keep):
    return dataclasses.replace(dataset, samples=[sample for sample in dataset.samples if keep(sample)])


@pytest.fixture(scope="module")
def replayed(ramp_run, grown, tmp_path_factory):
    """The model of the ramps, updated by the default scheme."""
    return update(ramp_run.classifier, grown, work_dir=tmp_path_factory.mktemp("replayed"))


@pytest.fixture(scope="module")
def forgetful(ramp_run, grown, tmp_path_factory):
    """The same, trained the new label alone, with all the learning rate of the recipe."""
    work_dir = tmp_path_factory.mktemp("forgetful")
    return update(ramp_run.classifier, grown, work_dir=work_dir, scheme="new-only", learning_rate=5e-3)


def untrained(run, dataset, **changes):
    """A classifier of another recipe, with the backbone of a run."""
    config = dataclasses.replace(recipe_of(run), **changes)
    keras.utils.set_random_seed(0)
    classifier = build_classifier(dataset, config, run.classifier.backbone)
    classifier.info = run.classifier.info.with_record(training=config)
    return classifier


def recipe_of(run):
    return run.classifier.info.record.training


class TestExpandLabels:
    def test_the_old_labels_stay_what_they_were_to_each_other(self, ramp_run, ramp_dataset):
        old = untrained(ramp_run, ramp_dataset)  # of a trained one, some of the probabilities are too close to 0
        new = expand_labels(old, ramp_dataset, ["waves", "glows"])
        assert new.labels == ("brightens", "darkens", "waves", "glows")
        features = np.random.default_rng(0).random((5, 6, 2, old.backbone.output_shape[-1]), np.float32)
        before, after = (
            model.predict_features(features, np.ones((5, 6), bool)) for model in (old, new)
        )  # (5, 2), (5, 4)
        np.testing.assert_allclose(after[:, 0] / after[:, 1], before[:, 0] / before[:, 1], rtol=1e-4)
        assert not np.allclose(before, 0.5, atol=0.05)
        assert after[:, 2:].min() > 0.01  # a new label is neither out of the question
        assert after[:, 2:].max() < 0.9  # nor all that there is
        assert (new.temperature, new.threshold, new.clip_seconds) == (old.temperature, old.threshold, old.clip_seconds)

    @pytest.mark.parametrize("head", ["lstm_plain", "lstm", "attention"])
    def test_every_other_weight_is_copied(self, ramp_run, ramp_dataset, frozen_config, head):
        old = untrained(ramp_run, ramp_dataset, head=head, units=2)  # as many units as labels
        new = expand_labels(old, ramp_dataset, ["glows"])
        kept = [(np.asarray(a), np.asarray(b)) for a, b in zip(old.head.weights, new.head.weights, strict=True)]
        for a, b in kept:
            np.testing.assert_array_equal(a, b[..., :2] if a.shape != b.shape else b)
        num_heads = 1 if head == "lstm" else len(ramp_dataset.spec.streams) * frozen_config.members
        assert sum(a.shape != b.shape for a, b in kept) == 2 * num_heads  # kernel and bias of each

    def test_without_new_labels_nothing_changes(self, ramp_run, ramp_dataset):
        old, new = ramp_run.classifier, expand_labels(ramp_run.classifier, ramp_dataset, [])
        for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_a_head_that_is_not_that_of_the_record_is_refused(self, ramp_model, ramp_dataset):
        model = load_classifier(ramp_model)
        recipe = dataclasses.replace(model.info.record.training, head="gru")
        model.info = model.info.with_record(training=recipe)
        with pytest.raises(ModelFileError, match="not that of the recipe in its record; train it again"):
            expand_labels(model, ramp_dataset, ["glows"])


@pytest.fixture(scope="module")
def stacked(ramp_dataset, frozen_config, tmp_path_factory):
    """A model of the ramps in a stack."""
    config = dataclasses.replace(frozen_config, units=8, stack=True, val_split=False)
    return train(ramp_dataset, config, work_dir=tmp_path_factory.mktemp("stacked")).classifier


class TestStack:
    def test_replay_keeps_the_stack_and_its_weights(self, stacked, grown, tmp_path):
        result = update(stacked, grown, work_dir=tmp_path)
        before, after = (stack_fractions(x.head, x.spec.streams) for x in (stacked, result.classifier))
        assert after == pytest.approx(before) and len(after) > 1
        assert result.classifier.temperature == pytest.approx(stacked.temperature)
        assert result.new.after.mean() > 0.7 and not result.old.fell

    def test_without_old_videos_the_linear_models_are_left_out_and_it_is_said(self, stacked, grown, tmp_path, caplog):
        result = update(stacked, grown, work_dir=tmp_path, scheme="new-only", epochs=1)
        assert not is_stack(result.classifier.head)
        assert "linear models of the stack are left out: no training videos of brightens, darkens" in caplog.text


class TestReplay:
    def test_the_new_label_is_learned_and_the_old_ones_stay(self, replayed):
        assert replayed.classifier.labels == ("brightens", "darkens", "glows")
        assert replayed.added == ["glows"]
        assert replayed.new.split == replayed.old.split == "test"
        assert (replayed.new.before.mean(), replayed.new.after.mean()) == (0, 1)
        assert (replayed.old.before.mean(), replayed.old.after.mean()) == (1, 1)
        assert not replayed.old.fell and "It forgot" not in replayed.as_text()

    def test_it_counts_what_it_used(self, replayed, grown, ramp_run):
        train_samples = grown.split("train")
        assert replayed.num_new == sum(sample.label == "glows" for sample in train_samples)
        assert replayed.num_old == 2 * replayed.num_new  # of each old label as many as there are of the new one

    def test_a_number_of_videos_a_label(self, ramp_run, grown, tmp_path):
        result = update(ramp_run.classifier, grown, work_dir=tmp_path, replay=2, epochs=1)
        assert result.num_old == 4

    def test_the_old_model_stays_as_it_is(self, ramp_model, ramp_run, replayed):
        saved = load_classifier(ramp_model)
        for a, b in zip(saved.get_weights(), ramp_run.classifier.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not ramp_run.classifier.info.record.updates

    def test_statistics_and_backbone_stay(self, replayed, ramp_run):
        old, new = ramp_run.classifier, replayed.classifier
        for layer in ("mean", "scale", "adapted"):
            a, b = (getattr(model.head.get_layer("standardize"), layer) for model in (old, new))
            np.testing.assert_array_equal(a, b)
        for a, b in zip(old.backbone.get_weights(), new.backbone.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_test_split_is_not_taught(self, ramp_run, grown, replayed, tmp_path):
        without = part_of(grown, lambda sample: sample.split != "test")
        again = update(ramp_run.classifier, without, work_dir=tmp_path)
        for a, b in zip(replayed.classifier.get_weights(), again.classifier.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert again.old.split == again.new.split == "val"
        assert "The old videos are those of the validation split" in again.as_text()

    def test_new_videos_of_old_labels_alone_keep_the_labels(self, ramp_run, grown, tmp_path):
        later = {"person6", "person7"}
        model = train(
            part_of(grown, lambda s: s.label != "glows" and s.group not in later),
            dataclasses.replace(recipe_of(ramp_run), epochs=3),
            work_dir=tmp_path / "old",
        ).classifier
        ramps = part_of(grown, lambda sample: sample.label != "glows")
        result = update(model, ramps, work_dir=tmp_path / "new", epochs=1)
        assert result.classifier.labels == model.labels and result.added == []
        assert result.num_new == len([s for s in ramps.samples if s.group in later and s.split == "train"]) > 0


class TestForgetting:
    def test_new_videos_alone_make_it_forget_and_it_says_so(self, forgetful, replayed):
        assert forgetful.num_old == 0
        assert forgetful.new.after.mean() == 1
        assert forgetful.old.after.mean() < replayed.old.after.mean() - 0.3
        assert forgetful.old.fell and forgetful.as_dict()["forgot"]
        fall = 1 - forgetful.old.after.mean()
        assert (
            f"Accuracy on old classes dropped (forgetting): by {fall:.3f} on old videos, more than"
            in forgetful.as_text()
        )

    def test_a_data_set_of_new_videos_only_will_do(self, ramp_run, grown, forgetful, tmp_path):
        only = part_of(grown, lambda sample: sample.label == "glows")
        result = update(ramp_run.classifier, only, work_dir=tmp_path, scheme="new-only", epochs=1)
        assert result.classifier.labels == forgetful.classifier.labels
        assert re.search(
            r"^old videos +0 +- +- +\(the data set has none in test or val\)$", result.as_text(), re.MULTILINE
        )
        assert result.as_dict()["old"] == {"num_videos": 0, "reason": "the data set has none in test or val"}
        assert not result.old.fell

    @pytest.mark.parametrize(
        ("before", "after", "fell"),
        [("1111", "1111", False), ("1111", "1110", True), ("1110", "1111", False), ("11110000", "11001100", False)],
    )
    def test_a_fall_of_more_than_a_standard_error(self, before, after, fell):
        before, after = (np.array([answer == "1" for answer in answers]) for answers in (before, after))
        assert Comparison("test", ["a"] * len(before), before, after).fell is fell

    def test_the_labels_that_lost_most_come_first(self):
        before, after = np.array([1, 1, 1, 1, 0], bool), np.array([0, 1, 0, 0, 1], bool)
        assert Comparison("test", ["a", "a", "b", "b", "c"], before, after).worse_labels == ["b", "a"]


class TestRetrain:
    def test_it_is_training_with_the_recipe_of_the_model(self, ramp_run, grown, tmp_path):
        result = update(ramp_run.classifier, grown, work_dir=tmp_path / "a", scheme="retrain", epochs=2, seed=3)
        config = dataclasses.replace(recipe_of(ramp_run), epochs=2, seed=3)
        same = train(grown, config, work_dir=tmp_path / "b").classifier
        assert result.classifier.labels == same.labels
        for a, b in zip(result.classifier.get_weights(), same.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert result.num_new + result.num_old == len(grown.split("train"))
        told, expected = (model.info.record.as_dict() for model in (result.classifier, same))
        times = {"date", "seconds"}
        assert set(told) == {*expected, "updates"} and times < set(told)
        assert all(told[name] == expected[name] for name in set(expected) - times)

    def test_it_needs_all_old_labels(self, ramp_run, grown, tmp_path):
        fewer = part_of(grown, lambda sample: sample.label != "darkens")
        with pytest.raises(DatasetError, match="has no videos of darkens, which the model knows; to retrain"):
            update(ramp_run.classifier, fewer, work_dir=tmp_path, scheme="retrain")


class TestRecord:
    def test_it_tells_what_happened(self, replayed, ramp_run, grown):
        old, new = ramp_run.classifier.info.record, replayed.classifier.info.record
        assert new.training == old.training
        glows = [sample for sample in grown.samples if sample.label == "glows"]
        learned = {content_of(sample) for sample in glows if sample.split != "test"}
        assert set(new.trained) == set(old.trained) | learned
        assert set(new.held_out) == {content_of(sample) for sample in grown.split("test")}
        assert list(new.history) == replayed.run.history
        [note] = new.updates
        assert (note["scheme"], note["added"], note["num_new"]) == ("replay", ["glows"], replayed.num_new)
        assert note["new"] == {"split": "test", "num_videos": len(replayed.new.labels), "before": 0, "after": 1}
        assert note["learning_rate"] < old.training.learning_rate
        json.dumps(new.as_dict())

    def test_a_model_file_can_be_updated_again(self, replayed, grown, tmp_path):
        path = save_model(replayed.classifier, tmp_path / "new.keras")
        model = load_classifier(path)
        video = grown.videos_dir / "glows" / "p3_1.avi"
        assert Predictor(model).predict(video).label == "glows"
        with pytest.raises(DatasetError, match="has no new training videos: the model knows all of its train split"):
            update(model, grown, work_dir=tmp_path)
        again = update(model, grown, work_dir=tmp_path, scheme="retrain", epochs=1)
        assert again.num_new == 0 and [note["scheme"] for note in again.classifier.info.record.updates] == [
            "replay",
            "retrain",
        ]

    def test_videos_in_other_splits_do_not_judge(self, ramp_run, grown, tmp_path, caplog):
        turned = {"train": "train", "val": "test", "test": "val"}
        other = [
            dataclasses.replace(sample, split=turned[sample.split]) if sample.label != "glows" else sample
            for sample in grown.samples
        ]
        dataset = dataclasses.replace(grown, samples=other)
        with caplog.at_level(logging.WARNING):
            result = update(ramp_run.classifier, dataset, work_dir=tmp_path, epochs=1)
        assert (
            "videos are in other splits than when the model was trained; they are not used to evaluate" in caplog.text
        )
        assert result.old.reason == "the data set is divided otherwise than that of the model"


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scheme": "magic"}, "scheme must be one of replay, new-only, retrain, received: magic"),
            ({"replay": 0}, "replay must be 1 or more videos a label"),
            ({"replay": 3, "scheme": "retrain"}, "replay must be 1 or more videos a label, with the scheme replay"),
            ({"epochs": 0}, "epochs must be 1 or more, received: 0"),
            ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ],
    )
    def test_settings(self, ramp_run, grown, tmp_path, options, message):
        with pytest.raises(ActivityError, match=message):
            update(ramp_run.classifier, grown, work_dir=tmp_path, **options)
        assert not list(tmp_path.iterdir())

    def test_nothing_to_replay(self, ramp_run, grown, tmp_path):
        only = part_of(grown, lambda sample: sample.label == "glows")
        with pytest.raises(DatasetError, match="has none of the videos that the model was trained on.*new-only"):
            update(ramp_run.classifier, only, work_dir=tmp_path)

    def test_a_label_without_old_videos_is_named(self, ramp_run, grown, tmp_path, caplog):
        fewer = part_of(grown, lambda sample: sample.label != "darkens")
        update(ramp_run.classifier, fewer, work_dir=tmp_path, epochs=1)
        assert "the data set has no old videos of darkens; the model may forget them" in caplog.text

    def test_a_new_label_without_training_videos(self, ramp_run, grown, tmp_path):
        renamed = [
            dataclasses.replace(sample, label="flashes")
            if sample.label == "glows" and sample.split == "test"
            else sample
            for sample in grown.samples
        ]
        with pytest.raises(DatasetError, match="has no new training videos of flashes"):
            update(ramp_run.classifier, dataclasses.replace(grown, samples=renamed), work_dir=tmp_path)

    def test_another_spec(self, ramp_run, grown, tmp_path):
        other = dataclasses.replace(grown, spec=dataclasses.replace(grown.spec, num_frames=7))
        with pytest.raises(DatasetError, match="does not fit this model"):
            update(ramp_run.classifier, other, work_dir=tmp_path)

    def test_a_model_without_a_record(self, ramp_model, grown, tmp_path):
        model = load_classifier(ramp_model)
        model.info = dataclasses.replace(model.info, record=TrainingRecord())
        with pytest.raises(ModelFileError, match="does not tell how and on which videos it was trained"):
            update(model, grown, work_dir=tmp_path)


def test_a_taught_backbone_stays_and_its_features_are_not_evened_out(grown, tmp_path):
    config = TrainConfig(backbone="small_cnn", units=8, epochs=1)
    ramps = part_of(grown, lambda sample: sample.label != "glows")
    model = train(ramps, config, work_dir=tmp_path / "old").classifier
    result = update(model, grown, work_dir=tmp_path / "new", epochs=1)
    assert [stage.name for stage in result.run.stages] == ["head"]
    for a, b in zip(model.backbone.get_weights(), result.classifier.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(result.classifier.head.get_layer("standardize").adapted) == 0


class TestCommandLine:
    def test_a_model_file_a_table_and_curves(self, ramp_model, grown, tmp_path, capsys):
        out = tmp_path / "new.keras"
        assert main(["update", str(ramp_model), str(grown.dataset_dir), "--out", str(out), "--epochs", "3"]) == 0
        text = capsys.readouterr().out
        assert re.search(r"^accuracy +videos +before +after$", text, re.MULTILINE)
        assert re.search(r"^old videos +\d+ +1\.000 +\d\.\d{3}$", text, re.MULTILINE)
        assert re.search(r"^new videos +\d+ +0\.000 +\d\.\d{3}$", text, re.MULTILINE)
        assert "Before, an answer on a video of a new label counts as wrong." in text
        assert (tmp_path / "new.training" / "learning_curves.png").is_file()
        assert load_classifier(out).labels == ("brightens", "darkens", "glows")

    def test_json(self, ramp_model, grown, tmp_path, capsys):
        arguments = ["update", str(ramp_model), str(grown.dataset_dir), "--out", str(tmp_path / "new.keras")]
        assert main([*arguments, "--scheme", "new-only", "--epochs", "1", "--seed", "4", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert set(report) == {"scheme", "labels", "added", "num_new", "num_old", "old", "new", "forgot"}
        assert set(report["old"]) == {"split", "num_videos", "before", "after"}

    def test_an_error_is_one_line(self, ramp_model, grown, tmp_path, capsys):
        arguments = ["update", str(ramp_model), str(grown.dataset_dir), "--out"]
        assert main([*arguments, str(tmp_path / "new.h5")]) == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert main([*arguments, str(tmp_path / "new.keras"), "--scheme", "retrain", "--replay", "3"]) == 1
        assert capsys.readouterr().err.startswith("activity: replay must be 1 or more videos a label, with the scheme")


@pytest.mark.parametrize("scheme", ["replay", "retrain"])
def test_a_model_of_feature_files_is_updated_with_those_of_the_new_data_set(feature_run, grown, scheme, tmp_path):
    for sample in grown.samples:
        levels = grown.frames(sample).mean(axis=(1, 2, 3)) / 255
        np.save(tmp_path / f"{sample.sample_id}.npy", np.stack([levels**power for power in range(5)], axis=1))
    given = grown.with_features(tmp_path)
    result = update(feature_run.classifier, given, work_dir=tmp_path / "run", scheme=scheme, epochs=3)
    assert result.added == ["glows"] and result.classifier.labels == ("brightens", "darkens", "glows")
    assert result.classifier.spec == feature_run.classifier.spec
    with pytest.raises(DatasetError, match="name their folder with --features"):
        update(feature_run.classifier, grown, work_dir=tmp_path / "run")
