"""Give `activity preprocess` hostile manifests: no traceback, no hang, and nothing written outside of its folder.

    python tests/soak/hostile_manifests.py --count 60 --seed 0

Each trial puts one hostile row, file or table beside six good videos. The command must end within 60 seconds, with
exit status 0 or with one line of ours and 1; what it says must be harmless to a terminal; and all files outside of the
data set folder must be as they were. It prints one line of figures and exits with 1 if any trial failed. A trial takes
2 seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from activity.video.writer import write_video

_PACKAGE = Path(__file__).parents[2]
GOOD = {f"{name}.avi": label for name, label in zip("abcdef", ("run", "walk") * 3, strict=True)}


def table(*rows: str, header: str = "path,label") -> Callable[[Path], None]:
    """Make a manifest with the good videos, and these rows after them."""
    commas = "," * header.count(",")

    def make(folder: Path) -> None:
        good = [f"{path},{label}{commas[1:]}" for path, label in GOOD.items()]
        text = "\n".join([header, *good, *rows, ""])
        (folder / "manifest.csv").write_bytes(text.encode("utf-8", "surrogateescape"))

    return make


def labelled(label: str) -> Callable[[Path], None]:
    """Give one of the good videos a label."""

    def make(folder: Path) -> None:
        shutil.copy(folder / "a.avi", folder / "copy.avi")
        quoted = label.replace('"', '""')
        table(f'copy.avi,"{quoted}"')(folder)

    return make


def holding(name: str, content: bytes | Callable[[Path], object]) -> Callable[[Path], None]:
    """Put a file, or what a function makes, into the folder, and name it in the manifest."""

    def make(folder: Path) -> None:
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content)
        table(f'"{name}",x')(folder)

    return make


def raw(content: bytes) -> Callable[[Path], None]:
    """Take these bytes for the manifest."""
    return lambda folder: (folder / "manifest.csv").write_bytes(content)  # type: ignore[return-value]


def _segments(*times: str) -> Callable[[Path], None]:
    return table(*(f"a.avi,run,{time}" for time in times), header="path,label,start_seconds,end_seconds")


PATHS = (
    *("../outside.avi", "/etc/passwd", "file:///etc/passwd", "rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x.mp4"),
    *("concat:a.avi|b.avi", "subfile,,start,0,end,100,,:a.avi", "/dev/zero", "C:\\x.avi", "..\\..\\x.avi", "a\0b.avi"),
    *(".", "./", "a.avi/", "a.avi/..", "CON", "%d.avi", "*.avi", "x" * 300, "x" * 5000, "~/x.avi", "$HOME/x.avi"),
)
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
LABELS = (
    *("\x1b]0;title\x07\x1b[31mred", "../../x", "CON", ".", "y" * 5000, "=cmd()|x", "<script>alert(1)</script>"),
    *("\u202efdp.exe", "a\nb", "train", "run\u200b", "unknown", "%s%n", "{0.__class__}", "nan", "-", "\0"),
)
CASES: dict[str, Callable[[Path], object]] = {
    **{f"path {path[:20]!r}": table(f'"{path}",x') for path in PATHS},
    **{f"label {label[:20]!r}": labelled(label) for label in LABELS},
    "a link to /dev/zero": holding("z.mp4", lambda path: path.symlink_to("/dev/zero")),
    "a link to /etc/passwd": holding("z.mp4", lambda path: path.symlink_to("/etc/passwd")),
    "a link to itself": holding("z.mp4", lambda path: path.symlink_to(path)),
    "a pipe": holding("z.mp4", os.mkfifo),
    "a folder": holding("z.mp4", Path.mkdir),
    "a loop of folders": lambda folder: ((folder / "z").symlink_to(folder), table("z/z/z/a.avi,x")(folder)),
    "a name with a newline": holding("a\nb.avi", b"no video"),
    "a playlist": holding("z.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
    "a list of files": holding("z.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "an empty file": holding("z.mp4", b""),
    "half a header": holding("z.mp4", b"\0\0\0\x18ftypmp42"),
    "times that are no numbers": _segments("nan,", ",inf", "1e400,", "x,y"),
    "times beyond the end": _segments("1e308,", "0,1e-9"),
    "a sample_id of its own": table("a.avi,x,../../../PWNED", header="path,label,sample_id"),
    "a number of frames of its own": table("a.avi,x,99999999", header="path,label,num_frames"),
    "a huge cell": table(f"a.avi,x,{'y' * 200_000}", header="path,label,z"),
    "captions of all kinds": table(
        *(
            f'a.avi,run,"{text}"'
            for text in ("=cmd()|x", "\x1b]0;title\x07", "\u202efdp", "\u200b", "a\nb", "y" * 5000, "-1")
        ),
        header="path,label,caption",
    ),
    "captions of one video that disagree": table("a.avi,run,x", "a.avi,walk,y", header="path,label,caption"),
    "an image that claims to be huge": holding("z.png", _PNG_HEAD + b"\0\0\xc3\x50" * 2 + b"\x08\x02\0\0\0"),
    "half an image": holding("z.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
    "a text that is called an image": holding("z.webp", b"no image"),
    "an image that is a link to /dev/zero": holding("z.png", lambda path: path.symlink_to("/dev/zero")),
    "two columns of one name": table("a.avi,x,y", header="path,label,label"),
    "ten thousand columns": raw(b"path,label," + b",".join(b"c%d" % i for i in range(10_000)) + b"\na.avi,x\n"),
    "a thousand absent files": table(*(f"{i}.avi,x" for i in range(1000))),
    "bytes that are not UTF-8": raw(b"path,label\na.avi,caf\xe9\n"),
    "UTF-16": raw("path,label\na.avi,x\n".encode("utf-16")),
    "an open quotation": raw(b'path,label\na.avi,"run\n'),
    "nothing": raw(b""),
    "another kind of file": raw(bytes(range(256)) * 99),
    "no manifest but a link to /dev/zero": lambda folder: (folder / "manifest.csv").symlink_to("/dev/zero"),
}


def state_of(folder: Path) -> dict[str, object]:
    """What lies in a folder, but for the data set: the content of files, the kind of all else."""
    paths = sorted(path for path in folder.rglob("*") if path.parts[len(folder.parts)] != "dataset")
    return {str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else "" for path in paths}


def trial(folder: Path, make: Callable[[Path], object]) -> str:
    """One hostile manifest; returns what is wrong, or nothing."""
    videos = folder / "videos"
    make(videos)
    before = state_of(folder)
    options = ["--num-frames", "2", "--size", "16", "--workers", "1", "--time-limit", "10", "--streams", "rgb"]
    command = [sys.executable, "-m", "activity", "preprocess", str(videos), "--out", str(folder / "dataset"), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE), os.environ.get("PYTHONPATH", "")])}
    try:
        run = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "it hangs"
    said = (run.stdout + run.stderr).decode("utf-8", "replace")
    lines = [line for line in said.splitlines() if line.startswith("activity: ")]
    if "Traceback" in said or run.returncode not in (0, 1) or len(lines) != run.returncode:
        return f"exit status {run.returncode}: {said[-300:]}"
    if unsafe := {x for x in said if not x.isprintable() and x not in "\n\u200b"}:
        return f"it prints {unsafe}"
    if state_of(folder) != before:
        return f"it changes {set(state_of(folder).items()) ^ set(before.items())}"[:300]
    outside = [path for path in (folder / "dataset").rglob("*") if path.is_symlink()]
    return f"it makes links: {outside}" if outside else ""


def soak(count: int, seed: int) -> tuple[str, list[str]]:
    """Run the trials, all cases in a random order and again; returns one line of figures, and what went wrong."""
    names = random.Random(seed).sample(sorted(CASES), len(CASES))
    failures = []
    with tempfile.TemporaryDirectory() as name:
        good = Path(name, "good")
        good.mkdir()
        for index, path in enumerate(GOOD):
            write_video(good / path, [np.full((16, 16, 3), 40 * index, np.uint8)] * 5, frames_per_second=10)
        for index in range(count):
            case, folder = names[index % len(names)], Path(name, str(index))
            shutil.copytree(good, folder / "videos")
            if wrong := trial(folder, CASES[case]):
                failures.append(f"{case}: {wrong}")
            shutil.rmtree(folder)
    return f"{count} manifests of {len(CASES)} hostile kinds, seed {seed}: {len(failures)} failures", failures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=len(CASES), help="manifests; default: all %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of their order; default: %(default)s")
    figures, failures = soak(**vars(parser.parse_args()))
    print("\n".join([*failures, figures]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
