"""Conversations as ``async with`` blocks: `AsyncConversation`, and `AsyncToolCall` within them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker import validation
from tracker.aio.base import Awaited, logs
from tracker.errors import ValidationError
from tracker.ids import new_id
from tracker.process_local import ProcessLocal
from tracker.trackers.conversation import ActiveConversation
from tracker.trackers.reporting import behind
from tracker.trackers.tool_call import UNKNOWN, BaseToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Self

    from tracker.aio.calls import Calls
    from tracker.trackers.performance import AgentPerformanceTracker


class AsyncConversation(ProcessLocal, Awaited):
    """A conversation made by `AsyncAgentPerformanceTracker.conversation`.

    Its ``async with`` block starts, times and ends the conversation, or marks it as failed, like
    that of `ActiveConversation`, and it has the same methods. All are awaited except `end`, which
    writes nothing until the block is left. Inside the block, and in tasks started there, it is the
    current conversation, so calls of any tracker need no session id; `current_conversation`
    returns the `ActiveConversation` of the same session.

    If entering is cancelled, the conversation may have been started, and then stays open.

    Attributes:
        session_id: The conversation's id.
        agent_id: The agent.
        user_id: The user, or None.

    Raises:
        ValidationError: from any method and on entering, if an argument is not allowed.
        OutboxError: from any method, on entering and on leaving, if storage failed and
            `APIConfig.on_error` is "raise". It never replaces an exception that escapes the block.
        TrackerClosedError: likewise, after the tracker was closed.
    """

    def __init__(
        self,
        calls: Calls,
        tracker: Callable[[], AgentPerformanceTracker],
        agent_id: str,
        user_id: str | None,
        session_id: str | None,
        run_id: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.session_id = new_id() if session_id is None else session_id
        self.agent_id = agent_id
        self.user_id = user_id
        self._calls = calls
        self._open = tracker
        self._start_with = (run_id, metadata)
        self._entered: ActiveConversation | None = None

    user = logs(ActiveConversation.user)
    agent = logs(ActiveConversation.agent)
    system = logs(ActiveConversation.system)
    messages = logs(ActiveConversation.messages)
    feedback = logs(ActiveConversation.feedback)
    score = logs(ActiveConversation.score)

    def tool(
        self,
        name: str,
        arguments: Any = None,
        *,
        result: Any = UNKNOWN,
        error: str | None = None,
        duration_ms: float | None = None,
        call_id: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> AsyncToolCall:
        """Return a tool call: await it to log it at once, or use it as a block to time it.

        ::

            await c.tool("search", {"q": "x"}, result=[1, 2])

            async with c.tool("search", {"q": "x"}) as call:
                call.result = await search("x")

        Args:
            name: The tool's name.
            arguments: The arguments: any value that JSON can represent.
            result: The result: any value that JSON can represent. None is left out.
            error: The error, if the call failed.
            duration_ms: Milliseconds it took, 0 or more; a block measures it.
            call_id: The id that the model gave the call.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        call = AsyncToolCall(self._target(), name, arguments, call_id)
        call._calls = self._calls
        call.result = None if result is UNKNOWN else result
        call.error = error
        call._duration_ms = duration_ms
        call._timestamp = validation.optional(validation.check_timestamp, "timestamp", timestamp)
        return call

    def end(
        self,
        quality_score: float | None = None,
        *,
        outcome: str | None = None,
        user_feedback: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Set the values that are recorded when the block is left; see `ActiveConversation.end`.

        This is not awaited.

        Args:
            quality_score: Quality from 1.0 to 5.0.
            outcome: The outcome, in a word of your choice such as ``"resolved"``.
            user_feedback: The user's feedback as text.
            metadata: Additional data that JSON can represent.

        Raises:
            ValidationError: if an argument is not allowed, or this is not inside the block.
        """
        self._target().end(
            quality_score, outcome=outcome, user_feedback=user_feedback, metadata=metadata
        )

    def _target(self) -> ActiveConversation:
        if self._entered is None:
            raise ValidationError("conversation", "has not been entered; use `async with` first")
        return self._entered

    def _start(self) -> ActiveConversation:
        conversation = ActiveConversation(
            self._open(), self.agent_id, self.user_id, self.session_id, *self._start_with
        )
        conversation._start()
        return conversation

    async def __aenter__(self) -> Self:
        if self._entered is not None:
            raise ValidationError("conversation", "was entered before; make a new one")
        self._entered = await self._calls.log(self._start)
        self._entered._become_current()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        conversation = self._target()
        conversation._step_back()
        what = f"the end of a conversation with {self.agent_id!r}"
        with behind(error, conversation._tracker, what):
            await self._calls.log(conversation._finish, error)

    def __repr__(self) -> str:
        return f"<AsyncConversation {self.session_id} with {self.agent_id!r}>"


class AsyncToolCall(BaseToolCall):
    """A tool call made by `AsyncConversation.tool`.

    If it is awaited, it is logged at once. Used as an ``async with`` block, it measures the
    duration and is logged when the block is left; an exception that escapes is logged as the
    call's error and raised again. One that is neither awaited nor entered is logged when the
    conversation's block is left.

    Attributes:
        result: The result: any value that JSON can represent. Set it inside the block.
        error: The error; by default the exception that escapes.
        call_id: The id that the model gave the call.
        event_id: The event's id once it is logged, before that None.
    """

    _calls: Calls

    def __await__(self) -> Generator[Any, None, Self]:
        self._begin()
        yield from self._calls.log(self._record).__await__()
        return self

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        with behind(error, self._tracker, f"the failed call of {self._name!r}"):
            await self._calls.log(self._finish, error)
