"""Images as videos: folders of numbered ones, `0001.jpg`, `0002.jpg`, ..., and single ones, of one frame.

Pillow reads them: its errors can be caught, where libraries below OpenCV write to the terminal, and it tells of an
image that was cut off. Of JPEG, PNG and WebP it gives the same pixels as OpenCV.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from activity.errors import VideoError, one_line
from activity.video.decoder import SMALLER, Check, VideoInfo, VideoReader, name_for_opencv

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
IMAGES_PER_SECOND = 25.0  # nothing in a folder says how fast its images follow each other
_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")  # by their content, whichever of the suffixes a file has
_HEADS = re.compile(rb"BM|\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP", re.DOTALL)
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


def is_image(path: Path) -> bool:
    """Whether a file is a single image, by its suffix and its first bytes."""
    if path.suffix.lower() not in IMAGE_SUFFIXES or not os.path.isfile(path):  # which does not raise
        return False
    with contextlib.suppress(OSError), path.open("rb") as file:
        return bool(_HEADS.match(file.read(12)))
    return False


def open_video(
    path: Path, *, num_threads: int = 1, check: Check | None = None, images_per_second: float = IMAGES_PER_SECOND
) -> VideoReader:
    """The reader of a video file, of a folder of numbered images, or of a single image.

    Args:
        path: of the file or folder.
        num_threads: of a video file, see `VideoReader`.
        check: see `VideoReader`.
        images_per_second: of a folder of images.

    Raises:
        VideoError: it does not open.
    """
    if os.path.isdir(path) or is_image(path):
        return ImageReader(path, images_per_second, check=check)
    return VideoReader(path, num_threads=num_threads, check=check)


def probe(path: Path) -> VideoInfo:
    """Read the header of a video file; an image is decoded.

    Raises:
        VideoError: the file does not open as a video.
    """
    reader = ImageReader(path, IMAGES_PER_SECOND) if is_image(Path(path)) else VideoReader(path)
    with reader:
        return reader.info


class ImageReader(VideoReader):
    """Frames of a video that is a folder of numbered images, or the only frame of one that is a single image.

    The number of an image says when it is shown; a single one is shown at 0, and lasts no time. Images are turned as
    their EXIF orientation says. Those of 16 bits a channel keep the upper 8; alpha is dropped, and of an animation or a
    file of several pages the first image is taken.

    Args:
        path: the folder or image.
        images_per_second: of the numbers in a folder.
        check: see `VideoReader`.

    Raises:
        VideoError: it is no such folder, or its first image cannot be read.
    """

    def __init__(self, path: Path, images_per_second: float, *, check: Check | None = None) -> None:
        self.path, self.num_threads, self.check = Path(path), 1, check
        name_for_opencv(self.path)
        is_single = not self.path.is_dir()
        self._folder = self.path.parent if is_single else self.path
        self._images = {0: self.path.name} if is_single else images_of(self.path)
        if not self._images:
            raise VideoError("a folder, but not one of two or more numbered images", path=self.path)
        self._name = next(iter(self._images.values()))
        self._first = self._name, self._read(self._name)
        height, width = self._first[1].shape[:2]
        suffix = Path(self._name).suffix[1:].lower()
        self.info = VideoInfo(height, width, images_per_second, len(self._images), suffix, is_single)

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
        name, image = self._first
        return image if self._name == name else self._read(self._name)

    def _read(self, name: str) -> np.ndarray:
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tags that nobody needs
                with Image.open(self._folder / name, formats=_FORMATS) as image:
                    self._check_pixels(image.height, image.width)  # before there is room made for them
                    if image.format != "MPO" and getattr(image, "is_animated", False):
                        self.note = self.note or f"{name} holds several images; the first is used"
                    return _as_bgr(image)
        except (VideoError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            reason = f"the image {name} has too many pixels ({one_line(error)})"
            raise VideoError(reason, path=self.path, hint=SMALLER) from error
        except Exception as error:  # decoders of damaged images raise anything
            raise VideoError(f"the image {name} cannot be read ({one_line(error)})", path=self.path) from error


def _as_bgr(image: Image) -> np.ndarray:
    """A decoded image of any mode, `(H, W, 3)` uint8 BGR, turned as it is to be seen."""
    from PIL import ImageOps

    is_deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # Pillow 10 and before
    if image.mode in ("I", "F") and not is_deep:
        raise ValueError("it holds numbers of 32 bits; expected 8 or 16 bits a channel")
    turned = ImageOps.exif_transpose(image)
    if is_deep:
        grey = (np.asarray(turned).astype(np.uint32) >> 8).astype(np.uint8)  # (H, W)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(np.asarray(turned.convert("RGB"))[..., ::-1])
