"""The async trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, overload

from tracker import validation
from tracker.aio.base import AsyncBaseTracker, logs, reads
from tracker.aio.conversation import AsyncConversation
from tracker.aio.observe import AsyncObserver
from tracker.aio.span import AsyncSpan
from tracker.propagation import RemoteParent, extract, inject
from tracker.trackers.capture import share
from tracker.trackers.compliance import ComplianceTracker
from tracker.trackers.llm import LLMTracker
from tracker.trackers.observe import on_function
from tracker.trackers.operations import AgentOperationsTracker
from tracker.trackers.performance import AgentPerformanceTracker
from tracker.trackers.security import SecurityTracker
from tracker.trackers.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ParamSpec, TypeVar

    from tracker.config import APIConfig
    from tracker.sync.destination import Destination

    P = ParamSpec("P")
    R = TypeVar("R")


class AsyncAgentPerformanceTracker(AsyncBaseTracker[AgentPerformanceTracker]):
    """`AgentPerformanceTracker` for `asyncio`; see `AsyncBaseTracker`.

    ::

        async with AsyncAgentPerformanceTracker() as tracker:
            async with tracker.conversation("agent_123", user_id="user_7") as c:
                await c.user("Hello!")
                await c.agent("Hi there!")  # its response time is measured
    """

    _kind = AgentPerformanceTracker

    start_conversation = logs(AgentPerformanceTracker.start_conversation)
    resume_conversation = logs(AgentPerformanceTracker.resume_conversation)
    log_message = logs(AgentPerformanceTracker.log_message)
    log_messages = logs(AgentPerformanceTracker.log_messages)
    log_user_message = logs(AgentPerformanceTracker.log_user_message)
    log_agent_message = logs(AgentPerformanceTracker.log_agent_message)
    log_system_message = logs(AgentPerformanceTracker.log_system_message)
    log_tool_call = logs(AgentPerformanceTracker.log_tool_call)
    end_conversation = logs(AgentPerformanceTracker.end_conversation)
    record_failed_session = logs(AgentPerformanceTracker.record_failed_session)
    record_feedback = logs(AgentPerformanceTracker.record_feedback)
    record_score = logs(AgentPerformanceTracker.record_score)

    get_conversation_history = reads(AgentPerformanceTracker.get_conversation_history)
    list_conversations = reads(AgentPerformanceTracker.list_conversations)
    get_metrics = reads(AgentPerformanceTracker.get_metrics)
    get_trace = reads(AgentPerformanceTracker.get_trace)
    get_scores = reads(AgentPerformanceTracker.get_scores)
    list_scores = reads(AgentPerformanceTracker.list_scores)

    def conversation(
        self,
        agent_id: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncConversation:
        """Return a conversation to use as an ``async with`` block, whose methods are awaited.

        Entering the block starts the conversation with the arguments of `start_conversation`.
        Leaving it ends the conversation, or marks it as failed if an exception escapes. Inside the
        block, calls of the tracker need no session id.
        """
        return AsyncConversation(
            self._calls, self._target, agent_id, user_id, session_id, run_id, metadata
        )

    def span(
        self, name: str, *, input: Any = None, attributes: Mapping[str, Any] | None = None
    ) -> AsyncSpan:
        """Return a span to use as an ``async with`` block; see `AgentPerformanceTracker.span`.

        ::

            async with tracker.span("retrieve", input=question) as span:
                span.output = await search(question)

        Args:
            name: The name of the step, at most 256 characters.
            input: What it works on: any value.
            attributes: More values by name: a dict with any values.

        Raises:
            ValidationError: if an argument is not allowed.
        """
        span = AsyncSpan(self, self._target, self._settings, name, input, attributes)
        span._calls = self._calls
        return span

    def inject(self, headers: Any) -> None:
        """Add the current span to the headers of a request; see `tracker.inject`.

        This is not awaited.

        Args:
            headers: A dict or another mutable mapping, or a list of pairs; changed in place.

        Raises:
            ValidationError: if it is neither.
        """
        inject(headers)

    def extract(self, headers: Any) -> RemoteParent:
        """Return a ``with`` block in which the sender of a request has the current span.

        See `tracker.extract`. This is not awaited.

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
        """Return a decorator that records each call without blocking the event loop.

        It can decorate coroutine functions and async generator functions, and is otherwise like
        `AgentPerformanceTracker.observe`. If the tracker cannot be opened, calls raise.

        Args:
            function: The function, if the decorator is used without parentheses.
            agent_id: The agent that the calls concern; by default that of the current conversation.
            name: The name to record; by default the function's qualified name.
            capture_input: Whether arguments are recorded. Default True.
            capture_output: Whether results are recorded. Default True.

        Raises:
            ValidationError: if an argument is not allowed, or the function is of another kind.
        """
        agent_id = validation.check_optional_id("agent_id", agent_id)
        name = validation.check_optional_id("name", name)

        def wrap(inner: Any) -> Any:
            observer = AsyncObserver(
                share(self._settings.max_event_bytes),
                self._target,
                inner,
                name,
                agent_id,
                capture_input,
                capture_output,
            )
            observer.calls = self._calls
            return observer.wrapped()

        def decorate(function: Any) -> Any:
            return on_function(function, wrap)

        return decorate if function is None else decorate(function)


