"""Read and write videos: the only user of OpenCV's readers and writers.

Frames are `(H, W, 3)` uint8 RGB, in display orientation. Nothing here believes a header: counts and times are those
of frames that were really decoded (OpenCV issues 15569 and 9053: header counts and seeking are unreliable).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import cv2
import numpy as np

from activity.errors import VideoError, is_utf8
from activity.video.diagnosis import EBML, INSTALL, remedy, video_tracks, why_mp4_unreadable, why_refused
from activity.video.pyav import PyAVCapture

# FFmpeg writes a line of stderr per damaged macroblock; we report one reason per file instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

if hasattr(cv2, "setLogLevel"):  # OpenCV 4
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


_FALLBACK_FRAMES_PER_SECOND = 25.0  # where a header claims none, or nonsense
_MAX_GAP_SECONDS = 60.0  # a frame of a stream may last so long; a longer gap is a jump of its clock
_MAX_INDEXED_GAP_SECONDS = 86400.0  # ... in containers with an index of times, such as slides and time-lapses have
# Frames that OpenCV decodes unseen after a key frame: it starts 16 before the one it is asked for, and FFmpeg lands a
# whole GOP earlier unless that is later than the key frame, by up to the delay of B-frames where the rate varies
_LANDING = 20
_SEEK_PAYS = 32  # frames that must be skipped; to seek costs about as much as to decode a few
_MOST_INDEXED = 1_000_000  # frames, of 11 hours at 25 a second: bounds time and memory of an index
SMALLER = "make it smaller"
_MOST_PIXELS = 40_000_000  # of a frame: more than 8K has; decoders hold several of them
_IMAGES = {"MJPG", "JPEG", "MPNG", "PNG", "BMP", "GIF", "WEBP"}  # codecs of cover pictures
_MOST_DAMAGED = 50  # frames of a stream in a row; then it has ended
_STALL_SECONDS = 0.5
_URL = re.compile(r"(rtsps?|rtmps?|rtp|srt|https?|udp|tcp)://", re.IGNORECASE)


Check: TypeAlias = Callable[[float], object]  # of seconds from the first frame; what it raises ends the reading


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video. `num_frames_claimed` is a hint, not a count: 0 when the header gives none.

    Attributes:
        height, width: of a frame in pixels, rotation metadata applied.
        frames_per_second: nominal; a variable frame rate shows only in the timestamps.
        num_frames_claimed: frames according to the header.
        fourcc: four letters of the codec, such as `h264`.
        is_image: whether it is a single image, which lasts no time.
    """

    height: int
    width: int
    frames_per_second: float
    num_frames_claimed: int
    fourcc: str
    is_image: bool = False

    @property
    def duration_seconds_claimed(self) -> float:
        """Claimed frames over the nominal rate; 0 when the header gives no count, and of a single image."""
        return 0.0 if self.is_image else self.num_frames_claimed / self.frames_per_second


class SeekError(VideoError):
    """A seek does not find what the index of the video promised."""


@dataclass(frozen=True)
class FrameIndex:
    """Which frames a video holds, read from its packets without decoding one.

    Attributes:
        milliseconds: `(N,)` float64, rising: the clock of each frame as the container has it, in the order of showing.
        key_frames: `(K,)` int64, rising: which of them can be decoded without an earlier one.
    """

    milliseconds: np.ndarray
    key_frames: np.ndarray

    @property
    def timestamps_seconds(self) -> np.ndarray:
        """`(N,)` of each frame, counted from the first."""
        return (self.milliseconds - self.milliseconds[0]) / 1000

    def start_for(self, index: int) -> int:
        """The last key frame from which a seek lands on a frame or before it; 0 if there is none."""
        before = int(np.searchsorted(self.key_frames, index - _LANDING, side="right"))
        return int(self.key_frames[before - 1]) if before else 0


_Reader = TypeVar("_Reader", bound="VideoReader")


