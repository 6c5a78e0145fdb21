"""`TrackerHandler`: records of the standard `logging` module as events.

Each record becomes one ``log.recorded`` event with these fields:

=============  ===============================================================================
``level``      the level's name, as in ``"INFO"``
``logger``     the logger's name
``message``    the message with its arguments in place
``arguments``  the message's arguments, only if they do not fit into it
``exception``  the traceback, if the record has one
``extra``      what else was given as ``extra``, and ids that cannot be ids
=============  ===============================================================================

`tracker.trackers.capture` says what becomes of values that JSON cannot hold.
"""

from __future__ import annotations

import logging
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

from tracker import validation
from tracker.errors import TrackerClosedError, ValidationError
from tracker.once import Once
from tracker.trackers.capture import capture, share, type_name
from tracker.trackers.reporting import error_text

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
    current conversation. An agent or user that is not given is the conversation's. An int or UUID
    counts as its text; what cannot be an id (empty, of another type, more than 256 characters) is
    kept in the event's ``extra``, and the record is stored as if it had not been given.

    It never feeds on itself: records of the logger ``tracker`` and below, those that the SDK
    causes in other libraries (SQLAlchemy's, urllib3's) and those made while this thread is making
    an event of another are passed over. With a `logging.handlers.QueueHandler` in between, what
    SQLAlchemy says cannot be told from your own use of it: keep its level at WARNING then.

    A record whose message and arguments do not fit together is stored with both, and goes to
    `logging.Handler.handleError` besides. Any other failure goes there too, as is usual: a
    traceback on stderr, unless `logging.raiseExceptions` is False. That its tracker was closed is
    said only once. Formatters are not used. Closing the handler does not close the tracker.

    Args:
        tracker: The tracker whose outbox takes the events.
        level: Records below it are passed over. Default: none are.
    """

    def __init__(self, tracker: BaseTracker, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._tracker = tracker
        self._thread = threading.local()
        self._closed_logged = Once()

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
            if self._closed_logged.is_new():
                self.handleError(record)
        except Exception:  # noqa: BLE001 - what logging handlers do: a log call must not fail
            self.handleError(record)
        finally:
            self._thread.busy = False

    def _record(self, record: logging.LogRecord) -> None:
        characters = share(self._tracker.config.max_event_bytes)
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        ids: dict[str, str | None] = {}
        for name in _IDS:
            given = getattr(record, name, None)
            ids[name] = _id(given)
            if ids[name] is None and given is not None:
                extra[name] = given
        message, arguments = _message(record)
        data = {
            "level": capture(record.levelname, validation.MAX_ID_LENGTH),
            "logger": capture(record.name, validation.MAX_ID_LENGTH),
            "message": capture(message, characters),
            "arguments": None if arguments is None else capture(arguments, characters),
            "exception": _exception(record, characters),
            "extra": capture(extra, characters) if extra else None,
        }
        session_id, agent_id, user_id = self._tracker._concerning(**ids)
        self._tracker._record_gathered(
            LOG_RECORDED,
            data,
            gathered=("message", "arguments", "exception", "extra"),
            session_id=session_id,
            agent_id=agent_id,
            user_id=user_id,
        )
        if arguments is not None:
            self._complain(record)

    def _complain(self, record: logging.LogRecord) -> None:
        """Let `handleError` say what is wrong with a record, as other handlers do."""
        try:
            record.getMessage()
        except BaseException as error:
            if validation.is_interrupt(error):
                raise
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say what went wrong as other handlers do, as far as the record lets itself be shown."""
        try:
            super().handleError(record)
        except BaseException as error:
            if validation.is_interrupt(error):
                raise


def _id(given: Any) -> str | None:
    kind = type(given)
    if kind is uuid.UUID or (
        kind is int and -validation.MAX_INTEGER <= given <= validation.MAX_INTEGER
    ):
        given = str(given)
    try:
        return validation.check_optional_id("id", given)
    except ValidationError:
        return None


def _message(record: logging.LogRecord) -> tuple[object, object]:
    """Return the message, and its arguments if they do not fit into it, or else None."""
    try:
        return record.getMessage(), None
    except BaseException as error:
        if validation.is_interrupt(error):
            raise
        return record.msg, record.args or ()


def _exception(record: logging.LogRecord, characters: int) -> Any:
    """Return the traceback, or as much of it as can be had; None if there is none."""
    given: Any = record.exc_info  # logging does not check what a record is made with
    try:
        text: object = record.exc_text
        if text is None and given and (not isinstance(given, tuple) or given[0] is not None):
            if isinstance(given, BaseException):
                given = type(given), given, given.__traceback__
            text = _formatter.formatException(given)
    except BaseException as error:
        if validation.is_interrupt(error):
            raise
        several = given if type(given) is tuple else (given,)
        found = [item for item in several if issubclass(type(item), BaseException)]
        text = f"{type_name(found[0])}: {error_text(found[0])}" if found else given
    return None if text is None else capture(text, characters)


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
