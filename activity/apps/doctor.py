"""Does this installation work? The checks do the thing itself: they import, compute, decode and write.

Heavy libraries are imported inside the checks, so that one which cannot be imported is a finding and not the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from activity._version import __version__
from activity.errors import VideoError
from activity.models.backend import keras
from activity.progress import format_table


@dataclass(frozen=True)
class Check:
    """What one check found, and what to do about it, each in one line."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True  # nothing works without it; otherwise a failed check is only a note

    def cells(self) -> tuple[str, str, str]:
        """State, name, and what was found with the remedy, if one is needed; for a table."""
        state = "ok" if self.ok else "FAIL" if self.required else "note"
        return state, self.name, self.found + (f" -> {self.remedy}" if self.remedy and not self.ok else "")

    def __str__(self) -> str:
        return "  ".join(self.cells())


def examine(*, expect_gpu: bool = False) -> list[Check]:
    """All checks, in the order in which one would look for a fault; takes seconds and changes nothing.

    Args:
        expect_gpu: a GPU that cannot be used is then a failure, not a note.
    """
    checks: list[Check] = []
    groups = {
        "python": check_packages(),
        "devices": check_gpu(expect_gpu),
        "opencv": check_videos(),
        "files": check_files(),
    }
    for group, findings in groups.items():
        try:
            checks.extend(findings)
        except Exception as error:  # a broken library fails in any way: ImportError, AttributeError, SystemError
            checks.append(Check(group, False, _one_line(error), _IMPORT_REMEDY))
    return checks


def format_checks(checks: list[Check]) -> str:
    """The checks as a table, one line each: state, name, what was found, and the remedy if there is one."""
    return "\n".join(format_table([check.cells() for check in checks]))


# === Python and packages ===

RUNTIMES = ("openvino", "onnxruntime")  # faster on a CPU; the first one installed is used by default

_MODULES = {
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}  # the others are imported by their own name

_IMPORT_REMEDY = "install what it names; if that is a Keras backend, set KERAS_BACKEND=tensorflow"


def check_packages(*, runtimes: Iterable[str] = RUNTIMES) -> Iterator[Check]:
    """Python, and all packages that the installed metadata requires, each imported; `runtimes` are not required."""
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    yield Check("python", (3, 10) <= sys.version_info[:2] <= (3, 13), found, "use Python 3.10 to 3.13")
    installed = any(metadata.distributions(name="activity"))
    found = __version__ if installed else f"{__version__}, not installed: what it needs is not checked"
    yield Check("activity", installed, found, "pip install .", required=False)
    for requirement in map(Requirement, (metadata.requires("activity") or []) if installed else []):
        if requirement.marker is None:  # not of an extra
            yield check_package(requirement)
    for name in runtimes:
        yield dataclasses.replace(check_package(Requirement(name)), required=False)


def check_package(requirement: Requirement) -> Check:
    """Whether a package is installed, fits the requirement, and can be imported."""
    name, remedy = requirement.name, f"pip install '{requirement}'"
    try:
        version = metadata.version(name)
        importlib.import_module(_MODULES.get(name, name))
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", remedy)
    except Exception as error:  # a missing system library, or a clash of binary versions
        return Check(name, False, f"{version}, cannot be imported: {_one_line(error)}", _IMPORT_REMEDY)
    fits = requirement.specifier.contains(version, prereleases=True)
    return Check(name, fits, version if fits else f"{version}, expected {requirement.specifier}", remedy)


# === Processors ===

_GPU_INSTALL = "pip install '.[gpu]' in the project's folder"  # by path: a package index may hold another "activity"
CUDA_REMEDY = f"{_GPU_INSTALL} for the CUDA libraries, and compare the driver with nvidia-smi"
_DRIVER_REMEDY = "install the NVIDIA driver; in a container: docker run --gpus all, with the NVIDIA Container Toolkit"


def convolve(device: str) -> str:
    """Convolve on a device such as `gpu:0` and return where the result is; a wrong result raises."""
    import numpy as np

    with keras.device(device):
        frames, kernel = keras.ops.ones((1, 16, 16, 3)), keras.ops.ones((3, 3, 3, 8))
        result = keras.ops.conv(frames, kernel, data_format="channels_last")  # (1, 14, 14, 8)
    if not np.allclose(keras.ops.convert_to_numpy(result), 3 * 3 * 3):
        raise ArithmeticError("a convolution of ones came out wrong")
    return str(result.device).rpartition("device:")[2]


