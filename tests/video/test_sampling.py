import math
import weakref

import numpy as np
import pytest

from activity.config import RESIZE_MODES, ClipSpec
from activity.errors import VideoError
from activity.video import decoder, images, sampling
from activity.video.clips import WHOLE, even_indices, num_times_due, pad_right, resize_frame, window_starts
from activity.video.decoder import VideoReader
from activity.video.images import probe
from activity.video.sampling import EvenSampler, Part, RateSampler, iter_frames, read_stack
from activity.video.streams import StreamMaker, gap_frames, shrink
from activity.video.writer import write_playable, write_video


def tiny(**fields):
    return ClipSpec(**{"num_frames": 4, "height": 16, "width": 16, "streams": ("rgb",), **fields})


def indices_of(stack):
    """Which frames of a counting video the first stream of a stack `(N, S, H, W, 3)` holds."""
    stack = stack[:, 0]
    assert np.all(stack == stack[:, :1, :1]) and np.all(stack[:, 0, 0, 2] == 7)
    return stack[:, 0, 0, 0].tolist()


# === Which frames: evenly ===


@pytest.mark.parametrize("num_frames", range(1, 20))
def test_even_indices_are_distinct_rising_and_symmetric(num_frames):
    for total in [*range(1, 70), 10**4, 10**9]:
        indices = even_indices(total, num_frames)
        assert len(indices) == min(total, num_frames)
        assert indices[0] >= 0 and indices[-1] < total and np.all(np.diff(indices) > 0)
        assert set(indices + indices[::-1]) <= {total - 1, total}
        assert np.ptp(np.diff([*indices, indices[0] + total])) <= 1  # as evenly as whole numbers allow


@pytest.mark.parametrize(
    ("total", "num_frames", "expected"),
    [(0, 4, []), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (8, 4, [1, 3, 5, 7]), (10, 1, [5]), (100, 3, [16, 50, 83])],
)
def test_even_indices_by_hand(total, num_frames, expected):
    assert even_indices(total, num_frames).tolist() == expected


# === Which frames: at a rate ===


def serve(timestamps, rate):
    """Index of the frame that each sample time gets."""
    served = []
    for index, timestamp in enumerate(timestamps):
        served += [index] * num_times_due(timestamp, len(served), rate)
    return served


@pytest.mark.parametrize("rate", [0.1, 1, 8, 23.976, 25, 29.97, 30, 60, 240, 1000])
def test_a_video_of_the_rate_asked_for_gives_each_frame_once(rate):
    timestamps = np.arange(2000) / rate
    assert serve(timestamps, rate) == list(range(2000))
    if rate <= 240:  # Matroska rounds to a millisecond
        assert serve(np.round(timestamps, 3), rate) == list(range(2000))


def test_a_faster_video_skips_and_a_slower_repeats():
    assert serve(np.arange(12) / 30, 10) == [0, 3, 6, 9]
    assert serve(np.arange(12) / 10, 4) == [0, 3, 5, 8, 10]
    assert serve(np.arange(3) / 10, 20) == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("rate", [3, 10, 24.5])
def test_variable_frame_rate(rate):
    timestamps = np.cumsum(np.random.default_rng(0).exponential(0.05, 300))
    timestamps -= timestamps[0]
    expected, time = [], 0.0
    while time <= timestamps[-1] + 1e-3:  # the first frame at or after each sample time, give or take a millisecond
        expected.append(int(np.argmax(timestamps + 1e-3 >= time)))
        time = len(expected) / rate
    assert serve(timestamps, rate) == expected


# === Windows, padding, clips ===


@pytest.mark.parametrize("num_frames", [1, 2, 7, 16])
@pytest.mark.parametrize("stride", [None, 1, "whole"])
def test_windows_cover_every_frame(num_frames, stride):
    stride = num_frames if stride == "whole" else stride
    for total in range(1, 70):
        starts = window_starts(total, num_frames, stride)
        covered = {start + i for start in starts for i in range(num_frames)}
        assert covered >= set(range(total))
        assert starts == sorted(set(starts)) and starts[0] == 0
        assert starts[-1] == max(0, total - num_frames)  # it ends with the stack


def test_windows_by_hand():
    assert window_starts(3, 4) == [0]
    assert window_starts(8, 4) == [0, 2, 4]
    assert window_starts(9, 4) == [0, 2, 4, 5]
    assert window_starts(9, 4, 3) == [0, 3, 5]


