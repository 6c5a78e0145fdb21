"""The outbox's promises: states, account, chain, removal, size policy and storage trouble."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from tracker import canonical
from tracker.errors import OutboxError, OutboxFullError, TrackerClosedError
from tracker.events import Event, make_event
from tracker.outbox.integrity import verify
from tracker.outbox.maintenance import retention
from tracker.outbox.maintenance.size_limit import SizeLimit
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, dead_letters, settlement
from tracker.outbox.queue.settlement import DeadLetter
from tracker.outbox.sqlite.engine import OutboxConnection
from tracker.outbox.store import ledger
from tracker.outbox.store.memory_buffer import MemoryBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracker import APIConfig
    from tracker.outbox.queue.batches import Batch
    from tracker.outbox.store.ledger import Account


@pytest.fixture
def outbox(config: Callable[..., APIConfig]) -> Iterator[Outbox]:
    opened = Outbox(config(on_error="raise"))
    yield opened
    opened.close()


def fill(outbox: Outbox, count: int, size: int = 10) -> None:
    for number in range(count):
        outbox.append(make_event("test.noted", {"n": number, "text": "x" * size}))


def batch(outbox: Outbox, most: int = 500, size: int = 10**7) -> Batch:
    with outbox.reading() as connection:
        return batches.next_batch(connection, most, size)


def deliver(outbox: Outbox, most: int = 500, dead: Sequence[int] = ()) -> None:
    letters = [DeadLetter(seq, "invalid_event", "no") for seq in dead]
    outbox.run(settlement.settle(batch(outbox, most), letters))


def book(outbox: Outbox) -> Account:
    with outbox.reading() as connection:
        return ledger.read(connection)


def problems(outbox: Outbox) -> list[tuple[int | None, str]]:
    with outbox.snapshot() as connection:
        return [(found.seq, found.kind) for found in verify.verify(connection).problems]


def seqs(outbox: Outbox) -> list[int]:
    with outbox.reading() as connection:
        return [seq for (seq,) in connection.exec_driver_sql("SELECT seq FROM events")]


def discards(outbox: Outbox) -> list[tuple[int, str, list[list[int]]]]:
    """Return seq, reason and ranges of each event that names what was given up."""
    query = "SELECT seq, data FROM events WHERE type = 'events.discarded' ORDER BY seq"
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql(query).all()
    said = [(seq, canonical.decode(data)) for seq, data in rows]
    assert {each["outbox_id"] for _, each in said} <= {outbox.owner.outbox_id}
    return [(seq, each["reason"], each["ranges"]) for seq, each in said]


def edit(outbox: Outbox, statement: str) -> None:
    """Do what somebody with a SQLite tool could do."""
    with closing(sqlite3.connect(outbox.path)) as connection, connection:
        connection.execute(statement)


def test_files_are_private_under_any_umask(
    config: Callable[..., APIConfig], tmp_path: Path
) -> None:
    """A new folder is 0700 and every file of the outbox 0600, even under umask 000."""
    before = os.umask(0)
    try:
        outbox = Outbox(config(outbox_path=tmp_path / "folder" / "outbox.sqlite3"))
        fill(outbox, 1)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in outbox.path.parent.iterdir()
        }
        outbox.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert {"outbox.sqlite3", "outbox.sqlite3-wal", "outbox.sqlite3-shm"} <= set(modes)


def test_a_batch_is_bounded_and_in_order(outbox: Outbox) -> None:
    """A batch holds the oldest pending events, within both bounds, and at least one."""
    fill(outbox, 10, size=1000)
    whole = batch(outbox)
    assert [row.seq for row in whole.rows] == list(range(1, 11))
    assert not whole.more
    assert [row.seq for row in batch(outbox, most=3).rows] == [1, 2, 3]
    halved = batch(outbox, size=whole.size // 2)
    assert [row.seq for row in halved.rows] == [1, 2, 3, 4, 5]
    assert halved.more
    assert [row.seq for row in batch(outbox, size=1).rows] == [1]


def test_settled_events_never_come_back(outbox: Outbox) -> None:
    """Delivered events and dead letters are out of the way; the rest follows in order."""
    fill(outbox, 6)
    deliver(outbox, most=3, dead=(2,))
    assert [row.seq for row in batch(outbox).rows] == [4, 5, 6]
    assert book(outbox) == ledger.Account(6, delivered=2, pending=3, dead=1)


def test_a_retry_while_a_batch_is_under_way(outbox: Outbox) -> None:
    """A dead letter retried during a request is not taken for delivered with it."""
    fill(outbox, 5)
    deliver(outbox, most=3, dead=(2,))
    under_way = batch(outbox)
    assert outbox.run(dead_letters.retry()) == 1
    outbox.run(settlement.settle(under_way))
    assert [row.seq for row in batch(outbox).rows] == [2]
    assert book(outbox) == ledger.Account(5, delivered=4, pending=1, dead=0)
    deliver(outbox)
    assert book(outbox).pending == 0
    assert problems(outbox) == []


def test_a_receipt_recorded_twice_counts_once(outbox: Outbox) -> None:
    """Two uploaders that sent the same batch do not count it twice."""
    fill(outbox, 4)
    twice = batch(outbox)
    assert outbox.run(settlement.settle(twice)) == 4
    assert outbox.run(settlement.settle(twice)) == 0
    assert book(outbox) == ledger.Account(4, delivered=4)


def test_discarded_dead_letters_are_counted(outbox: Outbox) -> None:
    """Discarding deletes the rows, keeps the chain whole, and the account says who did it."""
    fill(outbox, 4)
    deliver(outbox, dead=(2, 4))
    assert outbox.run(dead_letters.discard()) == 2
    assert seqs(outbox) == [1, 3, 5]
    assert discards(outbox) == [(5, "operator", [[2, 2], [4, 4]])]
    assert book(outbox).discarded == {"operator": 2}
    fill(outbox, 1)
    assert seqs(outbox) == [1, 3, 5, 6], "the newest seq is not given twice"
    assert problems(outbox) == []


def test_a_damaged_row_is_not_sent(outbox: Outbox) -> None:
    """A row that no longer matches its digest is left out of the batch and named."""
    fill(outbox, 3)
    edit(outbox, "UPDATE events SET data = '{\"n\":7}' WHERE seq = 2")
    found = batch(outbox)
    assert [row.seq for row in found.rows] == [1, 3]
    assert found.damaged == [2]


@pytest.mark.parametrize(
    ("tampering", "place"),
    [
        ("UPDATE events SET data = replace(data, 'x', 'y') WHERE seq = 3", (3, "digest")),
        ("UPDATE events SET timestamp_ms = timestamp_ms + 1 WHERE seq = 3", (3, "digest")),
        ("UPDATE events SET user_id = 'somebody' WHERE seq = 3", (3, "digest")),
        ("DELETE FROM events WHERE seq = 3", (3, "gap")),
        ("DELETE FROM events WHERE seq BETWEEN 1 AND 2", (1, "gap")),
        ("UPDATE events SET chain = digest WHERE seq = 3", (3, "chain")),
        ("UPDATE events SET delivered_at_ms = 1 WHERE seq = 3", (None, "account")),
        ("UPDATE events SET seq = -1 WHERE seq = 3", (3, "gap")),
    ],
)
def test_tampering_is_found_at_its_place(
    outbox: Outbox, tampering: str, place: tuple[int | None, str]
) -> None:
    """Whatever is changed or cut out by hand, `verify` says where."""
    fill(outbox, 5, size=30)
    assert problems(outbox) == []
    edit(outbox, tampering)
    assert place in problems(outbox)


def test_pruning_keeps_what_is_not_delivered(outbox: Outbox) -> None:
    """Only delivered events past their time go; gaps are no tampering; seq goes on."""
    fill(outbox, 450)
    deliver(outbox, most=300, dead=(7, 250))
    assert outbox.prune(retention_days=1) == 0, "delivered just now"
    edit(outbox, "UPDATE events SET delivered_at_ms = delivered_at_ms - 172800000 WHERE seq <= 290")
    assert outbox.prune(retention_days=1) == 288
    assert seqs(outbox) == [7, 250, *range(291, 452)], "451 says what was removed"
    assert problems(outbox) == []
    assert book(outbox) == ledger.Account(451, delivered=298, pending=151, dead=2)
    deliver(outbox)
    assert outbox.prune(retention_days=-1) == 161
    assert seqs(outbox) == [7, 250, 452]
    assert problems(outbox) == []


def test_pruning_gives_space_back(outbox: Outbox) -> None:
    """After pruning the file is smaller."""
    fill(outbox, 500, size=2000)
    deliver(outbox)
    with closing(sqlite3.connect(outbox.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = outbox.path.stat().st_size
    assert outbox.prune(retention_days=-1) == 500
    outbox.close()
    assert outbox.path.stat().st_size < before / 4


@pytest.mark.parametrize("rewritten", [True, False])
def test_a_file_that_is_nearly_empty_is_written_anew(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, rewritten: bool
) -> None:
    """SQLite takes hours to give millions of pages back one by one: only where there is no room."""
    monkeypatch.setattr(SizeLimit, "many_pages", 50)
    fill(outbox, 500, size=1000)
    deliver(outbox)
    fill(outbox, 3)
    rewrites = []
    rewrite = outbox.rewrite

    def note() -> bool:
        if not rewritten:
            raise OutboxError("no room for it")
        rewrites.append(rewrite())
        return rewrites[-1]

    monkeypatch.setattr(outbox, "rewrite", note)
    before = outbox.path.stat().st_size
    assert outbox.prune(retention_days=-1) == 500
    outbox.empty_log()
    assert outbox.path.stat().st_size < before / 4
    assert rewrites == ([True] if rewritten else [])
    fill(outbox, 2)
    assert problems(outbox) == []
    assert book(outbox).pending == 6, "three, the report, and two"


def test_a_receipt_that_comes_after_the_outbox_was_replaced_counts_by_event_id(
    outbox: Outbox, config: Callable[..., APIConfig]
) -> None:
    """The rows that came over have other numbers there, and some did not come at all."""
    for number in range(4):
        outbox.append(make_event("test.noted", {"n": number}))
    with outbox.reading() as connection:
        sent = batches.next_batch(connection, 500, 1 << 22)
        rows = connection.exec_driver_sql("SELECT * FROM events ORDER BY seq").mappings().all()
    replacement = Outbox(config(outbox_path=outbox.path.with_name("replacement.sqlite3")))
    replacement.append(make_event("test.noted", {"n": "new"}))
    for row in (rows[3], rows[1], rows[2]):
        fields = {name: row[name] for name in Event._fields}
        replacement.append(Event(**fields))
    replacement.run(
        settlement.settle(sent, [DeadLetter(2, "odd", "the second"), DeadLetter(1, "odd", "")])
    )
    with replacement.reading() as connection:
        left = connection.exec_driver_sql("SELECT seq FROM pending ORDER BY seq").scalars().all()
        dead = connection.exec_driver_sql("SELECT event_id, message FROM dead_letters").all()
    assert left == [1]
    assert dead == [(rows[1]["event_id"], "the second")]
    assert book(replacement) == ledger.Account(4, delivered=2, pending=1, dead=1)
    replacement.close()


def test_size_policy_refuse(
    config: Callable[..., APIConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the bound new events are refused, delivered ones make room first, none is lost."""
    monkeypatch.setattr(SizeLimit, "check_again_seconds", 0.0)
    outbox = Outbox(config(on_error="raise", max_outbox_bytes=1024 * 1024))
    with pytest.raises(OutboxFullError, match=r"max_outbox_bytes \(1,048,576\)"):
        fill(outbox, 2000, size=1000)
    stored = book(outbox).accepted
    assert 500 < stored < 2000
    deliver(outbox, most=300)
    fill(outbox, 100, size=1000)
    assert book(outbox) == ledger.Account(stored + 100, delivered=300, pending=stored - 200)
    assert problems(outbox) == []
    outbox.close()


