import csv
import dataclasses
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from activity.errors import ActivityError, SettingError, VideoError
from activity.evaluation.evaluator import evaluate
from activity.predictor import sources as sources_module
from activity.predictor import windows as windows_module
from activity.predictor.live import Decision
from activity.predictor.prediction import Failure, Prediction
from activity.predictor.predictor import Predictor
from activity.predictor.sources import distinct_names
from activity.predictor.timeline import Timeline, Window, make_timeline
from activity.predictor.windows import read_window
from activity.video import sampling as sampling_module
from activity.video.sampling import read_stack
from activity.video.writer import write_video


@pytest.fixture(scope="module")
def predictor(ramp_model):
    return Predictor.load(ramp_model, runtime="keras")


def ramp_video(path, levels):
    frames = (np.full((24, 24, 3), level, np.uint8) for level in levels)
    write_video(path, frames, frames_per_second=10)
    return path


def test_a_file_gets_the_probabilities_of_the_data_set(predictor, ramp_dataset):
    expected = evaluate(predictor.model, ramp_dataset, split="test")
    for sample, probabilities in zip(expected.samples, expected.scores.probabilities, strict=True):
        prediction = predictor.predict(ramp_dataset.videos_dir / sample.path)
        np.testing.assert_allclose(prediction.probabilities, probabilities, atol=1e-5)
        assert prediction.label == sample.label
        assert prediction.duration_seconds == pytest.approx(sample.duration_seconds)


def test_a_prediction_speaks(predictor, ramp_videos):
    path = ramp_videos / "darkens" / "p0_0.avi"
    prediction = predictor.predict(path)
    assert prediction.top(1) == [("darkens", prediction.probability)]
    assert [label for label, _ in prediction.top(5)] == ["darkens", "brightens"]
    assert prediction.as_text(top_k=1) == f"{path}  darkens {prediction.probability:.3f}"
    assert prediction.as_dict(top_k=1) == {
        "source": str(path),
        "label": "darkens",
        "probability": prediction.probability,
        "top": [{"label": "darkens", "probability": prediction.probability}],
        "duration_seconds": prediction.duration_seconds,
    }


def test_below_the_threshold_the_label_is_unknown(predictor, ramp_videos):
    path = ramp_videos / "darkens" / "p0_0.avi"
    confident = predictor.predict(path)
    for threshold, label in ((confident.probability - 1e-6, "darkens"), (confident.probability + 1e-6, "unknown")):
        prediction = dataclasses.replace(confident, threshold=threshold)
        assert prediction.label == prediction.as_dict()["label"] == label
        assert prediction.as_dict()["top"][0]["label"] == "darkens"
    assert prediction.as_text(top_k=1) == f"{path}  unknown  darkens {confident.probability:.3f}"


def test_an_image_is_a_video_of_one_frame(predictor, ramp_videos, tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), frame[..., ::-1])
    write_video(tmp_path / "a.avi", frame[None], frames_per_second=10)
    image, video = predictor.predict_many([tmp_path / "a.png", tmp_path / "a.avi"])
    np.testing.assert_allclose(image.probabilities, video.probabilities, atol=1e-6)
    assert image.duration_seconds == 0.0 and len(image.windows) == 1
    kept = predictor.predict(tmp_path / "a.png", keep_frames=True).frames
    assert kept.images.shape == (1, 2, 32, 32, 3) and kept.timestamps_seconds.tolist() == [0.0]
    failure, result = predictor.predict_many([tmp_path / "a.png", ramp_videos / "darkens" / "p0_0.avi"], timeline=True)
    assert failure.error == "an image lasts no time, so it has no timeline; expected a video" and result.timeline


def test_many_files_keep_their_order_and_a_bad_one_stops_nothing(predictor, ramp_videos, tmp_path):
    bad = tmp_path / "text.mp4"
    bad.write_text("hello")
    sources = [ramp_videos / "darkens" / "p1_0.avi", bad, ramp_videos / "brightens" / "p1_0.avi", tmp_path / "none.avi"]
    results = list(predictor.predict_many(sources))
    assert [result.source for result in results] == [str(source) for source in sources]
    assert [getattr(result, "label", None) for result in results] == ["darkens", None, "brightens", None]
    assert results[1] == Failure(str(bad), "this is a text file, not a video")
    assert results[3].as_dict() == {"source": str(sources[3]), "error": "cannot be opened: No such file or directory"}


