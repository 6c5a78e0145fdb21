"""`Notice`: the line on stderr about uploads that fail, if the application has no logging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.once import Once
from tracker.sync.destination import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracker.sync.destination import Delivery

FAILING_SECONDS = 600.0
"""How long uploads fail before somebody should hear of it."""
_AGAIN_SECONDS = 86_400.0
_SAFE = "Nothing is lost: events are kept in {} and sent later. "
_REFUSED = "Give a valid API key (SDK_API_KEY or SDK_API_KEY_FILE); `tracker-sync doctor` checks it"
_FAILING = "`tracker-sync doctor` says what to do"


class Notice:
    """Tells of a refused key at once, of other failures after ten minutes; of each once a day.

    Where the application has set up logging, the log says the same, and nothing is told here.

    Args:
        path: The outbox.
        clock: Returns seconds that never go back.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._since: float | None = None
        self._told = Once(seconds=_AGAIN_SECONDS, clock=clock)

    def succeeded(self) -> None:
        """Note that uploads work."""
        self._since = None

    def failed(self, delivery: Delivery) -> None:
        """Note an attempt that failed, and tell of it if it is time."""
        if self._since is None:
            self._since = self._clock()
        refused = delivery.outcome is Outcome.REFUSED
        if not refused and self._clock() - self._since < FAILING_SECONDS:
            return
        from tracker import stderr  # seldom needed

        if not stderr.is_heard() and self._told.is_new(refused):
            what = delivery.cause
            if not refused:
                what = f"no upload has worked for {FAILING_SECONDS / 60:.0f} minutes: {what}"
            advice = _SAFE.format(self._path) + (_REFUSED if refused else _FAILING)
            stderr.tell(f"{what}. {advice}")
