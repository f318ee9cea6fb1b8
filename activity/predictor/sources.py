"""The files that are labelled, and their sampled frames, decoded in threads of their own."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activity.config import ClipSpec
from activity.datasets.manifest import files_below, is_passed_over
from activity.errors import DatasetError, VideoError, printable
from activity.models.network import LONG_CLIPS, InferenceModel
from activity.predictor.prediction import Failure
from activity.video.decoder import probe
from activity.video.prefetch import Decoding, TooLongError
from activity.video.sampling import SampledVideo, sample_video


def expand_sources(sources: Sequence[str]) -> list[str]:
    """Files named by files, folders (searched through) and glob patterns, in order and without repeats.

    In a folder, hidden files, images and sidecars are passed over; a file named directly is always taken. A folder
    or pattern that names no file stays as it is: reading it then says so, and the others go on.
    """
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = [str(p) for p in files_below(path) if not is_passed_over(p.relative_to(path))]
        elif not path.exists() and glob.has_magic(source):
            matches = sorted(p for p in glob.glob(source, recursive=True) if Path(p).is_file())
        else:
            matches = [source]
        found += matches or [source]
    return list(dict.fromkeys(found))


def check_apart(folder: Path, sources: Iterable[str]) -> None:
    """Raise `DatasetError` if results written into a folder could replace a video or what belongs to it."""
    for source in sources:
        if Path(source).resolve().parent == folder.resolve():
            raise DatasetError(f"holds the video {source}; expected a folder of its own for the results", path=folder)


_FRAMES_PER_CHUNK = 32  # of which a few wait for each video: 4 x 32 frames of 224x224 are 20 MB a stream


EVENLY, AT_RATE = "evenly", "at a rate"  # how frames of a video were taken


def distinct_names(sources: Iterable[Path | str]) -> list[str]:
    """A name for the output of each source: that of the file without its suffix, and with a number where it is taken.

    Names that differ only in case count as equal, as on some file systems.
    """
    stems = [Path(source).stem or "video" for source in sources]
    taken = {stem.casefold() for stem in stems}
    names: list[str] = []
    used: set[str] = set()
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in used or (number > 1 and name.casefold() in taken):
            number += 1
            name = f"{stem}-{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def reason_of(error: Exception, source: str) -> str:
    """Why a source could not be read, without its name."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{printable(source)}: ") or type(error).__name__


class FrameStream(Decoding[tuple[str, np.ndarray]]):
    """Chunks of sampled frames of one video: how they were taken, and stacks `(n, S, H, W, 3)` uint8 in order of time.

    Attributes:
        sampled: what was read, by how it was; complete after the last chunk.
    """

    def __init__(self, source: str, model: InferenceModel, timeline: bool, num_threads: int, *limits: Any) -> None:
        super().__init__(*limits)
        self.source = source
        self.sampled: dict[str, SampledVideo] = {}
        self._model, self._timeline, self._num_threads = model, timeline, num_threads

    def failure(self) -> Failure | None:
        """Why nothing could be read, if so; asked after the last chunk."""
        if isinstance(self.error, VideoError | OSError | MemoryError):
            return Failure(self.source, reason_of(self.error, self.source), isinstance(self.error, TooLongError))
        if self.error:
            raise RuntimeError(f"decoding {self.source} failed") from self.error
        return None

    def read(self) -> None:
        """Evenly, unless the video is much longer than the clips of training: then at the rate of their windows."""
        spec, model, path = self._model.spec, self._model, Path(self.source)
        if spec.frames_per_second is not None:
            self._read(AT_RATE, spec)
            return
        at_rate = dataclasses.replace(spec, frames_per_second=model.window_rate)
        long_seconds = LONG_CLIPS * model.clip_seconds
        if probe(path).duration_seconds_claimed <= long_seconds:
            seconds = self._read(EVENLY, spec)
            if seconds > long_seconds:
                del self.sampled[EVENLY]
                self._read(AT_RATE, at_rate)
            elif self._timeline and seconds > model.window_seconds:
                self._read(AT_RATE, at_rate)
        elif self._read(AT_RATE, at_rate) <= long_seconds:  # the header claimed more than there is
            if not self._timeline:
                del self.sampled[AT_RATE]
            self._read(EVENLY, spec)

    def _read(self, how: str, spec: ClipSpec) -> float:
        """Decode the video once; returns its duration in seconds."""
        pending: list[np.ndarray] = []

        def hand_over() -> None:
            self.put((how, np.stack(pending)))
            pending.clear()

        def take(frame: np.ndarray) -> None:
            pending.append(frame)
            if len(pending) == _FRAMES_PER_CHUNK:
                hand_over()

        options: dict[str, Any] = {"num_threads": self._num_threads, "check": self.check}
        self.sampled[how] = sample_video(Path(self.source), spec, take, **options)
        if pending:
            hand_over()
        return self.sampled[how].duration_seconds
