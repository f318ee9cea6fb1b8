import numpy as np
import pytest

from activity.models.search import NUM_SPECIAL
from activity.runtimes.formats import FORMATS, write_graph
from activity.runtimes.stepwise import StepwiseDecoder, encoder_graph, random_words, step_graph

READERS = {"savedmodel": "tensorflow", "onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(scope="module", params=READERS)
def decoder(request, caption_run, tmp_path_factory):
    """The captioner as two graphs of a format."""
    pytest.importorskip(READERS[request.param])
    if request.param == "onnx":
        pytest.importorskip("tf2onnx")
    folder, opened = tmp_path_factory.mktemp("graphs"), []
    for graph in (encoder_graph(caption_run.model), step_graph(caption_run.model)):
        path = folder / f"{len(opened)}{FORMATS[request.param].suffix}"
        write_graph(graph, request.param, path)
        opened.append(FORMATS[request.param].open(path))
    return StepwiseDecoder(*opened)


@pytest.fixture(scope="module")
def clips(caption_run):
    """Features of clips of one frame, of some, and of all; and one of no frame at all."""
    num_frames = caption_run.model.spec.num_frames
    mask = np.arange(num_frames) < np.array([1, 3, num_frames, 0])[:, None]
    features = np.random.default_rng(0).random((*mask.shape, *caption_run.model.feature_shape), np.float32)
    return {"features": features * mask[..., None, None], "mask": mask}


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_most_probable_sentences_are_those_of_keras(num_beams, decoder, caption_run, clips):
    model = caption_run.model
    words, logs, seen = model.build_search(num_beams=num_beams, sampled=False)(clips)
    options = {"num_words": len(model.info.words) + NUM_SPECIAL, "max_words": model.info.max_words}
    found = decoder.search(*clips.values(), num_beams=num_beams, **options)
    np.testing.assert_array_equal(found[0], words)
    np.testing.assert_allclose(found[1], logs, atol=1e-4)
    np.testing.assert_allclose(found[2], seen, atol=1e-4)
    assert found[0].shape[1] == num_beams and (seen[:3].sum(axis=-1)[words[:3] > 0] > 0.99).all()


def test_random_sentences_are_those_of_keras(decoder, caption_run, clips):
    model = caption_run.model
    options = {"num_words": len(model.info.words) + NUM_SPECIAL, "max_words": model.info.max_words}
    noise = np.random.default_rng(1).gumbel(size=(4, options["max_words"] + 1, options["num_words"])).astype(np.float32)
    drawn = {"noise": noise, "temperature": np.full((4, 1), 1.5, np.float32), "top_p": np.full((4, 1), 0.9, np.float32)}
    words, logs, _ = model.build_search(num_beams=1, sampled=True)({**clips, **drawn})
    found = decoder.search(*clips.values(), num_beams=1, **options, **drawn)
    np.testing.assert_array_equal(found[0], words)
    np.testing.assert_allclose(found[1], logs, atol=1e-4)


def test_given_words_have_the_logits_of_keras(decoder, caption_run, clips):
    import keras

    model = caption_run.model
    words = random_words(4, 5, len(model.info.words) + NUM_SPECIAL)
    expected = model.decoder(words, model.encoder.predict_on_batch(clips), clips["mask"])
    received = decoder.logits(clips["features"], clips["mask"], words)
    np.testing.assert_allclose(received, keras.ops.convert_to_numpy(expected), atol=1e-4)
    assert received.shape == (4, 5, len(model.info.words) + NUM_SPECIAL)
