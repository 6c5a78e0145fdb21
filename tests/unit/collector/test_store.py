"""The collector's database and keys, without HTTP."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from tests.support.collector import EventChain
from tracker.collector.batch import Batch, parse_batch
from tracker.collector.database import StorageError
from tracker.collector.keys import Keys
from tracker.collector.store import Store, Stored
from tracker.collector.tables import metadata
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "collector.sqlite3"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


def make_batch(chain: EventChain, count: int, client_id: str = "a") -> Batch:
    return parse_batch(json.dumps(chain.batch(chain.events(count), client_id)).encode(), client_id)


def counts(stored: Stored) -> tuple[int, int]:
    return stored.accepted, stored.duplicates


def test_the_file_is_for_its_owner_only(store: Store, database: Path) -> None:
    """It holds what conversations say: mode 0600, its folder 0700, SQLite's side files too."""
    store.store_batch(make_batch(EventChain(), 1), 1)
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "collector.sqlite3-wal" in modes


def test_commits_survive_power_loss(store: Store) -> None:
    """WAL with synchronous=FULL (2), and a wait for other processes, on every connection."""
    for borrow in (store.reading(), store.writing("x")):
        with borrow as connection:
            pragmas = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "busy_timeout")
            ]
        assert pragmas == ["wal", 2, 30_000]


def test_what_is_stored_already_is_counted_as_duplicate(store: Store) -> None:
    """A resent batch, an overlapping one, and one id twice in a batch all store each event once."""
    chain = EventChain()
    batch = make_batch(chain, 3)
    assert counts(store.store_batch(batch, 1)) == (3, 0)
    assert counts(store.store_batch(batch, 2)) == (0, 3)
    more = make_batch(chain, 2)
    twice = Batch(
        "a", chain.outbox_id, 1, (batch.events[2], *more.events, more.events[0]), (), ("",)
    )
    assert counts(store.store_batch(twice, 3)) == (2, 2)
    rows, following = store.events_after("a", 0, 100, 10**6)
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["received_at_ms"] for row in rows] == [1, 1, 1, 3, 3]
    assert following is None


def test_the_first_of_two_events_with_one_id_is_kept(store: Store) -> None:
    """The second is the duplicate, not the first."""
    batch = make_batch(EventChain(), 1)
    (event,) = batch.events
    pair = Batch("a", batch.outbox_id, 1, (event, event._replace(seq=9)), (), ("",))
    assert counts(store.store_batch(pair, 1)) == (1, 1)
    assert store.events_after("a", 0, 10, 10**6)[0][0]["seq"] == 1


def test_one_id_from_two_clients_is_two_events(store: Store) -> None:
    """A client must not be able to keep another's events out."""
    chain = EventChain()
    batch = make_batch(chain, 1)
    other = Batch("b", chain.outbox_id, 1, batch.events, (), ("",))
    assert counts(store.store_batch(batch, 1)) == (1, 0)
    assert counts(store.store_batch(other, 1)) == (1, 0)


def test_threads_that_send_the_same_batch_store_it_once(store: Store) -> None:
    """However they interleave, every event is accepted exactly once."""
    chain = EventChain()
    batches = [make_batch(chain, 20) for _ in range(5)] * 4
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda batch: store.store_batch(batch, 1), batches))
    assert sum(counts.accepted for counts in stored) == 100
    assert sum(counts.duplicates for counts in stored) == 300
    assert len(store.events_after("a", 0, 1000, 10**6)[0]) == 100


def test_two_stores_on_one_file_take_turns(store: Store, database: Path) -> None:
    """`keys create` beside a running collector neither fails nor loses anything."""
    second = Store(database)
    chain = EventChain()
    batches = [make_batch(chain, 2) for _ in range(20)]
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [store.store_batch(batch, 1) for batch in batches])
        keys = [Keys(second).create("a")[0] for _ in range(20)]
        writing.result()
    second.close()
    assert len(store.events_after("a", 0, 100, 10**6)[0]) == 40
    assert all(Keys(store).find(key) for key in keys)


def test_a_page_ends_at_its_limit_in_events_or_bytes(store: Store) -> None:
    """Either way the next page begins right behind it."""
    store.store_batch(make_batch(EventChain(), 5), 1)
    rows, following = store.events_after("a", 0, 2, 10**6)
    assert len(rows) == 2
    assert following == rows[-1]["id"]
    rest, end = store.events_after("a", following or 0, 3, 10**6)
    assert [row["seq"] for row in rest] == [3, 4, 5]
    assert end is None
    rows, following = store.events_after("a", 0, 100, 1)
    assert [row["seq"] for row in rows] == [1]
    assert following == rows[0]["id"]


