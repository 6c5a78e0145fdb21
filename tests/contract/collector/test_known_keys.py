"""Keys are looked up once in some seconds, and a revoked one is out at once all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sqlalchemy import make_url

from tests.support.collector import CollectorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.slow


class Fleet:
    """Two collectors on one database, and one key of both."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.url = server.new_database()
        self.first = CollectorProcess(folder, database_url=self.url)
        self.second = CollectorProcess(folder, database_url=self.url)
        self._server = server

    def sql(self, statement: str) -> list[Any]:
        return self._server.sql(statement, str(make_url(self.url).database))

    def statuses(self) -> list[int]:
        """Return what both answer to the first one's key."""
        return [
            requests.get(f"{each.url}/v1/ping", headers=self.first.headers, timeout=10).status_code
            for each in (self.first, self.second)
        ]

    def listeners(self) -> list[int]:
        """Wait until both listen, and return the server's processes that they listen to."""
        deadline = time.monotonic() + 10
        while True:
            rows = self.sql(
                "SELECT pid FROM pg_stat_activity WHERE left(query, 6) = 'LISTEN'"
                " AND datname = current_database()"
            )
            if len(rows) == 2:
                return [row[0] for row in rows]
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)

    @contextlib.contextmanager
    def keys_locked(self) -> Iterator[None]:
        """Let nobody read the table of keys."""
        import psycopg

        url = make_url(self.url)
        with psycopg.connect(
            host=str(url.query["host"]), user=url.username, dbname=url.database
        ) as held:
            held.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
            yield


@pytest.fixture(scope="module")
def fleet(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    found = Fleet(postgres_server, tmp_path_factory.mktemp("fleet"))
    with found.first, found.second:
        yield found


@pytest.fixture
def key_id(fleet: Fleet) -> int:
    """Make a new key the one that is asked with, and have both collectors know it."""
    fleet.first.headers["Authorization"] = f"Bearer {fleet.first.create_key('test-client')}"
    assert fleet.statuses() == [200, 200]
    return int(fleet.sql("SELECT max(id) FROM api_keys")[0][0])


def test_a_known_key_is_not_looked_up_again(fleet: Fleet, key_id: int) -> None:
    """Not for a while: a table of keys that nobody can read keeps no request waiting."""
    assert key_id
    with fleet.keys_locked():
        begun = time.monotonic()
        assert fleet.statuses() == [200, 200]
        assert time.monotonic() - begun < 1


def test_a_revoked_key_is_out_at_once(fleet: Fleet, key_id: int) -> None:
    """By the command, in another process than those that know the key."""
    subprocess.run(
        [sys.executable, "-m", "tracker.collector.main", "keys", "revoke", str(key_id)],
        env={**os.environ, "COLLECTOR_DATABASE_URL": fleet.url},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert fleet.statuses() == [401, 401]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_keys SET revoked_at_ms = 1 WHERE id = {}",
        "DELETE FROM api_keys WHERE id = {}",
        "TRUNCATE api_keys",
    ],
)
def test_a_change_by_hand_counts_at_once(fleet: Fleet, key_id: int, statement: str) -> None:
    """So does that of an older version, which knows of no message."""
    fleet.sql(statement.format(key_id))
    await_statuses(fleet, [401, 401], seconds=1)


def test_a_connection_that_falls_silent_is_relied_on_for_some_seconds_at_most(
    fleet: Fleet, key_id: int
) -> None:
    """As when a network drops it without a word: here, the server's processes are stopped."""
    pids = fleet.listeners()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        fleet.sql(f"UPDATE api_keys SET revoked_at_ms = 1 WHERE id = {key_id}")  # noqa: S608
        await_statuses(fleet, [401, 401], seconds=4)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_keys_are_looked_up_while_the_connection_that_listens_is_lost(
    fleet: Fleet, key_id: int
) -> None:
    """Nothing is heard meanwhile, so nothing is relied upon; then it listens again."""
    for pid in fleet.listeners():
        fleet.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
    await_lines(fleet, "each request looks its API key up again")
    fleet.sql("ALTER TABLE api_keys DISABLE TRIGGER tracker_keys_changed")  # so nothing is told
    fleet.sql(f"UPDATE api_keys SET revoked_at_ms = 1 WHERE id = {key_id}")  # noqa: S608
    assert fleet.statuses() == [401, 401]
    fleet.sql("ALTER TABLE api_keys ENABLE TRIGGER tracker_keys_changed")


def test_without_the_trigger_each_request_looks_its_key_up(fleet: Fleet, tmp_path: Path) -> None:
    """A line at the start says so."""
    fleet.sql("ALTER TABLE api_keys DISABLE TRIGGER tracker_keys_changed")
    try:
        with CollectorProcess(tmp_path, database_url=fleet.url) as process:
            assert "each request looks its API key up (the trigger" in process.stderr
            assert process.get("/v1/ping") == {"protocol": 1}
            fleet.sql("UPDATE api_keys SET revoked_at_ms = 1")
            with pytest.raises(requests.HTTPError, match="401"):
                process.get("/v1/ping")
    finally:
        fleet.sql("ALTER TABLE api_keys ENABLE TRIGGER tracker_keys_changed")


def await_statuses(fleet: Fleet, wanted: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := fleet.statuses()) != wanted:
        assert time.monotonic() < deadline, found


def await_lines(fleet: Fleet, text: str) -> None:
    assert fleet.first.says(text)
    assert fleet.second.says(text)
