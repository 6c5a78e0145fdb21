"""`tracker-sync stats`: the figures, and OpenMetrics text that Prometheus' own parser reads."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.cli import an_event, call, call_json, fill, settle
from tracker.cli.stats import figures_of
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import sync_state
from tracker.outbox.queue.sync_state import SyncState
from tracker.outbox.status import OutboxStatus
from tracker.outbox.store import ledger
from tracker.outbox.store.ledger import Account

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


@pytest.fixture
def path(config: MakeConfig) -> Path:
    """Ten events: five delivered, one dead, four pending since a minute ago, in a pause."""
    now = time.time_ns() // 1_000_000
    fill(config(), [an_event(timestamp_ms=now - 60_000) for _ in range(10)])
    settle(config(), 6, dead=[3])
    outbox = Outbox(config())
    outbox.run(
        sync_state.write_state(next_attempt_ms=now + 100_000, paused_because="no connection")
    )
    outbox.run(lambda transaction: ledger.discard(transaction.connection, ledger.BY_BUFFER, 7))
    outbox.close()
    return config().outbox_path


def samples(text: str) -> dict[tuple[str, str | None], float]:
    return {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_the_figures(path: Path) -> None:
    """All that were asked for, by conventional names, each for its client."""
    shown = call("--outbox", path, "stats", "--prometheus")
    assert shown.exit_code == 0
    assert shown.stdout.endswith("# EOF\n")
    families = list(text_string_to_metric_families(shown.stdout))
    assert {family.type for family in families} == {"counter", "gauge"}
    for family in families:
        assert family.name.startswith("tracker_outbox_")
        assert family.documentation.endswith(".") or "; 0" in family.documentation
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert sample.labels["client_id"] == "test-client"
    found = samples(shown.stdout)
    plain = {name.removeprefix("tracker_outbox_"): value for (name, _), value in found.items()}
    assert plain["accepted_events_total"] == 17
    assert plain["delivered_events_total"] == 5
    assert (plain["pending_events"], plain["dead_events"]) == (4, 1)
    assert 60 <= plain["oldest_pending_age_seconds"] < 120
    assert 40 < plain["backoff_seconds"] <= 100
    assert plain["size_bytes"] >= plain["used_bytes"] > 4096
    assert abs(plain["last_success_timestamp_seconds"] - time.time()) < 60
    assert plain["uploader_running"] == 0
    discarded = "tracker_outbox_discarded_events_total"
    assert found[discarded, "memory_buffer"] == 7
    assert found[discarded, "operator"] == found[discarded, "size_policy"] == 0


def test_json_has_the_same_figures(path: Path) -> None:
    """Under the same names; and people are shown them too."""
    found = call_json("--outbox", path, "stats")
    assert (found["accepted"], found["delivered"], found["pending"], found["dead"]) == (17, 5, 4, 1)
    assert found["discarded"]["memory_buffer"] == 7
    assert found["backoff_seconds"] > 0
    assert not found["uploader_running"]
    shown = call("--outbox", path, "stats").stdout
    facts = dict(line.split("  ", 1) for line in shown.splitlines())
    assert facts["pending"].strip() == "4"
    assert facts["oldest pending"].strip().startswith("1 min")


def test_an_outbox_that_is_not_there_yet(tmp_path: Path) -> None:
    """Has 0 for everything: an alert on it is no surprise, and none is missing."""
    none = tmp_path / "none.sqlite3"
    found = samples(call("--outbox", none, "stats", "--prometheus").stdout)
    assert len(found) == 15
    assert set(found.values()) == {0.0}
    assert call_json("--outbox", none, "stats")["pending"] == 0
    assert "nothing was logged" in call("--outbox", none, "stats").stdout
    assert not none.exists()


@pytest.mark.parametrize(
    ("pending", "sync", "expected"),
    [
        (1, SyncState(next_attempt_ms=105_000), 5.0),
        (1, SyncState(next_attempt_ms=95_000), 0.0),  # nobody came at that time
        (0, SyncState(next_attempt_ms=105_000), 0.0),
        (1, SyncState(), 0.0),
    ],
)
def test_backoff_is_what_is_left_of_the_pause(
    pending: int, sync: SyncState, expected: float
) -> None:
    """Nothing without pending events, and nothing once the time has come."""
    found = OutboxStatus(account=Account(pending=pending), sync=sync, oldest_pending_ms=101_000)
    figures = figures_of(found, 0, now=100.0, running=True)
    assert figures.backoff_seconds == expected
    assert figures.oldest_pending_age_seconds == 0.0, "a clock set back makes no negative age"


def test_without_the_extra_it_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2; the other forms need none."""
    missing: Any = None
    monkeypatch.setitem(sys.modules, "prometheus_client", missing)
    shown = call("--outbox", path, "stats", "--prometheus")
    assert shown.exit_code == 2
    assert "pip install 'agent-tracking-sdk[prometheus]'" in shown.stderr
    assert call("--outbox", path, "stats").exit_code == 0
    assert call("--outbox", path, "stats", "--prometheus", "--json").exit_code == 2
