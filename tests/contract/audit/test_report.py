"""Reports: what is recorded of what a text asks, in a page that shows events and runs nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sqlite3
import stat
import threading
import time
import tracemalloc
from contextlib import closing
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.support.cli import NOON_MS, an_event, call, fill, settle
from tests.support.traced import traced
from tracker import AsyncTracker, Tracker, TrackerClosedError, ValidationError, canonical
from tracker.audit import report_page
from tracker.audit.frameworks import FRAMEWORKS
from tracker.audit.records import KINDS, SIX_MONTHS_DAYS
from tracker.events import make_event
from tracker.outbox.outbox import Outbox
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker import APIConfig
    from tracker.audit.report import Report, ReportLine
    from tracker.events import Event

    Name = Literal["eu-ai-act", "iso-42001", "soc2"]

NAMES: tuple[Name, ...] = ("eu-ai-act", "iso-42001", "soc2")
HOUR_MS = 3_600_000
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><style>*{display:none}</style>",
    "&lt;b&gt;",
    "\u202egnorw",
    "a\x1b[31m\r\n\u2028\x9fc",
)


class Page(HTMLParser):
    """What a browser would make of a page: tags, their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.meta: list[dict[str, str | None]] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "meta":
            self.meta.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.shown += data


def report(config: APIConfig, path: Path, framework: Name = "eu-ai-act", **period: Any) -> Report:
    with Tracker(config, destination=RecordingDestination) as tracker:
        return tracker.compliance.report(framework, path, **period)


def of(made: Report, kind: str) -> ReportLine:
    """Return a report's first line of a kind."""
    return next(line for line in made.lines if line.kind == kind)


def at(hours: float, type: str, data: dict[str, Any] | None = None, **ids: Any) -> Event:
    return an_event(type, data=data or {"n": 1}, timestamp_ms=NOON_MS + int(hours * HOUR_MS), **ids)


# --- what is recorded ---------------------------------------------------------------------------


