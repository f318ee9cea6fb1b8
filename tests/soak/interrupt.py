"""Press Ctrl-C at random moments of every command: it must end within 2 seconds, in one line, with nothing half made.

    python tests/soak/interrupt.py --count 50 --seed 0

Each command works on small drawn videos. A press that comes before the program can hear it, while Python itself starts,
does not count. It prints one line of figures and exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from activity.cli.main import main as activity
from activity.datasets.synthetic import write_videos
from activity.models.backbones import build_backbone

_LIMIT_SECONDS = 2.0
_PACKAGE = Path(__file__).parents[2]


def commands(folder: Path) -> dict[str, list[str]]:
    """A command line of each command that works for longer than a moment; they write into `{out}`."""
    dataset, model, videos = str(folder / "dataset"), str(folder / "m.keras"), str(folder / "videos")
    recipe = ["--backbone", "small_cnn", "--members", "1", "--epochs", "200"]
    weights = ["--weights", str(folder / "small_cnn.weights.h5")]
    return {
        "preprocess": ["preprocess", videos, "--out", "{out}/dataset", "--workers", "2"],
        "train": ["train", dataset, "--out", "{out}/m.keras", *recipe],
        "update": ["update", model, dataset, "--out", "{out}/m.keras", "--scheme", "retrain", "--epochs", "200"],
        "evaluate": ["evaluate", model, dataset, "--out", "{out}/report"],
        "cross-validate": ["cross-validate", dataset, "--folds", "groups", "--out", "{out}/report", *recipe],
        "tune": ["tune", dataset, "--study", "{out}/study.log", "--folds", "2", *recipe, *weights],
        "classify": [
            "classify",
            model,
            videos,
            "--runtime",
            "keras",
            "--out",
            "{out}/timelines",
            "--annotate",
            "{out}/v",
        ],
        "export": ["export", model, "--format", "savedmodel", "--out", "{out}/saved"],
        "serve": ["serve", model, "--port", "0", "--runtime", "keras"],
        "demo": ["demo", "--out", "{out}/demo"],
    }


def interrupt(words: list[str], moment: float, out: Path) -> tuple[float | None, str]:
    """Start a command and press Ctrl-C after so many seconds.

    Returns:
        How long it took to end, `None` if it was done before; and what was wrong, if anything.
    """
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "activity", *(word.format(out=out) for word in words)],
        env={**os.environ, "PYTHONPATH": str(_PACKAGE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        process.communicate(timeout=moment)
        return None, ""
    except subprocess.TimeoutExpired:
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    try:
        _, said = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return 30.0, "it hangs"
    took, wrong = time.monotonic() - began, []
    if process.returncode == 0:
        return None, ""  # it had just ended
    if process.returncode != 130 or not said.splitlines()[-1].startswith("activity: stopped"):
        wrong.append(f"exit status {process.returncode}")
    if "Traceback" in said:
        wrong.append("a traceback")
    if took > _LIMIT_SECONDS:
        wrong.append(f"{took:.1f} s")
    if left := [str(path.relative_to(out)) for path in out.rglob(".tmp-*")]:
        wrong.append(f"left {left}")
    return took, ", ".join(wrong) and f"{', '.join(wrong)}: {said[-1500:]}"


def soak(folder: Path, *, count: int, seed: int) -> tuple[str, list[str]]:
    """Interrupt commands in turn; one line of figures, and what was wrong.

    Args:
        folder: for all files.
        count: presses.
        seed: of the moments.
    """
    write_videos(folder / "videos", num_performers=3, num_takes=1, height=48, width=48)
    size = ["--num-frames", "6", "--size", "32", "--streams", "rgb"]
    recipe = ["--backbone", "small_cnn", "--members", "1", "--epochs", "2"]
    assert activity(["preprocess", str(folder / "videos"), "--out", str(folder / "dataset"), *size]) == 0
    assert activity(["train", str(folder / "dataset"), "--out", str(folder / "m.keras"), *recipe]) == 0
    weights = folder / "small_cnn.weights.h5"  # a search needs a frozen backbone
    build_backbone("small_cnn", height=32, width=32, weights="none").save_weights(weights)
    rng, times, wrong = random.Random(seed), list[float](), list[str]()
    words = commands(folder)
    for number in range(count):
        name = list(words)[number % len(words)]
        moment = rng.uniform(1.0, 10.0)  # from the first imports to the work
        took, fault = interrupt(words[name], moment, folder / str(number))
        if took is not None:
            times.append(took)
        if fault:
            wrong.append(f"{name} after {moment:.1f} s: {fault}")
    worst = max(times, default=0.0)
    return f"{count} commands, {len(times)} interrupted: the slowest took {worst:.1f} s, {len(wrong)} wrong", wrong


def main() -> int:
    """Run it; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    with tempfile.TemporaryDirectory() as folder:
        line, wrong = soak(Path(folder), **vars(parser.parse_args()))
    print("\n".join([*wrong, line]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
