"""Conversations: their messages, tool calls, outcome and feedback."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, overload

from tracker import context, validation
from tracker.errors import ValidationError
from tracker.events import (
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
    MESSAGE_LOGGED,
    TOOL_CALLED,
)
from tracker.ids import new_id
from tracker.propagation import RemoteParent, extract, inject
from tracker.redaction.uncut import Uncut
from tracker.trackers.capture import share, type_name
from tracker.trackers.content import ROLES, check_content, check_role
from tracker.trackers.conversation import ActiveConversation
from tracker.trackers.growing import ChatTracker
from tracker.trackers.observe import Observer, on_function
from tracker.trackers.reporting import error_text
from tracker.trackers.scoring import ScoringTracker
from tracker.trackers.span import Span
from tracker.trackers.tracebacks import traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from tracker.span_context import SpanContext

    P = ParamSpec("P")
    R = TypeVar("R")


class AgentPerformanceTracker(ChatTracker, ScoringTracker):
    """Logs conversations between users and agents.

    Every logging call returns an id, once its event is stored in the outbox. Ids are non-empty
    strings of at most 256 characters; metadata is a dict that JSON can represent.
    A session id of None, the default, means the current conversation, that of the
    `with tracker.conversation(...)` block around the call: ``log_user_message(content="Hello!")``.

    Raises:
        ValidationError: from any logging call, if an argument is not allowed; nothing is stored.
        OutboxError: from any logging call, if storage failed and `APIConfig.on_error` is "raise".
        TrackerClosedError: from any logging call after `close`.
    """

    def conversation(
        self,
        agent_id: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ActiveConversation:
        """Return a conversation to use as a ``with`` or ``async with`` block.

        ::

            with tracker.conversation("agent_123", user_id="user_7") as c:
                c.user("Hello!")
                c.agent("Hi there!")  # its response time is measured
                c.end(quality_score=4.5)

        Entering the block starts the conversation with the arguments of `start_conversation`.
        Leaving it ends the conversation, or marks it as failed if an exception escapes. Inside the
        block, calls of the tracker need no session id.
        """
        return ActiveConversation(self, agent_id, user_id, session_id, run_id, metadata)

    def span(
        self, name: str, *, input: Any = None, attributes: Mapping[str, Any] | None = None
    ) -> Span:
        """Return a span, a named step of your own, to use as a ``with`` or ``async with`` block.

        ::

            with tracker.span("retrieve", input=question, attributes={"index": "faq"}) as span:
                span.output = search(question)

        When the block is left, a ``span.recorded`` event is logged with its duration, and with the
        exception that escaped, if one did; see `Span` and `tracker.trackers.span`. Spans nest, over
        observed functions, tool blocks and tasks too; together they are a trace. A span of
        OpenTelemetry that is current becomes the parent.

        Args:
            name: The name of the step, at most 256 characters.
            input: What it works on: any value.
            attributes: More values by name: a dict with any values.

        Raises:
            ValidationError: if an argument is not allowed.
        """
        return Span(self, lambda: self, self.config, name, input, attributes)

    def inject(self, headers: Any) -> None:
        """Add the current span to the headers of a request; see `tracker.inject`.

        Args:
            headers: A dict or another mutable mapping, or a list of pairs; changed in place.

        Raises:
            ValidationError: if it is neither.
        """
        inject(headers)

    def extract(self, headers: Any) -> RemoteParent:
        """Return a ``with`` block in which the sender of a request has the current span.

        See `tracker.extract`.

        Args:
            headers: The request's headers: a mapping, or pairs of name and value.

        Raises:
            ValidationError: if it is neither.
        """
        return extract(headers)

    @overload
    def observe(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def observe(
        self,
        function: None = ...,
        /,
        *,
        agent_id: str | None = ...,
        name: str | None = ...,
        capture_input: bool = ...,
        capture_output: bool = ...,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def observe(
        self,
        function: Any = None,
        /,
        *,
        agent_id: str | None = None,
        name: str | None = None,
        capture_input: bool = True,
        capture_output: bool = True,
    ) -> Any:
        """Return a decorator that records each call of a function; see `tracker.trackers.observe`.

        ::

            @tracker.observe
            def find_order(number: int) -> str: ...

            @tracker.observe(agent_id="agent_123")
            async def answer(question: str) -> str: ...

        It can decorate functions, methods (above or below ``@staticmethod``, ``@classmethod`` and
        ``@property``), coroutine functions, generators and async generators. When a call ends, a
        ``function.observed`` event is logged to the current conversation; if there is none and
        `agent_id` is given, the call becomes a conversation. Results and exceptions pass through
        unchanged. A failure of the tracker never affects the function: it is logged once, under
        the logger ``tracker``.

        Args:
            function: The function, if the decorator is used without parentheses.
            agent_id: The agent that the calls concern; by default that of the current conversation.
            name: The name to record; by default the function's qualified name.
            capture_input: Whether arguments are recorded. Default True.
            capture_output: Whether results are recorded. Default True.

        Raises:
            ValidationError: if an argument is not allowed, or the decorated object is not a
                function.
        """
        agent_id = validation.check_optional_id("agent_id", agent_id)
        name = validation.check_optional_id("name", name)

        def decorate(function: Any) -> Any:
            return on_function(
                function,
                lambda inner: Observer(
                    share(self.config.max_event_bytes),
                    lambda: self,
                    inner,
                    name,
                    agent_id,
                    capture_input,
                    capture_output,
                ).wrapped(),
            )

        return decorate if function is None else decorate(function)

    def start_conversation(
        self,
        agent_id: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Start a conversation and return its session id.

        Args:
            agent_id: The agent.
            user_id: The user.
            session_id: An id of your choice; by default a new UUIDv7.
            run_id: The experiment, deployment or job that the conversation belongs to.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        user_id = validation.check_optional_id("user_id", user_id)
        session_id = validation.check_optional_id("session_id", session_id) or new_id()
        data = {
            "run_id": validation.check_optional_id("run_id", run_id),
            "metadata": self._metadata("metadata", metadata),
        }
        self._record(
            CONVERSATION_STARTED,
            data,
            agent_id=agent_id,
            session_id=session_id,
            user_id=user_id,
            timestamp=timestamp,
        )
        self._client.sessions.start(session_id, agent_id, user_id, timestamp)
        return session_id

    def resume_conversation(
        self,
        session_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log that a conversation continues, whether it had ended or not; return the event's id."""
        session_id = validation.check_id("session_id", session_id)
        data = {"metadata": self._metadata("metadata", metadata)}
        self._check_open()
        session = self._client.sessions.resume(session_id)
        return self._record(
            CONVERSATION_RESUMED,
            data,
            session_id=session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
            timestamp=timestamp,
        )

    def log_message(
        self,
        session_id: str | None = None,
        role: str | None = None,
        content: str | Sequence[Any] | None = None,
        *,
        response_time_ms: float | None = None,
        tokens_used: int | None = None,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log one message and return the event's id.

        Args:
            session_id: The conversation, as `start_conversation` returned it. None, the default,
                means the current conversation, here and in the other methods.
            role: ``"user"``, ``"agent"``, ``"system"`` or ``"tool"``. The names of the model APIs
                are taken too: ``"assistant"`` is stored as ``"agent"``, ``"developer"`` as
                ``"system"`` and ``"function"`` as ``"tool"``.
            content: The text, or a list of parts as OpenAI's and Anthropic's APIs have them. Of
                images, sounds and files, media type, size and SHA-256 are stored, never the bytes;
                other parts are stored as JSON. See `tracker.trackers.content`.
            response_time_ms: Milliseconds until the answer, 0 or more; rounded to 2 decimals.
            tokens_used: Tokens used for it, 0 or more.
            model: The model that generated it.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        return self._log_message(
            session_id,
            role,
            content,
            metadata,
            tokens_used,
            response_time_ms,
            model,
            timestamp=timestamp,
        )

    def log_user_message(
        self,
        session_id: str | None = None,
        content: str | Sequence[Any] | None = None,
        *,
        tokens_used: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a message of the user; see `log_message`."""
        return self._log_message(
            session_id, "user", content, metadata, tokens_used, timestamp=timestamp
        )

    def log_agent_message(
        self,
        session_id: str | None = None,
        content: str | Sequence[Any] | None = None,
        response_time_ms: float | None = None,
        tokens_used: int | None = None,
        *,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a message of the agent; see `log_message`."""
        return self._log_message(
            session_id,
            "agent",
            content,
            metadata,
            tokens_used,
            response_time_ms,
            model,
            timestamp=timestamp,
        )

    def log_system_message(
        self,
        session_id: str | None = None,
        content: str | Sequence[Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a system message, such as an instruction to the agent; see `log_message`."""
        return self._log_message(session_id, "system", content, metadata, timestamp=timestamp)

    def log_tool_call(
        self,
        session_id: str | None = None,
        name: str | None = None,
        arguments: Any = None,
        *,
        result: Any = None,
        error: str | None = None,
        duration_ms: float | None = None,
        call_id: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log a tool call with its result or error; return the event's id.

        Args:
            session_id: The conversation; None means the current one.
            name: The tool's name.
            arguments: The arguments: any value that JSON can represent.
            result: The result: any value that JSON can represent. None is left out.
            error: The error, if the call failed.
            duration_ms: Milliseconds it took, 0 or more; rounded to 2 decimals.
            call_id: The id that the model gave the call.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        return self._log_tool_call(
            session_id,
            name,
            arguments,
            result=result,
            error=error,
            duration_ms=duration_ms,
            call_id=call_id,
            timestamp=timestamp,
            span=None,
        )

    def _log_tool_call(
        self,
        session_id: str | None,
        name: str | None,
        arguments: Any,
        *,
        result: Any,
        error: str | None,
        duration_ms: float | None,
        call_id: str | None,
        timestamp: datetime | int | None,
        span: SpanContext | None,
        traceback: str | None = None,
    ) -> str:
        """Log a tool call. Within a trace it is a span: the one given, or a new one."""
        session_id = context.resolve(session_id)
        try:
            name = validation.check_id("name", name)
        except ValidationError as wrong:
            raise missing("name", session_id, wrong.problem) from None
        data = {
            "name": name,
            "arguments": self._json("arguments", arguments),
            "result": self._json("result", result),
            # The text of a tool block is valid, and is still to be truncated.
            "error": error
            if type(error) is Uncut
            else validation.optional(validation.check_text, "error", error),
            "duration_ms": validation.optional(
                validation.check_milliseconds, "duration_ms", duration_ms
            ),
            "call_id": validation.check_optional_id("call_id", call_id),
            "traceback": traceback,
        }
        if span is None and (outer := context.current_span()) is not None:
            span = outer.child()
        return self._record_in(
            session_id,
            TOOL_CALLED,
            data,
            nullable=("arguments",),
            timestamp=timestamp,
            span=span,
        )

    def end_conversation(
        self,
        session_id: str | None = None,
        quality_score: float | None = None,
        *,
        outcome: str | None = None,
        user_feedback: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """End a conversation and return the event's id.

        Args:
            session_id: The conversation; None means the current one.
            quality_score: Quality from 1.0 to 5.0.
            outcome: The outcome, in a word of your choice such as ``"resolved"``.
            user_feedback: The user's feedback as text.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        session_id = context.resolve(session_id)
        data = self._check_ending(quality_score, outcome, user_feedback, metadata)
        self._check_open()
        session = self._client.sessions.use(session_id)
        data["duration_ms"] = session.duration_ms(timestamp)
        event_id = self._record_in(session_id, CONVERSATION_ENDED, data, timestamp=timestamp)
        session.over = True
        return event_id

    def record_failed_session(
        self,
        session_id: str | None = None,
        error_message: str | None = None,
        *,
        exception: BaseException | None = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log that a conversation failed, and why; return the event's id.

        Args:
            session_id: The conversation; None means the current one.
            error_message: The reason; by default the exception's message.
            exception: The exception that ended it; the name of its type is stored, and its
                traceback: frames without their local variables.
            metadata: Additional data.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.
        """
        session_id = context.resolve(session_id)
        if exception is not None and not issubclass(type(exception), BaseException):
            raise ValidationError(
                "exception", f"is of type {type_name(exception)}; give an exception"
            )
        if error_message is None:
            if exception is None:
                raise missing(
                    "error_message", session_id, "is None; give error_message or exception"
                )
            error_message = error_text(exception)
        else:
            error_message = validation.check_text("error_message", error_message)
        data = {
            "error_type": None if exception is None else type_name(exception),
            "error_message": error_message,
            "traceback": None if exception is None else traceback_of(exception, self.config),
            "metadata": self._metadata("metadata", metadata),
        }
        event_id = self._record_in(session_id, CONVERSATION_FAILED, data, timestamp=timestamp)
        self._client.sessions.get(session_id).over = True
        return event_id

    def _log_message(
        self,
        session_id: str | None,
        role: object,
        content: object,
        metadata: object,
        tokens_used: object = None,
        response_time_ms: object = None,
        model: object = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        now = time.monotonic()
        session = context.resolve(session_id)
        if content is None:
            raise missing("content", session, "is None; pass the text as content=")
        data: dict[str, Any] = {
            "role": (type(role) is str and ROLES.get(role)) or check_role("role", role),
            "content": validation.check_text("content", content)
            if issubclass(type(content), str)
            else check_content("content", content, self.config.json_default),
        }
        if response_time_ms is not None:
            data["response_time_ms"] = validation.check_milliseconds(
                "response_time_ms", response_time_ms
            )
        if tokens_used is not None:
            data["tokens_used"] = validation.check_tokens("tokens_used", tokens_used)
        if model is not None:
            data["model"] = validation.check_id("model", model)
        if metadata is not None:
            data["metadata"] = self._metadata("metadata", metadata)
        current = context.SCOPE.get().conversation
        if current is not None and current.session_id != session:
            current = None
        if current is not None and role == "user":
            current._user_spoke(now if timestamp is None else None)
        event_id = self._record_in(session, MESSAGE_LOGGED, data, timestamp=timestamp)
        if current is not None and role == "agent":
            current._agent_spoke()
        return event_id

    def _is_over(self, session_id: str) -> bool:
        """Return True if the conversation has ended or failed."""
        return self._client.sessions.get(session_id).over

    def _check_ending(
        self, quality_score: object, outcome: object, user_feedback: object, metadata: object
    ) -> dict[str, Any]:
        return {
            "quality_score": validation.optional(
                validation.check_quality_score, "quality_score", quality_score
            ),
            "outcome": validation.check_optional_id("outcome", outcome),
            "user_feedback": validation.optional(
                validation.check_text, "user_feedback", user_feedback
            ),
            "metadata": self._metadata("metadata", metadata),
        }

    def _record_in(
        self,
        session_id: str,
        type: str,
        data: dict[str, Any],
        nullable: tuple[str, ...] = (),
        timestamp: datetime | int | None = None,
        span: SpanContext | None = None,
    ) -> str:
        """Record an event of a conversation, with its agent and user."""
        if self._closed:
            self._check_open()
        session = self._client.sessions.use(session_id)
        return self._record(
            type,
            data,
            session_id=session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
            nullable=nullable,
            timestamp=timestamp,
            span=span,
        )


def missing(argument: str, session_id: str, problem: str) -> ValidationError:
    """Return the error for an argument that is missing.

    Inside a conversation's block it adds that the first positional argument is the session id.
    """
    current = context.scope().conversation
    if current is not None and session_id != current.session_id:
        problem += (
            f". {session_id!r:.80} was taken for the session id, which comes first; to leave that "
            f"out, pass everything by keyword, as in {argument}="
        )
    return ValidationError(argument, problem)
