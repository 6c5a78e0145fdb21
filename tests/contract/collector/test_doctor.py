"""``tracker-collector doctor``: real troubles of real databases are found, and said plainly."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from click.testing import CliRunner, Result
from sqlalchemy import make_url

from tests.support.collector import CollectorProcess, EventChain, ForkedCollector, free_port
from tests.support.former import former_database
from tests.support.pgbouncer import running_pgbouncer
from tests.support.postgresql import PostgresServer, running_server, why_not
from tracker import clock
from tracker.collector.doctor import sqlite as files
from tracker.collector.doctor import upkeep
from tracker.collector.doctor.space import space
from tracker.collector.keys import Keys, Terms
from tracker.collector.main import cli
from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = Path(__file__).parents[2] / "migration" / "fixtures"
DAY_MS = 86_400_000


def run(database: str | Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", "--database", str(database), *arguments])


def statuses(database: str | Path, *arguments: str) -> dict[str, str]:
    """Return the status of each check; what was found is the worst of its findings."""
    result = run(database, "--json", *arguments)
    found = json.loads(result.stdout)
    order = ("ok", "warning", "problem")
    worst: dict[str, str] = {}
    for check in found["checks"]:
        assert check["message"]
        before = worst.get(check["check"], "ok")
        worst[check["check"]] = max(before, check["status"], key=order.index)
        assert check["status"] == "ok" or check["action"] or check["check"] != "schema"
    assert result.exit_code == (0 if found["ok"] else 1)
    assert found["ok"] == ("problem" not in worst.values())
    return worst


def said(database: str | Path, *arguments: str) -> str:
    return run(database, *arguments).stdout


def url_of(server: PostgresServer) -> str:
    """Return a new database that a collector has opened."""
    url = server.new_database()
    Store(url).close()
    return url


def expiring(database: str | Path, client_id: str | None, days: float) -> None:
    store = Store(database)
    expires_at_ms = time.time_ns() // 1_000_000 + int(days * DAY_MS)
    Keys(store).create(client_id, terms=Terms(expires_at_ms=expires_at_ms))
    store.close()


EMPTY = (
    "it is empty: no collector has made its tables here; see whether it is the right database;"
    " `tracker-collector serve` makes them when it starts, and so does `tracker-collector migrate`"
)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_empty_database_is_one_in_which_nobody_has_made_tables(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Not one that is damaged; and what is said to make them makes them."""
    if kind == "sqlite":
        (tmp_path / "empty.sqlite3").touch(0o600)
        database = str(tmp_path / "empty.sqlite3")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = server.new_database()
    result = run(database)
    assert result.exit_code == 1
    assert EMPTY in result.stdout
    assert [each for each in ("cannot be", ".recover", "api_keys") if each in result.stdout] == []
    assert [name for name, found in statuses(database).items() if found == "problem"] == ["schema"]
    assert CliRunner().invoke(cli, ["migrate", "--database", database]).exit_code == 0
    assert statuses(database)["schema"] == "ok"


