"""The public API as a typed application uses it. Never run: mypy and pyright are the test.

Every line with an ``ignore`` must be an error: both report the ignore as unused when it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import assert_type

import tracker
from tracker import (
    AgentPerformanceTracker,
    AgentState,
    APIConfig,
    AsyncAgentPerformanceTracker,
    AsyncSpan,
    AsyncTracker,
    ComplianceTracker,
    ConfigurationError,
    ErasureResult,
    FlushResult,
    Health,
    HistoryEntry,
    LLMUsage,
    NotAnOutboxError,
    OutboxError,
    OutboxFullError,
    RemoteParent,
    SchemaVersionError,
    Score,
    ScoreSummary,
    Span,
    TraceSpan,
    Tracker,
    TrackerClosedError,
    TrackerError,
    ValidationError,
)
from tracker.audit.report import Report

if TYPE_CHECKING:
    from types import MappingProxyType


def configure(path: Path) -> APIConfig:
    """Make a configuration, from the environment or from arguments, and read it."""
    assert_type(APIConfig(), APIConfig)
    config = APIConfig(
        api_key="key",
        client_id="kiosk-17",
        base_url="https://collector.example",
        outbox_path=path,
        disabled=False,
        durability="process",
        on_error="raise",
        allow_insecure_http=False,
        flush_interval=1,
        retention_days=7,
        max_outbox_bytes=None,
        outbox_full="discard_oldest",
        ca_bundle="ca.pem",
        proxies={"https": "http://proxy:3128"},
        chain_key="0123456789abcdef",
        config_file="tracker.toml",
        debug=True,
        upload_bytes_per_second=20_000,
        upload_window="22:00-06:00",
        upload_outside_window="security.critical",
        may_upload=lambda: path.exists(),
    )
    assert_type(config.upload_window, str | None)
    assert_type(config.may_upload, Callable[[], bool] | None)
    assert_type(APIConfig(api_key_file=path).api_key_file, Path | None)
    assert_type(config.config_file, Path | None)
    assert_type(config.debug, bool)
    assert_type(config.origins["api_key"].source, str)
    assert_type(config.origins["api_key"].name, str)
    assert_type(config.chain_key, str | bytes | None)
    assert_type(config.api_key, str)
    assert_type(config.client_id, str)
    assert_type(config.base_url, str)
    assert_type(config.outbox_path, Path)
    assert_type(config.disabled, bool)
    assert_type(config.durability, Literal["full", "process"])
    assert_type(config.flush_interval, float)
    assert_type(config.max_outbox_bytes, int | None)
    assert_type(config.proxies, Mapping[str, str] | None)
    return assert_type(replace(config, on_error="degrade"), APIConfig)


def configure_wrongly() -> None:
    """What a type checker must see before anything runs."""
    APIConfig("key")  # type: ignore[call-arg]  # by keyword only
    APIConfig(durability="none")  # type: ignore[arg-type]  # one of two words
    APIConfig(may_upload=lambda: "no")  # type: ignore[arg-type, return-value]  # True or False
    APIConfig(api_kee="key")  # type: ignore[call-arg]  # no such setting
    APIConfig().api_key = "other"  # type: ignore[misc]  # frozen
    AgentPerformanceTracker("key")  # type: ignore[arg-type]  # wants an APIConfig


def log(config: APIConfig, metadata: dict[str, Any], frozen: MappingProxyType[str, int]) -> None:
    """Log a conversation with every method."""
    assert_type(AgentPerformanceTracker(), AgentPerformanceTracker)
    with AgentPerformanceTracker(config=config) as performance:
        assert_type(performance, AgentPerformanceTracker)
        assert_type(performance.config, APIConfig)
        session = performance.start_conversation(
            "agent", user_id="user", session_id=None, run_id="run", metadata=metadata
        )
        assert_type(session, str)
        assert_type(performance.resume_conversation(session, metadata=None), str)
        assert_type(
            performance.log_message(
                session, "user", "hello", response_time_ms=12, tokens_used=3, model="m"
            ),
            str,
        )
        assert_type(performance.log_user_message(session, "hello", metadata={"a": [1]}), str)
        performance.log_message(session, "assistant", [{"type": "text", "text": "hello"}])
        assert_type(performance.log_messages(session, [{"role": "user"}]), list[str])
        assert_type(performance.log_messages(messages=[object()]), list[str])
        assert_type(performance.record_score("helpful", 4, session_id=session), str)
        assert_type(performance.record_score("helpful", True, event_id="e"), str)
        assert_type(performance.record_score("topic", "billing", trace_id="0" * 32), str)
        performance.record_score("topic", None)  # type: ignore[arg-type]  # no value
        assert_type(performance.get_scores(by="day"), list[ScoreSummary])
        assert_type(performance.list_scores(session), tuple[Score, ...])
        assert_type(performance.log_agent_message(session, "hello", 12.5, 30, model="m"), str)
        assert_type(performance.log_system_message(session, "be kind"), str)
        assert_type(
            performance.log_tool_call(
                session, "search", {"q": "x"}, result=[1], duration_ms=3, call_id="c"
            ),
            str,
        )
        assert_type(performance.record_feedback(session, score=4, comment="good"), str)
        assert_type(performance.end_conversation(session, 4.5, outcome="resolved"), str)
        assert_type(performance.record_failed_session(session, exception=OSError("x")), str)
        assert_type(performance.flush(), FlushResult)
        assert_type(performance.health(), Health)
        assert_type(performance.flush(timeout=None), FlushResult)
        assert_type(performance.close(), FlushResult)


def log_in_a_block(everything: Tracker) -> None:
    """Inside a conversation's block no call needs a session id; None is as good as none."""
    with everything.performance.conversation("agent", user_id="user") as c:
        assert_type(everything.track("cart.abandoned", {"items": 3}), str)
        assert_type(everything.llm.record_usage("openai", "gpt-4o", 9, 1, session_id=None), str)
        assert_type(everything.operations.log_activity("agent", "looked"), str)
        assert_type(everything.security.report_event("access_denied", "low"), str)
        assert_type(c.session_id, str)


