"""Where work is done that can be done side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from activity.errors import SettingError

if TYPE_CHECKING:
    from activity.executors.local import LocalExecutor
    from activity.executors.ray import RayExecutor

    Executor: TypeAlias = LocalExecutor | RayExecutor


def _open_local(num_workers: int | None, prepare: Callable[[], None], address: str | None) -> Executor:
    import joblib

    from activity.executors.local import LocalExecutor

    if address is not None:
        raise SettingError("address", "of a Ray cluster, and so goes with the executor ray", address)
    return LocalExecutor(num_workers or joblib.cpu_count(), prepare)


def _open_ray(num_workers: int | None, prepare: Callable[[], None], address: str | None) -> Executor:
    from activity.executors.ray import RayExecutor

    return RayExecutor(num_workers, prepare, address)


EXECUTORS: dict[str, Callable[[int | None, Callable[[], None], str | None], Executor]] = {
    "local": _open_local,
    "ray": _open_ray,
}


def open_executor(
    name: str, *, prepare: Callable[[], None], num_workers: int | None = None, address: str | None = None
) -> Executor:
    """An executor, to be closed by `with`: its `starmap_unordered(function, items)` gives results as they come.

    A call that crashes or hangs its process is given up and told; the others go on.

    Args:
        name: a key of `EXECUTORS`: `local`, processes of this machine, or `ray`, those of a Ray cluster.
        prepare: called once in each process, before its first item; a function of a module, as all that is sent.
        num_workers: calls side by side at most; by default one for each CPU, of the machine or of the cluster.
        address: of a running Ray cluster (`host:port`, or `auto`); without it `ray` starts one on this machine.

    Raises:
        SettingError: the name is unknown, or there is an address without `ray`.
        ActivityError: Ray is not installed, or the cluster cannot be reached.
    """
    if name not in EXECUTORS:
        raise SettingError("executor", f"one of {', '.join(EXECUTORS)}", name)
    return EXECUTORS[name](num_workers, prepare, address)