class VideoReader:
    """Frames of a video in order; a frame is only converted when `retrieve` asks for it.

        with VideoReader(path) as reader:
            for index, timestamp_seconds in reader:
                if wanted(index):
                    frame = reader.retrieve()    # (H, W, 3) uint8 RGB

    Args:
        path: a video file.
        num_threads: decoding threads; 1 keeps parallel workers from multiplying, 0 lets FFmpeg choose.
        check: called with the time of each frame that passes, also of one that nobody takes.

    Attributes:
        info: what the header claims.
        note: what the user should know of how it was read, or `None`.
        jumped_seconds: by how much its clock jumped, all together.

    Raises:
        VideoError: the file does not open as a video; the message says why as far as the file tells.
    """

    note: str | None = None
    jumped_seconds = 0.0

    def __init__(self, path: Path, *, num_threads: int = 1, check: Check | None = None) -> None:
        self.path, self.num_threads, self.check = Path(path), num_threads, check
        name, tracks = name_for_decoder(self.path), video_tracks(self.path)
        for track in tracks:  # before a decoder makes room for a frame
            self._check_pixels(track.height, track.width)
        # FFMPEG by name: OpenCV would otherwise try `name_%03d` image sequences and cameras.
        parameters = [cv2.CAP_PROP_N_THREADS, num_threads]
        self._capture: cv2.VideoCapture | PyAVCapture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, parameters)
        if (len(tracks) > 1 or not self._capture.isOpened()) and not self._fall_back():
            if not self._capture.isOpened():
                raise VideoError(why_unreadable(self.path), path=self.path)
            self.note = f"the first of {len(tracks)} video streams is read; PyAV reads the default one: {INSTALL}"
        self._begin()
        if not tracks and self.info.fourcc.upper() in _IMAGES and _keeps_an_index(self.path):
            raise VideoError("a sound file; a cover picture is no video", path=self.path)

    def _fall_back(self) -> bool:
        """Whether PyAV reads it; if so, it does from now on."""
        capture = PyAVCapture(name_for_decoder(self.path), num_threads=self.num_threads, max_pixels=_MOST_PIXELS)
        if not capture.isOpened():
            capture.release()
            return False
        self._capture.release()
        self._capture = capture
        return True

    def _check_pixels(self, height: int, width: int) -> None:
        if height * width > _MOST_PIXELS:
            reason = f"has frames of {width}x{height} pixels; expected up to {_MOST_PIXELS // 10**6} million pixels"
            raise VideoError(reason, path=self.path, hint=SMALLER)

    def _grab(self, *, is_first: bool) -> bool:
        """Go to the next frame; where OpenCV opens a file but has no decoder for it, PyAV takes over."""
        if self._capture.grab():
            return True
        if not is_first or isinstance(self._capture, PyAVCapture) or not self._fall_back():
            return False
        self.info = self._read_info()
        return self._capture.grab()

    def _begin(self) -> None:
        # Phones store sideways pixels and a rotation tag. The default changed between versions, so it is set.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.info = self._read_info()
        self._check_pixels(self.info.height, self.info.width)

    def __enter__(self: _Reader) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """`(index, timestamp_seconds)` of each decoded frame; timestamps always rise."""
        nominal_step = min(1 / self.info.frames_per_second, _MAX_GAP_SECONDS)
        longest_gap = _longest_gap_seconds(self.path)
        index, timestamp, offset, first = 0, 0.0, 0.0, 0.0
        while self._grab(is_first=index == 0):
            reported = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if index == 0:
                timestamp = first = max(reported, 0.0)
            elif timestamp < reported + offset <= timestamp + longest_gap:
                timestamp = reported + offset
            else:
                if reported + offset > timestamp:
                    jump = f"its clock jumps by {reported + offset - timestamp:.0f} s after {timestamp - first:.2f} s"
                    self.note = self.note or f"{jump}; its frame rate tells the times from there on"
                    self.jumped_seconds += reported + offset - timestamp
                timestamp += nominal_step  # the clock stops, steps back (MPEG-PS), or jumps (a spliced stream)
                if reported + offset > timestamp:
                    offset = timestamp - reported
            if self.check:
                self.check(timestamp - first)
            yield index, timestamp
            index += 1

    def visit(self, indices: Sequence[int], frame_index: FrameIndex) -> Iterator[tuple[int, float]]:
        """`(index, timestamp_seconds)` of some frames only; long stretches between them are skipped, not decoded.

        OpenCV may land anywhere, so each frame is known by its clock: it is the one that decoding all gives, unless
        what was skipped is damaged.

        Args:
            indices: of the frames, rising.
            frame_index: of this video.

        Raises:
            SeekError: the frames do not come as the index says.
        """
        clock, timestamps = frame_index.milliseconds, frame_index.timestamps_seconds
        coming = 0  # the frame that is decoded next
        for index in indices:
            start = frame_index.start_for(index)
            sought = start - coming > _SEEK_PAYS
            if sought:
                number = round(self.info.frames_per_second * timestamps[start])  # as OpenCV counts
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, number + _LANDING)
            while sought or coming <= index:
                grabbed = not isinstance(self._capture, PyAVCapture) and self._capture.grab()
                milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
                here = int(np.searchsorted(clock, milliseconds)) if sought else coming
                if not grabbed or here > index or clock[here] != milliseconds:
                    raise SeekError(f"frame {index} is not where the container says", path=self.path)
                if self.check:
                    self.check(float(timestamps[here]))
                sought, coming = False, here + 1
            yield index, float(timestamps[index])

    def retrieve(self) -> np.ndarray:
        """The frame that was grabbed last, `(H, W, 3)` uint8 RGB."""
        return cv2.cvtColor(self.retrieve_bgr(), cv2.COLOR_BGR2RGB)

    def retrieve_bgr(self) -> np.ndarray:
        """The frame that was grabbed last, `(H, W, 3)` uint8 BGR: to convert it costs less once it is small.

        Raises:
            VideoError: it cannot be decoded.
        """
        ok, frame = self._capture.retrieve()
        if not ok:
            raise VideoError("a frame was found but could not be decoded", path=self.path)
        self._check_pixels(*frame.shape[:2])  # headers tell anything
        return frame

    def _read_info(self) -> VideoInfo:
        get = self._capture.get
        rate = get(cv2.CAP_PROP_FPS)
        if not 0 < rate <= 1000:  # also false for NaN
            rate = _FALLBACK_FRAMES_PER_SECOND
        claimed = get(cv2.CAP_PROP_FRAME_COUNT)
        return VideoInfo(
            height=int(get(cv2.CAP_PROP_FRAME_HEIGHT)),
            width=int(get(cv2.CAP_PROP_FRAME_WIDTH)),
            frames_per_second=rate,
            num_frames_claimed=int(claimed) if 0 < claimed < 1e9 else 0,
            fourcc=_fourcc(self._capture),
        )


