"""Write the manifest.csv of a data set from its file names, or from the captions that came with it.

    python data/make_manifest.py kth VIDEOS
    python data/make_manifest.py weizmann VIDEOS
    python data/make_manifest.py msvd VIDEOS

VIDEOS is the folder the archives were unpacked into, with the files of captions anywhere below it; the result is
VIDEOS/manifest.csv, with one row a video, or one a caption (msvd, msr-vtt, flickr8k, flickr30k, coco).
Nothing but the Python standard library is needed. See the page of each data set beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

NOT_VIDEOS = (".csv", ".gz", ".json", ".m", ".mat", ".md", ".pkl", ".rar", ".tar", ".token", ".txt", ".zip")
SPLITS = ("train", "val", "test")

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


def find_videos(videos: Path) -> list[Path]:
    """Return every file under `videos`, sorted, but for hidden ones and those that are plainly no videos."""
    return sorted(
        path
        for path in videos.rglob("*")
        if path.is_file()
        and path.suffix.lower() not in NOT_VIDEOS
        and not any(part.startswith(".") for part in path.relative_to(videos).parts)
    )


# === Labels that are told by file names ===


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


def rows_of_names(videos: Path, row_of: Callable[[Path], dict[str, str]]) -> list[dict[str, str]]:
    """Return a row for each file; ValueError if names do not fit, after each of these was printed."""
    rows, num_bad = [], 0
    for path in find_videos(videos):
        try:
            row = row_of(path)
        except ValueError as expected:
            num_bad += 1
            print(f"{path}: expected {expected}", file=sys.stderr)
        else:
            rows.append({"path": path.relative_to(videos).as_posix(), **row})
    if num_bad:
        raise ValueError(f"names that do not fit: {num_bad}")
    return rows


# === Captions that came in files of their own ===
# Each function yields rows whose `path` is the name of a file, wherever below the folder that is.


def msvd_rows(videos: Path) -> Iterator[dict[str, str]]:
    """Rows of AllVideoDescriptions.txt, lines `ID caption`; the group is the YouTube video, ID without its times.

    With train_list.txt, val_list.txt and test_list.txt, an ID a line, there is a split, and clips in none are left out.
    """
    splits = splits_of_lists(videos, {split: f"{split}_list.txt" for split in SPLITS})
    for number, line in numbered_lines(the_file(videos, "AllVideoDescriptions.txt")):
        id_, _, caption = line.partition(" ")
        if line.startswith("#"):
            continue
        if not re.fullmatch(r".+_\d+_\d+", id_):
            raise ValueError(
                f"AllVideoDescriptions.txt line {number}: expected 'ID_START_END caption', received {line}"
            )
        if not splits or id_ in splits:
            row = {"path": f"{id_}.avi", "caption": caption, "group": id_.rsplit("_", 2)[0]}
            yield {**row, **({"split": splits[id_]} if splits else {})}


def msr_vtt_rows(videos: Path) -> Iterator[dict[str, str]]:
    """Rows of train_val_videodatainfo.json and test_videodatainfo.json; the group is the YouTube video of a clip."""
    for name in ("train_val_videodatainfo.json", "test_videodatainfo.json"):
        if name.startswith("test") and not list(videos.rglob(name)):
            print(f"{videos}: no {name}, so there will be no test split", file=sys.stderr)
            continue
        about = read_json(the_file(videos, name))
        clips = {clip["video_id"]: clip for clip in about["videos"]}
        for sentence in about["sentences"]:
            clip = clips[sentence["video_id"]]
            split = {"validate": "val"}.get(clip["split"], clip["split"])
            if split not in SPLITS:
                raise ValueError(f"{name}: expected a split train, validate or test, received {split}")
            row = {"path": f"{clip['video_id']}.mp4", "caption": sentence["caption"]}
            yield {**row, "group": clip["url"].rpartition("v=")[2], "split": split}


def flickr8k_rows(videos: Path) -> Iterator[dict[str, str]]:
    """Rows of Flickr8k.token.txt or of captions.txt (a CSV `image,caption`), with the official lists if there are."""
    names = {"train": "trainImages", "val": "devImages", "test": "testImages"}
    splits = splits_of_lists(videos, {split: f"Flickr_8k.{name}.txt" for split, name in names.items()})
    if list(videos.rglob("Flickr8k.token.txt")):
        return with_splits(token_rows(the_file(videos, "Flickr8k.token.txt")), splits)
    return with_splits(csv_caption_rows(the_file(videos, "captions.txt")), splits)


def flickr30k_rows(videos: Path) -> Iterator[dict[str, str]]:
    """Rows of results_20130124.token; dataset_flickr30k.json, if it is there, tells the split of Karpathy and Li."""
    name, splits = "dataset_flickr30k.json", {}
    if list(videos.rglob(name)):
        splits = {image["filename"]: image["split"] for image in read_json(the_file(videos, name))["images"]}
        if others := set(splits.values()) - set(SPLITS):
            raise ValueError(f"{name}: expected splits {', '.join(SPLITS)}, received {', '.join(sorted(others))}")
    return with_splits(token_rows(the_file(videos, "results_20130124.token")), splits)


def coco_rows(videos: Path) -> Iterator[dict[str, str]]:
    """Rows of captions_train2017.json and captions_val2017.json; what is called val has the captions to test with."""
    for name, split in (("captions_train2017.json", "train"), ("captions_val2017.json", "test")):
        about = read_json(the_file(videos, name))
        file_names = {image["id"]: image["file_name"] for image in about["images"]}
        for annotation in sorted(about["annotations"], key=lambda annotation: annotation["id"]):
            row = {"path": file_names[annotation["image_id"]], "caption": annotation["caption"]}
            yield {**row, "split": split}


def token_rows(file: Path) -> Iterator[dict[str, str]]:
    """Rows of lines `image.jpg#0<Tab>caption`."""
    for number, line in numbered_lines(file):
        match = re.fullmatch(r"(\S+)#\d+\t(.*)", line)
        if match is None:
            raise ValueError(f"{file.name} line {number}: expected 'image.jpg#0', a tab and a caption, received {line}")
        yield {"path": match[1], "caption": match[2]}


def csv_caption_rows(file: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV `image,caption`, whose captions may hold commas without being quoted."""
    with file.open(encoding="utf-8-sig", newline="") as text:
        header, *rows = [row for row in csv.reader(text) if row] or [[]]
    if header != ["image", "caption"]:
        raise ValueError(f"{file.name}: expected the header image,caption, received {','.join(header)}")
    for name, *caption in rows:
        yield {"path": name, "caption": ",".join(caption)}


