"""The files that are labelled, and their sampled frames, decoded in threads of their own."""

from __future__ import annotations

import dataclasses
import glob
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from activity.config import ClipSpec
from activity.datasets.feature_files import (
    UNUSABLE,
    are_unusable,
    files_below,
    is_feature_file,
    map_rows,
    sample_rows,
)
from activity.datasets.folders import find_videos
from activity.errors import ActivityError, DatasetError, SettingError, VideoError, check_type
from activity.files import short_name
from activity.models.network import LONG_CLIPS, InferenceModel
from activity.video.decoder import is_url
from activity.video.download import local_path, without_password
from activity.video.images import IMAGE_SUFFIXES, probe
from activity.video.prefetch import Prefetch, close_all
from activity.video.sampling import SampledVideo, iter_frames

_logger = logging.getLogger(__name__)

_FRAMES_PER_CHUNK = 32
_MOST_THREADS = 16
_CHUNKS_AHEAD = 4  # of each video: 4 x 32 frames of 224x224 are 20 MB a stream


def expand_sources(sources: Sequence[str], *, features: bool = False, images: bool = False) -> list[str]:
    """Files named by files, folders (searched through) and glob patterns, in order and without repeats.

    In a folder, hidden files, images, sidecars, and what this program has made are skipped, and counted; a file named
    directly is always taken, and a folder that a pattern names is searched too. A folder or pattern without videos
    stays as it is: reading it then says so, and the others follow.

    Args:
        sources: in the order of the result.
        features: search for feature files, in place of videos.
        images: search for single images too, numbered or not; each is a source of its own.
    """
    search = _search_features if features else partial(_search, images=images)
    found: list[str] = []
    for source in sources:
        named = [source]
        if not Path(source).exists() and glob.has_magic(source):
            named = sorted(glob.glob(source, recursive=True))
        matches = [video for name in named for video in (search(Path(name)) if Path(name).is_dir() else [name])]
        found += matches or [source]
    return list(dict.fromkeys(found))


