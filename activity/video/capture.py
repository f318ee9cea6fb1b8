"""Frames of a live source: a camera, a network stream, or a file that is being written.

    LiveReader --thread: those that are needed, shrunk, with their times--> queue --> frames()

What a stream sends must be taken when it comes, so a thread of its own reads it. What happens to frames:

- Their time is that of their arrival for cameras and motion JPEG, which have no clock of their own; else the clock of
  the stream, as long as it agrees with the arrival; in files, theirs.
- A stream that ends, or gives no frame for a while, is lost: it is opened again, after 1, 2, 4 ... 30 seconds. A file
  is at its end then; also one that comes by HTTP and says how long it is.
- If frames are not taken as fast as a stream sends them, a whole stretch is left out, never single frames, and the log
  says how much. A file waits.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

from activity.config import ClipSpec
from activity.errors import VideoError
from activity.video.clips import num_times_due
from activity.video.decoder import LiveReader, VideoInfo, is_url, why_unreadable
from activity.video.download import is_http_file, without_password
from activity.video.streams import GAP_SECONDS, Seen, StreamMaker, gap_frames, shrink

_TICKS = 100  # a second, in which frames are counted here: a camera has no even rate
_TRIES_AT_START = 4
_LONGEST_PAUSE_SECONDS = 30.0
_LEAST_STEP_SECONDS = 0.025  # between frames that are kept: more than 40 a second tell no more
_CLOCK_ERROR_SECONDS = 10.0  # by which the clock of a stream may differ from the arrival of its frames
_LEAST_GAP_SECONDS = 0.5  # a shorter one is a hiccup, however short the clips
_REPORT_SECONDS = 60.0  # between two lines of the log on what is left out
_STOP_SECONDS = 1.0  # waited for the thread, which may hang in the network or a pipe


_logger = logging.getLogger(__name__)


def is_live(source: str) -> bool:
    """Whether a source is a camera or a stream: a number that names no file, or a URL."""
    return is_url(source) or (source.isdecimal() and not Path(source).exists())


def live_source(sources: Sequence[str], *, follow: bool) -> str | None:
    """The one of `sources` that is live, if any is: a camera, a stream, or with `follow` a file.

    What comes by HTTP as a whole file is not.

    Raises:
        VideoError: there are others, which would have to wait for its end.
    """
    live = [source for source in sources if follow or (is_live(source) and not is_http_file(source))]
    if live and len(sources) > 1:
        raise VideoError(
            f"a camera, a stream or a file that is followed is labelled alone; received {len(sources)} sources",
            path=without_password(live[0]),
        )
    return live[0] if live else None


class Frame(NamedTuple):
    """A frame of a stream.

    `seconds` are counted from the first frame, `arrived` is what `time.monotonic` said. `copies` is how often it is
    sampled; 0: it is only compared with others. No clip may reach from before a frame that `starts` to after it.
    """

    seconds: float
    arrived: float
    copies: int
    starts: bool
    seen: Seen


def stream_maker(spec: ClipSpec) -> StreamMaker:
    """A maker of the images of frames whose index is their time in `ticks`; it does not wait for a clip of them."""
    return StreamMaker(spec, gap_frames(spec, _TICKS), block=1)


def ticks(seconds: float) -> int:
    """A time as the index of a frame."""
    return round(_TICKS * seconds)


class Capture:
    """The frames of a source that are needed to sample it at a rate; memory does not grow with time.

        with Capture("rtsp://camera/1", spec, rate=6.4, timeout_seconds=10) as capture:
            for frame in capture.frames():

    Args:
        source: the number of a camera, a URL, or a file, which may still grow, or a pipe.
        spec: of the clips that are made of the frames.
        rate: frames a second in a clip.
        timeout_seconds: without a frame, after which a stream is lost and a file at its end.
    """

    def __init__(self, source: str, spec: ClipSpec, rate: float, timeout_seconds: float) -> None:
        self.name = without_password(source)
        self._source, self._spec, self._rate, self._timeout_seconds = source, spec, rate, timeout_seconds
        self._clip_seconds = spec.num_frames / rate
        self._compares = gap_frames(spec, _TICKS) > 0
        self._queue: deque[Frame] = deque()
        self._changed = Condition()  # guards the queue and the next two
        self._stopped = self._ended = False
        self._error: Exception | None = None
        self._first_arrival: float | None = None
        self._skipped_seconds = 0.0
        self._said: dict[str, float] = {}  # kind of message -> when it came last
        self._thread = Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)

    def frames(self) -> Iterator[Frame]:
        """The frames, in order of time, until a file has ended; a stream never does.

        Raises:
            VideoError: there never was a frame.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ended)
                if not self._queue:
                    break
                frame = self._queue.popleft()
                self._changed.notify_all()
            yield frame
        if isinstance(self._error, VideoError):
            raise self._error
        if self._error:
            raise RuntimeError(f"reading {self.name} failed") from self._error

    # === In the thread ===

    def _run(self) -> None:
        try:
            self._read_again_and_again()
        except Exception as error:  # raised where the frames are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_again_and_again(self) -> None:
        failures = 0
        while not self._stopped:
            num_frames, problem = 0, "gives no frame"
            try:
                with self._open() as reader:
                    is_file = self._is_file(reader.info)
                    num_frames = self._read(reader, is_file)
                if is_file and num_frames:
                    return
            except VideoError as error:
                problem = error.reason
            failures = 0 if num_frames else failures + 1
            if self._first_arrival is None and (not is_url(self._source) or failures == _TRIES_AT_START):
                raise VideoError(problem, path=self.name)
            pause = min(2.0 ** max(0, failures - 1), _LONGEST_PAUSE_SECONDS)
            if not self._stopped:
                _logger.warning("%s: %s; retrying in %.0f s", self.name, "lost" if num_frames else problem, pause)
            self._wait_for(lambda: False, pause)

    def _open(self) -> LiveReader:
        """Raises `VideoError`: it does not open; the message says why as far as can be told."""
        try:
            if is_live(self._source):
                return LiveReader(self._source, self._timeout_seconds)
            self._wait_for_content(Path(self._source))
            with _waiting_at_the_end():
                return LiveReader(self._source, self._timeout_seconds)
        except VideoError as error:
            raise VideoError(_why_closed(self._source)) from error

    def _wait_for_content(self, path: Path) -> None:
        """No decoder sees a file that is still empty: it would wait too, but take whatever comes, also a playlist."""
        end = time.monotonic() + self._timeout_seconds
        while path.is_file() and not path.stat().st_size:
            if time.monotonic() > end or self._stopped:
                raise VideoError("is empty", path=path)
            self._wait_for(lambda: False, 0.05)

    def _read(self, reader: LiveReader, is_file: bool) -> int:
        """Queue what is needed of a connection's frames until it ends; returns how many came."""
        plan = _Plan(self._rate, max(self._clip_seconds / 2, _LEAST_GAP_SECONDS), self._compares)
        clock = _Clock(trusted=is_file or self._has_clock(reader.info), checked=not is_file)
        num_frames, num_damaged, previous, leaving_out = 0, 0, 0.0, False
        for index, timestamp in reader:
            if reader.num_damaged > num_damaged:
                num_damaged = reader.num_damaged
                self._say(f"{num_damaged} damaged frames skipped since it was connected")
            arrived = time.monotonic()
            if self._first_arrival is None:
                self._first_arrival = arrived
            elif index == 0:
                _logger.warning("%s: connected again", self.name)
            seconds = clock.read(timestamp, arrived - self._first_arrival)
            num_frames, step, previous = index + 1, seconds - previous, seconds
            if is_file:
                self._wait_for(lambda: not self._is_full(), math.inf)
            if self._stopped:
                break
            if self._is_full() or (leaving_out and self._queue):
                leaving_out = True
                self._skipped_seconds += step
                continue
            if leaving_out:
                leaving_out = False
                self._say(f"comes faster than it can be labelled; {self._skipped_seconds:.1f} s skipped so far")
                plan.start_again()
            needed = plan.next(seconds)
            if needed:
                copies, starts = needed
                self._put(Frame(seconds, arrived, copies, starts, shrink(reader.retrieve_bgr(), self._spec)))
        return num_frames

    def _say(self, what: str) -> None:
        """Log now and then, each kind of message for itself, what may come again and again."""
        kind = what.lstrip("0123456789 ")[:10]
        if time.monotonic() - self._said.get(kind, -math.inf) > _REPORT_SECONDS:
            self._said[kind] = time.monotonic()
            _logger.warning("%s: %s", self.name, what)

    def _is_file(self, info: VideoInfo) -> bool:
        """Whether the end of it is the end: a live stream does not say how long it is."""
        if not self._source.lower().startswith("http"):
            return not is_live(self._source)
        return info.num_frames_claimed > 0 or (self._has_clock(info) and is_http_file(self._source))

    def _has_clock(self, info: VideoInfo) -> bool:
        """Of what comes by HTTP as one JPEG after the other, FFmpeg says that it were 25 a second."""
        return is_url(self._source) and info.fourcc.upper() not in ("MJPG", "MJPEG")

    def _put(self, frame: Frame) -> None:
        with self._changed:
            self._queue.append(frame)
            self._changed.notify_all()

    def _is_full(self) -> bool:
        """Whether more than a clip waits: as much as must lie between two gaps."""
        with self._changed:
            return bool(self._queue) and self._queue[-1].seconds - self._queue[0].seconds > self._clip_seconds

    def _wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or condition(), None if seconds == math.inf else seconds)


