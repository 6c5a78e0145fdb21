"""`Metering`: what the settings for metered links allow at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.clock import monotonic, wall
from tracker.sync.byte_rate import ByteRate
from tracker.sync.hold import Hold
from tracker.sync.pause import Pause
from tracker.sync.permission import Permission
from tracker.sync.window import UploadWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.config import APIConfig

_LOOK_SECONDS = 60.0
"""How often the local clock is read again while the window is closed: it may be set."""
_URGENT_SECONDS = 1.0
"""The same where an urgent event may pass, which is looked for as often."""


class Metering:
    """Says why the next request must wait. Without such settings nothing ever does.

    Args:
        config: The settings.
        report: As in `Permission`.
        clock: Returns seconds that never go back.
        time: Returns seconds since the epoch.

    Attributes:
        urgent: Whether critical security events may pass a closed window.
    """

    def __init__(
        self,
        config: APIConfig,
        report: Callable[[Hold], None],
        clock: Callable[[], float] = monotonic,
        time: Callable[[], float] = wall,
    ) -> None:
        self._config = config
        self._clock = clock
        self._time = time
        self._window = UploadWindow(config.upload_window or "")
        self._rate = ByteRate(config.upload_bytes_per_second, clock())
        self._permission = Permission(config.may_upload, report)
        self.urgent = config.upload_outside_window == "security.critical"

    @property
    def batch_bytes(self) -> int:
        """Maximum size of a batch: half the time limit of a request suffices even uncompressed."""
        most = self._config.batch_max_bytes - 1024
        return self._rate.batch_bytes(most, self._config.total_timeout / 2)

    def closed(self) -> Hold | None:
        """Return why nothing may be sent at this time of day."""
        now = self._time()
        opens = self._window.opens_at(now)
        if opens is None:
            return None
        longest = _URGENT_SECONDS if self.urgent else _LOOK_SECONDS
        pause = Pause(min(max(opens - now, _URGENT_SECONDS), longest))
        because = f"outside the upload window ({self._config.upload_window})"
        return Hold(because, pause, round(opens * 1000))

    def exhausted(self) -> Hold | None:
        """Return that the bytes of the last request are not paid for yet."""
        seconds = self._rate.wait(self._clock())
        if not seconds:
            return None
        because = f"upload_bytes_per_second ({self._config.upload_bytes_per_second:g})"
        until = round((self._time() + seconds) * 1000)
        return Hold(because, Pause(seconds, skippable=False), until)

    def refused(self) -> Hold | None:
        """Ask `may_upload`."""
        return self._permission.refusal()

    def sent(self, size: int, began: float) -> None:
        """Note that a request sent `size` bytes, and when it began."""
        self._rate.sent(size, began)