def with_splits(rows: Iterable[dict[str, str]], splits: dict[str, str]) -> Iterator[dict[str, str]]:
    """Rows with their split; without any splits as they are, else those without one are left out."""
    return (
        {**row, "split": splits[row["path"]]} if splits else row for row in rows if row["path"] in splits or not splits
    )


def splits_of_lists(videos: Path, names: dict[str, str]) -> dict[str, str]:
    """The split of each line of some lists, split -> file name; empty if none of them is there."""
    if not any(list(videos.rglob(name)) for name in names.values()):
        return {}
    return {line: split for split, name in names.items() for _, line in numbered_lines(the_file(videos, name))}


def the_file(videos: Path, name: str) -> Path:
    """The one file of this name below a folder; ValueError if there is none, or more than one."""
    found = sorted(videos.rglob(name))
    if len(found) != 1:
        places = " and ".join(str(path.relative_to(videos)) for path in found) or "none"
        raise ValueError(f"expected one file {name}, found {places}")
    return found[0]


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The number and text of each line that is not empty."""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def read_json(file: Path) -> Any:
    with file.open(encoding="utf-8") as text:
        return json.load(text)


def rows_of_captions(videos: Path, rows_in: Callable[[Path], Iterable[dict[str, str]]]) -> list[dict[str, str]]:
    """Return a row for each caption whose file is there; what is left out is counted."""
    try:
        named = list(rows_in(videos))
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the file of captions has another form than expected ({error!r})") from error
    paths: dict[str, list[str]] = defaultdict(list)
    for path in find_videos(videos):
        paths[path.name].append(path.relative_to(videos).as_posix())
    wanted = {row["path"] for row in named}
    if twice := [several for name, several in paths.items() if name in wanted and len(several) > 1]:
        raise ValueError(f"files of one name: {' and '.join(twice[0])}")
    if absent := wanted - set(paths):
        num = sum(row["path"] in absent for row in named)
        what = f"captions of {len(absent)} files that are not there, left out"
        print(f"{num} {what}: {name_some(absent)}", file=sys.stderr)
    if unnamed := [path for name, several in paths.items() if name not in wanted for path in several]:
        print(f"{len(unnamed)} files without a caption or split, left out: {name_some(unnamed)}", file=sys.stderr)
    rows = [{**row, "path": paths[row["path"]][0]} for row in named if row["path"] in paths]
    rows = [{**row, "caption": " ".join(row["caption"].split())} for row in rows]
    return keep_groups_together(rows)


def keep_groups_together(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Where the published split divides a group, its clips become groups of their own, which is said."""
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.get("group", "")].add(row.get("split", ""))
    divided = {group for group, of in splits.items() if group and len(of) > 1}
    if divided:
        what = "groups are in more than one part of the published split; a score will be a little too optimistic"
        print(f"{len(divided)} {what}: {name_some(divided)}", file=sys.stderr)
    return [{**row, "group": row["path"]} if row.get("group") in divided else row for row in rows]