def log_wrongly(performance: AgentPerformanceTracker) -> None:
    """What a type checker must see before anything runs."""
    performance.log_user_message("s", 5)  # type: ignore[arg-type]  # content is text
    performance.end_conversation("s", "5")  # type: ignore[arg-type]  # a score is a number
    performance.log_agent_message("s", "x", 1.0, 2.5)  # type: ignore[arg-type]  # a whole number
    performance.start_conversation("a", "u")  # type: ignore[call-arg]  # user_id by keyword only


def comply(compliance: ComplianceTracker) -> ErasureResult:
    """Keep records, and forget a user."""
    assert_type(compliance.record_audit("exported", "ops", scope="gdpr", details=[1]), str)
    assert_type(compliance.acknowledge("policy", acknowledged_by="user", reason=None), str)
    assert_type(APIConfig(retention={"message.logged": 30}).retention, Mapping[str, float])
    assert_type(APIConfig(retention="eu_ai_act").retention, Mapping[str, float])
    APIConfig(retention="gdpr")  # type: ignore[arg-type]  # no such preset
    report = compliance.report("eu-ai-act", "record.html", since=0)
    assert_type([line.record.count for line in report.lines if line.recorded], list[int])
    compliance.report("gdpr", "record.html")  # type: ignore[arg-type]  # one of three texts
    compliance.record_audit("exported")  # type: ignore[call-arg]  # by whom?
    result = compliance.erase_subject("user", reason="asked")
    assert_type(
        (result.erased, result.event_ids, result.scrubbed), tuple[int, tuple[str, ...], bool]
    )
    return result


def read(result: FlushResult) -> tuple[int, int, int]:
    """Read what a flush says."""
    figures = (result.delivered, result.pending, result.dead)
    assert_type(figures, tuple[int, int, int])
    result.pending = 0  # type: ignore[misc]  # frozen
    return figures


def handle(performance: AgentPerformanceTracker) -> str:
    """Catch errors from the narrowest to the widest."""
    try:
        performance.start_conversation("agent")
    except ValidationError as error:
        return assert_type(error.argument, str)
    except (NotAnOutboxError, SchemaVersionError, OutboxFullError) as error:
        return str(assert_type(error, NotAnOutboxError | SchemaVersionError | OutboxFullError))
    except (OutboxError, TrackerClosedError, ConfigurationError):
        raise
    except TrackerError as error:
        return str(error)
    return assert_type(tracker.__version__, str)


