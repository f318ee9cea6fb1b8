import csv
import dataclasses
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex

from activity.cli.classify import _FORMATS
from activity.cli.main import main
from activity.datasets.annotations.formats import WRITTEN
from activity.datasets.annotations.matching import list_labelled
from activity.datasets.samples import Segment
from activity.errors import VideoError
from activity.evaluation.films import EvaluatedFilm
from activity.predictor.prediction import Prediction
from activity.predictor.timeline import Timeline
from activity.reports.annotation import annotate
from activity.reports.style import label_colour
from activity.reports.timeline import (
    TIMELINE_FORMATS,
    as_srt,
    comparison_figure,
    labelled_film,
    save_timeline,
    timeline_figure,
)
from activity.video.decoder import VideoReader, read_frames
from activity.video.images import probe
from activity.video.writer import write_video

LABELS = ("run", "walk")


def prediction_of(source, segments=((0.0, 1.0, "run"), (1.0, 2.0, "unknown"), (2.0, 3.0, "walk")), labels=LABELS):
    edges = np.array([segments[0][0], *(end for _, end, _ in segments)])
    probabilities = np.tile([0.75, 0.25], (len(segments), 1))
    made = tuple(Segment(start, end, label, 0.75) for start, end, label in segments)
    return Prediction(
        str(source), labels, probabilities[0], float(edges[-1]), (), 0.8, Timeline(edges, probabilities, made)
    )


@pytest.fixture
def grey_video(tmp_path):
    path = tmp_path / "grey.avi"
    write_video(path, (np.full((144, 180, 3), 120, np.uint8) for _ in range(30)), frames_per_second=10)
    return path


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