def test_a_name_that_is_not_utf8_is_no_crash(predictor, ramp_videos, tmp_path):
    name = os.fsdecode(b"\xff.avi")
    (tmp_path / name).write_bytes((ramp_videos / "darkens" / "p1_0.avi").read_bytes())
    (result,) = predictor.predict_many([tmp_path / name])
    assert "not valid UTF-8" in result.error and not result.error.startswith("/")


def test_one_bad_file_raises(predictor, tmp_path):
    with pytest.raises(VideoError, match="none.mp4: cannot be opened: No such file"):
        predictor.predict(tmp_path / "none.mp4")


def test_outputs_get_distinct_names():
    assert distinct_names(["a/x.mp4", "b/y.avi", "README"]) == ["x", "y", "README"]
    assert distinct_names(["a/x.mp4", "b/x.avi", "x-2.avi", "X.mkv", "b/x.mp4"]) == ["x", "x-3", "x-2", "X-4", "x-5"]


def test_a_bug_is_not_taken_for_a_bad_video(predictor, ramp_videos, monkeypatch):
    monkeypatch.setattr("activity.predictor.sources.probe", lambda path: 1 / 0)
    with pytest.raises(RuntimeError, match="failed") as caught:
        predictor.predict(ramp_videos / "darkens" / "p1_0.avi")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_stopping_early_leaves_no_thread(predictor, ramp_videos, tmp_path):
    long = ramp_video(tmp_path / "long.avi", np.tile(np.arange(0, 200), 10))
    results = predictor.predict_many([ramp_videos / "darkens" / "p1_0.avi", *[long] * 6])
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


class TestLimits:
    @pytest.fixture(params=["no index", "index"])
    @staticmethod
    def frozen(request, tmp_path):
        """Twelve seconds, of which a header says nothing, and with luck the packets."""
        jpeg = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
        path = tmp_path / "frozen.mjpeg"
        path.write_bytes(300 * jpeg)
        return path if request.param == "no index" else ramp_video(tmp_path / "frozen.avi", [90] * 120)

    def test_a_video_that_goes_on_is_given_up(self, predictor, frozen, ramp_videos):
        short = ramp_videos / "darkens" / "p0_0.avi"

        def watch(source, seconds):
            seen.append((source, seconds))
            if seconds > 3:
                raise VideoError("too long", path=source)

        seen = []
        results = list(predictor.predict_many([frozen, short], watch=watch))
        assert results[0] == Failure(str(frozen), "too long")
        assert results[1].label == "darkens"
        assert {source for source, _ in seen} == {str(frozen), str(short)}
        assert max(seconds for source, seconds in seen if source == str(frozen)) == pytest.approx(3, abs=0.2)

    def test_who_watches_can_end_all(self, predictor, ramp_videos):
        def watch(source, seconds):
            raise ActivityError("enough")

        videos = sorted(ramp_videos.rglob("*.avi"))[:2]
        with pytest.raises(ActivityError, match="^enough$"):
            list(predictor.predict_many(videos, watch=watch))

    def test_who_watches_can_end_it_between_chunks_that_are_decoded_already(self, predictor, ramp_videos):
        main, seen = threading.get_ident(), []

        def watch(source, seconds):
            if threading.get_ident() == main:
                seen.append(seconds)
                raise ActivityError("enough")

        with pytest.raises(ActivityError, match="^enough$"):
            list(predictor.predict_many([ramp_videos / "darkens" / "p0_0.avi"], watch=watch))
        assert len(seen) == 1 and seen[0] > 0

    def test_a_decoder_that_hangs_is_not_waited_for(self, predictor, ramp_videos, monkeypatch):
        hanging, iter_frames = threading.Event(), sources_module.iter_frames

        def hang(path, *arguments, **options):
            if path.name == "p0_0.avi":
                hanging.wait(60)
            return iter_frames(path, *arguments, **options)

        monkeypatch.setattr(sources_module, "iter_frames", hang)
        two = Predictor(predictor.model, num_threads=2)
        began = time.monotonic()
        sources = [ramp_videos / "darkens" / "p0_0.avi", ramp_videos / "darkens" / "p1_0.avi"]
        try:
            results = list(two.predict_many(sources, timeout_seconds=0.5))
            assert time.monotonic() - began < 10
            assert results[0].error == "decoding took longer than 0.5 s and was given up"
            assert results[1].label == "darkens"
        finally:
            hanging.set()


