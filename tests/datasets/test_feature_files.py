import numpy as np
import pytest

from activity.config import ClipSpec
from activity.datasets.feature_files import find_feature_files, map_rows, sample_rows
from activity.datasets.samples import Sample
from activity.errors import DatasetError, VideoError

SPEC = ClipSpec(num_frames=4, streams=("features",), num_features=3)


def sample(path, sample_id=None, seconds=2.0, **times):
    id_ = sample_id or path.replace("/", "_") + "-0123"
    return Sample(sample_id=id_, path=path, label="run", group=path, duration_seconds=seconds, **times)


@pytest.fixture
def save(tmp_path):
    """A function that writes rows into a file below the folder of features."""

    def save_(name, rows=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ones((6, 3), np.float32) if rows is None else rows)
        return path

    return save_


# === Which file ===


@pytest.mark.parametrize(
    "name",
    [
        "run/anna.1.npy",
        "run/anna.1.mp4.npy",
        "anna.1.npy",
        "anna.1.mp4.npy",
        "i3d/run/anna.1.npy",
        "run_anna.1.mp4-0123.npy",
        "frames/run_anna.1.mp4-0123.npy",
    ],
)
def test_a_file_is_found_under_the_names_that_people_give(save, tmp_path, name):
    path = save(name)
    found = find_feature_files(tmp_path, [sample("run/anna.1.mp4")])
    assert found.paths == {"run_anna.1.mp4-0123": path}
    assert (found.num_features, found.rows_per_second) == (3, 3.0)


def test_one_rate_is_the_median(save, tmp_path):
    for number, num_rows in enumerate((2, 4, 40)):
        save(f"{number}.npy", np.ones((num_rows, 3), np.float16))
    found = find_feature_files(tmp_path, [sample(f"run/{number}.avi") for number in range(3)])
    assert found.rows_per_second == 2.0


def test_all_missing_files_are_counted_and_some_named(save, tmp_path):
    save("run/0.npy")
    message = r"no feature file for 7 of 8 videos: run/1.avi, .* and 2 more; expected run/1.npy or run/1.avi.npy"
    with pytest.raises(DatasetError, match=message):
        find_feature_files(tmp_path, [sample(f"run/{number}.avi") for number in range(8)])


def test_the_file_of_another_label_is_not_taken(save, tmp_path):
    save("walk/1.npy")
    with pytest.raises(DatasetError, match="no feature file for 1 of 1 videos"):
        find_feature_files(tmp_path, [sample("run/1.avi")])


def test_a_flat_file_that_may_be_that_of_two_videos_is_refused(save, tmp_path):
    save("1.npy")
    with pytest.raises(
        DatasetError, match=r"1.npy: may be the file of run/1.avi and of walk/1.avi; call them run/1.avi"
    ):
        find_feature_files(tmp_path, [sample("run/1.avi"), sample("walk/1.avi")])


def test_a_name_without_suffix_that_may_be_that_of_two_videos_is_refused_unless_the_suffix_tells(save, tmp_path):
    save("run/1.npy")
    both = [sample("run/1.avi"), sample("run/1.mp4")]
    with pytest.raises(DatasetError, match="may be the file of"):
        find_feature_files(tmp_path, both)
    save("run/1.mp4.npy")
    assert len(set(find_feature_files(tmp_path, both).paths.values())) == 2


def test_two_files_that_may_be_that_of_one_video_are_refused(save, tmp_path):
    save("a/run/1.npy")
    save("b/run/1.npy")
    with pytest.raises(DatasetError, match=r"of run/1.avi, a/run/1.npy, b/run/1.npy; lay them out as the videos are"):
        find_feature_files(tmp_path, [sample("run/1.avi")])


def test_files_that_are_not_used_are_counted(save, tmp_path, caplog):
    for name in ("run/1", "run/1.avi", "walk/3"):
        save(f"{name}.npy")
    find_feature_files(tmp_path, [sample("run/1.avi")])
    assert "2 of 3 feature files are not used (no video of their name, or one with another file): " in caplog.text
    assert caplog.text.endswith(": run/1.npy, walk/3.npy\n")


@pytest.mark.parametrize(("rows", "said"), [((6, 8), False), ((6, 60), True)])
def test_rows_that_last_unequally_long_are_spoken_of(save, tmp_path, caplog, rows, said):
    samples = [sample(f"run/{i}.avi") for i in range(len(rows))]
    for i, num_rows in enumerate(rows):
        save(f"run/{i}.npy", np.ones((num_rows, 3), np.float32))
    find_feature_files(tmp_path, samples)
    line = (
        "rows per second of video differ, from 3 to 30; training takes those of each video, but `classify`, which has"
    )
    assert (line in caplog.text) == said


def test_links_to_folders_are_followed_but_not_in_circles(save, tmp_path):
    path = save("elsewhere/run/1.npy")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "run").symlink_to(path.parent)
    (path.parent / "back").symlink_to(tmp_path / "features")
    found = find_feature_files(tmp_path / "features", [sample("run/1.avi")])
    assert list(found.paths.values()) == [tmp_path / "features" / "run" / "1.npy"]


def test_segments_have_files_of_their_own(save, tmp_path):
    halves = [
        sample("run/1.avi", "run_1-ab_0_1", end_seconds=1.0),
        sample("run/1.avi", "run_1-ab_1_2", start_seconds=1.0),
    ]
    save("run/1.npy")
    with pytest.raises(DatasetError, match="expected a file for each segment, such as run_1-ab_0_1.npy"):
        find_feature_files(tmp_path, halves)
    paths = {half.sample_id: save(f"{half.sample_id}.npy") for half in halves}
    assert find_feature_files(tmp_path, halves).paths == paths


