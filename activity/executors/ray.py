"""Processes of a Ray cluster, which is started on this machine or was there before.

Items go in shards to tasks of Ray; in each task a `LocalExecutor` calls the function in its own process. So an item
that crashes or hangs its process is found there, as on one machine. What ends the task itself (a node that is lost, or
out of memory) is found by halving: what the shard has not done yet is given out again in two halves.

Ray Data is not used: it tried a video that kills its worker again and again, and the run did not end.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from activity.errors import ActivityError, SettingError, one_line
from activity.executors.local import Event, Item, LocalExecutor, LogLine, WorkerDied, results_of

_MOST_IN_SHARD = 64
_OBJECT_STORE_BYTES = 128 << 20  # only small values go through it; Ray would take a third of the memory
_ANSWER_SECONDS = 10.0
_TELL_SECONDS = 0.5  # between messages of a task
_SILENT_SECONDS = 60.0

_logger = logging.getLogger(__name__)


def import_ray() -> Any:
    """The module; raises `ActivityError` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # it would warn of a change to come
    try:
        import ray
    except ImportError as error:  # by path: a package index may hold another "activity"
        hint = "pip install '.[ray]' in the project's folder brings it"
        raise ActivityError("the executor ray needs Ray", hint=hint) from error
    return ray


class RayExecutor:
    """Tasks of Ray, each of which has one CPU; see `activity.executors.choice.open_executor`.

    A program that has called `ray.init` itself keeps its cluster; else it is left when the executor is closed.

    Args:
        num_workers: tasks side by side at most; `None`: as many as the cluster has CPUs.
        prepare: called once in each process.
        address: of a cluster that runs, of which this machine is a node; `None` starts one of this machine alone.

    Raises:
        SettingError: the address is none, or one of Ray Client.
        ActivityError: Ray is not installed.
    """

    def __init__(self, num_workers: int | None, prepare: Callable[[], None], address: str | None) -> None:
        if address not in (None, "auto") and not re.fullmatch(r"[^:/]+:\d+", address or ""):
            raise SettingError("address", "host:port or auto, of a cluster that this machine is a node of", address)
        self.num_workers, self._prepare, self._address = num_workers, prepare, address
        self._ray = import_ray()
        self._is_ours = False

    def __enter__(self) -> RayExecutor:
        if not self._ray.is_initialized():
            self._is_ours = True
            with _kept_sigterm():
                self._connect()
        return self

    def _connect(self) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            self._ray.init("local", num_cpus=self.num_workers, **local, **quiet)
            return
        try:
            if self._address != "auto":
                host, _, port = self._address.partition(":")
                socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()  # Ray would wait for ever
            self._ray.init(self._address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            reason = f"no Ray cluster can be joined at {self._address} ({one_line(error).partition('. ')[0]})"
            raise ActivityError(reason, hint="ray start --head starts one, ray status tells of it") from error

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def starmap_unordered(
        self, function: Callable[..., Any], items: Iterable[Item], *, seconds: float, most: int | None = None
    ) -> Generator[tuple[Item, Any], None, None]:
        """See `LocalExecutor.starmap_unordered`."""
        return results_of(self._events([*items], function, seconds, most or self.num_workers))

    def _events(
        self, items: list[Item], function: Callable[..., Any], seconds: float, most: int | None
    ) -> Generator[Event, None, None]:
        ray = self._ray
        # Ray is not to try again: it would not know which item was at fault.
        task = ray.remote(num_cpus=1, max_retries=0)(_run_shard)
        prepare = pickle.dumps(self._prepare)
        level = logging.getLogger("activity").getEffectiveLevel()
        size = max(1, min(_MOST_IN_SHARD, math.ceil(len(items) / (4 * (most or self._num_cpus())))))
        shards = deque(items[start : start + size] for start in range(0, len(items), size))
        running: dict[Any, deque[Item]] = {}  # stream of results -> what is still to come from it, in order
        try:
            while shards or running:
                # Twice the CPUs: the next shard is there when one ends, and a cluster that can grow sees why.
                num_tasks = most or 2 * self._num_cpus()
                while shards and len(running) < num_tasks:
                    shard = shards.popleft()
                    work = pickle.dumps((function, shard))
                    running[task.remote(sys.path, prepare, work, seconds, level)] = deque(shard)
                ended = None
                while ended is None:
                    stream = self._ready(running)
                    messages = self._receive(stream)
                    if isinstance(messages, list):
                        for message in messages:
                            yield message if isinstance(message, LogLine) else (running[stream].popleft(), message[0])
                    else:
                        ended = stream
                rest = [*running.pop(ended)]
                if len(rest) == 1:
                    yield rest[0], messages
                elif rest:
                    shards.extendleft((rest[len(rest) // 2 :], rest[: len(rest) // 2]))
        finally:
            for stream in running:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(stream, force=True)

    def _ready(self, streams: Iterable[Any]) -> Any:
        """The first stream that has something; says so if that takes long."""
        ready, _ = self._ray.wait([*streams], timeout=_SILENT_SECONDS)
        if not ready:
            what = "no result for %.0f s; of the %d CPUs of the Ray cluster %d are free"
            num_free = int(self._ray.available_resources().get("CPU", 0))
            _logger.warning(what, _SILENT_SECONDS, self._num_cpus(), num_free)
            ready, _ = self._ray.wait([*streams])
        return ready[0]

    def _receive(self, stream: Any) -> list[LogLine | tuple[Any]] | WorkerDied | None:
        """Its next messages; `None` at its end, `WorkerDied` if the task was lost."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(next(stream))
        except StopIteration:
            return None
        except errors.RayTaskError as error:
            if isinstance(error.cause, ActivityError | OSError):
                raise error.cause from error
            hint = "all machines of the cluster need this program, and the same packages"
            raise ActivityError(f"a task of Ray failed: {one_line(error.cause)}", hint=hint) from error
        except errors.RayError as error:  # of what ran it
            _logger.warning("a task of Ray was lost, and its rest is given to others: %s", one_line(error))
            return WorkerDied(one_line(error))

    def _num_cpus(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))


@contextlib.contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Ray sets a handler of SIGTERM; that of the program stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# === In a process of Ray ===

_executors: dict[bytes, LocalExecutor] = {}  # one, of which the process is kept from shard to shard


def _run_shard(
    path: list[str], prepare: bytes, work: bytes, seconds: float, log_level: int
) -> Iterator[list[LogLine | tuple[Any]]]:
    """What is logged, and of each item in order a tuple of its result; a list of some, as each message of Ray costs.

    Args:
        path: where the main program finds its modules, which the processes of Ray are not told.
        prepare: a function, pickled.
        work: a function and its items, pickled.
        seconds: that a call may take.
        log_level: of the main program.
    """
    sys.path.extend(folder for folder in path if folder not in sys.path)
    logging.getLogger("activity").setLevel(log_level)
    if prepare not in _executors:
        while _executors:
            _executors.popitem()[1].__exit__()
        _executors[prepare] = LocalExecutor(1, pickle.loads(prepare))
    function, items = pickle.loads(work)
    messages: list[LogLine | tuple[Any]] = []
    told = -math.inf
    for event in _executors[prepare].events(function, items, seconds=seconds):
        messages.append(event if isinstance(event, LogLine) else (event[1],))
        if time.monotonic() - told > _TELL_SECONDS:
            yield messages
            messages, told = [], time.monotonic()
    yield messages