# --- SQLite ---


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with some events that no collector has open."""
    path = tmp_path / "c.sqlite3"
    store = Store(path)
    Keys(store).create("a")
    store.close()
    return path


def test_a_running_collector_is_found_sound(collector: CollectorProcess) -> None:
    """One line for each check, all of them fine; and it goes on."""
    result = run(collector.database)
    assert result.exit_code == 0, result.stdout
    lines = [line.split()[:2] for line in result.stdout.splitlines()]
    assert {line.partition("  ")[2].split()[0] for line in result.stdout.splitlines()} == {"ok"}
    names = {name for name, _ in lines}
    assert names == {"permissions", "file", "disk", "journal", "quick_check", "schema", "keys"}
    assert collector.get("/v1/ping") == {"protocol": 1}


def test_the_doctor_changes_nothing(file: Path) -> None:
    """Not even a database of a former version, or one that is not there."""
    before = file.read_bytes()
    assert set(statuses(file).values()) == {"ok"}
    assert file.read_bytes() == before
    missing = file.with_name("other.sqlite3")
    assert statuses(missing) == {"file": "problem"}
    assert not missing.exists()


def test_a_database_of_a_former_version_is_told(tmp_path: Path) -> None:
    """What is missing is named, and it stays missing."""
    path = tmp_path / "c.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / "collector_1_sqlite.sql").read_text("utf-8"))
    for _ in range(2):
        found = statuses(path)
        assert (found["schema"], found["journal"]) == ("problem", "warning")
    assert "former version" in said(path)
    assert "start a collector" in said(path)


def test_damage_is_found(file: Path) -> None:
    """And what to do about it is said."""
    store = Store(file)
    for _ in range(300):
        Keys(store).create("a", "x" * 200)
    store.close()
    content = bytearray(file.read_bytes())
    content[-4096:-4000] = bytes(96)  # the last page
    file.write_bytes(content)
    assert statuses(file)["quick_check"] == "problem"
    assert "stop the collector, keep a copy" in said(file)


def test_another_kind_of_file_is_a_problem(tmp_path: Path) -> None:
    """It is no database."""
    path = tmp_path / "letter"
    path.write_text("Dear Sir or Madam, " * 100)
    path.chmod(0o600)
    assert statuses(path)["file"] == "problem"


def test_a_file_that_others_may_read_is_a_warning(file: Path) -> None:
    """Exit code 0: nothing is lost by that."""
    file.chmod(0o644)
    assert statuses(file)["permissions"] == "warning"
    assert f"chmod go= {file.name}*" in said(file)


@pytest.mark.parametrize(
    ("kind", "status"), [("nfs4", "problem"), ("cifs", "problem"), ("ext4", "ok")]
)
def test_a_network_file_system_is_a_problem(file: Path, kind: str, status: str) -> None:
    """As far as the system tells; a name with a space is escaped there."""
    mounts = file.with_name("mounts")
    folder = str(file.parent.resolve())
    mounts.write_text(f"/dev/root / ext4 rw 0 0\nhost:/x {folder} {kind} rw 0 0\n")
    assert [each.status for each in files.network(file, mounts)] == [status]
    assert list(files.network(file, file.with_name("no-such-file"))) == []


@pytest.mark.parametrize(
    ("total", "free", "status"),
    [(100, 50, "ok"), (100, 4, "warning"), (20, 4, "ok"), (100, 0.4, "problem")],
)
def test_a_disk_without_room_is_told(total: float, free: float, status: str) -> None:
    """Before it is full."""
    usage = namedtuple("usage", "total used free")
    found = space("it takes 1 MB", usage(int(total * 2**30), 0, int(free * 2**30)))  # type: ignore[arg-type] # as that
    assert found.status == status


@pytest.mark.parametrize("whose", ["a", None])
def test_keys_that_expire_soon_are_named(file: Path, whose: str | None) -> None:
    """Unless the same client has one that lasts."""
    expiring(file, "b", 30)
    expiring(file, "c", -1)
    assert statuses(file)["keys"] == "ok"
    expiring(file, whose, 3)
    named = "(operator)" if whose is None else "a"
    if whose == "a":  # it has a key without an end too
        assert statuses(file)["keys"] == "ok"
        store = Store(file)
        assert Keys(store).revoke(1)
        store.close()
    assert statuses(file)["keys"] == "warning"
    assert f"on: {named}; tracker-collector keys rotate" in said(file)


# --- PostgreSQL ---


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresServer]:
    """A server that flushes, as those do that hold anything dear."""
    if reason := why_not():
        pytest.skip(reason)
    settings = "-c listen_addresses='' -c shared_buffers=16MB -c max_prepared_transactions=5"
    with running_server(settings) as server:
        yield server


@pytest.mark.slow
def test_a_sound_server_has_one_warning(durable: PostgresServer, tmp_path: Path) -> None:
    """That there is no standby; `--durability local` does not silence it."""
    url = url_of(durable)
    with ForkedCollector(tmp_path, database_url=url) as collector:
        chain = EventChain()
        collector.client("a").send(chain, chain.events(3))
        found = statuses(url)
        assert found.pop("durability") == "warning"
        assert set(found.values()) == {"ok"}
        assert set(found) == {
            *("encoding", "version", "clock", "connections", "disk", "between", "vacuum"),
            *("transactions", "schema", "partitions", "roll-ups", "keys"),
        }
        assert "PostgreSQL 1" in said(url)


@pytest.mark.slow
def test_an_empty_database_is_told_and_stays_empty(durable: PostgresServer) -> None:
    """A collector makes the tables, not the doctor."""
    url = durable.new_database()
    assert statuses(url)["schema"] == "problem"
    name = str(make_url(url).database)
    assert durable.sql("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", name) == []


@pytest.mark.slow
def test_a_database_that_is_not_utf8_is_a_problem(durable: PostgresServer) -> None:
    """It could not store every text."""
    url = durable.new_database("ENCODING 'SQL_ASCII' TEMPLATE template0")
    assert statuses(url) == {"encoding": "problem"}


def test_no_server_is_a_problem() -> None:
    """In one line, without the password."""
    url = f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/d?connect_timeout=2"
    assert statuses(url) == {"connection": "problem"}
    assert "secret" not in said(url)


@pytest.mark.slow
def test_durability_is_checked_as_it_is_required(durable: PostgresServer) -> None:
    """A standby, one that is gone, a standby by mistake; and fsync."""
    if reason := why_not():
        pytest.skip(reason)
    settings = "-c listen_addresses='' -c shared_buffers=16MB -c wal_sender_timeout=2s"
    assert statuses(url_of(durable), "--durability", "replicated")["durability"] == "problem"
    with running_server(settings) as primary:
        url = url_of(primary)
        with primary.standby("one") as standby:
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (one)'")
            primary.sql("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 30
            while statuses(url)["durability"] != "ok":
                assert time.monotonic() < deadline
            assert "1 of 1 connected standbys" in said(url)
            copy = standby.url(str(make_url(url).database))
            assert statuses(copy)["durability"] == "problem"
            assert "target_session_attrs=read-write" in said(copy)
        while statuses(url)["durability"] != "problem":
            assert time.monotonic() < deadline
        assert "no synchronous standby is connected" in said(url)


@pytest.mark.slow
def test_a_server_that_does_not_flush_is_told(postgres_server: PostgresServer) -> None:
    """The tests' own: what it holds is gone with the power."""
    url = url_of(postgres_server)
    assert statuses(url)["durability"] == "warning"
    assert "fsync" in said(url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("apart", "status"), [(1, "ok"), (-5, "warning"), (5, "warning"), (-90, "problem")]
)
def test_clocks_that_differ_are_told(
    durable: PostgresServer, monkeypatch: pytest.MonkeyPatch, apart: float, status: str
) -> None:
    """Whichever of them is ahead."""
    real = clock.wall
    monkeypatch.setattr(clock, "wall", lambda: real() + apart)
    assert statuses(url_of(durable))["clock"] == status


