"""`Occasionally`: a logger's errors, but a thousand of a kind not a thousand times."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tracker import clock

if TYPE_CHECKING:
    import logging


class Occasionally:
    """Logs a message at once, then the same one at most every so often, and how often it came.

    Any thread may call it.

    Args:
        logger: Where to.
        seconds: The least time between two that are the same.
    """

    def __init__(self, logger: logging.Logger, seconds: float) -> None:
        self._logger = logger
        self._seconds = seconds
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}  # text -> when, how many since

    def error(self, message: str, *arguments: object) -> None:
        """Log an error."""
        text = message % arguments if arguments else message
        with self._lock:
            now = clock.monotonic()
            when, times = self._said.get(text, (now - self._seconds, 0))
            if now - when < self._seconds:
                self._said[text] = (when, times + 1)
                return
            if len(self._said) > 100:
                self._said.clear()
            self._said[text] = (now, 0)
        since = f" (and {times:,} times since it was last told)" if times else ""
        self._logger.error("%s%s", text, since)