def test_pad_right():
    values = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    padded, mask = pad_right(values, 5)
    np.testing.assert_array_equal(padded, [[1, 2], [3, 4], [5, 6], [0, 0], [0, 0]])
    assert mask.tolist() == [True, True, True, False, False] and mask.dtype == bool and padded.dtype == np.float32
    np.testing.assert_array_equal(pad_right(values, 3)[0], values)


@pytest.mark.parametrize("length", [0, 4])
def test_pad_right_refuses_no_frame_and_too_many(length):
    with pytest.raises(ValueError, match=f"expected 1 to 3 real frames, received {length}"):
        pad_right(np.zeros((length, 2)), 3)


# === Size ===

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def flag(height, width):
    """A red, a green and a blue band across the longer side; the green one is its middle half."""
    bands = np.repeat([RED, GREEN, GREEN, BLUE], max(height, width) // 4, axis=0).astype(np.uint8)  # (long, 3)
    bands = bands[None] if width > height else bands[:, None]
    return np.broadcast_to(bands, (height, width, 3)).copy()


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("stretch", [(RED, 4), (GREEN, 8), (BLUE, 4)]),
        ("crop", [(GREEN, 16)]),  # the centre
        ("letterbox", [(RED, 4), (GREEN, 8), (BLUE, 4)]),  # all of it, between the bars
    ],
)
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_resize_modes(resize, expected, upright, factor):
    image = flag(16 * factor, 32 * factor)
    if upright:
        image = np.ascontiguousarray(image.swapaxes(0, 1))
    resized = resize_frame(image, tiny(resize=resize))
    if upright:
        resized = resized.swapaxes(0, 1)
    row = np.concatenate([[colour] * count for colour, count in expected])  # (16, 3)
    bar = np.zeros((4, 16, 3)) if resize == "letterbox" else np.empty((0, 16, 3))
    wanted = np.concatenate([bar, np.broadcast_to(row, (16 - 2 * len(bar), 16, 3)), bar])
    np.testing.assert_array_equal(resized, wanted)


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_every_size_becomes_the_one_asked_for(resize):
    spec = tiny(resize=resize, height=20, width=31)
    for height, width in [(1, 1), (2, 2), (1, 50), (50, 1), (20, 31), (31, 20), (19, 32), (143, 181), (720, 64)]:
        resized = resize_frame(np.full((height, width, 3), 9, np.uint8), spec)
        assert resized.shape == (20, 31, 3) and resized.dtype == np.uint8 and resized.flags["C_CONTIGUOUS"]
        assert set(np.unique(resized)) <= ({0, 9} if resize == "letterbox" else {9})


@pytest.mark.parametrize("resize", RESIZE_MODES)
def test_the_right_size_is_left_alone(resize):
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_frame(frame, tiny(resize=resize)), frame)


def test_shrinking_averages():
    # Single pixels of a chess board would be 0 or 255.
    board = np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) % 2 * 255  # (64, 64, 3)
    assert np.all(np.abs(resize_frame(board.astype(np.uint8), tiny()) - 127.5) <= 1)


# === Sampling ===


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 9, 40])
@pytest.mark.parametrize("num_frames", [1, 4, 16])
def test_evenly_sampled_frames(write_counting_video, total, num_frames):
    stack, sampled = read_stack(write_counting_video("a.avi", total), tiny(num_frames=num_frames))
    expected = even_indices(total, num_frames)
    assert indices_of(stack) == expected.tolist()
    np.testing.assert_allclose(sampled.timestamps_seconds, expected / 10, atol=1e-6)
    assert (sampled.num_frames, sampled.num_frames_claimed) == (total, total)
    assert sampled.duration_seconds == pytest.approx(total / 10)
    assert (sampled.problem is None) == (total > 1)


