import threading
import time

import pytest

from activity.errors import VideoError
from activity.video.prefetch import Prefetch, close_all


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture
def hanging():
    """An iterator that hangs after its first item, as a decoder may in C."""
    released = threading.Event()

    def items():
        yield 1
        released.wait(60)

    yield items()
    released.set()


@pytest.fixture
def counting():
    """An iterator of numbers without end, and those that it made."""
    made = []

    def items():
        while True:
            made.append(len(made))
            yield made[-1]

    return items(), made


def test_gives_all_items_in_their_order():
    assert list(Prefetch(range(20), num_ahead=3)) == list(range(20))
    assert list(Prefetch([])) == []


def test_several_are_made_side_by_side_and_their_threads_end():
    prefetches = [Prefetch(range(20), num_ahead=4) for _ in range(5)]
    assert [list(prefetch) for prefetch in prefetches] == [list(range(20))] * 5
    close_all(prefetches)
    assert not prefetch_threads()


def test_the_next_item_is_made_while_one_is_in_use():
    made = [threading.Event() for _ in range(3)]
    with Prefetch(event.set() or i for i, event in enumerate(made)) as items:
        assert next(items) == 0
        assert made[1].wait(10)


@pytest.mark.parametrize("num_ahead", [1, 4])
def test_no_more_items_are_made_ahead_than_asked_for(counting, num_ahead):
    items, made = counting
    with Prefetch(items, num_ahead=num_ahead) as coming:
        assert [next(coming) for _ in range(10)] == list(range(10))
        time.sleep(0.1)
        assert len(made) == 10 + num_ahead
    assert not prefetch_threads()


def test_counts_the_time_of_waiting_and_no_other():
    def slow():
        for i in range(3):
            time.sleep(0.1)
            yield i

    eager = Prefetch(slow())
    list(eager)
    assert 0.25 < eager.waiting_seconds < 1
    patient = Prefetch(slow())
    for _ in patient:
        time.sleep(0.3)
    assert 0.05 < patient.waiting_seconds < 0.25  # for the first


def test_a_thread_that_hangs_is_given_up(hanging):
    began = time.monotonic()
    items = Prefetch(hanging, timeout_seconds=0.2)
    assert next(items) == 1
    with pytest.raises(VideoError, match=r"^decoding took longer than 0.2 s and was given up$"):
        next(items)
    assert list(items) == []
    close_all([items])
    assert time.monotonic() - began < 5
    (thread,) = prefetch_threads()
    assert thread.daemon  # Python does not wait for it


def test_only_waiting_counts_towards_the_limit(counting):
    with Prefetch(counting[0], timeout_seconds=0.2) as items:
        for number in range(20):
            assert next(items) == number
            time.sleep(0.02)


def raising(error):
    yield 1
    raise error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_arrives_where_the_item_was_to_be_used(error):
    items = Prefetch(raising(error), timeout_seconds=10)
    assert next(items) == 1
    with pytest.raises(error):
        next(items)
    assert list(items) == []


def test_after_its_end_nothing_comes_and_nothing_is_waited_for(counting):
    with Prefetch(counting[0]) as items:
        next(items)
    assert list(items) == [] and items.is_stopped


def test_what_is_made_is_closed_when_it_is_stopped():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with Prefetch(items()) as coming:
        next(coming)
    assert closed.wait(10)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_does_not_wait_for_a_thread_that_hangs(hanging, error):
    began = time.monotonic()
    with pytest.raises(error), Prefetch(hanging) as items:
        next(items)
        raise error
    assert time.monotonic() - began < 5
