"""A decoder that gets stuck, crashes, has a bug or wants too much memory, in a module that workers can import."""

import os
import signal
import time
from pathlib import Path

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
