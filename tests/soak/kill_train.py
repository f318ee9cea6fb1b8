"""Kill `activity train --resume`, `tune` or `update` at random moments: the result must be that of an undisturbed run.

    python tests/soak/kill_train.py --kind train --count 100 --seed 0
    python tests/soak/kill_train.py --kind tune --count 20
    python tests/soak/kill_train.py --kind update --count 20

Small drawn videos; training has a head with dropout and a stage of fine-tuning, and saves its state after each epoch. A
chain starts the command and kills it at seeded moments (SIGKILL, SIGTERM, or Ctrl-C twice), up to three times, always
starting the same command again, and then lets it end. The weights, the log, the threshold, or the trials of a search
must then be those of a run that nobody killed, bit by bit, and no temporary file may be left. It prints one line of
figures and exits with 1 if any chain failed. A kill takes about 10 seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py

from activity.config import ClipSpec
from activity.datasets.preprocessing import preprocess
from activity.datasets.synthetic import write_videos
from activity.models.backbones import build_backbone

KINDS = ("train", "tune", "update")
SPEC = ClipSpec(num_frames=4, height=32, width=32, streams=("rgb",))
MOST_KILLS = 3  # of one chain
MOST_SECONDS = 600  # a command that takes longer hangs
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_PACKAGE = Path(__file__).parents[2]
# The command line, which saves as often as it can: else most kills would fall between two saves.
_PROGRAM = """
from activity.cli import main, train

run = train.run

def run_often_saved(arguments):
    from activity.training import trainer

    trainer.train.__kwdefaults__["seconds_between_saves"] = 0
    run(arguments)

