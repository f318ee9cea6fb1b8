"""Threads that decode videos ahead of the one who takes their frames, and who never has to wait for them for ever.

    decoders --decode--> Decoding.read --put--> queue --items()--> who takes them

A decoder may hang in C, where nothing can stop it, as on a disk of the model. So the threads are daemons: Python
waits at its exit for those of `concurrent.futures`, and Ctrl-C would do nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue, SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

from activity.errors import VideoError

_ITEMS_AHEAD = 4

_STOP_SECONDS = 1.0  # waited for the threads, which end at the next frame; one that hangs is left behind


T = TypeVar("T")


class TooLongError(VideoError):
    """A video has more frames than are wanted of it, whatever its header says."""


class Decoding(ABC, Generic[T]):
    """What a thread reads of one video, on its way to the thread that takes it.

    Args:
        stop: is set when nothing is taken any more.
        max_seconds: the video may last, by the frames that pass.
        timeout_seconds: may be waited for its items, all together.

    Attributes:
        error: why there are no more items, if not because the video ends; known after the last one.
    """

    def __init__(self, stop: Event, max_seconds: float = math.inf, timeout_seconds: float = math.inf) -> None:
        self.error: Exception | None = None
        self._stop, self._max_seconds, self._timeout_seconds = stop, max_seconds, timeout_seconds
        self._given_up = False
        self._queue: Queue[T | None] = Queue(_ITEMS_AHEAD)

    @abstractmethod
    def read(self) -> None:
        """In a decoding thread: `put` all items, and `check` each frame that passes."""

    def items(self) -> Iterator[T]:
        """What was read, as it comes."""
        left = self._timeout_seconds
        while True:
            began = time.monotonic()
            try:
                item = self._queue.get(timeout=None if left == math.inf else max(0.0, left))
            except Empty:
                self.error = VideoError(f"decoding took longer than {self._timeout_seconds:g} s and was given up")
                self._given_up = True
                return
            if item is None:
                return
            left -= time.monotonic() - began
            yield item

    def decode(self) -> None:
        """In a decoding thread: read all."""
        try:
            self.read()
        except Exception as error:  # handed to the other thread, which tells a bad video from a bug
            self.error = self.error or error
        with contextlib.suppress(VideoError):  # nobody waits for the end any more
            self.put(None)

    def put(self, item: T | None) -> None:
        """Hand over an item, or with `None` the end; raises `VideoError` if nobody takes it."""
        while not self._is_over():
            with contextlib.suppress(Full):
                self._queue.put(item, timeout=0.1)
                return
        raise VideoError("stopped")

    def check(self, seconds: float) -> None:
        """A frame at this time passes, needed or not; raises `VideoError` if reading must end with it."""
        if self._is_over():
            raise VideoError("stopped")
        if seconds > self._max_seconds:
            raise TooLongError(f"too long: it has more than {self._max_seconds:g} seconds")

    def _is_over(self) -> bool:
        return self._given_up or self._stop.is_set()


@contextlib.contextmanager
def decoders(num_threads: int, stop: Event) -> Iterator[Callable[[Decoding], None]]:
    """So many threads, and a function that hands them the next video; after the block `stop` is set, and they end."""
    waiting: SimpleQueue[Decoding | None] = SimpleQueue()

    def work() -> None:
        for decoding in iter(waiting.get, None):
            if not stop.is_set():
                decoding.decode()

    threads = [Thread(target=work, name=f"decode-{number}", daemon=True) for number in range(num_threads)]
    try:
        for thread in threads:
            thread.start()
        yield waiting.put
    finally:
        stop.set()
        for _ in threads:
            waiting.put(None)
        end = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
