"""Worker processes on this machine, of which each may crash or hang without harm to the others.

Each worker has a pipe of its own and shares no lock with anybody: one that is killed, at whatever moment, can stop
neither the others nor the main process. (A queue that all share is held for ever by a process that dies in it.)
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from activity.errors import ActivityError

_START_SECONDS = 300.0  # a process imports its modules meanwhile, perhaps from a slow disk
_LOOK_SECONDS = 1.0  # how often workers are looked at which say nothing
_MOST_FAILED_STARTS = 5  # in a row

_logger = logging.getLogger(__name__)


class WorkerDied(Exception):
    """The process that ran the function ended before it gave a result."""


class CallTimedOut(Exception):
    """The function was stopped at its time limit."""


@dataclass(frozen=True)
class LogLine:
    """What a worker logged, to be logged where the user sees it."""

    name: str
    level: int
    message: str

    def log(self) -> None:
        """Log it here."""
        logging.getLogger(self.name).log(self.level, "%s", self.message)


Item: TypeAlias = tuple[Any, ...]
Event: TypeAlias = LogLine | tuple[Item, Any]


class LocalExecutor:
    """Spawned processes that call a function; see `activity.executors.choice.open_executor`.

    They are started when they are needed and stay until the executor is closed. A process that the program leaves
    behind, because it was killed, ends by itself.

    Args:
        num_workers: processes at most.
        prepare: called once in each process, before its first item; a function of a module, as all that is sent.
    """

    def __init__(self, num_workers: int, prepare: Callable[[], None]) -> None:
        self.num_workers = num_workers
        self._prepare = prepare
        self._workers: list[_Worker] = []
        self._num_failed_starts = 0  # in a row

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def starmap_unordered(
        self, function: Callable[..., Any], items: Iterable[Item], *, seconds: float, most: int | None = None
    ) -> Generator[tuple[Item, Any], None, None]:
        """Each item with `function(*item)`, or with the exception in its place, as they end.

        Args:
            function: of a module, or a partial of one: it is sent by name.
            items: the arguments of each call.
            seconds: that a call may take.
            most: calls side by side, where fewer than workers.

        Yields:
            The item, and what the call returned or the `Exception` that it raised; `CallTimedOut` where it was stopped,
            `WorkerDied` where its process ended.

        Raises:
            ActivityError: no process can be started.
        """
        return results_of(self.events(function, items, seconds=seconds, most=most))

    def events(
        self, function: Callable[..., Any], items: Iterable[Item], *, seconds: float, most: int | None = None
    ) -> Generator[Event, None, None]:
        """The results of `starmap_unordered`, and between them what the workers log."""
        todo = deque(items)
        most = min(self.num_workers, most or self.num_workers)
        try:
            while todo or any(worker.item is not None for worker in self._workers):
                num_busy = sum(worker.item is not None for worker in self._workers)
                for worker in [worker for worker in self._workers if worker.is_free][: most - num_busy]:
                    if todo and worker.give(function, todo[0], seconds):
                        todo.popleft()
                        num_busy += 1
                while len(self._workers) < min(most, self.num_workers, num_busy + len(todo)):
                    try:
                        self._workers.append(_Worker(self._prepare))
                    except OSError as error:
                        self._count_failed_start(error)
                for worker, message in self._messages():
                    yield from self._take(worker, message)
        finally:
            for worker in [worker for worker in self._workers if worker.item is not None]:  # nobody waits for these
                self._remove(worker)

    def _messages(self) -> Iterator[tuple[_Worker, Any]]:
        """One message of each worker that has one, or that must be given up; after a second perhaps none."""
        ends = (worker.deadline for worker in self._workers if not worker.is_free)
        patience = min([_LOOK_SECONDS, *(end - time.monotonic() for end in ends)])
        ready = connection.wait([worker.pipe for worker in self._workers], timeout=max(0.0, patience))
        for worker in list(self._workers):
            if worker.pipe in ready or not worker.process.is_alive():
                yield worker, worker.receive()
            elif not worker.is_free and time.monotonic() > worker.deadline:
                yield worker, CallTimedOut("the worker was stopped at its time limit")

    def _take(self, worker: _Worker, message: Any) -> Iterator[Event]:
        item = worker.item
        if isinstance(message, LogLine):
            yield message
        elif isinstance(message, WorkerDied | CallTimedOut):
            self._remove(worker)
            if item is not None:
                yield item, message
            elif not worker.is_free:
                self._count_failed_start(message)
        elif not worker.is_started:
            worker.is_started, self._num_failed_starts = True, 0
        elif item is not None:
            worker.item = None
            yield item, message[0]

    def _count_failed_start(self, reason: Exception) -> None:
        self._num_failed_starts += 1
        _logger.warning("a worker process could not start: %s", reason)
        if self._num_failed_starts < _MOST_FAILED_STARTS:
            return
        if not self._workers:
            hint = 'in a script of your own, start the work below `if __name__ == "__main__":`'
            raise ActivityError(f"worker processes cannot start: {reason}", hint=hint)
        self.num_workers = len(self._workers)

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.kill()


def results_of(events: Generator[Event, None, None]) -> Generator[tuple[Item, Any], None, None]:
    """The results among the events; what was logged is logged here."""
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, LogLine):
                event.log()
            else:
                yield event


class _Worker:
    """A process with its pipe; `item` is what it works on, and `deadline` when that, or its start, must be over."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        # Not forked: a fork of a process with OpenCV's threads may hang (OpenCV issue 5150).
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        level = logging.getLogger("activity").getEffectiveLevel()
        arguments = (theirs, prepare, level)
        self.process: BaseProcess = context.Process(target=_serve, args=arguments, daemon=True, name="activity-worker")
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.item: Item | None = None
        self.is_started = False
        self.deadline = time.monotonic() + _START_SECONDS

    @property
    def is_free(self) -> bool:
        return self.is_started and self.item is None

    def give(self, function: Callable[..., Any], item: Item, seconds: float) -> bool:
        """Let it work; whether it could take the item: one that was killed is found out when it is asked next."""
        try:
            self.pipe.send((function, item))
        except OSError:
            return False
        self.item, self.deadline = item, time.monotonic() + seconds
        return True

    def receive(self) -> Any:
        """Its next message, `WorkerDied` if there will be none."""
        with contextlib.suppress(EOFError, OSError):
            if self.pipe.poll():
                return self.pipe.recv()
        self.process.join(timeout=5)
        return WorkerDied(f"exit code {self.process.exitcode}")

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join(timeout=5)  # one that the system holds, as on a dead network disk, ends when it can


