"""Two copies of an outbox, or an older one put back: the collector notices, and the device says."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call, call_json
from tracker import AgentPerformanceTracker, Delivery, Outcome, Tracker
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.collector import CollectorProcess
    from tracker import APIConfig, Health


def log(settings: APIConfig, count: int) -> Health:
    """Log and upload events; return the health afterwards. No event is refused for any warning."""
    with AgentPerformanceTracker(settings) as tracker:
        for _ in range(count):
            tracker.track("test.noted", {"content": "x"})
        assert tracker.flush(10).pending == 0
        return tracker.health()


def copied(path: Path, to: Path) -> None:
    """Copy an outbox as SQLite's own backup does, whatever it is for."""
    with closing(sqlite3.connect(path)) as original, closing(sqlite3.connect(to)) as copy:
        original.backup(copy)


def checks(path: Path) -> dict[str, str]:
    found = call_json("--outbox", path, "doctor")["checks"]
    return {check["name"]: check["status"] for check in found}


@pytest.fixture
def settings(
    config: MakeConfig, collector: CollectorProcess, monkeypatch: pytest.MonkeyPatch
) -> APIConfig:
    monkeypatch.setenv("SDK_API_KEY", collector.api_key)
    return config(base_url=collector.url, api_key=collector.api_key)


@pytest.mark.parametrize("key", [None, "correct horse battery staple"], ids=["plain", "keyed"])
def test_two_copies_that_send_are_told(
    settings: APIConfig,
    config: MakeConfig,
    collector: CollectorProcess,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    key: str | None,
) -> None:
    """Both are, from the second one's first batch on, until nobody can overlook it."""
    mine = config(base_url=settings.base_url, api_key=settings.api_key, chain_key=key)
    other = config(
        base_url=settings.base_url,
        api_key=settings.api_key,
        chain_key=key,
        outbox_path=tmp_path / "copy" / "outbox.sqlite3",
    )
    assert log(mine, 3).warning is None
    other.outbox_path.parent.mkdir()
    copied(mine.outbox_path, other.outbox_path)
    assert log(mine, 2).warning is None
    with caplog.at_level(logging.WARNING, "tracker"):
        assert log(other, 2).warning == "forked"
        assert log(mine, 1).warning == "forked"
    assert len([line for line in caplog.messages if "two copies of this outbox" in line]) == 2
    for each in (other, mine):  # what they logged under their new ids
        with Tracker(each) as tracker:
            assert tracker.flush(10).pending == 0
    report, *others = collector.outboxes()
    assert (report["reused_seqs"], report["chain"]) == ([4, 5], "forked")
    # Each goes on under an outbox id of its own, and says from where and what it will not send.
    discarded = [
        event["data"]["ranges"]
        for event in collector.events()
        if event["type"] == "events.discarded"
    ]
    assert [other["missing"] for other in others] == discarded
    named = [
        event["data"]["details"]
        for event in collector.events()
        if event["type"] == "security.reported"
    ]
    assert [each["former_outbox_id"] for each in named] == [report["outbox_id"]] * 2
    assert [each["outbox_id"] for each in named] == [other["outbox_id"] for other in others]
    assert call_json("--outbox", mine.outbox_path, "status")["warning"] == "forked"
    assert "warning" in call("--outbox", mine.outbox_path, "status").stdout
    assert checks(mine.outbox_path)["copies"] == "warning"
    assert call_json("--outbox", mine.outbox_path, "verify")["problems"] == []


def test_an_older_copy_put_back_is_told(
    settings: APIConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the first receipt that names a later seq than the outbox ever got to."""
    log(settings, 3)
    copied(settings.outbox_path, tmp_path / "older.sqlite3")
    assert log(settings, 5).warning is None
    settings.outbox_path.unlink()
    copied(tmp_path / "older.sqlite3", settings.outbox_path)
    with caplog.at_level(logging.WARNING, "tracker"):
        found = log(settings, 1)
    # The seq of the event was in use already: that is the worse of the two.
    assert found.warning == "forked"
    assert checks(settings.outbox_path)["copies"] == "warning"


def test_a_receiver_that_has_more_than_the_outbox_is_told(
    config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and until a receipt says otherwise; a destination of one's own can say it too."""
    highest: list[int | None] = [4, 4, 5, None]
    destination = RecordingDestination(
        lambda _: Delivery(Outcome.DELIVERED, highest_seq=highest.pop(0) if highest else None)
    )
    with (
        caplog.at_level(logging.WARNING, "tracker"),
        Tracker(config(), destination=lambda: destination) as tracker,
    ):
        warnings = []
        for _ in range(4):
            tracker.track("thing.happened")
            tracker.flush(10)
            warnings.append(tracker.health().warning)
    assert warnings == ["rolled_back"] * 4
    assert ["later events" in line for line in caplog.messages] == [True, False]
    assert "goes on under the new outbox id" in caplog.messages[1]


def test_a_warning_of_another_servers_own_is_shown(config: MakeConfig) -> None:
    """As it is: a word that this version does not know."""
    destination = RecordingDestination(lambda _: Delivery(Outcome.DELIVERED, warning="full\n moon"))
    with Tracker(config(), destination=lambda: destination) as tracker:
        tracker.track("thing.happened")
        assert tracker.flush(10).delivered == 1
        assert tracker.health().warning == "full  moon"
    assert "the server warns: full  moon" in call("--outbox", config().outbox_path, "status").stdout
