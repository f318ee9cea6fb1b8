"""A decoder that gets stuck, crashes, has a bug or wants too much memory, in a module that workers can import."""

import contextlib
import dataclasses
import os
import signal
import time
from pathlib import Path

from activity.config import ClipSpec, as_dict
from activity.datasets import preprocessing

decode_one = preprocessing._decode_one


def misbehave(sample_id, video_path, span, work):
    """Takes the place of `_decode_one` in the workers."""
    if video_path.name == "03.avi":
        time.sleep(60)
    if video_path.name == "04.avi":
        os._exit(3)
    if video_path.name == "05.avi":
        raise MemoryError("Unable to allocate 9 GiB")
    if video_path.name == "06.avi":
        raise ValueError("no such thing")
    return decode_one(sample_id, video_path, span, work)


def decode_with_another_version(sample_id, video_path, span, work):
    """As another machine of a cluster may."""
    other = dataclasses.replace(work, versions={"activity": "0.0.1", "opencv": "1.2"})
    return decode_one(sample_id, video_path, span, other)


def decode_without_the_videos(sample_id, video_path, span, work):
    """As another machine of a cluster may."""
    other = dataclasses.replace(work, videos_dir=work.videos_dir / "elsewhere")
    return decode_one(sample_id, video_path, span, other)


def be_killed_at_the_start():
    """Takes the place of `_prepare_worker` in the workers: the first one never comes to a video."""
    mark = Path(os.environ["ACTIVITY_TEST_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def be_killed_once(sample_id, video_path, span, work):
    """Another that is killed, as by a system without memory, when it first sees one of two videos."""
    mark = work.dataset_dir.with_name(f"{video_path.name}.seen")
    if video_path.name in ("03.avi", "04.avi") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_one(sample_id, video_path, span, work)


class DeadlySpec(ClipSpec):
    """Of the processes that are sent one with a video, the second is killed while it reads the message."""

    def __reduce__(self):
        return _read, (as_dict(self),)


def _read(fields):
    mark = os.environ["ACTIVITY_TEST_MARK"]
    with contextlib.suppress(FileExistsError):
        Path(f"{mark}.1").touch(exist_ok=False)
        return ClipSpec(**fields)
    with contextlib.suppress(FileExistsError):
        Path(f"{mark}.2").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return ClipSpec(**fields)


def decode_after_a_death(sample_id, video_path, span, work):
    """Takes the place of `_decode_one` in the workers: it is busy until another has been killed."""
    deadline = time.monotonic() + 30
    while not Path(f"{os.environ['ACTIVITY_TEST_MARK']}.2").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return decode_one(sample_id, video_path, span, work)
