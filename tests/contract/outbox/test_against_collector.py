"""`tracker-sync verify --against-collector`, with a collector that runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.outbox.test_chain_key import rewrite
from tests.support.cli import call, call_json, fill, settle
from tests.support.collector import EventChain
from tracker import AgentPerformanceTracker
from tracker.outbox.maintenance.retention import discard_oldest
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

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
def test_what_a_restored_copy_sent_again_is_at_the_collector(
    config: MakeConfig, collector: CollectorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the original's id. What is there under none, or in another form, still shows."""
    monkeypatch.setenv("SDK_API_KEY", collector.api_key)
    settings = config(base_url=collector.url, api_key=collector.api_key)
    fill(settings, 5)
    copy, new = tmp_path / "copy.sqlite3", tmp_path / "new.sqlite3"
    assert call("--outbox", settings.outbox_path, "backup", copy).exit_code == 0
    assert call("--outbox", settings.outbox_path, "flush").exit_code == 0
    restored = config(base_url=collector.url, api_key=collector.api_key, outbox_path=new)
    assert call("--outbox", new, "restore", copy).exit_code == 0
    fill(restored, 2)
    assert call("--outbox", new, "flush").exit_code == 0
    result = verify(restored, "--against-collector")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound")
    collector.stop()
    with closing(sqlite3.connect(collector.database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE seq = 2")
        connection.execute("UPDATE events SET digest = '00' WHERE seq = 4")
    collector.start()
    found = call_json("--outbox", new, "verify", "--against-collector")
    assert [problem["seq"] for problem in found["problems"]] == [2, 4]


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


def forge_discard(settings: APIConfig, first: int, last: int) -> None:
    """Cut pending events out, and make gaps and account fit, as somebody who knows how would."""
    with closing(sqlite3.connect(settings.outbox_path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO gaps (first_seq, last_seq, chain) "
            "SELECT ?, seq, chain FROM events WHERE seq = ?",
            (first, last),
        )
        connection.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", (first, last))
        connection.execute(
            "INSERT INTO account (entry, events) VALUES ('discarded.size_policy', ?)",
            (last - first + 1,),
        )


def test_pending_events_that_were_cut_out_show(delivered: APIConfig) -> None:
    """The outbox is sound by itself, whatever the account says; the collector never got them."""
    fill(delivered, 4)
    forge_discard(delivered, 6, 7)
    with AgentPerformanceTracker(delivered) as tracker:
        assert tracker.flush().delivered == 2
    assert verify(delivered).exit_code == 0
    result = verify(delivered, "--against-collector")
    assert result.exit_code == 1
    assert "seq 6: collector: events 6 to 7 are neither pending here nor at" in result.stdout


def test_what_the_size_policy_or_an_operator_gave_up_does_not(
    delivered: APIConfig, collector: CollectorProcess
) -> None:
    """Neither while the event that says so is pending, nor when it is pruned here."""
    fill(delivered, 4)
    settle(delivered, 2, dead=[6, 7])
    assert (
        call("--outbox", delivered.outbox_path, "dead", "discard", "--all", "--yes").exit_code == 0
    )
    with closing(Outbox(delivered)) as outbox:
        assert outbox.run(discard_oldest) == 3
    result = verify(delivered, "--against-collector")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound")
    with AgentPerformanceTracker(delivered) as tracker:
        assert tracker.flush().delivered == 2
    (report,) = collector.outboxes()
    assert report["missing"] == report["discarded"] == [[6, 10]]
    call("--outbox", delivered.outbox_path, "prune", "--days", "0")
    result = verify(delivered, "--against-collector")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound")


def test_a_restored_outbox_compares_with_what_it_sent_itself(
    delivered: APIConfig, config: MakeConfig, tmp_path: Path
) -> None:
    """What the backup had delivered or pruned before is not missing under the new id."""
    with AgentPerformanceTracker(delivered) as tracker:
        tracker.flush()
    call("--outbox", delivered.outbox_path, "prune", "--days", "0")
    fill(delivered, 2)
    copy, new = tmp_path / "copy.sqlite3", tmp_path / "new" / "outbox.sqlite3"
    assert call("--outbox", delivered.outbox_path, "backup", copy).exit_code == 0
    assert call("--outbox", new, "restore", copy).exit_code == 0
    restored = config(outbox_path=new, base_url=delivered.base_url, api_key=delivered.api_key)
    with AgentPerformanceTracker(restored) as tracker:
        assert tracker.flush().pending == 0
    for _ in range(2):
        result = verify(restored, "--against-collector")
        assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "sound"), result.stdout
        call("--outbox", new, "prune", "--days", "0")