def test_every_kind_of_event_is_found_with_its_seqs_and_values(
    config: MakeConfig, tmp_path: Path
) -> None:
    """As a tracker logs them, by all its areas."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        with tracker.performance.conversation("agent_1", user_id="user_7") as c:  # 1
            c.user("Where is order 7?")
            c.tool("find_order", {"id": 7}, result="sent")
            c.agent("On its way.")
            c.end(outcome="resolved")  # 5
        tracker.performance.record_failed_session(c.session_id, exception=TimeoutError("no"))
        opened = tracker.performance.start_conversation("agent_1")  # 7
        tracker.llm.record_usage("openai", "gpt-4o", 9, 1)
        for version in ("1", "1", "2"):
            tracker.operations.register_agent("agent_1", version=version)  # 9 to 11
        tracker.operations.update_agent_status("agent_1", "busy")
        tracker.security.report_event("prompt_injection", "high")
        tracker.compliance.record_audit("verified", "ops-4")
        tracker.compliance.acknowledge("ai-disclosure-2", "user_7")  # 15
        tracker.performance.log_user_message(opened, "Are you there?")
        tracker.operations.register_agent("agent_1", version="2")
        tracker.operations.register_agent("agent_2", version="1")
        made = tracker.compliance.report("eu-ai-act", tmp_path / "report.html")
    versions = {"agent_1 1": 2, "agent_1 2": 2, "agent_2 1": 1}
    found = {
        line.kind: (line.record.count, line.record.ranges, dict(line.record.values))
        for line in made.lines
        if line.recorded
    }
    assert found == {
        "events": (18, ((1, 18),), {}),
        "began": (2, ((1, 1), (7, 7)), {"agent_1": 2}),
        "ended": (2, ((5, 6),), {"resolved": 1, "TimeoutError": 1}),
        "open": (1, ((7, 7),), {opened: 1}),
        "messages": (3, ((2, 2), (4, 4), (16, 16)), {"user": 2, "agent": 1}),
        "tools": (1, ((3, 3),), {"find_order": 1}),
        "models": (1, ((8, 8),), {"gpt-4o": 1}),
        "failures": (1, ((6, 6),), {"TimeoutError": 1}),
        "security": (1, ((13, 13),), {"prompt_injection, high": 1}),
        "registered": (5, ((9, 11), (17, 18)), versions),
        "versions": (1, ((11, 11),), {"agent_1 2": 1}),
        "status": (1, ((12, 12),), {"busy": 1}),
        "actors": (1, ((14, 14),), {"ops-4": 1}),
        "acknowledged": (1, ((15, 15),), {"user_7": 1}),
    }
    assert made.integrity.proven
    assert [(use.seq, use.end_seq) for use in made.uses] == [(7, None), (1, 5)]
    page = Page((tmp_path / "report.html").read_text())
    assert f"{opened}: 1" in page.shown
    assert "no end is stored" in page.shown
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o600


def test_spans_of_models_and_tools_are_recorded(config: MakeConfig) -> None:
    """What an instrumentor tells of, by either convention; not the agent around them."""
    told = [
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o"},
        {"gen_ai.operation.name": "chat", "gen_ai.response.model": "gpt-4o-2024"},
        {"openinference.span.kind": "LLM", "llm.model_name": "claude"},
        {"openinference.span.kind": "TOOL", "tool.name": "find_order"},
        {"note": "none of these"},
    ]
    with Tracker(config(), destination=RecordingDestination) as tracker:
        with traced(tracker) as otel:
            for attributes in told:
                otel.start_span("step", attributes=attributes).end()
        made = tracker.compliance.report("eu-ai-act", config().outbox_path.parent / "report.html")
    found = {line.kind: line.record for line in made.lines if line.recorded}
    models, tools = found["models"], found["tools"]
    assert (models.ranges, dict(models.values)) == (((2, 3),), {"gpt-4o-2024": 1, "claude": 1})
    assert (tools.ranges, dict(tools.values)) == (((4, 4),), {"find_order": 1})


@pytest.mark.parametrize("framework", NAMES)
def test_an_empty_outbox_has_nothing_recorded(
    config: MakeConfig, tmp_path: Path, framework: Name
) -> None:
    """And the page says so of each line, and never that anything is met."""
    path = tmp_path / "report.html"
    made = report(config(), path, framework)
    assert not any(line.recorded for line in made.lines)
    assert (made.first_at_ms, made.uses, made.retention) == (None, (), None)
    page = Page(path.read_text())
    assert page.shown.count("not recorded") == len(made.lines)
    assert FRAMEWORKS[framework].title in page.shown
    assert not re.search(r"\b(compliant|conforms?|fulfil|satisf|passed)", page.shown, re.IGNORECASE)
    assert "a head proves what was logged, not that it is true" in page.shown
    for line in FRAMEWORKS[framework].lines:
        assert f"{line.provision}: {line.asks}" in page.shown


def test_only_a_kind_of_events_that_is_counted_is_asked_for() -> None:
    """Every line of every text is one that records can answer, and every record is asked for."""
    asked = {kind for each in FRAMEWORKS.values() for line in each.lines for kind in line.kinds}
    assert asked == set(KINDS)


def test_a_period_counts_what_is_logged_in_it(config: MakeConfig, tmp_path: Path) -> None:
    """From its start until just before its end; a version before it is still the one before."""
    fill(
        config(),
        [
            at(0, "agent.registered", {"version": "1"}),
            at(1, "conversation.started"),
            at(2, "agent.registered", {"version": "2"}),
            at(3, "conversation.ended"),
            at(4, "conversation.started"),
        ],
    )
    since, until = NOON_MS + HOUR_MS, NOON_MS + 3 * HOUR_MS
    made = report(config(), tmp_path / "report.html", since=since, until=until)
    assert of(made, "events").record.ranges == ((2, 3),)
    assert of(made, "versions").record.ranges == ((3, 3),)
    assert (made.first_at_ms, made.last_at_ms) == (since, NOON_MS + 2 * HOUR_MS)
    assert [(use.seq, use.end_seq) for use in made.uses] == [(2, 4)], "an end may be later"
    assert not of(made, "ended").recorded
    assert "from 2026-11-01 13:00:00.000 to before 2026-11-01 15:00:00.000" in (
        Page((tmp_path / "report.html").read_text()).shown
    )
    none = report(config(), tmp_path / "none.html", since=10**30)
    assert not of(none, "events").recorded


def test_what_an_erasure_took_is_neither_named_nor_hidden(
    config: MakeConfig, tmp_path: Path
) -> None:
    """Such events are counted, and that they are erased is said; their values are gone."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        tracker.compliance.record_audit("verified", "jane@example.com", user_id="jane")
        tracker.compliance.record_audit("verified", "ops-4")
        tracker.compliance.erase_subject("jane")
        made = tracker.compliance.report("soc2", tmp_path / "report.html")
    actors = of(made, "actors").record
    assert (actors.count, actors.erased, actors.values) == (2, 1, {"ops-4": 1})
    assert of(made, "erased").record.ranges == ((1, 1),)
    assert of(made, "erasures").record.ranges == ((3, 3),)
    assert made.integrity.proven
    page = (tmp_path / "report.html").read_text()
    assert "2, 1 of them erased" in page
    assert "jane" not in page


