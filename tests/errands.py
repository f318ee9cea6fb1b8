"""What tests let workers do, in a module that workers can import."""

import logging
import os
import signal
import sys
import time
from multiprocessing.connection import Connection


class Odd(Exception):
    """An exception that pickle cannot rebuild."""

    def __init__(self, one, two):
        super().__init__(one)


def nothing():
    """Prepare nothing."""


def start_slowly():
    time.sleep(1.5)


def never_start():
    sys.exit(7)


def do(what, number):
    """Behave as named; else double the number."""
    if what == "crash":
        os._exit(3)
    if what == "hang":
        time.sleep(100)
    if what == "fail":
        raise ValueError("no such thing")
    if what == "odd":
        raise Odd("one", "two")
    if what == "log":
        logging.getLogger("activity.errands").warning("of %s", number)
    if what == "process":
        time.sleep(0.3)
        return os.getpid()
    if what == "half":
        return kill_in_the_middle_of_the_answer()
    if what == "kill parent":
        os.kill(os.getppid(), signal.SIGKILL)
    return 2 * number


def kill_in_the_middle_of_the_answer():
    def send_half(connection, content):
        os.write(connection.fileno(), content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = send_half
    return bytes(10_000)
