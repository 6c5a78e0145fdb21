"""Whatever is sent, in whatever order: the account of an outbox is what its events say."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from tests.support.collector import EventChain
from tracker import canonical, discards
from tracker.collector import accounts, discarded, insertion, rejections
from tracker.collector.batch import Batch, parse_batch
from tracker.collector.integrity import report
from tracker.collector.store import Store
from tracker.collector.tables import events, gaps, heads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker.discards import Range

NOW_MS = 1_790_000_000_000
LAST = 14
seqs = st.integers(1, LAST)
drawn_events = st.lists(
    st.fixed_dictionaries(
        {
            "seq": seqs,
            "again": st.booleans(),  # an event that was made before, with its own seq or another
            "seq_of_before": st.booleans(),
            "links": st.sampled_from(["right", "right", "right", "wrong"]),
            "refused": st.sampled_from([False, False, False, True]),
        }
    ),
    min_size=1,
    max_size=6,
)
outboxes = st.sampled_from([0, 1])
actions = st.one_of(
    st.tuples(st.just("batch"), outboxes, drawn_events),
    st.tuples(st.just("in order"), outboxes, st.integers(1, 4)),
    st.tuples(st.just("former"), outboxes, drawn_events),
    st.tuples(st.just("count some"), outboxes, st.integers(1, 3)),
    st.tuples(st.just("count"), outboxes, st.none()),
    st.tuples(st.just("discard"), outboxes, st.tuples(seqs, seqs, outboxes)),
    st.tuples(st.just("erase"), outboxes, seqs),
    st.tuples(st.just("prune"), outboxes, seqs),
)


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    database: Any = tmp_path_factory.mktemp("collector") / "collector.sqlite3"
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres_server").new_database()
    found = Store(database)
    yield found
    found.close()


class Client:
    """A client with two outboxes, and what it has sent.

    Attributes:
        kept: Of each outbox, the numbers that an event was stored with.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = f"client-{uuid.uuid4()}"
        self.outbox_ids = [str(uuid.uuid4()), str(uuid.uuid4())]
        self.made: list[dict[str, Any]] = []
        self.line: list[dict[int, str]] = [{0: canonical.GENESIS}, {0: canonical.GENESIS}]
        self.kept: list[set[int]] = [set(), set()]
        self.pruned = [False, False]

    def do(self, kind: str, outbox: int, what: Any) -> None:
        if kind == "batch":
            self._send(outbox, [self._event(outbox, **each) for each in what])
        elif kind == "in order":
            first = max(self.line[outbox]) + 1
            self._send(outbox, [self._next(outbox, seq) for seq in range(first, first + what)])
        elif kind == "former":
            self._send_to_former(outbox, [self._event(outbox, **each) for each in what])
        elif kind == "count some":
            self._count(outbox, what)
        elif kind == "count":
            self.store.outbox_report(self.id, self.outbox_ids[outbox])
        elif kind == "discard":
            first, last, sender = what
            said = {"outbox_id": self.outbox_ids[outbox], "reason": "given up",
                    "ranges": [[min(first, last), max(first, last)]]}  # fmt: skip
            at = max(self.line[sender]) + 1
            self._send(sender, [self._next(sender, at, said, "events.discarded")])
        elif kind == "erase":
            named = [each["event_id"] for each in self.made if each["seq"] == what]
            at = max(self.line[outbox]) + 1
            erasure = self._next(outbox, at, {"event_ids": named}, "compliance.erased")
            self._send(outbox, [erasure])
        else:
            self._prune(outbox, what)

    def _next(
        self, outbox: int, seq: int, data: dict[str, Any] | None = None,
        type: str = "message.logged",
    ) -> dict[str, Any]:  # fmt: skip
        chain = EventChain()
        chain.seq = seq - 1
        chain.chain = self.line[outbox].get(seq - 1, "a" * 64)
        event = chain.event(data, type=type)
        self.line[outbox][seq] = event["chain"]
        self.made.append(event)
        return event

    def _event(self, outbox: int, **drawn: Any) -> dict[str, Any]:
        if drawn["again"] and self.made:
            event = self.made[drawn["seq"] % len(self.made)]
            event = event if drawn["seq_of_before"] else {**event, "seq": drawn["seq"]}
        else:
            event = self._next(outbox, drawn["seq"])
        if drawn["links"] == "wrong":
            event = {**event, "chain": "f" * 64}
        return {**event, "agent_id": ""} if drawn["refused"] else event

    def _batch(self, outbox: int, sent: list[dict[str, Any]]) -> Batch:
        body = {"protocol": 1, "client_id": self.id, "outbox_id": self.outbox_ids[outbox],
                "sent_at_ms": NOW_MS, "events": sent}  # fmt: skip
        return parse_batch(canonical.encode(body).encode(), self.id)

    def _send(self, outbox: int, sent: list[dict[str, Any]]) -> None:
        batch = self._batch(outbox, sent)
        stored = None
        if self.store.dialect == "postgresql":
            (stored,) = self.store.store_together([batch], NOW_MS)
        stored = stored or self.store.store_batch(batch, NOW_MS)
        assert stored.accepted + stored.duplicates == len(batch.events)
        self._note()

    def _send_to_former(self, outbox: int, sent: list[dict[str, Any]]) -> None:
        """Store events as a version of the collector does that keeps no accounts."""
        batch = self._batch(outbox, sent)
        with self.store.writing(self.id) as connection:
            insertion.insert(connection, batch, batch.events, 0, NOW_MS)
            mine = (heads.c.client_id == self.id, heads.c.outbox_id == batch.outbox_id)
            raised = connection.execute(
                update(heads).where(*mine).values(version=heads.c.version + 1)
            )
            if not raised.rowcount:
                row = {"client_id": self.id, "outbox_id": batch.outbox_id, "version": 1}
                connection.execute(heads.insert().values(row))
        self._note()

    def _count(self, outbox: int, most: int) -> None:
        """Count some events, and be interrupted."""
        with self.store.writing(self.id) as connection:
            account = accounts.read(connection, self.id, self.outbox_ids[outbox])
            if account.version and not account.is_complete:
                accounts.count_on(connection, account, NOW_MS, most)
                accounts.write(connection, account)

    def _prune(self, outbox: int, through: int) -> None:
        """Delete every second event up to a number, as retention by type does."""
        outbox_id = self.outbox_ids[outbox]
        self.store.count_on(self.id, outbox_id)
        mine = (events.c.client_id == self.id, events.c.outbox_id == outbox_id)
        with self.store.writing(self.id) as connection:
            old = delete(events).where(*mine, events.c.seq <= through, events.c.seq % 2 == 1)
            deleted = connection.execute(old.returning(events.c.seq)).scalars().all()
            if deleted:
                number = len(deleted)
                accounts.prune(connection, self.id, outbox_id, max(deleted), number, NOW_MS)
                self.pruned[outbox] = True

    def _note(self) -> None:
        for outbox in (0, 1):
            self.kept[outbox] |= {seq for seq, _, _ in self.rows(outbox)}

    def rows(self, outbox: int) -> list[Any]:
        mine = (events.c.client_id == self.id, events.c.outbox_id == self.outbox_ids[outbox])
        query = select(events.c.seq, events.c.digest, events.c.chain).where(*mine)
        with self.store.reading() as connection:
            return list(connection.execute(query.order_by(events.c.seq, events.c.id)))

    def gaps(self, outbox: int) -> list[Range]:
        mine = (gaps.c.client_id == self.id, gaps.c.outbox_id == self.outbox_ids[outbox])
        query = select(gaps.c.first_seq, gaps.c.last_seq).where(*mine).order_by(gaps.c.first_seq)
        with self.store.reading() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]


