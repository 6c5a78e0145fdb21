"""Redaction on the whole way: what is masked is nowhere, and the event is not lost."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.unit.redaction.redaction_corpus import samples
from tracker import AgentPerformanceTracker, OutboxError, Tracker, TrackerHandler
from tracker.client import Client
from tracker.delivery.words import one_line
from tracker.sync.destination import Delivery, Outcome, Rejection, Upload
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer
    from tracker.events import Event

KEY = "sk-proj-" + "aB3dE5gH7" * 6


def log_everywhere(tracker: AgentPerformanceTracker, text: str) -> None:
    """Log a text by every field that takes one, but for ids."""
    session = tracker.start_conversation("agent-1", metadata={"note": text})
    tracker.log_user_message(session, text, metadata={text: [{"deep": text}]})
    tracker.log_tool_call(session, "f", {"x": text}, result=[text], error=text)
    tracker.record_feedback(session, comment=text)
    tracker.end_conversation(session, 5, user_feedback=text)
    tracker.record_failed_session(session, exception=ValueError(text))


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_what_is_masked_is_nowhere(
    config: MakeConfig,
    tmp_path: Path,
    scripted_server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in the outbox, its WAL, the log, or what the server received."""
    corpus = [sample for sample in samples()[::5] if sample.secret is not None]
    assert len(corpus) > 50
    with caplog.at_level(logging.DEBUG):
        settings = config(base_url=scripted_server.url, durability="process")
        with AgentPerformanceTracker(settings) as tracker:
            for sample in corpus:
                log_everywhere(tracker, sample.text)
            written = on_disk(tmp_path)  # the WAL is still there
            assert tracker.flush().pending == 0
        written += on_disk(tmp_path)
    received = b"".join(request.body for request in scripted_server.requests)
    assert b"[secret:jwt:long]" in written
    assert b"[secret:jwt:long]" in received
    for sample in corpus:
        assert sample.secret is not None
        stored = json.dumps(sample.secret)[1:-1].encode()  # a key block's line ends are escaped
        assert stored not in written, sample.kind
        assert stored not in received, sample.kind
        assert sample.secret not in caplog.text, sample.kind


def events_of(settings: Any, text: str) -> list[dict[str, Any]]:
    destination = RecordingDestination()
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        tracker.log_user_message("s", text)
        tracker.log_user_message("s", "mere")
        tracker.flush()
    return destination.events


def test_hits_are_counted_in_the_event(config: MakeConfig) -> None:
    """By kind; an event without a hit has no such field."""
    first, second = events_of(config(), f"{KEY} and {KEY}")
    assert first["data"] == {
        "role": "user",
        "content": "[secret:openai_key:medium] and [secret:openai_key:medium]",
        "redactions": {"openai_key": 2},
    }
    assert "redactions" not in second["data"]


def test_a_report_follows_on_request(config: MakeConfig) -> None:
    """One per masked event, none about the report itself, and no word of it masked."""
    settings = config(report_redactions=True, redactors=[lambda text: text.replace("e", "3")])
    first, report, second, _ = events_of(settings, KEY)
    assert [first["type"], report["type"], second["type"]] == [
        "message.logged",
        "security.reported",
        "message.logged",
    ]
    assert report["session_id"] == "s"
    assert report["data"]["kind"] == "secret_detected"
    assert report["data"]["details"]["redactions"] == {"custom": 1, "openai_key": 1}
    assert second["data"] == {"role": "user", "content": "m3r3", "redactions": {"custom": 1}}


def test_a_report_says_which_event(config: MakeConfig) -> None:
    """Its kind, severity, and details."""
    first, report, _ = events_of(config(report_redactions=True), KEY)
    assert report["data"] == {
        "kind": "secret_detected",
        "severity": "high",
        "details": {
            "event_id": first["event_id"],
            "event_type": "message.logged",
            "redactions": {"openai_key": 1},
        },
    }


