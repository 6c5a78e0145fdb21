"""What comes over from a damaged outbox into the new one, and what is said of it."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tracker import canonical
from tracker.errors import OutboxError
from tracker.events import make_event
from tracker.outbox.files import swap
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, dead_letters, settlement, sync_state
from tracker.outbox.recovery.candidates import FoundRows
from tracker.outbox.store import ledger
from tracker.outbox.store.transaction import Transaction

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.conftest import MakeConfig
    from tracker import APIConfig

KEY = "a chain key of the tests, long enough"
ALL = 20


def make(settings: APIConfig, events: int = ALL) -> None:
    """Make an outbox with numbered events, the first five of them delivered."""
    with closing(Outbox(settings)) as outbox:
        for number in range(1, events + 1):
            outbox.append(make_event("test.noted", {"n": number}))
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, 5, 1 << 20)
        outbox.run(settlement.settle(batch))


def change(path: Path, statement: str, *bound: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, bound)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def forge(path: Path, seq: int) -> None:
    """Change a row as somebody who has no chain key can: its digest fits."""
    event = make_event("test.noted", {"forged": seq})
    change(
        path,
        "UPDATE events SET event_id = ?, timestamp_ms = ?, data = ?, digest = ?, salt = ? "
        "WHERE seq = ?",
        event.event_id,
        event.timestamp_ms,
        event.data,
        event.digest,
        event.salt,
        seq,
    )


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(90))


def data_of(connection: Connection) -> list[str]:
    """Return what was logged; a salvage adds an event about what was delivered before it."""
    rows = connection.exec_driver_sql(
        "SELECT data FROM events WHERE type = 'test.noted' ORDER BY seq"
    )
    return list(rows.scalars())


@pytest.fixture
def settings(config: MakeConfig) -> APIConfig:
    return config(chain_key=KEY)


def test_the_key_does_not_vouch_for_what_a_salvage_carries_over(
    settings: APIConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody without the key may have changed it; what is logged afterwards is proven again."""
    make(settings)
    forge(settings.outbox_path, 10)
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox:
        outbox.append(make_event("test.noted", {"n": ALL + 1}))
        with outbox.snapshot() as connection:
            report = verify.verify(connection, [KEY.encode()])
            data = data_of(connection)
    assert len(data) == ALL + 1
    assert report.ok
    assert [(each.first_seq, each.last_seq) for each in report.unproven] == [(1, ALL)]
    assert f"does not vouch for these {ALL} events" in caplog.text
    assert len(swap.damaged_sets(settings.outbox_path)) == 1


def test_the_key_does_not_vouch_for_what_is_rescued_from_a_deleted_file(
    settings: APIConfig,
) -> None:
    """What was not delivered comes over, marked as unproven."""
    make(settings)
    with closing(Outbox(settings)) as outbox:
        outbox.append(make_event("test.noted", {"n": ALL + 1}))
        settings.outbox_path.unlink()
        assert outbox.maintain(now=True)
        outbox.append(make_event("test.noted", {"n": ALL + 2}))
        with outbox.snapshot() as connection:
            report = verify.verify(connection, [KEY.encode()])
            data = data_of(connection)
    assert set(data) == {f'{{"n":{n}}}' for n in range(6, ALL + 3)}
    assert report.ok
    assert [(each.first_seq, each.last_seq) for each in report.unproven] == [(1, len(data) - 1)]


def test_what_was_delivered_is_said_to_be_elsewhere(settings: APIConfig) -> None:
    """The receiver has it under the id of the damaged outbox, and not missing under the new one."""
    make(settings)
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        (data,) = connection.exec_driver_sql(
            "SELECT data FROM events WHERE type = 'events.discarded'"
        ).scalars()
        outbox_id = outbox.owner.outbox_id
    assert canonical.decode(data) == {
        "outbox_id": outbox_id,
        "reason": "carried_over",
        "ranges": [[1, 5]],
    }


def test_the_newest_events_are_missed_as_well(config: MakeConfig) -> None:
    """The account says how far the outbox had come, though no row after them is left to tell."""
    settings = config()
    make(settings)
    content = settings.outbox_path.read_bytes()
    for number in (ALL - 1, ALL):
        row = f'{{"n":{number}}}'.encode()
        content = content.replace(row, bytes(len(row)))
    settings.outbox_path.write_bytes(content)
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        book = ledger.read(connection)
    assert (book.accepted, book.delivered, book.pending) == (ALL + 1, 5, ALL - 6)
    assert book.discarded == {ledger.BY_DAMAGE: 2}


def test_a_damaged_account_does_not_make_up_losses(config: MakeConfig) -> None:
    """The files have no room for as many events as it names."""
    settings = config()
    make(settings)
    change(settings.outbox_path, "UPDATE account SET events = 1 << 40 WHERE entry = 'stored'")
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        assert ledger.read(connection).accepted == ALL + 1


