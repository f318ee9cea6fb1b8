"""What the page asks of a model, and the limits of it."""

import csv
import dataclasses
import json
import threading
import time

import cv2
import numpy as np
import pytest

from activity.apps.page_session import CaptionSession, LabelSession, session_for
from activity.errors import ActivityError, ModelFileError
from activity.models.captioner import load_captioner
from activity.models.saving import save_model
from activity.predictor.captioner import Captioner
from activity.predictor.predictor import Predictor
from activity.video.writer import write_video


@pytest.fixture(scope="module")
def page_session(ramp_model):
    return LabelSession(ramp_model, runtime="keras", max_seconds=5)


@pytest.fixture(scope="module")
def caption_session(caption_model):
    return CaptionSession(caption_model, max_seconds=5)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video\n" * 50)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "photo.png"
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    return path


class TestSessionFor:
    def test_each_task_has_its_own(self, ramp_model, caption_model):
        assert session_for(ramp_model) is LabelSession
        assert session_for(caption_model) is CaptionSession

    def test_a_model_of_orders_is_refused(self, caption_model, tmp_path):
        model = load_captioner(caption_model)
        model.info = dataclasses.replace(model.info, labels=model.info.words)
        path = save_model(model, tmp_path / "order.keras")
        message = r"order\.keras: expected a model that labels or describes videos, received one of --task order"
        with pytest.raises(ModelFileError, match=message):
            session_for(path)

    def test_a_model_of_feature_files_is_refused(self, feature_model):
        with pytest.raises(ActivityError, match="the page needs a model of videos; this one takes feature files"):
            session_for(feature_model)


