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
    FEEDBACK_RECORDED,
    MESSAGE_LOGGED,
    TOOL_CALLED,
)
from tracker.ids import new_id
from tracker.redaction.uncut import Uncut
from tracker.trackers.capture import type_name
from tracker.trackers.conversation import ActiveConversation
from tracker.trackers.observe import Observer, on_function
from tracker.trackers.reading import ReadingTracker
from tracker.trackers.reporting import error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R")

ROLES = ("user", "agent", "system", "tool")


class AgentPerformanceTracker(ReadingTracker):
    """Logs conversations between users and agents.

    Every call is stored in the outbox before it returns, and returns the id of what it stored.
    Ids are non-empty strings of at most 256 characters; metadata is a dict that JSON can hold.
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

        It starts on entering, with the arguments of `start_conversation`; ends on leaving; and is
        marked failed if an exception escapes. Inside, calls of the tracker need no session id.
        """
        return ActiveConversation(self, agent_id, user_id, session_id, run_id, metadata)

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

        For functions, methods (above or below ``@staticmethod``, ``@classmethod`` and
        ``@property``), coroutine functions, generators and async generators. Each call
        becomes a ``function.observed`` event of the current conversation when it is over; if
        `agent_id` is given and none is current, the call is a conversation of its own. Results and
        exceptions pass through unchanged. Trouble of the tracker's own never reaches the function:
        it is logged once, under the logger ``tracker``.

        Args:
            function: What to record, where it is used without parentheses.
            agent_id: The agent whose doing it is; by default the current conversation's.
            name: What to call the function; by default its qualified name.
            capture_input: Whether arguments are recorded. Default True.
            capture_output: Whether results are recorded. Default True.

        Raises:
            ValidationError: if an argument is not allowed, or what is decorated is no function.
        """
        agent_id = validation.check_optional_id("agent_id", agent_id)
        name = validation.check_optional_id("name", name)

        def decorate(function: Any) -> Any:
            return on_function(
                function,
                lambda inner: Observer(
                    self.config, lambda: self, inner, name, agent_id, capture_input, capture_output
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
    ) -> str:
        """Start a conversation and return its session id.

        Args:
            agent_id: The agent that converses.
            user_id: The user it converses with.
            session_id: An id of your own; by default a new UUIDv7.
            run_id: The experiment, deployment or job that the conversation belongs to.
            metadata: Anything else.
        """
        agent_id = validation.check_id("agent_id", agent_id)
        user_id = validation.check_optional_id("user_id", user_id)
        session_id = validation.check_optional_id("session_id", session_id) or new_id()
        data = {
            "run_id": validation.check_optional_id("run_id", run_id),
            "metadata": validation.optional(validation.check_metadata, "metadata", metadata),
        }
        self._record(
            CONVERSATION_STARTED, data, agent_id=agent_id, session_id=session_id, user_id=user_id
        )
        self._client.sessions.start(session_id, agent_id, user_id)
        return session_id

    def resume_conversation(
        self, session_id: str, *, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Go on with a conversation, ended or not; return the event's id."""
        session_id = validation.check_id("session_id", session_id)
        data = {"metadata": validation.optional(validation.check_metadata, "metadata", metadata)}
        self._check_open()
        session = self._client.sessions.resume(session_id)
        return self._record(
            CONVERSATION_RESUMED,
            data,
            session_id=session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
        )

    def log_message(
        self,
        session_id: str | None = None,
        role: str | None = None,
        content: str | None = None,
        *,
        response_time_ms: float | None = None,
        tokens_used: int | None = None,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log one message and return the event's id.

        Args:
            session_id: The conversation, as `start_conversation` returned it. None, the default,
                means the current conversation, here and in the other methods.
            role: ``"user"``, ``"agent"``, ``"system"`` or ``"tool"``.
            content: The text.
            response_time_ms: Milliseconds it took to answer, 0 or more; kept with 2 decimals.
            tokens_used: Tokens spent on it, 0 or more.
            model: The model that wrote it.
            metadata: Anything else.
        """
        return self._log_message(
            session_id, role, content, metadata, tokens_used, response_time_ms, model
        )

    def log_user_message(
        self,
        session_id: str | None = None,
        content: str | None = None,
        *,
        tokens_used: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log what the user said; see `log_message`."""
        return self._log_message(session_id, "user", content, metadata, tokens_used)

    def log_agent_message(
        self,
        session_id: str | None = None,
        content: str | None = None,
        response_time_ms: float | None = None,
        tokens_used: int | None = None,
        *,
        model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log what the agent answered; see `log_message`."""
        return self._log_message(
            session_id, "agent", content, metadata, tokens_used, response_time_ms, model
        )

    def log_system_message(
        self,
        session_id: str | None = None,
        content: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log an instruction that the agent works under; see `log_message`."""
        return self._log_message(session_id, "system", content, metadata)

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
    ) -> str:
        """Log that the agent called a tool, and what came of it; return the event's id.

        Args:
            session_id: The conversation.
            name: The tool's name.
            arguments: What it was called with: anything that JSON can hold.
            result: What it answered: anything that JSON can hold. None is left out.
            error: What went wrong, if it failed.
            duration_ms: Milliseconds it took, 0 or more; kept with 2 decimals.
            call_id: The id that the model gave the call.
        """
        session_id = context.resolve(session_id)
        try:
            name = validation.check_id("name", name)
        except ValidationError as wrong:
            raise missing("name", session_id, wrong.problem) from None
        data = {
            "name": name,
            "arguments": validation.check_json("arguments", arguments),
            "result": validation.check_json("result", result),
            # A tool block's own is as it should be, and still to be cut.
            "error": error
            if type(error) is Uncut
            else validation.optional(validation.check_text, "error", error),
            "duration_ms": validation.optional(
                validation.check_milliseconds, "duration_ms", duration_ms
            ),
            "call_id": validation.check_optional_id("call_id", call_id),
        }
        return self._record_in(session_id, TOOL_CALLED, data, nullable=("arguments",))

    def end_conversation(
        self,
        session_id: str | None = None,
        quality_score: float | None = None,
        *,
        outcome: str | None = None,
        user_feedback: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """End a conversation and return the event's id.

        Args:
            session_id: The conversation.
            quality_score: How good it was, from 1.0 to 5.0.
            outcome: What came of it, in a word of your own, as in ``"resolved"``.
            user_feedback: What the user said of it.
            metadata: Anything else.
        """
        session_id = context.resolve(session_id)
        data = self._check_ending(quality_score, outcome, user_feedback, metadata)
        self._check_open()
        session = self._client.sessions.use(session_id)
        if session.started is not None:
            data["duration_ms"] = round((time.monotonic() - session.started) * 1000, 2)
        event_id = self._record_in(session_id, CONVERSATION_ENDED, data)
        session.over = True
        return event_id

    def record_failed_session(
        self,
        session_id: str | None = None,
        error_message: str | None = None,
        *,
        exception: BaseException | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Log that a conversation broke off, and why; return the event's id.

        Args:
            session_id: The conversation.
            error_message: What went wrong; by default the exception's own text.
            exception: The exception that ended it; its type's name is stored.
            metadata: Anything else.
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
            "metadata": validation.optional(validation.check_metadata, "metadata", metadata),
        }
        event_id = self._record_in(session_id, CONVERSATION_FAILED, data)
        self._client.sessions.get(session_id).over = True
        return event_id

    def record_feedback(
        self,
        session_id: str | None = None,
        *,
        score: float | None = None,
        comment: str | None = None,
        source: str | None = None,
    ) -> str:
        """Log what somebody thinks of a conversation, also after it ended; return the event's id.

        Args:
            session_id: The conversation.
            score: Any finite number, on a scale of your own.
            comment: Words.
            source: Who says so, as in ``"user"`` or ``"reviewer"``.
        """
        session_id = context.resolve(session_id)
        data = {
            "score": validation.optional(validation.check_number, "score", score),
            "comment": validation.optional(validation.check_text, "comment", comment),
            "source": validation.check_optional_id("source", source),
        }
        self._check_open()
        session = self._client.sessions.get(session_id)
        return self._record(
            FEEDBACK_RECORDED,
            data,
            session_id=session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
        )

    def _log_message(
        self,
        session_id: str | None,
        role: object,
        content: object,
        metadata: object,
        tokens_used: object = None,
        response_time_ms: object = None,
        model: object = None,
    ) -> str:
        now = time.monotonic()
        session = context.resolve(session_id)
        if content is None:
            raise missing("content", session, "is None; pass the text as content=")
        data: dict[str, Any] = {
            "role": validation.check_choice("role", role, ROLES),
            "content": validation.check_text("content", content),
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
            data["metadata"] = validation.check_metadata("metadata", metadata)
        if role == "user":
            context.user_spoke(session, now)
        return self._record_in(session, MESSAGE_LOGGED, data)

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
            "metadata": validation.optional(validation.check_metadata, "metadata", metadata),
        }

    def _record_in(
        self, session_id: str, type: str, data: dict[str, Any], nullable: tuple[str, ...] = ()
    ) -> str:
        """Record what happened in a conversation, with the agent and user it concerns."""
        self._check_open()
        session = self._client.sessions.use(session_id)
        return self._record(
            type,
            data,
            session_id=session_id,
            agent_id=session.agent_id,
            user_id=session.user_id,
            nullable=nullable,
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
