import threading
import time

import pytest

from activity.video.prefetch import Decoding, TooLongError, decoders


class Counting(Decoding[int]):
    """Reads numbers, a tenth of a second apart on the clock of the video."""

    def __init__(self, num, *limits):
        super().__init__(*limits)
        self.num, self.num_checked = num, 0

    def read(self):
        for number in range(self.num):
            self.check(number / 10)
            self.num_checked += 1
            self.put(number)


class Hanging(Decoding[int]):
    """Hangs, as a decoder may in C."""

    def __init__(self, *limits):
        super().__init__(*limits)
        self.released = threading.Event()

    def read(self):
        self.put(1)
        self.released.wait(60)


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_items_come_in_order_and_threads_go():
    stop = threading.Event()
    made = [Counting(20, stop) for _ in range(5)]
    with decoders(2, stop) as decode:
        for one in made:
            decode(one)
        assert [list(one.items()) for one in made] == [list(range(20))] * 5
    assert not decoding_threads() and [one.error for one in made] == [None] * 5


def test_what_is_read_waits_for_who_takes_it():
    stop = threading.Event()
    with decoders(1, stop) as decode:
        counting = Counting(10**9, stop)
        decode(counting)
        items = counting.items()
        assert [next(items) for _ in range(10)] == list(range(10))
        time.sleep(0.1)
        assert counting.num_checked < 20
    assert not decoding_threads()


def test_a_video_that_lasts_too_long_ends():
    stop = threading.Event()
    with decoders(1, stop) as decode:
        counting = Counting(10**9, stop, 0.5)
        decode(counting)
        assert list(counting.items()) == [0, 1, 2, 3, 4, 5]
    assert isinstance(counting.error, TooLongError) and str(counting.error) == "too long: it has more than 0.5 seconds"


def test_a_thread_that_hangs_is_left_behind():
    stop = threading.Event()
    began = time.monotonic()
    with decoders(1, stop) as decode:
        hanging = Hanging(stop, 1.0, 0.2)
        decode(hanging)
        assert list(hanging.items()) == [1]
        assert str(hanging.error) == "decoding took longer than 0.2 s and was given up"
    assert time.monotonic() - began < 5
    (thread,) = decoding_threads()
    assert thread.daemon  # Python does not wait for it
    hanging.released.set()
    thread.join(5)
    assert not thread.is_alive() and "given up" in str(hanging.error)


def test_only_waiting_counts_as_time():
    stop = threading.Event()
    with decoders(1, stop) as decode:
        counting = Counting(20, stop, 99.0, 0.2)
        decode(counting)
        taken = []
        for number in counting.items():
            time.sleep(0.02)
            taken.append(number)
    assert taken == list(range(20)) and counting.error is None


def test_a_bug_is_kept_for_who_takes_the_items():
    class Broken(Decoding[int]):
        def read(self):
            raise ZeroDivisionError

    stop = threading.Event()
    with decoders(1, stop) as decode:
        broken = Broken(stop)
        decode(broken)
        assert list(broken.items()) == []
    assert isinstance(broken.error, ZeroDivisionError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_who_is_interrupted_does_not_wait(error):
    stop = threading.Event()
    hanging = Hanging(stop)
    began = time.monotonic()
    with pytest.raises(error), decoders(3, stop) as decode:
        decode(hanging)
        raise error
    assert stop.is_set() and time.monotonic() - began < 5
    hanging.released.set()