class TestLabelSession:
    def test_it_says_what_python_says(self, page_session, ramp_model, ramp_videos, tmp_path):
        path = ramp_videos / "darkens" / "p0_0.avi"
        expected = Predictor.load(ramp_model, runtime="keras").predict(path, timeline=True)
        prediction = page_session.answer(path)
        assert prediction.as_dict() == expected.as_dict()
        about = json.loads(next(p for p in page_session.files(prediction, tmp_path) if p.suffix == ".json").read_text())
        assert about == {**expected.as_dict(), "source": "p0_0.avi"}  # no folder of ours

    def test_all_that_is_shown_is_made(self, page_session, ramp_videos, tmp_path):
        prediction = page_session.answer(ramp_videos / "darkens" / "p0_0.avi")
        made = [*page_session.files(prediction, tmp_path), page_session.explained(prediction, tmp_path)]
        assert {path.name for path in made} == {"p0_0.json", "p0_0.csv", "p0_0.srt", "p0_0.png", "p0_0-why.png"}
        assert (
            Predictor(page_session.predictor.model)
            .predict(page_session.annotated(prediction, tmp_path))
            .duration_seconds
            > 0
        )

    def test_what_is_no_video_is_named_without_its_folder(self, page_session, text_file):
        with pytest.raises(ActivityError, match=r"^notes\.mp4: cannot be read: ") as caught:
            page_session.answer(text_file)
        assert str(text_file.parent) not in str(caught.value)

    def test_what_is_too_long_is_refused_before_it_is_read(self, ramp_model, ramp_videos):
        page_session = LabelSession(ramp_model, runtime="keras", max_seconds=0.1)
        with pytest.raises(ActivityError, match=r"p0_0.avi: too long: this page takes up to 0.1 seconds"):
            page_session.answer(ramp_videos / "darkens" / "p0_0.avi")

    def test_what_turns_out_too_long_is_refused_whatever_its_header_says(self, ramp_model, tmp_path):
        jpeg = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
        (tmp_path / "header.mjpeg").write_bytes(75 * jpeg)  # has none
        frames = [np.full((32, 32, 3), 90, np.uint8)] * 75
        write_video(tmp_path / "packets.avi", frames, frames_per_second=25)  # their times are those of decoding
        page_session = LabelSession(ramp_model, runtime="keras", max_seconds=1)
        for name, length in {"header.mjpeg": "3", "packets.avi": "more"}.items():
            message = f"^{name}: too long: this page takes up to 1 seconds, and it has {length}; `activity classify`"
            with pytest.raises(ActivityError, match=message):
                page_session.answer(tmp_path / name)

    def test_a_decoder_that_hangs_does_not_keep_the_page(self, ramp_model, ramp_videos, monkeypatch):
        released = threading.Event()

        def hang(*_, **__):
            yield from [] if released.wait(60) else []

        monkeypatch.setattr("activity.predictor.sources.iter_frames", hang)
        page_session = LabelSession(ramp_model, runtime="keras", max_seconds=5, patience_seconds=0.2)
        began = time.monotonic()
        with pytest.raises(ActivityError, match=r"^p0_0.avi: cannot be read: decoding took longer than 5.2 s and was"):
            page_session.answer(ramp_videos / "darkens" / "p0_0.avi")
        assert time.monotonic() - began < 20
        released.set()

    def test_drawing_the_labels_keeps_to_the_limits_too(self, page_session, ramp_videos, tmp_path, monkeypatch):
        prediction = page_session.answer(ramp_videos / "darkens" / "p0_0.avi")
        monkeypatch.setattr(page_session, "max_seconds", 0.1)
        with pytest.raises(ActivityError, match=r"^p0_0.avi: too long: this page takes up to 0.1 seconds"):
            page_session.annotated(prediction, tmp_path)
        page_session = LabelSession(page_session.model_path, runtime="keras", max_seconds=5, patience_seconds=-30)
        with pytest.raises(ActivityError, match=r"^p0_0.avi: its labels took too long to draw"):
            page_session.annotated(prediction, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_playlist_is_refused(self, page_session, tmp_path, ramp_videos):
        (tmp_path / "a.mp4").write_text(f"ffconcat version 1.0\nfile {ramp_videos}/darkens/p0_0.avi\n")
        with pytest.raises(ActivityError, match=r"^a\.mp4: cannot be read: this is a playlist \(ffconcat\)"):
            page_session.answer(tmp_path / "a.mp4")

    @pytest.mark.real
    def test_lengths_of_real_files_are_those_of_their_frames(self, ramp_model, real_data):
        page_session = LabelSession(ramp_model, runtime="keras", max_seconds=1)
        for name in ("live.webm", "raw.h264"):
            with pytest.raises(ActivityError, match=f"{name}: .*too long"):
                page_session.answer(real_data / "cases" / name)
        with pytest.raises(
            ActivityError, match=r"song_cover\.mp3: cannot be read: a sound file .* a cover picture is no video"
        ):
            page_session.answer(real_data / "cases" / "song_cover.mp3")


class TestCaptionSession:
    def test_it_says_what_python_says(self, caption_session, caption_model, ramp_videos, tmp_path):
        path = ramp_videos / "darkens" / "p0_0.avi"
        expected = Captioner.load(caption_model).describe(path, timeline=True)
        description = caption_session.answer(path)
        assert description.as_dict(top_k=5) == expected.as_dict(top_k=5)
        files = {file.suffix: file for file in caption_session.files(description, tmp_path)}
        assert list(files) == [".json", ".csv", ".srt"]
        assert json.loads(files[".json"].read_text()) == {**expected.as_dict(top_k=5), "source": "p0_0.avi"}
        with files[".csv"].open() as file:
            assert [row["caption"] for row in csv.DictReader(file)] == [x.sentence.text for x in expected.segments]
        assert expected.caption in files[".srt"].read_text()

    def test_a_video_is_drawn_on_and_explained(self, caption_session, ramp_videos, tmp_path):
        description = caption_session.answer(ramp_videos / "darkens" / "p0_0.avi")
        annotated = caption_session.annotated(description, tmp_path)
        assert caption_session.answer(annotated).duration_seconds == pytest.approx(description.duration_seconds)
        assert cv2.imread(str(caption_session.explained(description, tmp_path))).shape[1] > 300

    def test_an_image_has_a_sentence_and_lasts_no_time(self, caption_session, image, tmp_path):
        assert caption_session.length(image) == 0
        description = caption_session.answer(image)
        assert description.caption and description.duration_seconds == 0
        (about,) = caption_session.files(description, tmp_path)
        assert json.loads(about.read_text()) == {**description.as_dict(top_k=5), "source": "photo.png"}

    @pytest.mark.parametrize("name", ["notes.mp4", "notes.jpg"])
    def test_what_is_neither_video_nor_image_is_named_without_its_folder(self, caption_session, text_file, name):
        path = text_file.rename(text_file.with_name(name))
        with pytest.raises(ActivityError, match=rf"^{name}: cannot be read: ") as caught:
            caption_session.answer(path)
        assert str(path.parent) not in str(caught.value)

    def test_what_is_too_long_is_refused(self, caption_session, ramp_videos, tmp_path, monkeypatch):
        path = ramp_videos / "darkens" / "p0_0.avi"
        description = caption_session.answer(path)
        monkeypatch.setattr(caption_session, "max_seconds", 0.1)
        message = (
            r"^p0_0.avi: too long: this page takes up to 0.1 seconds, and it has .*; `activity describe` takes any"
        )
        for work in (
            lambda: caption_session.answer(path),
            lambda: caption_session.annotated(description, tmp_path),
            lambda: caption_session.explained(description, tmp_path),
        ):
            with pytest.raises(ActivityError, match=message):
                work()
        assert list(tmp_path.iterdir()) == []

    def test_each_frame_is_told_of_and_may_be_the_last(self, caption_session, ramp_videos, tmp_path):
        description = caption_session.answer(ramp_videos / "darkens" / "p0_0.avi")

        def stop(seconds):
            raise ActivityError(f"stopped at {seconds:g}")

        path = ramp_videos / "darkens" / "p0_0.avi"
        for work in (
            lambda: caption_session.answer(path, stop),
            lambda: caption_session.annotated(description, tmp_path, stop),
            lambda: caption_session.explained(description, tmp_path, stop),
        ):
            with pytest.raises(ActivityError, match="stopped at 0"):
                work()

    def test_a_drawing_that_takes_too_long_ends(self, caption_model, ramp_videos, tmp_path):
        session = CaptionSession(caption_model, max_seconds=5, patience_seconds=-30)
        description = Captioner.load(caption_model).describe(ramp_videos / "darkens" / "p0_0.avi", timeline=True)
        with pytest.raises(ActivityError, match=r"^p0_0.avi: its sentences took too long to draw"):
            session.annotated(description, tmp_path)
        with pytest.raises(ActivityError, match=r"^p0_0.avi: its sentence took too long to explain"):
            session.explained(description, tmp_path)

    def test_the_runtime_that_was_asked_for_writes(self, caption_model, ramp_videos):
        pytest.importorskip("openvino")
        path = ramp_videos / "darkens" / "p0_0.avi"
        one, other = (CaptionSession(caption_model, runtime=name).answer(path) for name in ("openvino", "keras"))
        assert one.caption == other.caption
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