def test_memory_does_not_grow_with_the_number_of_videos(predictor, ramp_videos, monkeypatch):
    frames = []

    class Counting(sampling_module.SampledFrames):
        def __iter__(self):
            for frame in super().__iter__():
                frames.append(weakref.ref(frame))
                yield frame

    monkeypatch.setattr(sampling_module, "SampledFrames", Counting)
    video = sorted(ramp_videos.glob("*/*.avi"))[0]
    predictor.predict(video)
    num_frames = len(frames)
    results = Predictor(predictor.model, num_threads=2).predict_many([video] * 40)
    for done, _ in enumerate(results, 2):
        time.sleep(0.01)  # so that decoding could run ahead
        assert len(frames) <= num_frames * (done + 5)
    assert len(frames) == num_frames * 41
    assert sum(frame() is not None for frame in frames) <= 5 * num_frames


@pytest.mark.real
def test_odd_and_broken_files(predictor, real_data):
    torture = real_data / "videos" / "torture"
    with (torture / "expected.csv").open() as file:
        expected = {row["path"]: row["opencv_4_14"].partition("|")[0] for row in csv.DictReader(file)}
    for result in predictor.predict_many(torture / name for name in expected):
        name = Path(result.source).name
        if name == "syn_av1.mp4" and isinstance(result, Failure):  # not every OpenCV decodes AV1
            assert "codec av01" in result.error
        elif expected[name].isdigit() and int(expected[name]):
            assert result.probabilities.sum() == pytest.approx(1, abs=1e-5), name
        else:
            assert isinstance(result, Failure) and result.error, name