def _why_closed(source: str) -> str:
    if is_url(source) or Path(source).is_fifo():
        return "cannot connect: nothing answers there, or not with a video"
    if not is_live(source):
        return why_unreadable(Path(source))
    cameras = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    expected = f"expected {' or '.join(cameras)}" if cameras else "there is no camera"
    return f"camera {source} not found; {expected}"


class _Clock:
    """Seconds of the frames of a connection since the first frame of all.

    `trusted`: the frames have times of their own; `checked`: these must keep pace with the arrival.
    """

    def __init__(self, *, trusted: bool, checked: bool) -> None:
        self._trusted, self._checked = trusted, checked
        self._offset: float | None = None

    def read(self, timestamp: float, arrival: float) -> float:
        """Of a frame with this time of its own, which came so many seconds after the first of all."""
        if self._offset is None:
            self._offset = (arrival if self._checked else 0.0) - timestamp
        own = timestamp + self._offset
        if self._checked and abs(own - arrival) > _CLOCK_ERROR_SECONDS:
            self._trusted = False
        return own if self._trusted else arrival


class _Plan:
    """Which frames of a connection are needed, and how often each is sampled."""

    def __init__(self, rate: float, longest_gap_seconds: float, compares: bool) -> None:
        self._rate, self._longest_gap, self._compares = rate, longest_gap_seconds, compares
        self._start: float | None = None
        self._num_taken, self._last = 0, 0.0

    def start_again(self) -> None:
        """The next frame is the first after a gap."""
        self._start = None

    def next(self, seconds: float) -> tuple[int, bool] | None:
        """How often a frame is sampled, and whether it is the first after a gap; `None` if it is not needed at all."""
        step = seconds - self._last
        starts = self._start is None or not 0 <= step <= self._longest_gap
        if not starts and step < _LEAST_STEP_SECONDS:
            return None
        if starts:
            self._start, self._num_taken = seconds, 0
        self._last = seconds
        elapsed = seconds - self._start  # type: ignore[operator]
        copies = num_times_due(elapsed, self._num_taken, self._rate)
        self._num_taken += copies
        return (copies, starts) if copies or (self._compares and self._is_near(elapsed, step)) else None

    def _is_near(self, elapsed: float, step: float) -> bool:
        """Whether a frame lies where those lie that are compared with a sampled one; see `compared_frames`."""
        after = elapsed % (1 / self._rate)
        return after < GAP_SECONDS + 1.5 * step or 1 / self._rate - after < 2 * GAP_SECONDS + 0.5 * step


@contextlib.contextmanager
def _waiting_at_the_end() -> Iterator[None]:
    """Files opened in the block are read as by `tail -f`, and nothing that is no file.

    OpenCV takes FFmpeg's options from the environment only.
    """
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = {key: value for key, value in os.environ.items() if key == name}
    os.environ[name] = "follow;1|skip_estimate_duration_from_pts;1|protocol_whitelist;file"
    try:
        yield
    finally:
        del os.environ[name]
        os.environ.update(before)
