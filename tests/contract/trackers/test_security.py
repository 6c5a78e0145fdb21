"""`SecurityTracker`: reports, conversations left open, and the outbox's integrity."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tracker import AgentPerformanceTracker, TrackerClosedError, ValidationError
from tracker.testing import RecordingDestination
from tracker.trackers.security import KNOWN_KINDS, SEVERITIES, SecurityTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.queries.sessions import UnclosedSession


@pytest.fixture
def security(config: MakeConfig, destination: RecordingDestination) -> Iterator[SecurityTracker]:
    with SecurityTracker(config(), destination=lambda: destination) as tracker:
        yield tracker


@pytest.fixture
def performance(config: MakeConfig, security: SecurityTracker) -> Iterator[AgentPerformanceTracker]:
    with AgentPerformanceTracker(config()) as tracker:
        yield tracker


def reported(security: SecurityTracker, destination: RecordingDestination) -> list[dict[str, Any]]:
    security.flush()
    return [event for event in destination.events if event["type"] == "security.reported"]


def ids(found: list[UnclosedSession]) -> list[str]:
    return [session.session_id for session in found]


# --- reports ------------------------------------------------------------------------------------


def test_a_report_arrives_as_the_protocol_says(
    security: SecurityTracker,
    performance: AgentPerformanceTracker,
    destination: RecordingDestination,
) -> None:
    """With the conversation's agent and user, where the caller names none."""
    session = performance.start_conversation("agent-1", user_id="user-1")
    event_id = security.report_event(
        "prompt_injection", "high", session_id=session, agent_id="guard", details={"rule": 7}
    )
    (event,) = reported(security, destination)
    assert event["event_id"] == event_id
    assert event["data"] == {"kind": "prompt_injection", "severity": "high", "details": {"rule": 7}}
    assert (event["session_id"], event["agent_id"], event["user_id"]) == (
        session, "guard", "user-1",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*KNOWN_KINDS, "mine", "acme.rate-limit.v2"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_kinds_and_severities(kind: str, severity: str, config: MakeConfig) -> None:
    """The known ones, and words and dotted names of one's own; details may be left out."""
    with SecurityTracker(config(disabled=True)) as security:
        assert security.report_event(kind, severity)


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (("", "low"), "kind"),
        (("two words", "low"), "kind"),
        (("a..b", "low"), "kind"),
        ((5, "low"), "kind"),
        (("k", "urgent"), "severity"),
        (("k", None), "severity"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[Any, Any], argument: str, security: SecurityTracker
) -> None:
    """And nothing is stored."""
    with pytest.raises(ValidationError) as caught:
        security.report_event(*arguments)
    assert caught.value.argument == argument
    with pytest.raises(ValidationError, match="details"):
        security.report_event("k", "low", details={1, 2})
    assert security.verify_integrity().events == 0


def test_secrets_in_details_are_masked_and_not_reported_again(
    config: MakeConfig, destination: RecordingDestination
) -> None:
    """A report about a report would never end."""
    key = "ghp_" + "aB3dE5gH7" * 4
    with SecurityTracker(
        config(report_redactions=True), destination=lambda: destination
    ) as security:
        security.report_event("leak", "critical", details={"found": key})
        (event,) = reported(security, destination)
    assert event["data"]["details"] == {"found": "[secret:github_token:medium]"}
    assert event["data"]["redactions"] == {"github_token": 1}


# --- conversations left open --------------------------------------------------------------------


def test_unclosed_are_those_opened_and_not_closed_after(
    security: SecurityTracker, performance: AgentPerformanceTracker
) -> None:
    """Ended and failed ones are closed, until they are resumed; one without a start is open."""
    for session in ("open", "ended", "failed", "resumed", "twice"):
        performance.start_conversation("agent-1", session_id=session, user_id="user-1")
    performance.log_user_message("open", "anyone there?")
    performance.log_user_message("never started", "hello")
    performance.end_conversation("ended")
    performance.record_feedback("ended", score=1)
    performance.record_failed_session("failed", "broke")
    performance.end_conversation("resumed")
    performance.resume_conversation("resumed")
    performance.resume_conversation("twice")
    found = security.get_unclosed_sessions(older_than=0)
    assert ids(found) == ["open", "never started", "resumed", "twice"]
    assert (found[0].agent_id, found[0].user_id) == ("agent-1", "user-1")
    assert found[0].opened_at_ms <= found[0].last_event_ms


def test_older_than_looks_at_the_opening(
    security: SecurityTracker, performance: AgentPerformanceTracker, config: MakeConfig
) -> None:
    """Seconds or a timedelta; one hour if nothing is said."""
    for session in ("old", "young"):
        performance.start_conversation("agent-1", session_id=session)
    with sqlite3.connect(config().outbox_path) as connection:
        connection.execute(
            "UPDATE events SET timestamp_ms = timestamp_ms - 7200000 WHERE session_id = 'old'"
        )
    connection.close()
    assert ids(security.get_unclosed_sessions()) == ["old"]
    assert ids(security.get_unclosed_sessions(older_than=timedelta(hours=1))) == ["old"]
    assert ids(security.get_unclosed_sessions(older_than=0.0)) == ["old", "young"]
    assert ids(security.get_unclosed_sessions(older_than=7260)) == []
    assert ids(security.get_unclosed_sessions(older_than=1e308)) == []


@pytest.mark.parametrize("age", [-1, timedelta(seconds=-1), "1h", None, float("nan"), True])
def test_an_impossible_age_is_refused(age: Any, security: SecurityTracker) -> None:
    """The message names the argument."""
    for call in (security.get_unclosed_sessions, security.report_unclosed_sessions):
        with pytest.raises(ValidationError, match="older_than"):
            call(older_than=age)


def test_unclosed_sessions_are_reported_in_one_event(
    security: SecurityTracker,
    performance: AgentPerformanceTracker,
    destination: RecordingDestination,
) -> None:
    """Their number and their ids; nothing is logged if there are none."""
    assert security.report_unclosed_sessions(older_than=0) is None
    for session in ("a", "b"):
        performance.start_conversation("agent-1", session_id=session)
    event_id = security.report_unclosed_sessions(older_than=0, severity="medium")
    (event,) = reported(security, destination)
    assert event["event_id"] == event_id
    assert event["data"] == {
        "kind": "unclosed_sessions",
        "severity": "medium",
        "details": {"count": 2, "session_ids": ["a", "b"]},
    }


def test_a_report_names_as_many_as_fit(
    config: MakeConfig, destination: RecordingDestination
) -> None:
    """All are counted; an event has its bound."""
    settings = config(max_event_bytes=2048)
    with (
        SecurityTracker(settings, destination=lambda: destination) as security,
        AgentPerformanceTracker(settings) as performance,
    ):
        for number in range(100):
            performance.start_conversation("agent-1", session_id=f"session-{number:02}")
        security.report_unclosed_sessions(older_than=0)
        (event,) = reported(security, destination)
    details = event["data"]["details"]
    assert details["count"] == 100
    assert 10 <= len(details["session_ids"]) < 100
    assert details["session_ids"][0] == "session-00"


# --- integrity ----------------------------------------------------------------------------------


def test_integrity_of_what_was_stored(
    security: SecurityTracker, performance: AgentPerformanceTracker
) -> None:
    """Sound, until somebody writes to the file."""
    performance.start_conversation("agent-1")
    report = security.verify_integrity()
    assert report.ok
    assert (report.events, report.last_seq) == (1, 1)


@pytest.mark.parametrize(
    ("statement", "seq", "kind"),
    [
        ("UPDATE events SET data = '{}' WHERE seq = 3", 3, "digest"),
        ("UPDATE events SET chain = digest WHERE seq = 2", 2, "chain"),
        ("DELETE FROM events WHERE seq = 4", 4, "gap"),
    ],
)
def test_tampering_shows_where_it_was_done(
    security: SecurityTracker, tmp_path: Path, statement: str, seq: int, kind: str
) -> None:
    """A changed row, a broken chain, a missing row."""
    for _ in range(5):
        security.report_event("k", "low")
    security.flush()
    with sqlite3.connect(tmp_path / "outbox.sqlite3") as connection:
        connection.execute(statement)
    connection.close()
    report = security.verify_integrity()
    assert not report.ok
    assert (seq, kind) in [(problem.seq, problem.kind) for problem in report.problems]


def test_a_disabled_tracker_has_nothing_open_and_is_sound(config: MakeConfig) -> None:
    """Its outbox has no row."""
    with SecurityTracker(config(disabled=True)) as security:
        assert security.get_unclosed_sessions(older_than=0) == []
        assert security.report_unclosed_sessions() is None
        assert security.verify_integrity().ok


def test_a_closed_tracker_refuses(config: MakeConfig) -> None:
    """Every call, as of the other trackers."""
    security = SecurityTracker(config(), destination=RecordingDestination)
    security.close()
    for call in (
        lambda: security.report_event("k", "low"),
        security.get_unclosed_sessions,
        security.report_unclosed_sessions,
        security.verify_integrity,
    ):
        with pytest.raises(TrackerClosedError):
            call()
