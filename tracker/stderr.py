"""The log of this package on stderr: all of it on request, or a line where nobody gets the log.

Nothing that stderr does reaches the application: it may be closed, as in a daemon, or None, as
under ``pythonw``, or an object of the application's own.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from tracker import log
from tracker.redaction.lines import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger("tracker")


class _Handler(logging.Handler):
    """Writes what no other handler writes to the same place, so that no line is there twice."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if not any(_writes_to_terminal(each, record) for each in _handlers() if each is not self):
            _write(self.format(record))


_handler = _Handler()
_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


def show() -> None:
    """Have the whole log on stderr from now on, in this process. A second call changes nothing."""
    if not is_shown():
        _logger.setLevel(logging.DEBUG)
        _logger.addHandler(_handler)


def is_shown() -> bool:
    """Return True if the log is on stderr, since `show` was called."""
    return _handler in _logger.handlers


def is_heard() -> bool:
    """Return True if somebody gets the log, or has said that nobody wants it."""
    return any(_handlers()) or not _logger.isEnabledFor(logging.WARNING)


def tell(line: str) -> None:
    """Write a line for those who run the program. Keys and other secrets in it are masked."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in clean(line))
    _write(f"tracker: {''.join(shown)}")


def _handlers() -> Iterator[logging.Handler]:
    """Yield the handlers that get the records of this package, but not its own that drops them."""
    logger: logging.Logger | None = _logger
    while logger is not None:
        yield from (each for each in logger.handlers if each is not log.NOWHERE)
        logger = logger.parent if logger.propagate else None


def _writes_to_terminal(handler: logging.Handler, record: logging.LogRecord) -> bool:
    console = getattr(handler, "console", None)  # as that of rich has it
    stream = getattr(handler, "stream", None) or getattr(console, "file", None)
    return (
        record.levelno >= handler.level
        and stream is not None
        and stream
        in (
            sys.stdout,
            sys.stderr,
        )
    )


def _write(line: str) -> None:
    stream = sys.stderr
    if stream is None:
        return
    try:
        with log.lock:  # no fork happens meanwhile
            stream.write(f"{line}\n")
            stream.flush()
    except Exception:  # noqa: BLE001 - closed, or the application's own: the line is not worth it
        return
