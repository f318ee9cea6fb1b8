import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from errands import do, never_start, nothing, start_slowly

import activity
from activity.errors import ActivityError
from activity.executors.local import CallTimedOut, LocalExecutor, WorkerDied

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(activity.__file__).parents[1]), *sys.path])}
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def results(executor, *items, seconds=60.0, most=None):
    return dict(executor.starmap_unordered(do, items, seconds=seconds, most=most))


def test_each_item_has_its_result():
    with LocalExecutor(2, nothing) as executor:
        items = [("double", number) for number in range(50)]
        assert results(executor, *items) == {item: 2 * item[1] for item in items}
        assert results(executor) == {}


def test_what_crashes_hangs_or_fails_is_told_and_the_others_go_on():
    items = [(what, number) for number, what in enumerate(["crash", "fail", "double", "odd", "hang", "double"])]
    with LocalExecutor(2, nothing) as executor:
        start = time.monotonic()
        crashed, failed, doubled, odd, hung, last = map(results(executor, *items, seconds=2).get, items)
        assert 2 < time.monotonic() - start < 30
    assert isinstance(crashed, WorkerDied) and str(crashed) == "exit code 3"
    assert isinstance(failed, ValueError) and str(failed) == "no such thing"
    assert isinstance(odd, RuntimeError) and str(odd) == "Odd: one"
    assert isinstance(hung, CallTimedOut)
    assert (doubled, last) == (4, 10)


@posix
def test_workers_that_are_killed_at_any_moment_leave_nothing_waiting():
    """With locks that workers share, one that died while it held them stopped everything."""
    items = [("double", number) for number in range(1500)]
    random_, found, num_killed = random.Random(0), [], 0
    with LocalExecutor(2, nothing) as executor:
        for pair in executor.starmap_unordered(do, items, seconds=60):
            found.append(pair)
            started = [worker.process.pid for worker in executor._workers if worker.is_started]
            if started and random_.random() < 0.02:
                os.kill(random_.choice(started), signal.SIGKILL)
                num_killed += 1
    assert sorted(item for item, _ in found) == items and num_killed > 10
    died = [result for item, result in found if result != 2 * item[1]]
    assert len(died) <= num_killed and {str(reason) for reason in died} <= {"exit code -9"}


def test_processes_are_kept_and_as_many_as_asked_for():
    with LocalExecutor(3, nothing) as executor:
        first = set(results(executor, *(("process", number) for number in range(9))).values())
        second = set(results(executor, *(("process", number) for number in range(3)), most=1).values())
    assert len(first) == 3 and len(second) == 1 and second < first
    with LocalExecutor(3, nothing) as executor:
        assert len(set(results(executor, ("process", 1)).values())) == len(first & second)


def test_what_workers_log_is_logged_here(caplog):
    with LocalExecutor(1, nothing) as executor:
        results(executor, ("log", 5), ("fail", 6))
    assert [(record.name, record.message) for record in caplog.records] == [("activity.errands", "of 5")]


def test_the_start_of_a_process_does_not_count_for_the_time_limit():
    with LocalExecutor(1, start_slowly) as executor:
        hung, doubled = map(
            results(executor, ("hang", 1), ("double", 2), seconds=0.5).get, [("hang", 1), ("double", 2)]
        )
    assert isinstance(hung, CallTimedOut) and doubled == 4


def test_no_worker_can_start(caplog):
    with (
        LocalExecutor(2, never_start) as executor,
        pytest.raises(ActivityError, match="cannot start: exit code 7; in a"),
    ):
        results(executor, ("double", 1))
    assert "a worker process could not start: exit code 7" in caplog.text


def test_where_the_system_refuses_processes_the_others_do_the_work(monkeypatch, caplog):
    start, started = multiprocessing.context.SpawnProcess.start, []

    def refuse(process):
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", refuse)
    with LocalExecutor(2, nothing) as executor:
        assert results(executor, ("double", 1), ("double", 2)) == {("double", 1): 2, ("double", 2): 4}
    assert set(caplog.messages) == {
        "a worker process could not start: [Errno 11] Resource temporarily unavailable",
    }


@posix
def test_a_worker_that_is_killed_in_the_middle_of_its_answer_is_told():
    with LocalExecutor(1, nothing) as executor:
        items = [("half", 1), ("double", 2)]
        half, double = map(results(executor, *items).get, items)
    assert isinstance(half, WorkerDied) and str(half) == "exit code -9" and double == 4


def test_who_stops_listening_stops_the_work():
    with LocalExecutor(1, nothing) as executor:
        coming = executor.starmap_unordered(do, [("double", 1), ("hang", 2)], seconds=60)
        assert next(coming) == (("double", 1), 2)
        time.sleep(0.5)
        coming.close()
        assert results(executor, ("double", 3)) == {("double", 3): 6}


@posix
def test_a_worker_that_hangs_ends_with_the_program(tmp_path):
    """Also where that is killed."""
    program = f"""if True:
        from activity.executors.local import LocalExecutor
        from errands import do, nothing
        with LocalExecutor(2, nothing) as executor:
            for _, pid in executor.starmap_unordered(do, [("process", 1), ("process", 2), ("hang", 1)], seconds=60):
                with open({str(tmp_path / "pids")!r}, "a") as file:
                    print(pid, file=file, flush=True)
    """
    run = subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT)
    pids = tmp_path / "pids"
    try:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    finally:
        run.kill()
        run.wait()
    wait_for(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_running(pid):
    """A process whose parent was killed may stay as a zombie, where nobody asks for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