@pytest.mark.parametrize(("suffix", "video_rate"), [(".avi", 10), (".mkv", 30), (".mkv", 24000 / 1001)])
@pytest.mark.parametrize("rate", [4, 10, 24000 / 1001, 30, 47])
def test_frames_at_a_rate(write_counting_video, suffix, video_rate, rate):
    video = write_counting_video(f"a{suffix}", 60, frames_per_second=video_rate)
    stack, sampled = read_stack(video, tiny(frames_per_second=rate))
    times = np.arange(len(stack)) / rate
    timestamps = np.arange(60) / video_rate
    if suffix == ".mkv":
        timestamps = np.floor(1000 * timestamps + 0.5 + 1e-6) / 1000  # it rounds to a millisecond
    expected = [int(np.argmax(timestamps + 1e-3 >= time)) for time in times]  # the first frame at or after each
    assert indices_of(stack) == expected
    assert sampled.num_frames == 60 and times[-1] + 1 / rate > timestamps[-1]
    np.testing.assert_allclose(sampled.timestamps_seconds, timestamps[expected], atol=1e-6)


def written_at(path, times):
    """A video whose frames have these times; red counts them."""
    pytest.importorskip("av", reason="only PyAV writes frames that last unequally long")
    frames = ((seconds, np.full((16, 16, 3), (10 * i, 0, 0), np.uint8)) for i, seconds in enumerate(times))
    return write_playable(path, frames, frames_per_second=10, source=path)


@pytest.mark.parametrize("rate", [None, 2, 10, 33.3, 1000])
@pytest.mark.parametrize("span", [WHOLE, (0.5, 31.0)])
@pytest.mark.parametrize("times", [[0, 0.1, 0.2, 30.2, 30.3, 30.4], [0, 20, 40], np.arange(40) / 10])
def test_sampled_frames_stand_for_times_that_follow_each_other(tmp_path, rate, span, times):
    path, spec = written_at(tmp_path / "a.mp4", times), tiny(frames_per_second=rate)
    stack, sampled = read_stack(path, spec, span=span)
    edges = np.array(sampled.edges_seconds)
    assert len(edges) == len(stack) + 1 and np.diff(edges).min() > 0
    inside = [seconds for seconds in times if span[0] <= seconds < span[1]]
    assert edges[-1] == pytest.approx(inside[0] + sampled.duration_seconds, abs=1e-3)
    if rate:  # the sample times, each until the next
        np.testing.assert_allclose(edges[:-1], span[0] + np.arange(len(stack)) / rate, atol=1e-6)
    else:  # the equal parts of which each sampled frame is the middle
        assert edges[0] == pytest.approx(inside[0], abs=1e-3)
        for seconds, begin, end in zip(sampled.timestamps_seconds, edges, edges[1:], strict=False):
            assert begin <= seconds < end


@pytest.mark.parametrize("gap", [70.0, 3600.0])
def test_in_a_container_with_an_index_a_gap_is_a_gap(tmp_path, gap):
    _, sampled = read_stack(written_at(tmp_path / "a.mp4", [0, 0.1, gap, 2 * gap]), tiny())
    np.testing.assert_allclose(sampled.timestamps_seconds, [0, 0.1, gap, 2 * gap], atol=1e-3)
    assert sampled.problem is None


def test_a_clock_that_jumps_in_a_stream_is_said(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(tmp_path / "a.ts"), "w", format="mpegts") as output:
        stream = output.add_stream("mpeg2video", rate=10)
        stream.height = stream.width = 16
        stream.codec_context.max_b_frames = 0
        for i in range(30):
            image = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 8 * i, np.uint8), format="rgb24")
            image.pts = i
            for packet in stream.encode(image):
                jump = round((500 if i >= 20 else 0) / packet.time_base)
                packet.pts, packet.dts = packet.pts + jump, packet.dts + jump
                output.mux(packet)
    _, sampled = read_stack(tmp_path / "a.ts", tiny())
    assert sampled.duration_seconds < 5
    assert "its clock jumps by 500 s after" in sampled.problem


def test_frames_are_decoded_as_they_are_asked_for(write_counting_video):
    passed, held, most = [], [], 0
    frames = iter_frames(write_counting_video("a.avi", 50), tiny(frames_per_second=10), check=passed.append)
    for frame in frames:
        held.append(weakref.ref(frame))
        assert len(passed) == len(held)
        most = max(most, sum(reference() is not None for reference in held))
    assert len(held) == len(frames.sampled.timestamps_seconds) == 50
    assert most <= 2  # this one, and at most the one before it


