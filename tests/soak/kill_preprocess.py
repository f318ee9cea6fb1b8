"""Kill `activity preprocess` at random moments: the same command must then give the same data set, nothing left over.

    python tests/soak/kill_preprocess.py --count 200 --seed 0

Each trial starts the command on small drawn videos and kills, at a seeded moment, its process group, its main process,
or one worker. A run of which only a worker was killed must end well by itself; of the others the command is run again.
Every file of the folder must then be what an undisturbed run makes, without temporary files, locks and processes of the
dead. It prints one line of figures and exits with 1 if any trial failed. Linux only; a trial takes about 6 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from activity.datasets.synthetic import write_videos

MODES = ("worker", "group", "main")
_PACKAGE = Path(__file__).parents[2]


def command(videos: Path, out: Path) -> list[str]:
    options = ["--num-frames", "4", "--size", "32", "--workers", "2", "--time-limit", "20"]
    return [sys.executable, "-m", "activity", "preprocess", str(videos), "--out", str(out), *options]


def start(videos: Path, out: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE), os.environ.get("PYTHONPATH", "")])}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(videos, out), env=environment, start_new_session=True, **quiet)


def finish(process: subprocess.Popen) -> str:
    """Wait for a command; returns what is wrong with how it ended."""
    try:
        _, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "it hangs"
    return f"exit status {process.returncode}: {errors[-300:]}" if process.returncode else ""


def state_of(folder: Path) -> dict[str, str]:
    """Path -> digest, of all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def workers_of(pid: int) -> list[int]:
    """The decoding processes of a command."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in _command_line(int(child))]
    return []


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def orphans(pids: list[int]) -> list[int]:
    """Which of these workers still run, some seconds after their command was killed."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(b"spawn_main" in _command_line(pid) for pid in pids):
        time.sleep(0.05)
    return [pid for pid in pids if b"spawn_main" in _command_line(pid)]


def kill(process: subprocess.Popen, mode: str, rng: random.Random) -> list[int]:
    """Kill a command, or a part of it; returns the workers that it had."""
    workers = workers_of(process.pid)
    if mode == "worker" and workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
    elif mode == "main":
        os.kill(process.pid, signal.SIGKILL)
    elif mode == "group":
        os.killpg(process.pid, signal.SIGKILL)
    return workers


def trial(videos: Path, out: Path, expected: dict[str, str], seconds: float, mode: str, rng: random.Random) -> str:
    """One kill and what follows; returns what is wrong, or nothing."""
    process = start(videos, out)
    time.sleep(rng.uniform(0.2, 1.05 * seconds))
    workers = kill(process, mode, rng) if process.poll() is None else []
    if mode == "worker":
        wrong = finish(process)
    else:
        process.communicate()
        wrong = finish(start(videos, out))
    if left := orphans(workers):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return f"{len(left)} workers outlive their command"
    found = state_of(out)
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return wrong or (f"differs: {', '.join(differing[:5])}" if differing else "")


def soak(count: int, seed: int) -> tuple[str, list[str]]:
    """Run the trials; returns one line of figures, and what went wrong."""
    rng, failures = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_videos(folder / "videos", num_performers=4, num_takes=1, height=64, width=64)
        started = time.monotonic()
        if wrong := finish(start(folder / "videos", folder / "undisturbed")):
            return "the undisturbed run fails", [wrong]
        seconds, expected = time.monotonic() - started, state_of(folder / "undisturbed")
        for index in range(count):
            mode, out = MODES[index % len(MODES)], folder / "out"
            if wrong := trial(folder / "videos", out, expected, seconds, mode, rng):
                failures.append(f"trial {index} ({mode}): {wrong}")
            shutil.rmtree(out, ignore_errors=True)
    return f"{count} kills of preprocess ({', '.join(MODES)}), seed {seed}: {len(failures)} failures", failures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="kills; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    figures, failures = soak(**vars(parser.parse_args()))
    print("\n".join([*failures, figures]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
