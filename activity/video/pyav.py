"""A decoder for what OpenCV does not read: PyAV, if it is installed, in the shape of `cv2.VideoCapture`.

Its wheels bring more decoders, such as that of AV1, and can choose among several video streams. The frames and times
are those that OpenCV gives of what both read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np

_logger = logging.getLogger(__name__)


def is_installed() -> bool:
    """Whether PyAV is here; it is imported when it is needed."""
    return find_spec("av") is not None


class PyAVCapture:
    """The frames of the default video stream of a file; it ends where one cannot be decoded, as OpenCV does.

    Args:
        name: as `activity.video.decoder.name_for_decoder` gives it.
        num_threads: decoding threads, 0 for FFmpeg's choice.
        max_pixels: of a frame; a larger one is not decoded.
    """

    def __init__(self, name: str, *, num_threads: int, max_pixels: int) -> None:
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._first: Any = None
        self._frame: Any = None  # that was grabbed
        self._next: Any = None  # that was decoded before
        with contextlib.suppress(ImportError):
            import av

            if not hasattr(av.VideoFrame, "rotation"):  # PyAV 14.0, which would lay the videos of phones on their side
                return
            with contextlib.suppress(av.FFmpegError, ValueError):  # `next` tells whether it worked
                # From a file, FFmpeg opens nothing but files; to say so by an option crashes PyAV 14 to 16 on FLV
                self._container = av.open(f"file:{name}")
                self._stream = self._container.streams.best("video")
                is_cover = self._stream and av.stream.Disposition.attached_pic in self._stream.disposition
                codec = self._stream and not is_cover and self._stream.codec_context  # none of an unknown codec
                if codec:
                    codec.thread_type, codec.thread_count = "AUTO", num_threads
                    codec.options = {"max_pixels": str(max_pixels)}
                    self._frames = self._decode(av.FFmpegError)
                    self._first = self._next = next(self._frames, None)

    def isOpened(self) -> bool:  # noqa: N802, as OpenCV has it
        """Whether there is a frame."""
        return self._first is not None

    def grab(self) -> bool:
        """Go to the next frame."""
        self._frame, self._next = self._next, None
        if self._frame is None:
            self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> tuple[bool, np.ndarray]:
        """The frame, `(H, W, 3)` uint8 BGR, in display orientation and the size of the first."""
        frame, first = self._frame, self._first
        image = frame.reformat(width=first.width, height=first.height, format="bgr24").to_ndarray()
        return True, np.ascontiguousarray(np.rot90(image, frame.rotation // 90))

    def get(self, what: int) -> float:
        """One of the properties that a reader asks for, as OpenCV would give it."""
        stream, frame = self._stream, self._frame or self._first
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if what == cv2.CAP_PROP_POS_MSEC:
            return 1000 * float(((frame.pts or 0) - (stream.start_time or 0)) * frame.time_base)
        if what == cv2.CAP_PROP_FPS:
            return rate
        if what == cv2.CAP_PROP_FRAME_COUNT:
            seconds = (stream.duration or 0) * stream.time_base or (self._container.duration or 0) / 1e6
            return stream.frames or round(float(seconds) * rate)
        if what == cv2.CAP_PROP_FOURCC:
            codec = stream.codec_context
            tag = codec.codec_tag.strip("\0") or codec.name
            return int.from_bytes(tag.encode("latin-1")[:4], "little")
        upright = frame.rotation % 180 == 0
        return frame.width if upright == (what == cv2.CAP_PROP_FRAME_WIDTH) else frame.height

    def set(self, what: int, value: float) -> bool:
        """Nothing can be set: frames are upright as they are, and come one after the other."""
        return False

    def release(self) -> None:
        """Let the file go."""
        if self._container is not None:
            self._container.close()
        self._frames, self._frame = iter(()), None

    def _decode(self, error: type[Exception]) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                yield from packet.decode()
        except error as reason:
            _logger.info("%s: %s", self._container.name, reason)