@pytest.mark.usefixtures("impatient")
def test_what_a_full_outbox_never_took_is_in_the_account_after_its_end(
    config: Callable[..., APIConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Events wait in memory for room; if the program ends first, they are counted as discarded."""
    outbox = Outbox(config(max_outbox_bytes=1024 * 1024))
    with caplog.at_level(logging.ERROR, logger="tracker"):
        fill(outbox, 1500, size=1000)
        waiting = outbox.buffered
        outbox.close()
    assert waiting > 0
    assert f"{waiting:d} events in memory are lost" in caplog.text
    again = Outbox(config())
    assert book(again) == ledger.Account(
        1500, pending=1500 - waiting, discarded={"memory_buffer": waiting}
    )
    assert problems(again) == []
    again.close()


def test_size_policy_discard_oldest(config: Callable[..., APIConfig]) -> None:
    """The oldest pending events make room, and every one of them is counted."""
    outbox = Outbox(
        config(on_error="raise", max_outbox_bytes=1024 * 1024, outbox_full="discard_oldest")
    )
    fill(outbox, 2000, size=1000)
    stands = book(outbox)
    rounds = stands.accepted - 2000
    discarded = stands.discarded["size_policy"]
    assert (rounds, discarded) == (discarded // 200, stands.accepted - stands.pending)
    assert sorted(seqs(outbox)) == list(range(discarded + 1, stands.accepted + 1))
    assert problems(outbox) == []
    outbox.close()


def test_what_is_given_up_is_named_for_the_receiver(outbox: Outbox) -> None:
    """By one event a round, which names what an earlier one did that is given up itself."""
    fill(outbox, 3)
    assert outbox.run(retention.discard_oldest) == 3
    assert discards(outbox) == [(4, "size_policy", [[1, 3]])]
    fill(outbox, 2)
    assert outbox.run(retention.discard_oldest) == 3, "the event about the others counts as well"
    assert discards(outbox) == [(7, "size_policy", [[1, 6]])]
    assert book(outbox) == ledger.Account(7, pending=1, discarded={"size_policy": 6})
    assert problems(outbox) == []


def test_an_event_about_events_given_up_is_not_given_up_by_itself(outbox: Outbox) -> None:
    """Or a full outbox would replace it for ever, and never say that it is full."""
    fill(outbox, 1)
    assert outbox.run(retention.discard_oldest) == 1
    assert outbox.run(retention.discard_oldest) == 0
    assert discards(outbox) == [(2, "size_policy", [[1, 1]])]


def test_each_reason_keeps_its_own_event(outbox: Outbox) -> None:
    """An operator's discards that are given up for room stay the operator's."""
    fill(outbox, 4)
    deliver(outbox, dead=(2, 4))
    assert outbox.run(dead_letters.discard()) == 2
    fill(outbox, 1)
    assert outbox.run(retention.discard_oldest) == 2
    assert discards(outbox) == [(7, "size_policy", [[5, 6]]), (8, "operator", [[2, 2], [4, 4]])]


def test_what_somebody_slipped_in_is_not_named_again(config: Callable[..., APIConfig]) -> None:
    """Without the chain key nobody makes the tracker vouch for events that they cut out."""
    with closing(Outbox(config(chain_key="correct horse battery staple"))) as outbox:
        fill(outbox, 2)
        fields = {"reason": "size_policy", "ranges": [[500, 600]]}
        forged = make_event("events.discarded", fields)
        link = canonical.chain(canonical.GENESIS, forged.digest)
        with closing(sqlite3.connect(outbox.path, isolation_level=None)) as connection:
            names, signs = ", ".join(forged._fields), "?, " * len(forged)
            connection.execute(
                f"INSERT INTO events (seq, {names}, chain) VALUES (3, {signs}?)",  # noqa: S608 - constant text
                (*forged, link),
            )
        assert outbox.run(retention.discard_oldest) == 3
        assert discards(outbox) == [(4, "size_policy", [[1, 3]])]


def test_many_ranges_are_named_by_several_events(outbox: Outbox) -> None:
    """Each has at most a thousand, so that none grows too large to be sent."""
    fill(outbox, 2004)
    deliver(outbox, most=2004, dead=range(2, 2005, 2))
    assert outbox.run(dead_letters.discard()) == 1002
    (one, *_, first), (two, *_, second) = discards(outbox)
    assert (one, two) == (2005, 2006)
    assert [*first, *second] == [[seq, seq] for seq in range(2, 2005, 2)]
    assert len(first) == 1000


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["log", "deliver", "retry", "discard", "prune", "recount"]),
            st.integers(1, 6),
        ),
        max_size=25,
    )
)
def test_the_account_always_adds_up(
    config: Callable[..., APIConfig], tmp_path_factory: pytest.TempPathFactory, steps: Any
) -> None:
    """Whatever happens to events in whatever order, none goes unaccounted and the chain holds."""
    outbox = Outbox(config(outbox_path=tmp_path_factory.mktemp("steps") / "outbox.sqlite3"))
    logged = 0
    for step, number in steps:
        if step == "log":
            fill(outbox, number)
            logged += number
        elif step == "deliver":
            due = batch(outbox, most=number)
            if due.rows:
                dead = [DeadLetter(due.rows[-1].seq, "x", "y")] if number % 2 else []
                outbox.run(settlement.settle(due, dead))
        elif step == "retry":
            outbox.run(dead_letters.retry())
        elif step == "discard":
            before = book(outbox).accepted
            discarded = outbox.run(dead_letters.discard())
            logged += (reported := book(outbox).accepted - before)
            assert reported == (discarded > 0)
        elif step == "prune":
            before = book(outbox).accepted
            outbox.prune(retention_days=-1)
            logged += (reported := book(outbox).accepted - before)
            assert reported <= 1
        else:
            outbox.run(settlement.recount)
        stands = book(outbox)
        assert stands.accepted == logged
        assert logged == (
            stands.delivered + stands.pending + stands.dead + sum(stands.discarded.values())
        )
        assert len(batch(outbox).rows) == stands.pending
        assert problems(outbox) == []
    outbox.close()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB that really fills up."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mount)],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield mount
    # Lazily, or the mount would outlive a test that fails with files open: no later run of pytest
    # could remove its folder, and each would fail for that.
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


@needs_root
def test_full_disk_raises(config: Callable[..., APIConfig], small_disk: Path) -> None:
    """With `on_error="raise"` a full disk is an OutboxError, and what returned is all there."""
    outbox = Outbox(config(on_error="raise", outbox_path=small_disk / "outbox.sqlite3"))
    stored = 0

    def fill_up() -> None:
        nonlocal stored
        for number in range(5000):
            outbox.append(make_event("test.noted", {"n": number, "text": "x" * 1000}))
            stored += 1

    with pytest.raises(OutboxError, match="full"):
        fill_up()
    assert book(outbox).accepted == stored
    assert problems(outbox) == []
    outbox.close()


@needs_root
def test_full_disk_degrades_and_recovers(
    config: Callable[..., APIConfig],
    small_disk: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default events wait in memory while the disk is full and are written, in order, after."""
    monkeypatch.setattr(MemoryBuffer, "retry_seconds", 0.0)
    ballast = small_disk / "ballast"
    outbox = Outbox(config(outbox_path=small_disk / "outbox.sqlite3", memory_buffer_events=50))
    fill(outbox, 10)
    with caplog.at_level(logging.WARNING, logger="tracker"):
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        fill(outbox, 400, size=1000)
        assert outbox.buffered == 50
        lost = 410 - book(outbox).accepted - 50
        assert lost > 0
        ballast.unlink()
        fill(outbox, 1)
    assert outbox.buffered == 0
    assert book(outbox).discarded == {"memory_buffer": lost}
    assert book(outbox).accepted == 411
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0].split(";")[0] for line in said] == [
        "the outbox cannot be written",
        "the outbox cannot be written and the memory buffer is full (50 events)",
        "the outbox can be written again",
    ], "each thing is said once"
    with outbox.reading() as connection:
        kept = connection.exec_driver_sql(
            "SELECT json_extract(data, '$.n') FROM events WHERE seq > 10 ORDER BY seq"
        ).all()
    numbers = [n for (n,) in kept][:-1]
    assert numbers == sorted(numbers)
    outbox.close()


