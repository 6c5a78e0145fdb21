"""The collector's SQLite file is deleted, moved or replaced while it runs."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import (
    CollectorClient,
    CollectorProcess,
    EventChain,
    ForkedCollector,
)
from tracker.collector.keys import Keys
from tracker.collector.store import Store
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def client_of(collector: CollectorProcess) -> CollectorClient:
    return CollectorClient(collector.url, collector.client_id, collector.api_key)


def ready(collector: CollectorProcess) -> int:
    return requests.get(f"{collector.url}/readyz", timeout=10).status_code


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "log-replaced"])
def test_there_is_no_receipt_for_what_a_restart_would_not_find(
    collector: CollectorProcess, tmp_path: Path, how: str
) -> None:
    """503, not ready, and a line in the log; the client keeps its events."""
    client, chain = client_of(collector), EventChain()
    client.send(chain, chain.events(3))
    path, log = collector.database, collector.database.with_name("collector.sqlite3-wal")
    aside = tmp_path / "aside.sqlite3"
    if how == "deleted":
        path.unlink()
        log.unlink()
    elif how == "log-replaced":
        shutil.copy(log, tmp_path / "other-wal")
        (tmp_path / "other-wal").replace(log)
    else:
        path.rename(aside)
    if how == "replaced":
        shutil.copy(aside, path)
    for _ in range(2):
        answer = client.post(chain.batch(chain.events(2)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
        assert ready(collector) == 503
    assert collector.says("while it was in use")
    if how == "moved":
        aside.rename(path)
        late = chain.events(1)
        assert client.send(chain, late)["accepted"] == 1
        assert ready(collector) == 200
        collector.kill()
        collector.start()
        assert late[0]["event_id"] in {event["event_id"] for event in collector.events()}


def test_a_log_that_is_deleted_is_carried_over(collector: CollectorProcess) -> None:
    """What only it held is moved into the database first: every receipt stays true."""
    client, chain = client_of(collector), EventChain()
    client.send(chain, chain.events(3))
    for kill in (True, False):
        collector.database.with_name("collector.sqlite3-wal").unlink()
        assert len(client.events()) == chain.seq
        client.send(chain, chain.events(2))
        client.send(chain, chain.events(2))
        assert collector.says("was moved to the")
        if kill:
            collector.kill()
        else:
            collector.stop()
        with closing(sqlite3.connect(collector.database)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
            (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert (count, sound) == (chain.seq, "ok")
        collector.start()


def test_a_log_that_belongs_to_a_new_database_is_not_deleted(tmp_path: Path) -> None:
    """A collector that has lost its file must not take another's log with it when it ends."""
    path = tmp_path / "collector.sqlite3"
    with ForkedCollector(tmp_path) as old:
        chain = EventChain()
        client_of(old).send(chain, chain.events(3))
        (tmp_path / "aside").mkdir()
        for name in ("collector.sqlite3", "collector.sqlite3-wal", "collector.sqlite3-shm"):
            (tmp_path / name).rename(tmp_path / "aside" / name)
        new = Store(path)
        key, _ = Keys(new).create("a")
        log = path.with_name("collector.sqlite3-wal")
        identity = log.stat().st_ino
        old.stop()
        assert log.stat().st_ino == identity
        assert Keys(new).find(key)
        new.close()


def test_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    """Each name would have a log of its own."""
    path = tmp_path / "collector.sqlite3"
    Store(path).close()
    (tmp_path / "other.sqlite3").hardlink_to(path)
    with pytest.raises(ConfigurationError, match="hard links"):
        Store(path)