train.run = run_often_saved
main.run()
"""


class Runs:
    """Commands of one kind, and where they work.

    Args:
        kind: one of `KINDS`.
        folder: for all files.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        write_videos(folder / "videos", num_performers=3, num_takes=1, height=48, width=48)
        preprocess(folder / "videos", folder / "dataset", SPEC)
        weights = folder / "small_cnn.weights.h5"
        build_backbone("small_cnn", height=SPEC.height, width=SPEC.width, weights="none").save_weights(weights)
        recipe = ["--backbone", "small_cnn", "--weights", str(weights), "--members", "1", "--runtime", "keras"]
        self.recipe = [*recipe, "--dropout", "0.5"]
        self.recipe += ["--epochs", "4" if kind == "tune" else "30"]
        if kind == "update":
            train = ["train", str(folder / "dataset"), "--out", str(folder / "old.keras"), *self.recipe]
            _, status = self._end(self._start(train))
            assert not status, "the old model cannot be trained"
            write_videos(folder / "videos", num_performers=5, num_takes=1, height=48, width=48)
            preprocess(folder / "videos", folder / "dataset", SPEC)
            shutil.rmtree(folder / "dataset" / "features")

    def command(self, chain: Path) -> list[str]:
        """The command of a chain, which works in a folder of its own, with its own copy of the data set."""
        dataset, out = str(chain / "dataset"), str(chain / "m.keras")
        if self.kind == "train":
            fine_tuning = ["--head", "lstm_plain", "--units", "8", "--fine-tune", "1", "--fine-tune-epochs", "10"]
            return ["train", dataset, "--out", out, "--resume", *self.recipe, *fine_tuning]
        if self.kind == "update":
            return [
                "update",
                str(self.folder / "old.keras"),
                dataset,
                "--out",
                out,
                "--overwrite",
                "--runtime",
                "keras",
            ]
        study = str(chain / "study.log")
        return ["tune", dataset, "--study", study, "--folds", "2", "--trials", "3", "--json", *self.recipe]

    def chain(self, name: str, moments: list[float], rng: random.Random) -> tuple[object, list[str]]:
        """Run a command, kill it at these moments, and let it end; returns its result, and what was wrong."""
        chain = self.folder / name
        shutil.copytree(self.folder / "dataset", chain / "dataset")
        wrong = []
        for moment in moments:
            process = self._start(self.command(chain))
            try:
                process.communicate(timeout=moment)
                break  # it came to its end before
            except subprocess.TimeoutExpired:
                chosen = rng.choice(SIGNALS)
                for _ in range(2 if chosen == signal.SIGINT else 1):
                    os.killpg(process.pid, chosen)
                    time.sleep(rng.uniform(0.02, 0.3))
                said, status = self._end(process)
                if status is None or ("Traceback" in said and "Exception ignored" not in said):  # in a callback of C
                    wrong.append(f"{name}: {chosen.name} after {moment:.1f} s: {said[-300:] or 'it hangs'}")
        said, status = self._end(self._start(self.command(chain)), chain / "said.json")
        if status != 0:
            return None, [*wrong, f"{name}: {'it hangs' if status is None else f'exit status {status}'}: {said[-300:]}"]
        left = [str(path.relative_to(chain)) for path in chain.rglob(".*")]
        wrong += [f"{name}: left over: {', '.join(left[:4])}"] if left else []
        return self._result(chain), wrong

    def _start(self, words: list[str]) -> subprocess.Popen:
        temporary = self.folder / "temporary"  # what the system's folder for it would hold
        temporary.mkdir(exist_ok=True)
        path = os.pathsep.join([str(_PACKAGE), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary), "TF_CPP_MIN_LOG_LEVEL": "3"}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", _PROGRAM, *words]
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def _end(self, process: subprocess.Popen, results_path: Path | None = None) -> tuple[str, int | None]:
        """What a command says at its end, and its status; `None`: it hangs."""
        try:
            results, said = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "", None
        if results_path:
            results_path.write_text(results)
        return said, process.returncode

    def _result(self, chain: Path) -> object:
        """All that must be the same again."""
        if self.kind == "tune":
            search = json.loads((chain / "said.json").read_text().replace(str(chain), "CHAIN"))
            return [{**trial, "seconds": 0} for trial in (search.pop("best"), *search.pop("trials"))], search
        weights = {}
        with zipfile.ZipFile(chain / "m.keras") as file:
            config = json.loads(file.read("config.json"))["config"]
            with h5py.File(io.BytesIO(file.read("model.weights.h5"))) as stored:
                stored.visititems(lambda name, part: weights.update({name: bytes(part[()])} if _is_data(part) else {}))
        return weights, config["record"]["history"], config["threshold"]


def _is_data(part: object) -> bool:
    return isinstance(part, h5py.Dataset)


def soak(count: int, seed: int, kind: str = "train") -> tuple[str, list[str]]:
    """Run chains until so many kills are done; returns one line of figures, and what went wrong."""
    rng, failures = random.Random(seed), list[str]()
    num_kills = num_chains = num_different = 0
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(kind, Path(name))
        began = time.monotonic()
        expected, wrong = runs.chain("undisturbed", [], rng)
        seconds = time.monotonic() - began
        if wrong:
            return "the undisturbed run fails", wrong
        while num_kills < count:
            num = min(count - num_kills, rng.randint(1, MOST_KILLS))
            moments = [rng.uniform(0.3, 1.0) * seconds for _ in range(num)]
            result, wrong = runs.chain("chain", moments, rng)
            failures += wrong
            if result is not None and result != expected:
                num_different += 1
                failures.append(f"chain {num_chains}, killed after {[round(x, 1) for x in moments]} s: differs")
            num_kills, num_chains = num_kills + num, num_chains + 1
            shutil.rmtree(Path(name, "chain"))
    kills = f"{count} kills of {kind} in {num_chains} chains, seed {seed}"
    return f"{kills}: {num_different} results differ, {len(failures)} failures", failures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=KINDS, default="train", help="command to kill; default: %(default)s")
    parser.add_argument("--count", type=int, default=100, help="kills; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals; default: %(default)s")
    figures, failures = soak(**vars(parser.parse_args()))
    print("\n".join([*failures, figures]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
