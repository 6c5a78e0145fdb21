"""Spans as ``async with`` blocks that do not block the event loop: `AsyncSpan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.trackers.reporting import Boundary
from tracker.trackers.span import BaseSpan

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from tracker.aio.calls import Calls


class AsyncSpan(BaseSpan):
    """A span made by `AsyncAgentPerformanceTracker.span`, to use as an ``async with`` block.

    It is like `Span`, but the event loop goes on while its event is written.

    Attributes:
        name: The name.
        output: The result: any value. Set it inside the block.
        attributes: More values by name; a dict, to change inside the block.
        error: Why the step failed, where no exception escapes; by default that exception's message.
        event_id: The event's id once it is logged, before that None.
    """

    _calls: Calls

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        duration_ms = self._leave()
        if issubclass(
            type(error), GeneratorExit
        ):  # closed before its end: it must not await anything
            self._finish(duration_ms, error)
            return
        with Boundary(self._owner, f"the span {self.name!r}"):
            await self._calls.log(self._finish, duration_ms, error)