class TestLongVideos:
    def test_the_whole_video_is_covered(self, predictor, tmp_path):
        # Far longer than a clip of training: it brightens three times and then darkens nine times
        ramp = np.linspace(50, 200, 9)
        prediction = predictor.predict(ramp_video(tmp_path / "long.avi", [*np.tile(ramp, 3), *np.tile(ramp[::-1], 9)]))
        assert prediction.duration_seconds == pytest.approx(10.8)
        starts = [window.start_seconds for window in prediction.windows]
        ends = [window.end_seconds for window in prediction.windows]
        assert starts[0] == 0 and ends[-1] == pytest.approx(10.8)
        assert all(0 < start <= end for start, end in zip(starts[1:], ends, strict=False))  # no gap
        first, last = prediction.windows[0].probabilities, prediction.windows[-1].probabilities
        assert first[0] > 0.5 > last[0]
        np.testing.assert_allclose(
            prediction.probabilities, np.mean([w.probabilities for w in prediction.windows], axis=0), atol=1e-6
        )

    def test_the_result_does_not_depend_on_the_chunks(self, predictor, tmp_path, monkeypatch):
        path = ramp_video(tmp_path / "long.avi", np.tile(np.linspace(40, 200, 40), 5))
        expected = predictor.predict(path).probabilities
        monkeypatch.setattr("activity.predictor.sources._FRAMES_PER_CHUNK", 200)
        np.testing.assert_allclose(predictor.predict(path).probabilities, expected, atol=1e-6)

    def test_the_frames_of_a_window_can_be_read_again(self, predictor, tmp_path):
        path = ramp_video(tmp_path / "long.avi", np.tile(np.linspace(40, 200, 40), 5))
        prediction = predictor.predict(path)
        num_frames, predicted = predictor.model.spec.num_frames, []
        assert len(prediction.windows) > 30 / num_frames  # more frames than a chunk holds
        for window in prediction.windows:
            frames = read_window(predictor.model.spec, prediction, window)
            images, seconds = frames.images, frames.timestamps_seconds
            assert len(images) == len(seconds) == num_frames and (np.diff(seconds) >= 0).all()
            assert 0 <= seconds[0] - window.start_seconds < 0.1  # the first frame from then on
            assert seconds[0] < seconds[-1] <= window.end_seconds + 0.1
            predicted.append(predictor.model.predict_stacks([predictor.model.extract_stack_features(images)])[0])
        np.testing.assert_allclose(predicted, [window.probabilities for window in prediction.windows], atol=1e-6)

    def test_the_only_window_of_a_short_video_is_its_stack(self, predictor, tmp_path):
        path = ramp_video(tmp_path / "short.avi", [50, 80, 120])
        stack, sampled = read_stack(path, predictor.model.spec)
        for keep_frames in (False, True):
            prediction = predictor.predict(path, keep_frames=keep_frames)
            assert (prediction.frames is not None) == keep_frames
            if keep_frames:
                path.unlink()  # it is not decoded again
            (window,) = prediction.windows
            frames = read_window(predictor.model.spec, prediction, window)
            np.testing.assert_array_equal(frames.images, stack)
            assert tuple(frames.timestamps_seconds) == sampled.timestamps_seconds

    @pytest.mark.parametrize("timeline", [False, True])
    def test_frames_are_kept_only_where_there_is_one_window(self, predictor, tmp_path, timeline):
        short = ramp_video(tmp_path / "short.avi", np.linspace(40, 200, 13))
        long = ramp_video(tmp_path / "long.avi", np.tile(np.linspace(40, 200, 40), 5))
        kept = [result.frames for result in predictor.predict_many([short, long], timeline=timeline, keep_frames=True)]
        np.testing.assert_array_equal(kept[0].images, read_stack(short, predictor.model.spec)[0])
        assert kept[1] is None

    def test_a_window_is_read_no_further_than_its_end(self, predictor, tmp_path, monkeypatch):
        prediction = predictor.predict(ramp_video(tmp_path / "long.avi", np.tile(np.linspace(40, 200, 40), 5)))
        passed, read = [], windows_module.iter_frames
        monkeypatch.setattr(windows_module, "iter_frames", lambda *a, **b: read(*a, **b, check=passed.append))
        read_window(predictor.model.spec, prediction, prediction.windows[0])
        assert 0 < max(passed) < 0.5 * prediction.duration_seconds

    def test_a_video_that_changed_is_told(self, predictor, tmp_path):
        path = ramp_video(tmp_path / "long.avi", np.linspace(40, 200, 120))
        prediction = predictor.predict(path)
        ramp_video(path, [50, 80])
        with pytest.raises(VideoError, match="long.avi: has changed since it was classified"):
            read_window(predictor.model.spec, prediction, prediction.windows[-1])
        path.unlink()
        with pytest.raises(VideoError, match="long.avi: cannot be opened: No such file"):
            read_window(predictor.model.spec, prediction, prediction.windows[-1])

    def test_a_model_of_single_frames_reads_longer_videos_too(self, ramp_model, tmp_path):
        predictor = Predictor.load(ramp_model)
        predictor.model.info = dataclasses.replace(predictor.model.info, clip_seconds=0.001)
        prediction = predictor.predict(ramp_video(tmp_path / "a.avi", np.linspace(40, 200, 3)))
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)

    def test_a_header_that_claims_too_much_changes_nothing(self, predictor, ramp_videos, monkeypatch):
        path = ramp_videos / "darkens" / "p1_0.avi"
        expected = predictor.predict(path)
        info = dataclasses.replace(sources_module.probe(path), num_frames_claimed=100_000)
        monkeypatch.setattr(sources_module, "probe", lambda _: info)
        np.testing.assert_array_equal(predictor.predict(path).probabilities, expected.probabilities)

    def test_a_header_that_claims_too_little_is_found_out(self, predictor, tmp_path, monkeypatch):
        path = ramp_video(tmp_path / "long.avi", np.linspace(40, 200, 120))
        expected = predictor.predict(path)
        info = dataclasses.replace(sources_module.probe(path), num_frames_claimed=1)
        monkeypatch.setattr(sources_module, "probe", lambda _: info)
        again = predictor.predict(path)
        assert len(again.windows) == len(expected.windows) > 1
        np.testing.assert_array_equal(again.probabilities, expected.probabilities)


