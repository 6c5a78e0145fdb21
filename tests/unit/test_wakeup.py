"""A wait for a wakeup ends in time, and a signal handler may set it."""

from __future__ import annotations

import ast
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tracker
from tracker.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def alarm(seconds: float, handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_wait_ends_though_a_signal_handler_outlasts_it() -> None:
    """The time that is left is negative then, which some waits take for no limit."""
    handled: list[None] = []

    def handle() -> None:
        time.sleep(0.3)  # longer than the wait
        handled.append(None)

    with alarm(0.05, handle):
        assert not Wakeup().wait(0.1)
    assert handled


def test_a_signal_handler_wakes_the_call_that_it_interrupts() -> None:
    wakeup = Wakeup()
    with alarm(0.05, wakeup.set):
        assert wakeup.wait(60)


def test_it_is_set_once_however_often_and_by_whomever() -> None:
    wakeup = Wakeup()
    setters = [threading.Thread(target=wakeup.set) for _ in range(8)]
    for setter in setters:
        setter.start()
    for setter in setters:
        setter.join()
    assert wakeup.wait(60)
    assert not wakeup.wait(0)


def test_nothing_else_waits_for_a_queue_for_a_time() -> None:
    """`queue.SimpleQueue` does not keep the time, up to Python 3.12; `queue.Queue` does."""
    for path in Path(tracker.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "SimpleQueue" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                timed = any(each.arg == "timeout" for each in node.keywords)
                assert not (node.func.attr == "get" and timed), path
