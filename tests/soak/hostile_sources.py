"""Give `activity classify` and `preprocess` playlists and odd sources: each is labelled, or refused in one line.

    python tests/soak/hostile_sources.py --count 40 --seed 0

Playlists under the names of videos name a video of somebody else and a server on loopback, in the ways that FFmpeg
knows; further sources are damaged, lie in their headers, are no files, or have odd names. Both commands read each, in a
process of their own that must end within 60 seconds. There must be no traceback, no silence about a file that is left
out, nothing that commands a terminal, no connection to the server, the video of somebody else must stay unread, and all
files outside of what the command writes as they were. It prints one line of figures and exits with 1 if any source did
harm. A source takes 4 seconds, and 1 GB of a sparse file for a moment.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hostile_models import good_model

from activity.video.writer import write_video

_PACKAGE = Path(__file__).parents[2]
MOST_SECONDS = 60
_NUM_GOOD = 6  # videos beside the source, as many as a split needs
Make = Callable[[Path, "World"], object]  # writes a source to a path


class World(NamedTuple):
    """What a source may abuse: a good video, one of somebody else, an address, and chance."""

    good: bytes
    secret: Path
    address: str
    rng: random.Random


# === Playlists: none may be opened ===


def playlist(text: str) -> Make:
    """A text with the video of somebody else as SECRET and the server as SERVER."""

    def make(path: Path, world: World) -> None:
        secret = os.path.relpath(world.secret, path.parent) if "RELATIVE" in text else str(world.secret)
        told = text.replace("SECRET", secret).replace("RELATIVE", "").replace("SERVER", world.address)
        path.write_bytes(told.encode())

    return make


_HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n"
_SMIL = '<smil><body><video src="SECRET"/><video src="http://SERVER/a.ts"/></body></smil>'
_DASH = """<?xml version="1.0"?>
<MPD type="static" mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1"><BaseURL>SECRET</BaseURL></Representation></AdaptationSet></Period></MPD>
"""
PLAYLISTS: dict[str, Make] = {
    "hls.mp4": playlist(f"{_HLS}SECRET\n#EXT-X-ENDLIST\n"),
    "hls relative.m3u8": playlist(f"{_HLS}SECRETRELATIVE\n"),
    "hls address.mp4": playlist(f"{_HLS}http://SERVER/a.ts\n#EXT-X-ENDLIST\n"),
    "hls file address.ts": playlist(f"{_HLS}file://SECRET\n#EXT-X-ENDLIST\n"),
    "hls of two.m3u8": playlist(f"{_HLS}concat:http://SERVER/head|file://SECRET\n#EXT-X-ENDLIST\n"),
    "hls key.mp4": playlist(f'{_HLS}#EXT-X-KEY:METHOD=AES-128,URI="http://SERVER/key"\nSECRET\n#EXT-X-ENDLIST\n'),
    "hls master.mp4": playlist("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://SERVER/master.m3u8\n"),
    "hls live.mkv": playlist(f"{_HLS}#EXT-X-PLAYLIST-TYPE:EVENT\nSECRET\n"),
    "hls after blanks.mp4": playlist(f"\ufeff \r\n\t{_HLS}SECRET\n#EXT-X-ENDLIST\n"),
    "hls after a tag.mp4": lambda path, world: path.write_bytes(
        b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + f"{_HLS}{world.secret}\n#EXT-X-ENDLIST\n".encode()
    ),
    "hls in capitals": playlist(f"{_HLS.lower()}SECRET\n"),
    "concat.mp4": playlist("ffconcat version 1.0\nfile 'SECRET'\n"),
    "concat relative.avi": playlist("ffconcat version 1.0\nfile 'SECRETRELATIVE'\n"),
    "concat address.mp4": playlist("ffconcat version 1.0\nfile 'http://SERVER/a.ts'\n"),
    "concat itself.mp4": playlist("ffconcat version 1.0\nfile 'concat itself.mp4'\n"),
    "concat many.mp4": playlist("ffconcat version 1.0\n" + "file 'SECRET'\n" * 20_000),
    "concat for ever.mp4": playlist("ffconcat version 1.0\n" + "file 'SECRET'\nduration 1e12\n" * 5),
    "sdp.mp4": playlist("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
    "dash.mp4": playlist(_DASH),
    "smil.mp4": playlist(_SMIL),
    "asx.mp4": playlist('<asx version="3.0"><entry><ref href="http://SERVER/a.asf"/></entry></asx>'),
    "reference.mp4": playlist("[Reference]\nRef1=http://SERVER/a.asf\n"),
    "rtsptext.mp4": playlist("rtsptext rtsp://SERVER/x\n"),
    "imf.mxf": playlist('<?xml version="1.0"?>\n<CompositionPlaylist><File>SECRET</File></CompositionPlaylist>'),
    "m3u.avi": playlist("#EXTM3U\nSECRET\n"),
}


# === Odd sources: labelled or refused, but never in silence ===


def changed(change: Callable[[bytearray, random.Random], object]) -> Make:
    """The good video, of which a function changes the bytes."""

    def make(path: Path, world: World) -> None:
        data = bytearray(world.good)
        change(data, world.rng)
        path.write_bytes(data)

    return make


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 200)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _header(offset: int, value: int) -> Make:
    """A number in the header of the good AVI: 'avih' (OpenDML AVI 1.02) or the frame rate in 'strh'."""

    def change(data: bytearray, _: random.Random) -> None:
        start = data.index(b"avih" if offset < 100 else b"strh") + 8 + offset % 100
        data[start : start + 4] = value.to_bytes(4, "little")

    return changed(change)


def _sparse(path: Path, _: World) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _written(**options: float) -> Make:
    shape = tuple(int(options.get(name, 16)) for name in ("num_frames", "height", "width"))
    rate = options.get("frames_per_second", 10.0)
    return lambda path, _: write_video(path, np.zeros((*shape, 3), np.uint8), frames_per_second=rate)


_FTYP = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
ODD: dict[str, Make] = {
    "cut.avi": changed(_cut),
    "flipped.avi": changed(_flip),
    "half.mp4": changed(_cut),
    "noise.mp4": lambda path, world: path.write_bytes(world.rng.randbytes(50_000)),
    "empty.avi": lambda path, _: path.write_bytes(b""),
    "zeros.mp4": _sparse,
    "ever.mjpeg": lambda path, _: path.write_bytes(b"\xff\xd8\xff\xd9" * 50_000),
    "text.avi": lambda path, _: path.write_text("path,label\n"),
    "half a header.mp4": lambda path, _: path.write_bytes(_FTYP[:12]),
    "box without end.mp4": lambda path, _: path.write_bytes(_FTYP + b"\0\0\0\1moov" + b"\xff" * 8),
    "boxes in boxes.mp4": lambda path, _: path.write_bytes(_FTYP + b"\0\0\4\0moov" + b"\0\0\0\x10trak" * 126),
    "song.mp3": lambda path, _: path.write_bytes(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + b"\xff\xfb\x90\0" * 5000),
    "claims many.avi": _header(16, 2**31 - 1),
    "claims none.avi": _header(16, 0),
    "huge.avi": _header(32, 100_000),
    "no rate.avi": _header(120, 0),
    "fast.avi": _header(124, 2**31 - 1),
    "slow.avi": _written(num_frames=3, frames_per_second=0.01),
    "one frame.avi": _written(num_frames=1),
    "thin.avi": _written(num_frames=4, height=2, width=600),
    "esc\x1b]0;x\x07\x1b[2J.avi": changed(lambda *_: None),
    "line\nfeed.avi": changed(lambda *_: None),
    "=cmd()|'x'.avi": changed(lambda *_: None),
    f"{'long' * 60}.avi": changed(lambda *_: None),
    "take_%03d.jpg": changed(lambda *_: None),
    "concat:a|b.avi": changed(lambda *_: None),
    "-i.avi": changed(lambda *_: None),
    "pipe.avi": lambda path, _: os.mkfifo(path),
    "folder.avi": lambda path, _: path.mkdir(),
    "device.avi": lambda path, _: path.symlink_to("/dev/zero"),
    "itself.avi": lambda path, _: path.symlink_to(path.name),
}


class Listener:
    """A server on loopback that nobody may ask."""

    def __enter__(self) -> Listener:
        listener, self.num_asked = self, 0

        class Count(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                listener.num_asked += 1

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Count)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def state_of(folder: Path) -> dict[str, bytes]:
    """The content of all files in a folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(folder: Path, *words: str | Path) -> tuple[str, str, int]:
    """A command: what is wrong with how it ended, what it said, and its exit status."""
    command = [sys.executable, "-m", "activity", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE), os.environ.get("PYTHONPATH", "")])}
    options = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, "capture_output": True}
    try:
        done = subprocess.run(command, timeout=MOST_SECONDS, check=False, **options)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        return "it hangs", "", -1
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if "Traceback" in said:
        return f"a traceback: {said[-300:]}", said, done.returncode
    if done.returncode not in (0, 1):
        return f"exit status {done.returncode}: {said[-300:]}", said, done.returncode
    if unsafe := {x for x in said if not x.isprintable() and x != "\n"}:
        return f"it prints {unsafe}", said, done.returncode
    return "", said, done.returncode