class TestTimeline:
    @pytest.fixture(scope="class")
    @staticmethod
    def changing(tmp_path_factory):
        """Brighter and brighter for 1.2 seconds, then darker and darker."""
        ramp = np.linspace(40, 200, 12)
        return ramp_video(tmp_path_factory.mktemp("long") / "a.avi", [*ramp, *ramp[::-1]])

    def test_what_happens_when(self, predictor, changing):
        prediction = predictor.predict(changing, timeline=True)
        segments = prediction.timeline.segments
        assert (segments[0].start_seconds, segments[-1].end_seconds) == (0, prediction.duration_seconds)
        assert [segment.label for segment in segments] == ["brightens", "darkens"]
        assert segments[0].end_seconds == pytest.approx(1.2, abs=0.2)
        assert prediction.as_dict()["segments"] == [segment.as_dict() for segment in segments]
        assert prediction.as_text(top_k=1).splitlines()[1:] == [segment.as_text() for segment in segments]

    def test_it_changes_nothing_else(self, predictor, changing, ramp_videos):
        for path in (changing, ramp_videos / "darkens" / "p0_0.avi"):
            plain, full = predictor.predict(path), predictor.predict(path, timeline=True)
            assert plain.timeline is None and "segments" not in plain.as_dict()
            np.testing.assert_array_equal(plain.probabilities, full.probabilities)
            assert len(plain.windows) == len(full.windows)

    def test_a_video_of_one_window_is_one_segment(self, predictor, tmp_path):
        path = ramp_video(tmp_path / "short.avi", np.linspace(40, 200, 5))
        prediction = predictor.predict(path, timeline=True)
        (segment,) = prediction.timeline.segments
        assert (segment.label, segment.end_seconds) == (prediction.label, prediction.duration_seconds)
        highest = 1 - 1e-4  # of a timeline, see `_FLOOR`
        assert segment.probability == pytest.approx(min(prediction.probability, highest), abs=1e-6)

    def test_a_short_video_of_two_activities_shows_both(self, predictor, tmp_path):
        ramp = np.linspace(40, 200, 6)
        path = ramp_video(tmp_path / "both.avi", [*ramp, *ramp[::-1]])
        prediction = predictor.predict(path, timeline=True)
        assert len(prediction.windows) == 1
        assert [segment.label for segment in prediction.timeline.segments] == ["brightens", "darkens"]

    def test_a_header_that_claims_too_much_changes_nothing(self, predictor, ramp_videos, monkeypatch):
        path = ramp_videos / "darkens" / "p1_0.avi"
        expected = predictor.predict(path, timeline=True)
        info = dataclasses.replace(sources_module.probe(path), num_frames_claimed=100_000)
        monkeypatch.setattr(sources_module, "probe", lambda _: info)
        again = predictor.predict(path, timeline=True)
        np.testing.assert_array_equal(again.probabilities, expected.probabilities)
        assert [s.label for s in again.timeline.segments] == [s.label for s in expected.timeline.segments]


# === Threads and processes ===

