"""Training of models that write sentences."""

import dataclasses
import logging

import keras
import numpy as np
import pytest

from activity.config import TrainConfig
from activity.errors import ActivityError, DatasetError, SettingError
from activity.evaluation.captioning import evaluate_captions
from activity.models.captioner import load_captioner
from activity.models.classifier import ActivityClassifier
from activity.models.heads import HeadOptions, build_head
from activity.models.saving import save_model
from activity.models.search import END, NUM_SPECIAL, PADDING, UNKNOWN
from activity.training.batches import CaptionBatches, FeatureBatches
from activity.training.captioning import (
    Vocabulary,
    accuracy_of_words,
    build_captioner,
    loss_of_words,
    train_captioner,
)


def weights_of(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def test_it_learns_to_tell_what_only_the_order_of_frames_tells(caption_run, captioned_dataset):
    evaluation = evaluate_captions(caption_run.model, captioned_dataset)
    assert evaluation.scores.exact == 1.0
    rows = caption_run.history
    assert len(rows) == 40 and rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["stage"] == "head"
    assert caption_run.as_text().endswith("6 words; sentences of up to 6")
    info = caption_run.model.info
    assert info.task == "describe" and set(info.words) == {"the", "room", "it", "gets", "brighter", "darker"}
    assert info.record.num_videos["train"] == 24 and info.record.training.task == "describe"


def test_the_same_again_for_a_seed_and_after_a_stop(captioned_dataset, caption_config, tmp_path):
    config = dataclasses.replace(caption_config, epochs=3)
    whole = train_captioner(captioned_dataset, config, work_dir=tmp_path / "whole")

    class Stop(Exception):
        pass

    batches, seen = CaptionBatches.epoch, []

    def epoch(self, number):
        seen.append(number)
        if number == 2 and seen.count(2) == 1:
            raise Stop
        yield from batches(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaptionBatches, "epoch", epoch)
        with pytest.raises(Stop):
            train_captioner(captioned_dataset, config, work_dir=tmp_path / "part", seconds_between_saves=0)
        resumed = train_captioner(captioned_dataset, config, work_dir=tmp_path / "part", resume=True)
    for a, b in zip(weights_of(whole.model), weights_of(resumed.model), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ActivityError, match="cannot resume with other settings: max_words was 6, now 5"):
        other = dataclasses.replace(config, max_words=5)
        train_captioner(captioned_dataset, other, work_dir=tmp_path / "part", resume=True)
    samples = [dataclasses.replace(x, captions=("it is dark",)) for x in captioned_dataset.samples]
    others = dataclasses.replace(captioned_dataset, samples=samples)
    with pytest.raises(ActivityError, match="cannot resume with other settings: captions_digest"):
        train_captioner(others, config, work_dir=tmp_path / "part", resume=True)


def test_it_can_begin_with_an_activity_model(captioned_dataset, caption_config, ramp_model, ramp_run, tmp_path):
    config = dataclasses.replace(
        caption_config, encoder=str(ramp_model), weights=None, backbone="mobilenet_v2", epochs=1
    )
    run = train_captioner(captioned_dataset, dataclasses.replace(config, learning_rate=1e-9), work_dir=tmp_path / "run")
    head, encoder = ramp_run.classifier.head, run.model.encoder
    for name in ("standardize", "project"):
        for a, b in zip(head.get_layer(name).weights, encoder.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
    kinds = [[x for x in m.layers if isinstance(x, keras.layers.Bidirectional)][0] for m in (head, encoder)]
    for a, b in zip(*(layer.weights for layer in kinds), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), atol=1e-6)
    for a, b in zip(weights_of(ramp_run.classifier.backbone), weights_of(run.model.backbone), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(
        ActivityError, match="has other sizes: .* give --units, --members and --components of its training"
    ):
        train_captioner(captioned_dataset, dataclasses.replace(config, units=8), work_dir=tmp_path / "other")
    with pytest.raises(ActivityError, match="it takes 6 .* rgb,motion; the data set has 6 .* px .stretched., rgb;"):
        train_captioner(captioned_dataset.with_streams(("rgb",)), config, work_dir=tmp_path / "other")


def test_an_activity_model_to_begin_with_has_the_head_lstm(captioned_dataset, caption_config, ramp_run, tmp_path):
    old = ramp_run.classifier
    shape = {"num_features": old.backbone.output_shape[-1], "num_labels": len(old.labels), "num_streams": 2}
    head = build_head("chunks", HeadOptions(), **shape)
    path = save_model(ActivityClassifier(old.backbone, head, old.info), tmp_path / "chunks.keras")
    config = dataclasses.replace(caption_config, encoder=str(path), weights=None, backbone="mobilenet_v2")
    with pytest.raises(ActivityError, match="chunks.keras: expected a model with the head lstm .*, received chunks"):
        train_captioner(captioned_dataset, config, work_dir=tmp_path / "run")


def test_the_backbone_can_be_fine_tuned_or_learn_from_the_beginning(captioned_dataset, caption_config, tmp_path):
    short = dataclasses.replace(caption_config, epochs=1)
    tuned = train_captioner(
        captioned_dataset, dataclasses.replace(short, fine_tune=2, fine_tune_epochs=1), work_dir=tmp_path / "tuned"
    )
    assert [stage.name for stage in tuned.stages] == ["head", "fine_tune"]
    frozen = train_captioner(captioned_dataset, short, work_dir=tmp_path / "frozen")
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(weights_of(frozen.model.backbone), weights_of(tuned.model.backbone), strict=True)
    ]
    assert changed[-1] and not all(changed)
    scratch = train_captioner(captioned_dataset, dataclasses.replace(short, weights="none"), work_dir=tmp_path / "new")
    assert [stage.name for stage in scratch.stages] == ["scratch"]


def test_what_cannot_be_learned_is_said(captioned_dataset, ramp_dataset, caption_config, tmp_path, caplog):
    with pytest.raises(
        DatasetError, match="it has no captions; expected sentences; write them into a column `caption`"
    ):
        train_captioner(ramp_dataset, caption_config, work_dir=tmp_path)
    with pytest.raises(SettingError, match="task must be describe, received: classify"):
        train_captioner(captioned_dataset, TrainConfig(), work_dir=tmp_path)
    caplog.set_level(logging.WARNING)
    config = dataclasses.replace(caption_config, epochs=1, max_words=3, vocabulary=5)
    train_captioner(captioned_dataset, config, work_dir=tmp_path / "run")
    assert "24 of 48 captions are longer than --max-words 3 (the longest: 4 words)" in caplog.text
    assert "words of the captions are not among the 5 of --vocabulary" in caplog.text
    samples = [dataclasses.replace(x, captions=("...",)) for x in captioned_dataset.samples]
    with pytest.raises(DatasetError, match="its captions for training have no words, only punctuation"):
        train_captioner(dataclasses.replace(captioned_dataset, samples=samples), config, work_dir=tmp_path / "none")
    caplog.clear()
    TrainConfig(task="describe", head="gru", stack=False)
    assert "--head does nothing with --task describe" in caplog.text
    assert "--no-stack does nothing with --task describe" in caplog.text
    caplog.clear()
    assert TrainConfig(max_words=3).max_words == TrainConfig.max_words
    assert "--max-words does nothing with --task classify" in caplog.text


# === Vocabulary, batches, loss ===


def test_the_vocabulary_holds_the_most_frequent_words():
    vocabulary = Vocabulary(["A dog, a cat!", "a DOG runs", "Ärger"], most_words=3)
    assert vocabulary.words[:2] == ("a", "dog") and len(vocabulary.words) == 3
    numbers = vocabulary.numbers_of(["a dog barks", "", "Dog."])
    assert [x.tolist() for x in numbers] == [
        [NUM_SPECIAL, NUM_SPECIAL + 1, UNKNOWN],
        [],
        [NUM_SPECIAL + 1],
    ]
    assert "ärger" in Vocabulary(["Ärger"], most_words=5).words


def caption_batches(*, training=True, sentences=None, **options):
    stacks = [np.full((2, 1, 3), i, np.float32) for i in range(4)]
    clips = FeatureBatches(stacks, np.arange(4)[:, None], num_frames=3, batch_size=2, training=training, seed=5)
    sentences = sentences or [[np.array([3 + i]), np.array([3 + i, 8])] for i in range(4)]
    return CaptionBatches(clips, sentences, max_words=2, num_epochs=10, **options)


def test_each_clip_comes_with_one_of_its_sentences():
    seen = set()
    batches = caption_batches()
    for epoch in range(20):
        for inputs, targets in batches.epoch(epoch):
            clips = keras.ops.convert_to_numpy(inputs["features"])[:, 0, 0, 0].astype(int)
            for clip, words, target in zip(clips, keras.ops.convert_to_numpy(inputs["words"]), targets, strict=True):
                assert target.tolist() in ([3 + clip, END, PADDING], [3 + clip, 8, END])
                assert words.tolist() == [END, *target[:-1]]
                seen.add((clip, tuple(target.tolist())))
    assert len(seen) == 8 and len(batches) == 2 and batches.num_windows == 4
    again = [targets.tolist() for _, targets in batches.epoch(3)]
    assert again == [targets.tolist() for _, targets in batches.epoch(3)]
    fixed = [targets[:, 1].tolist() for _, targets in caption_batches(training=False).epoch(7)]
    assert fixed == [[END, END], [END, END]]  # of validation: the first


def test_a_sentence_that_is_too_long_has_no_end():
    ((_, targets), *_) = caption_batches(sentences=[[np.array([3, 4, 5, 6])]] * 4).epoch(0)
    assert targets.tolist() == [[3, 4, 5], [3, 4, 5]]


def test_words_are_read_as_written_more_and_more_often():
    batches = caption_batches(scheduled_sampling=1.0)

    def fraction(epoch):
        return np.mean([keras.ops.convert_to_numpy(x["own"]) for _ in range(1) for x, _ in batches.epoch(epoch)])

    assert fraction(9) == 1.0 and np.mean([fraction(0) for _ in range(1)]) < 0.7
    assert not any(
        keras.ops.convert_to_numpy(x["own"]).any()
        for x, _ in caption_batches(scheduled_sampling=1.0, training=False).epoch(9)
    )
    assert all("own" not in x for x, _ in caption_batches().epoch(9))


def test_some_clips_are_withheld():
    masks = [
        keras.ops.convert_to_numpy(inputs["mask"])
        for epoch in range(50)
        for inputs, _ in caption_batches(withheld=0.3).epoch(epoch)
    ]
    rows = np.concatenate(masks)
    assert set(map(tuple, rows.tolist())) == {(True, True, False), (False, False, False)}
    assert 0.2 < 1 - rows.any(axis=1).mean() < 0.4
    assert all(
        keras.ops.convert_to_numpy(x["mask"]).any(axis=1).all()
        for x, _ in caption_batches(withheld=0.3, training=False).epoch(0)
    )


def test_the_loss_is_that_of_the_words():
    logits = np.log(np.array([[[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [1e-9, 1, 1e-9, 1e-9]]], np.float32))
    targets = np.array([[3, 2, 0]], np.int32)
    loss = float(keras.ops.convert_to_numpy(loss_of_words(targets, logits))[0])
    assert loss == pytest.approx(-(np.log(0.4) + np.log(0.25)) / 2, abs=1e-5)
    smooth = float(keras.ops.convert_to_numpy(loss_of_words(targets, logits, smoothing=0.2))[0])
    even = -(np.log([0.1, 0.2, 0.3, 0.4]).mean() + np.log(0.25)) / 2
    assert smooth == pytest.approx(0.8 * loss + 0.2 * even, abs=1e-5)
    accuracy = keras.ops.convert_to_numpy(
        accuracy_of_words(np.array([[3, 1, 2, 0]]), np.eye(4, dtype=np.float32)[[[3, 1, 1, 1]]])
    )
    assert accuracy[0] == pytest.approx(2 / 3)


def test_a_model_file_writes_the_same(caption_run, caption_model, captioned_dataset):
    loaded = load_captioner(caption_model)
    ours, theirs = (evaluate_captions(model, captioned_dataset).sentences for model in (caption_run.model, loaded))
    assert [x.text for x in ours] == [x.text for x in theirs]
    assert [x.log_probability for x in ours] == [x.log_probability for x in theirs]


def test_more_components_than_features_are_said_to_be_all(captioned_dataset, caption_config, caplog):
    build_captioner(captioned_dataset, dataclasses.replace(caption_config, components=5000), ["a"])
    assert "--components 5000: a frame has " in caplog.text and "features, all are kept" in caplog.text
    caplog.clear()
    build_captioner(captioned_dataset, caption_config, ["a"])
    assert "--components" not in caplog.text