@pytest.mark.parametrize("rate", [None, 10])
def test_each_loop_decodes_the_video_again(write_counting_video, rate):
    frames = iter_frames(write_counting_video("a.avi", 20), tiny(frames_per_second=rate))
    with pytest.raises(AttributeError):
        _ = frames.sampled
    next(iter(frames))
    assert not hasattr(frames, "sampled")  # it was not read to its end
    first, second = list(frames), list(frames)
    np.testing.assert_array_equal(first, second)
    assert len(first) == len(frames.timestamps_seconds) == len(frames.sampled.timestamps_seconds)


def test_a_sampler_says_which_frames_are_taken_and_which_are_compared_with_them():
    even = EvenSampler(Part(100, 180), 4, gap=0)
    assert even.taken == even.needed == {110, 130, 150, 170}
    assert [even.copies(index, 0.0) for index in (110, 111)] == [1, 0]
    assert EvenSampler(Part(0, 80), 2, gap=2).needed == {2, 16, 18, 20, 22, 56, 58, 60, 62}
    assert EvenSampler(Part(0, 40), 4, gap=0) == EvenSampler(Part(0, 41), 4, gap=0)  # no second pass is needed
    rate = RateSampler(5.0, (1.0, 2.0), gap=0)
    assert [rate.copies(i, i / 10) for i in range(8, 22)] == [0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0]
    ahead = RateSampler(5.0, (1.0, 2.0), gap=1)
    assert ahead.needed is None
    ahead.look_ahead(Part(10, 20), np.arange(30) / 10)
    assert ahead.needed == set(range(10, 20))
    assert ahead.copies(10, 1.0) == 1


def claim(video, num_frames):
    """Let the headers of an AVI file (OpenDML AVI 1.02: 'avih', 'strh', 'dmlh') claim another number of frames."""
    data = bytearray(video.read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40), (b"dmlh", 8)):
        start = data.find(chunk)
        if start >= 0:
            data[start + offset : start + offset + 4] = num_frames.to_bytes(4, "little")
    video.write_bytes(data)
    return video


@pytest.mark.parametrize("claimed", [0, 1, 3, 17, 39, 41, 60, 4000])
@pytest.mark.parametrize("rate", [None, 5])
def test_a_header_that_lies_changes_nothing(write_counting_video, claimed, rate):
    spec = tiny(num_frames=6, frames_per_second=rate)
    honest, _ = read_stack(write_counting_video("honest.avi", 40), spec)
    video = claim(write_counting_video("liar.avi", 40), claimed)
    assert probe(video).num_frames_claimed == claimed
    stack, sampled = read_stack(video, spec)
    assert indices_of(stack) == indices_of(honest)
    assert (sampled.num_frames, sampled.num_frames_claimed) == (40, claimed)
    assert (sampled.problem is not None) == (claimed > 44)


@pytest.mark.parametrize("rate", [None, 10])
def test_a_cut_video_is_used_and_reported(tmp_path, rate):
    frames = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "a.avi", frames, frames_per_second=10)
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    stack, sampled = read_stack(tmp_path / "a.avi", tiny(frames_per_second=rate))
    assert 10 < sampled.num_frames < 25 and sampled.num_frames_claimed == 40
    expected = even_indices(sampled.num_frames, 4) if rate is None else range(sampled.num_frames)
    # the last frame was cut too, and OpenCV 4 gives what there is of it
    np.testing.assert_array_equal(stack[:-1, 0], frames[list(expected)][:-1])
    assert sampled.problem == (
        f"ends after {sampled.num_frames} frames ({sampled.num_frames / 10:.2f} s) of a claimed 40 (4.00 s): "
        "cut off or damaged; the frames before that are used"
    )


# === Frames that lie far apart ===


def dense_and_sparse(path, spec, monkeypatch, **span):
    """What decoding every frame gives, and what seeking gives, however little it pays."""
    results = []
    for pays in (math.inf, -1):
        monkeypatch.setattr(sampling, "_INDEX_PAYS", pays)
        monkeypatch.setattr(decoder, "_SEEK_PAYS", 0)
        try:
            results.append(read_stack(path, spec, **span))
        except VideoError as error:
            results.append((np.zeros(0), str(error)))
    return results


SPARSE = (
    tiny(num_frames=5),
    tiny(num_frames=3, streams=("rgb", "motion", "motion_crop")),
    tiny(num_frames=4, frames_per_second=0.5, streams=("rgb", "motion")),
)


