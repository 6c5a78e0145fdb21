"""Raising an exception at the n-th line that a call runs in given files, and at later ones."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Struck(BaseException):
    """Stands for whatever interrupts a call: Ctrl-C, a time limit, a killed greenlet."""


@contextmanager
def raising_at(files: tuple[str, ...], *lines: int) -> Iterator[list[int]]:
    """Raise `Struck` at the lines of these numbers, counted from 1 as this thread runs them.

    What falls between two lines falls at the beginning of the second. Yields a list whose only
    item is how many lines have run so far.
    """
    count = [0]
    wanted = frozenset(lines)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            count[0] += 1
            if count[0] in wanted:
                raise Struck(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace

    def enter(frame: FrameType, _event: str, _: Any) -> Any:
        return trace if frame.f_code.co_filename.endswith(files) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield count
    finally:
        sys.settrace(before)
