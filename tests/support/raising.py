"""Raising an exception at the n-th line that a call runs in given files, and at later ones."""

from __future__ import annotations

import functools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

P = ParamSpec("P")


class Struck(BaseException):
    """Stands for whatever interrupts a call: Ctrl-C, a time limit, a killed greenlet."""


def in_a_thread(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test that uses `raising_at` in a thread of its own.

    CPython goes on taking an exception for the one that is being handled if another strikes at the
    line of its `except`. In the main thread that would be the context of every exception that later
    tests raise, and whatever looks for an error's first cause would find it.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(test, *args, **kwargs).result()

    return run


@contextmanager
def raising_at(files: tuple[str, ...], *lines: int) -> Iterator[list[int]]:
    """Raise `Struck` at the lines of these numbers, counted from 1 as this thread runs them.

    What falls between two lines falls at the beginning of the second. Yields a list whose only
    item is how many lines have run so far.
    """
    count = [0]
    wanted = frozenset(lines)

    def strike() -> None:
        count[0] += 1
        if count[0] in wanted:
            raise Struck(f"at line {count[0]}")

    with at_each_line(files, strike):
        yield count


@contextmanager
def calling_at(files: tuple[str, ...], line: int, function: Callable[[], None]) -> Iterator[None]:
    """Call `function` at the line of that number, as a signal handler is called."""
    count = 0

    def call() -> None:
        nonlocal count
        count += 1
        if count == line:
            function()

    with at_each_line(files, call):
        yield


@contextmanager
def at_each_line(files: tuple[str, ...], function: Callable[[], None]) -> Iterator[None]:
    """Call `function` before each line of the files that this thread runs; what it raises, goes."""
    if sys.version_info >= (3, 12):
        with _monitored(files, function):
            yield
    else:
        with _traced(files, function):
            yield


if sys.version_info >= (3, 12):
    _functions: dict[int, Callable[[], None]] = {}
    """What to call, by thread: the callback is the interpreter's, not a thread's."""
    _functions_lock = threading.Lock()

    @contextmanager
    def _monitored(files: tuple[str, ...], function: Callable[[], None]) -> Iterator[None]:
        monitoring = sys.monitoring
        tool, me = monitoring.DEBUGGER_ID, threading.get_ident()
        inside: set[int] = set()

        def line(code: CodeType, _: int) -> Any:
            if not code.co_filename.endswith(files):
                return monitoring.DISABLE
            thread = threading.get_ident()
            wanted = _functions.get(thread)
            if wanted is None or thread in inside:
                return None
            inside.add(thread)
            try:
                wanted()
            finally:
                inside.discard(thread)
            return None

        with _functions_lock:
            first = not _functions
            _functions[me] = function
            if first:
                monitoring.use_tool_id(tool, "raising")
                monitoring.register_callback(tool, monitoring.events.LINE, line)
                monitoring.set_events(tool, monitoring.events.LINE)
        try:
            yield
        finally:
            with _functions_lock:
                del _functions[me]
                if not _functions:
                    monitoring.set_events(tool, 0)
                    monitoring.register_callback(tool, monitoring.events.LINE, None)
                    monitoring.free_tool_id(tool)
                    monitoring.restart_events()


@contextmanager
def _traced(files: tuple[str, ...], function: Callable[[], None]) -> Iterator[None]:
    """Do the same by a trace function, which the interpreter drops as soon as it raises.

    A profile function then sets it again, at the next call or return: some lines are passed over.
    """

    def trace(_frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            function()
        return trace

    def enter(frame: FrameType, _event: str, _: Any) -> Any:
        return trace if frame.f_code.co_filename.endswith(files) else None

    def set_again(frame: FrameType | None, *_: Any) -> None:
        if sys.gettrace() is None:
            sys.settrace(enter)
            while frame is not None:
                if frame.f_code.co_filename.endswith(files):
                    frame.f_trace = trace
                frame = frame.f_back

    before, profiled_before = sys.gettrace(), sys.getprofile()
    sys.settrace(enter)
    sys.setprofile(set_again)
    try:
        yield
    finally:
        sys.setprofile(profiled_before)
        sys.settrace(before)
