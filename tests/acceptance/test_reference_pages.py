"""The tables of the pages are complete: event types, tables and views, commands, routes."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tests.support.conversations import ROOT
from tests.support.pages import IS_CHECKOUT, Page
from tracker import Tracker, TrackerHandler
from tracker.cli.main import cli
from tracker.collector.app import create_app
from tracker.collector.settings import Settings
from tracker.collector.store import Store
from tracker.events import INTEGRITY_KEY_CHANGED, VOCABULARY, make_event
from tracker.log_handler import LOG_RECORDED
from tracker.otel import OutboxLogRecordProcessor, OutboxSpanProcessor
from tracker.outbox.maintenance.retention import discard_oldest
from tracker.outbox.outbox import Outbox
from tracker.outbox.schema import tables
from tracker.testing import RecordingDestination
from tracker.trackers.observe import FUNCTION_OBSERVED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer

pytestmark = pytest.mark.skipif(not IS_CHECKOUT, reason="these pages are not in the wheel")

PROTOCOL = Page(ROOT / "tracker" / "sync" / "PROTOCOL.md")
OUTBOX = Page(ROOT / "tracker" / "outbox" / "README.md")
COMMANDS = Page(ROOT / "tracker" / "cli" / "README.md")
COLLECTOR = Page(ROOT / "tracker" / "collector" / "README.md")


def rows(section: str) -> dict[str, list[str]]:
    """Return a table's rows, by the names that the first cell holds; each row's other cells."""
    found = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            first, *others = (cell.strip() for cell in line.strip("|").split("|"))
            for name in re.findall(r"`([^`]+)`", first):
                found[name] = others
    return found


def log_every_type(tracker: Tracker) -> None:
    """Log an event of each type, with every field that it can have."""
    spoken = tracker.performance
    more: dict[str, Any] = {"metadata": {"lang": "en"}}
    session = spoken.start_conversation("agent", user_id="user", run_id="run", **more)
    spoken.log_message(
        session, "agent", "Hi", response_time_ms=1, tokens_used=1, model="gpt-4o", **more
    )
    spoken.log_tool_call(
        session, "find", {"id": 7}, result=1, error="none", duration_ms=1, call_id="call"
    )
    spoken.record_failed_session(session, exception=TimeoutError("model"), **more)
    spoken.resume_conversation(session, **more)
    spoken.end_conversation(session, 3.5, outcome="resolved", user_feedback="good", **more)
    spoken.record_feedback(session, score=4, comment="good", source="reviewer")
    listed = {"role": "tool", "tool_call_id": "c", "name": "find", "content": "sent"}
    spoken.log_messages(session, [{"role": "user", "name": "Ada", "content": "Hi"}, listed])
    spoken.record_score("helpful", 4, event_id="e", comment="good", source="reviewer")
    spoken.record_score("helpful", 4, trace_id="1" * 32)
    tracker.llm.record_usage(
        "openai", "gpt-4o", 9, 1, latency_ms=1, time_to_first_token_ms=1, cached_tokens=1,
        cache_write_tokens=1, cost_usd=0.1, **more,
    )  # fmt: skip
    agents = tracker.operations
    agents.register_agent("agent", name="Desk", version="2", capabilities=["talk"], **more)
    agents.update_agent_status("agent", "idle", **more)
    agents.update_agent_status("agent", "busy", **more)
    agents.log_activity("agent", "indexed", duration_ms=1, details=[1])
    agents.heartbeat("agent", **more)
    tracker.security.report_event("access_denied", "low", details={"path": "/"})
    tracker.compliance.record_audit(
        "exported", "ops", policy="p", legal_basis="consent", scope="gdpr", details=1
    )
    tracker.compliance.acknowledge("p", "user", "because")
    tracker.compliance.erase_subject("nobody", reason="asked")


def check_digests(events: list[dict[str, Any]]) -> None:
    """The page's own functions give the digest and the chain of each event."""
    shown: dict[str, Any] = {}
    exec(PROTOCOL.code("python")[0], shown)  # noqa: S102 - that is the test
    chain = "0" * 64
    for event in events:
        assert shown["digest"](event) == event["digest"]
        chain = shown["chain"](chain, event["digest"])
        assert chain == event["chain"]