def names_of(sources: Iterable[Path | str] | Path | str, *, features: bool = False, images: bool = False) -> list[str]:
    """Sources as texts: those that are given, or what one file, folder or pattern names, see `expand_sources`.

    Raises:
        SettingError: one is neither a path nor a URL.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = expand_sources([_name_of(sources)], features=features, images=images)
    return [_name_of(source) for source in sources]


def _name_of(source: Path | str) -> str:
    expected = "the path or URL of one video"
    check_type("source", source, (str, os.PathLike), expected)
    if not str(source):
        raise SettingError("source", expected, "an empty text")
    return str(source)


def _search(folder: Path, *, images: bool) -> list[str]:
    """The video files below a folder, and the images if they are wanted; what else there is, is said."""
    searched = find_videos(folder)
    stills = _search_images(folder) if images else []
    if images:
        searched.skipped.pop("image", None)
    for video in searched.videos:
        if video.is_dir() and not images:
            searched.left_out[video] = "a folder of images; expected a video file"
    for file, reason in searched.left_out.items():
        _logger.warning("%s: left out: %s", file, reason)
    if searched.skipped:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(searched.skipped.items()))
        _logger.info("%s: skipped by name: %s", folder, counts)
    return [str(video) for video in sorted([*(x for x in searched.videos if x.is_file()), *stills])]


def _search_images(folder: Path) -> list[Path]:
    """The image files below a folder, but for hidden ones."""
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    images = (path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)
    return [path for path in images if not any(x.startswith(".") for x in path.relative_to(folder).parts)]


def _search_features(folder: Path) -> list[str]:
    return [str(file) for file in sorted(files_below(folder))]


def check_apart(folder: Path, sources: Iterable[str]) -> None:
    """Raise `DatasetError` if results written into a folder could replace a video or what belongs to it."""
    for source in sources:
        if Path(source).resolve().parent == folder.resolve():
            raise DatasetError(f"holds the video {source}; expected a folder of its own for the results", path=folder)


def distinct_names(sources: Iterable[Path | str]) -> list[str]:
    """A name for the output of each source: that of the file without its suffix, and with a number where it is taken.

    Names that differ only in case count as equal, as on some file systems.
    """
    paths = (Path(urlsplit(str(source)).path if is_url(str(source)) else source) for source in sources)
    stems = [short_name(path.stem) or "video" for path in paths]
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


class FrameStream(Prefetch[tuple[ClipSpec, np.ndarray]]):
    """Chunks of sampled frames of one video, decoded ahead: stacks `(n, S, H, W, 3)` uint8 in order of time.

    For a model of feature files, chunks of the rows of one: `(n, 1, D)` float32. A row lasts as in training.

    Each comes with the `ClipSpec` by which it was sampled: that of the model or, of a video much longer than the clips
    of training, that with the frame rate of the model's windows.

    Args:
        source: the video.
        model: that the frames are for.
        timeline: of a short video, also sample it at the frame rate of windows.
        num_threads: decoding threads, 0 for FFmpeg's choice.
        watch: called with the time of each frame that passes, sampled or not, in the decoding thread; an
            `ActivityError` that it raises ends the reading, and is raised where a chunk is asked for.
        timeout_seconds: may be waited for chunks, all together.

    Attributes:
        sampled: what was read, by how it was; complete after the last chunk.

    Raises:
        VideoError: when a chunk is asked for: the video cannot be read.
    """

    def __init__(
        self,
        source: str,
        model: InferenceModel,
        *,
        timeline: bool = False,
        num_threads: int = 0,
        watch: Callable[[float], object] | None = None,
        timeout_seconds: float = math.inf,
    ) -> None:
        self._given, self.source = source, without_password(source)
        self.sampled: dict[ClipSpec, SampledVideo] = {}
        self._model, self._timeline = model, timeline
        self._num_threads, self._watch = num_threads, watch
        self._seconds = 0.0  # of the last frame that has passed
        super().__init__(self._chunks(), num_ahead=_CHUNKS_AHEAD, timeout_seconds=timeout_seconds)

    def _chunks(self) -> Iterator[tuple[ClipSpec, np.ndarray]]:
        """In the thread: all chunks; what is wrong with the video becomes a `VideoError`, a bug a `RuntimeError`."""
        try:
            yield from self._read()
        except ActivityError:
            raise
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise VideoError(reason, path=self.source) from error
        except Exception as error:
            raise RuntimeError(f"decoding {self.source} failed") from error

    def _read(self) -> Iterator[tuple[ClipSpec, np.ndarray]]:
        spec, model = self._model.spec, self._model
        self._check_kind()
        at_rate = dataclasses.replace(spec, frames_per_second=model.window_rate)
        if spec == at_rate:
            yield from self._sample(spec)
            return
        long_seconds = LONG_CLIPS * model.clip_seconds
        if self._seconds_claimed() <= long_seconds:
            seconds = yield from self._sample(spec)
            if seconds > long_seconds:
                del self.sampled[spec]
                yield from self._sample(at_rate)
            elif self._timeline and seconds > model.window_seconds:
                yield from self._sample(at_rate)
        else:
            seconds = yield from self._sample(at_rate)
            if seconds <= long_seconds:  # the header claimed more than there is
                if not self._timeline:
                    del self.sampled[at_rate]
                yield from self._sample(spec)

    def _check_kind(self) -> None:
        """Raise `VideoError` if the source is a feature file and the model takes videos, or the other way about."""
        spec = self._model.spec
        if spec.num_features and not is_feature_file(self._given):
            raise VideoError(f"expected a feature file .npy: this model takes {spec}", path=self.source)
        if not spec.num_features and is_feature_file(self._given) and Path(self._given).is_file():
            raise VideoError("expected a video, received .npy: this is no model of feature files", path=self.source)

    def _seconds_claimed(self) -> float:
        if self._model.spec.num_features:
            return len(self._rows()) / self._rows_per_second
        return probe(local_path(self._given)).duration_seconds_claimed

    def _sample(self, spec: ClipSpec) -> Generator[tuple[ClipSpec, np.ndarray], None, float]:
        """The chunks of one way to sample the video; returns its duration in seconds."""
        if spec.num_features:
            rows, self.sampled[spec] = sample_rows(self._rows(), spec, self._rows_per_second)
            if are_unusable(rows).any():
                raise VideoError(f"holds {UNUSABLE}", path=self.source)
            for start in range(0, len(rows), _FRAMES_PER_CHUNK):
                yield spec, rows[start : start + _FRAMES_PER_CHUNK, None]  # (n, 1, D)
            return self.sampled[spec].duration_seconds
        frames = iter_frames(local_path(self._given), spec, num_threads=self._num_threads, check=self._check)
        coming = iter(frames)
        while chunk := list(islice(coming, _FRAMES_PER_CHUNK)):
            yield spec, np.stack(chunk)
        self.sampled[spec] = frames.sampled
        return frames.sampled.duration_seconds

    def _rows(self) -> np.ndarray:
        return map_rows(Path(self._given), self._model.spec.num_features)

    @property
    def _rows_per_second(self) -> float:
        rate = self._model.info.rows_per_second
        assert rate is not None  # of a model of feature files, see `ModelInfo`
        return rate

    def tell(self) -> None:
        """Tell who watches of the last frame that has passed; raises what they raise."""
        if self._watch:
            self._watch(self._seconds)

    def _check(self, seconds: float) -> None:
        """A frame at this time passes, sampled or not; raise `VideoError` if reading must end with it."""
        if self.is_stopped:
            raise VideoError("stopped", path=self.source)
        self._seconds = seconds
        self.tell()


def most_threads() -> int:
    """How many videos are decoded at a time: one per processor, and not more than help."""
    return min(os.cpu_count() or 1, _MOST_THREADS)


def read_ahead(
    names: Sequence[str],
    model: InferenceModel,
    num_threads: int,
    *,
    timeline: bool = False,
    watch: Callable[[str, float], object] | None = None,
    timeout_seconds: float = math.inf,
) -> Generator[FrameStream, None, None]:
    """The streams of some videos in their order, of which a few are decoded ahead; close it to stop them all.

    Args:
        names: of the videos.
        model: that the frames are for.
        num_threads: videos decoded at a time.
        timeline: see `FrameStream`.
        watch: called with a name and the time in seconds of each decoded frame; see `FrameStream`.
        timeout_seconds: see `FrameStream`.
    """
    options: dict[str, Any] = {
        "timeline": timeline,
        # Many videos keep the processors busy one each; a single one needs them all.
        "num_threads": 1 if len(names) >= num_threads > 1 else 0,
        "timeout_seconds": timeout_seconds,
    }
    coming = (  # each begins when it is asked for
        FrameStream(name, model, watch=watch and partial(watch, name), **options) for name in names
    )
    ahead = deque(islice(coming, num_threads))
    try:
        while ahead:
            yield ahead[0]
            ahead.popleft().stop()
            ahead.extend(islice(coming, 1))
    finally:
        close_all(ahead)
