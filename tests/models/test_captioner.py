"""The model that writes sentences: its file, its parts, and what it writes."""

import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import CAPTIONS

from activity.errors import ModelFileError, SettingError
from activity.models.captioner import ActivityCaptioner, build_encoder, load_captioner
from activity.models.classifier import load_classifier
from activity.models.heads import HeadOptions
from activity.models.info import ModelInfo, read_info
from activity.models.saving import save_model
from activity.models.search import NUM_SPECIAL
from activity.models.sentences import SentenceWriter
from activity.runtimes.features import extract_features


@pytest.fixture(scope="module")
def stacks(caption_run, captioned_dataset):
    """Features of the test videos."""
    return extract_features(captioned_dataset, captioned_dataset.split("test"), caption_run.model.backbone)


def test_one_file_tells_all(caption_model, caption_run):
    loaded = load_captioner(caption_model)
    assert loaded.info.words == caption_run.model.info.words and loaded.info.max_words == 6
    for a, b in zip(caption_run.model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
    info = read_info(caption_model, task="describe")
    assert info.task == "describe" and info.labels == () and info.record.training.task == "describe"
    assert set(zipfile.ZipFile(caption_model).namelist()) == {"metadata.json", "config.json", "model.weights.h5"}


def test_a_model_of_the_other_task_is_refused_with_the_right_command(caption_model, ramp_model):
    message = "expected a model that labels activities, and this one writes sentences; try: activity describe captioner"
    for read in (read_info, load_classifier):
        with pytest.raises(ModelFileError, match=message):
            read(caption_model)
    message = "expected a model that writes sentences, and this one labels activities; try: activity classify ramps"
    with pytest.raises(ModelFileError, match=message):
        load_captioner(ramp_model)


def changed(path, to, **fields):
    """A copy of a model file with other fields in its config."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"] |= fields
                data = json.dumps(config).encode()
            target.writestr(name, data)
    return to


def test_a_file_that_contradicts_itself_is_refused(caption_model, caption_run, tmp_path):
    words = list(caption_run.model.info.words)
    for fields, message in (
        ({"words": words[:-1]}, "damaged: 5 words, but 9 outputs"),
        ({"words": words[:-1] + [words[0]]}, "words must be names, each once"),
        ({"words": words, "labels": ["a", "b"]}, "labels must be none, or the words"),
        ({"max_words": 0}, "max_words must be 1 to 200, received: 0"),
        ({"max_words": "6"}, "max_words is not what it must be"),
        ({"words": []}, "labels must be names, each once"),
    ):
        with pytest.raises(ModelFileError, match=message):
            load_captioner(changed(caption_model, tmp_path / "m.keras", **fields))


def test_a_model_has_labels_or_words(captioned_dataset):
    clip = {"spec": captioned_dataset.spec, "clip_seconds": 1.0, "window_seconds": 1.0}
    with pytest.raises(SettingError, match="max_words must be none, received: 3"):
        ModelInfo(labels=("a", "b"), max_words=3, **clip)
    assert ModelInfo(labels=("a", "b"), **clip).task == "classify"


def test_sentences_of_stacks_do_not_depend_on_their_company(caption_run, stacks):
    writer = SentenceWriter(caption_run.model, num_beams=3)
    together = writer.write_stacks(stacks)
    assert all(len(sentences) == 3 for sentences in together)
    for stack, sentences in zip(stacks, together, strict=True):
        (alone,) = writer.write_stacks([stack])
        assert [x.words for x in alone] == [x.words for x in sentences]
        for a, b in zip(alone, sentences, strict=True):
            assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)
            assert a.attention.shape == (len(a.words), min(len(stack), 6))
            np.testing.assert_allclose(a.attention.sum(axis=1), 1, atol=1e-5)
    best = together[0][0]
    assert best.text == " ".join(best.words) and best.certainty == best.log_probability / (len(best.words) + 1)


def test_of_a_long_stack_the_most_certain_window_counts(caption_run, stacks):
    writer = SentenceWriter(caption_run.model)
    long = np.concatenate([stacks[0], stacks[0], stacks[1]])
    (sentences,) = writer.write_stacks([long])
    of_windows = writer.write_windows([(long, start) for start in range(0, len(long) - 5, 3)])
    assert sentences[0].certainty >= max(x[0].certainty for x in of_windows) - 1e-6


def test_random_sentences_are_the_same_again_for_a_seed(caption_run, stacks):
    writer = SentenceWriter(caption_run.model, sampled=True)
    windows = [(stack, 0) for stack in stacks]

    def drawn(seed, **options):
        rngs = [np.random.default_rng([seed, i]) for i in range(len(windows))]
        return [x[0].text for x in writer.write_windows(windows, rngs=rngs, **options)]

    assert drawn(0, temperature=2.0) == drawn(0, temperature=2.0) != drawn(1, temperature=2.0)
    greedy = [x[0].text for x in SentenceWriter(caption_run.model, num_beams=1).write_stacks(stacks)]
    assert drawn(0, top_p=1e-6) == greedy


def test_without_a_clip_it_speaks_the_language(caption_run):
    writer = SentenceWriter(caption_run.model, sampled=True)
    features = np.zeros((20, 6, 2, caption_run.model.backbone.output_shape[-1]), np.float32)
    rngs = [np.random.default_rng(i) for i in range(20)]
    written = {x[0].text for x in writer.write(features, np.zeros((20, 6), bool), rngs=rngs, temperature=0.3)}
    assert {caption for captions in CAPTIONS.values() for caption in captions} & written and len(written) > 1


def test_the_memory_does_not_depend_on_padding():
    encoder = build_encoder(HeadOptions(units=4, members=2), num_features=5, num_streams=2)
    features = np.random.default_rng(0).normal(size=(2, 6, 2, 5)).astype(np.float32)
    mask = np.arange(6) < np.array([4, 6])[:, None]
    memory = encoder.predict_on_batch({"features": features, "mask": mask})
    features[0, 4:] = 9
    again = encoder.predict_on_batch({"features": features, "mask": mask})
    np.testing.assert_allclose(memory, again, atol=1e-6)
    assert memory.shape == (2, 6, 2 * 2 * 4 + 2 * 5) and not memory[0, 4:].any()


@pytest.mark.parametrize(
    ("num_features", "asked", "num_components"),
    [(300, {}, 64), (300, {"num_components": 256}, 256), (100, {"num_components": 256}, 100)],
)
def test_the_memory_has_as_many_components_as_are_asked_for(num_features, asked, num_components):
    encoder = build_encoder(HeadOptions(units=4), num_features=num_features, num_streams=2, **asked)
    assert encoder.output_shape[-1] == 2 * 4 + 2 * num_components


def test_a_captioner_gives_logits_of_the_next_words(caption_run, captioned_dataset):
    model = caption_run.model
    assert isinstance(model, ActivityCaptioner) and model.output_shape == (None, None, 6 + NUM_SPECIAL)
    frames = np.zeros((1, 6, 2, 32, 32, 3), np.uint8)
    inputs = {"frames": frames, "mask": np.ones((1, 6), bool), "words": np.array([[2, 3, 4]], np.int32)}
    assert model.predict_on_batch(inputs).shape == (1, 3, 9)


def test_a_model_that_is_not_finite_is_not_written(caption_run, tmp_path):
    model = keras.models.clone_model(caption_run.model)
    model.weights[-1].assign(model.weights[-1] * np.nan)
    with pytest.raises(ModelFileError, match="are not finite numbers"):
        save_model(model, tmp_path / "m.keras")