def test_a_failed_transaction_stores_nothing(store: Store) -> None:
    """What went wrong half-way leaves no half."""

    def write_and_fail() -> None:
        with store.writing("a") as connection:
            connection.exec_driver_sql(
                "INSERT INTO api_keys (client_id, key_hash, created_at_ms) VALUES ('a', 'h', 1)"
            )
            connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StorageError, match="nowhere"):
        write_and_fail()
    assert Keys(store).list() == []
    assert counts(store.store_batch(make_batch(EventChain(), 1), 1)) == (1, 0)


def test_another_kind_of_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A mistyped path must not cost anybody a file."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(StorageError, match="not a database"):
        Store(path)
    assert path.read_text() == "Dear Sir or Madam, " * 100


@pytest.mark.parametrize(
    "database",
    ["", "sqlite://", "sqlite:///:memory:", "mysql://u:p@h/d", "://", "sqlite:///file:x?uri=true"],
)
def test_a_database_that_cannot_be_used_is_a_wrong_setting(database: str) -> None:
    """Memory, other databases and nonsense are told apart from a database that is down."""
    with pytest.raises(ConfigurationError):
        Store(database)


def test_a_url_and_a_path_mean_the_same_file(store: Store, database: Path) -> None:
    """Both forms of the option lead to the same events."""
    key, _ = Keys(store).create("a")
    second = Store(f"sqlite:///{database}")
    assert Keys(second).find(key)
    second.close()


def test_a_database_that_went_away_is_a_storage_error(store: Store, database: Path) -> None:
    """Every trouble of the driver comes out as the one error that callers handle."""
    store.close()
    for path in database.parent.iterdir():
        path.unlink()
    database.mkdir()
    with pytest.raises(StorageError):
        store.check()


def test_the_tables_compile_for_postgresql() -> None:
    """Nothing in them is SQLite's alone."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made = " ".join(str(CreateTable(t).compile(dialect=dialect)) for t in metadata.sorted_tables)
    made += " ".join(
        str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.sorted_tables
        for index in table.indexes
    )
    assert made.count("id BIGSERIAL NOT NULL") == 7
    assert "seq BIGINT NOT NULL" in made


def test_a_key_is_found_until_it_is_revoked(store: Store) -> None:
    """And others are never found."""
    keys = Keys(store)
    key, made = keys.create("kiosk-17", "the one at the door")
    found = keys.find(key)
    assert found == made
    assert (made.client_id, made.label) == ("kiosk-17", "the one at the door")
    assert keys.find(key + "x") is None
    assert keys.find("") is None
    assert keys.find("\ud800") is None
    assert keys.revoke(made.id)
    assert keys.find(key) is None
    assert not keys.revoke(made.id)
    assert not keys.revoke(made.id + 1)
    (listed,) = keys.list()
    assert listed.revoked_at_ms is not None


def test_only_a_keys_hash_is_stored(store: Store, database: Path) -> None:
    """Whoever reads the files finds no key."""
    key, _ = Keys(store).create("a")
    store.close()
    connection = sqlite3.connect(database)
    (stored,) = connection.execute("SELECT key_hash FROM api_keys").fetchone()
    connection.close()
    assert stored == hashlib.sha256(key.encode()).hexdigest()
    everything = b"".join(path.read_bytes() for path in database.parent.iterdir())
    assert key.encode() not in everything


def test_keys_are_long_random_and_all_different(store: Store) -> None:
    """256 random bits behind a prefix that secret scanners can look for."""
    made = {Keys(store).create("a")[0] for _ in range(20)}
    assert len(made) == 20
    assert all(key.startswith("trk_") and len(key) == 47 for key in made)


@pytest.mark.parametrize("client_id", ["", "x" * 257, " a", "a\n", "a\0", "\ud800"])
def test_a_client_id_that_no_header_can_carry_is_refused(store: Store, client_id: str) -> None:
    """Its key could never be used."""
    with pytest.raises(ValueError, match="client id"):
        Keys(store).create(client_id)
    assert Keys(store).list() == []


def test_a_failing_statement_does_not_put_its_values_into_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Events are other people's conversations."""
    secret = "what the user said"

    def insert_into_nothing() -> None:
        with store.writing("a") as connection:
            connection.exec_driver_sql("INSERT INTO nowhere VALUES (?)", (secret,))

    with caplog.at_level(logging.ERROR), pytest.raises(StorageError) as caught:
        insert_into_nothing()
    logging.getLogger("test").error("failed", exc_info=caught.value)
    assert "nowhere" in caplog.text
    assert secret not in caplog.text


def test_the_write_lock_is_given_back_after_a_failure(
    store: Store, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full descriptor table must not block every later batch."""

    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(StorageError, match="Too many open files"):
            store.store_batch(make_batch(EventChain(), 1), 1)
    assert counts(store.store_batch(make_batch(EventChain(), 1), 1)) == (1, 0)