LABELLED = {"kth": kth_row, "weizmann": weizmann_row}
CAPTIONED = {
    "msvd": msvd_rows,
    "msr-vtt": msr_vtt_rows,
    "flickr8k": flickr8k_rows,
    "flickr30k": flickr30k_rows,
    "coco": coco_rows,
}
DATA_SETS = (*LABELLED, *CAPTIONED)


def name_some(names: Iterable[str]) -> str:
    first, second, third, *more = [*sorted(names), "", "", ""]
    return ", ".join(filter(None, (first, second, third))) + (" ..." if any(more) else "")


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
    first_rows = {row["path"]: row for row in rows}.values()  # of each video
    counts = [f"{len(first_rows)} {'videos' if 'label' in rows[0] else 'files'}"]
    counts += [f"{len({row[name] for row in rows})} {name}s" for name in ("label", "group") if name in rows[0]]
    if "caption" in rows[0]:
        counts.append(f"{len(rows)} captions")
    splits = Counter(row["split"] for row in first_rows if "split" in row)
    return ", ".join(counts + [f"{splits[split]} {split}" for split in SPLITS if splits[split]])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write VIDEOS/manifest.csv from file names, or files of captions.")
    parser.add_argument("data_set", metavar="DATA_SET", choices=DATA_SETS, help=" or ".join(DATA_SETS))
    parser.add_argument("videos", metavar="VIDEOS", type=Path, help="the folder the archives were unpacked into")
    parser.add_argument("--force", action="store_true", help="replace a manifest.csv that is there already")
    options = parser.parse_args(arguments)

    videos, manifest = options.videos, options.videos / "manifest.csv"
    if not videos.is_dir():
        print(f"{videos}: expected a folder of videos, found none", file=sys.stderr)
        return 1
    if manifest.exists() and not options.force:
        print(f"{manifest} exists already and was left as it is; --force replaces it", file=sys.stderr)
        return 1

    try:
        if options.data_set in LABELLED:
            rows = rows_of_names(videos, LABELLED[options.data_set])
        else:
            rows = rows_of_captions(videos, CAPTIONED[options.data_set])
        if not rows:
            raise ValueError("no videos found" if options.data_set in LABELLED else "no file that has a caption found")
    except ValueError as why:
        print(f"{videos}: {why}; no manifest written", file=sys.stderr)
        return 1

    write_manifest(rows, manifest)
    print(f"{manifest}: {summary(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