class TestAnnotate:
    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def needs_av():
        pytest.importorskip("av", reason="PyAV is not installed")

    def test_same_frames_times_and_size(self, grey_video, tmp_path):
        path = annotate(grey_video, prediction_of(grey_video), tmp_path / "out" / "a.mp4")
        assert path == tmp_path / "out" / "a.mp4"
        info = probe(path)
        assert (info.height, info.width, info.num_frames_claimed, info.fourcc) == (144, 180, 30, "h264")
        assert info.frames_per_second == 10

    def test_only_panel_and_strip_differ_from_the_source(self, grey_video, tmp_path):
        frames = read_frames(annotate(grey_video, prediction_of(grey_video), tmp_path / "a.mp4")).astype(int)
        changed = np.abs(frames - 120).max(axis=3) > 30  # (N, H, W); lossy near the edges
        assert changed[:, -8:].mean() > 0.6  # the strip, at least its text and colours
        assert changed[:, 6:60, 6:80].mean() > 0.8  # the panel
        assert changed[:, 75:120].mean() < 0.001 and changed[:, :120, 120:].mean() < 0.001

    def test_the_cursor_runs_from_left_to_right(self, grey_video, tmp_path):
        frames = read_frames(annotate(grey_video, prediction_of(grey_video), tmp_path / "a.mp4"))
        places = [frame[-3].min(axis=1).argmax() for frame in frames]  # white is the row's lightest
        np.testing.assert_allclose(places, np.arange(30) * 6, atol=4)

    def test_a_source_whose_clock_does_not_begin_at_zero(self, tmp_path):
        import av

        with av.open(str(tmp_path / "late.ts"), "w") as container:  # MPEG-TS begins at 1.4 seconds
            stream = container.add_stream("mpeg2video", rate=25)
            stream.height, stream.width, stream.pix_fmt = 144, 180, "yuv420p"
            for _ in range(25):
                image = av.VideoFrame.from_ndarray(np.full((144, 180, 3), 90, np.uint8), format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
        prediction = prediction_of(tmp_path / "late.ts", ((0.0, 1.0, "run"),))
        path = annotate(tmp_path / "late.ts", prediction, tmp_path / "a.mp4")
        with VideoReader(path) as reader:
            np.testing.assert_allclose([seconds for _, seconds in reader], np.arange(25) / 25, atol=1e-3)

    def test_the_source_is_never_replaced(self, grey_video):
        movie = grey_video.rename(grey_video.with_suffix(".mp4"))
        before = movie.read_bytes()
        with pytest.raises(VideoError, match="this is the video to annotate; expected another name"):
            annotate(movie, prediction_of(movie), movie)
        assert movie.read_bytes() == before

    def test_no_video_no_file(self, tmp_path):
        (tmp_path / "text.mp4").write_text("text")
        with pytest.raises(VideoError, match="this is a text file"):
            annotate(tmp_path / "text.mp4", prediction_of("text.mp4"), tmp_path / "out" / "a.mp4")
        assert not list(tmp_path.glob("out/*"))

    @pytest.mark.real
    @pytest.mark.parametrize(
        "name",
        [
            *("dc_video_0.mov", "dc_video_90.mov", "dc_video_180.mov", "dc_video_270.mov", "syn_rot90.mp4"),
            *("syn_ntsc_23976.mp4", "syn_vfr.mp4", "syn_vfr.mkv", "syn_240fps.mp4", "syn_1fps.mp4"),
            *("syn_odd_181x143.mkv", "syn_tiny_16x16.mp4", "syn_2x2.avi", "syn_tall_64x720.mp4", "syn_mpegts.ts"),
            *("syn_reschange.ts", "syn_bitrot.mp4", "dc_corrupted.mp4", "syn_trunc_half.flv", "syn_animated.gif"),
            *("syn_fragmented.mp4", "syn_open_gop_bframes.mp4", "syn_mpeg2.mpg", "dc_unordered.mov"),
            "syn_one_frame.mp4",
        ],
    )
    def test_odd_and_broken_files(self, real_data, tmp_path, name):
        source = real_data / "videos" / "torture" / name
        with VideoReader(source) as reader:
            times, frames = [], []
            for _, seconds in reader:
                times.append(seconds)
                frames.append(reader.retrieve())
        duration = times[-1] - times[0] + 1 / probe(source).frames_per_second
        prediction = prediction_of(source, ((0.0, duration, "run"),))
        path = annotate(source, prediction, tmp_path / "a.mp4")
        with VideoReader(path) as reader:
            written = [(seconds, reader.retrieve()) for _, seconds in reader]
        height, width = frames[0].shape[:2]
        np.testing.assert_allclose([seconds for seconds, _ in written], np.subtract(times, times[0]), atol=2e-3)
        assert written[0][1].shape == (height + height % 2, width + width % 2, 3)
        if min(height, width) >= 64:  # the same way up: outside panel and strip, it looks like the source
            low, high = round(0.55 * height), round(0.8 * height)
            shown, expected = (cv2.blur(frame, (9, 9))[low:high, :width] for frame in (written[0][1], frames[0]))
            assert np.abs(shown.astype(int) - expected).mean() < 6


class TestSaveTimeline:
    def test_four_files(self, grey_video, tmp_path):
        prediction = prediction_of(grey_video)
        paths = save_timeline(prediction, tmp_path / "out", "a.b", top_k=1)
        assert [path.name for path in paths] == ["a.b.json", "a.b.csv", "a.b.srt", "a.b.png"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
        assert json.loads(paths[0].read_text()) == prediction.as_dict(top_k=1)
        with paths[1].open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows[0] == {"start_seconds": "0.0", "end_seconds": "1.0", "label": "run", "probability": "0.75"}
        assert [row["label"] for row in rows] == ["run", "unknown", "walk"]
        assert paths[2].read_bytes().decode() == as_srt(prediction.timeline.segments)
        assert paths[3].read_bytes().startswith(b"\x89PNG")

    def test_a_prediction_without_a_timeline_is_a_mistake(self, grey_video, tmp_path):
        prediction = dataclasses.replace(prediction_of(grey_video), timeline=None)
        for function in (lambda: save_timeline(prediction, tmp_path, "a"), lambda: timeline_figure(prediction)):
            with pytest.raises(ValueError, match="timeline=True"):
                function()
        with pytest.raises(ValueError, match="timeline=True"):
            annotate(grey_video, prediction, tmp_path / "a.mp4")


class TestFormatsOfOtherTools:
    @pytest.mark.parametrize("format", WRITTEN)
    def test_only_what_is_asked_for_without_unknown(self, grey_video, tmp_path, format):
        paths = save_timeline(prediction_of(grey_video), tmp_path, "grey", formats=[format, "csv", format])
        assert [path.name for path in paths] == [f"grey.{WRITTEN[format].ending}", "grey.csv"]
        assert {path for path in tmp_path.iterdir() if path.name[0] != "."} == {grey_video, *paths}
        listed = list_labelled(tmp_path, paths[:1])
        assert not listed.problems
        assert [(x.path, x.label, *x.span) for x in listed.samples] == [
            ("grey.avi", "run", 0, 1),
            ("grey.avi", "walk", 2, 3),
        ]
        assert "unknown" in paths[1].read_text()

    def test_a_class_called_unknown_is_a_label(self, grey_video, tmp_path):
        segments = ((0.0, 1.0, "unknown"), (1.0, 3.0, "no answer"))
        film = labelled_film(prediction_of(grey_video, segments, ("run", "unknown")))
        assert [segment.label for segment in film.segments] == ["unknown"]

    def test_frames_are_counted_in_the_file(self, grey_video):
        film = labelled_film(prediction_of(grey_video))
        assert (film.address, film.rate, film.num_frames, film.seconds) == (str(grey_video), 10, 30, 3)

    @pytest.mark.real
    def test_frames_that_last_unequally_long_are_said_to_be_counted_at_one_rate(self, real_data, caplog):
        source = real_data / "videos" / "torture" / "syn_vfr.mkv"
        film = labelled_film(prediction_of(source, ((0.0, 2.0, "run"),)))
        assert film.num_frames == round(2.0 * film.rate)
        assert f"frames last unequally long; where a format counts frames, they are counted at {film.rate:g} a" in (
            caplog.text
        )

    def test_what_is_no_film_has_no_frames(self, tmp_path):
        (tmp_path / "text.mp4").write_text("text")
        with pytest.raises(VideoError, match="this is a text file"):
            save_timeline(prediction_of(tmp_path / "text.mp4"), tmp_path / "out", "a", formats=["boris"])

    def test_the_command_line_knows_all_names(self):
        assert tuple(TIMELINE_FORMATS) == _FORMATS and not set(_FORMATS) & set(WRITTEN)


class TestSubtitles:
    def test_the_format(self):
        segments = (
            Segment(0.0, 1.5, "run", 0.9),
            Segment(1.5, 2.0, "unknown", 0.3),
            Segment(2.0, 3723.0006, "бег  na\n\n x", 0.8),
        )
        assert as_srt(segments) == (
            "1\r\n00:00:00,000 --> 00:00:01,500\r\nrun\r\n\r\n2\r\n00:00:02,000 --> 01:02:03,001\r\nбег na x\r\n\r\n"
        )

    def test_nothing_known_is_no_subtitle(self):
        assert as_srt((Segment(0.0, 1.0, "unknown", 0.2),)) == ""

    def test_a_file_of_nothing_known_says_so(self, grey_video, tmp_path):
        save_timeline(prediction_of(grey_video, ((0.0, 3.0, "unknown"),)), tmp_path / "out", "a")
        assert (tmp_path / "out" / "a.srt").read_text().split("\n")[2] == "unknown"

    def test_a_class_called_unknown_is_shown(self, grey_video, tmp_path):
        labels = ("run", "unknown")
        prediction = prediction_of(grey_video, ((0.0, 1.0, "unknown"), (1.0, 3.0, "no answer")), labels)
        save_timeline(prediction, tmp_path, "a")
        cues = (tmp_path / "a.srt").read_text()
        assert "unknown" in cues and "no answer" not in cues
        bars = timeline_figure(prediction).axes[0].patches
        colours = [to_hex(bar.get_facecolor()) for bar in bars]
        assert colours == [label_colour("unknown", labels), "#808080"] and colours[0] != colours[1]

    def test_another_program_reads_it(self, tmp_path):
        av = pytest.importorskip("av", reason="PyAV is not installed")
        segments = tuple(Segment(i, i + 1.0, f"label {i}", 0.9) for i in range(5))
        (tmp_path / "a.srt").write_bytes(as_srt(segments).encode())
        with av.open(str(tmp_path / "a.srt")) as container:
            cues = [packet for packet in container.demux() if packet.dts is not None]
        assert [(float(c.pts * c.time_base), bytes(c)) for c in cues] == [(i, b"label %d" % i) for i in range(5)]


class TestFigure:
    def test_segments_with_room_carry_their_names_others_are_in_the_legend(self, grey_video):
        prediction = prediction_of(grey_video, ((0.0, 2.9, "run"), (2.9, 2.95, "walk"), (2.95, 3.0, "unknown")))
        figure = timeline_figure(prediction)
        assert texts(figure) == ["run"]
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["walk", "unknown"]
        assert not timeline_figure(prediction_of(grey_video)).legends

    def test_colours_and_places_of_the_segments(self, grey_video):
        bars = timeline_figure(prediction_of(grey_video)).axes[0].patches
        assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, 1), (1, 1), (2, 1)]
        assert [to_hex(bar.get_facecolor()) for bar in bars] == [
            label_colour(label, LABELS) for label in ("run", "unknown", "walk")
        ]

    @pytest.mark.parametrize("size", [(144, 180), (64, 640), (320, 48)])
    def test_thumbnails_keep_their_proportions_and_their_time(self, tmp_path, size):
        height, width = size
        levels = np.linspace(10, 250, 60).astype(np.uint8)
        path = tmp_path / "a.avi"
        write_video(path, (np.full((height, width, 3), level, np.uint8) for level in levels), frames_per_second=20)
        figure = timeline_figure(prediction_of(path))
        (axes,) = (axes for axes in figure.axes if axes.images)
        place = axes.get_position() * figure.get_size_inches()
        for image in axes.images:
            left, right, _, _ = image.get_extent()
            seen = (right - left) / 3 * (place[1, 0] - place[0, 0]) / (place[1, 1] - place[0, 1])
            assert seen == pytest.approx(width / height)
            level = image.get_array().mean()
            assert level == pytest.approx(np.interp((left + right) / 2, [0, 3], [10, 250]), abs=8)
        extents = [image.get_extent() for image in axes.images]
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(extents, extents[1:], strict=False))

    def test_long_videos_have_a_clock(self, grey_video):
        long = prediction_of(grey_video, ((0.0, 3000.0, "run"), (3000.0, 3600.0, "walk")))
        axes = timeline_figure(long).axes[0]
        axes.figure.draw_without_rendering()
        shown = [label.get_text() for label in axes.get_xticklabels()]
        assert axes.get_xlabel() == "minutes:seconds" and "5:00" in shown
        assert all(re.fullmatch(r"\d+:\d\d", text) for text in shown)

    def test_odd_names(self, grey_video, tmp_path):
        odd = grey_video.rename(tmp_path / "$бег 走.avi")
        labels = ("$a_b^", "走る бег")
        prediction = prediction_of(odd, ((0.0, 1.0, labels[0]), (1.0, 3.0, labels[1])), labels)
        save_timeline(prediction, tmp_path, "a")  # also where no font has the characters
        figure = timeline_figure(prediction)
        assert texts(figure) == list(labels)

    def test_many_and_long_names_stay_inside_the_figure(self, grey_video):
        labels = (*(f"activity {i}" for i in range(30)), "a very long name " * 9)
        segments = [(i / 10, (i + 1) / 10, label) for i, label in enumerate(labels)]
        figure = timeline_figure(prediction_of(grey_video, segments, labels))
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box, strip = legend.get_window_extent(), figure.axes[0].get_tightbbox()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= strip.y0 + 1

    @pytest.mark.real
    def test_thumbnails_are_upright(self, real_data):
        source = real_data / "videos" / "torture" / "dc_video_90.mov"
        image = timeline_figure(prediction_of(source, ((0.0, 0.1, "run"),))).axes[1].images[0]
        thumbnail = np.asarray(image.get_array()).astype(int)
        frame = read_frames(source)[0]
        expected = cv2.resize(frame, thumbnail.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(thumbnail - expected).mean() < 6


def test_a_format_in_the_table_is_written_by_the_command_line(ramp_model, ramp_videos, tmp_path, monkeypatch, capsys):
    def write_audacity(prediction, path, _):
        rows = (f"{s.start_seconds}\t{s.end_seconds}\t{s.label}\n" for s in prediction.timeline.segments)
        path.write_text("".join(rows))

    monkeypatch.setitem(TIMELINE_FORMATS, "labels.txt", write_audacity)
    video = ramp_videos / "darkens" / "p0_0.avi"
    command = ["classify", str(ramp_model), str(video), "--runtime", "keras", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert (tmp_path / "out" / "p0_0.labels.txt").read_text().endswith("\tdarkens\n")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".csv", ".srt", ".png", ".txt"}
    assert "p0_0.labels.txt" in capsys.readouterr().err


def test_nothing_heavy_is_imported_to_annotate():
    heavy = {"keras", "matplotlib", "sklearn", "av"}
    program = f"import sys, activity.reports.timeline; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_a_timeline_of_a_feature_file_has_no_images(grey_video, tmp_path):
    of_video, of_features = (timeline_figure(prediction_of(source)) for source in (grey_video, tmp_path / "clip.npy"))
    assert len(of_features.axes) == len(of_video.axes) - 1 and not any(axes.images for axes in of_features.axes)
    assert of_features.axes[0].get_title(loc="left") == "clip.npy"
    assert texts(of_features) == texts(of_video) == ["run", "unknown", "walk"]
    assert of_features.get_figheight() < of_video.get_figheight()


class TestComparison:
    @staticmethod
    def figure_of(truth, timeline, seconds=10.0):
        truth, timeline = (tuple(Segment(*row, 0.75) for row in rows) for rows in (truth, timeline))
        return comparison_figure(EvaluatedFilm("a/b$.mp4", "a", truth, timeline, "unknown", seconds), LABELS)

    @staticmethod
    def bars(axes):
        return [
            (*(round(x, 6) for x in (bar.get_x(), bar.get_x() + bar.get_width())), to_hex(bar.get_facecolor()))
            for bar in axes.patches
        ]

    def test_the_truth_is_above_the_prediction_at_the_same_times(self):
        figure = self.figure_of([(0, 4, "run"), (6, 10, "walk")], [(0, 5, "run"), (5, 7, "unknown"), (7, 10, "walk")])
        upper, lower = figure.axes
        run, walk, unknown = (label_colour(label, LABELS) for label in ("run", "walk", "unknown"))
        assert self.bars(upper) == [(0, 4, run), (6, 10, walk)]
        assert self.bars(lower) == [(0, 5, run), (5, 7, unknown), (7, 10, walk)]
        assert upper.get_xlim() == lower.get_xlim() == (0, 10)
        assert upper.get_position().y0 > lower.get_position().y1
        assert [axes.get_yticklabels()[0].get_text() for axes in figure.axes] == ["true", "predicted"]
        assert upper.get_title(loc="left") == "a/b$.mp4"
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["run", "walk", "unknown"]

    def test_segments_that_overlap_are_below_each_other(self):
        figure = self.figure_of([(0, 8, "run"), (3, 5, "walk"), (6, 7, "walk")], [(0, 10, "run")])
        upper, lower = figure.axes
        places = [(round(bar.get_y(), 6), round(bar.get_height(), 6)) for bar in upper.patches]
        assert places == [(0.5, 0.5), (0, 0.5), (0, 0.5)]
        assert [(bar.get_y(), bar.get_height()) for bar in lower.patches] == [(0, 1)]
        assert upper.get_position().height > lower.get_position().height
