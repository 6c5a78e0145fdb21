"""Handlers of `logging` that hand records to OpenTelemetry: they must not be given our own.

Such a handler holds its lock while a processor of ours waits for the outbox. A thread that writes
to the outbox, or to the log, must not wait for that lock: neither would ever go on. A filter is
asked before the lock is taken.
"""

from __future__ import annotations

import logging

from tracker import own_work

_LIBRARIES = ("opentelemetry.", "logfire.")


class _NotOurs(logging.Filter):
    """Lets nothing pass that this package logs, or makes another library log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (f"{record.name}.".startswith("tracker.") or own_work.is_own())


_NOT_OURS = _NotOurs()


def keep_out(name: str = "root") -> None:
    """Put the filter on the handlers that records of a logger come to, as far as they need it."""
    logger = logging.root.manager.loggerDict.get(name)
    found = logger if isinstance(logger, logging.Logger) else logging.root
    while True:
        for handler in found.handlers:
            if type(handler).__module__.startswith(_LIBRARIES) and _NOT_OURS not in handler.filters:
                handler.addFilter(_NOT_OURS)
        if found.parent is None or not found.propagate:
            return
        found = found.parent
