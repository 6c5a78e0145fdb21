"""Events are deleted by age: no gap is reported, no new event is lost, and archives prove it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.support.collector import EventChain
from tests.support.former import id_at
from tracker import clock
from tracker.collector.batch import parse_batch
from tracker.collector.main import cli
from tracker.collector.partitioning import catalog
from tracker.collector.partitioning.ahead import make_ahead
from tracker.collector.partitioning.months import Month, time_of
from tracker.collector.prove import differences
from tracker.collector.retention import archived
from tracker.collector.retention.retaining import Retained, retain, selected
from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
OLD_MS = NOW_MS - 100 * DAY_MS
"""When what is to be deleted was recorded and received; the bound is 30 days ago."""
BEFORE_MS = NOW_MS - 30 * DAY_MS


class Client:
    """A client with one outbox, whose batches go right into the store."""

    def __init__(self, store: Store, client_id: str | None = None) -> None:
        self.store = store
        self.client_id = client_id or f"client-{uuid.uuid4()}"
        self.chain = EventChain()

    def make(self, count: int, time_ms: int, **fields: Any) -> list[dict[str, Any]]:
        """Return the next events, recorded at a time."""
        return [self.chain.event(event_id=id_at(time_ms), **fields) for _ in range(count)]

    def send(self, events: list[Any], received_ms: int = NOW_MS) -> tuple[int, int]:
        """Send a batch; return how many were accepted, and how many were there before."""
        body = json.dumps(self.chain.batch(events, self.client_id)).encode()
        stored = self.store.store_batch(parse_batch(body, self.client_id), received_ms)
        return stored.accepted, stored.duplicates

    def seqs(self) -> list[int]:
        """Return the numbers of all events that are stored."""
        rows, _ = self.store.events_after(self.client_id, 0, 1_000, 10**6)
        return sorted(row["seq"] for row in rows)

    def report(self) -> Any:
        """Return the report on the outbox, for which all of it is read."""
        return self.store.outbox_report(self.client_id, self.chain.outbox_id, whole=True)


def delete_old(
    store: Store, folder: Path | None = None, client_id: str | None = None, type: str | None = None
) -> Retained:
    return retain(store, selected(store, BEFORE_MS, client_id, type), folder)


def test_what_was_deleted_by_age_is_no_gap(store: Store) -> None:
    """The report counts what is left, and goes on with what comes next."""
    client = Client(store)
    client.send(client.make(5, OLD_MS), OLD_MS)
    client.send(client.make(3, NOW_MS))
    done = delete_old(store)
    assert (done.events, done.deleted) == (5, 5)
    assert client.seqs() == [6, 7, 8]
    client.send(client.make(2, NOW_MS))
    for whole in (False, True):
        report = store.outbox_report(client.client_id, client.chain.outbox_id, whole=whole)
        assert (report.events, report.highest_seq, report.missing) == (5, 10, [])
        assert report.chain == "intact"
    assert delete_old(store).deleted == 0


@pytest.mark.parametrize("turn", [0, 1])
def test_a_clock_that_was_wrong_keeps_nothing_of_other_batches(store: Store, turn: int) -> None:
    """One replica is a year ahead, or behind: all that is counted as old is deleted."""
    client, other = Client(store), Client(store)
    for number in range(12):
        wrong = number % 2 == turn if number != 6 else turn == 0
        for each in (client, other):
            each.send(each.make(2, OLD_MS), OLD_MS + 365 * DAY_MS * wrong)
    done = delete_old(store)
    assert done.events == done.deleted
    assert delete_old(store).events == 0
    assert len(client.seqs()) == len(other.seqs()) == 24 - done.deleted // 2 > 0
    assert client.report().missing == []


def test_a_deleted_event_that_comes_again_is_a_duplicate(store: Store) -> None:
    """It is not stored a second time, as part of a batch with new ones or alone."""
    client = Client(store)
    old, new = client.make(3, OLD_MS), client.make(2, NOW_MS)
    client.send(old, OLD_MS)
    delete_old(store)
    assert client.send(old) == (0, 3)
    assert client.send([*old[1:], *new]) == (2, 2)
    assert client.seqs() == [4, 5]


def test_a_number_that_never_came_is_stored_when_it_comes(store: Store) -> None:
    """Like a dead letter that is sent at last: only what was here counts as a duplicate."""
    client = Client(store)
    old = client.make(5, OLD_MS)
    client.send([*old[:2], *old[3:]], OLD_MS)
    client.send(client.make(1, NOW_MS))
    delete_old(store)
    assert client.report().missing == [(3, 3)]
    assert client.send(old) == (1, 4)
    assert client.seqs() == [3, 6]
    assert client.report().missing == []


def test_what_a_restored_copy_records_is_stored(store: Store) -> None:
    """It gives numbers a second time, to new events; none of these was ever here."""
    client = Client(store)
    old = client.make(5, OLD_MS)
    client.send(old, OLD_MS)
    delete_old(store)
    client.chain.seq, client.chain.chain = old[1]["seq"], old[1]["chain"]
    assert client.send(client.make(2, NOW_MS)) == (2, 0)
    assert client.seqs() == [3, 4]


def test_what_says_why_others_are_gone_is_kept(store: Store) -> None:
    """Erasures, and numbers that a device gave up, whatever their age and the filter."""
    client = Client(store)
    erased = client.make(1, OLD_MS)
    named = {"event_ids": [erased[0]["event_id"]], "subject": "u"}
    kept = client.make(1, OLD_MS, data=named, type="compliance.erased")
    given_up = {"reason": "discarded", "ranges": [[3, 3]]}
    client.make(1, OLD_MS)
    kept += client.make(1, OLD_MS, data=given_up, type="events.discarded")
    client.send([*erased, *kept], OLD_MS)
    before = client.report()
    assert before.discarded == [(3, 3)]
    assert delete_old(store).deleted == 1
    assert client.seqs() == [2, 4]
    after = client.report()
    assert (after.missing, after.discarded) == (before.missing, before.discarded)
    # The event was erased, so what comes again has to be.
    assert client.send(erased) in ((0, 1), (1, 0))
    rows, _ = store.events_after(client.client_id, 0, 10, 10**6)
    assert all("hé" not in row["data"] for row in rows)


def test_only_events_of_a_client_or_a_type_are_deleted(store: Store) -> None:
    """The others stay, and no number between them is missing."""
    one, two = Client(store), Client(store)
    for client in (one, two):
        for each in ("llm.used", "message.logged", "llm.called", "llm.used"):
            client.send(client.make(1, OLD_MS, type=each), OLD_MS)
    assert delete_old(store, client_id=one.client_id, type="llm.used").deleted == 2
    assert (one.seqs(), two.seqs()) == ([2, 3], [1, 2, 3, 4])
    assert one.report().missing == []
    assert delete_old(store, type="llm.*").deleted == 1 + 3
    assert (one.seqs(), two.seqs()) == ([2], [2])
    assert two.report().missing == []


def test_archives_prove_what_was_deleted_and_that_it_joins_what_is_left(
    store: Store, tmp_path: Path
) -> None:
    """Every file, digest and link; a change of any of it is found."""
    folder = tmp_path / "archive"
    client = Client(store)
    for received_ms in (OLD_MS, OLD_MS + 60 * DAY_MS, NOW_MS):
        client.send(client.make(4, received_ms), received_ms)
    first = retain(store, selected(store, OLD_MS + DAY_MS, None, None), folder)
    assert (first.deleted, len(list(folder.glob("*.json")))) == (4, 1)
    second = delete_old(store, folder)
    assert (second.deleted, client.seqs()) == (4, [9, 10, 11, 12])
    with store.reading() as connection:
        proved = archived.check(folder, connection)
    assert proved == archived.Proved(archives=2, events=8, links=4 + 3, joins=2)
    (file, _) = sorted(folder.glob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert "has changed" in " ".join(archived.check(folder).problems)
    file.unlink()
    assert "is missing" in " ".join(archived.check(folder).problems)


def test_a_changed_event_in_an_archive_is_found(store: Store, tmp_path: Path) -> None:
    """Even if its file's SHA-256 was changed in the manifest: digest and chain say it."""
    import pyarrow
    from pyarrow import parquet

    client = Client(store)
    client.send(client.make(4, OLD_MS), OLD_MS)
    delete_old(store, tmp_path)
    (file,), (manifest,) = tmp_path.glob("*.parquet"), tmp_path.glob("*.json")
    rows = parquet.read_table(file).to_pylist()
    rows[2]["data"] = rows[2]["data"].replace("user", "agent")
    rows[1]["digest"] = rows[0]["digest"]
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    told = json.loads(manifest.read_text())
    told["files"][0]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(told))
    said = " ".join(archived.check(tmp_path).problems)
    assert f"event {rows[2]['event_id']} has not the digest" in said
    assert "is broken at 2" in said


