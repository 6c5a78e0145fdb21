"""`tracker-sync verify --against-collector`, with a collector that runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.outbox.test_chain_key import rewrite
from tests.support.cli import call, call_json
from tests.support.collector import EventChain
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorProcess
    from tracker import APIConfig


@pytest.fixture
def delivered(
    config: MakeConfig, collector: CollectorProcess, monkeypatch: pytest.MonkeyPatch
) -> APIConfig:
    """Five events that the collector has."""
    settings = config(base_url=collector.url, api_key=collector.api_key)
    with AgentPerformanceTracker(settings) as tracker:
        for _ in range(5):
            tracker.track("test.noted", {"content": "true"})
        assert tracker.flush().delivered == 5
    monkeypatch.setenv("SDK_API_KEY", collector.api_key)
    return settings


def verify(config: APIConfig, *options: str) -> Any:
    return call("--outbox", config.outbox_path, "verify", *options)


def test_a_chain_that_was_rewritten_as_a_whole_shows(delivered: APIConfig) -> None:
    """By itself the outbox is sound again; the collector knows better."""
    result = verify(delivered, "--against-collector")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound")
    assert "compared with 5 events at the collector" in result.stdout
    rewrite(delivered.outbox_path)
    assert verify(delivered).exit_code == 0
    result = verify(delivered, "--against-collector")
    assert result.exit_code == 1
    assert "seq 2: collector: event" in result.stdout
    found = call_json("--outbox", delivered.outbox_path, "verify", "--against-collector")
    assert [problem["seq"] for problem in found["problems"]] == [2, 3, 4, 5]
    assert found["collector_events"] == 5


@pytest.mark.slow  # starts a collector
def test_what_either_side_lost(delivered: APIConfig, collector: CollectorProcess) -> None:
    """Also where the outbox's account was made to fit."""
    with closing(sqlite3.connect(delivered.outbox_path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE seq = 5")
        connection.execute("UPDATE account SET events = 4")
        connection.execute("UPDATE sync_state SET settled_through = 4")
    assert verify(delivered).exit_code == 0
    result = verify(delivered, "--against-collector")
    assert (result.exit_code, "seq 5: collector: the collector has" in result.stdout) == (1, True)
    collector.stop()
    with closing(sqlite3.connect(collector.database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE seq IN (3, 5)")
    collector.start()
    result = verify(delivered, "--against-collector")
    assert (result.exit_code, "seq 3: collector: event" in result.stdout) == (1, True)
    assert "but the collector does not have it" in result.stdout


@pytest.mark.slow  # starts a collector
def test_without_an_answer_nothing_is_said_to_be_sound(
    delivered: APIConfig, collector: CollectorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key, a collector that is away, and no key at all, each in one line."""
    monkeypatch.setenv("SDK_API_KEY", "wrong")
    refused = verify(delivered, "--against-collector")
    collector.stop()
    away = verify(delivered, "--against-collector")
    for result in (refused, away):
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert "the collector did not answer with its events" in result.stderr
    monkeypatch.delenv("SDK_API_KEY")
    assert verify(delivered, "--against-collector").exit_code == 2


@pytest.mark.slow  # starts a collector
def test_the_collector_pages_by_seq(collector: CollectorProcess) -> None:
    """Content is left out, events of one seq come together, and others' outboxes are nobody's."""
    chain = EventChain()
    events = chain.events(5)
    reused = [chain.event({"n": 1}), chain.event({"n": 2})]
    reused[1]["seq"] = reused[0]["seq"]
    client = collector.client("other-client")
    client.send(chain, [*events, reused[0]])
    client.send(chain, [reused[1]])
    path = f"/v1/outboxes/{chain.outbox_id}/chain"
    seqs, after = [], 0
    while page := client.get(path, after=after, limit=2)["events"]:
        assert all(set(event) == {"seq", "event_id", "digest", "chain"} for event in page)
        seqs.append([event["seq"] for event in page])
        after = page[-1]["seq"]
    assert seqs == [[1, 2], [3, 4], [5], [6, 6]]
    assert collector.get(path)["events"] == []
