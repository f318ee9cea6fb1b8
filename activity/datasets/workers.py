"""Calls in several processes, each with a time limit; a process that is killed holds up no other.

Each process has a pipe of its own and one call at a time. In the pools of `concurrent.futures` and pebble all processes
take their calls from one pipe behind a lock: one that is killed while it holds the lock never gives it back.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

_EXIT_SECONDS = 5.0  # waited for the exit code of a process that has closed its pipe

_logger = logging.getLogger(__name__)


class CallTimedOut(Exception):
    """A call took longer than it may, so that its process was killed."""


class WorkerDied(Exception):
    """The process of a call crashed or was killed.

    Attributes:
        exitcode: of the process, below 0 the signal that ended it; `None`: no process was left to begin the call.
    """

    def __init__(self, exitcode: int | None) -> None:
        super().__init__(exitcode)
        self.exitcode = exitcode


def call_in_processes(
    function: Callable[..., Any],
    calls: Mapping[str, Sequence[Any]],
    *,
    num_workers: int,
    seconds_per_call: float,
    initializer: Callable[..., None],
    initargs: Sequence[Any] = (),
) -> Generator[tuple[str, Any], None, None]:
    """Give what each call returns, by its key, as they end; or `CallTimedOut`, `WorkerDied`, or what it raised.

    Processes are spawned, because a fork of a process with OpenCV's threads may hang (OpenCV issue 5150). One that dies
    in a call is replaced; one that dies before is not, as the next might do so too. All are killed at the end, and when
    the iterator is closed.

    Args:
        function: like `initializer`, of a module that the processes can import.
        calls: key -> arguments.
        num_workers: processes, at most one per call.
        seconds_per_call: limit of each call; the start of a process does not count.
        initializer: called at the start of each process.
        initargs: arguments of that.
    """
    waiting, left = deque(calls.items()), set(calls)
    workers: list[_Worker] = []

    def start_one() -> None:
        try:
            workers.append(_Worker(initializer, initargs))
        except OSError as error:
            _logger.warning("a worker process cannot be started: %s", error)

    try:
        for _ in range(min(num_workers, len(calls))):
            start_one()
        while left and workers:
            for worker in _wait(workers):
                key, result = worker.key, worker.receive()
                if isinstance(result, CallTimedOut | WorkerDied):
                    workers.remove(worker)
                    if key is None:
                        message = "a worker process ended at its start (exit code %s); %d left"
                        _logger.warning(message, worker.process.exitcode, len(workers))
                    elif waiting:
                        start_one()
                elif waiting:
                    worker.give(function, *waiting.popleft(), seconds_per_call)
                else:
                    workers.remove(worker)
                    worker.kill()
                if key is not None:
                    left.remove(key)
                    yield key, result
        for key in left:
            yield key, WorkerDied(None)
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process: `key` is that of its call, `None` while it starts; at `deadline` (`time.monotonic`) it is late."""

    def __init__(self, initializer: Callable[..., None], initargs: Sequence[Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.key: str | None = None
        self.deadline = math.inf
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=[theirs, initializer, initargs], daemon=True)
        with theirs:  # closed here, so that the pipe ends with the process
            self.process.start()

    def give(self, function: Callable[..., Any], key: str, arguments: Sequence[Any], seconds: float) -> None:
        """Begin a call."""
        self.key, self.deadline = key, time.monotonic() + seconds
        with contextlib.suppress(OSError):  # it is dead, which `receive` will tell
            self.pipe.send((function, arguments))

    def receive(self) -> Any:
        """Take the result of the call, `None` at the start; `WorkerDied` or `CallTimedOut` if it is dead or late."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_EXIT_SECONDS)
            return WorkerDied(self.kill())
        self.kill()
        return CallTimedOut()

    def kill(self) -> int | None:
        """End the process; returns its exit code."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def _wait(workers: Sequence[_Worker]) -> list[_Worker]:
    """Wait for some that have something to say, are dead or late."""
    seconds = min(worker.deadline for worker in workers) - time.monotonic()
    ready = wait([worker.pipe for worker in workers], max(seconds, 0.0) if seconds < math.inf else None)
    now = time.monotonic()
    return [worker for worker in workers if worker.pipe in ready or worker.deadline <= now]


def _work(pipe: Connection, initializer: Callable[..., None], initargs: Sequence[Any]) -> None:
    """In a worker process: call after call, until the main process closes the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process too, which ends this one
    initializer(*initargs)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            function, arguments = pipe.recv()
            pipe.send(_result(function, arguments))


def _result(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """What a call returns or raises, the latter as a `RuntimeError` where it could not be sent."""
    try:
        return function(*arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(repr(error))
        return error