@pytest.mark.slow
def test_too_few_connections_are_told(durable: PostgresServer) -> None:
    """Whatever limits them."""
    url = url_of(durable)
    name = str(make_url(url).database)
    assert statuses(url)["connections"] == "ok"
    durable.sql(f"ALTER DATABASE {name} CONNECTION LIMIT 10")
    assert statuses(url)["connections"] == "warning"
    assert "a collector opens up to" in said(url)
    durable.sql(f"ALTER DATABASE {name} CONNECTION LIMIT 1")
    assert statuses(url)["connections"] == "problem"


@pytest.mark.slow
def test_an_old_transaction_is_named(durable: PostgresServer) -> None:
    """Only one that holds rows back, prepared or not; who waits without a snapshot does not."""
    url = url_of(durable)
    engine = sqlalchemy.create_engine(url, isolation_level="REPEATABLE READ")
    looking = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")

    def found(old: float) -> list[tuple[str, str]]:
        with looking.connect() as connection:
            checked = upkeep.oldest_transaction(connection, old, 3_600)
            return [(each.status, each.message) for each in checked]

    with engine.connect() as waiting, waiting.begin():
        waiting.exec_driver_sql("SET LOCAL application_name = 'waiter'")
        assert found(0)[0][0] == "ok"
        waiting.exec_driver_sql("SELECT 1 FROM api_keys")
        ((status, message),) = found(0)
        assert (status, "(waiter) has been idle in transaction" in message) == ("warning", True)
        assert found(600)[0][0] == "ok"
    with looking.connect() as connection:
        connection.exec_driver_sql("BEGIN; INSERT INTO key_uses VALUES (1, 1)")
        connection.exec_driver_sql("PREPARE TRANSACTION 'lost'")
        assert "prepared transaction lost" in found(0)[0][1]
        connection.exec_driver_sql("ROLLBACK PREPARED 'lost'")
    engine.dispose()
    looking.dispose()


@pytest.mark.slow
def test_a_slot_that_nobody_uses_is_named(durable: PostgresServer) -> None:
    """It fills the disk."""
    url = url_of(durable)
    durable.sql("SELECT pg_create_physical_replication_slot('gone', true)")
    try:
        assert statuses(url)["slots"] == "warning"
        assert "the slot gone" in said(url)
    finally:
        durable.sql("SELECT pg_drop_replication_slot('gone')")


