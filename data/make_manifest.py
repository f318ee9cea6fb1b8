"""Write the manifest.csv of a data set whose labels, persons and splits are told by its file names.

    python data/make_manifest.py kth VIDEOS
    python data/make_manifest.py weizmann VIDEOS

VIDEOS is the folder the archives were unpacked into; the result is VIDEOS/manifest.csv, with one row a video.
Nothing but the Python standard library is needed. See kth.md and weizmann.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections import Counter
from pathlib import Path

NOT_VIDEOS = (".csv", ".json", ".m", ".mat", ".md", ".rar", ".txt", ".zip")

KTH_NAME = re.compile(r"(person(\d\d))_(boxing|handclapping|handwaving|jogging|running|walking)_d[1-4]_uncomp\.avi")
KTH_PERSONS = {  # 00sequences.txt, which repeats the subdivision of Schuldt, Laptev and Caputo (ICPR 2004)
    "train": (11, 12, 13, 14, 15, 16, 17, 18),
    "val": (19, 20, 21, 23, 24, 25, 1, 4),
    "test": (22, 2, 3, 5, 6, 7, 8, 9, 10),
}
KTH_SPLIT = {person: split for split, persons in KTH_PERSONS.items() for person in persons}

WEIZMANN_NAME = re.compile(
    r"(daria|denis|eli|ido|ira|lena|lyova|moshe|shahar)_"
    r"(bend|jack|jump|pjump|run|side|skip|walk|wave1|wave2)[12]?\.avi"  # the digit: lena_walk1 and lena_walk2
)


def kth_row(path: Path) -> dict[str, str]:
    """Return label, group (the person) and official split of one KTH video; ValueError says which name was expected."""
    match = KTH_NAME.fullmatch(path.name)
    if match is None or int(match[2]) not in KTH_SPLIT:
        raise ValueError("personNN_ACTION_dD_uncomp.avi, such as person01_boxing_d1_uncomp.avi, NN 01-25, D 1-4")
    return {"label": match[3], "group": match[1], "split": KTH_SPLIT[int(match[2])]}


def weizmann_row(path: Path) -> dict[str, str]:
    """Return label and group (the person) of one Weizmann video; ValueError says which name was expected."""
    match = WEIZMANN_NAME.fullmatch(path.name)
    if match is None:
        raise ValueError("PERSON_ACTION.avi, such as daria_bend.avi or lena_walk1.avi")
    return {"label": match[2], "group": match[1]}


DATA_SETS = {"kth": kth_row, "weizmann": weizmann_row}


def find_videos(videos: Path) -> list[Path]:
    """Return every file under `videos`, sorted, but for hidden ones and those that are plainly no videos."""
    return sorted(
        path
        for path in videos.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in NOT_VIDEOS
        and not any(part.startswith(".") for part in path.relative_to(videos).parts)
    )


def write_manifest(rows: list[dict[str, str]], manifest: Path) -> None:
    """Write `rows` to the file `manifest`, whole or not at all."""
    unfinished = manifest.with_name(f".{manifest.name}.part")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, manifest)


def summary(rows: list[dict[str, str]]) -> str:
    """Return the counts to hold against the page of the data set."""
    labels, groups = ({row[column] for row in rows} for column in ("label", "group"))
    splits = Counter(row["split"] for row in rows if "split" in row)
    text = f"{len(rows)} videos, {len(labels)} labels, {len(groups)} groups"
    return text + "".join(f", {splits[split]} {split}" for split in KTH_PERSONS if splits)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write VIDEOS/manifest.csv from the file names of a data set.")
    parser.add_argument("data_set", metavar="DATA_SET", choices=DATA_SETS, help=" or ".join(DATA_SETS))
    parser.add_argument("videos", metavar="VIDEOS", type=Path, help="the folder the archives were unpacked into")
    parser.add_argument("--force", action="store_true", help="replace a manifest.csv that is there already")
    options = parser.parse_args(arguments)

    manifest = options.videos / "manifest.csv"
    if not options.videos.is_dir():
        print(f"{options.videos}: expected a folder of videos, found none", file=sys.stderr)
        return 1
    if manifest.exists() and not options.force:
        print(f"{manifest} exists already and was left as it is; --force replaces it", file=sys.stderr)
        return 1

    rows, num_bad = [], 0
    for path in find_videos(options.videos):
        try:
            row = DATA_SETS[options.data_set](path)
        except ValueError as expected:
            num_bad += 1
            print(f"{path}: expected {expected}", file=sys.stderr)
        else:
            rows.append({"path": path.relative_to(options.videos).as_posix(), **row})
    if num_bad or not rows:
        why = f"names that do not fit: {num_bad}" if num_bad else "no videos found"
        print(f"{options.videos}: {why}; no manifest written", file=sys.stderr)
        return 1

    write_manifest(rows, manifest)
    print(f"{manifest}: {summary(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