RUNTIMES = {"keras": "keras", "openvino": "openvino", "onnx": "onnxruntime"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_that_share_a_predictor_get_what_one_alone_gets(ramp_model, ramp_videos, runtime):
    pytest.importorskip(RUNTIMES[runtime], reason=f"{runtime} is not installed")
    predictor = Predictor.load(ramp_model, runtime=runtime, num_threads=1)
    videos = sorted(ramp_videos.glob("*/*.avi"))[::4]
    results = {}

    def predict(thread):  # each another video at a time
        mine = videos[thread:] + videos[:thread]
        results[thread] = {video: predictor.predict(video).probabilities for video in 3 * mine}

    threads = [threading.Thread(target=predict, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 4
    for video in videos:
        alone = predictor.predict(video).probabilities
        for each in results.values():
            np.testing.assert_array_equal(each[video], alone)


FORKS = """
import multiprocessing, os, pickle, sys
from activity import Predictor
from activity.errors import ActivityError

def show(predictor):
    try:
        print(predictor.predict(sys.argv[2]).label, flush=True)
    except ActivityError as error:
        print("refused:", error, flush=True)

if __name__ == "__main__":
    predictor = Predictor.load(sys.argv[1], runtime=sys.argv[3])
    show(predictor)
    context = multiprocessing.get_context(sys.argv[4])
    processes = [context.Process(target=show, args=[predictor])]
    processes[0].start()
    processes[0].join(60)
    if sys.argv[4] == "fork":
        with context.Pool(1) as pool:
            try:
                print(pool.apply_async(predictor.predict, sys.argv[2:3]).get(60).label)
            except ActivityError as error:
                print("refused:", error)
"""


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_in_another_process_a_predictor_works_or_says_why_not(ramp_model, ramp_videos, tmp_path, runtime, method):
    pytest.importorskip(RUNTIMES[runtime], reason=f"{runtime} is not installed")
    (tmp_path / "program.py").write_text(FORKS)
    command = [
        sys.executable,
        tmp_path / "program.py",
        ramp_model,
        ramp_videos / "darkens" / "p0_0.avi",
        runtime,
        method,
    ]
    Predictor.load(ramp_model, runtime=runtime)  # it is exported by now
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=90)
    assert "Traceback" not in done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "darkens" and len(others) == (2 if method == "fork" else 1)
    if (runtime, method) == ("keras", "fork"):
        for line in others:
            assert "Keras computes in the process that this one was forked from" in line and "'spawn'" in line
    else:
        assert set(others) == {"darkens"}


def test_a_pickled_predictor_is_loaded_again_as_it_was(ramp_model, ramp_run):
    predictor = Predictor.load(ramp_model, num_threads=3)
    predictor.model.info = dataclasses.replace(predictor.model.info, threshold=0.25)
    again = pickle.loads(pickle.dumps(predictor))
    assert (again.num_threads, again.model.info) == (3, predictor.model.info)
    with pytest.raises(ActivityError, match="of a model in memory cannot be pickled; save it"):
        pickle.dumps(Predictor(ramp_run.classifier))


class TestAClassCalledUnknown:
    """It is kept apart from no answer."""

    LABELS = ("run", "unknown")

    def prediction(self, *probabilities, segments=()):
        edges = np.arange(len(segments) + 1.0)
        timeline = Timeline(edges, np.tile(probabilities, (len(segments), 1)), tuple(segments))
        shown = np.array(probabilities)
        return Prediction("a.mp4", self.LABELS, shown, 3.0, (), threshold=0.7, timeline=timeline if segments else None)

    def test_in_labels_text_and_json(self):
        class_, none = self.prediction(0.1, 0.9), self.prediction(0.4, 0.6)
        assert (class_.label, class_.is_answered) == ("unknown", True)
        assert (none.label, none.is_answered) == ("no answer", False)
        assert class_.as_text() == "a.mp4  unknown 0.900  run 0.100"
        assert none.as_text() == "a.mp4  no answer  unknown 0.600  run 0.400"
        assert (class_.as_dict()["label"], none.as_dict()["label"]) == ("unknown", "no answer")

    def test_whatever_else_classes_are_called(self):
        labels = ("unknown", "no answer")
        prediction = Prediction("a.mp4", labels, np.array([0.5, 0.5]), 3.0, (), threshold=0.7)
        assert prediction.label not in labels

    def test_in_timelines(self):
        windows = [Window(i, i + 1.0, np.array(p)) for i, p in enumerate([(0.0, 1.0)] * 4 + [(0.5, 0.5)] * 4)]
        timeline = make_timeline(windows, np.arange(9), self.LABELS, threshold=0.8)
        assert [segment.label for segment in timeline.segments] == ["unknown", "no answer"]

    def test_live(self):
        decision = Decision("0", self.LABELS, "no answer", np.array([0.6, 0.4]), 1.5, "now", 0.1, True)
        assert decision.probability == 0.6 and decision.as_dict()["label"] == "no answer"
        assert dataclasses.replace(decision, label="unknown").probability == 0.4


# === What is not a list of paths ===


def test_one_string_is_a_file_a_folder_or_a_pattern(predictor, ramp_videos, tmp_path):
    for name in ("p0_0", "p1_0"):
        shutil.copy(ramp_videos / "darkens" / f"{name}.avi", tmp_path)
    for sources in (f"{tmp_path}/*.avi", str(tmp_path), tmp_path):
        assert [Path(result.source).name for result in predictor.predict_many(sources)] == ["p0_0.avi", "p1_0.avi"]
    (only,) = predictor.predict_many(str(tmp_path / "p0_0.avi"))
    assert only.label == "darkens"


@pytest.mark.parametrize("source", [np.zeros((4, 8, 8, 3), np.uint8), ["a.mp4"], None, 0, b"a.mp4"])
def test_what_is_no_path_is_named_by_its_type(predictor, source):
    with pytest.raises(SettingError) as caught:
        predictor.predict(source)
    received = f"an object of type {type(source).__name__}"
    assert str(caught.value) == f"source must be the path or URL of one video, received: {received}"


def test_an_empty_source_is_named(predictor):
    for predict in (predictor.predict, lambda source: list(predictor.predict_many(source))):
        with pytest.raises(SettingError, match="the path or URL of one video, received: an empty text"):
            predict("")


def test_the_loop_of_the_documents_survives_a_bad_file(predictor, ramp_videos, tmp_path):
    (tmp_path / "b\x1b[2J.mp4").write_text("hello")
    results = predictor.predict_many([ramp_videos / "darkens" / "p0_0.avi", tmp_path / "b\x1b[2J.mp4"])
    good, bad = [result.as_text(top_k=3) for result in results]
    assert "darkens" in good and bad.endswith(r"b\x1b[2J.mp4: this is a text file, not a video")


@pytest.fixture(scope="module")
def feature_predictor(feature_model):
    return Predictor.load(feature_model)


class TestFeatureFiles:
    def test_a_file_is_predicted_as_in_the_data_set(self, feature_predictor, ramp_dataset, ramp_features):
        evaluation = evaluate(feature_predictor.model, ramp_dataset.with_features(ramp_features))
        paths = [(ramp_features / sample.path).with_suffix(".npy") for sample in evaluation.samples]
        found = [prediction.probabilities for prediction in feature_predictor.predict_many(paths)]
        np.testing.assert_allclose(found, evaluation.scores.probabilities, atol=1e-6)

    def test_a_folder_of_them(self, feature_predictor, ramp_features):
        results = list(feature_predictor.predict_many(ramp_features / "darkens"))
        assert len(results) == 16 and {result.label for result in results} == {"darkens"}

    def test_a_long_one_has_a_timeline_by_the_rate_of_training(self, feature_predictor, tmp_path):
        levels = np.concatenate([np.linspace(0.2, 0.8, 8), np.linspace(0.8, 0.2, 8)] * 2)
        np.save(tmp_path / "long.npy", np.stack([levels**power for power in range(5)], axis=1))
        rate = feature_predictor.model.info.rows_per_second
        prediction = feature_predictor.predict(tmp_path / "long.npy", timeline=True)
        assert prediction.duration_seconds == pytest.approx(32 / rate)
        assert [s.label for s in prediction.timeline.segments] == ["brightens", "darkens"] * 2
        np.testing.assert_allclose(
            [s.end_seconds for s in prediction.timeline.segments], np.arange(8, 40, 8) / rate, atol=4 / rate
        )
        info = feature_predictor.model.info
        try:
            feature_predictor.model.info = dataclasses.replace(info, rows_per_second=rate / 2)
            assert feature_predictor.predict(tmp_path / "long.npy").duration_seconds == pytest.approx(64 / rate)
        finally:
            feature_predictor.model.info = info

    def test_each_model_says_what_it_expected(self, feature_predictor, ramp_model, ramp_videos, ramp_features):
        video, features = ramp_videos / "darkens" / "p0_0.avi", ramp_features / "darkens" / "p0_0.npy"
        with pytest.raises(
            VideoError, match="expected a feature file .npy: this model takes 6 evenly spaced rows of 5"
        ):
            feature_predictor.predict(video)
        with pytest.raises(VideoError, match="expected a video, received .npy: this is no model of feature files"):
            Predictor.load(ramp_model, runtime="keras").predict(features)

    def test_what_is_wrong_with_a_file_is_a_failure(self, feature_predictor, tmp_path):
        np.save(tmp_path / "nan.npy", np.full((3, 5), np.nan))
        np.save(tmp_path / "other.npy", np.zeros((3, 4)))
        names = [tmp_path / f"{name}.npy" for name in ("nan", "other", "absent")]
        nan, other, absent = (failure.error for failure in feature_predictor.predict_many(names))
        assert nan == "holds nan, infinity, or numbers beyond 1e15"
        assert other == "expected 5 features in a row, received 4"
        assert absent == "cannot be read as a feature file (No such file or directory)"