@pytest.mark.parametrize("spec", SPARSE, ids=str)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
def test_seeking_gives_the_same_frames(write_counting_video, monkeypatch, spec, name):
    path = write_counting_video(name, 200, height=64, width=64)
    (dense, all_read), (sparse, seen) = dense_and_sparse(path, spec, monkeypatch)
    np.testing.assert_array_equal(dense, sparse)
    assert all_read == seen and seen.num_frames == 200


@pytest.mark.parametrize("lie", ["more frames than there are", "other times"])
@pytest.mark.parametrize("spec", SPARSE, ids=str)
def test_where_the_index_lies_every_frame_is_decoded(write_counting_video, monkeypatch, caplog, spec, lie):
    path = write_counting_video("a.mp4", 200, height=64, width=64)
    honest = decoder.index_frames(path)
    milliseconds = np.append(honest.milliseconds, [20_000.0, 20_100.0])
    if lie == "other times":
        milliseconds = honest.milliseconds + np.linspace(0, 50, 200)
    monkeypatch.setattr(sampling, "index_frames", lambda _: decoder.FrameIndex(milliseconds, honest.key_frames))
    with caplog.at_level("INFO"):
        (dense, all_read), (sparse, seen) = dense_and_sparse(path, spec, monkeypatch)
    assert "is not where the container says: every frame is decoded instead" in caplog.text
    np.testing.assert_array_equal(dense, sparse)
    assert all_read == seen


@pytest.mark.real
@pytest.mark.parametrize("spec", SPARSE, ids=str)
def test_seeking_gives_the_same_frames_of_real_files(real_data, monkeypatch, spec):
    folders = [real_data / "videos" / "torture", real_data / "videos" / "samples"]
    for path in sorted(path for folder in folders for path in folder.iterdir() if path.suffix != ".csv"):
        (dense, all_read), (sparse, seen) = dense_and_sparse(path, spec, monkeypatch)
        np.testing.assert_array_equal(dense, sparse, err_msg=path.name)
        assert all_read == seen, path.name


# === A span of a video ===

SPECS = (
    tiny(num_frames=5),
    tiny(num_frames=3, streams=("motion",)),
    tiny(num_frames=4, streams=("rgb", "motion", "motion_crop")),
    tiny(num_frames=4, frames_per_second=7),
    tiny(num_frames=4, frames_per_second=11, streams=("rgb", "motion_crop")),
    tiny(num_frames=4, frames_per_second=0.5, streams=("rgb", "motion")),
)
SPANS = [(0.0, 0.75), (0.0, 0.15), (2.5, 2.9), (5.04, 6.3), (18.9, math.inf), (13.1, 14.0), (19.7, 20.0), (19.3, 30.0)]


@pytest.fixture(scope="module")
def moving_videos(tmp_path_factory):
    """A function that gives a video of 20 seconds at 10 frames/s in which a square moves over a texture."""
    folder = tmp_path_factory.mktemp("moving")
    texture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def video_in(name):
        if not (folder / name).exists():
            frames = np.repeat(texture[None], 200, axis=0)
            for index, frame in enumerate(frames):
                x, y = int(24 + 20 * math.sin(index / 7)), int(24 + 20 * math.cos(index / 11))
                frame[y : y + 16, x : x + 16] = index
            write_video(folder / name, frames, frames_per_second=10)
        return folder / name

    return video_in


def decoded(path):
    """Every frame of a video, BGR, and their times; the rate of the header."""
    with VideoReader(path) as reader:
        frames = [(seconds, reader.retrieve_bgr()) for _, seconds in reader]
        times = np.array([seconds for seconds, _ in frames])
        return [frame for _, frame in frames], times - times[0], reader.info.frames_per_second


def cut_by_hand(spec, span, frames, times, rate):
    """What sampling a span must give: all is decoded, the span is cut out, and is as a video of its own."""
    inside = np.flatnonzero((times >= span[0] - 1e-3) & (times < span[1] - 1e-3))
    if spec.frames_per_second is None:
        chosen = inside[even_indices(len(inside), spec.num_frames)].tolist()
    else:
        chosen = inside[serve(times[inside] - span[0], spec.frames_per_second)].tolist()
    stack = []
    streams = StreamMaker(spec, gap_frames(spec, rate))
    for index in inside.tolist():
        stack += streams.see(index - inside[0], shrink(frames[index], spec), chosen.count(index))
    stack += streams.finish()
    return np.stack(stack), chosen, inside