def log_what_is_gathered(tracker: Tracker) -> None:
    @tracker.performance.observe
    def outer(number: int) -> int:
        inner()
        return number

    @tracker.performance.observe
    def inner() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        outer(1)
    span = tracker.span("step", input=1, attributes={"a": 1})
    span.output = 1
    with pytest.raises(ValueError, match="no"), span:
        inner()
    logger = logging.getLogger("pages")
    handler = TrackerHandler(tracker)
    logger.addHandler(handler)
    try:
        logger.error("it failed", exc_info=ValueError("no"), extra={"door": 7})
    finally:
        logger.removeHandler(handler)


def log_what_comes_in(tracker: Tracker) -> None:
    """Log a span and a log record of OpenTelemetry, with every field that they can have."""
    remote = SpanContext(
        1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("a", "b")])
    )
    spans, logs = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    spans.add_span_processor(OutboxSpanProcessor(tracker, started=True))
    logs.add_log_record_processor(OutboxLogRecordProcessor(tracker))
    otel = spans.get_tracer("library", "1.0")
    within = set_span_in_context(NonRecordingSpan(remote))
    links = [Link(remote, {"a": 1})] * 200
    span = otel.start_span("step", within, attributes={"a": 1}, links=links)
    for number in range(200):
        span.set_attribute(f"a{number}", number)
        span.add_event("token", {"n": number})
    span.set_status(Status(StatusCode.ERROR, "too slow"))
    span.end()
    logs.get_logger("agent").emit(
        LogRecord(
            timestamp=1,
            context=within,
            severity_number=SeverityNumber.WARN,
            severity_text="WARNING",
            body="slow",
            attributes={f"a{number}": "x" for number in range(128)} | {"long": "x" * (2 << 20)},
            event_name="tool.slow",
        )
    )
    spans.shutdown()


@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")  # that is meant here
def test_every_event_type_is_described_with_its_fields(config: MakeConfig) -> None:
    """The protocol's page names all types, and for each the very fields that events carry."""
    described = rows(PROTOCOL.section("Event types"))
    assert set(described) >= {*VOCABULARY, LOG_RECORDED, FUNCTION_OBSERVED}
    received = RecordingDestination()
    with Tracker(config(), destination=lambda: received) as tracker:
        log_every_type(tracker)
        log_what_is_gathered(tracker)
        log_what_comes_in(tracker)
        tracker.flush()
    check_digests(received.events)
    with closing(Outbox(config())) as outbox:
        outbox.append(make_event("thing.happened", {}))
        assert outbox.run(discard_oldest) == 1
        assert outbox.checkpoint(0)
    with Tracker(config(), destination=lambda: received) as tracker:
        tracker.flush()
    fields: dict[str, set[str]] = {}
    for event in received.events:
        fields.setdefault(event["type"], set()).update(event["data"])
    assert set(fields) >= VOCABULARY - {INTEGRITY_KEY_CHANGED}  # which no tracker logs
    for name, given in fields.items():
        said = set(re.findall(r"`(\w+)\??`", described[name][1]))
        assert given <= said, f"{name} has {given - said}, which the page does not name"


def test_optional_fields_are_marked(config: MakeConfig) -> None:
    """What a call with required arguments alone leaves out is marked with a question mark."""
    described = rows(PROTOCOL.section("Event types"))
    received = RecordingDestination()
    with Tracker(config(), destination=lambda: received) as tracker:
        session = tracker.performance.start_conversation("agent")
        tracker.performance.log_user_message(session, "Hi")
        tracker.performance.log_tool_call(session, "find", None)
        tracker.performance.record_failed_session(session, "it broke")
        tracker.performance.record_score("helpful", 4, session_id=session)
        tracker.security.report_event("access_denied", "low")
        tracker.compliance.record_audit("exported", "ops")
        tracker.compliance.acknowledge("p", "user")
        tracker.operations.heartbeat("agent")
        tracker.operations.register_agent("agent")
        tracker.operations.update_agent_status("agent", "busy")
        tracker.operations.log_activity("agent", "indexed")
        with tracker.span("step"):
            pass
        tracker.flush()
    for event in received.events:
        words = re.findall(r"`(\w+\??)`", described[event["type"]][1].replace("one of", "|"))
        for name in event["data"]:
            assert name in words, f"{event['type']} always has {name}"


