import os
import signal
import sys

import pytest
from errands import do, never_start, nothing

from activity.errors import ActivityError, SettingError
from activity.executors.choice import open_executor
from activity.executors.local import CallTimedOut, WorkerDied

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="Ray on Windows is not tried"),
    # of Ray 2.60, when it is imported or stopped
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def results(executor, *items, seconds=60.0, most=None):
    return dict(executor.starmap_unordered(do, items, seconds=seconds, most=most))


@pytest.fixture(scope="module")
def executor():
    with open_executor("ray", prepare=nothing, num_workers=2) as executor:
        yield executor


def test_each_item_has_its_result(executor):
    items = [("double", number) for number in range(500)]
    assert results(executor, *items) == {item: 2 * item[1] for item in items}
    assert results(executor) == {}


def test_what_crashes_hangs_or_fails_is_told_and_the_others_go_on(executor, caplog):
    items = [(what, number) for number, what in enumerate(["crash", "fail", "double", "odd", "hang", "log", "half"])]
    crashed, failed, doubled, odd, hung, logged, half = map(results(executor, *items, seconds=3).get, items)
    assert isinstance(crashed, WorkerDied) and str(crashed) == "exit code 3"
    assert isinstance(failed, ValueError) and str(failed) == "no such thing"
    assert isinstance(odd, RuntimeError) and str(odd) == "Odd: one"
    assert isinstance(half, WorkerDied) and isinstance(hung, CallTimedOut)
    assert (doubled, logged) == (4, 10) and caplog.messages == ["of 5"]


def test_what_kills_the_task_itself_is_found_by_halving(executor, caplog):
    items = [("kill parent" if number == 37 else "double", number) for number in range(60)]
    found = results(executor, *items)
    killer = found.pop(("kill parent", 37))
    assert isinstance(killer, WorkerDied) and "The worker died unexpectedly" in str(killer)
    assert found == {item: 2 * item[1] for item in items if item != ("kill parent", 37)}
    assert 1 < caplog.text.count("a task of Ray was lost, and its rest is given to others") < 6


def test_processes_are_kept_from_shard_to_shard(executor):
    results(executor, ("double", 1))
    found = set(results(executor, *(("process", number) for number in range(16))).values())
    assert 1 <= len(found) <= 2
    assert len(set(results(executor, *(("process", number) for number in range(3)), most=1).values()) - found) <= 1


def test_processes_that_cannot_start_are_told():
    with open_executor("ray", prepare=never_start, num_workers=1) as executor:
        with pytest.raises(ActivityError, match="worker processes cannot start: exit code 7"):
            results(executor, ("double", 1))


def test_who_stops_listening_stops_the_work(executor):
    coming = executor.starmap_unordered(do, [("double", 1), ("hang", 2), ("hang", 3)], seconds=60)
    assert next(coming) == (("double", 1), 2)
    coming.close()
    assert results(executor, *(("double", number) for number in range(3)), seconds=30)[("double", 2)] == 4


def test_a_program_keeps_its_handler_and_its_cluster(executor):
    import ray

    assert signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.default_int_handler)
    with open_executor("ray", prepare=nothing) as second:
        assert results(second, ("double", 1)) == {("double", 1): 2}
    assert ray.is_initialized()


@pytest.mark.parametrize("address", ["ray://there:10001", "there", "", "local"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(SettingError, match=f"address must be host:port or auto, .*, received: {address}$"):
        open_executor("ray", prepare=nothing, address=address)


def test_ray_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ActivityError, match="the executor ray needs Ray; pip install '.\\[ray\\]'"):
        open_executor("ray", prepare=nothing)