class LiveReader(VideoReader):
    """A reader of a camera, a network stream, or a file that is still being written.

    Args:
        source: the number of a camera, the URL of a stream, or the path of a file or pipe.
        timeout_seconds: so long a stream may take to open or be without a frame before it ends.

    Raises:
        VideoError: it does not open.
    """

    def __init__(self, source: str, timeout_seconds: float) -> None:
        self.path, self.check = Path(source), None
        self.num_threads = 1  # more threads would hold back a frame each
        if source.isdecimal():
            self._capture = cv2.VideoCapture(int(source))
        else:
            name = source if is_url(source) else name_for_decoder(self.path, stream=True)
            limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
            parameters = [value for limit in limits for value in (limit, round(1000 * timeout_seconds))]
            self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *parameters])
        if not self._capture.isOpened():
            raise VideoError("does not open", path=source)
        self._begin()

    num_damaged = 0  # frames that could not be decoded

    def _grab(self, *, is_first: bool) -> bool:
        """Go to the next frame that can be decoded; a damaged one costs a stream no more than itself."""
        for _ in range(_MOST_DAMAGED):
            began = time.monotonic()
            if self._capture.grab():
                return True
            if is_first or time.monotonic() - began > _STALL_SECONDS:  # nothing came
                return False
            self.num_damaged += 1
        self.num_damaged -= _MOST_DAMAGED  # it was the end
        return False


