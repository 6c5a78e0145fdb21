"""The boundary that keeps failures of this package from the application's own calls.

The application's call ends with its own result or exception; the failure is logged once, under the
logger ``tracker``.
"""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakKeyDictionary

from tracker import log, validation
from tracker.errors import TrackerError, ValidationError
from tracker.once import Once
from tracker.redaction.uncut import cut
from tracker.trackers.capture import type_name

MAX_ERROR_TEXT = 10_000
"""Maximum number of characters kept of an exception's message."""

_logged: WeakKeyDictionary[object, Once] = WeakKeyDictionary()


def error_text(
    error: BaseException, characters: int = MAX_ERROR_TEXT, *, with_type: bool = False
) -> str:
    """Return an exception's message as text that can be stored.

    A message that is too long is truncated when it is masked.
    """
    try:
        text = str.__str__(str(error))
    except BaseException as failure:
        if validation.is_interrupt(failure):
            raise
        text = f"[no text: {type_name(failure)} in its __str__]"
    if with_type:
        text = f"{type_name(error)}: {text}"
    return cut(text, min(characters, MAX_ERROR_TEXT))


def say_once(tracker: object, what: str, error: BaseException) -> None:
    """Log, once per kind of problem, that `what` was not recorded because of `error`."""
    # An invalid value concerns one place; a closed tracker or a full disk concerns all of them.
    if _is_new(tracker, (type(error), what if isinstance(error, ValidationError) else "")):
        if isinstance(error, TrackerError):
            log.error("%s was not recorded: %s", what, error_text(error))
        else:
            log.error("%s was not recorded: %s", what, error_text(error), exc_info=True)


def say_replaced(tracker: object, what: str, error: ValidationError) -> None:
    """Log, once per `what`, that values in it were replaced or truncated because of `error`."""
    if _is_new(tracker, (type(error), f"replaced {what}")):
        log.warning("%s was recorded with values replaced: %s", what, error_text(error))


def _is_new(tracker: object, kind: tuple[type, str]) -> bool:
    return _logged.setdefault(tracker, Once()).is_new(kind)


class Boundary:
    """A ``with`` block in which this package records a call of the application.

    Exceptions inside it are logged once and suppressed, except those that unwind the program.

    Args:
        tracker: The tracker that records.
        what: What is recorded, for the log.
        raises: Whether a `TrackerError` is raised to the caller. Default False.
    """

    def __init__(self, tracker: object, what: str, *, raises: bool = False) -> None:
        self._tracker = tracker
        self._what = what
        self._raises = raises

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None or validation.is_interrupt(error):
            return False
        if self._raises and isinstance(error, TrackerError):
            return False
        # If no stack or memory is left for a log line, the application's own result matters more.
        with suppress(RecursionError, MemoryError):
            say_once(self._tracker, self._what, error)
        return True


def behind(error: BaseException | None, tracker: object, what: str) -> Boundary:
    """Return a block that records `what`: its failure never replaces the exception `error`."""
    return Boundary(tracker, what, raises=error is None)
