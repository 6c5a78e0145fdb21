"""The SDK's own log lines: under the logger ``tracker`` only, and at rest while a process forks.

A stream that one thread writes to during a fork stays locked in the child for ever, and a child
that logs to it hangs. So whoever logs here holds `lock`, and a fork waits for it.

What is said is masked: an error's text may hold anything. A traceback becomes part of the message,
for a handler would write out the exception as it is.
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
"""Held while a line is written. Taken last of all locks, and reentrant for signal handlers."""

_logger = logging.getLogger("tracker")
_logger.addHandler(logging.NullHandler())


def info(message: str, *arguments: Any) -> None:
    """Log what is good to know."""
    _write(logging.INFO, message, *arguments)


def warning(message: str, *arguments: Any) -> None:
    """Log what somebody may have to look after."""
    _write(logging.WARNING, message, *arguments)


def error(message: str, *arguments: Any, exc_info: bool = False) -> None:
    """Log what went wrong."""
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
        shown.append(clean(readable(traceback.format_exc().rstrip())))
    with lock:
        _logger.log(level, message, *shown, stacklevel=3)


def _text(value: object) -> str:
    # A text that is still to be cut has to stay one.
    return value if isinstance(value, Uncut) else readable(value)


forks.in_child(forks.Stage.LOG, _renew_lock_after_fork)
