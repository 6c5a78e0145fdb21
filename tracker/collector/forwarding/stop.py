"""`Stop`: pauses that SIGTERM or Ctrl-C ends."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Becomes true with the first SIGTERM or SIGINT in its block; the second ends the process.

    Only in the main thread. A pipe says so, for a handler may take no lock.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: list[Any] = []
        self._ends = (-1, -1)

    def __enter__(self) -> Self:
        self._ends = os.pipe()
        self._before = [signal.signal(number, self._ask) for number in _NUMBERS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(_NUMBERS, self._before, strict=True):
            signal.signal(number, handler)
        for end in self._ends:
            os.close(end)

    def __bool__(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when a signal comes."""
        select.select([self._ends[0]], [], [], seconds)

    def _ask(self, number: int, _frame: object) -> None:
        self._asked = True
        signal.signal(number, signal.SIG_DFL)
        os.write(self._ends[1], b"!")