@pytest.mark.slow
def test_what_is_not_vacuumed_is_told(durable: PostgresServer) -> None:
    """A table of dead rows, and autovacuum that is off."""
    url = url_of(durable)
    name = str(make_url(url).database)
    durable.sql("ALTER TABLE key_uses SET (autovacuum_enabled = off)", name)
    durable.sql("INSERT INTO key_uses SELECT n, 1 FROM generate_series(1, 30000) n", name)
    durable.sql("DELETE FROM key_uses", name)
    deadline = time.monotonic() + 30
    while statuses(url)["vacuum"] != "warning":
        assert time.monotonic() < deadline
    assert "key_uses has 30,000 dead rows beside 0" in said(url)
    durable.sql("ALTER SYSTEM SET autovacuum = off")
    durable.sql("SELECT pg_reload_conf()")
    try:
        while statuses(url)["vacuum"] != "problem":
            assert time.monotonic() < deadline
    finally:
        durable.sql("ALTER SYSTEM RESET autovacuum")
        durable.sql("SELECT pg_reload_conf()")


@pytest.mark.slow
def test_an_index_that_was_not_finished_is_named(durable: PostgresServer) -> None:
    """PostgreSQL leaves it, and does not use it."""
    url = url_of(durable)
    name = str(make_url(url).database)
    durable.sql("INSERT INTO key_uses VALUES (1, 5), (2, 5)", name)
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        durable.sql("CREATE UNIQUE INDEX CONCURRENTLY half ON key_uses (last_used_at_ms)", name)
    assert statuses(url)["schema"] == "problem"
    assert "half" in said(url)


@pytest.mark.slow
def test_a_month_without_a_partition_is_named(
    durable: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when no collector has run for months."""
    url = url_of(durable)
    assert statuses(url)["partitions"] == "ok"
    later = time.time_ns() + 100 * DAY_MS * 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert statuses(url)["partitions"] == "warning"
    assert "for the events of a month to come: events_20" in said(url)


@pytest.mark.slow
def test_a_database_that_is_not_divided_has_no_partitions(postgres_server: PostgresServer) -> None:
    """Nothing is said of them, but of what its schema lacks."""
    found = statuses(former_database(postgres_server, 20))
    assert "partitions" not in found
    assert found["schema"] == "problem"


@pytest.mark.slow
def test_roll_ups_that_do_not_follow_are_told(durable: PostgresServer) -> None:
    """As when nothing rolls up."""
    url = url_of(durable)
    assert statuses(url)["roll-ups"] == "ok"
    durable.sql(
        "INSERT INTO events (id, client_id, outbox_id, seq, event_id, type, timestamp_ms, data,"
        " digest, chain, received_at_ms, sent_at_ms) VALUES"
        " (60000, 'a', 'o', 1, 'e', 't', 1, '{}', 'd', 'c', 1, 1)",
        str(make_url(url).database),
    )
    assert statuses(url)["roll-ups"] == "warning"
    assert "about 60,000 events wait" in said(url)


@pytest.mark.slow
def test_a_missing_column_is_named(durable: PostgresServer) -> None:
    """As after an upgrade of the program alone."""
    url = url_of(durable)
    durable.sql("ALTER TABLE api_keys DROP COLUMN scopes", str(make_url(url).database))
    assert statuses(url)["schema"] == "problem"
    assert "api_keys.scopes" in said(url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "status", "text"),
    [
        ("transaction", "warning", "a pooler in transaction mode is between"),
        ("session", "ok", "a pooler is between; LISTEN hears"),
    ],
)
def test_a_pooler_is_told_by_what_it_lets_through(
    postgres_server: PostgresServer, mode: str, status: str, text: str
) -> None:
    """And nothing else looks different through it."""
    url = url_of(postgres_server)
    with running_pgbouncer(postgres_server, url, mode) as pooled:
        assert statuses(pooled, "--direct-database", url)["between"] == "ok"
        found = statuses(pooled)
        assert found["between"] == status
        assert text in said(pooled)
        del found["between"], found["durability"]
        assert set(found.values()) == {"ok"}


@pytest.mark.slow
def test_who_may_see_little_is_told_what_was_not_seen(durable: PostgresServer) -> None:
    """An ordinary role, as a collector's should be: no check fails because of it."""
    url = url_of(durable)
    name = str(make_url(url).database)
    durable.sql("DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    durable.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain", name)
    found = statuses(url.replace("//tracker@", "//plain@"))
    assert "problem" not in found.values()
    assert found["schema"] == "ok"
