"""Write videos that browsers play, with the times and the sound of the video that their frames were made from.

H.264 in MP4 by PyAV, if it is installed, or by an `ffmpeg` program. OpenCV's wheels bring no encoder of H.264: alone
they write VP9 in WebM, which browsers play too, but that takes long. Only PyAV keeps the sound, and frames that last
unequally long; the others repeat frames or leave some out.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from activity.errors import VideoError
from activity.files import atomic_path
from activity.video.decoder import name_for_decoder, name_for_opencv
from activity.video.diagnosis import INSTALL

_logger = logging.getLogger(__name__)


Frames: TypeAlias = Iterable[tuple[float, np.ndarray]]

_Write: TypeAlias = Callable[[Path, Frames, Fraction, Path, float], None]


_X264_OPTIONS = {"preset": "superfast", "crf": "21"}  # near the source to the eye; slower presets only save space
_LEAST_TICKS = 10_000  # of the clock, a second
_ROUNDED_SECONDS = 1e-3  # containers round times so far (Matroska)
_LEAST_RATE = 1 / 1001  # frames a second; one of slides an hour apart has less
_MOST_REPEATS = 100_000  # of a frame that lasts, at a constant rate: an hour at 25 a second
_INSTALL = f"{INSTALL} brings H.264 with the sound"
_SOUNDS = {"aac", "flac", "mp3", "opus"}  # codecs that both MP4 and browsers take


def write_playable(
    path: Path, frames: Frames, *, frames_per_second: float, source: Path, end_seconds: float = 0.0
) -> Path:
    """Write frames as H.264 or, without PyAV and ffmpeg, as VP9; as MPEG-4, which browsers do not play, without that.

    The file appears whole or not at all. An odd height or width grows by one pixel, a copy of its neighbour, because
    H.264 with colours that all players know needs even ones.

    Args:
        path: ends in `.mp4`, which becomes `.webm` for VP9.
        frames: `(timestamp_seconds, frame)`, times rising from 0, frames `(H, W, 3)` uint8 RGB of one size; used one
            by one.
        frames_per_second: nominal. PyAV keeps other times too; without it frames are repeated or left out instead.
        source: the video whose sound is copied, if it is of a kind that browsers play.
        end_seconds: when the last frame ends; by default, and without PyAV, it lasts as long as a nominal one.

    Returns:
        The path that was written.

    Raises:
        VideoError: there are no frames.
        OSError: the file cannot be written.
    """
    suffix, write = _encoder()
    path = path.with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write(temporary, _even_sizes(frames), _rate(frames_per_second), source, end_seconds)
    return path


def _rate(frames_per_second: float) -> Fraction:
    return Fraction(max(frames_per_second, _LEAST_RATE)).limit_denominator(1001)


@cache
def _encoder() -> tuple[str, _Write]:
    """The best that is here, as the ending of its files and a function; a lesser one is logged, once."""
    try:
        import av

        if "libx264" in av.codecs_available:
            return ".mp4", _write_h264
    except ImportError:
        pass
    if _can_write(_write_by_ffmpeg, ".mp4"):
        _logger.warning("videos are written by ffmpeg, silent. %s", _INSTALL)
        return ".mp4", _write_by_ffmpeg
    if _can_write(_write_by_opencv, ".webm"):
        _logger.warning("videos are written as VP9, silent; it takes long. %s", _INSTALL)
        return ".webm", _write_by_opencv
    _logger.warning("videos are written as MPEG-4, silent; a browser may not play that. %s", _INSTALL)
    return ".mp4", _write_by_opencv


def _can_write(write: _Write, suffix: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            write(Path(folder, f"try{suffix}"), [(0.0, np.zeros((16, 16, 3), np.uint8))], Fraction(25), Path(), 0.0)
        except VideoError:
            return False
    return True


def _even_sizes(frames: Frames) -> Frames:
    for timestamp, frame in frames:
        odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
        if odd_rows or odd_columns:
            frame = cv2.copyMakeBorder(frame, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE)
        yield timestamp, frame


def _write_by_opencv(path: Path, frames: Frames, rate: Fraction, source: Path, end_seconds: float) -> None:
    write_video(path, _at_constant_rate(frames, rate), frames_per_second=float(rate))


def _write_by_ffmpeg(path: Path, frames: Frames, rate: Fraction, source: Path, end_seconds: float) -> None:
    program = shutil.which("ffmpeg")
    images = _at_constant_rate(frames, rate)
    first = next(images, None)
    if program is None or first is None:
        raise VideoError("there are no frames to write" if program else "there is no ffmpeg here", path=source)
    height, width = first.shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(rate)]
    options = [word for name, value in _X264_OPTIONS.items() for word in (f"-{name}", value)]
    coded = ["-c:v", "libx264", *options, "-pix_fmt", "yuv420p", "-movflags", "+faststart", f"file:{path.absolute()}"]
    command = [program, "-v", "error", "-y", *raw, "-i", "-", *coded]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it gave up, and says why
            for image in chain([first], images):
                process.stdin.write(image.tobytes())
        errors = process.communicate()[1].decode(errors="replace")
    if process.returncode:
        raise VideoError(f"ffmpeg cannot write it: {' '.join(errors.split())[-300:]}", path=path)


def _at_constant_rate(frames: Frames, rate: Fraction) -> Iterator[np.ndarray]:
    """The frames that are visible at 0, 1/R, 2/R, ... seconds."""
    num_shown, seen = 0, None
    for timestamp, frame in frames:
        if seen is not None:
            if round(timestamp * rate) - num_shown > _MOST_REPEATS:
                raise VideoError(f"a frame lasts until {timestamp:.0f} s, which only PyAV can write. {_INSTALL}")
            for _ in range(num_shown, round(timestamp * rate)):
                yield seen
                num_shown += 1
        seen = frame
    if seen is not None:
        yield seen


def _write_h264(path: Path, frames: Frames, rate: Fraction, source: Path, end_seconds: float) -> None:
    import av

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise VideoError("there are no frames to write", path=source)
    height, width = first[1].shape[:2]
    clock = _Clock(rate)
    # `file:`, else FFmpeg would take a name with a colon for an address
    with av.open(f"file:{os.path.abspath(path)}", "w", format="mp4", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=rate, options=_X264_OPTIONS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, clock.ticks_per_second)
        sound = _copied_sound(source, output)
        for timestamp, frame in chain([first], frames):
            # No colour space is named, as OpenCV names none: both convert alike, and players guess as for the source.
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts = clock.ticks(timestamp)
            image.time_base = stream.codec_context.time_base
            output.mux(stream.encode(image))
            sound(timestamp)
        lasts = round((end_seconds - timestamp) * clock.ticks_per_second)
        for packet in stream.encode():  # MP4 keeps how long the last one lasts
            with contextlib.suppress(AttributeError):  # an older PyAV cannot be told
                packet.duration = lasts if lasts > 0 else clock.ticks_per_frame
            output.mux(packet)
        sound(max(end_seconds, timestamp + float(1 / rate)))


class _Clock:
    """Times as whole ticks, in which a frame at the nominal rate lasts a whole number of them."""

    def __init__(self, rate: Fraction) -> None:
        fineness = math.ceil(_LEAST_TICKS / rate.numerator)
        self.ticks_per_second, self.ticks_per_frame = rate.numerator * fineness, rate.denominator * fineness
        self._last = -1

    def ticks(self, seconds: float) -> int:
        """Of a frame: exactly where the nominal rate has one, if the time is that but for rounding; always rising."""
        ticks = round(seconds * self.ticks_per_second)
        nominal = round(ticks / self.ticks_per_frame) * self.ticks_per_frame
        if abs(ticks - nominal) <= _ROUNDED_SECONDS * self.ticks_per_second:
            ticks = nominal
        self._last = max(ticks, self._last + 1)
        return self._last


def _copied_sound(source: Path, output: Any) -> Callable[[float], None]:
    """A function that copies the sound of a video into another, as it is, up to a time in seconds."""
    packets = _sound_of(source)
    template = next(packets, None)
    if template is None:
        return lambda _: None
    stream = output.add_stream_from_template(template)
    coming = next(packets, None)

    def copy_until(seconds: float) -> None:
        nonlocal coming
        while coming is not None and coming.pts * coming.time_base < seconds:
            coming.stream = stream
            output.mux(coming)
            coming = next(packets, None)

    return copy_until


def _sound_of(source: Path) -> Iterator[Any]:
    """The sound of a video as a PyAV stream, then its packets, timed from the first frame; nothing without sound."""
    import av

    try:
        with av.open(f"file:{name_for_decoder(source)}") as container:  # a file, and nothing that it names
            if not container.streams.audio or not container.streams.video:
                return
            stream, video = container.streams.audio[0], container.streams.video[0]
            codec = getattr(stream.codec_context.codec, "canonical_name", stream.codec_context.name)
            if codec not in _SOUNDS:
                _logger.info("%s: its sound (%s) is left out; browsers play %s", source, codec, ", ".join(_SOUNDS))
                return
            yield stream
            start = round((video.start_time or 0) * video.time_base / stream.time_base)
            last = -1
            for packet in container.demux(stream):
                if packet.dts is not None and packet.pts is not None and packet.dts - start > last:
                    packet.pts, packet.dts = packet.pts - start, packet.dts - start
                    last = packet.dts
                    yield packet
    except (VideoError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", error)
        _logger.info("%s: its sound is copied as far as it could be read (%s)", source, reason)


# By extension: the codec that OpenCV's wheels can write into it. FFV1 is lossless, the others are not.
_FOURCC = {".avi": "FFV1", ".mkv": "FFV1", ".mp4": "mp4v", ".webm": "VP90"}


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, frames_per_second: float, fourcc: str | None = None
) -> None:
    """Write frames `(H, W, 3)` uint8 RGB of one size.

    Args:
        path: `.avi` and `.mkv` are lossless (FFV1), `.mp4` is MPEG-4, `.webm` is VP9.
        frames: any iterable; it is consumed frame by frame.
        frames_per_second: of the video, above 0.
        fourcc: another codec, such as `MJPG`.

    Raises:
        VideoError: no frames, frames of another size, or a codec that does not open here.
    """
    path = Path(path)
    code = fourcc or _FOURCC.get(path.suffix.lower())
    if code is None:
        raise VideoError(f"cannot tell the codec; expected one of {', '.join(_FOURCC)}, or a fourcc", path=path)
    if not path.parent.is_dir():
        raise VideoError(f"cannot be written, there is no folder {path.parent}", path=path)
    name, writer, size = name_for_opencv(path), None, None
    with contextlib.ExitStack() as cleanup:
        for frame in frames:
            if writer is None:
                size = frame.shape
                writer = cv2.VideoWriter(
                    name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), frames_per_second, (size[1], size[0])
                )
                cleanup.callback(writer.release)
                if not writer.isOpened():
                    raise VideoError(f"the codec {code} does not open for writing here", path=path)
            if frame.shape != size:  # OpenCV drops such a frame without a word
                raise VideoError(f"expected frames of shape {size}, received {frame.shape}", path=path)
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if writer is None:
        raise VideoError("there are no frames to write", path=path)
