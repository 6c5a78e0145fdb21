"""Commands on an outbox that is uploaded to an OTLP receiver."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import call, call_json
from tests.support.otlp import PROBE, spans_in, success
from tests.support.server import ScriptedServer, answer
from tests.support.traced import traced
from tests.support.uploads import account_of
from tracker import Tracker
from tracker.outbox.store.ledger import Account
from tracker.sealed.form import RECEIPTS
from tracker.sealed.seal import Seal
from tracker.sealed.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig


@pytest.fixture
def settings(config: MakeConfig, scripted_server: ScriptedServer) -> APIConfig:
    """Of an outbox with two events that were delivered to a receiver."""
    scripted_server.otherwise = success()
    made = config(base_url=scripted_server.url, protocol="otlp", api_key=None)
    with Tracker(made) as tracker:
        tracker.track("cart.abandoned", {"items": 3})
        tracker.track("cart.restored")
        tracker.flush(10)
    return made


def on(settings: APIConfig, *arguments: str) -> Any:
    """Run a command on the outbox and return what it prints as JSON."""
    return call_json("--outbox", settings.outbox_path, *arguments)


def test_the_outbox_says_by_itself_where_it_is_sent(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """So a command that is given the file needs no setting to flush it, and no key."""
    with Tracker(settings) as tracker:
        tracker.track("cart.abandoned")
    before = len(scripted_server.requests)
    assert call("--outbox", settings.outbox_path, "resend", "--since", "1d").exit_code == 0
    flushed = call("--outbox", settings.outbox_path, "flush")
    assert flushed.exit_code == 0, flushed.output
    assert len(scripted_server.requests) > before
    assert account_of(settings) == Account(3, delivered=3)
    assert on(settings, "status")["base_url"] == f"otlp+{scripted_server.url}"


def test_the_protocol_of_the_file_beats_that_of_the_environment(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may have outboxes of both kinds, and one environment for all commands."""
    collected = config(base_url=scripted_server.url)
    with Tracker(collected) as tracker:
        tracker.track("cart.abandoned")
        tracker.flush(10)
    monkeypatch.setenv("SDK_PROTOCOL", "otlp")
    monkeypatch.setenv("SDK_API_KEY", "test-key")
    assert call("--outbox", collected.outbox_path, "resend", "--since", "1d").exit_code == 0
    flushed = call("--outbox", collected.outbox_path, "flush")
    assert flushed.exit_code == 0, flushed.output
    assert scripted_server.requests[-1].path == "/v1/events"


def test_config_shows_where_the_protocol_comes_from(settings: APIConfig) -> None:
    """From the outbox, as its base URL does; and no header."""
    shown = on(settings, "config")
    assert shown["protocol"] == {"value": "otlp", "source": "outbox", "name": ""}
    assert shown["otlp_headers"]["value"] is None


def test_resend_says_how_many_are_pending_again(settings: APIConfig) -> None:
    """Of a type, and of all."""
    assert on(settings, "resend", "--since", "1d", "--type", "cart.abandoned") == {
        "pending_again": 1
    }
    assert account_of(settings) == Account(2, delivered=1, pending=1)
    shown = call("--outbox", settings.outbox_path, "resend", "--since", "1d")
    assert "1 event pending again" in shown.stdout
    assert call("--outbox", settings.outbox_path, "resend").exit_code == 2, "--since is needed"


def test_doctor_sends_the_probe(settings: APIConfig, scripted_server: ScriptedServer) -> None:
    """The same as uploads do, so it is there once; a refusal is shown in the receiver's words."""
    found = {check["name"]: check for check in on(settings, "doctor")["checks"]}
    assert found["receiver"]["status"] == "ok"
    assert found["API key"]["status"] == "ok"
    assert [span.name for span in spans_in(scripted_server.requests[-1])] == [PROBE]
    scripted_server.otherwise = answer(422, {"detail": "x-experiment-id is missing"})
    refused = call("--outbox", settings.outbox_path, "doctor", "--json")
    assert refused.exit_code == 1
    found = {check["name"]: check for check in json.loads(refused.stdout)["checks"]}
    assert "x-experiment-id is missing" in found["receiver"]["message"]


def test_verify_has_nothing_to_compare_with(settings: APIConfig) -> None:
    """A receiver keeps neither seqs nor digests: that is said, not found missing."""
    assert call("--outbox", settings.outbox_path, "verify").exit_code == 0
    refused = call("--outbox", settings.outbox_path, "verify", "--against-collector")
    assert refused.exit_code == 2
    assert "keeps neither seqs nor digests" in refused.stderr


def test_nothing_is_carried_by_hand(settings: APIConfig, tmp_path: Path) -> None:
    """Without a key nothing would be sealed, and any file of receipts would mark events."""
    with Tracker(settings) as tracker:
        tracker.track("cart.abandoned")
        tracker.flush(10)
    assert call("--outbox", settings.outbox_path, "resend", "--since", "1d").exit_code == 0
    pending = account_of(settings).pending
    forged = tmp_path / "forged"
    with forged.open("wb") as file:
        header = {"client_id": "test-client", "base_url": settings.destination_url}
        Writer(file, RECEIPTS, [Seal.of("")], header).end({})
    for command in (("pack", "--output", tmp_path / "bundle"), ("receipts", forged)):
        refused = call("--outbox", settings.outbox_path, *command)
        assert (refused.exit_code, "only a collector takes events" in refused.stderr) == (2, True)
    assert not (tmp_path / "bundle").exists()
    assert account_of(settings).pending == pending > 0


def test_rebind_changes_the_protocol_too(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """From a receiver to a collector and back."""
    arguments = ("--outbox", settings.outbox_path, "rebind", "--base-url")
    collector = call(*arguments, scripted_server.url)
    assert collector.exit_code == 0
    assert f"was: client test-client, otlp+{scripted_server.url}" in collector.stdout
    assert on(settings, "status")["base_url"] == scripted_server.url
    back = call(*arguments, f"otlp+{scripted_server.url}")
    assert back.exit_code == 0
    with Tracker(settings) as tracker:  # it is this configuration's again
        assert tracker.flush(10).pending == 0


def test_a_span_that_never_ended_is_open(config: MakeConfig) -> None:
    """What was started is listed with `--open` until its end is there, whatever else is."""
    settings = config()
    with Tracker(settings) as tracker, traced(tracker, started=True) as otel:
        ended = otel.start_span("s1")
        otel.start_span("s2")
        ended.end()
        [left] = on(settings, "spans", "--open")
        assert left["data"]["name"] == "s2"
        assert "s2" in call("--outbox", settings.outbox_path, "spans", "--open").stdout
        assert [each["data"]["name"] for each in on(settings, "spans")] == ["s1"]