def test_releases_and_heads_are_counted(config: MakeConfig, tmp_path: Path) -> None:
    """Of events with a context, and heads over the record, wherever they come from."""
    context = canonical.encode({"environment": "test", "release": "2.1"})
    fill(
        config(),
        [
            make_event("app.noted", {}, context=context),
            make_event("app.noted", {}, context=canonical.encode({"release": 7})),
            an_event("integrity.checkpoint", data={"note": "n"}),
            an_event("integrity.key_changed", data={"note": "n"}),
            an_event("events.discarded", data={"reason": "size_policy", "ranges": [[1, 2]]}),
        ],
    )
    made = report(config(), tmp_path / "report.html")
    assert dict(of(made, "releases").record.values) == {"2.1": 1}
    assert of(made, "checkpoints").record.ranges == ((3, 3),)
    assert of(made, "keys").record.ranges == ((4, 4),)
    assert dict(of(made, "discarded").record.values) == {"size_policy": 1}


# --- retention ----------------------------------------------------------------------------------


def age(path: Path, days: float) -> None:
    """Make what is delivered older, as if so many days had passed."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE events SET delivered_at_ms = delivered_at_ms - ?", (int(days * 86_400_000),)
        )


def test_the_retention_that_was_applied_is_held_against_six_months(
    config: MakeConfig, tmp_path: Path
) -> None:
    """With the seqs that went, and the rules under which less than six months are kept."""
    fill(config(), 5)
    settle(config(), 3)
    age(config().outbox_path, 8)
    outbox = Outbox(config())
    assert outbox.prune() == 3
    outbox.close()
    made = report(config(), tmp_path / "report.html")
    assert made.retention is not None
    assert made.retention.days == {"*": 7, "compliance.*": 3_650}
    assert made.retention.short == ("*",)
    assert of(made, "removed").record.ranges == ((1, 3),)
    assert of(made, "events").record.ranges == ((4, 6),)
    shown = Page((tmp_path / "report.html").read_text()).shown
    assert "as long as seq 6 says: every other type: 7 days, compliance.*: 3650 days" in shown
    assert f"For less than six months ({SIX_MONTHS_DAYS} days): every other type" in shown


def test_the_preset_is_more_than_six_months(config: MakeConfig, tmp_path: Path) -> None:
    """Once a round has removed something, the report says by which rules."""
    settings = config(retention="eu_ai_act")
    fill(settings, 2)
    settle(settings, 1)
    age(settings.outbox_path, 191)
    outbox = Outbox(settings)
    assert outbox.prune() == 1
    outbox.close()
    made = report(settings, tmp_path / "report.html")
    assert made.retention is not None
    assert made.retention.short == ()
    assert "None of that is less than six months" in (tmp_path / "report.html").read_text()


def test_events_of_six_months_ago_are_recorded_as_such(config: MakeConfig, tmp_path: Path) -> None:
    """By the time at which they were logged."""
    now_ms = time.time_ns() // 1_000_000
    old_ms = now_ms - SIX_MONTHS_DAYS * 86_400_000 - 1_000
    fill(config(), [an_event(timestamp_ms=old_ms), an_event(timestamp_ms=old_ms + HOUR_MS)])
    made = report(config(), tmp_path / "report.html")
    assert of(made, "six_months").record.ranges == ((1, 1),)


# --- the page -----------------------------------------------------------------------------------


def test_what_events_say_is_text_in_the_page(config: MakeConfig, tmp_path: Path) -> None:
    """Tags, attributes, and characters that end lines, hide or turn others."""
    path = tmp_path / "report.html"
    with Tracker(config(client_id="<i>c</i>"), destination=RecordingDestination) as tracker:
        for text in HOSTILE:
            tracker.performance.start_conversation(text, session_id=text, user_id=text)
            tracker.performance.log_tool_call(text, text, None)
            tracker.performance.end_conversation(text, outcome=text)
            tracker.operations.register_agent(text, version="1")
            tracker.operations.register_agent(text, version=text)
            tracker.llm.record_usage(text, text, 1, 1, cost_usd=0)
            tracker.compliance.record_audit(text, text)
            tracker.compliance.acknowledge(text, text)
            tracker.performance.record_feedback(text, score=1, source=text)
        tracker.compliance.report("eu-ai-act", path)
    text = path.read_text()
    page = Page(text)
    structure = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li"}
    assert page.tags <= structure | {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "class"}
    assert "<script>alert(1)</script>: 1" in page.shown
    assert "\\u202egnorw" in page.shown
    assert "a\\x1b[31m\\r\\n\\u2028\\x9fc: 1" in page.shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069]", text)


def test_the_page_allows_nothing_but_its_own_style(config: MakeConfig, tmp_path: Path) -> None:
    """By a policy that names the style's digest; no address of anything stands in it."""
    path = tmp_path / "report.html"
    report(config(), path)
    text = path.read_text()
    [style] = re.findall(r"<style>(.*?)</style>", text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [each["content"] for each in Page(text).meta if "http-equiv" in each]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith(f"style-src 'sha256-{digest}'")
    assert "@media print" in style
    assert not re.search(r"https?:|//|url\(|@import|href|src=", text)


def test_what_was_changed_by_hand_shows(config: MakeConfig, tmp_path: Path) -> None:
    """The result of the check stands in the page, with the place."""
    fill(config(), 3)
    with closing(sqlite3.connect(config().outbox_path)) as connection, connection:
        connection.execute("UPDATE events SET agent_id = '<b>other</b>' WHERE seq = 2")
    made = report(config(), tmp_path / "report.html")
    assert not made.integrity.ok
    shown = Page((tmp_path / "report.html").read_text()).shown
    assert "Not sound; problems found: 1." in shown
    assert "seq 2: digest: " in shown


def test_rows_of_any_content_are_reported(config: MakeConfig, tmp_path: Path) -> None:
    """What a damaged or forged file says is counted as far as it says anything, and escaped."""
    fill(
        config(),
        [
            at(0, "conversation.started"),
            at(1, "retention.applied", {"days": {"*": 1}}),
            at(2, "agent.registered", {"version": "1"}),
            at(3, "compliance.audited", {"actor": "ops"}),
            at(4, "agent.registered", {"version": "2"}),
            at(5, "agent.registered", {"version": "3"}),
        ],
    )
    with closing(sqlite3.connect(config().outbox_path)) as connection, connection:
        for change in (
            "timestamp_ms = 'soon', session_id = x'ff', context = '[1]' WHERE seq = 1",
            """data = '{"days":{"<b>":"x","*":true}}' WHERE seq = 2""",
            "data = x'c328', agent_id = 7 WHERE seq = 3",
            "data = '{\"actor\":7', context = 'no JSON', timestamp_ms = 2.5 WHERE seq = 4",
            "timestamp_ms = 'late' WHERE seq = 6",
        ):
            connection.execute(f"UPDATE events SET {change}")  # noqa: S608 - our own
        connection.execute("INSERT INTO gaps VALUES (9, 'x', 'y', NULL), (12, 10, 'y', NULL)")
    made = report(config(), tmp_path / "report.html")
    assert of(made, "events").record.count == 6
    assert of(made, "versions").record.ranges == ((6, 6),)
    assert not of(report(config(), tmp_path / "since.html", since=1), "versions").recorded
    assert of(made, "actors").record.values == {}
    assert not of(made, "removed").recorded
    assert not made.integrity.ok
    assert "<b>" not in (tmp_path / "report.html").read_text()


# --- reading ------------------------------------------------------------------------------------


def test_it_is_one_snapshot(config: MakeConfig, tmp_path: Path) -> None:
    """All lines are of one moment, however much is logged meanwhile."""
    done = threading.Event()

    def log(tracker: Tracker) -> None:
        while not done.is_set():
            tracker.operations.heartbeat("agent_1")

    with Tracker(config(), destination=RecordingDestination) as tracker:
        thread = threading.Thread(target=log, args=(tracker,))
        thread.start()
        try:
            made = [
                tracker.compliance.report("soc2", tmp_path / f"{number}.html")
                for number in range(10)
            ]
        finally:
            done.set()
            thread.join()
    for each in made:
        beats = of(each, "heartbeats").record.count + of(each, "checkpoints").record.count
        assert of(each, "events").record.count == beats == each.integrity.events
        assert each.account.accepted == each.integrity.last_seq == beats
    assert of(made[-1], "events").record.count > of(made[0], "events").record.count


def test_memory_does_not_grow_with_the_events(config: MakeConfig, tmp_path: Path) -> None:
    """Ten times as many events, each with a value of its own, take no more than a few more kB."""

    def log(events: int) -> None:
        outbox = Outbox(config(durability="process"))
        for number in range(0, events, 500):
            outbox.append_all(
                [
                    an_event(
                        ("compliance.audited", "message.logged", "conversation.started")[each % 3],
                        data={"actor": f"actor {number + each}", "role": "user"},
                        session_id=f"session {number + each}",
                    )
                    for each in range(500)
                ]
            )
        outbox.close()

    def peak() -> int:
        outbox = Outbox(config())
        tracemalloc.start()
        try:
            with outbox.snapshot() as connection:
                report_page.export(connection, "eu-ai-act", tmp_path / f"{time.time_ns()}.html")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            outbox.close()

    log(2_000)
    peak()  # imports
    small = peak()
    log(18_000)
    assert peak() < small + 1_000_000


# --- calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"framework": "gdpr"}, "framework"),
        ({"framework": ["soc2"]}, "framework"),
        ({"path": ""}, "path"),
        ({"path": "/no/such/folder/x"}, "path"),
        ({"path": "a\0b"}, "path"),
        ({"since": "yesterday"}, "since"),
        ({"since": 2, "until": 1}, "until"),
    ],
)
def test_wrong_arguments_are_named(
    config: MakeConfig, tmp_path: Path, arguments: dict[str, Any], argument: str
) -> None:
    """And no file is made, nor is one replaced."""
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with Tracker(config(), destination=RecordingDestination) as tracker:
        given: dict[str, Any] = {"framework": "soc2", "path": tmp_path / "x", **arguments}
        with pytest.raises(ValidationError) as caught:
            tracker.compliance.report(**given)
        assert caught.value.argument == argument
        with pytest.raises(ValidationError, match="which exists; give the path of a new file"):
            tracker.compliance.report("soc2", taken)
    assert not (tmp_path / "x").exists()
    assert taken.read_text() == "precious"
    with pytest.raises(TrackerClosedError):
        tracker.compliance.report("soc2", tmp_path / "x")


