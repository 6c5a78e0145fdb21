"""The outbox held against what a collector has: what differs, and what may."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import an_event, fill, settle
from tracker.outbox.integrity.compare import Comparison, Held
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, dead_letters, settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import MakeConfig
    from tracker import APIConfig

PAGE = 3


class FakeCollector:
    """Holds events, and answers in pages of `PAGE`."""

    def __init__(self, held: list[Held]) -> None:
        self.held = held
        self.refused: list[tuple[int, int]] = []
        self.asked: list[int] = []
        self.on_ask: Callable[[], None] = lambda: None

    def after(self, seq: int) -> list[Held]:
        self.asked.append(seq)
        page = [held for held in self.held if held.seq > seq][:PAGE]
        self.on_ask()
        return page

    def elsewhere(self, digests: Mapping[str, str], first_ms: int, last_ms: int) -> set[str]:
        return set()

    def given_up(self) -> list[tuple[int, int]]:
        return self.refused

    def change(self, seq: int, **fields: Any) -> None:
        self.held = [held._replace(**fields) if held.seq == seq else held for held in self.held]

    def lose(self, *seqs: int) -> None:
        self.held = [held for held in self.held if held.seq not in seqs]


@pytest.fixture
def outbox(config: MakeConfig) -> Iterator[Outbox]:
    """Ten events: eight delivered, seq 4 of them refused; two pending."""
    fill(config(), 10)
    settle(config(), 8, dead=[4])
    opened = Outbox(config())
    yield opened
    opened.close()


@pytest.fixture
def collector(outbox: Outbox) -> FakeCollector:
    """A collector that holds what was delivered."""
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT seq, event_id, digest, chain FROM events WHERE delivered_at_ms IS NOT NULL"
        )
        return FakeCollector([Held(*row) for row in rows])


def found(
    outbox: Outbox, collector: FakeCollector, chunk: int = 4_000
) -> list[tuple[int | None, str]]:
    with outbox.snapshot() as connection:
        problems = list(Comparison(connection, collector, chunk).problems())
    assert {problem.kind for problem in problems} <= {"collector", "copy"}
    return [(problem.seq, problem.message) for problem in problems]


def kinds(outbox: Outbox, collector: FakeCollector) -> list[tuple[int | None, str]]:
    with outbox.snapshot() as connection:
        problems = list(Comparison(connection, collector).problems())
    return [(problem.seq, problem.kind) for problem in problems]


def test_the_same_on_both_sides(outbox: Outbox, collector: FakeCollector) -> None:
    """Pending events and dead letters need not be there; all pages are read."""
    assert found(outbox, collector) == []
    assert collector.asked == [0, 3, 7, 8]


def test_pending_events_may_be_there_already(outbox: Outbox, collector: FakeCollector) -> None:
    """Their receipt was lost; they are compared all the same."""
    with outbox.reading() as connection:
        row = connection.exec_driver_sql(
            "SELECT seq, event_id, digest, chain FROM events WHERE seq = 9"
        ).one()
    collector.held.append(Held(*row))
    assert found(outbox, collector) == []
    collector.change(9, digest="0" * 64)
    assert [seq for seq, _ in found(outbox, collector)] == [9]


def test_skipped_events_need_not_be_there(outbox: Outbox, collector: FakeCollector) -> None:
    """An earlier destination was not to get them; the collector of today never did."""
    with outbox.reading() as connection:
        batch = batches.next_batch(connection, 1, 10**7)
    outbox.run(settlement.settle(batch, [], None, {batch.rows[0].event_id}))
    assert batch.rows[0].seq == 9
    assert found(outbox, collector) == []


@pytest.mark.parametrize("fields", [{"digest": "0" * 64}, {"chain": "f" * 64}])
def test_what_differs_is_named(
    outbox: Outbox, collector: FakeCollector, fields: dict[str, str]
) -> None:
    """Digest or chain value."""
    collector.change(5, **fields)
    ((seq, message),) = found(outbox, collector)
    assert seq == 5
    assert ("digest" if "digest" in fields else "chain value") in message


@pytest.mark.parametrize("lost", [(1,), (5, 6), (8,), (1, 2, 3, 5, 6, 7, 8)])
def test_what_the_collector_does_not_hold(
    outbox: Outbox, collector: FakeCollector, lost: tuple[int, ...]
) -> None:
    """First, in the middle, last, or all of it."""
    collector.lose(*lost)
    assert [seq for seq, _ in found(outbox, collector)] == list(lost)


@pytest.mark.parametrize("lost", [(1,), (5, 6), (8, 9, 10), range(1, 11)])
def test_what_the_outbox_lost(
    outbox: Outbox, collector: FakeCollector, config: MakeConfig, lost: tuple[int, ...]
) -> None:
    """The collector holds it: cut out at any place, the end included."""
    with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as connection:
        connection.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in lost])
    delivered = [held.seq for held in collector.held]
    assert [seq for seq, _ in found(outbox, collector)] == [s for s in lost if s in delivered]


def test_removed_events_are_no_loss(
    outbox: Outbox, collector: FakeCollector, config: MakeConfig
) -> None:
    """Pruned after delivery; but the chain value that was kept in their place must be the same."""
    assert outbox.prune(retention_days=-1) == 7
    assert found(outbox, collector) == []
    collector.change(8, chain="f" * 64)
    ((seq, message),) = found(outbox, collector)
    assert (seq, "removed event" in message) == (8, True)


def test_a_seq_that_was_given_twice(outbox: Outbox, collector: FakeCollector) -> None:
    """The event that the outbox does not know is named."""
    other = an_event()
    at = [held.seq for held in collector.held].index(5)
    collector.held.insert(at, Held(5, other.event_id, other.digest, "0" * 64))
    ((seq, message),) = found(outbox, collector)
    assert (seq, other.event_id in message) == (5, True)


def test_what_a_copy_of_the_file_has_sent_is_told_from_a_change(
    outbox: Outbox, collector: FakeCollector
) -> None:
    """Other events under the seqs of pending ones; beyond them nobody can tell."""
    for seq in (9, 10, 11):
        other = an_event()
        collector.held.append(Held(seq, other.event_id, other.digest, "0" * 64))
    assert kinds(outbox, collector) == [(9, "copy"), (10, "copy"), (11, "collector")]
    assert "or a copy of the outbox's file has sent it" in found(outbox, collector)[-1][1]


def test_what_is_delivered_meanwhile_is_not_missed(
    outbox: Outbox, collector: FakeCollector, config: MakeConfig
) -> None:
    """The collector is asked before the outbox is read, and again before it is blamed."""
    late = collector.held[-1]
    collector.lose(late.seq)

    def deliver() -> None:
        if collector.asked[-1] >= late.seq - 1 and late not in collector.held:
            collector.held.append(late)

    collector.on_ask = deliver
    assert found(outbox, collector) == []


def test_many_more_events_here_than_there(outbox: Outbox, collector: FakeCollector) -> None:
    """The outbox is read in chunks, and nothing is named twice or left out."""
    assert found(outbox, collector, chunk=2) == []
    collector.lose(1, 2, 3, 5, 6, 7)
    assert [seq for seq, _ in found(outbox, collector, chunk=2)] == [1, 2, 3, 5, 6, 7]


def discarded(outbox: Outbox) -> None:
    """Give up the pending events 9 and 10; event 11 says so."""
    assert outbox.run(retention.discard_oldest) == 2


def test_what_was_given_up_and_told_is_no_problem(outbox: Outbox, collector: FakeCollector) -> None:
    """The event that names it may be on its way; a dead letter that was discarded names one too."""
    discarded(outbox)
    assert outbox.run(dead_letters.discard()) == 1
    assert found(outbox, collector) == []


def test_what_was_given_up_and_not_told_is_named(
    outbox: Outbox, collector: FakeCollector, config: MakeConfig
) -> None:
    """Removed as the tracker removes it, account and all, but by somebody else."""
    discarded(outbox)
    fill(config(), 3)
    forge_removal(config(), 13, 14)
    ((seq, message),) = found(outbox, collector)
    assert seq == 13
    said = "are neither pending here nor at the collector, and no event says why"
    assert message == f"events 13 to 14 {said}"


def forge_removal(settings: APIConfig, first: int, last: int) -> None:
    with closing(sqlite3.connect(settings.outbox_path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO gaps (first_seq, last_seq, chain) "
            "SELECT ?, seq, chain FROM events WHERE seq = ?",
            (first, last),
        )
        connection.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", (first, last))


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE events SET dead_at_ms = 5",
        'UPDATE events SET data = \'{"reason":"x","ranges":[[9,99]]}\'',
        "UPDATE identity SET outbox_id = 'another'",
    ],
)
def test_only_an_event_of_this_outbox_that_is_sent_explains_it(
    outbox: Outbox, collector: FakeCollector, config: MakeConfig, edit: str
) -> None:
    """Not one that was refused, changed, or that another outbox has said."""
    discarded(outbox)
    where = "" if "identity" in edit else " WHERE type = 'events.discarded'"
    with closing(sqlite3.connect(config().outbox_path, isolation_level=None)) as connection:
        connection.execute(edit + where)
    assert [seq for seq, _ in found(outbox, collector)] == [9]


@pytest.mark.parametrize(("explained", "left"), [((9, 10), []), ((1, 9), [10]), ((10, 99), [9])])
def test_the_collectors_word_explains_it(
    outbox: Outbox,
    collector: FakeCollector,
    config: MakeConfig,
    explained: tuple[int, int],
    left: list[int],
) -> None:
    """What it refused, or what an event names that is pruned here; not more than that."""
    forge_removal(config(), 9, 10)
    assert [seq for seq, _ in found(outbox, collector)] == [9]
    collector.refused = [explained]
    assert [seq for seq, _ in found(outbox, collector)] == left


def test_what_is_sent_and_pruned_meanwhile_is_there(
    outbox: Outbox, collector: FakeCollector, config: MakeConfig
) -> None:
    """The collector is asked again before anything is said to be missing there."""
    with outbox.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT seq, event_id, digest, chain FROM events WHERE seq > 8"
        ).all()

    def deliver() -> None:
        if len(collector.asked) == 4:  # the last page is empty, and only then it happens
            collector.held += [Held(*row) for row in rows]
            settle(config(), 2)
            outbox.run(retention.free_delivered(8))

    collector.on_ask = deliver
    assert found(outbox, collector) == []