def run(database: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["retain", *arguments, "--database", database])


def test_the_command_asks_and_tells(database: str, tmp_path: Path) -> None:
    """Only with --yes, where nobody can be asked; a dry run changes nothing."""
    store = Store(database)
    client = Client(store, "kiosk")
    client.send(client.make(3, OLD_MS), OLD_MS)
    assert run(database, "--days", "30").exit_code == 2
    dry = json.loads(run(database, "--days", "30", "--dry-run", "--json").stdout)
    assert (dry["events"], dry["deleted"]) == (3, 0)
    refused = run(database, "--days", "30", "--type", "compliance.*", "--yes")
    assert (refused.exit_code, "are kept" in refused.stderr) == (2, True)
    folder = tmp_path / "archive"
    done = run(database, "--days", "30", "--archive", str(folder), "--yes")
    assert done.exit_code == 0, done.output
    assert "3 events deleted" in done.stdout
    assert "archived: " in done.stdout
    assert client.seqs() == []
    store.close()


def test_an_archive_that_cannot_be_written_deletes_nothing(database: str, tmp_path: Path) -> None:
    """It says why; the events are still there."""
    store = Store(database)
    client = Client(store)
    client.send(client.make(3, OLD_MS), OLD_MS)
    (tmp_path / "file").write_text("in the way")
    refused = run(database, "--days", "30", "--archive", str(tmp_path / "file" / "a"), "--yes")
    assert (refused.exit_code, "nothing was deleted" in refused.stderr) == (1, True)
    assert client.seqs() == [1, 2, 3]
    store.close()