class AsyncAgentOperationsTracker(AsyncBaseTracker[AgentOperationsTracker]):
    """`AgentOperationsTracker` for `asyncio`; see `AsyncBaseTracker`."""

    _kind = AgentOperationsTracker

    register_agent = logs(AgentOperationsTracker.register_agent)
    update_agent_status = logs(AgentOperationsTracker.update_agent_status)
    log_activity = logs(AgentOperationsTracker.log_activity)
    heartbeat = logs(AgentOperationsTracker.heartbeat)

    get_agent_status = reads(AgentOperationsTracker.get_agent_status)
    get_active_agents = reads(AgentOperationsTracker.get_active_agents)
    get_recent_activity = reads(AgentOperationsTracker.get_recent_activity)
    get_operations_overview = reads(AgentOperationsTracker.get_operations_overview)


class AsyncLLMTracker(AsyncBaseTracker[LLMTracker]):
    """`LLMTracker` for `asyncio`; see `AsyncBaseTracker`."""

    _kind = LLMTracker

    record_usage = logs(LLMTracker.record_usage)

    get_usage = reads(LLMTracker.get_usage)


class AsyncSecurityTracker(AsyncBaseTracker[SecurityTracker]):
    """`SecurityTracker` for `asyncio`; see `AsyncBaseTracker`."""

    _kind = SecurityTracker

    report_event = logs(SecurityTracker.report_event)
    report_unclosed_sessions = reads(SecurityTracker.report_unclosed_sessions)  # reads, then logs

    get_unclosed_sessions = reads(SecurityTracker.get_unclosed_sessions)
    verify_integrity = reads(SecurityTracker.verify_integrity)


class AsyncComplianceTracker(AsyncBaseTracker[ComplianceTracker]):
    """`ComplianceTracker` for `asyncio`; see `AsyncBaseTracker`."""

    _kind = ComplianceTracker

    record_audit = logs(ComplianceTracker.record_audit)
    acknowledge = logs(ComplianceTracker.acknowledge)
    erase_subject = reads(ComplianceTracker.erase_subject)  # slow, and not a plain append

    export_audit = reads(ComplianceTracker.export_audit)
    report = reads(ComplianceTracker.report)


class AsyncTracker(AsyncAgentPerformanceTracker):
    """`Tracker` for `asyncio`: all trackers in one; see `AsyncBaseTracker`.

    Conversations, messages, observed functions and scores are its own methods, those of
    `AsyncAgentPerformanceTracker`; the other areas are attributes.

    ::

        async with AsyncTracker(APIConfig(api_key="...")) as tracker:
            session_id = await tracker.start_conversation("agent-1")
            await tracker.llm.record_usage("openai", "gpt-4o", 900, 120, session_id=session_id)
            await tracker.track("cart.abandoned", {"items": 3}, session_id=session_id)

    Args:
        config: Settings; by default those of the environment, read now.
        destination: Function that makes a `Destination` to use in place of HTTP to the collector.

    Attributes:
        performance: This tracker, for code that names the area of each call.
        operations: What agents are doing, an `AsyncAgentOperationsTracker`.
        llm: Calls to language models, an `AsyncLLMTracker`.
        security: Security events, unclosed conversations, integrity, an `AsyncSecurityTracker`.
        compliance: Audit records, exports and erasure, an `AsyncComplianceTracker`.
    """

    _kind = Tracker

    def __init__(
        self,
        config: APIConfig | None = None,
        *,
        destination: Callable[[], Destination] | None = None,
    ) -> None:
        super().__init__(config, destination=destination)
        self.operations = AsyncAgentOperationsTracker._part_of(
            self, lambda: self._whole().operations
        )
        self.llm = AsyncLLMTracker._part_of(self, lambda: self._whole().llm)
        self.security = AsyncSecurityTracker._part_of(self, lambda: self._whole().security)
        self.compliance = AsyncComplianceTracker._part_of(self, lambda: self._whole().compliance)

    @property
    def performance(self) -> AsyncAgentPerformanceTracker:
        """This tracker."""
        return self

    def _whole(self) -> Tracker:
        return cast("Tracker", self._target())
