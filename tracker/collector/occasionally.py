"""`Occasionally`: a log filter that limits how often the same message is logged."""

from __future__ import annotations

import logging
import re
import threading

from tracker import clock

_SECONDS = 10.0
_MOST_KINDS = 100
_ADDRESS = re.compile("0x[0-9a-f]{6,}")
"""Where an object is in memory: it makes no other message."""


class Occasionally(logging.Filter):
    """Passes a message at once, then the same message at most every ten seconds.

    The next one that passes says how many did not. For a handler; thread-safe.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when, how many since

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if the message is to be logged."""
        kind = (record.name, _ADDRESS.sub("0x…", record.getMessage()))
        with self._lock:
            now = clock.monotonic()
            when, times = self._said.get(kind, (now - _SECONDS, 0))
            if now - when < _SECONDS:
                self._said[kind] = (when, times + 1)
                return False
            if len(self._said) >= _MOST_KINDS:
                self._said.clear()
            self._said[kind] = (now, 0)
        if times:
            record.msg, record.args = f"{kind[1]} (and {times:,} times since the last line)", ()
        return True
