"""`TrackerHandler`: records of the standard `logging` module as events.

Each record becomes one ``log.recorded`` event with these fields:

=============  ===============================================================================
``level``      the level's name, as in ``"INFO"``
``logger``     the logger's name
``message``    the message with its arguments in place
``exception``  the traceback, if the record has one
``extra``      what else was given as ``extra``; what JSON cannot hold becomes its ``repr()``
=============  ===============================================================================
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from tracker import validation
from tracker.errors import TrackerClosedError
from tracker.trackers.observe import capture, share

if TYPE_CHECKING:
    from tracker.trackers.base import BaseTracker

LOG_RECORDED = "log.recorded"

_IDS = ("session_id", "agent_id", "user_id")
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", *_IDS}
_CALLERS = ("tracker.context", "tracker.trackers.observe", __name__)
"""The package's modules that call the application's functions, and this one."""
_SYNC_THREAD = "tracker-sync"

_formatter = logging.Formatter()


class TrackerHandler(logging.Handler):
    """Makes events of log records: attach it to any logger, the root included.

    ::

        logging.getLogger("agent").addHandler(TrackerHandler(tracker))
        logging.getLogger("agent").info("…", extra={"session_id": session_id})

    ``extra`` may hold `session_id`, `agent_id` and `user_id`; by default they are those of the
    current conversation. An agent or user that is not given is the conversation's.

    It never feeds on itself: records of the logger ``tracker`` and below, those that the SDK
    causes in other libraries (SQLAlchemy's, urllib3's) and those made while this thread is making
    an event of another are passed over. With a `logging.handlers.QueueHandler` in between, what
    SQLAlchemy says cannot be told from your own use of it: keep its level at WARNING then.

    A failure goes to `logging.Handler.handleError`, as is usual: a traceback on stderr, unless
    `logging.raiseExceptions` is False. That its tracker was closed is said only once. Formatters
    are not used. Closing the handler does not close the tracker.

    Args:
        tracker: The tracker whose outbox takes the events.
        level: Records below it are passed over. Default: none are.
    """

    def __init__(self, tracker: BaseTracker, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._tracker = tracker
        self._thread = threading.local()
        self._said_closed = False

    def handle(self, record: logging.LogRecord) -> Any:
        """Make an event of `record`, unless a filter or its origin says no.

        Takes no lock, unlike other handlers: a thread that waits for the outbox with it would
        block one that logs while it writes to the outbox. The tracker needs none.
        """
        if getattr(self._thread, "busy", False) or _is_our_own(record):
            return False
        passed: Any = self.filter(record)
        if passed:
            # Since Python 3.12 a filter may return another record.
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Make an event of `record`."""
        self._thread.busy = True
        try:
            self._record(record)
        except TrackerClosedError:
            if not self._said_closed:
                self._said_closed = True
                self.handleError(record)
        except Exception:  # noqa: BLE001 - what logging handlers do: a log call must not fail
            self.handleError(record)
        finally:
            self._thread.busy = False

    def _record(self, record: logging.LogRecord) -> None:
        characters = share(self._tracker.config.max_event_bytes)
        exception = record.exc_text
        if exception is None and record.exc_info and record.exc_info[0] is not None:
            exception = _formatter.formatException(record.exc_info)
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        data = {
            "level": record.levelname,
            "logger": record.name,
            "message": capture(record.getMessage(), characters),
            "exception": exception and capture(exception, characters),
            "extra": capture(extra, characters) if extra else None,
        }
        session_id, agent_id, user_id = (
            validation.check_optional_id(name, getattr(record, name, None)) for name in _IDS
        )
        self._tracker._record_about(
            LOG_RECORDED, data, session_id=session_id, agent_id=agent_id, user_id=user_id
        )


def _is_our_own(record: logging.LogRecord) -> bool:
    """Tell whether the SDK made `record`, or caused another library to."""
    if f"{record.name}.".startswith("tracker.") or record.threadName == _SYNC_THREAD:
        return True
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("tracker.") and module not in _CALLERS:
            return True
    return False
