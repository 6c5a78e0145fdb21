"""A destination whose failures to start or to send are outcomes, not exceptions."""

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
            except Exception as error:  # noqa: BLE001 - the application's function may raise any
                self._problem = self._describe("the destination cannot be made", error)

    def send(self, upload: Upload) -> Delivery:
        """Send one batch, if there is a destination; see `Destination`."""
        if self._made is None:
            return Delivery(Outcome.UNAVAILABLE, self._problem)
        try:
            return self._made.send(upload)
        except Exception as error:  # noqa: BLE001 - raised by the application, or a bug: logged
            return Delivery(Outcome.UNAVAILABLE, self._describe("the destination failed", error))

    def close(self) -> None:
        """Release connections and files."""
        if self._made is not None:
            self._made.close()

    def _describe(self, what: str, error: Exception) -> str:
        """Return one line about an error; log its traceback if it may be a bug and is new."""
        line = f"{what}: {type(error).__name__}: {one_line(error)}"
        if self._logged.is_new(line) and not isinstance(error, OSError):
            log.error("%s", line, exc_info=True)
        return line
