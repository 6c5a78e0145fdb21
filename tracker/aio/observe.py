"""`AsyncAgentPerformanceTracker.observe`: records calls without blocking the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.errors import TrackerError, ValidationError
from tracker.trackers.observe import Observer
from tracker.trackers.reporting import say_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from tracker.aio.calls import Calls

    P = ParamSpec("P")
    R = TypeVar("R")


class AsyncObserver(Observer):
    """Records the calls of one coroutine function or async generator function."""

    calls: Calls

    async def apart(self, record: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run code that may write in the tracker's threads; the observed call never fails by it.

        Raises:
            TrackerError: only if the tracker cannot be opened, or was closed before it was opened.
        """
        done: list[R] = []
        try:
            await self.calls.log(lambda: done.append(record(*args, **kwargs)))
        except TrackerError as error:
            if not done:
                raise
            say_once(self.tracker(), f"a call of {self.name}", error)
        return done[0]

    def _plain(self) -> Callable[..., Any]:
        raise ValidationError(
            "function",
            f"{self.name} is neither a coroutine function nor an async generator function, and so "
            "cannot await the disk; make it one, or use AgentPerformanceTracker's observe",
        )

    def _generator(self, /, *args: Any, **kwargs: Any) -> Any:
        self._plain()