# === In the worker ===


def _serve(pipe: connection.Connection, prepare: Callable[[], None], log_level: int) -> None:
    """Call functions as they come. The first message says that it is ready, each result is a tuple of one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = _LogSender(pipe)
    logging.basicConfig(level=log_level, handlers=[log], format="%(message)s", force=True)
    prepare()
    log.send(None)
    while True:
        try:
            function, item = pipe.recv()
        except EOFError:
            return
        log.send((_result(function, item),))


def _end_with_parent() -> None:
    """End with the main process, also if that is killed while a decoder hangs here."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _result(function: Callable[..., Any], item: Item) -> Any:
    """What the function returns or raises, if it can be sent."""
    try:
        return function(*item)
    except Exception as error:
        _logger.debug("in a worker: %r", error, exc_info=True)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # not every class of exceptions can be rebuilt
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error


class _LogSender(logging.Handler):
    """Sends what is logged to the main process; messages of several threads one after the other."""

    def __init__(self, pipe: connection.Connection) -> None:
        super().__init__()
        self._pipe, self._sending = pipe, threading.Lock()

    def send(self, message: Any) -> None:
        with self._sending:
            self._pipe.send(message)

    def emit(self, record: logging.LogRecord) -> None:
        self.send(LogLine(record.name, record.levelno, self.format(record)))