def missing_of(kept: set[int]) -> list[Range]:
    """Return the ranges of numbers below the highest that no event was ever stored with."""
    return discards.runs(sorted({*range(1, max(kept, default=0))} - kept))


@settings(max_examples=60, deadline=None)
@given(told=st.lists(actions, min_size=1, max_size=10))
def test_the_account_is_what_all_events_say(store: Store, told: list[Any]) -> None:
    """Late, reused, refused, given up, erased and deleted ones, with links that hold or do not.

    A former version has stored some of them, and what it stored may be counted half.
    """
    client = Client(store)
    for action in told:
        client.do(*action)
    counted = {each.outbox_id: each for each in store.outbox_counts(client.id)}
    for outbox, outbox_id in enumerate(client.outbox_ids):
        found = store.outbox_report(client.id, outbox_id)
        assert client.gaps(outbox) == missing_of(client.kept[outbox])
        assert found == store.outbox_report(client.id, outbox_id, whole=True)
        assert client.gaps(outbox) == missing_of(client.kept[outbox])
        if not client.pruned[outbox]:
            with store.reading() as connection:
                refused = rejections.refused(connection, client.id, outbox_id)
                given_up = discarded.ranges(connection, client.id, outbox_id)
                assert found == report(client.rows(outbox), refused, given_up)
        if outbox_id not in counted:
            assert (found.events, found.refused, client.kept[outbox]) == (0, [], set())
            continue
        count = counted[outbox_id]
        assert (count.events, count.highest_seq, count.missing, count.refused) == (
            found.events, found.highest_seq, found.missing_events, found.refused_events
        )  # fmt: skip
        assert (count.discarded, count.chain) == (found.discarded_events, found.chain)