def classify(folder: Path, model: Path, source: Path, *, refused: bool) -> str:
    """What is wrong with how `classify` takes a source; empty if nothing is."""
    wrong, said, status = run(folder, "classify", model, source, "--timeline")
    lines = [line for line in said.splitlines() if line.startswith("activity: ")]
    if not wrong and (len(lines) != status or (refused and not status)):
        return f"exit status {status}, and it says: {said[-300:]}"
    return wrong


def preprocess(folder: Path, source: Path, *, refused: bool) -> str:
    """What is wrong with how `preprocess` takes a source; empty if nothing is."""
    options = ["--num-frames", "2", "--size", "16", "--workers", "1", "--time-limit", "20", "--streams", "rgb"]
    wrong, said, status = run(folder, "preprocess", folder / "videos", "--out", folder / "dataset", *options)
    if wrong or status:
        return wrong or f"the good videos are lost: {said[-300:]}"
    tables = {}
    for name in ("manifest.csv", "problems.csv"):
        with (folder / "dataset" / name).open(encoding="utf-8", newline="") as file:
            tables[name] = list(csv.DictReader(file))
    num_read, num_problems = len(tables["manifest.csv"]) - _NUM_GOOD, len(tables["problems.csv"])
    if num_read + num_problems == 0 and "left out" not in said and source.is_file():
        return "it is left out in silence"
    return "it is read" if refused and num_read else ""


