"""Which frames make a clip and at what size; clips padded on the right, with their mask. Pure functions."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np

from activity.config import ClipSpec

# Containers round timestamps (Matroska to 1 ms), so a frame that is due may claim to be a little early.
TIMESTAMP_TOLERANCE_SECONDS = 1e-3


Span: TypeAlias = tuple[float, float]  # start_seconds, end_seconds: what lies in [start, end), from the first frame on

WHOLE: Span = (0.0, math.inf)


def even_indices(num_frames_total: int, num_frames: int) -> np.ndarray:
    """Rising, distinct indices spread evenly over a video: the middles of `num_frames` equal parts.

    Returns:
        `(min(num_frames_total, num_frames),)` int64; a shorter video gives all of its frames.
    """
    if num_frames_total <= num_frames:
        return np.arange(num_frames_total)
    # (2 i + 1) n / 2 T in integers: floats would round differently from one machine to the next
    return (2 * np.arange(num_frames) + 1) * num_frames_total // (2 * num_frames)


def num_times_due(timestamp_seconds: float, num_taken: int, frames_per_second: float) -> int:
    """How many of the sample times 0, 1/R, 2/R, ... a frame at this time has to serve.

    Each sample time gets the first frame at or after it; a video slower than the rate repeats its frames, so that
    time runs alike in every clip, also under a variable frame rate.

    Args:
        timestamp_seconds: of the frame, counted from the first frame.
        num_taken: sample times already served.
        frames_per_second: the rate R asked for.
    """
    tolerance = min(TIMESTAMP_TOLERANCE_SECONDS * frames_per_second, 0.5)  # in sample times
    num_reached = int(timestamp_seconds * frames_per_second + tolerance) + 1
    return max(0, num_reached - num_taken)


def window_starts(num_frames_total: int, num_frames: int, stride: int | None = None) -> list[int]:
    """First frames of the windows of `num_frames` that cover a stack from its first frame to its last.

    Args:
        num_frames_total: frames in the stack, at least 1.
        num_frames: frames in a window.
        stride: frames from one start to the next; half a window by default. The last window ends with the stack.
    """
    stride = stride or max(1, num_frames // 2)
    last = max(0, num_frames_total - num_frames)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def pad_right(values: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Bring `(N, ...)` with 1 <= N <= `length` to `(length, ...)` with zeros, and the mask `(length,)` bool."""
    if not 1 <= len(values) <= length:
        raise ValueError(f"expected 1 to {length} real frames, received {len(values)}")
    padded = np.zeros((length, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded, np.arange(length) < len(values)


def resize_frame(frame: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """Bring `(h, w, 3)` uint8 to `(spec.height, spec.width, 3)` in the way `spec.resize` says."""
    height, width = frame.shape[:2]
    if spec.resize == "stretch":
        return _scale(frame, spec.height, spec.width)
    fits = min if spec.resize == "letterbox" else max
    scale = fits(spec.height / height, spec.width / width)
    scaled = _scale(frame, max(1, round(height * scale)), max(1, round(width * scale)))
    if spec.resize == "crop":
        top, left = (scaled.shape[0] - spec.height) // 2, (scaled.shape[1] - spec.width) // 2
        return np.ascontiguousarray(scaled[top : top + spec.height, left : left + spec.width])
    canvas = np.zeros((spec.height, spec.width, 3), np.uint8)
    top, left = (spec.height - scaled.shape[0]) // 2, (spec.width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas


def _scale(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    # Area averaging is the one that does not alias when shrinking, and fast at halving; linear interpolation does what
    # is left, unless that is more than another half (of an odd number of pixels).
    while any(halves := [n >= 2 * to and n % 2 == 0 for n, to in zip(frame.shape, (height, width), strict=False)]):
        rows, columns = (n // 2 if half else n for n, half in zip(frame.shape, halves, strict=False))
        frame = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA)
    near = frame.shape[0] <= 2 * height and frame.shape[1] <= 2 * width
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR if near else cv2.INTER_AREA)