def test_it_can_be_awaited(config: MakeConfig, tmp_path: Path) -> None:
    """With the same result, but for the moment."""

    async def main() -> Report:
        async with AsyncTracker(config(), destination=RecordingDestination) as tracker:
            await tracker.operations.heartbeat("agent_1")
            return await tracker.compliance.report("soc2", tmp_path / "awaited.html")

    made = asyncio.run(main())
    again = report(config(), tmp_path / "report.html", "soc2")
    assert made.lines == again.lines
    assert (tmp_path / "awaited.html").exists()


def test_a_disabled_tracker_reports_that_nothing_is_recorded(
    config: MakeConfig, tmp_path: Path
) -> None:
    """As all its reads do."""
    made = report(config(disabled=True), tmp_path / "report.html")
    assert not any(line.recorded for line in made.lines)


def test_the_chain_key_of_the_tracker_proves(config: MakeConfig, tmp_path: Path) -> None:
    """Without it, as in the command here, the page says that not everything could be checked."""
    settings = config(chain_key="0123456789abcdef")
    fill(settings, 2)
    assert report(settings, tmp_path / "report.html").integrity.proven
    shown = json.loads(
        call("--outbox", settings.outbox_path, "report", "--framework", "soc2", "--json").stdout
    )
    assert (shown["integrity"]["ok"], shown["integrity"]["proven"]) == (True, False)