def notices_reads(path: Path) -> bool:
    """Whether reading a file shows in its time of access here; not every file system keeps it."""
    os.utime(path, (1, time.time()))
    path.read_bytes()
    return path.stat().st_atime > 1


def soak(count: int, seed: int) -> tuple[str, list[str]]:
    """Read so many sources, each kind before any comes again; returns one line of figures, and what went wrong."""
    rng, failures, slowest = random.Random(seed), list[str](), 0.0
    kinds = {**PLAYLISTS, **ODD}
    names = rng.sample(sorted(kinds), len(kinds))
    with tempfile.TemporaryDirectory() as name, Listener() as listener:
        outside, model = Path(name, "outside"), Path(name, "model.keras")
        outside.mkdir()
        noise = np.random.default_rng(seed).integers(0, 256, (_NUM_GOOD, 12, 16, 16, 3), dtype=np.uint8)
        for number, frames in enumerate(noise):
            path = Path(name, "good", "odd" if number % 2 else "good", f"{number}.avi")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, frames, frames_per_second=10)
        good_model(model)
        secret = outside / "secret.avi"
        write_video(secret, noise[:, 0], frames_per_second=10)
        is_noticed = notices_reads(secret)
        world = World(secret.read_bytes(), secret, listener.address, rng)
        if wrong := classify(outside, model, secret, refused=False):
            return "the good video cannot be labelled", [wrong]
        for index in range(count):
            case, folder = names[index % len(names)], Path(name, str(index))
            shutil.copytree(Path(name, "good"), folder / "videos")
            source = folder / "videos" / "odd" / case
            kinds[case](source, world)
            before = state_of(outside)
            os.utime(secret, (1, time.time()))
            began, refused = time.monotonic(), case in PLAYLISTS
            found = [classify(folder, model, source, refused=refused), preprocess(folder, source, refused=refused)]
            slowest = max(slowest, time.monotonic() - began)
            if is_noticed and secret.stat().st_atime > 1:
                found.append("the video of somebody else was read")
            if listener.num_asked:
                found.append(f"the server was asked {listener.num_asked} times")
                listener.num_asked = 0
            if state_of(outside) != before or {path.name for path in folder.iterdir()} - {"videos", "dataset"}:
                found.append("files were written outside")
            failures += [f"{case!r}: {wrong}" for wrong in found if wrong]
            shutil.rmtree(folder)
    unnoticed = "" if is_noticed else " (this file system does not tell what was read)"
    figures = f"{count} sources of {len(kinds)} kinds, seed {seed}: {len(failures)} failures{unnoticed}"
    return f"{figures}; the slowest took {slowest:.1f} s for both commands", failures


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=40, help="sources; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of their order and bytes; default: %(default)s")
    figures, failures = soak(**vars(parser.parse_args()))
    print("\n".join([*failures, figures]))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