def check_span(path, spec, span, monkeypatch):
    frames, times, rate = decoded(path)
    expected, chosen, inside = cut_by_hand(spec, span, frames, times, rate)
    for stack, sampled in dense_and_sparse(path, spec, monkeypatch, span=span):
        message = f"{path.name} {spec} {span}"
        np.testing.assert_array_equal(stack, expected, err_msg=message)
        np.testing.assert_allclose(sampled.timestamps_seconds, times[chosen], atol=1e-6, err_msg=message)
        assert sampled.num_frames == len(inside), message
        last, claimed = times[inside[-1]], probe(path).duration_seconds_claimed
        end = min(last + 1 / rate, claimed if claimed > last else math.inf)
        assert sampled.duration_seconds == pytest.approx(end - times[inside[0]], abs=1e-3), message


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4", "a.webm"])
def test_a_span_is_what_is_cut_out_of_all_frames(moving_videos, monkeypatch, spec, name):
    for span in SPANS:
        check_span(moving_videos(name), spec, span, monkeypatch)


@pytest.mark.parametrize("claimed", [0, 99, 199, 201, 4000])
@pytest.mark.parametrize("spec", SPECS[2:4], ids=str)
def test_a_header_that_lies_changes_nothing_in_a_span(moving_videos, tmp_path, monkeypatch, claimed, spec):
    video = tmp_path / "a.avi"
    video.write_bytes(moving_videos("a.avi").read_bytes())
    claim(video, claimed)
    for span in SPANS[-4:]:
        check_span(video, spec, span, monkeypatch)


def test_spans_that_meet_share_no_frame_and_lose_none(write_counting_video):
    video = write_counting_video("a.mkv", 90, frames_per_second=30)  # it rounds times to a millisecond
    edges = [0.0, 1 / 30, 0.4, 1.3333, 1.668, 2.101, math.inf]  # the last two so near to a frame as is tolerated
    spec = tiny(num_frames=90)
    stacks = [read_stack(video, spec, span=span)[0] for span in zip(edges[:-1], edges[1:], strict=True)]
    assert sum(map(indices_of, stacks), []) == list(range(90))


class Counted(VideoReader):
    """A reader that counts the frames it decodes."""

    num_grabbed = 0

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        capture = self._capture

        class Capture:
            def __getattr__(self, name):
                return getattr(capture, name)

            def grab(self):
                Counted.num_grabbed += 1
                return capture.grab()

        self._capture = Capture()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_what_is_before_a_span_is_skipped_and_what_is_after_it_not_decoded(moving_videos, monkeypatch, spec):
    monkeypatch.setattr(images, "VideoReader", Counted)
    limits = {(13.1, 14.0): 60, (0.0, 1.0): 15, (2.5, 2.9): 35}  # key frames are 12 apart, a seek lands 17 after one
    for span, most in limits.items():
        Counted.num_grabbed = 0
        read_stack(moving_videos("a.mp4"), spec, span=span)
        assert Counted.num_grabbed < most, span
    monkeypatch.setattr(sampling, "index_frames", lambda _: None)  # a container that cannot be trusted
    Counted.num_grabbed = 0
    read_stack(moving_videos("a.mp4"), spec, span=(13.1, 14.0))
    assert 140 < Counted.num_grabbed < 146


@pytest.mark.parametrize("pays", [math.inf, -1])
@pytest.mark.parametrize("rate", [None, 5])
def test_a_span_that_the_video_does_not_hold(write_counting_video, monkeypatch, pays, rate):
    monkeypatch.setattr(sampling, "_INDEX_PAYS", pays)
    video, spec = write_counting_video("x.mp4", 100), tiny(frames_per_second=rate)
    with pytest.raises(VideoError, match=r"x.mp4: the segment starts at 12.0 s, but the video ends at 10.0 s$"):
        read_stack(video, spec, span=(12.0, 15.0))
    with pytest.raises(VideoError, match=r"x.mp4: there is no frame from 3.01 s to 3.09 s$"):
        read_stack(video, spec, span=(3.01, 3.09))