def is_url(source: str) -> bool:
    """Whether a source is the address of a stream; of anything else, FFmpeg would open whatever it names."""
    return bool(_URL.match(source))


def index_frames(path: Path) -> FrameIndex | None:
    """The frames of a video as its packets have them; `None` if it has none, or their times cannot be trusted.

    Reads the file, but decodes nothing: about a fiftieth of the time that decoding takes.
    """
    parameters = [cv2.CAP_PROP_FORMAT, -1]  # packets as they are
    try:
        name = name_for_decoder(Path(path))
    except VideoError:
        return None  # to read it says why
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, parameters)
    packets: list[tuple[float, bool]] = []
    while len(packets) <= _MOST_INDEXED and capture.grab():
        packets.append((capture.get(cv2.CAP_PROP_POS_MSEC), capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) != 0))
    capture.release()
    if not packets or len(packets) > _MOST_INDEXED:
        return None
    if _head(path).startswith(b"RIFF") and not all(key for _, key in packets):  # AVI
        return None  # times of decoding, which are those of showing only if nothing refers to a later frame
    packets.sort()  # they come in the order of decoding
    milliseconds = np.array([time for time, _ in packets])
    steps = np.diff(milliseconds)
    if not np.isfinite(milliseconds).all() or not ((steps > 0) & (steps <= 1000 * _longest_gap_seconds(path))).all():
        return None  # a clock that stops, steps back or jumps
    return FrameIndex(milliseconds, np.flatnonzero([key for _, key in packets]))


def _longest_gap_seconds(path: Path) -> float:
    """How long a frame may last before its end is a jump of the clock."""
    return _MAX_INDEXED_GAP_SECONDS if _keeps_an_index(path) else _MAX_GAP_SECONDS


def _keeps_an_index(path: Path) -> bool:
    """Whether it is MP4, MOV, Matroska or WebM, in which `video_tracks` sees tracks and times do not jump."""
    head = _head(path)
    return head[4:8] == b"ftyp" or head[:4] == EBML


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():  # a camera, an address, or a pipe, which would lose what is read
            return b""
        with path.open("rb") as file:
            return file.read(8)
    except OSError:
        return b""


def read_frames(path: Path) -> np.ndarray:
    """All frames of a short video, `(N, H, W, 3)` uint8 RGB, in memory; for figures and tests."""
    with VideoReader(path) as reader:
        frames = [reader.retrieve() for _ in reader]
    if not frames:
        raise VideoError(why_unreadable(Path(path)), path=path)
    return np.stack(frames)


NOT_UTF8 = "its name is not valid UTF-8, which OpenCV cannot open; rename it"


def name_for_opencv(path: Path) -> str:
    """The absolute path; raises `VideoError` where it is not UTF-8, because OpenCV crashes on that."""
    name = os.path.abspath(path)
    if not is_utf8(name):
        raise VideoError(NOT_UTF8, path=path)
    return name


def name_for_decoder(path: Path, *, stream: bool = False) -> str:
    """The absolute path of a file that FFmpeg may open, in OpenCV or PyAV: every file passes here before it does.

    Raises:
        VideoError: it is no file, or would make FFmpeg open others; or its name is not UTF-8.
    """
    name, reason = name_for_opencv(path), why_refused(path, stream=stream)
    if reason:
        raise VideoError(reason, path=path)
    return name


def why_unreadable(path: Path) -> str:
    """One clause on why a file gives no frames, from its own bytes; the decoder itself only says 'no'."""
    if reason := why_refused(path):
        return reason
    try:
        size = path.stat().st_size
        reason = why_mp4_unreadable(path)
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    if size == 0:
        return "the file is empty (0 bytes)"
    if reason:
        return reason
    capture = cv2.VideoCapture(name_for_decoder(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        return f"not a video that OpenCV can open ({size} bytes): damaged, cut off, or another kind of file"
    return (
        f"opens, but no frame can be decoded (codec {_fourcc(capture) or 'unknown'}): it holds no frames, or "
        f"there is no decoder for it here. {remedy()}"
    )


def _fourcc(capture: cv2.VideoCapture | PyAVCapture) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("latin-1").strip("\0 ")
