"""The log lines of this package, under the logger ``tracker``; none is written during a fork.

If one thread writes to a stream during a fork, the stream stays locked in the child, and a child
that logs to it hangs. So `lock` is held while a line is written, and a fork waits for it.

Messages are masked, since the text of an error may contain anything. A traceback becomes part of
the message, since a handler would write the exception without a mask.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Any

from tracker import forks
from tracker.errors import readable
from tracker.redaction.lines import clean
from tracker.redaction.uncut import Uncut

lock = threading.RLock()
"""Held while a line is written. It is the last lock to take, and reentrant for signal handlers."""

_logger = logging.getLogger("tracker")
NOWHERE = logging.NullHandler()
"""Drops the records, as long as an application has not set up where they go."""
_logger.addHandler(NOWHERE)


def debug(message: str, *arguments: Any) -> None:
    """Log what only somebody who looks for a fault wants to know."""
    _write(logging.DEBUG, message, *arguments)


def info(message: str, *arguments: Any) -> None:
    """Log information."""
    _write(logging.INFO, message, *arguments)


def warning(message: str, *arguments: Any) -> None:
    """Log a problem that may need attention."""
    _write(logging.WARNING, message, *arguments)


def error(message: str, *arguments: Any, exc_info: bool = False) -> None:
    """Log an error."""
    _write(logging.ERROR, message, *arguments, exc_info=exc_info)


def _renew_lock_after_fork() -> None:
    global lock
    lock = threading.RLock()


def _write(level: int, message: str, *arguments: Any, exc_info: bool = False) -> None:
    if not _logger.isEnabledFor(level):
        return
    shown = [each if isinstance(each, (int, float)) else clean(_text(each)) for each in arguments]
    if exc_info and sys.exc_info()[0] is not None:
        message += "\n%s"
        shown.append(clean(readable(_traceback())))
    with lock:
        _logger.log(level, message, *shown, stacklevel=3)


def _traceback() -> str:
    """Return where the current exception came from; exceptions have code of their own."""
    try:
        return traceback.format_exc().rstrip()
    except Exception as failure:  # noqa: BLE001 - a log line must not replace what it is about
        return f"[no traceback: {type(failure).__name__}]"


def _text(value: object) -> str:
    # A text that is still to be truncated keeps its type.
    return value if isinstance(value, Uncut) else readable(value)


forks.in_child(forks.Stage.LOG, _renew_lock_after_fork)