def test_no_descriptors_are_left(config: Callable[..., APIConfig]) -> None:
    """Opening, using and closing an outbox a hundred times leaves no file open."""
    descriptors = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112 - a count, not paths
    before = len(os.listdir(descriptors))  # noqa: PTH208 - a count, not paths
    for _ in range(100):
        outbox = Outbox(config())
        fill(outbox, 1)
        batch(outbox)
        outbox.close()
    assert len(os.listdir(descriptors)) <= before  # noqa: PTH208 - a count, not paths
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before


def test_two_retries_while_a_batch_is_under_way(outbox: Outbox) -> None:
    """Whatever is made pending behind a batch in flight comes next, the oldest first."""
    fill(outbox, 20)
    deliver(outbox, most=14, dead=(5, 10))
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql("SELECT seq, event_id FROM events").all()
    ids = {row.seq: row.event_id for row in rows}
    outbox.run(dead_letters.retry([ids[5]]))
    under_way = batch(outbox)
    outbox.run(dead_letters.retry([ids[10]]))
    outbox.run(settlement.settle(under_way))
    assert [row.seq for row in batch(outbox).rows] == [10]
    deliver(outbox)
    assert book(outbox).pending == 0


def test_a_delivery_in_the_future_does_not_stop_pruning(outbox: Outbox) -> None:
    """An event delivered by a clock that was wrong is kept from now on; those behind it go."""
    fill(outbox, 10)
    deliver(outbox)
    edit(outbox, "UPDATE events SET delivered_at_ms = delivered_at_ms - 172800000 WHERE seq > 1")
    edit(outbox, "UPDATE events SET delivered_at_ms = 4085000000000 WHERE seq = 1")
    assert outbox.prune(retention_days=1) == 9
    assert seqs(outbox) == [1, 11]
    assert outbox.prune(retention_days=0) <= 1
    assert problems(outbox) == []


