"""activity preprocess: from labelled videos to a data set folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from activity.cli.checks import check_executor, read_settings
from activity.cli.options import add_choice, add_executor, frame_size, in_range, seconds, seed, stream_names
from activity.cli.output import say_error
from activity.config import RESIZE_MODES, STREAMS, ClipSpec
from activity.files import DIGESTS_NAME, check_folder, check_output

if TYPE_CHECKING:
    from activity.datasets.samples import VideoList

EXAMPLES = [
    "videos --out dataset",
    "videos/manifest.csv --out dataset --num-frames 32 --size 160",
    "UCF-101 --out dataset --split-files ucfTrainTestlist/*list01.txt",
    "films --out dataset --labels events.csv",
    "videos --out dataset --executor ray --address auto",
]

CONTINUE = ["the same command continues from here"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The fields of `ClipSpec`, and how the videos are read."""
    spec = ClipSpec()
    add = parser.add_argument
    add("videos", type=Path, metavar="VIDEOS", help="a folder per class, or with a manifest.csv, or that CSV")
    add("--out", type=Path, required=True, metavar="DATASET", help="folder to make or to bring up to date")
    add("--num-frames", type=int, default=spec.num_frames, metavar="T", help="frames in a clip; default: %(default)s")
    add(
        "--size",
        type=frame_size,
        default=(spec.height, spec.width),
        metavar="S|HxW",
        help="of a frame, in pixels; default: 224",
    )
    add("--frames-per-second", type=float, metavar="R", help="sample at this rate; default: evenly over the video")
    add_choice(parser, "--resize", RESIZE_MODES, default=spec.resize, help="how frames get that size")
    add(
        "--streams",
        type=stream_names,
        default=spec.streams,
        metavar="NAMES",
        help=f"images per frame; default: {','.join(STREAMS)}",
    )
    add("--split-files", type=Path, nargs="+", default=[], metavar="FILE", help="official lists of UCF101 or HMDB51")
    _add_labels(parser)
    add_executor(parser, "videos are decoded")
    add(
        "--time-limit",
        type=seconds,
        default=600,
        metavar="SECONDS",
        help="longest time for one video; default: %(default)s",
    )
    add(
        "--image-rate",
        type=in_range(float, 0.001, 1000),
        default=25,
        metavar="R",
        help="images a second, of videos that are folders of numbered images; default: %(default)s",
    )
    add("--seed", type=seed, default=0, help="random seed for the split; default: %(default)s")


def _add_labels(parser: argparse.ArgumentParser) -> None:
    """The labels of other tools."""
    group = parser.add_argument_group("labels of other tools, for a folder of films")
    group.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="of BORIS, ELAN, Label Studio, ActivityNet, DeepEthogram or Create ML, told apart by their content",
    )
    group.add_argument(
        "--tier",
        nargs="+",
        default=[],
        metavar="T",
        help="tiers of ELAN, or tags of Label Studio, to read; default: all",
    )
    group.add_argument(
        "--label-rate",
        type=in_range(float, 0.001, 1000),
        metavar="R",
        help="frames a second that frame numbers count; default: as the file says, or as its film has",
    )
    group.add_argument(
        "--point-seconds", type=seconds, metavar="S", help="length of events without one; default: they are left out"
    )


def run(arguments: argparse.Namespace) -> int:
    """Decode, and print what the data set holds; returns 1 if some labels could not be read."""
    for option in ("tier", "label_rate", "point_seconds"):
        if getattr(arguments, option) and not arguments.labels:
            arguments.parser.error(f"--{option.replace('_', '-')} is for the files of --labels")
    check_executor(arguments)
    height, width = arguments.size
    spec = read_settings(ClipSpec, arguments, height=height, width=width, num_features=None)  # it reads videos
    check_folder(arguments.out)
    check_output(
        arguments.out, overwrite=True, foreign=lambda folder: None if _is_dataset(folder) else folder, what="a data set"
    )
    from activity.datasets.preprocessing import preprocess

    videos = _labelled(arguments) if arguments.labels else arguments.videos
    dataset = preprocess(
        videos,
        arguments.out,
        spec,
        split_files=arguments.split_files,
        executor=arguments.executor,
        address=arguments.address,
        num_workers=arguments.workers,
        seconds_per_video=arguments.time_limit,
        images_per_second=arguments.image_rate,
        seed=arguments.seed,
    )
    print(f"{dataset.as_text()}\n{'data set':16} {arguments.out}")
    num_wrong = 0 if isinstance(videos, Path) else sum("ERROR: " in text for text in videos.problems.values())
    if num_wrong:
        problems = arguments.out / "problems.csv"
        say_error(f"labels could not be read in {num_wrong} places, see {problems}; the data set has all others")
    return int(num_wrong > 0)


def _labelled(arguments: argparse.Namespace) -> VideoList:
    from activity.datasets.annotations.matching import list_labelled

    return list_labelled(
        arguments.videos,
        arguments.labels,
        tiers=arguments.tier,
        label_rate=arguments.label_rate,
        point_seconds=arguments.point_seconds,
        images_per_second=arguments.image_rate,
    )


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is a data set, or the first traces of one, which a run that was killed has left."""
    traces = (path.name.startswith(".") or path.name == DIGESTS_NAME for path in folder.iterdir())
    return (folder / "dataset.json").exists() or all(traces)
