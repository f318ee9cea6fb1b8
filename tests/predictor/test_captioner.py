"""Sentences of files, by the class that Python and the command line use."""

import dataclasses

import cv2
import numpy as np
import pytest
from conftest import CAPTIONS

from activity.errors import ModelFileError, SettingError, VideoError
from activity.evaluation.captioning import evaluate_captions
from activity.models.captioner import load_captioner
from activity.predictor.captioner import Captioner
from activity.predictor.prediction import Failure
from activity.predictor.predictor import Predictor
from activity.video.writer import write_video


@pytest.fixture(scope="module")
def captioner(caption_model):
    return Captioner.load(caption_model)


def test_a_file_gets_the_sentence_of_the_data_set(captioner, caption_model, captioned_dataset):
    expected = evaluate_captions(load_captioner(caption_model), captioned_dataset)
    for sample, sentence in zip(expected.samples, expected.sentences, strict=True):
        described = captioner.describe(captioned_dataset.videos_dir / sample.path)
        assert described.caption == sentence.text and described.caption in sample.captions
        assert described.log_probability == pytest.approx(sentence.log_probability, abs=1e-3)
        assert described.duration_seconds == pytest.approx(sample.duration_seconds)
        best = described.sentences[0]
        assert best.attention.shape == (len(best.words), len(described.timestamps_seconds))


def test_a_description_speaks(captioner, ramp_videos):
    path = ramp_videos / "darkens" / "p0_0.avi"
    described = captioner.describe(path)
    assert described.caption in CAPTIONS["darkens"] and described.log_probability <= 0
    assert described.as_text() == f"{path}  {described.caption}"
    lines = described.as_text(top_k=2).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == [x.text for x in described.sentences[:2]]
    values = described.as_dict(top_k=2)
    assert list(values) == ["source", "caption", "log_probability", "top", "duration_seconds"]
    assert values["top"][0] == {"caption": described.caption, "log_probability": described.log_probability}
    assert len(values["top"]) == 2 and len(described.as_dict()["top"]) == 1


def test_an_image_is_a_clip_of_one_frame(captioner, tmp_path):
    cv2.imwrite(str(tmp_path / "still.png"), np.full((24, 24, 3), 90, np.uint8))
    described = captioner.describe(tmp_path / "still.png")
    assert described.duration_seconds == 0 and described.timestamps_seconds.tolist() == [0]
    assert described.sentences[0].attention.shape == (len(described.sentences[0].words), 1)
    assert captioner.describe(tmp_path / "still.png", timeline=True).segments == ()  # it lasts no time


def long_video(path):
    up = np.linspace(40, 200, 8)
    ramp = np.concatenate([*[up] * 7, *[up[::-1]] * 7]).astype(np.uint8)  # a saw: each tooth is a clip of training
    write_video(path, (np.full((24, 24, 3), level, np.uint8) for level in ramp), frames_per_second=10)
    return path


def test_a_long_video_is_told_in_order(captioner, tmp_path, caplog):
    caplog.set_level("INFO")
    path = long_video(tmp_path / "long.avi")
    described = captioner.describe(path, timeline=True)
    told = [x.sentence.text in CAPTIONS["brightens"] for x in described.segments]
    assert told[0] and not told[-1] and "much longer" not in caplog.text
    assert described.segments[0].start_seconds == 0
    assert described.segments[-1].end_seconds == pytest.approx(11.2, abs=0.2)
    for before, after in zip(described.segments, described.segments[1:], strict=False):
        assert before.end_seconds == after.start_seconds and before.sentence.text != after.sentence.text
    assert list(described.as_dict()["segments"][0]) == ["start_seconds", "end_seconds", "caption", "log_probability"]
    alone = captioner.describe(path)
    assert f"{path}: much longer than the clips of training; described from " in caplog.text
    assert not alone.segments and "segments" not in alone.as_dict()


def test_a_video_that_is_not_long_is_one_segment(captioner, ramp_videos):
    described = captioner.describe(ramp_videos / "darkens" / "p5_0.avi", timeline=True)
    (segment,) = described.segments
    assert segment.sentence == described.sentences[0]
    assert (segment.start_seconds, segment.end_seconds) == (0, pytest.approx(described.duration_seconds))


def test_what_fails_does_not_stop_the_others(captioner, ramp_videos, tmp_path):
    (tmp_path / "broken.avi").write_bytes(b"no video")
    sources = [tmp_path / "broken.avi", ramp_videos / "brightens" / "p1_0.avi"]
    failed, described = captioner.describe_many(sources)
    assert isinstance(failed, Failure) and described.caption in CAPTIONS["brightens"]
    with pytest.raises(VideoError, match="broken.avi"):
        captioner.describe(sources[0])


def test_a_folder_is_searched_for_videos_and_images(captioner, ramp_videos, tmp_path):
    assert len(list(captioner.describe_many(ramp_videos / "darkens"))) == 16
    for name in ("1.png", "2.png", "sub/other.jpg", ".hidden.png"):  # numbered ones would be a video elsewhere
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((24, 24, 3), 90, np.uint8))
    (tmp_path / "clip.avi").write_bytes((ramp_videos / "darkens" / "p0_0.avi").read_bytes())
    described = list(captioner.describe_many(tmp_path))
    assert [x.source for x in described] == [str(tmp_path / x) for x in ("1.png", "2.png", "clip.avi", "sub/other.jpg")]


def test_random_sentences_do_not_depend_on_their_company(caption_model, ramp_videos):
    random = Captioner.load(caption_model, temperature=1.5, seed=4)
    paths = [ramp_videos / "darkens" / f"p{i}_0.avi" for i in range(6)]
    together = [x.caption for x in random.describe_many(paths)]
    assert [random.describe(path).caption for path in paths] == together
    others = Captioner.load(caption_model, temperature=1.5, seed=5)
    assert [x.caption for x in others.describe_many(paths)] != together


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be 1 or more, received: 0"),
        ({"temperature": 0}, "temperature must be above 0 to 100, received: 0"),
        ({"temperature": 1, "top_p": 1.1}, "top_p must be above 0 to 1, received: 1.1"),
    ],
)
def test_what_is_out_of_range_is_refused(captioner, options, message):
    with pytest.raises(SettingError, match=message):
        Captioner(captioner.model, **options)


def test_what_is_generated_is_random(captioner):
    with pytest.raises(SettingError, match="temperature must be a number"):
        captioner.generate(3)
    with pytest.raises(SettingError, match="num must be 1 or more, received: 0"):
        Captioner(captioner.model, temperature=1).generate(0)


def test_each_class_names_the_other(captioner, caption_model, ramp_model):
    with pytest.raises(ModelFileError, match="try: activity describe captioner.keras"):
        Predictor.load(caption_model)
    with pytest.raises(ModelFileError, match="try: activity classify ramps.keras"):
        Captioner.load(ramp_model)
    with pytest.raises(SettingError, match="a model in memory"):
        Captioner(caption_model)


def test_a_model_of_feature_files_describes_them(
    captioned_dataset, caption_config, ramp_features, tmp_path_factory, ramp_videos
):
    from activity.training.captioning import train_captioner

    config = dataclasses.replace(
        caption_config, features=str(ramp_features), backbone="mobilenet_v2", weights=None, epochs=20
    )
    run = train_captioner(captioned_dataset, config, work_dir=tmp_path_factory.mktemp("run"))
    described = Captioner(run.model).describe(ramp_features / "brightens" / "p0_0.npy")
    assert described.caption
    with pytest.raises(VideoError, match="expected a feature file"):
        Captioner(run.model).describe(ramp_videos / "brightens" / "p0_0.avi")