def test_a_closed_outbox_stays_closed(config: Callable[..., APIConfig]) -> None:
    """A call that comes too late is refused; it must not open the file again."""
    outbox = Outbox(config())
    fill(outbox, 1)
    outbox.close()
    outbox.close()
    with pytest.raises(TrackerClosedError):
        fill(outbox, 1)
    with pytest.raises(TrackerClosedError):
        batch(outbox)
    with pytest.raises(TrackerClosedError), outbox.snapshot():
        pass


def test_an_interrupted_read_leaves_no_harm(outbox: Outbox) -> None:
    """Ctrl-C in a read does not spoil the connection for those that follow."""
    fill(outbox, 1)

    def interrupted() -> None:
        with outbox.reading() as connection:
            connection.exec_driver_sql("BEGIN")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(batch(outbox).rows) == 1


def lock_out(path: Path) -> sqlite3.Connection:
    """Hold SQLite's write lock as another program could."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.05)
    monkeypatch.setattr(MemoryBuffer, "retry_seconds", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("while_it", ["waits", "closes"])
def test_an_interrupted_pause_leaves_no_harm(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, while_it: str
) -> None:
    """Ctrl-C while a salvage waits for a long read: what is logged later is stored."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with ExitStack() as until_then:
        if while_it == "waits":
            until_then.enter_context(outbox.snapshot())
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            until_then.callback(signal.signal, signal.SIGINT, before)
            timer = threading.Timer(0.1, signal.pthread_kill, [get_ident(), signal.SIGINT])
            until_then.callback(timer.join)
            timer.start()
        else:
            patch = until_then.enter_context(monkeypatch.context())
            patch.setattr(outbox.connections, "close_reader", interrupted)
        with pytest.raises(KeyboardInterrupt):
            outbox.close_connections()
    threads = [
        threading.Thread(target=outbox.append, args=[make_event("test.noted", {})], daemon=True)
        for _ in range(2)
    ]
    before = outbox.health().accepted
    outbox.append(make_event("test.noted", {}))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outbox.health().accepted == before + 3


