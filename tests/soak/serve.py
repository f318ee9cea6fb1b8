"""Crowds and hostile clients at the page: every answer must be right or a clear refusal, memory and disk flat.

    python tests/soak/serve.py --at-once 50 --in-turn 300 --cut-off 20 --large 5 --silent 400

A small model is trained on drawn videos and served by `activity serve`. Then come: visitors at once and one after the
other, each with a video of its own, whose label must be that of `activity classify`; some close the page while theirs
is labelled; uploads that are cut off, and such that announce 2 GB; connections that ask for nothing; requests by a
foreign name and from a foreign page. At the end nothing of a visitor may be left on the disk, but uploads whose page
was closed before it asked for labels, which go after five minutes; memory may have grown by 150 MB at most between the
first quarter of the visitors in turn and the last, and Ctrl-C must end the page within 2 seconds. It prints one line of
figures and exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from activity.cli.main import main as activity
from activity.datasets.synthetic import write_videos
from activity.predictor.predictor import Predictor

MEGABYTES = 2  # largest upload of the page
_MOST_GROWTH = 150  # MB
_PATIENCE_SECONDS = 600


class Page:
    """A page that is served by the command line.

    Args:
        model: that it serves.
        folder: for its temporary files.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["serve", str(model), "--port", str(self.port), "--max-megabytes", str(MEGABYTES)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "activity", *command, "--runtime", "keras"],
            env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = f"http://127.0.0.1:{self.port}"
        assert self.process.stdout
        self.process.stdout.readline()  # it is there
        config = json.loads(self.get("/config"))
        (self.look_id,) = (each["id"] for each in config["dependencies"] if each["api_name"] == "look")

    def get(self, path: str, **headers: str) -> bytes:
        """What the page answers."""
        request = urllib.request.Request(self.address + path, headers=headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
            return answer.read()

    def post(self, path: str, body: bytes, kind: str = "application/json") -> bytes:
        """What the page answers to some content."""
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
            return answer.read()

    def visit(self, video: bytes, *, leave_after: float | None = None) -> str:
        """Open the page, send a video, and close the page; the label, or why there is none."""
        session = uuid.uuid4().hex
        with self.heartbeat(session):
            head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="v.avi"\r\n\r\n'
            try:
                body = head + video + b"\r\n--x--\r\n"
                (path,) = json.loads(self.post("/gradio_api/upload", body, "multipart/form-data; boundary=x"))
            except urllib.error.HTTPError as error:
                return error.read().decode()
            value = {"path": path, "meta": {"_type": "gradio.FileData"}}
            ask = {"data": [value], "fn_index": self.look_id, "session_hash": session}
            self.post("/gradio_api/queue/join", json.dumps(ask).encode())
            url = f"{self.address}/gradio_api/queue/data?session_hash={session}"
            said, began = "", time.monotonic()
            with urllib.request.urlopen(url, timeout=_PATIENCE_SECONDS) as lines:
                for line in lines:
                    said += line.decode()
                    if leave_after is not None and time.monotonic() - began > leave_after:
                        return "left"
                    if '"process_completed"' in said[-len(line) :]:
                        break
        for word in said.split('"'):
            if word.startswith("## "):
                return word.removeprefix("## ").removeprefix("mostly ")
        for word in ("are waiting already", "too many visitors"):
            if word in said:
                return "full"
        return said[-300:]

    @contextlib.contextmanager
    def heartbeat(self, session: str):
        """The connection by which a browser tells that its page is open."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            head = f"GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n"
            client.sendall(head.encode())
            client.recv(100)
            yield

    def upload_in_part(self, announced: int, sent: int) -> str:
        """Announce an upload, send a part of it, and hang up; the status of an answer that came before."""
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: {announced}\r\n"
        head += (
            'Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name="files"; '
        )
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(f'{head}filename="v.avi"\r\n\r\n'.encode())
            with contextlib.suppress(OSError):
                client.sendall(bytes(sent))
            client.settimeout(2)
            with contextlib.suppress(OSError):
                return client.recv(100).decode().split()[1]
        return ""

    @property
    def megabytes(self) -> float:
        """The memory that it takes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def left(self) -> list[Path]:
        """Files of visitors on the disk."""
        return [path for path in self.folder.glob("activity-page-*/**/*") if path.is_file()]

    def end(self) -> tuple[float, str]:
        """Press Ctrl-C; how many seconds it took to end, and what it said."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=60)
        return time.monotonic() - began, said


def soak(folder: Path, *, at_once: int, in_turn: int, cut_off: int, large: int, silent: int) -> tuple[str, list[str]]:
    """Let them all come; one line of figures, and what was wrong.

    Args:
        folder: for all files.
        at_once: visitors at the same time.
        in_turn: visitors one after the other.
        cut_off: uploads that are cut off.
        large: uploads that announce 2 GB.
        silent: connections that ask for nothing.
    """
    write_videos(folder / "videos", num_performers=3, num_takes=1, height=48, width=48)
    size = ["--num-frames", "6", "--size", "32", "--streams", "rgb"]
    recipe = ["--backbone", "small_cnn", "--members", "1", "--epochs", "60", "--learning-rate", "0.01"]
    assert activity(["preprocess", str(folder / "videos"), "--out", str(folder / "dataset"), *size]) == 0
    assert activity(["train", str(folder / "dataset"), "--out", str(folder / "m.keras"), *recipe]) == 0
    videos = sorted((folder / "videos").glob("*/*.*"))
    predictor = Predictor.load(folder / "m.keras", runtime="keras")
    expected = [predictor.predict(path).label for path in videos]
    assert len(set(expected)) > 2, "the model does not tell the videos apart"
    (folder / "served").mkdir()
    page, wrong, answers = Page(folder / "m.keras", folder / "served"), list[str](), collections.Counter[str]()

    def visit(number: int, leave_after: float | None = None) -> None:
        index = number % len(videos)
        # Bytes after the end of an AVI are of no consequence; so no two uploads are the same.
        answer = page.visit(videos[index].read_bytes() + number.to_bytes(4, "big"), leave_after=leave_after)
        answers["right" if answer == expected[index] else answer if answer in ("full", "left") else "wrong"] += 1
        if answer not in (expected[index], "full", "left"):
            wrong.append(f"visitor {number}: expected {expected[index]}, received: {answer}")

    began = time.monotonic()
    visit(0)
    crowd = [threading.Thread(target=visit, args=(n, 0.5 if n % 5 == 4 else None)) for n in range(1, at_once + 1)]
    for visitor in crowd:
        visitor.start()
    for visitor in crowd:
        visitor.join()
    first = last = page.megabytes
    for number in range(in_turn):
        visit(10_000 + number)
        if number == in_turn // 4:
            first = page.megabytes
    last = page.megabytes
    if answers["full"] and at_once <= 20:
        wrong.append("the page was full")
    if last - first > _MOST_GROWTH:
        wrong.append(f"memory grew from {first:.0f} to {last:.0f} MB")
    statuses = [page.upload_in_part(MEGABYTES * 10**6, 10**6) for _ in range(cut_off)]
    statuses += [page.upload_in_part(2 * 10**9, 10**6) for _ in range(large)]
    if statuses != cut_off * [""] + large * ["413"]:
        wrong.append(f"uploads: {statuses}")
    with contextlib.ExitStack() as stack:
        for _ in range(silent):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
            client.sendall(b"GET / HTTP/1.1\r\nX: ")
        page.get("/config")
        if silent:
            client.settimeout(25)
            if client.recv(1):
                wrong.append("a connection that asks for nothing was answered")
    for headers, status in (({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403)):
        try:
            page.get("/config", **headers)
            wrong.append(f"{headers} was let in")
        except urllib.error.HTTPError as error:
            if error.code != status:
                wrong.append(f"{headers}: {error.code}")
    for _ in range(50):
        if not (left := page.left()):
            break
        time.sleep(0.2)
    if len(left) > answers["left"]:  # whose page was closed before it asked: these go after some minutes
        wrong.append(f"left: {left[:5]}")
    took = time.monotonic() - began
    seconds, said = page.end()
    if seconds > 2 or said.splitlines()[-1:] != ["activity: stopped"]:
        wrong.append(f"ended after {seconds:.1f} s: {said[-300:]}")
    if "Traceback" in said:
        wrong.append(said[-2000:])
    counted = ", ".join(f"{number} {answer}" for answer, number in sorted(answers.items()))
    line = (
        f"{at_once} visitors at once, {in_turn} in turn: {counted}; {cut_off} uploads cut off, {large} of 2 GB, "
        f"{silent} silent connections; {first:.0f} MB of memory, then {last:.0f}; {len(left)} files left; "
        f"Ctrl-C took {seconds:.1f} s; {took:.0f} s in all"
    )
    return line, wrong


def main() -> int:
    """Run it; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"at-once": 50, "in-turn": 300, "cut-off": 20, "large": 5, "silent": 400}
    for name, number in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    with tempfile.TemporaryDirectory() as folder:
        line, wrong = soak(Path(folder), **vars(parser.parse_args()))
    print("\n".join([*wrong, line]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
