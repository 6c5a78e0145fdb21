"""A destination that may be missing, or fail as none should: that is an outcome, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import log
from tracker.once import Once
from tracker.sync.destination import Delivery, Outcome
from tracker.sync.receipts import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.sync.destination import Destination, Upload


class MadeDestination:
    """Makes a destination, and remembers why not where that fails: an outcome, not an exception.

    `prepare` tries again, for what is missing may come back: a file of certificates, say.
    """

    def __init__(self, make: Callable[[], Destination]) -> None:
        """Take what makes it."""
        self._make = make
        self._made: Destination | None = None
        self._problem = ""
        self._logged = Once(most=1)

    def prepare(self) -> None:
        """Make the destination, unless it is there."""
        if self._made is None:
            try:
                self._made = self._make()
            except Exception as error:  # noqa: BLE001 - any may come out of a host's function
                self._problem = self._tell("the destination cannot be made", error)

    def send(self, upload: Upload) -> Delivery:
        """Send one batch, if there is a destination; see `Destination`."""
        if self._made is None:
            return Delivery(Outcome.UNAVAILABLE, self._problem)
        try:
            return self._made.send(upload)
        except Exception as error:  # noqa: BLE001 - the host's destination, or a bug: it is told
            return Delivery(Outcome.UNAVAILABLE, self._tell("the destination failed", error))

    def close(self) -> None:
        """Give connections back."""
        if self._made is not None:
            self._made.close()

    def _tell(self, what: str, error: Exception) -> str:
        """Return one line; the traceback of what may be a bug is logged, once in a row."""
        told = f"{what}: {type(error).__name__}: {one_line(error)}"
        if self._logged.is_new(told) and not isinstance(error, OSError):
            log.error("%s", told, exc_info=True)
        return told