@contextmanager
def sending(clients: list[Client]) -> Iterator[Counter[Client]]:
    """Let clients send while the block lasts; yield how many events were accepted of each."""
    begun, ended = threading.Event(), threading.Event()
    sent: Counter[Client] = Counter()

    def send(client: Client) -> None:
        while not ended.is_set():
            sent[client] += client.send(client.make(2, NOW_MS))[0]
            begun.set()

    with ThreadPoolExecutor(len(clients)) as pool:
        running = [pool.submit(send, client) for client in clients]
        try:
            assert begun.wait(30)
            yield sent
        finally:
            ended.set()
        for each in running:
            each.result()


def assert_complete(client: Client, count: int) -> None:
    """Check that the account says so many events and no gap, and that the events say the same."""
    report = client.store.outbox_report(client.client_id, client.chain.outbox_id)
    assert (report.events, report.missing, report.chain) == (count, [], "intact")
    assert differences(client.store, client.client_id, client.chain.outbox_id) == []


def test_accounts_stay_right_while_batches_come(store: Store) -> None:
    """Whatever is deleted beside them, in a partition or in slices."""
    clients = [Client(store) for _ in range(3)]
    for client in clients:
        client.send(client.make(40, OLD_MS), OLD_MS)
    with sending(clients) as sent:
        assert delete_old(store).deleted == 3 * 40
    for client in clients:
        assert_complete(client, sent[client])


@pytest.mark.slow
def test_a_month_of_twelve_is_dropped_and_nothing_is_missed(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its partition. What a wild clock dated then, and was received today, stays."""
    year_ago_ms = NOW_MS - 370 * DAY_MS
    with monkeypatch.context() as patch:
        patch.setattr(clock, "wall", lambda: year_ago_ms / 1000)
        store = Store(postgres_server.new_database())
    make_ahead(store, year_ago_ms, ahead=14)
    clients = [Client(store) for _ in range(3)]
    month, months = Month.of(year_ago_ms), []
    while month <= Month.of(NOW_MS):
        months.append(month)
        for client in clients:
            time_ms = time_of(month.lower) + DAY_MS
            client.send(client.make(4, time_ms), time_ms)
        month = month.next
    wild = clients[0].make(1, time_of(months[1].lower) + DAY_MS)
    clients[0].send(wild)
    bound_ms = time_of(months[2].lower)
    with sending(clients) as sent:
        done = retain(store, selected(store, bound_ms, None, None), tmp_path)
    assert done.partitions == [catalog.EARLIER, months[0].table]
    assert done.deleted == 2 * 3 * 4
    for client in clients:
        assert_complete(client, 4 * (len(months) - 2) + (client is clients[0]) + sent[client])
    assert wild[0]["seq"] in clients[0].seqs()
    with store.reading() as connection:
        assert archived.check(tmp_path, connection).problems == []
        names = [each.name for each in catalog.partitions(connection)]
    assert months[0].table not in names
    assert clients[1].send(clients[1].make(2, NOW_MS)) == (2, 0)
    store.close()
