"""Collectors and devices of this version and of the one before, side by side and in turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from click.testing import CliRunner

from tests.support.collector import CollectorClient, CollectorProcess, EventChain
from tests.support.former_version import FormerVersion, at
from tracker import AgentPerformanceTracker
from tracker.collector.keys import Keys, Terms
from tracker.collector.main import cli
from tracker.collector.retention.retaining import retain, selected

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.postgresql import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> FormerVersion:
    return FormerVersion(tmp_path_factory.mktemp("former"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "c.sqlite3")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


def migrate(database: str) -> None:
    done = CliRunner().invoke(cli, ["migrate", "--database", database])
    assert done.exit_code == 0, done.output


def told(client: CollectorClient) -> list[tuple[Any, ...]]:
    """Return what a collector says of each outbox, as both versions say it."""
    return sorted(
        (each["outbox_id"], each["highest_seq"], each["missing"], each["chain"], each["events"])
        for each in client.outboxes()
    )


def status(client: CollectorClient) -> int:
    return requests.get(f"{client.url}/v1/ping", headers=client.headers, timeout=10).status_code


def test_collectors_of_both_versions_take_turns_on_one_database(
    former: FormerVersion, database: str, tmp_path: Path
) -> None:
    """Each batch goes to either, some to both: each event is there once, and both say the same.

    The one before runs when the first of this version starts, and while it is migrated.
    """
    key = former.create_key(database, "kiosk")
    with former.collector(database) as old_url:
        old = CollectorClient(old_url, "kiosk", key)
        chains = [EventChain() for _ in range(3)]
        for chain in chains:
            old.send(chain, chain.events(5))
        with CollectorProcess(tmp_path, database_url=database) as process:
            new = at(process.url, old)
            for turn in range(24):
                if turn == 12 and database.startswith("postgresql"):
                    migrate(database)
                chain, events = chains[turn % 3], chains[turn % 3].events(4)
                first, second = (old, new) if turn % 2 else (new, old)
                assert first.send(chain, events)["accepted"] == 4
                if turn % 3 == 0:
                    assert second.send(chain, events)["duplicates"] == 4
            late = chains[0].events(2)
            new.send(chains[0], late[1:])
            assert [each["missing"] for each in old.outboxes() if each["missing"]]
            old.send(chains[0], late[:1])
            assert told(old) == told(new)
            assert {row[2:4] for row in map(tuple, map(_frozen, told(new)))} == {((), "intact")}
            ids = [event["event_id"] for event in new.events()]
            assert len(ids) == len(set(ids)) == 15 + 24 * 4 + 2
            assert [event["event_id"] for event in old.events()] == ids


def _frozen(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(each) if isinstance(each, list) else each for each in row)


def test_keys_of_either_version_are_for_both_but_for_what_is_new(
    former: FormerVersion, database: str, tmp_path: Path
) -> None:
    """A revoked key is out at both; the one before takes no notice of expiry and scopes."""
    key = former.create_key(database, "kiosk")
    with (
        former.collector(database) as old_url,
        CollectorProcess(tmp_path, database_url=database) as process,
    ):
        old = CollectorClient(old_url, "kiosk", key)
        new = at(process.url, old)
        other = at(process.url, process.client("kiosk"))
        assert [status(each) for each in (old, new, other, at(old_url, other))] == [200] * 4
        with process.store() as store:
            expired, _ = Keys(store).create("kiosk", terms=Terms(expires_at_ms=1))
            reader, _ = Keys(store).create("kiosk", terms=Terms(scopes=["read"]))
        for secret, codes in ((expired, [200, 401]), (reader, [200, 200])):
            found = [CollectorClient(url, "kiosk", secret) for url in (old_url, process.url)]
            assert [status(each) for each in found] == codes
        chain = EventChain()
        body = chain.batch(chain.events(1), "kiosk")
        assert CollectorClient(process.url, "kiosk", reader).post(body).status_code == 403
        assert CollectorClient(old_url, "kiosk", reader).post(body).status_code == 200
        revoke = ["-m", "tracker.collector.main", "keys", "revoke", "1"]
        former.run(*revoke, "--database", database)
        assert status(old) == 401
        deadline = time.monotonic() + 5  # PostgreSQL tells the other one a little later
        while status(new) != 401:
            assert time.monotonic() < deadline


def test_a_downgrade_loses_nothing_and_neither_does_the_way_back(
    former: FormerVersion, database: str, tmp_path: Path
) -> None:
    """What each version received is there, is counted by the next, and is not taken twice."""
    key = former.create_key(database, "kiosk")
    chain = EventChain()
    sent: list[dict[str, Any]] = []
    process = CollectorProcess(tmp_path, database_url=database)
    for turn in range(4):
        events = chain.events(5)
        if turn % 2:
            with former.collector(database) as url:
                client = CollectorClient(url, "kiosk", key)
                assert client.send(chain, events)["accepted"] == 5
                check(client, chain, [*sent, *events])
        else:
            with process:
                client = CollectorClient(process.url, "kiosk", key)
                assert client.send(chain, events)["accepted"] == 5
                check(client, chain, [*sent, *events])
            if database.startswith("postgresql"):
                migrate(database)
        sent += events


def test_a_former_version_takes_for_gaps_what_retain_has_deleted(
    former: FormerVersion, database: str, tmp_path: Path
) -> None:
    """And only it: this version says again that nothing is missing when it returns."""
    key = former.create_key(database, "kiosk")
    chain = EventChain()
    process = CollectorProcess(tmp_path, database_url=database)
    with process:
        client = CollectorClient(process.url, "kiosk", key)
        client.send(chain, chain.events(5))
        with process.store() as store:
            retain(store, selected(store, time.time_ns() // 1_000_000 + 1, None, None), None)
        client.send(chain, chain.events(3))
    with former.collector(database) as url:
        client = CollectorClient(url, "kiosk", key)
        assert [row[2] for row in told(client)] == [[[1, 5]]]
        client.send(chain, chain.events(2))
    with process:
        client = CollectorClient(process.url, "kiosk", key)
        assert [row[1:4] for row in told(client)] == [(10, [], "intact")]


def check(client: CollectorClient, chain: EventChain, sent: list[dict[str, Any]]) -> None:
    """Everything is there in order; what is sent again is a duplicate; nothing is missing."""
    assert client.send(chain, sent)["duplicates"] == len(sent)
    assert [event["event_id"] for event in client.events()] == [each["event_id"] for each in sent]
    (row,) = told(client)
    assert row[1:] == (len(sent), [], "intact", len(sent))


def test_devices_of_either_version_send_to_collectors_of_either(
    former: FormerVersion, config: MakeConfig, tmp_path: Path
) -> None:
    """Devices can be updated after the collectors; one that is early loses nothing either."""
    program = tmp_path / "device.py"
    program.write_text(
        "from tracker import Tracker\n"
        "with Tracker() as tracker:\n"
        "    session = tracker.performance.start_conversation('agent')\n"
        "    tracker.performance.log_user_message(session, 'Hi')\n"
        "    assert tracker.flush(timeout=30).pending == 0\n"
    )
    database = str(tmp_path / "c.sqlite3")
    key = former.create_key(database, "old-device")
    with (
        former.collector(database) as old_url,
        CollectorProcess(tmp_path, database_url=database) as process,
    ):
        for number, url in enumerate((old_url, process.url)):
            environment = {
                "SDK_API_KEY": key,
                "SDK_CLIENT_ID": "old-device",
                "SDK_BASE_URL": url,
                "SDK_OUTBOX_PATH": str(tmp_path / f"old-device-{number}.sqlite3"),
            }
            former.run(str(program), **environment)
        found = CollectorClient(process.url, "old-device", key).outboxes()
        assert [(each["missing"], each["chain"]) for each in found] == [([], "intact")] * 2
        assert len(CollectorClient(process.url, "old-device", key).events()) >= 4
        early = process.client("new-device")
        settings = {"base_url": old_url, "api_key": early.api_key, "client_id": "new-device"}
        with AgentPerformanceTracker(config(**settings)) as tracker:
            session = tracker.start_conversation("agent")
            tracker.log_user_message(session, "Hi")
            assert tracker.flush(timeout=30).pending == 0
        (outbox,) = early.outboxes()
        assert (outbox["missing"], outbox["chain"], outbox["events"] >= 2) == ([], "intact", True)
