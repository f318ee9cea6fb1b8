"""Items made in a thread ahead of their use, such as frames of videos or batches of training.

A decoder may hang in C, where nothing can stop it, as on a network disk. So the threads are daemons: at its exit,
Python waits for those of `concurrent.futures`, and Ctrl-C would do nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Generic, TypeVar

from activity.errors import VideoError

_STOP_SECONDS = 1.0  # waited for threads, which end at the next frame or item; one that hangs is left alone
T = TypeVar("T")


class Prefetch(Iterator[T], Generic[T]):
    """Items of an iterator, made in a thread of its own while others are in use.

        with Prefetch(batches) as coming:
            for batch in coming:
                ...

    An error in the thread is raised where its item was to be used.

    Args:
        items: what the thread goes through.
        num_ahead: items that are made before they are asked for.
        timeout_seconds: may be waited for items, all together.

    Attributes:
        waiting_seconds: how long items were waited for so far.

    Raises:
        VideoError: when an item is asked for: it was waited for too long.
    """

    def __init__(self, items: Iterable[T], *, num_ahead: int = 1, timeout_seconds: float = math.inf) -> None:
        self.waiting_seconds = 0.0
        self._timeout_seconds = timeout_seconds
        self._made: SimpleQueue[T | _End] = SimpleQueue()
        self._room = Semaphore(num_ahead)
        self._stopped = Event()
        self._thread = Thread(target=self._make, args=[iter(items)], name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        close_all([self])

    def __next__(self) -> T:
        if self._stopped.is_set():
            raise StopIteration
        began = time.perf_counter()
        left = self._timeout_seconds - self.waiting_seconds
        try:
            item = self._made.get(timeout=None if left == math.inf else max(0.0, left))
        except Empty:
            self.stop()
            reason = f"decoding took longer than {self._timeout_seconds:g} s and was given up"
            raise VideoError(reason) from None
        finally:
            self.waiting_seconds += time.perf_counter() - began
        if isinstance(item, _End):
            self.stop()
            raise item.error
        self._room.release()
        return item

    @property
    def is_stopped(self) -> bool:
        """Whether no more items are taken; to be asked in the thread by what takes long to make one."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Tell the thread to end."""
        self._stopped.set()
        self._room.release()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, but no longer than that."""
        self._thread.join(seconds)

    def _make(self, items: Iterator[T]) -> None:
        """In the thread."""
        try:
            while self._room.acquire() and not self._stopped.is_set():
                self._made.put(next(items))
        except BaseException as error:  # StopIteration among them; of any other the one who waits must hear too
            self._made.put(_End(error))


class _End:
    """Why there are no more items."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def close_all(prefetches: Iterable[Prefetch]) -> None:
    """End the threads; one that hangs is not waited for."""
    prefetches = list(prefetches)
    for prefetch in prefetches:
        prefetch.stop()
    end = time.monotonic() + _STOP_SECONDS
    for prefetch in prefetches:
        prefetch.join(max(0.0, end - time.monotonic()))
