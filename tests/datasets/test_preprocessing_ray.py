"""`preprocess` on a Ray cluster of two nodes gives what it gives on one machine."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from misbehaving import misbehave

from activity.config import ClipSpec
from activity.datasets import preprocessing
from activity.datasets.preprocessing import preprocess
from activity.video.writer import write_video

SPEC = ClipSpec(num_frames=4, height=16, width=16)
NUM_VIDEOS = 500

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(preprocessing.__file__).parents[2])}  # this copy of the program

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="Ray on Windows is not tried"),
    # of Ray 2.60, when it is imported or stopped
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Short videos of noise; one is truncated, and two have names that `misbehaving` knows: one hangs, one kills."""
    folder = tmp_path_factory.mktemp("videos")
    names = ["03.avi", "04.avi", "cut.avi", *(f"clip{number:03}.avi" for number in range(NUM_VIDEOS - 3))]
    for number, name in enumerate(names):
        path = folder / ("run", "wave")[number % 2] / name
        path.parent.mkdir(exist_ok=True)
        frames = np.random.default_rng(number).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        write_video(path, frames, frames_per_second=10)
    whole = (folder / "run/cut.avi").read_bytes()
    (folder / "run/cut.avi").write_bytes(whole[: (whole.index(b"movi") + whole.rindex(b"idx1")) // 2])
    return folder


@pytest.fixture
def cluster():
    """A Ray cluster of two nodes with a CPU each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def decoded_here(videos, tmp_path_factory):
    """The folder of `local`."""
    folder = tmp_path_factory.mktemp("local") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocessing, "_decode_one", misbehave)
        dataset = preprocess(videos, folder, SPEC, num_workers=2, seconds_per_video=5)
    assert len(dataset.samples) == NUM_VIDEOS - 2 and len(dataset.problems) == 3
    return folder


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_nodes_write_what_one_machine_writes(videos, cluster, decoded_here, tmp_path, monkeypatch):
    out = tmp_path / "dataset"
    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "_decode_one", misbehave)
        dataset = preprocess(videos, out, SPEC, executor="ray", address=cluster.address, seconds_per_video=5)
    assert {row["path"]: row["reason"].partition(" (")[0] for row in dataset.problems} == {
        "run/03.avi": "decoding took longer than 5 s and was stopped; allow more with --time-limit",
        "wave/04.avi": "decoding crashed the worker process",
        "run/cut.avi": "ends after 3 frames",
    }
    assert files_of(out) == files_of(decoded_here)


def test_a_node_that_is_killed_does_not_stop_it(videos, cluster, decoded_here, tmp_path, monkeypatch, caplog):
    node = next(node for node in cluster.list_all_nodes() if not node.is_head())
    outcome, num_done = preprocessing._outcome, 0

    def count(*arguments):
        nonlocal num_done
        num_done += 1
        if num_done == 100:
            threading.Thread(target=cluster.remove_node, args=[node], kwargs={"allow_graceful": False}).start()
        return outcome(*arguments)

    monkeypatch.setattr(preprocessing, "_outcome", count)
    monkeypatch.setattr(preprocessing, "_decode_one", misbehave)
    out = tmp_path / "dataset"
    preprocess(videos, out, SPEC, executor="ray", address=cluster.address, seconds_per_video=5)
    assert "a task of Ray was lost" in caplog.text
    assert files_of(out) == files_of(decoded_here)


def test_a_second_run_decodes_nothing_and_starts_no_cluster(videos, decoded_here, tmp_path):
    """What hung or crashed is tried again by each run, so here that has passed."""
    folder = shutil.copytree(decoded_here, tmp_path / "dataset")
    assert len(preprocess(videos, folder, SPEC, num_workers=2).problems) == 1
    before = files_of(folder)
    times = {path: path.stat().st_mtime_ns for path in (folder / "frames").iterdir()}
    words = [videos, "--out", folder, "--num-frames", 4, "--size", 16, "--executor", "ray"]
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "activity", "preprocess", *map(str, words)], env=ENVIRONMENT, check=True)
    assert time.monotonic() - start < 5  # from the start of the program to its end
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert files_of(folder) == before