def test_the_request_is_as_shown(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """A batch goes out with the headers and fields that the page shows, and gets its receipt."""
    [head] = PROTOCOL.code("http")
    body, receipt = (json.loads(text) for text in PROTOCOL.code("json"))
    with Tracker(config(base_url=scripted_server.url)) as tracker:
        tracker.operations.heartbeat("agent")
        assert tracker.flush().delivered == 1
    [request] = [each for each in scripted_server.requests if each.method == "POST"]
    assert head.startswith("POST {base_url}/v1/events\n")
    for line in head.splitlines()[1:]:
        name, value = line.lower().split(": ")
        assert name in request.headers
        if name.startswith("content-"):
            assert request.headers[name] == value
    assert set(request.json) == set(body)
    assert set(receipt) == {
        "protocol", "first_event_id", "last_event_id", "accepted", "duplicates", "rejected",
    }  # fmt: skip
    described = set(rows(PROTOCOL.section("An event")))
    assert set(request.events[0]) == described - {"context", "trace", "sealed"}


def test_the_tests_that_are_named_exist() -> None:
    """Each promise and each fault names its tests, and they are where the pages say."""
    promises = Page(ROOT / "tests" / "README.md").section("Promises and their tests")
    named = re.findall(r"`((?:unit|contract|acceptance|faults)/test_\w+)`", promises)
    faults = Page(ROOT / "tests" / "faults" / "README.md").section("Faults, tried")
    named += [f"faults/{name}" for name in re.findall(r"`(test_\w+)`", faults)]
    assert len(re.findall(r"^\| \d+\. ", promises, re.MULTILINE)) == 10
    for name in named:
        assert (ROOT / "tests" / f"{name}.py").exists(), name


def test_the_tables_and_views_are_described(config: MakeConfig) -> None:
    """The outbox's page names every table and view, and the very columns of each."""
    settings = config()
    Tracker(settings, destination=RecordingDestination).close()
    with sqlite3.connect(settings.outbox_path) as connection:
        columns = {
            name: {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql NOT NULL")
        }
    connection.close()
    described = rows(OUTBOX.section("Tables"))
    assert set(described) == set(tables.metadata.tables)
    for name, (cell,) in described.items():
        assert columns[name] - {"id"} <= words(cell), name
    views = rows(OUTBOX.section("Views"))
    common = words(OUTBOX.section("Views").splitlines()[1])
    assert set(views) == set(tables.VIEWS)
    for name, (what, cell) in views.items():
        assert columns[name] == common - words(what) | words(cell) - {"open", "ended", "failed"}, (
            name
        )


@pytest.mark.parametrize(
    ("page", "heading"),
    [("tracker/outbox/README.md", "The code"), ("tracker/README.md", "The house")],
)
def test_the_packages_are_described(page: str, heading: str) -> None:
    """A page about code names the very packages that are beside it."""
    packages = {file.parent.name for file in (ROOT / page).parent.glob("*/__init__.py")}
    named = {name.strip("/") for name in rows(Page(ROOT / page).section(heading)) if "/" in name}
    assert named == packages


def words(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_every_command_is_on_the_page() -> None:
    """The page of `tracker-sync` shows each of its commands."""
    context = click.Context(cli)
    shown = "\n".join(COMMANDS.lines())
    for name in set(cli.list_commands(context)) - {"demo"}:
        assert re.search(rf"^tracker-sync (--outbox \S+ )?{name}\b", shown, re.MULTILINE), name


def test_every_route_is_on_the_page_with_its_parameters(tmp_path: Path) -> None:
    """The collector's page names each route that reads, and each parameter of it."""
    store = Store(str(tmp_path / "collector.sqlite3"))
    try:
        description = create_app(store, Settings()).openapi()
    finally:
        store.close()
    described = rows(COLLECTOR.section("Reading"))
    received = rows(COLLECTOR.section("Programs that only have OpenTelemetry"))
    (sentence,) = re.findall(
        r"^Filters are .*?\.\s", COLLECTOR.section("Reading"), re.MULTILINE | re.DOTALL
    )
    filters = words(sentence)
    for path, methods in description["paths"].items():
        if "get" not in methods:
            assert f"POST {path}" in received, path
            continue
        assert path in described, path
        cell = described[path][0]
        named = words(cell) | (filters if "filters" in cell else set())
        parameters = {
            each["name"] for each in methods["get"].get("parameters", []) if each["in"] == "query"
        }
        assert parameters - {"limit", "client_id"} == named, path