@pytest.mark.parametrize("pays", [math.inf, -1])
@pytest.mark.parametrize("rate", [None, 10])
def test_a_span_that_ends_after_the_video_is_used_and_reported(write_counting_video, monkeypatch, pays, rate):
    monkeypatch.setattr(sampling, "_INDEX_PAYS", pays)
    video, spec = write_counting_video("x.avi", 100), tiny(num_frames=40, frames_per_second=rate)
    stack, sampled = read_stack(video, spec, span=(8.0, 12.0))
    assert indices_of(stack) == list(range(80, 100)) and sampled.num_frames == 20
    assert sampled.problem == (
        "the segment ends at 12.0 s, but the video ends at 10.00 s; the frames before that are used"
    )
    for end in (10.0, 10.1, math.inf):  # people round
        assert read_stack(video, spec, span=(8.0, end))[1].problem is None
    assert read_stack(video, spec, span=(9.9, 10.0))[1].problem.startswith("holds one frame only")


def test_a_span_of_a_cut_video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "a.avi", frames, frames_per_second=10)
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    problems = [read_stack(tmp_path / "a.avi", tiny(), span=span)[1].problem for span in [(0.2, 1.0), (0.2, math.inf)]]
    assert problems[0] is None and problems[1].startswith("ends after ")


@pytest.mark.real
@pytest.mark.parametrize("spec", SPECS[2:4], ids=str)
def test_spans_of_real_files(real_data, monkeypatch, spec):
    """H.264 with frames that refer to later ones, and files of every kind."""
    paths = [*(real_data / "videos" / "samples").glob("*.mp4"), *(real_data / "videos" / "torture").glob("*vfr*")]
    for path in sorted(paths):
        _, times, _ = decoded(path)
        for fraction in (0.0, 0.35, 0.9):
            start = round(fraction * times[-1], 2)
            check_span(path, spec, (start, start + 1.5), monkeypatch)


def test_one_frame_is_used_and_reported(write_counting_video):
    stack, sampled = read_stack(write_counting_video("a.avi", 1), tiny())
    assert indices_of(stack) == [0]
    assert sampled.problem.startswith("holds one frame only, so nothing moves in it")


@pytest.mark.parametrize("rate", [None, 10])
def test_no_frame_at_all(tmp_path, rate):
    (tmp_path / "a.avi").write_bytes(b"not a video")
    with pytest.raises(VideoError, match="a.avi: this is a text file, not a video"):
        read_stack(tmp_path / "a.avi", tiny(frames_per_second=rate))


@pytest.mark.parametrize("rate", [None, 10])
def test_a_header_without_frames(write_counting_video, rate):
    video = write_counting_video("a.avi", 2)
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"movi") + 4])
    with pytest.raises(VideoError, match="a.avi: .*(no frame can be decoded|not a video that OpenCV can open)"):
        read_stack(video, tiny(frames_per_second=rate))


@pytest.mark.real
@pytest.mark.parametrize("name", ["syn_vfr.mkv", "syn_vfr.mp4"])
def test_variable_frame_rate_of_real_files(real_data, name):
    _, sampled = read_stack(real_data / "videos" / "torture" / name, tiny(frames_per_second=5))
    times = np.arange(len(sampled.timestamps_seconds)) / 5
    lag = np.array(sampled.timestamps_seconds) - times  # each sample time gets a frame that is not before it
    assert np.all(lag >= -2e-3) and len(times) == pytest.approx(5 * sampled.duration_seconds, abs=2)
    assert sampled.problem is None


@pytest.mark.parametrize("rate", [None, 1])
@pytest.mark.parametrize("pays", [math.inf, -1])
def test_frames_that_nobody_takes_are_checked_too(write_counting_video, monkeypatch, rate, pays):
    monkeypatch.setattr(sampling, "_INDEX_PAYS", pays)
    path, taken = write_counting_video("a.avi", 200), []

    def check(seconds):
        if seconds > 3.05:
            raise VideoError("enough")

    with pytest.raises(VideoError, match="enough"):
        for frame in iter_frames(path, tiny(num_frames=2, frames_per_second=rate), check=check):
            taken.append(frame)
    assert len(taken) <= 4


def test_a_second_pass_is_checked_too(write_counting_video, monkeypatch):
    monkeypatch.setattr(sampling, "_INDEX_PAYS", math.inf)
    monkeypatch.setattr(VideoReader, "_read_info", lambda reader: decoder.VideoInfo(16, 16, 10.0, 5, "ffv1"))
    passed = []
    list(iter_frames(write_counting_video("a.avi", 20), tiny(num_frames=4), check=passed.append))
    assert len(passed) == 40
