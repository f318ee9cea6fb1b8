import contextlib
import multiprocessing
import os
import signal
import time

import pytest
from misbehaving import (
    be_killed,
    be_killed_in_the_middle_of_the_answer,
    call,
    die_if_first,
    raise_what_pickle_cannot_make,
    refuse,
    square,
    start_slowly,
)

from activity.datasets.workers import CallTimedOut, WorkerDied, call_in_processes

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def run(calls, *, num_workers=2, seconds_per_call=30, initializer=start_slowly, initargs=(0,)):
    return call_in_processes(
        call,
        calls,
        num_workers=num_workers,
        seconds_per_call=seconds_per_call,
        initializer=initializer,
        initargs=initargs,
    )


def test_each_call_gives_its_result_in_at_most_so_many_processes():
    results = dict(run({str(number): [square, number] for number in range(20)}))
    assert {key: value for key, (value, _) in results.items()} == {str(number): number**2 for number in range(20)}
    assert 1 <= len({pid for _, pid in results.values()} - {os.getpid()}) <= 2
    assert not multiprocessing.active_children()


def test_no_calls_need_no_process():
    assert list(run({}, initializer=refuse)) == []


def test_what_a_call_raises_arrives_in_its_place():
    calls = {"disk": [refuse, OSError(28, "full")], "odd": [raise_what_pickle_cannot_make], "well": [square, 3]}
    results = dict(run(calls, num_workers=1))
    assert isinstance(results["disk"], OSError) and results["disk"].errno == 28
    assert isinstance(results["odd"], RuntimeError) and str(results["odd"]) == "NeedsTwo('one and two')"
    assert results["well"][0] == 9


def test_a_call_that_takes_too_long_is_stopped_and_the_start_does_not_count():
    calls = {"stuck": [square, 1, 60], "well": [square, 3]}
    started = time.monotonic()
    results = dict(run(calls, num_workers=1, seconds_per_call=0.5, initargs=[1.5]))
    assert isinstance(results["stuck"], CallTimedOut) and results["well"][0] == 9
    assert time.monotonic() - started < 30


@posix
@pytest.mark.parametrize("killed", [be_killed, be_killed_in_the_middle_of_the_answer])
def test_a_process_that_is_killed_costs_its_own_call_alone(killed):
    calls = {"killed": [killed], **{str(number): [square, number] for number in range(5)}}
    results = dict(run(calls, num_workers=1))
    died = results.pop("killed")
    assert isinstance(died, WorkerDied) and died.exitcode == -signal.SIGKILL
    assert {key: value for key, (value, _) in results.items()} == {str(number): number**2 for number in range(5)}


@posix
def test_one_that_is_killed_at_its_start_leaves_the_calls_to_the_others(tmp_path, caplog):
    calls = {str(number): [square, number, 0.4] for number in range(5)}
    results = dict(run(calls, initializer=die_if_first, initargs=[tmp_path / "mark"]))
    assert {key: value for key, (value, _) in results.items()} == {str(number): number**2 for number in range(5)}
    assert caplog.messages == ["a worker process ended at its start (exit code -9); 1 left"]


def test_without_any_process_each_call_is_told(capfd, caplog):
    calls = {str(number): [square, number] for number in range(5)}
    results = dict(run(calls, initializer=refuse, initargs=[OSError()]))
    assert len(results) == 5 and all(isinstance(x, WorkerDied) and x.exitcode is None for x in results.values())
    assert caplog.messages[-1] == "a worker process ended at its start (exit code 1); 0 left"
    assert capfd.readouterr().err.count("Traceback") == 2  # why, of each


def test_a_process_that_the_system_refuses_is_told(monkeypatch, caplog):
    def refused(_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", refused)
    ((key, result),) = run({"only": [square, 1]})
    assert key == "only" and isinstance(result, WorkerDied) and result.exitcode is None
    assert caplog.messages == ["a worker process cannot be started: [Errno 11] Resource temporarily unavailable"]


def test_no_process_outlives_an_iterator_that_is_closed():
    with contextlib.closing(run({"quick": [square, 1], "stuck": [square, 1, 60]})) as coming:
        assert next(coming)[0] == "quick"
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()
