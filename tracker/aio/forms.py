"""The two forms of calls in a conversation, with and without session id, for type checkers.

`ParamSpec` keeps only the first of a function's overloads, so these say them once more; a test
compares them with those of `AgentPerformanceTracker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Mapping


class LogMessage(Protocol):
    """Both forms of `log_message`."""

    @overload
    async def __call__(
        self,
        session_id: str,
        role: str,
        content: str,
        *,
        response_time_ms: float | None = ...,
        tokens_used: int | None = ...,
        model: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...

    @overload
    async def __call__(
        self,
        *,
        role: str,
        content: str,
        response_time_ms: float | None = ...,
        tokens_used: int | None = ...,
        model: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...


class LogUserMessage(Protocol):
    """Both forms of `log_user_message`."""

    @overload
    async def __call__(
        self,
        session_id: str,
        content: str,
        *,
        tokens_used: int | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...

    @overload
    async def __call__(
        self,
        *,
        content: str,
        tokens_used: int | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...


class LogAgentMessage(Protocol):
    """Both forms of `log_agent_message`."""

    @overload
    async def __call__(
        self,
        session_id: str,
        content: str,
        response_time_ms: float | None = ...,
        tokens_used: int | None = ...,
        *,
        model: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...

    @overload
    async def __call__(
        self,
        *,
        content: str,
        response_time_ms: float | None = ...,
        tokens_used: int | None = ...,
        model: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> str: ...


class LogSystemMessage(Protocol):
    """Both forms of `log_system_message`."""

    @overload
    async def __call__(
        self, session_id: str, content: str, *, metadata: Mapping[str, Any] | None = ...
    ) -> str: ...

    @overload
    async def __call__(self, *, content: str, metadata: Mapping[str, Any] | None = ...) -> str: ...


class LogToolCall(Protocol):
    """Both forms of `log_tool_call`."""

    @overload
    async def __call__(
        self,
        session_id: str,
        name: str,
        arguments: Any,
        *,
        result: Any = ...,
        error: str | None = ...,
        duration_ms: float | None = ...,
        call_id: str | None = ...,
    ) -> str: ...

    @overload
    async def __call__(
        self,
        *,
        name: str,
        arguments: Any,
        result: Any = ...,
        error: str | None = ...,
        duration_ms: float | None = ...,
        call_id: str | None = ...,
    ) -> str: ...