def check_gpu(expect_gpu: bool, *, compute: Callable[[str], str] = convolve) -> Iterator[Check]:
    """The backend of Keras, and a GPU by computing on it.

    Args:
        expect_gpu: that there is none is then a failure, not a note.
        compute: takes a device such as `gpu:0` and returns where the result is.
    """
    from activity.models.devices import gpu_names

    backend = keras.backend.backend()  # raises if it cannot be one of those that models are made for
    yield Check("backend of keras", True, backend)
    names = ", ".join(gpu_names())
    if not names:
        cause, remedy = _why_no_gpu(backend)
        yield Check("gpu", False, f"none, the CPU computes: {cause}", remedy, required=expect_gpu)
        return
    try:
        place = compute("gpu:0")
    except Exception as error:  # a GPU that is listed but fails would stop the training too
        yield Check("gpu", False, f"{names}, but it fails: {_one_line(error)}", CUDA_REMEDY)
        return
    on_gpu = any(word in place.lower() for word in ("gpu", "cuda", "rocm"))
    yield Check("gpu", on_gpu, f"{names}, a convolution ran on {place}", CUDA_REMEDY)


def _why_no_gpu(backend: str) -> tuple[str, str]:
    """The first missing link of the chain driver, visible device, CUDA build, CUDA libraries; and its remedy."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver can be seen", _DRIVER_REMEDY
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it", "unset CUDA_VISIBLE_DEVICES"
    if backend == "tensorflow":
        import tensorflow as tf

        if not tf.test.is_built_with_cuda():
            return "this TensorFlow is built without CUDA", f"use Linux, or WSL2 on Windows: {_GPU_INSTALL}"
    return "there is a driver, but no device, or no CUDA libraries that fit it", CUDA_REMEDY


# === Videos ===

SAMPLES_DIR = Path(__file__).parent / "codec_samples"
SAMPLES = ("h264.mp4", "mpeg4.avi", "hevc.mp4", "vp9.webm", "mjpeg.avi", "av1.mp4")
WRITERS = {"mp4v": ".mp4", "FFV1": ".avi", "VP90": ".webm"}


def check_videos(*, samples_dir: Path = SAMPLES_DIR, writers: Mapping[str, str] = WRITERS) -> Iterator[Check]:
    """Every codec, by doing it: samples of four frames are read, and four frames are written and read again.

    Args:
        samples_dir: holds the `SAMPLES`.
        writers: codec -> suffix of the file.
    """
    import cv2
    import numpy as np

    from activity.video.diagnosis import INSTALL
    from activity.video.pyav import is_installed
    from activity.video.writer import write_video

    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    found = "built in" if has_ffmpeg else "missing from this build"
    yield Check("ffmpeg of opencv", has_ffmpeg, found, "pip install --force-reinstall opencv-python-headless")
    for sample in SAMPLES:
        codec = sample.partition(".")[0]
        advice = "re-encode such videos: ffmpeg -i IN -c:v libx264 OUT.mp4"
        remedy = advice if is_installed() else f"{INSTALL}, or {advice}"
        required = codec in ("h264", "mpeg4")  # most videos there are, and most of the older data sets
        yield _four_frames(f"read {codec}", samples_dir / sample, remedy, required=required)
    with tempfile.TemporaryDirectory() as folder:
        for codec, suffix in writers.items():
            path = Path(folder, codec).with_suffix(suffix)
            with contextlib.suppress(VideoError):  # then there is no file, and so no frames
                write_video(path, np.zeros((4, 48, 64, 3), np.uint8), frames_per_second=8, fourcc=codec)
            remedy = f"do not write {suffix}; the others of {', '.join(writers.values())} may do"
            yield _four_frames(f"write {codec}", path, remedy, required=False)


def _four_frames(name: str, path: Path, remedy: str, *, required: bool) -> Check:
    from activity.video.decoder import read_frames

    num_frames = 0
    with contextlib.suppress(VideoError):
        num_frames = len(read_frames(path))
    return Check(name, num_frames == 4, f"{num_frames} of 4 frames", remedy, required)


# === Files ===


def check_files() -> Iterator[Check]:
    """Downloaded weights, and room on the disks."""
    from activity.models.backbones import BACKBONES, weights_dir

    files = {name: backbone.weights_file for name, backbone in BACKBONES.items() if backbone.weights_file}
    here = [name for name, pattern in files.items() if any(weights_dir().glob(pattern))]
    absent = [name for name in files if name not in here]
    found = f"in {weights_dir()}: {', '.join(here) or 'none'}; downloaded on first use: {', '.join(absent) or 'none'}"
    remedy = "connect to the network once, give a file with --weights PATH, or train with --weights none"
    yield Check("weights", bool(here), found, remedy, required=False)
    for name, folder in (("disk of the weights", weights_dir()), ("disk here", Path.cwd())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        gigabytes, writable = shutil.disk_usage(existing).free / 1e9, os.access(existing, os.W_OK)
        found = f"{gigabytes:.1f} GB free in {folder}" + ("" if writable else ", which cannot be written to")
        remedy = "make room, 2 GB or more; the weights go where KERAS_HOME says, results where --out says"
        yield Check(name, gigabytes >= 2 and writable, found, remedy, required=False)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