@pytest.mark.parametrize("page_bytes", [1_024, 4_096])
@pytest.mark.parametrize("in_log", [False, True])
def test_pages_of_any_size_that_outboxes_have(
    config: MakeConfig, page_bytes: int, in_log: bool
) -> None:
    """New outboxes have smaller pages than those of earlier versions, which keep theirs."""
    settings = config()
    make(settings)
    with closing(sqlite3.connect(settings.outbox_path, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (1_024,)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute(f"PRAGMA page_size={page_bytes}")
        connection.execute("VACUUM")
    keep_open = Outbox(settings)  # with its log, as at a kill
    keep_open.append(make_event("test.noted", {"n": ALL + 1}))
    files = {path: path.read_bytes() for path in settings.outbox_path.parent.glob("*.sqlite3*")}
    keep_open.close()
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (page_bytes,)
    if in_log:
        for path, content in files.items():
            path.write_bytes(content)
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        assert data_of(connection) == [f'{{"n":{n}}}' for n in range(1, ALL + 2)]


@pytest.mark.parametrize(("owner", "step"), [(FoundRows, "choose"), (Transaction, "flush")])
def test_a_disk_that_is_full_puts_a_salvage_off(
    settings: APIConfig, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    """Its error is the tracker's own, as the application expects; all comes over afterwards."""
    make(settings)
    damage(settings.outbox_path)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fail)
        with pytest.raises(OutboxError, match="cannot be created: database or disk is full"):
            Outbox(settings)
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        assert len(data_of(connection)) == ALL


def test_a_salvage_needs_no_place_for_temporary_files(
    settings: APIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that may write to its data folder alone."""
    make(settings)
    damage(settings.outbox_path)
    opened: list[str] = []
    real = sqlite3.connect

    def connect(name: str, **named: Any) -> Any:
        opened.append(name)
        return real(name, **named)

    monkeypatch.setattr(tempfile, "gettempdir", _nowhere)
    monkeypatch.setattr(sqlite3, "connect", connect)
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        assert len(data_of(connection)) == ALL
    assert ":memory:" in opened
    assert "" not in opened


def _nowhere() -> str:
    raise FileNotFoundError("No usable temporary directory found")


def test_the_account_and_the_last_delivery_are_kept(config: MakeConfig) -> None:
    """A salvage that loses nothing changes no figure."""
    settings = config()
    make(settings)
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        book, state = ledger.read(connection), sync_state.read_state(connection)
    assert book.discarded == {}
    assert book.delivered == 5
    assert state.last_success_ms is not None


def test_the_key_tells_what_it_vouches_for() -> None:
    """The link of an unproven event is another than a proven one's, under the same key."""
    digest, key = "d" * 64, KEY.encode()
    assert canonical.unproven_chain(canonical.GENESIS, digest, key) != canonical.chain(
        canonical.GENESIS, digest, key
    )


def test_what_was_skipped_is_still_not_delivered(config: MakeConfig) -> None:
    """A salvaged outbox counts it as the damaged one did, and none of it as lost."""
    settings = config()
    make(settings)
    with closing(Outbox(settings)) as outbox:
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, 3, 1 << 20)
        outbox.run(settlement.settle(batch, (), None, {batch.rows[0].event_id}))
    change(settings.outbox_path, "SELECT 1")
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.reading() as connection:
        book = ledger.read(connection)
        assert (book.delivered, book.skipped, book.discarded.get("damage", 0)) == (7, 1, 0)
        assert verify.verify(connection).ok


def eventful(settings: APIConfig) -> None:
    """Make an outbox with events in every state, some of them erased, some removed."""
    with closing(Outbox(settings)) as outbox:
        for number in range(1, 13):
            user = f"user-{number % 3}"
            outbox.append(make_event("test.noted", {"n": number}, user_id=user))
        assert outbox.erase("user-0", {}).erased
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, 9, 1 << 20)
        letters = [settlement.DeadLetter(6, "invalid_event", "no"),
                   settlement.DeadLetter(7, "invalid_event", "no")]  # fmt: skip
        outbox.run(settlement.settle(batch, letters, None, {batch.rows[1].event_id}))
        outbox.run(dead_letters.discard([batch.rows[6].event_id]))
        assert outbox.erase("user-1", {}).erased
        outbox.append(make_event("test.noted", {"n": 13}))


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("seed", range(24))
def test_a_salvage_ends_in_a_sound_outbox_whichever_rows_are_lost(
    config: MakeConfig, seed: int, key: str | None
) -> None:
    """Also where what was erased comes over, and the event that names it does not."""
    settings = config(chain_key=key)
    eventful(settings)
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        seqs = [seq for (seq,) in connection.execute("SELECT seq FROM events")]
    chance = random.Random(seed)  # noqa: S311 - no secrets
    lost = [seqs[seed % len(seqs)], *chance.sample(seqs, chance.randrange(4))]
    for seq in lost:
        change(settings.outbox_path, "UPDATE events SET data = '?' WHERE seq = ?", seq)
    damage(settings.outbox_path)
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        report = verify.verify(connection, [key.encode()] if key else [])
        book = ledger.read(connection)
    assert report.problems == ()
    settled = book.delivered + book.skipped + book.pending + book.dead
    assert book.accepted == settled + sum(book.discarded.values())


def test_a_dead_letter_that_was_erased_comes_over_from_a_deleted_file(config: MakeConfig) -> None:
    """The event that named it was delivered, and so it is not carried over."""
    settings = config()
    with closing(Outbox(settings)) as outbox:
        outbox.append(make_event("test.noted", {"n": 1}, user_id="u"))
        outbox.erase("u", {})
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, 9, 1 << 20)
        outbox.run(settlement.settle(batch, [settlement.DeadLetter(1, "invalid_event", "no")]))
        settings.outbox_path.unlink()
        assert outbox.maintain(now=True)
        outbox.append(make_event("test.noted", {"n": 2}))
        with outbox.snapshot() as connection:
            assert data_of(connection) == ['{"erased":true}', '{"n":2}']
            assert verify.verify(connection).problems == ()
