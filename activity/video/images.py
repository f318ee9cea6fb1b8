"""Videos that are kept as folders of numbered images: `0001.jpg`, `0002.jpg`, ..."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from activity.errors import VideoError
from activity.video.decoder import Check, VideoInfo, VideoReader, name_for_opencv

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
IMAGES_PER_SECOND = 25.0  # nothing in a folder says how fast its images follow each other
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})\.[^.]+")


def numbered_images(names: Iterable[str]) -> dict[str, dict[int, str]]:
    """The sequences among the images of a folder: what their names begin with -> number -> name, in order.

    Only sequences of two or more images count. Of two names with one number (`1.jpg`, `01.jpg`), the first holds.
    """
    sequences: dict[str, dict[int, str]] = defaultdict(dict)
    for name in sorted(names):
        match = _NUMBERED.fullmatch(name)
        if match and Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
            sequences[match[1]].setdefault(int(match[2]), name)
    return {start: dict(sorted(images.items())) for start, images in sequences.items() if len(images) > 1}


def images_of(folder: Path) -> dict[int, str]:
    """Number -> name of the images of a folder that is a video, in order; empty if it is none."""
    sequences = list(numbered_images(os.listdir(folder)).values()) if folder.is_dir() else []
    return sequences[0] if len(sequences) == 1 else {}


def missing_numbers(folder: Path) -> str:
    """What is said of gaps in the numbers of the images of a folder; empty if there are none."""
    numbers = list(images_of(folder))
    gaps = [(a + 1, b - 1) for a, b in zip(numbers, numbers[1:], strict=False) if b - a > 1]
    if not gaps:
        return ""
    listed = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in gaps[:10])
    more = f" and {len(gaps) - 10} more gaps" if len(gaps) > 10 else ""
    return f"images are missing: {listed}{more}, of {numbers[0]}-{numbers[-1]}; their time passes without a frame"


class ImageReader(VideoReader):
    """Frames of a video that is a folder of numbered images; the number of an image says when it is shown.

    Args:
        path: the folder.
        images_per_second: of its numbers.
        check: see `VideoReader`.

    Raises:
        VideoError: it is no such folder, or its first image cannot be read.
    """

    def __init__(self, path: Path, images_per_second: float, *, check: Check | None = None) -> None:
        self.path, self.num_threads, self.check = Path(path), 1, check
        name_for_opencv(self.path)
        self._images = images_of(self.path)
        if not self._images:
            raise VideoError("a folder, but not one of two or more numbered images", path=self.path)
        self._name = next(iter(self._images.values()))
        height, width = self.retrieve_bgr().shape[:2]
        suffix = Path(self._name).suffix[1:].lower()
        self.info = VideoInfo(height, width, images_per_second, len(self._images), suffix)

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """`(index, timestamp_seconds)` of each image; none is read before it is asked for."""
        first = next(iter(self._images))
        for index, (number, name) in enumerate(self._images.items()):
            self._name = name
            seconds = (number - first) / self.info.frames_per_second
            if self.check:
                self.check(seconds)
            yield index, seconds

    def retrieve_bgr(self) -> np.ndarray:
        """The image whose turn it is, `(H, W, 3)` uint8 BGR.

        Raises:
            VideoError: it cannot be read.
        """
        try:
            image = cv2.imread(str(self.path / self._name), cv2.IMREAD_COLOR)
        except cv2.error:  # more pixels than it takes
            image = None
        if image is None:
            raise VideoError(f"the image {self._name} cannot be read", path=self.path)
        self._check_pixels(*image.shape[:2])
        return image
