"""Log records of OpenTelemetry as events in a real outbox."""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk.resources import Resource

from tracker import own_work
from tracker.errors import ValidationError
from tracker.otel import OutboxLogRecordProcessor, OutboxSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry._logs import Logger

    from tests.contract.otel.conftest import MakeTraced, Traced

OPENAI = "sk-proj-" + "aB3" * 20


class Logs:
    """A logger of OpenTelemetry whose records a tracker stores."""

    def __init__(self, traced: Traced, **options: Any) -> None:
        self.processor = OutboxLogRecordProcessor(traced.tracker, **options)
        self.provider: Any = LoggerProvider(  # whose methods have types in newer versions only
            resource=Resource({"service.name": "kiosk"}), shutdown_on_exit=False
        )
        self.provider.add_log_record_processor(self.processor)

    def logger(self, name: str = "agent") -> Logger:
        found: Logger = self.provider.get_logger(name, "2.0")
        return found


@pytest.fixture
def logs(traced: Traced) -> Iterator[Logs]:
    made = Logs(traced)
    yield made
    made.provider.shutdown()


def test_a_record_is_stored_with_all_that_it_has(traced: Traced, logs: Logs) -> None:
    """Times, severity, body of any shape, attributes, the span it was logged in."""
    with traced.otel.start_as_current_span("step") as span:
        where = span.get_span_context()
        logs.logger().emit(
            LogRecord(
                timestamp=1_790_000_000_000_000_001,
                observed_timestamp=1_790_000_000_000_000_002,
                severity_number=SeverityNumber.WARN,
                severity_text="WARNING",
                body={"text": "slow", "seconds": 2.0},
                attributes={"code": 7},
                event_name="tool.slow",
            )
        )
    (row,) = traced.rows("otel.log")
    ids = {"trace_id": f"{where.trace_id:032x}", "span_id": f"{where.span_id:016x}"}
    assert row.trace == ids
    assert row.data == {
        **ids,
        "time": "1790000000000000001",
        "observed": "1790000000000000002",
        "severity": 13,
        "severity_text": "WARNING",
        "body": {"text": "slow", "seconds": 2.0},
        "event_name": "tool.slow",
        "attributes": {"code": 7},
        "flags": int(where.trace_flags),
        "resource": {"attributes": {"service.name": "kiosk"}},
        "scope": {"name": "agent", "version": "2.0"},
    }


def test_a_record_belongs_to_the_current_conversation_or_to_the_one_it_names(
    traced: Traced, logs: Logs
) -> None:
    """Agent and user are those of the conversation."""
    with traced.tracker.conversation("agent_1", user_id="user_7") as c:
        logs.logger().emit(LogRecord(body="inside"))
        logs.logger().emit(LogRecord(body="named", attributes={"session.id": "s-1"}))
    logs.logger().emit(LogRecord(body="later", attributes={"session.id": c.session_id}))
    found = [(row.session_id, row.agent_id, row.user_id) for row in traced.rows("otel.log")]
    assert found == [
        (c.session_id, "agent_1", "user_7"),
        ("s-1", None, None),
        (c.session_id, "agent_1", "user_7"),
    ]


def test_records_below_the_level_are_passed_over(traced: Traced) -> None:
    """One without a severity is stored."""
    logs = Logs(traced, level=13)
    for severity in (SeverityNumber.INFO, SeverityNumber.WARN, None):
        logs.logger().emit(LogRecord(body=str(severity), severity_number=severity))
    bodies = [row.data["body"] for row in traced.rows("otel.log")]
    assert bodies == [str(SeverityNumber.WARN), "None"]
    logs.provider.shutdown()


@pytest.mark.parametrize("severity", [13, 99, True, "WARN", 2.5, b"x"], ids=str)
def test_a_severity_that_is_none_of_opentelemetrys_raises_nothing(
    traced: Traced, severity: Any
) -> None:
    """Nobody checks it; a plain number is one, and what is none is left out."""
    logs = Logs(traced, level=13)
    low: Any = 9
    logs.logger().emit(LogRecord(body="odd", severity_number=severity))
    logs.logger().emit(LogRecord(body="low", severity_number=low))
    (row,) = traced.rows("otel.log")
    assert row.data.get("severity") == (severity if type(severity) is int else None)
    assert traced.tracker.health().otel_dropped == 0
    logs.provider.shutdown()


