import gc
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import NOISE_LENGTHS, NOISE_SPEC

from activity.datasets import arrays
from activity.datasets.dataset import load_dataset
from activity.datasets.parts import PackedArrays
from activity.errors import DatasetError
from activity.models import classifier
from activity.models.backbones import build_backbone
from activity.runtimes.features import cache_activations, extract_features


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    return build_backbone("small_cnn", height=16, width=16, weights="none")


def cached(dataset):
    return sorted(path.relative_to(dataset.dataset_dir) for path in dataset.dataset_dir.glob("features/*/*.npy"))


def assert_equal(features, expected):
    for one, other in zip(features, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def assert_exactly_equal(features, expected):
    for one, other in zip(features, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_frame_gets_its_own_features(dataset, backbone):
    features = extract_features(dataset, dataset.samples, backbone)
    assert [f.shape for f in features] == [(length, 2, 128) for length in NOISE_LENGTHS.values()]
    assert all(f.dtype == np.float32 for f in features)
    for s, stream in enumerate(NOISE_SPEC.streams):
        frames = (dataset.frames(sample, stream) for sample in dataset.samples)
        expected = [backbone.predict(np.array(stack), verbose=0) for stack in frames]
        assert_equal([stack[:, s] for stack in features], expected)


def test_a_stream_has_a_cache_of_its_own(dataset, backbone):
    both = extract_features(dataset, dataset.samples, backbone)
    assert len({path.parent for path in cached(dataset)}) == 2
    motion = extract_features(dataset.with_streams(["motion"]), dataset.samples, backbone)
    for one, other in zip(motion, both, strict=True):
        np.testing.assert_array_equal(one[:, 0], other[:, 1])


def test_features_follow_the_samples_asked_for(dataset, backbone):
    features = extract_features(dataset, dataset.samples, backbone, keep=False)
    picked = [dataset.samples[i] for i in (3, 0, 3)]
    assert_equal(extract_features(dataset, picked, backbone), [features[i] for i in (3, 0, 3)])


def test_what_is_cached_is_not_computed(dataset, backbone, monkeypatch):
    some = extract_features(dataset, dataset.samples[:3], backbone)
    assert [path.name for path in cached(dataset)] == ["part-00000.npy"] * 2
    num_frames = []
    monkeypatch.setattr(
        classifier, "predict", lambda model, batch: num_frames.append(len(batch)) or np.zeros((len(batch), 128))
    )
    again = extract_features(dataset, dataset.samples, backbone)
    assert sum(num_frames) == 2 * (1 + 70)  # d and e only, of both streams
    assert len(again) == len(dataset.samples)
    for one, other in zip(again[:3], some, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cache_that_is_lost_is_made_again(dataset, backbone):
    before = extract_features(dataset, dataset.samples, backbone)
    for path in cached(dataset):
        (dataset.dataset_dir / path).unlink()
    assert_equal(extract_features(dataset, dataset.samples, backbone), before)
    assert len(cached(dataset)) == 2


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole[:-9] + bytes(9)])
def test_a_cache_that_is_damaged_is_made_again_and_said(dataset, backbone, spoil, caplog):
    before = extract_features(dataset, dataset.samples, backbone)
    path = dataset.dataset_dir / cached(dataset)[1]
    size = path.stat().st_size
    path.write_bytes(spoil(path.read_bytes()))
    assert_equal(extract_features(dataset, dataset.samples, backbone), before)
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith(f"{path}: ") and message.endswith("; what it holds is computed again")
    assert [other.stat().st_size for other in path.parent.glob("*.npy")] == [size]


def test_a_damaged_stack_is_not_used(dataset, backbone):
    extract_features(dataset, dataset.samples, backbone, keep=False)  # they had no digests, and get some
    path = dataset.dataset_dir / "motion" / "b.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="b.npy: damaged: .*; run the same preprocess command again"):
        extract_features(dataset, dataset.samples, backbone, keep=False)


def test_without_a_cache_all_is_computed_in_each_run(dataset, backbone, caplog):
    expected = extract_features(dataset, dataset.samples, backbone, keep=False)
    (dataset.dataset_dir / "features").write_text("no folder can have this name")
    for _ in range(2):
        assert_equal(extract_features(dataset, dataset.samples, backbone), expected)
    stacks = cache_activations(dataset, dataset.samples, backbone)
    for stack, features in zip(stacks, expected, strict=True):
        np.testing.assert_allclose(stack[: len(stack)], features, rtol=1e-2, atol=1e-3)
    assert caplog.text.count("features cannot be kept there") == 1
    spare = {path.name for path in Path(tempfile.gettempdir()).glob("activity-*")}
    del stacks, stack
    gc.collect()
    assert len(spare - {path.name for path in Path(tempfile.gettempdir()).glob("activity-*")}) == 1


def test_features_need_not_be_kept(dataset, backbone):
    extract_features(dataset, dataset.samples, backbone, keep=False)
    assert not (dataset.dataset_dir / "features").exists()


def test_other_weights_have_another_cache(dataset, backbone):
    other = build_backbone("small_cnn", height=16, width=16, weights="none")
    first, second = (extract_features(dataset, dataset.samples[:1], model)[0] for model in (backbone, other))
    assert not np.allclose(first, second)
    folders = {path.parent.name for path in cached(dataset)}
    assert len(folders) == 4 and all(name.startswith("small_cnn-") for name in folders)
    np.testing.assert_array_equal(extract_features(dataset, dataset.samples[:1], backbone)[0], first)


def test_what_was_computed_before_a_stop_is_kept(dataset, backbone, monkeypatch):
    calls = []

    def stop(model, batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.zeros((len(batch), 128), np.float32)

    monkeypatch.setattr(classifier, "predict", stop)
    with pytest.raises(KeyboardInterrupt):
        extract_features(dataset, dataset.samples, backbone)
    assert [path.name for path in cached(dataset)] == ["a.npy", "b.npy"]  # of 64 frames, 45 were whole stacks


def test_a_later_run_computes_the_new_clips_alone(dataset, backbone, monkeypatch):
    first = extract_features(dataset, dataset.samples[:2], backbone)
    computed = []
    predict = classifier.predict
    monkeypatch.setattr(classifier, "predict", lambda model, x: computed.append(len(x)) or predict(model, x))
    both = extract_features(dataset, dataset.samples, backbone)
    assert sum(computed) == 2 * (sum(NOISE_LENGTHS.values()) - sum(map(len, first)))
    assert_exactly_equal(both[:2], first)
    extract_features(dataset, dataset.samples[::-1], backbone)
    assert len(cached(dataset)) == 2 and sum(computed) == 2 * (sum(NOISE_LENGTHS.values()) - sum(map(len, first)))


@pytest.mark.parametrize("keep", [True, False])
def test_features_too_large_for_memory_are_read_when_they_are_asked_for(dataset, backbone, monkeypatch, keep):
    expected = extract_features(dataset, dataset.samples, backbone, keep=keep)
    monkeypatch.setattr(arrays, "MOST_IN_MEMORY", 0)
    features = extract_features(dataset, dataset.samples, backbone, keep=keep)
    assert not isinstance(features, list) and len(features) == len(expected)
    assert_equal(list(features), expected)
    assert (dataset.dataset_dir / "features").exists() == keep


def test_features_in_half_precision_are_read(dataset, backbone):
    before = extract_features(dataset, dataset.samples, backbone)
    for folder in {(dataset.dataset_dir / path).parent for path in cached(dataset)}:
        whole, half = PackedArrays(folder), PackedArrays(folder.with_name("half"))
        for sample in dataset.samples:
            half.write(sample.sample_id, whole[sample.sample_id].astype(np.float16))
        shutil.rmtree(folder)
        half.folder.rename(folder)
    for one, other in zip(extract_features(dataset, dataset.samples, backbone), before, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other.astype(np.float16))


def test_the_features_of_an_old_data_set_are_found(backbone, tmp_path):
    """Folders and names as of the version in which the stream `motion_crop` was called `closeup`."""
    old = Path(__file__).parents[1] / "datasets" / "data" / "dataset_v2"
    dataset = load_dataset(shutil.copytree(old, tmp_path / "old"))
    model = keras.models.clone_model(backbone)
    model.set_weights([np.full(weight.shape, 0.01, weight.dtype) for weight in model.get_weights()])
    cache_dirs = ["small_cnn-2eed1a1bd512", "small_cnn-4127110bd08b", "small_cnn-11df86f242b3"]
    for s, name in enumerate(cache_dirs):
        (dataset.dataset_dir / "features" / name).mkdir(parents=True)
        for sample in dataset.samples:
            kept = np.full((2, 128), s, np.float32)
            np.save(dataset.dataset_dir / "features" / name / f"{sample.sample_id}.npy", kept)
    for features in extract_features(dataset, dataset.samples, model):
        np.testing.assert_array_equal(features, np.broadcast_to(np.arange(3)[:, None], (2, 3, 128)))
    assert sorted(path.name for path in dataset.dataset_dir.glob("features/*")) == sorted(cache_dirs)
    assert [path.name for path in cached(dataset)] == ["part-00000.npy"] * 3
    for features in extract_features(dataset, dataset.samples, model):
        np.testing.assert_array_equal(features, np.broadcast_to(np.arange(3)[:, None], (2, 3, 128)))
