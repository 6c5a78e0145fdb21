"""A destination whose failures to start or to send are outcomes, not exceptions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tracker import log
from tracker.once import Once
from tracker.sync.destination import Delivery, Outcome, Rejection
from tracker.sync.receipts import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.sync.destination import Destination, Upload


class MadeDestination:
    """Makes a destination and remembers the reason if that fails, to return it as an outcome.

    `prepare` retries, since the cause may disappear: for instance a missing certificate file.
    """

    def __init__(self, make: Callable[[], Destination]) -> None:
        """Use `make` to make the destination."""
        self._make = make
        self._made: Destination | None = None
        self._problem = ""
        self._logged = Once(most=1)

    def prepare(self) -> None:
        """Make the destination, unless there is one."""
        if self._made is None:
            try:
                self._made = self._make()
            except BaseException as error:  # noqa: BLE001 - the application's; see `_reraise`
                _reraise(error)
                self._problem = self._describe("the destination cannot be made", error)

    def send(self, upload: Upload) -> Delivery:
        """Send one batch, if there is a destination; see `Destination`."""
        if self._made is None:
            return Delivery(Outcome.UNAVAILABLE, self._problem)
        try:
            return _checked(self._made.send(upload))
        except BaseException as error:  # noqa: BLE001 - the application's, or a bug; see `_reraise`
            _reraise(error)
            return Delivery(Outcome.UNAVAILABLE, self._describe("the destination failed", error))

    def close(self) -> None:
        """Release connections and files."""
        if self._made is not None:
            try:
                self._made.close()
            except BaseException as error:  # noqa: BLE001 - the application's; see `_reraise`
                _reraise(error)
                self._describe("the destination cannot be closed", error)

    def _describe(self, what: str, error: BaseException) -> str:
        """Return one line about an error; log its traceback if it may be a bug and is new."""
        line = f"{what}: {type(error).__name__}: {one_line(error)}"
        if self._logged.is_new(line) and not isinstance(error, OSError):
            log.error("%s", line, exc_info=True)
        return line


def _reraise(error: BaseException) -> None:
    """Raise what kills a greenlet; anything else that an application's code raises is an outcome.

    ``SystemExit``, a cancellation that leaks out of ``asyncio.run`` or a time limit of its own must
    not end the thread that uploads.
    """
    if type(error).__name__ == "GreenletExit":
        raise error


def _checked(delivery: object) -> Delivery:
    """Return what a destination returned, with texts that can be stored.

    Raises:
        TypeError: if it is no `Delivery`.
    """
    if not isinstance(delivery, Delivery):
        raise TypeError(f"send returned {type(delivery).__name__}; return a tracker.Delivery")
    rejected = [
        Rejection(each.event_id, one_line(each.code), one_line(each.message))
        for each in delivery.rejected
    ]
    return replace(
        delivery, cause=one_line(delivery.cause), code=one_line(delivery.code), rejected=rejected
    )
