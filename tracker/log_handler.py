"""`TrackerHandler`: makes events of the records of the standard `logging` module.

Each record becomes one ``log.recorded`` event with these fields:

=============  ===============================================================================
``level``      the level's name, such as ``"INFO"``
``logger``     the logger's name
``message``    the message with its arguments inserted
``arguments``  the message's arguments, only if they cannot be inserted
``exception``  the traceback, if the record has one
``stack``      the stack, if the record has one (``stack_info=True``)
``extra``      the other fields given as ``extra``, and ids that are not valid
=============  ===============================================================================

`tracker.trackers.capture` describes how values that JSON cannot represent are stored.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

from tracker import own_work, validation
from tracker.errors import TrackerClosedError, ValidationError
from tracker.once import Once
from tracker.trackers.base import BaseTracker
from tracker.trackers.capture import capture, share, type_name
from tracker.trackers.reporting import error_text

LOG_RECORDED = "log.recorded"

_IDS = ("session_id", "agent_id", "user_id")
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", *_IDS}
_SYNC_THREAD = "tracker-sync"

_formatter = logging.Formatter()


class TrackerHandler(logging.Handler):
    """Makes events of log records. It can be attached to any logger, including the root.

    ::

        logging.getLogger("agent").addHandler(TrackerHandler(tracker))
        logging.getLogger("agent").info("…", extra={"session_id": session_id})

    ``extra`` may contain `session_id`, `agent_id` and `user_id`; by default they are those of the
    current conversation. If only the session is given, agent and user are those of the
    conversation. An int or UUID is converted to text; a value that is not a valid id (empty, of
    another type, longer than 256 characters) is stored in the event's ``extra`` instead.

    Records of the logger ``tracker`` and its children, records that this package causes in other
    libraries (SQLAlchemy, urllib3) and records made while this thread handles another one are
    ignored. Behind a `logging.handlers.QueueHandler`, SQLAlchemy's records on behalf of this
    package cannot be distinguished from the application's: keep its level at WARNING then.

    A record whose arguments cannot be inserted into its message is stored with both and is also
    passed to `logging.Handler.handleError`. So are all other failures, as usual: it prints a
    traceback to stderr unless `logging.raiseExceptions` is False. A closed tracker is reported
    only once. Formatters are not used. Closing the handler does not close the tracker.

    Args:
        tracker: The tracker whose outbox stores the events.
        level: Records below this level are ignored. Default: none are.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio.
    """

    def __init__(self, tracker: BaseTracker, level: int | str = logging.NOTSET) -> None:
        if not isinstance(tracker, BaseTracker):
            raise ValidationError(
                "tracker",
                f"is of type {type_name(tracker)}; give a tracker whose calls are not awaited, as "
                "in TrackerHandler(Tracker(config)). An AsyncTracker(config) shares its outbox",
            )
        super().__init__(level)
        own_work.watch()
        self._tracker = tracker
        self._thread = threading.local()
        self._closed_logged = Once()

    def handle(self, record: logging.LogRecord) -> Any:
        """Make an event of `record`, unless a filter or its origin excludes it.

        Unlike other handlers, this takes no lock: a thread that holds it while it waits for the
        outbox would block a thread that logs while it writes to the outbox.
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
        except Exception:  # noqa: BLE001 - a log call must not fail
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
            "stack": None if record.stack_info is None else capture(record.stack_info, characters),
            "extra": capture(extra, characters) if extra else None,
        }
        session_id, agent_id, user_id = self._tracker._concerning(**ids)
        self._tracker._record_gathered(
            LOG_RECORDED,
            data,
            gathered=("message", "arguments", "exception", "stack", "extra"),
            session_id=session_id,
            agent_id=agent_id,
            user_id=user_id,
        )
        if arguments is not None:
            self._complain(record)

    def _complain(self, record: logging.LogRecord) -> None:
        """Pass a record with a faulty message to `handleError`, as other handlers do."""
        try:
            record.getMessage()
        except BaseException as error:
            if validation.is_interrupt(error):
                raise
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Report an error as other handlers do, even if the record cannot be printed."""
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
    """Return the message, and its arguments if they cannot be inserted, otherwise None."""
    try:
        return record.getMessage(), None
    except BaseException as error:
        if validation.is_interrupt(error):
            raise
        return record.msg, record.args or ()


def _exception(record: logging.LogRecord, characters: int) -> Any:
    """Return the traceback, or as much of it as is available; None if there is none."""
    given: Any = record.exc_info  # logging does not check its type
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
    """Return True if this package made `record` or caused another library to make it."""
    return (
        f"{record.name}.".startswith("tracker.")
        or own_work.is_own()
        or record.threadName == _SYNC_THREAD  # behind a queue, this is another thread
    )