@pytest.mark.parametrize(
    "argument",
    [{"level": "INFO"}, {"level": SeverityNumber.INFO}, {"flush_uploads": "no"}],
    ids=str,
)
def test_a_wrong_argument_raises_at_once_and_not_in_the_application(
    traced: Traced, argument: Any
) -> None:
    """Or each log record would raise where it is logged."""
    with pytest.raises(ValidationError, match=f"{next(iter(argument))}: is "):
        OutboxLogRecordProcessor(traced.tracker, **argument)


@pytest.mark.parametrize("name", ["started", "conversation", "flush_uploads", "nest"])
def test_a_switch_of_the_span_processor_is_true_or_false(traced: Traced, name: str) -> None:
    """A text such as "no" would be taken for True."""
    given: Any = {name: "no"}
    with pytest.raises(ValidationError, match=f"{name}: is "):
        OutboxSpanProcessor(traced.tracker, **given)


def test_the_trackers_own_records_are_passed_over(traced: Traced, logs: Logs) -> None:
    """Or each failure would log another event, which fails."""
    for name in ("tracker", "tracker.cli", "tracker_of_mine"):
        logs.logger(name).emit(LogRecord(body=name))
    assert [row.data["body"] for row in traced.rows("otel.log")] == ["tracker_of_mine"]


def test_odd_records_are_stored_and_secrets_masked(traced: Traced, logs: Logs) -> None:
    """A body of any type, without end even."""
    endless: dict[str, Any] = {"token": OPENAI}
    endless["again"] = endless
    for body in (endless, b"\xff", "\ud800", 2**70, object, f"use {OPENAI}", "x" * (2 << 20)):
        logs.logger().emit(LogRecord(body=body))  # type: ignore[arg-type]  # nobody checks it
    found = [row.data["body"] for row in traced.rows("otel.log")]
    assert len(found) == 7
    assert "aB3aB3" not in repr(found)
    assert found[1] == {"@bytes": "/w=="}
    assert found[6].endswith("characters]")
    assert traced.tracker.health().otel_dropped == 0


def test_without_capture_a_body_is_a_size(make_traced: MakeTraced) -> None:
    """Its attributes are reduced like those of a span."""
    traced = make_traced(capture_content=False)
    logs = Logs(traced)
    logs.logger().emit(
        LogRecord(body="the whole prompt", attributes={"code": 7, "gen_ai.prompt": "the prompt"})
    )
    (row,) = traced.rows("otel.log")
    assert row.data["body"] == "[not captured: 16 characters]"
    assert row.data["attributes"] == {"code": 7, "gen_ai.prompt": "[not captured: 10 characters]"}
    logs.provider.shutdown()


def test_records_after_the_end_cost_the_application_nothing(
    traced: Traced, logs: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted and logged once."""
    caplog.set_level(logging.ERROR)
    logs.processor.shutdown()
    logger = logs.logger()
    for _ in range(3):
        logger.emit(LogRecord(body="x"))
    assert traced.tracker.health().otel_dropped == 3
    assert caplog.text.count("is not stored") == 1
    assert logs.processor.force_flush()


@pytest.mark.filterwarnings("ignore:`LoggingHandler`")  # its successor is in another package
def test_own_lines_never_wait_for_a_handler_that_leads_to_the_outbox(
    traced: Traced, logs: Logs
) -> None:
    """Its lock is held while a record is stored: whoever stores would wait for himself."""
    handler = LoggingHandler(logger_provider=logs.provider)
    own = [
        partial(logging.getLogger("tracker").warning, "a line of the tracker"),
        partial(own_work.run, logging.getLogger("application").warning, "on its behalf"),
    ]
    logging.root.addHandler(handler)
    try:
        logging.getLogger("application").warning("the application's")
        with handler.lock or nullcontext():
            threads = [threading.Thread(target=each, daemon=True) for each in own]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert not any(thread.is_alive() for thread in threads)
    finally:
        logging.root.removeHandler(handler)
    assert [row.data["body"] for row in traced.rows("otel.log")] == ["the application's"]