async def log_awaited(config: APIConfig) -> None:
    """Await every kind of call: what comes out is typed as without ``await``."""
    async with AsyncTracker(config) as everything:
        assert_type(everything, AsyncTracker)
        performance = everything.performance
        assert_type(performance, AsyncAgentPerformanceTracker)
        session = await performance.start_conversation("agent", user_id="user", metadata={"a": 1})
        assert_type(session, str)
        assert_type(await performance.log_user_message(session, "hello"), str)
        assert_type(await performance.log_messages(session, [{"role": "user"}]), list[str])
        assert_type(await performance.record_score("helpful", 4.5), str)
        assert_type(await performance.get_scores("release"), list[ScoreSummary])
        assert_type(await performance.log_user_message(content="hello", tokens_used=2), str)
        assert_type(
            await performance.log_agent_message(session_id=session, content="x", tokens_used=3), str
        )
        assert_type(await performance.log_tool_call(name="search", arguments=None), str)
        assert_type(await performance.end_conversation(session, 4.5), str)
        assert_type(
            await performance.get_conversation_history(session, limit=3), tuple[HistoryEntry, ...]
        )
        assert_type(await everything.operations.get_agent_status("agent"), AgentState | None)
        assert_type(await everything.llm.get_usage(by="day"), list[LLMUsage])
        assert_type(await everything.security.report_unclosed_sessions(), str | None)
        assert_type(await everything.compliance.report("soc2", Path("soc2.html")), Report)
        assert_type(await everything.track("cart.abandoned", {"items": 3}), str)
        assert_type(await everything.flush(timeout=None), FlushResult)
        assert_type(await everything.close(), FlushResult)
        async with performance.conversation("agent") as c:
            assert_type(await c.user("hello"), str)
            assert_type(await c.agent("hi", tokens_used=3), str)
            assert_type((await c.tool("search", result=1)).event_id, str | None)
            c.end(quality_score=5)

        async with performance.span("retrieve", input="x", attributes={"a": 1}) as span:
            span.output = [1]
            assert_type(span, AsyncSpan)
            assert_type(span.trace_id, str)
            assert_type(span.parent_span_id, str | None)
        with everything.extract({"traceparent": "00-"}) as remote:
            assert_type(remote, RemoteParent)

        @performance.observe()
        async def answer(question: str) -> int:
            return len(question)

        @performance.observe
        async def answer_too(question: str) -> int:
            return len(question)

        assert_type(await answer("what?"), int)
        assert_type(await answer_too("what?"), int)
        assert_type(await asyncio.gather(c.user("a"), c.user("b")), tuple[str, str])


def trace(everything: Tracker, headers: dict[str, str]) -> None:
    """Spans, with and without a tracker at hand."""
    with everything.extract([(b"traceparent", b"00-")]), everything.span("a") as span:
        assert_type(span, Span)
        assert_type(span.event_id, str | None)
        span.output, span.error = 1, "failed"
        span.attributes["any"] = object()
    found = everything.get_trace(span.trace_id)
    if found is not None:
        assert_type(found.spans[0].children, tuple[TraceSpan, ...])
        assert_type(found.spans[0].duration_ms, float | None)
    with tracker.span("b", input=object()):
        tracker.inject(headers)
        tracker.inject([("host", "x")])
    everything.span(5)  # type: ignore[arg-type]  # a name is text
    everything.span("a", attributes=[1])  # type: ignore[arg-type]  # a dict
    everything.span("a", "input")  # type: ignore[call-arg]  # by keyword only


async def log_wrongly_awaited(everything: AsyncTracker) -> None:
    """What a type checker must see of awaited calls."""
    performance = everything.performance
    await performance.log_user_message("s", 5)  # type: ignore[arg-type]  # content is text
    await performance.end_conversation("s", "5")  # type: ignore[arg-type]  # a score is a number
    await performance.start_conversation("a", "u")  # type: ignore[call-arg]  # by keyword only
    await everything.llm.get_usage(by="week")  # type: ignore[arg-type]  # not one of the four
    performance.record_feedback("s", score=4)  # type: ignore[unused-coroutine]  # not awaited
