"""`ActiveConversation`: a conversation as a ``with`` block."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from tracker import context, validation
from tracker.elapsed import milliseconds_since
from tracker.errors import ValidationError
from tracker.ids import new_id
from tracker.process_local import ProcessLocal
from tracker.span_context import new_conversation, new_turn
from tracker.trackers.reporting import Boundary, behind
from tracker.trackers.tool_call import UNKNOWN, BaseToolCall, LogsToolCalls, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Self

    from tracker.span_context import SpanContext


class _Tracker(LogsToolCalls, Protocol):
    """The part of `AgentPerformanceTracker` that a conversation is logged with."""

    def start_conversation(
        self,
        agent_id: str,
        *,
        user_id: str | None,
        session_id: str | None,
        run_id: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> str: ...

    def log_user_message(
        self,
        session_id: str,
        content: str | Sequence[Any],
        *,
        tokens_used: int | None,
        metadata: Mapping[str, Any] | None,
        timestamp: datetime | int | None,
    ) -> str: ...

    def log_agent_message(
        self,
        session_id: str,
        content: str | Sequence[Any],
        response_time_ms: float | None,
        tokens_used: int | None,
        *,
        model: str | None,
        metadata: Mapping[str, Any] | None,
        timestamp: datetime | int | None,
    ) -> str: ...

    def log_system_message(
        self,
        session_id: str,
        content: str | Sequence[Any],
        *,
        metadata: Mapping[str, Any] | None,
        timestamp: datetime | int | None,
    ) -> str: ...

    def log_messages(self, session_id: str, messages: Sequence[Any]) -> list[str]: ...

    def record_score(
        self,
        name: str,
        value: float | bool | str,
        *,
        session_id: str,
        comment: str | None,
        source: str | None,
    ) -> str: ...

    def record_feedback(
        self,
        session_id: str,
        *,
        score: float | None,
        comment: str | None,
        source: str | None,
        timestamp: datetime | int | None,
    ) -> str: ...

    def end_conversation(
        self,
        session_id: str,
        quality_score: float | None = ...,
        *,
        outcome: str | None = ...,
        user_feedback: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...

    def record_failed_session(
        self,
        session_id: str,
        *,
        exception: BaseException,
        metadata: Mapping[str, Any] | None,
    ) -> str: ...

    def _check_ending(
        self, quality_score: object, outcome: object, user_feedback: object, metadata: object
    ) -> dict[str, Any]: ...

    def _is_over(self, session_id: str) -> bool: ...

    def _metadata(self, argument: str, value: object) -> dict[str, Any] | None: ...


def current_conversation() -> ActiveConversation | None:
    """Return the conversation whose ``with`` block the running code is in, or None."""
    conversation = context.scope().conversation
    return conversation if isinstance(conversation, ActiveConversation) else None


class ActiveConversation(ProcessLocal):
    """A conversation made by `AgentPerformanceTracker.conversation`.

    Entering the ``with`` (or ``async with``) block starts it. Leaving the block ends it; if an
    exception escapes, including KeyboardInterrupt and cancellation, it is marked as failed with
    the exception's type and message, and the exception is raised again. (GeneratorExit is not a
    failure: the consumer of a generator has stopped.) If it was ended or marked as failed inside
    the block, leaving logs nothing more. Inside the block it is the current conversation, so calls
    of any `AgentPerformanceTracker` need no session id.

    Its methods may be called from any thread. Their events are durable when they return.

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
        tracker: _Tracker,
        agent_id: str,
        user_id: str | None,
        session_id: str | None,
        run_id: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        self.session_id = new_id() if session_id is None else session_id
        self.agent_id = agent_id
        self.user_id = user_id
        self._tracker = tracker
        self._start_with: dict[str, Any] = {"run_id": run_id, "metadata": metadata}
        self._end_with: dict[str, Any] = {}
        self._entered = False
        self._left = False
        self._asked = time.monotonic()
        self._outer: ActiveConversation | None = None
        self._span: SpanContext | None = None
        self._in_turns = False
        self._answered = False
        self._unlogged: set[BaseToolCall] = set()

    def user(
        self,
        content: str | Sequence[Any],
        *,
        tokens_used: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a message of the user; return the event's id.

        Args:
            content: The text, or a list of parts; see `AgentPerformanceTracker.log_message`.
            tokens_used: Tokens used for it, 0 or more.
            metadata: Additional data that JSON can represent.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        now = time.monotonic()
        event_id = self._tracker.log_user_message(
            self.session_id,
            content,
            tokens_used=tokens_used,
            metadata=metadata,
            timestamp=timestamp,
        )
        self._user_spoke(now if timestamp is None else None)
        return event_id

    def agent(
        self,
        content: str | Sequence[Any],
        *,
        response_time_ms: float | None = None,
        tokens_used: int | None = None,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a message of the agent; return the event's id.

        Args:
            content: The text, or a list of parts; see `AgentPerformanceTracker.log_message`.
            response_time_ms: Milliseconds until the answer, 0 or more; by default measured since
                the user's last message, or since the start if there was none, unless `timestamp`
                is given.
            tokens_used: Tokens used for it, 0 or more.
            model: The model that generated it.
            metadata: Additional data that JSON can represent.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        if response_time_ms is None and timestamp is None:
            response_time_ms = milliseconds_since(self._asked)
        return self._tracker.log_agent_message(
            self.session_id,
            content,
            response_time_ms,
            tokens_used,
            model=model,
            metadata=metadata,
            timestamp=timestamp,
        )

    def system(
        self,
        content: str | Sequence[Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a system message, such as an instruction to the agent; return the event's id.

        Args:
            content: The text, or a list of parts; see `AgentPerformanceTracker.log_message`.
            metadata: Additional data that JSON can represent.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        return self._tracker.log_system_message(
            self.session_id, content, metadata=metadata, timestamp=timestamp
        )

    def messages(self, messages: Sequence[Any]) -> list[str]:
        """Log what is new in the list of messages that a model got; return the events' ids.

        See `AgentPerformanceTracker.log_messages`.

        Args:
            messages: The messages in the shape of OpenAI's or Anthropic's API.
        """
        return self._tracker.log_messages(self.session_id, messages)

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
    ) -> ToolCall:
        """Log a tool call: at once if its outcome is given, or in a block that times it.

        With `result` (None included), `error` or `duration_ms` the event is stored when this
        returns. Without them, use what is returned as a ``with`` block, which logs when it is
        left; if it is never entered, it is logged when the conversation's block is left::

            c.tool("search", {"q": "x"}, result=[1, 2])

            with c.tool("search", {"q": "x"}) as call:
                call.result = search("x")

        Args:
            name: The tool's name.
            arguments: The arguments: any value that JSON can represent.
            result: The result: any value that JSON can represent. None is left out.
            error: The error, if the call failed.
            duration_ms: Milliseconds it took, 0 or more.
            call_id: The id that the model gave the call.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        call = ToolCall(self, name, arguments, call_id)
        call._timestamp = validation.optional(validation.check_timestamp, "timestamp", timestamp)
        if result is not UNKNOWN or error is not None or duration_ms is not None:
            call.result = None if result is UNKNOWN else result
            call.error = error
            call._duration_ms = duration_ms
            call._record()
        return call

    def feedback(
        self,
        *,
        score: float | None = None,
        comment: str | None = None,
        source: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log feedback on the conversation; return the event's id.

        A score, a comment, or both have to be given.

        Args:
            score: Any finite number, on a scale of your choice.
            comment: A comment as text.
            source: The source of the feedback, such as ``"user"`` or ``"reviewer"``.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        return self._tracker.record_feedback(
            self.session_id, score=score, comment=comment, source=source, timestamp=timestamp
        )

    def score(
        self,
        name: str,
        value: float | bool | str,
        *,
        comment: str | None = None,
        source: str | None = None,
    ) -> str:
        """Log a score of the conversation; return the event's id.

        For a score of one of its events, see `AgentPerformanceTracker.record_score`.

        Args:
            name: What it says, such as ``"helpful"``: scores of one name are summed up.
            value: Any finite number, True or False, or a category such as ``"off topic"``.
            comment: A comment as text.
            source: The source of the score, such as ``"user"`` or ``"judge"``.
        """
        return self._tracker.record_score(
            name, value, session_id=self.session_id, comment=comment, source=source
        )

    def end(
        self,
        quality_score: float | None = None,
        *,
        outcome: str | None = None,
        user_feedback: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Set values to record when the block is left; later calls replace earlier ones.

        Args:
            quality_score: Quality from 1.0 to 5.0.
            outcome: The outcome, in a word of your choice such as ``"resolved"``.
            user_feedback: The user's feedback as text.
            metadata: Additional data that JSON can represent.

        Raises:
            ValidationError: if an argument is not allowed, or the block has already been left.
        """
        if self._left:
            raise ValidationError("conversation", "is over; call end() inside its block")
        if metadata is not None:  # store the present values, even if they change later
            metadata = validation.copy_json(
                "metadata", self._tracker._metadata("metadata", metadata)
            )
        given = self._tracker._check_ending(quality_score, outcome, user_feedback, metadata)
        self._end_with.update({name: value for name, value in given.items() if value is not None})

    def _user_spoke(self, when: float | None) -> None:
        """Begin a turn; measure response times from this time of the monotonic clock, if given."""
        if when is not None:
            self._asked = when
        if self._in_turns and self._answered:
            self._span = new_turn()
        self._answered = False

    def _agent_spoke(self) -> None:
        """Let the next message of the user begin a turn."""
        self._answered = True

    def _start(self, span: SpanContext | None = None) -> None:
        """Log the start, in `span` or by default in a new one.

        A conversation inside of a span is a span itself. Otherwise each of its turns is a trace:
        a conversation may go on for days, and no receiver shows a trace whose root is missing.
        """
        if self._entered:
            raise ValidationError("conversation", "was entered before; make a new one")
        if span is None:
            outer = context.current_span()
            self._in_turns = outer is None
            span = new_turn() if outer is None else new_conversation(outer, self.session_id)
        self._span = span
        with context.inside(span):
            self._tracker.start_conversation(
                self.agent_id, user_id=self.user_id, session_id=self.session_id, **self._start_with
            )
        self._entered = True
        self._asked = time.monotonic()

    def _finish(self, error: BaseException | None) -> None:
        """Log the end or the failure, unless the application has done so."""
        self._left = True
        with context.inside(self._span):
            self._log_end(error)
        if self._span is not None:
            self._span.parent = None

    def _log_end(self, error: BaseException | None) -> None:
        for call in list(self._unlogged):
            with Boundary(self._tracker, f"the call of {call._name!r}"):
                call._record()
        with behind(error, self._tracker, f"the end of a conversation with {self.agent_id!r}"):
            if self._tracker._is_over(self.session_id):
                return
            if error is None or issubclass(type(error), GeneratorExit):
                self._tracker.end_conversation(self.session_id, **self._end_with)
            else:
                self._tracker.record_failed_session(
                    self.session_id, exception=error, metadata=self._end_with.get("metadata")
                )

    def __enter__(self) -> Self:
        self._start()
        self._become_current()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._step_back()
        self._finish(error)

    def _become_current(self) -> None:
        """Make this the current conversation, until `_step_back`."""
        scope = context.scope()
        self._outer = current_conversation()
        context.enter(scope._replace(conversation=self))
        if self._span is not None and not self._in_turns:
            context.enter_span(self._span)

    def _step_back(self) -> None:
        """Make the enclosing conversation, if any, the current one."""
        self._left = True
        if self._span is not None and not self._in_turns:
            context.leave_span(self._span)
        scope = context.scope()
        # Generators share their caller's context, so blocks may be left in any order and in another
        # context than they were entered in: a token of `ContextVar.set` would not work.
        if scope.conversation is self:
            outer = self._outer
            while outer is not None and outer._left:
                outer = outer._outer
            context.enter(scope._replace(conversation=outer))
        self._outer = None

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<ActiveConversation {self.session_id} with {self.agent_id!r}>"
