import dataclasses
import itertools
import json
import logging
import re
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from activity.config import ClipSpec, TrainConfig
from activity.datasets.preprocessing import preprocess
from activity.datasets.samples import content_of
from activity.datasets.synthetic import draw_frames
from activity.errors import ActivityError, DatasetError
from activity.evaluation.evaluator import evaluate
from activity.files import lock_folder, read_csv
from activity.models.backbones import build_backbone
from activity.models.heads import HEADS, member_predictions_of
from activity.training.batches import ClipBatches
from activity.training.checkpoint import Checkpoint
from activity.training.preparation import warn_once
from activity.training.stages import unfreeze
from activity.training.trainer import build_classifier, train
from activity.video.writer import write_video


class TestFrozenBackbone:
    def test_learns_the_order_of_frames(self, ramp_run, ramp_dataset):
        last = ramp_run.history[-1]
        assert last["val_accuracy"] == 1
        assert {row["stage"] for row in ramp_run.history} == {"head"}
        assert f"validation loss {last['val_loss']:.3f}, accuracy 1.000" in ramp_run.as_text()

    def test_the_backbone_keeps_its_weights_and_features_are_cached(self, ramp_run, ramp_dataset, cnn_weights):
        fresh = build_backbone("small_cnn", height=32, width=32, weights=str(cnn_weights))
        for before, after in zip(fresh.get_weights(), ramp_run.classifier.backbone.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
        tables = list((ramp_dataset.dataset_dir / "features").glob("small_cnn-*/part-00000.csv"))
        cached = {row["sample_id"] for table in tables for row in read_csv(table)}
        assert cached >= {sample.sample_id for sample in ramp_dataset.samples if sample.split != "test"}

    def test_the_same_seed_gives_the_same_weights(self, ramp_dataset, frozen_config, tmp_path):
        def weights(seed, name):
            config = dataclasses.replace(frozen_config, epochs=2, seed=seed)
            return train(ramp_dataset, config, work_dir=tmp_path / name).classifier.head.get_weights()

        first, again, other = weights(3, "a"), weights(3, "b"), weights(4, "c")
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))

    def test_nothing_is_chosen_by_the_validation_split(self, ramp_dataset, frozen_config, tmp_path):
        config = dataclasses.replace(frozen_config, epochs=3)
        rng = np.random.default_rng(0)
        wrong = [
            dataclasses.replace(sample, label=str(rng.choice(ramp_dataset.labels))) if sample.split == "val" else sample
            for sample in ramp_dataset.samples
        ]
        runs = [
            train(dataclasses.replace(ramp_dataset, samples=samples), config, work_dir=tmp_path / str(number))
            for number, samples in enumerate((ramp_dataset.samples, wrong))
        ]
        assert runs[0].history[-1]["val_loss"] != runs[1].history[-1]["val_loss"]
        for a, b in zip(*(member_predictions_of(run.classifier.head).get_weights() for run in runs), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_step_is_traced_once_also_where_the_last_batch_is_not_full(
        self, ramp_dataset, frozen_config, tmp_path, monkeypatch
    ):
        if keras.backend.backend() != "tensorflow":
            pytest.skip("counts the graphs of TensorFlow")
        traced, loss = [], keras.losses.categorical_crossentropy

        def spy(targets, member_predictions):
            if not isinstance(member_predictions, np.ndarray):  # those of validation are
                traced.append(member_predictions.shape)
            return loss(targets, member_predictions)

        monkeypatch.setattr(keras.losses, "categorical_crossentropy", spy)
        assert len(ramp_dataset.split("train")) % 5
        train(ramp_dataset, dataclasses.replace(frozen_config, epochs=2, batch_size=5), work_dir=tmp_path)
        assert len(traced) == 1

    def test_the_log_tells_how_long_was_waited(self, ramp_dataset, frozen_config, tmp_path, monkeypatch):
        epoch = ClipBatches.epoch

        def slow(self, number):
            time.sleep(0.2)
            yield from epoch(self, number)

        monkeypatch.setattr(ClipBatches, "epoch", slow)
        run = train(ramp_dataset, dataclasses.replace(frozen_config, epochs=2), work_dir=tmp_path)
        rows = run.stages[0].rows
        assert [float(row["waiting_seconds"]) for row in read_csv(tmp_path / "head" / "log.csv")] == pytest.approx(
            [row["waiting_seconds"] for row in rows], abs=1e-3
        )
        assert rows[0]["waiting_seconds"] > 0.38  # for the first clips of training and of validation
        assert all(0.19 < row["waiting_seconds"] <= row["seconds"] for row in rows)  # for those of validation
        fraction = sum(row["waiting_seconds"] for row in rows) / sum(row["seconds"] for row in rows)
        assert f", {fraction:.0%} of it waiting for data" in run.as_text()

    def test_the_learning_rate_rises_and_falls_once(self, ramp_dataset, frozen_config, tmp_path, monkeypatch):
        rates = []
        begin = Checkpoint.begin

        def spy(self, model):
            schedule = model.optimizer._learning_rate
            rates.extend(float(schedule(step)) for step in range(schedule.decay_steps + schedule.warmup_steps + 1))
            return begin(self, model)

        monkeypatch.setattr(Checkpoint, "begin", spy)
        train(ramp_dataset, dataclasses.replace(frozen_config, epochs=20), work_dir=tmp_path)
        top = int(np.argmax(rates))
        assert rates[0] == 0 and rates[top] == pytest.approx(frozen_config.learning_rate) and rates[-1] < 1e-6
        assert 0 < top < 0.1 * len(rates)

    def test_a_finished_run_is_not_taught_again_on_resume(self, ramp_dataset, frozen_config, tmp_path, caplog):
        config = dataclasses.replace(frozen_config, epochs=2)
        first = train(ramp_dataset, config, work_dir=tmp_path)
        with caplog.at_level(logging.INFO):
            again = train(ramp_dataset, config, work_dir=tmp_path, resume=True)
        assert "finished earlier" in caplog.text
        assert len(again.history) == 2
        for a, b in zip(first.classifier.get_weights(), again.classifier.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_resuming_with_other_settings_is_refused(self, ramp_dataset, frozen_config, tmp_path):
        config = dataclasses.replace(frozen_config, epochs=1)
        train(ramp_dataset, config, work_dir=tmp_path)
        with pytest.raises(ActivityError, match="cannot resume with other settings: units was 16, now 8"):
            train(ramp_dataset, dataclasses.replace(config, units=8), work_dir=tmp_path, resume=True)

    def test_resuming_with_other_weights_under_the_same_name_is_refused(self, ramp_dataset, frozen_config, tmp_path):
        weights = tmp_path / "w.weights.h5"
        shutil.copy(frozen_config.weights, weights)
        config = dataclasses.replace(frozen_config, epochs=1, weights=str(weights))
        train(ramp_dataset, config, work_dir=tmp_path / "run")
        build_backbone("small_cnn", height=32, width=32, weights="none").save_weights(weights)
        with pytest.raises(ActivityError, match="cannot resume with other settings: weights_digest was"):
            train(ramp_dataset, config, work_dir=tmp_path / "run", resume=True)

    def test_a_run_is_not_resumed_with_other_groups(self, ramp_dataset, frozen_config, tmp_path):
        train(ramp_dataset, dataclasses.replace(frozen_config, epochs=1), work_dir=tmp_path)
        samples = [dataclasses.replace(sample, group=sample.path) for sample in ramp_dataset.samples]
        with pytest.raises(ActivityError, match="cannot resume with other settings: groups_digest was"):
            train(
                dataclasses.replace(ramp_dataset, samples=samples),
                dataclasses.replace(frozen_config, epochs=1),
                work_dir=tmp_path,
                resume=True,
            )

    def test_a_run_of_before_heads_were_renamed_is_resumed(self, ramp_dataset, frozen_config, tmp_path):
        config = dataclasses.replace(frozen_config, epochs=1, head="lstm_plain", mixup=0.0)
        train(ramp_dataset, config, work_dir=tmp_path)
        note = tmp_path / "config.json"
        settings = json.loads(note.read_text())
        for name in ("stack", "val_split", "mixup", "groups_digest"):
            del settings[name]
        note.write_text(json.dumps({**settings, "head": "lstm"}))
        assert len(train(ramp_dataset, config, work_dir=tmp_path, resume=True).history) == 1

    def test_a_run_of_before_that_names_a_runtime_is_resumed_with_any(self, ramp_dataset, frozen_config, tmp_path):
        config = dataclasses.replace(frozen_config, epochs=1)
        train(ramp_dataset, config, work_dir=tmp_path)
        note = tmp_path / "config.json"
        note.write_text(note.read_text().replace('"seed":', '"runtime": "auto", "seed":'))
        again = train(ramp_dataset, config, work_dir=tmp_path, resume=True, runtime="keras")
        assert len(again.history) == 1

    def test_resuming_on_other_data_is_refused(self, ramp_dataset, frozen_config, tmp_path):
        config = dataclasses.replace(frozen_config, epochs=1)
        train(ramp_dataset, config, work_dir=tmp_path)
        fewer = dataclasses.replace(ramp_dataset, samples=ramp_dataset.samples[:-1])
        with pytest.raises(ActivityError, match="cannot resume with other settings: dataset was"):
            train(fewer, config, work_dir=tmp_path, resume=True)

    def test_what_cannot_run_does_not_replace_what_did(self, ramp_dataset, frozen_config, tmp_path):
        train(ramp_dataset, dataclasses.replace(frozen_config, epochs=1), work_dir=tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        mistakes = {
            "no backbone 'mobilenetv2'": {"backbone": "mobilenetv2"},
            "no head 'gpt'": {"head": "gpt"},
            "nowhere.h5: no such weights file": {"weights": "nowhere.h5"},
        }
        for message, mistake in mistakes.items():
            with pytest.raises(ActivityError, match=message):
                train(ramp_dataset, dataclasses.replace(frozen_config, **mistake), work_dir=tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    @pytest.mark.skipif(sys.platform == "win32", reason="no rlimit")
    def test_thousands_of_videos_need_not_be_open_at_once(self, ramp_dataset, tmp_path):
        import resource

        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(list(Path("/dev/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, limits[1]))
        config = TrainConfig(backbone="small_cnn", units=4, epochs=1, batch_size=4)
        try:
            run = train(ramp_dataset, config, work_dir=tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [row["stage"] for row in run.history] == ["scratch"]  # frames were read, not features from a cache
        trained = [sample for sample in ramp_dataset.samples if sample.split == "train"]
        assert len(trained) * len(ramp_dataset.spec.streams) >= 32  # stacks, more than could be open

    def test_a_folder_that_another_command_writes_is_refused(self, ramp_dataset, frozen_config, tmp_path):
        with lock_folder(tmp_path, "update"), pytest.raises(ActivityError, match="in use by another command .update,"):
            train(ramp_dataset, frozen_config, work_dir=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_without_resume_an_old_run_is_replaced(self, ramp_dataset, frozen_config, tmp_path):
        config = dataclasses.replace(frozen_config, epochs=1)
        train(ramp_dataset, config, work_dir=tmp_path)
        assert len(train(ramp_dataset, config, work_dir=tmp_path).history) == 1

    def test_rare_classes_weigh_more_when_balanced(self, ramp_dataset, frozen_config, tmp_path, monkeypatch):
        seen = []
        step = keras.Model.train_on_batch

        def spy(model, inputs, targets, sample_weight, **options):
            seen.append((targets, sample_weight))
            return step(model, inputs, targets, sample_weight, **options)

        monkeypatch.setattr(keras.Model, "train_on_batch", spy)
        rows = [s for s in ramp_dataset.samples if s.split != "train" or s.label == "darkens" or "_0" in s.path]
        uneven = dataclasses.replace(ramp_dataset, samples=rows)
        train(uneven, dataclasses.replace(frozen_config, epochs=1, class_weight="balanced"), work_dir=tmp_path)
        targets, weights = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        of_labels = np.linalg.lstsq(targets, weights, rcond=None)[0]
        np.testing.assert_allclose(targets @ of_labels, weights, rtol=1e-5)  # of mixed clips by their shares
        assert of_labels[0] == pytest.approx(2 * of_labels[1])


class TestOtherStages:
    def test_fine_tuning_moves_the_last_layers_and_never_batch_normalization(self, ramp_dataset, tmp_path):
        weights = tmp_path / "w.weights.h5"
        build_backbone("mobilenet_v2_035", height=32, width=32, weights="none").save_weights(weights)
        config = TrainConfig(
            backbone="mobilenet_v2_035",
            weights=str(weights),
            fine_tune=12,
            fine_tune_epochs=2,
            epochs=1,
            learning_rate=1e-2,
        )
        run = train(ramp_dataset, config, work_dir=tmp_path / "run")
        assert [row["stage"] for row in run.history] == ["head", "fine_tune", "fine_tune"]
        before = build_backbone("mobilenet_v2_035", height=32, width=32, weights=str(weights))
        changed = [
            any(not np.array_equal(a, b) for a, b in zip(old.get_weights(), new.get_weights(), strict=True))
            for old, new in zip(before.layers, run.classifier.backbone.layers, strict=True)
        ]
        is_norm = [isinstance(layer, keras.layers.BatchNormalization) for layer in before.layers]
        able = [i for i, x in enumerate(before.layers) if x.weights and not is_norm[i]]
        assert {i for i, moved in enumerate(changed) if moved} == set(able[-12:])
        assert not any(moved for moved, norm in zip(changed, is_norm, strict=True) if norm)

    def test_without_pretrained_weights_all_is_taught_together(self, ramp_dataset, tmp_path):
        config = TrainConfig(backbone="small_cnn", units=8, epochs=1)
        run = train(ramp_dataset, config, work_dir=tmp_path)
        assert [row["stage"] for row in run.history] == ["scratch"]
        keras.utils.set_random_seed(config.seed)
        untrained = build_classifier(ramp_dataset, config)
        for a, b in zip(untrained.backbone.get_weights(), run.classifier.backbone.get_weights(), strict=True):
            assert not np.array_equal(a, b)

    def test_fine_tuning_nothing_pretrained_is_refused(self, ramp_dataset, tmp_path):
        with pytest.raises(ActivityError, match="--fine-tune needs pretrained weights"):
            train(ramp_dataset, TrainConfig(backbone="small_cnn", fine_tune=3), work_dir=tmp_path)

    def test_unfreeze_counts_layers_that_can_learn_from_the_end(self):
        backbone = build_backbone("mobilenet_v2_035", height=32, width=32, weights="none")
        unfreeze(backbone, 3)
        able = [x for x in backbone.layers if x.weights and not isinstance(x, keras.layers.BatchNormalization)]
        assert [layer for layer in backbone.layers if layer.trainable] == able[-3:]
        assert len(backbone.trainable_weights) >= 3
        unfreeze(backbone, 0)
        assert not backbone.trainable_weights

    def test_mixed_precision_on_a_cpu_says_so_and_leaves_float32(self, ramp_dataset, frozen_config, tmp_path, caplog):
        from activity.models.devices import gpu_names

        if gpu_names():
            pytest.skip("there is a GPU here")
        config = dataclasses.replace(frozen_config, epochs=1, mixed_precision=True)
        run = train(ramp_dataset, config, work_dir=tmp_path)
        assert "mixed precision gains nothing on a CPU" in caplog.text
        assert run.classifier.head.layers[-1].dtype_policy.name == "float32"


def test_a_label_without_training_videos_is_named(ramp_dataset, frozen_config, tmp_path):
    rows = [sample for sample in ramp_dataset.samples if sample.split != "train" or sample.label == "darkens"]
    with pytest.raises(DatasetError, match="no training videos of brightens"):
        train(dataclasses.replace(ramp_dataset, samples=rows), frozen_config, work_dir=tmp_path)


def test_without_a_validation_split_the_folds_calibrate_and_tell_the_accuracy(ramp_dataset, frozen_config, tmp_path):
    run = train(ramp_dataset, dataclasses.replace(frozen_config, epochs=1, val_split=False), work_dir=tmp_path)
    assert run.calibration.out_of_fold and run.classifier.temperature == pytest.approx(run.calibration.temperature)
    num_videos = sum(sample.split in ("train", "val") for sample in ramp_dataset.samples)
    assert run.estimate.num_videos == run.classifier.info.record.num_videos["train"] == num_videos
    assert "val_loss" not in run.history[0] and not run.stack
    assert "validation" not in run.as_text()


def test_without_validation_videos_it_learns_but_is_not_calibrated(ramp_dataset, frozen_config, tmp_path):
    rows = [sample for sample in ramp_dataset.samples if sample.split != "val"]
    config = dataclasses.replace(frozen_config, epochs=1)
    run = train(dataclasses.replace(ramp_dataset, samples=rows), config, work_dir=tmp_path)
    assert run.calibration is None and run.classifier.temperature == 1
    assert "val_loss" not in run.history[0]
    assert "validation" not in run.as_text()


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        ({}, ("wave", "jump"), "--flip does nothing here"),
        ({"weights": None}, ("turn-Left", "jump"), "--flip mirrors videos, .*: turn-Left"),
    ],
)
def test_a_flip_that_is_no_use_or_does_harm_is_spoken_of(
    ramp_dataset, frozen_config, tmp_path, caplog, settings, labels, message
):
    names = dict(zip(ramp_dataset.labels, labels, strict=True))
    samples = [dataclasses.replace(sample, label=names[sample.label]) for sample in ramp_dataset.samples]
    config = dataclasses.replace(frozen_config, epochs=1, flip=True, **settings)
    train(dataclasses.replace(ramp_dataset, samples=samples), config, work_dir=tmp_path)
    assert re.search(message, caplog.text)


class TestSegments:
    def test_long_annotated_videos_are_learned_from(self, tmp_path):
        """Each performer is one film: three activities, in an order of their own, with idle time between."""
        labels, rows = ("jump", "wave", "walk_right"), ["path,label,start_seconds,end_seconds"]
        for performer in range(8):
            film = []
            for i in range(3):
                label = labels[(performer + i) % 3]
                film += [np.full((10 + performer, 32, 32, 3), 90, np.uint8)]  # nobody there
                start = sum(map(len, film)) / 10
                film += [draw_frames(label, performer=performer, take=0, num_frames=18 + i, height=32, width=32)]
                rows.append(f"{performer}.mp4,{label},{start},{start + (18 + i) / 10:.1f}")
            write_video(tmp_path / f"{performer}.mp4", np.concatenate(film), frames_per_second=10)
        (tmp_path / "manifest.csv").write_text("\n".join(rows))
        spec = ClipSpec(num_frames=8, height=32, width=32, streams=("motion",))
        dataset = preprocess(tmp_path, tmp_path / "dataset", spec, num_workers=1)
        assert len(dataset.samples) == 24 and not dataset.problems
        few = {"units": 16, "members": 1, "dropout": 0.1, "epochs": 20}
        config = TrainConfig(backbone="small_cnn", weights="none", head="lstm_plain", learning_rate=5e-3, **few)
        run = train(dataset, config, work_dir=tmp_path / "run")
        assert run.classifier.clip_seconds == 2.0  # the longest segment, not the film
        record = run.classifier.info.record
        assert sorted(record.trained + record.held_out) == sorted(map(content_of, dataset.samples))  # one by one
        trained = evaluate(run.classifier, dataset, split="train", runtime="keras")
        assert trained.scores.accuracy > 0.8


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"head": "lstm_plain", "layers": 3}, "--layers does nothing with the head lstm_plain"),
        ({"head": "pooled", "units": 32}, "--units does nothing with the head pooled"),
        ({"head": "gru", "merge_mode": "sum"}, "--merge-mode does nothing with the head gru"),
        ({"fine_tune_epochs": 3}, "--fine-tune-epochs does nothing without --fine-tune"),
        ({"flip": True}, "--flip does nothing here: it needs --fine-tune, or a backbone trained from scratch"),
        ({"precision": 0.9}, "--precision does nothing here: it needs 10 or more validation videos, and there are 8"),
    ],
)
def test_what_has_no_effect_is_said_once(changes, line, ramp_dataset, frozen_config, tmp_path, caplog):
    warn_once.cache_clear()
    plain = dataclasses.replace(frozen_config, units=TrainConfig.units, epochs=1)
    config = dataclasses.replace(plain, **changes)
    for name in ("a", "b"):
        train(ramp_dataset, config, work_dir=tmp_path / name)
    assert [record.message for record in caplog.records].count(line) == 1


def test_a_precision_that_no_video_can_calibrate_is_spoken_of(ramp_dataset, frozen_config, tmp_path, caplog):
    warn_once.cache_clear()
    samples = [dataclasses.replace(sample, group=sample.label) for sample in ramp_dataset.samples]
    config = dataclasses.replace(frozen_config, epochs=1, val_split=False, precision=0.9)
    run = train(dataclasses.replace(ramp_dataset, samples=samples), config, work_dir=tmp_path)
    assert run.calibration is None and run.classifier.threshold == 0
    needed = "it needs 10 or more training videos predicted out of fold, and there are 0"
    assert f"--precision does nothing here: {needed}" in caplog.messages


@pytest.mark.parametrize("stack", [True, False])
def test_a_val_split_without_videos_is_spoken_of(stack, ramp_dataset, frozen_config, tmp_path, caplog):
    warn_once.cache_clear()
    samples = [sample for sample in ramp_dataset.samples if sample.split != "val"]
    config = dataclasses.replace(frozen_config, epochs=1, stack=stack)
    caplog.set_level(logging.INFO)
    train(dataclasses.replace(ramp_dataset, samples=samples), config, work_dir=tmp_path)
    line = ("WARNING", "--val-split does nothing here: there are no validation videos")
    if not stack:  # there it keeps the folds away, as a cross-validation of a head alone may want
        line = ("INFO", "no validation videos: with --val-split nothing calibrates the model")
    assert line in [(record.levelname, record.message) for record in caplog.records]


def test_the_weights_that_were_used_are_recorded(ramp_dataset, frozen_config, tmp_path):
    config = dataclasses.replace(frozen_config, weights=None, epochs=1)  # small_cnn has none of ImageNet
    run = train(ramp_dataset, config, work_dir=tmp_path)
    assert run.classifier.info.record.training.weights == "none"
    note = tmp_path / "config.json"
    note.write_text(note.read_text().replace('"weights": "none"', '"weights": null'))  # as before they were noted
    assert train(ramp_dataset, config, work_dir=tmp_path, resume=True).history == run.history


class TestResume:
    """A run that is stopped anywhere and resumed gives the weights and the log of one that never was."""

    def check(self, dataset, config, tmp_path, monkeypatch, points):
        """Resume from what the folder holds after so many saves."""
        begin, end_epoch = Checkpoint.begin, Checkpoint.end_epoch
        saves = itertools.count()

        def keep():
            shutil.copytree(tmp_path / "whole", tmp_path / str(next(saves)))

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "begin", lambda *args: (begin(*args), keep())[0])
            patch.setattr(Checkpoint, "end_epoch", lambda *args: (end_epoch(*args), keep())[0])
            whole = train(dataset, config, work_dir=tmp_path / "whole", seconds_between_saves=0)
        for point in points:
            resumed = train(dataset, config, work_dir=tmp_path / str(point), resume=True)
            assert resumed.history == whole.history, point
            for a, b in zip(whole.classifier.get_weights(), resumed.classifier.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=str(point))

    @pytest.mark.parametrize("head", HEADS)
    def test_of_every_head(self, head, ramp_dataset, frozen_config, tmp_path, monkeypatch):
        config = dataclasses.replace(frozen_config, head=head, dropout=0.5, epochs=2, units=4, members=1)
        self.check(ramp_dataset, config, tmp_path, monkeypatch, [1])

    def test_at_any_point(self, ramp_dataset, frozen_config, tmp_path, monkeypatch):
        config = dataclasses.replace(frozen_config, dropout=0.5, epochs=3)
        self.check(ramp_dataset, config, tmp_path, monkeypatch, [0, 2, 3])

    def test_while_fine_tuning(self, ramp_dataset, tmp_path, monkeypatch):
        weights = tmp_path / "w.weights.h5"
        build_backbone("mobilenet_v2_035", height=32, width=32, weights="none").save_weights(weights)
        config = TrainConfig(backbone="mobilenet_v2_035", weights=str(weights), members=1, epochs=1, fine_tune=2)
        config = dataclasses.replace(config, fine_tune_epochs=2, batch_size=4)
        self.check(ramp_dataset, config, tmp_path, monkeypatch, [1, 2, 3])

    def test_while_training_from_scratch(self, ramp_dataset, frozen_config, tmp_path, monkeypatch):
        config = dataclasses.replace(frozen_config, weights="none", dropout=0.5, epochs=2)
        self.check(ramp_dataset, config, tmp_path, monkeypatch, [1])


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["head/chapter.txt", "config.json", "head"])
def test_what_no_training_has_written_is_not_replaced(ramp_dataset, frozen_config, tmp_path, name, resume):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ActivityError, match=f"{tmp_path / name.partition('/')[0]}: is not of a training"):
        train(ramp_dataset, frozen_config, work_dir=tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == "{}"


def test_files_in_the_state_of_a_training_stay(ramp_dataset, frozen_config, tmp_path):
    config = dataclasses.replace(frozen_config, epochs=1)
    train(ramp_dataset, config, work_dir=tmp_path)
    (tmp_path / "notes.txt").write_text("of the user")
    train(ramp_dataset, config, work_dir=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "of the user"
    (tmp_path / "head" / ".mynotes").write_text("of the user")
    with pytest.raises(ActivityError, match="head/.mynotes: is not of a training, so it is not replaced"):
        train(ramp_dataset, config, work_dir=tmp_path)
    assert (tmp_path / "head" / ".mynotes").read_text() == "of the user"


class TestFeatureFiles:
    def test_learns_the_order_of_rows_without_a_backbone(self, feature_run, ramp_features):
        assert feature_run.history[-1]["val_accuracy"] == 1
        info = feature_run.classifier.info
        assert str(info.spec) == "6 evenly spaced rows of 5 features"
        assert (info.record.training.features, info.record.training.backbone) == (str(ramp_features), "features")
        assert info.rows_per_second == pytest.approx(10, rel=0.2)  # as the frames of the videos
        assert not feature_run.classifier.backbone.weights

    def test_a_stack_of_them(self, ramp_dataset, feature_config, tmp_path):
        config = dataclasses.replace(feature_config, stack=True, epochs=3)
        run = train(ramp_dataset, config, work_dir=tmp_path)
        assert run.estimate.accuracy > 0.9 and sum(run.stack.values()) == pytest.approx(1)

    def test_in_half_precision_they_are_read_in_full(self, ramp_dataset, feature_config, tmp_path):
        config = dataclasses.replace(feature_config, mixed_precision=True, epochs=1)
        classifier = train(ramp_dataset, config, work_dir=tmp_path).classifier
        assert classifier.dtype_policy.name == "float32"

    def test_one_row_for_a_video_is_enough(self, ramp_dataset, feature_config, tmp_path):
        for sample in ramp_dataset.samples:
            row = np.full(4, float(sample.label == "brightens"), np.float32)
            np.save(tmp_path / f"{sample.sample_id}.npy", row)
        config = dataclasses.replace(feature_config, features=str(tmp_path), head="pooled")
        run = train(ramp_dataset, config, work_dir=tmp_path / "run")
        assert run.history[-1]["val_accuracy"] == 1

    def test_rows_at_the_rate_of_the_data_set(self, ramp_dataset, feature_config, tmp_path):
        spec = dataclasses.replace(ramp_dataset.spec, frames_per_second=10.0, num_frames=4)
        run = train(dataclasses.replace(ramp_dataset, spec=spec), feature_config, work_dir=tmp_path)
        assert str(run.classifier.spec) == "4 rows at 10 rows/s of 5 features"
        assert run.history[-1]["accuracy"] > 0.9

    def test_no_others_than_those_of_the_data_set(self, ramp_dataset, ramp_features, feature_config, tmp_path):
        given = ramp_dataset.with_features(ramp_features)
        with pytest.raises(
            DatasetError, match="has these feature files, and the configuration names none; name the same"
        ):
            train(given, TrainConfig(), work_dir=tmp_path)
        with pytest.raises(DatasetError, match="the configuration names elsewhere"):
            train(given, dataclasses.replace(feature_config, features="elsewhere"), work_dir=tmp_path)

    def test_a_run_is_not_resumed_with_files_that_changed(self, ramp_dataset, ramp_features, feature_config, tmp_path):
        given = shutil.copytree(ramp_features, tmp_path / "given")
        config = dataclasses.replace(feature_config, epochs=1, features=str(given))
        train(ramp_dataset, config, work_dir=tmp_path / "run")
        path = next(given.rglob("*.npy"))
        np.save(path, np.load(path) + 1)
        with pytest.raises(ActivityError, match="cannot resume with other settings: features_digest was"):
            train(ramp_dataset, config, work_dir=tmp_path / "run", resume=True)

    @pytest.mark.parametrize("value", [0.0, 7.0])
    def test_of_rows_that_never_change_nothing_but_chance_is_learned(
        self, value, ramp_dataset, ramp_features, feature_config, tmp_path
    ):
        given = shutil.copytree(ramp_features, tmp_path / "given")
        for path in given.rglob("*.npy"):
            np.save(path, np.full((6, 100), value, np.float32))
        config = dataclasses.replace(feature_config, epochs=1, features=str(given), stack=True, val_split=False)
        run = train(ramp_dataset, config, work_dir=tmp_path / "run")
        assert run.estimate.accuracy <= 0.6 and np.isfinite(run.estimate.lead)

    def test_a_run_is_not_resumed_with_others(self, ramp_dataset, ramp_features, feature_config, tmp_path):
        config = dataclasses.replace(feature_config, epochs=1)
        train(ramp_dataset, config, work_dir=tmp_path / "run")
        moved = shutil.copytree(ramp_features, tmp_path / "moved")
        with pytest.raises(ActivityError, match="cannot resume with other settings: features was"):
            train(
                ramp_dataset, dataclasses.replace(config, features=str(moved)), work_dir=tmp_path / "run", resume=True
            )


def test_images_say_nothing_of_how_long_a_clip_is(ramp_dataset, frozen_config):
    """They last no time, and a model needs windows that do."""
    first, *others = ramp_dataset.samples
    images = [dataclasses.replace(sample, duration_seconds=0.0) for sample in others]
    video = dataclasses.replace(first, duration_seconds=2.0)
    mixed = build_classifier(dataclasses.replace(ramp_dataset, samples=[video, *images]), frozen_config)
    assert (mixed.clip_seconds, mixed.window_seconds) == (2.0, 2.0)
    alone = build_classifier(dataclasses.replace(ramp_dataset, samples=images), frozen_config)
    assert 0 < alone.window_seconds <= alone.clip_seconds < 0.1


def test_samples_without_a_label_are_not_trained_on(ramp_dataset, frozen_config, tmp_path, caplog):
    described = [
        dataclasses.replace(sample, label="", captions=("it changes",)) if sample.group == "person0" else sample
        for sample in ramp_dataset.samples
    ]
    config = dataclasses.replace(frozen_config, epochs=1)
    run = train(dataclasses.replace(ramp_dataset, samples=described), config, work_dir=tmp_path)
    assert run.classifier.labels == ("brightens", "darkens")
    assert "4 of its 32 samples have no label, left out" in caplog.text