def test_a_report_that_fails_does_not_hide_the_event(
    config: MakeConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is stored by then: its id is returned, and the log says what is missing."""
    destination = RecordingDestination()
    with AgentPerformanceTracker(
        config(report_redactions=True, on_error="raise"), destination=lambda: destination
    ) as tracker:
        store = Client.record

        def fail_on_reports(client: Client, event: Event) -> None:
            if event.type == "security.reported":
                raise OutboxError("disk full")
            store(client, event)

        monkeypatch.setattr(Client, "record", fail_on_reports)
        event_id = tracker.log_user_message("s", KEY)
        tracker.flush()
    assert [event["event_id"] for event in destination.events] == [event_id]
    assert f"the redactions of event {event_id} were not reported: disk full" in caplog.text


def test_without_content_none_is_on_disk(config: MakeConfig, tmp_path: Path) -> None:
    """Only sizes, wherever text is taken."""
    with AgentPerformanceTracker(
        config(capture_content=False), destination=RecordingDestination
    ) as tracker:
        log_everywhere(tracker, "nobody should read this")
        written = on_disk(tmp_path)
    written += on_disk(tmp_path)
    assert b"[not captured: 23 characters]" in written
    # The one place of a text that stays: a key of metadata.
    assert written.replace(b'"nobody should read this":', b"").count(b"should read") == 0


def test_ids_are_left_alone(config: MakeConfig) -> None:
    """They find the events again."""
    destination = RecordingDestination()
    with AgentPerformanceTracker(config(), destination=lambda: destination) as tracker:
        tracker.start_conversation(KEY, user_id=KEY, session_id=KEY)
        tracker.flush()
    assert [destination.events[0][name] for name in ("agent_id", "user_id", "session_id")] == [
        KEY
    ] * 3


@dataclass
class Login:
    user: str
    password: str


def test_secrets_that_names_announce_are_nowhere(
    config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of arguments by parameter and tool calls, log records, metadata, details and errors."""
    destination = RecordingDestination()
    secret = "correct-horse"
    with Tracker(config(), destination=lambda: destination) as everything:
        tracker = everything.performance

        @tracker.observe()
        def login(user: str, password: str, form: Any, **more: str) -> dict[str, str]:
            return {"access_token": secret + "-9"}

        login("anna", secret, Login("anna", secret), api_key=secret)
        session = tracker.start_conversation("agent-1", metadata={"db": {"password": secret}})
        tracker.log_tool_call(session, "login", {"headers": [("Authorization", secret)]})
        tracker.log_user_message(session, f"it says password='{secret}'")
        with pytest.raises(ValueError, match="bad"), tracker.conversation("agent-2"):
            raise ValueError(f"bad login: password={secret}")
        everything.security.report_event("access_denied", "low", details={"secret": secret})
        logger = logging.getLogger("application")
        logger.addHandler(handler := TrackerHandler(tracker))
        try:
            logger.warning("sent %s", {"token": secret}, extra={"client_secret": secret})
        finally:
            logger.removeHandler(handler)
        everything.track("user.signed_in", {"user": "anna", "passphrase": secret})
        everything.flush()
        written = on_disk(tmp_path)
    assert secret.encode() not in written + on_disk(tmp_path)
    observed = next(e for e in destination.events if e["type"] == "function.observed")
    assert observed["data"]["arguments"]["password"] == "[secret:password]"
    assert observed["data"]["result"] == {"access_token": "[secret:access_token]"}
    assert sum("redactions" in event["data"] for event in destination.events) == 8


def test_a_server_that_repeats_the_key_puts_it_nowhere(
    config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not as it is, percent-encoded, or in base64: neither in the log nor in the outbox."""
    key = "own+key/4711=="
    forms = [key, quote(key, safe=""), b64encode(f"user:{key}".encode()).decode()]
    said = f"no such key: {' '.join(forms)} {'.' * 400}"
    asked: list[Upload] = []

    def answer(upload: Upload) -> Delivery:
        asked.append(upload)
        if len(asked) == 1:
            return Delivery(Outcome.UNAVAILABLE, one_line(said))
        rejected = [Rejection(upload.event_ids[0], one_line(said), one_line(said))]
        return Delivery(Outcome.DELIVERED, rejected=rejected)

    settings = config(api_key=key, backoff_base=0.01)
    destination = RecordingDestination(answer)
    with (
        caplog.at_level(logging.DEBUG),
        AgentPerformanceTracker(settings, destination=lambda: destination) as tracker,
    ):
        tracker.start_conversation("agent-1")
        assert tracker.flush(10).dead == 1
        written = on_disk(tmp_path)
    assert b"no such key: [secret:tracker_key:" in written
    for form in forms:
        assert form[:10] not in caplog.text
        assert form[:10].encode() not in written + on_disk(tmp_path)