def test_a_lock_fails_a_whole_group_at_once(
    config: Callable[..., APIConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers that share a commit share its failure; they do not wait for it one by one."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 1.0)
    outbox = Outbox(config(on_error="raise"))
    fill(outbox, 1)
    attempts: list[Exception] = []
    begun: list[int] = []

    def begin(*_: object) -> None:
        begun.append(1)

    event.listen(Engine, "connect", begin)

    def try_it() -> None:
        with pytest.raises(OutboxError, match="locked") as caught:
            fill(outbox, 1)
        attempts.append(caught.value)

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    with closing(lock_out(outbox.path)) as other:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.execute("ROLLBACK")
    event.remove(Engine, "connect", begin)
    assert len(attempts) == 8
    assert len(begun) < 8
    outbox.close()


@pytest.mark.usefixtures("impatient")
def test_memory_is_written_out_in_order_from_many_threads(
    config: Callable[..., APIConfig],
) -> None:
    """When storage comes and goes under load, nothing sticks in memory and order is kept."""
    outbox = Outbox(config())
    fill(outbox, 1)
    stop = threading.Event()
    said: dict[int, int] = {}

    def work(thread: int) -> None:
        number = 0
        while not stop.is_set():
            outbox.append(make_event("test.noted", {"thread": thread, "n": number}))
            number += 1
        said[thread] = number

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        with closing(lock_out(outbox.path)) as other:
            stop.wait(0.2)  # longer than the busy timeout: calls fail meanwhile
            other.execute("ROLLBACK")
        stop.wait(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    outbox.drain_buffer()
    assert outbox.buffered == 0
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT json_extract(data, '$.thread'), json_extract(data, '$.n') FROM events "
            "WHERE seq > 1 ORDER BY seq"
        ).all()
    for number, count in said.items():
        assert [n for thread, n in rows if thread == number] == list(range(count))
    outbox.close()


@pytest.mark.usefixtures("impatient")
def test_closing_says_what_memory_takes_along(
    config: Callable[..., APIConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Events that could not be written by the end are counted in the log, not passed over."""
    outbox = Outbox(config())
    fill(outbox, 1)
    with closing(lock_out(outbox.path)), caplog.at_level(logging.ERROR, logger="tracker"):
        fill(outbox, 3)
        outbox.close()
    assert "3 events in memory are lost" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what a descriptor is")
@pytest.mark.parametrize("made_by", ["nobody", "a process that died", "a process that goes on"])
def test_new_folders_outlast_a_power_cut(
    config: Callable[..., APIConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_by: str
) -> None:
    """Before an event can be stored the folders above the outbox are synced, whoever made them."""
    synced: list[str] = []
    fsync = os.fsync
    path = tmp_path / "a" / "b" / "outbox.sqlite3"

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    if made_by != "nobody":
        path.parent.mkdir(parents=True)
    if made_by == "a process that goes on":
        path.touch()
    monkeypatch.setattr(os, "fsync", note)
    Outbox(config(outbox_path=path)).close()
    assert {str(tmp_path), str(tmp_path / "a"), str(path.parent)} <= set(synced)
    synced.clear()
    Outbox(config(outbox_path=path)).close()
    assert not {str(tmp_path), str(tmp_path / "a"), str(path.parent)} & set(synced), (
        "once is enough"
    )
