"""How long `activity classify --timeline` takes on a long film, in two ways that take turns, each in a fresh process.

python tests/benchmarks/bench_long.py BEFORE AFTER --film CLIPS_OR_FILM [--minutes 10] [--rounds 3]

BEFORE and AFTER are each `MODEL.keras[:RUNTIME[:CHECKOUT]]`: a model, what computes it (by default `auto`), and the
folder of a checkout of this project whose code runs (by default that of this script). A folder of clips is joined to a
film of 1280x720 H.264 first. Prints medians of wall and processor time, their ratios, and how much of the film has the
same label in both.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from activity.datasets.samples import Segment
from activity.evaluation.segments import frame_accuracy
from activity.predictor.sources import expand_sources
from activity.video.decoder import VideoReader
from activity.video.writer import write_video

HERE = Path(__file__).parents[2]
HEIGHT, WIDTH = 720, 1280


def make_film(clips, minutes, path):
    """Join clips, one of each folder in turn and from the first again, to a film as long as that."""
    by_folder = [list(some) for _, some in itertools.groupby(sorted(clips), lambda clip: Path(clip).parent)]
    in_turn = [clip for some in itertools.zip_longest(*by_folder) for clip in some if clip]
    with VideoReader(in_turn[0]) as reader:
        rate = reader.info.frames_per_second

    def frames():
        for clip in itertools.cycle(in_turn):
            with VideoReader(clip) as reader:
                for _ in reader:
                    yield cv2.resize(reader.retrieve(), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)

    write_video(path, itertools.islice(frames(), round(60 * minutes * rate)), frames_per_second=rate)


def classify(way, film):
    """Wall and processor seconds of a process, and the segments of the film."""
    model, *more = way.split(":")
    runtime, checkout = [*more, *("auto", str(HERE))[len(more) :]]
    command = [sys.executable, "-m", "activity", "classify", model, film, "--timeline", "--json", "--runtime", runtime]
    environment = {**os.environ, "PYTHONPATH": checkout}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    segments = [Segment(**values) for values in json.loads(done.stdout)["segments"]]
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, segments


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE")
    parser.add_argument("after", metavar="AFTER")
    parser.add_argument("--film", type=Path, required=True, metavar="CLIPS_OR_FILM")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ways = {"before": arguments.before, "after": arguments.after}
    with tempfile.TemporaryDirectory() as folder:
        film = arguments.film
        if film.is_dir():
            film = Path(folder, "film.mp4")
            make_film(expand_sources([str(arguments.film)]), arguments.minutes, film)
        times, segments = {name: [] for name in ways}, {}
        for round_, (name, way) in itertools.product(range(arguments.rounds), ways.items()):
            *taken, segments[name] = classify(way, str(film))
            times[name].append(taken)
            print(f"round {round_ + 1}  {name:6}  {taken[0]:7.2f} s, processor {taken[1]:7.2f} s", flush=True)
    medians = {name: [statistics.median(some) for some in zip(*taken, strict=True)] for name, taken in times.items()}
    seconds = segments["before"][-1].end_seconds
    for name, (wall, processor) in medians.items():
        fast = f"{seconds / wall:.1f} times as fast as it plays"
        print(f"{name:6}  {wall:7.2f} s ({fast}), processor {processor:7.2f} s   {ways[name]}")
    wall, processor = (after / before for before, after in zip(*medians.values(), strict=True))
    print(f"after to before: {wall:.2f} of the time, {processor:.2f} of the processor time; {seconds:.0f} s of film")
    same = frame_accuracy(segments["before"], segments["after"])
    print(f"the same label: {same:.2%} of the time; segments: {len(segments['before'])}, {len(segments['after'])}")


if __name__ == "__main__":
    main()