@pytest.mark.parametrize("name", ["nowhere", "", "clip.npz"])
def test_a_folder_without_feature_files_is_named(tmp_path, name):
    (tmp_path / "clip.npz").touch()
    with pytest.raises(
        DatasetError,
        match=r"(no such folder|holds no .npy files|a file, not a folder); expected a feature file .npy for each",
    ):
        find_feature_files(tmp_path / name, [sample("run/1.avi")])


# === What is in a file ===


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 3, 3), np.float32), r"expected rows of numbers \(N, D\) .* received float32 \(2, 3, 3\)"),
        (np.zeros((2, 3), np.int64), r"in float16, float32 or float64, received int64 \(2, 3\)"),
        (np.zeros((0, 3), np.float32), r"holds no numbers; .* received \(0, 3\)"),
        (np.float32(1), r"received float32 \(\)"),
        (np.array([{}], object), "never loaded"),
    ],
)
def test_what_is_no_feature_file_is_named_with_all_others(save, tmp_path, rows, message):
    save("run/0.npy")
    for number in (1, 2):
        np.save(tmp_path / "run" / f"{number}.npy", rows, allow_pickle=True)
    with pytest.raises(DatasetError, match=f"2 feature files cannot be used: run/1.npy: .*{message}"):
        find_feature_files(tmp_path, [sample(f"run/{number}.avi") for number in range(3)])


def test_other_numbers_of_features_are_named(save, tmp_path):
    samples = [sample(f"run/{number}.avi") for number in range(4)]
    for number, shape in enumerate([(6, 3), (5, 3), (6, 3), (6, 2)]):
        save(f"{number}.npy", np.zeros(shape))
    with pytest.raises(DatasetError, match=r"as many features in each file; most have 3, 1 others: 3.npy with 2$"):
        find_feature_files(tmp_path, samples)
    for number, num_rows in enumerate([7, 7, 8, 9]):
        save(f"{number}.npy", np.zeros((num_rows, 3)).T)
    with pytest.raises(DatasetError, match=r"expected \(N, D\), these may be \(D, N\)"):
        find_feature_files(tmp_path, samples)


def test_a_file_of_another_network_than_expected_is_named(save):
    with pytest.raises(VideoError, match="expected 5 features in a row, received 3"):
        map_rows(save("a.npy"), 5)


def test_a_row_alone_is_one(save):
    assert map_rows(save("a.npy", np.zeros(3, np.float64))).shape == (1, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_is_no_finite_number_is_counted(save, tmp_path, bad):
    rows = np.ones((6, 3))
    rows[2:4, 1] = bad
    samples = [sample("run/0.avi"), sample("run/1.avi")]
    save("0.npy", rows)
    save("1.npy")
    files = find_feature_files(tmp_path, samples)
    with pytest.raises(DatasetError, match=r"1 of 2 feature files hold nan, .*: 0.npy \(2 of 4 rows\)"):
        list(files.read(samples, SPEC))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_rows_are_read_as_float32(save, tmp_path, dtype):
    save("1.npy", np.arange(18).reshape(6, 3).astype(dtype))
    (rows,) = find_feature_files(tmp_path, [sample("run/1.avi")]).read([sample("run/1.avi")], SPEC)
    assert rows.dtype == np.float32 and rows.dtype.isnative
    np.testing.assert_array_equal(rows[:, 0], [0, 6, 9, 15])  # of rows 0, 2, 3, 5: the middles of four parts


# === Which rows, and when ===

RATE = ClipSpec(num_frames=4, streams=("features",), num_features=1, frames_per_second=2)


def rows_of(length):
    return np.arange(length, dtype=np.float32)[:, None]


@pytest.mark.parametrize(("length", "expected"), [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (8, [1, 3, 5, 7])])
def test_rows_are_spread_evenly(length, expected):
    rows, sampled = sample_rows(rows_of(length), SPEC, 2.0)
    assert rows[:, 0].tolist() == expected
    assert (sampled.num_frames, sampled.duration_seconds) == (length, length / 2)
    assert sampled.timestamps_seconds == tuple(index / 2 for index in expected)
    assert len(sampled.edges_seconds) == len(expected) + 1 and sampled.edges_seconds[-1] == length / 2


@pytest.mark.parametrize(
    ("length", "rows_per_second", "expected"),
    [
        (5, 2.0, [0, 1, 2, 3, 4]),
        (5, 2.07, [0, 1, 2, 3, 4]),  # as durations are never quite those of the rows
        (5, 1.93, [0, 1, 2, 3, 4]),
        (3, 1.0, [0, 0, 1, 1, 2, 2]),
        (8, 4.0, [1, 3, 5, 7]),
        (1, 30.0, [0]),
    ],
)
def test_rows_at_a_rate(length, rows_per_second, expected):
    rows, sampled = sample_rows(rows_of(length), RATE, rows_per_second)
    assert rows[:, 0].tolist() == expected
    assert sampled.edges_seconds[:-1] == tuple(np.arange(len(expected)) / 2)
    assert sampled.edges_seconds[-1] == pytest.approx(length / rows_per_second)
    assert (np.diff(sampled.edges_seconds) > 0).all()
