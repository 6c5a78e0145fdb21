"""An outbox, its collector, and everything that somebody with SQL and without keys can do to them.

Each forgery has the name of its row in tracker/audit/README.md.
"""

# ruff: noqa: S608 - the statements are made of constant text

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from tracker import APIConfig, Delivery, Outcome, canonical
from tracker.collector.batch import parse_batch
from tracker.collector.store import Store
from tracker.events import Event, make_event
from tracker.outbox.integrity.compare import Held
from tracker.outbox.maintenance import retention
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import dead_letters
from tracker.sync.destination import Rejection
from tracker.sync.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.sync.destination import Upload

CLIENT = "kiosk-17"
KEY = b"correct horse battery staple"
REMOVED = 230
"""Events at the beginning that were delivered and pruned: the index of times begins at 256."""
FIELDS = ", ".join(Event._fields)


class ToStore:
    """A destination that is a collector's store, without HTTP between them."""

    def __init__(self, store: Store, outbox_id: str) -> None:
        self._store = store
        self._outbox_id = outbox_id
        self.refuse: set[str] = set()

    def send(self, upload: Upload) -> Delivery:
        """Store a batch, but for the events that it is told to refuse."""
        chosen = [e for i, e in zip(upload.event_ids, upload.events, strict=True)
                  if i not in self.refuse]  # fmt: skip
        body = {"protocol": 1, "client_id": CLIENT, "outbox_id": self._outbox_id,
                "sent_at_ms": 1, "events": [json.loads(event) for event in chosen]}  # fmt: skip
        if chosen:
            batch = parse_batch(json.dumps(body).encode(), CLIENT)
            assert batch.rejected == ()
            self._store.store_batch(batch, 1)
        refused = [Rejection(i, "no", "no") for i in upload.event_ids if i in self.refuse]
        return Delivery(Outcome.DELIVERED, rejected=refused)

    def close(self) -> None:
        """Leave the store open: it is the test's."""


@dataclass(frozen=True)
class Collector:
    """What a store has of an outbox, for `Comparison`."""

    store: Store
    outbox_id: str

    def after(self, seq: int) -> list[Held]:
        """Return the next events after a seq."""
        page = self.store.chain_page(CLIENT, self.outbox_id, seq, 4_000)
        return [Held(row["seq"], row["event_id"], row["digest"], row["chain"]) for row in page]

    def elsewhere(self, digests: Mapping[str, str], first_ms: int, last_ms: int) -> set[str]:
        """Return which events it has under another outbox: none, for there is one alone."""
        return set()

    def given_up(self) -> list[tuple[int, int]]:
        """Return what is missing for a reason."""
        report = self.store.outbox_report(CLIENT, self.outbox_id)
        return [*report.refused, *report.discarded]


@dataclass(frozen=True)
class World:
    """An outbox with events in every state, and the collector that it has sent to.

    Attributes:
        path: The outbox.
        older: A copy of it, from before its newest events.
        key: Its chain key, or None.
        store: The collector's.
    """

    path: Path
    older: Path
    key: bytes | None
    store: Store

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys to it."""
        return () if self.key is None else (self.key,)


def make(folder: Path, key: bytes | None) -> World:
    """Make an outbox and its collector."""
    folder.mkdir()
    path = folder / "outbox.sqlite3"
    settings = APIConfig(api_key="-", client_id=CLIENT, outbox_path=path, chain_key=key)
    store = Store(folder / "collector.sqlite3")
    with closing(Outbox(settings)) as outbox:
        destination = ToStore(store, outbox.owner.outbox_id)
        uploader = Uploader(outbox, settings, destination)
        _log(outbox, REMOVED)
        _upload(uploader)
        after = 0
        while after >= 0:
            _, after = outbox.run(retention.free_delivered(after))
        _log(outbox, 12)
        _log(outbox, 4, user_id="user_7")
        destination.refuse = set(_log(outbox, 3))
        _log(outbox, 14)
        _upload(uploader)
        outbox.erase("user_7", {})
        refused = sorted(destination.refuse)
        assert outbox.run(dead_letters.discard(refused[:1])) == 1
        assert outbox.checkpoint(0)
        _log(outbox, 3)
        _upload(uploader)
        older = folder / "older.sqlite3"
        with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(older)) as copy:
            now.backup(copy)
        _log(outbox, 4)
        _upload(uploader)
        _log(outbox, 2, user_id="user_9")
        _log(outbox, 3)
        outbox.erase("user_9", {})
        _log(outbox, 6)
    return World(path, older, key, store)


def _log(outbox: Outbox, count: int, user_id: str | None = "user_8") -> list[str]:
    made = [
        make_event(
            "test.noted",
            {"n": n, "text": "x" * n},
            agent_id=f"agent_{n % 2}",
            session_id="s",
            user_id=user_id,
        )
        for n in range(count)
    ]
    for event in made:
        outbox.append(event)
    return [event.event_id for event in made]


def _upload(uploader: Uploader) -> None:
    while not uploader.step().idle:
        pass


def send_more(path: Path, key: bytes | None, store: Store) -> None:
    """Log another event in an outbox, and send all that is pending to a collector."""
    settings = APIConfig(api_key="-", client_id=CLIENT, outbox_path=path, chain_key=key)
    with closing(Outbox(settings)) as outbox:
        _log(outbox, 2)
        _upload(Uploader(outbox, settings, ToStore(store, outbox.owner.outbox_id)))


def outbox_id(connection: Connection) -> str:
    """Return the id that an outbox says it has."""
    return str(connection.exec_driver_sql("SELECT outbox_id FROM identity").scalar_one())


@contextmanager
def forged(world: World, *steps: tuple[Forgery, int]) -> Iterator[Connection]:
    """Lend a copy of the outbox, in memory, to which forgeries were applied, each with its seed.

    Raises:
        NotPossible: if one has nothing left to be done to, or another one has undone it.
    """
    with (
        closing(sqlite3.connect(world.path)) as original,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as copy,
    ):
        original.backup(copy)
        for forgery, seed in steps:
            forgery.apply(Attacker(copy, random.Random(seed), world.older))  # noqa: S311 - chance, not secrecy
        if len(steps) > 1 and _content(copy) == _content(original):
            raise NotPossible
        engine = create_engine("sqlite://", creator=lambda: copy, poolclass=StaticPool)
        with engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")


def _content(db: sqlite3.Connection) -> list[Any]:
    """Return all that is in an outbox: of two forgeries, one may undo the other."""
    tables = ("events", "gaps", "account", "identity", "sync_state", "time_ranges", "tree",
              "tiles", "removed_digests")  # fmt: skip
    return [db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]


@dataclass(frozen=True)
class Attacker:
    """Somebody who can run SQL on an outbox, knows all of our code, and has an older copy.

    Attributes:
        db: The outbox.
        chance: Chooses rows and values.
        older: The older copy.
    """

    db: sqlite3.Connection
    chance: random.Random
    older: Path

    def run(self, statement: str, *values: object) -> list[Any]:
        """Run a statement and return its rows."""
        return self.db.execute(statement, values).fetchall()

    def seqs(self, condition: str) -> list[int]:
        """Return the seqs of the rows that meet a condition."""
        return [
            seq for (seq,) in self.run(f"SELECT seq FROM events WHERE {condition} ORDER BY seq")
        ]

    def choose(self, condition: str) -> int:
        """Return the seq of one of the rows that meet a condition.

        Raises:
            NotPossible: if there is none, any more.
        """
        return int(self.pick(self.seqs(condition)))

    def pick(self, among: list[Any]) -> Any:
        """Return one of a list."""
        if not among:
            raise NotPossible
        return self.chance.choice(among)

    def run_of(self, condition: str) -> tuple[int, int]:
        """Return the first and last of one to three rows in a row that meet a condition."""
        seqs = self.seqs(condition)
        first = last = self.pick(seqs)
        while last - first < self.chance.randrange(3) and last + 1 in seqs:
            last += 1
        return first, last

    def event(self, seq: int) -> Event:
        """Return an event."""
        return Event(*self.run(f"SELECT {FIELDS} FROM events WHERE seq = ?", seq)[0])

    def chain_at(self, seq: int) -> str:
        """Return the chain value at a seq, 64 zeros at 0."""
        found = self.run(
            "SELECT chain FROM events WHERE seq = ?1 UNION ALL "
            "SELECT chain FROM gaps WHERE last_seq = ?1",
            seq,
        )
        return str(found[0][0]) if found else canonical.GENESIS

    def chain_again(self, seq: int) -> None:
        """Give an event its right digest, and it and what follows, up to a gap, right links."""
        digest = canonical.digest_of(*self.event(seq))
        self.run("UPDATE events SET digest = ? WHERE seq = ?", digest, seq)
        link = self.chain_at(seq - 1)
        while found := self.run("SELECT digest FROM events WHERE seq = ?", seq):
            link = canonical.chain(link, found[0][0])
            self.run("UPDATE events SET chain = ? WHERE seq = ?", link, seq)
            seq += 1

    def append(self, event: Event) -> None:
        """Add an event at the end, as a tracker without a key does."""
        last = self.last()
        self.run(
            f"INSERT INTO events (seq, {FIELDS}, chain) "
            f"VALUES (?, {'?, ' * len(Event._fields)}?)",
            last + 1, *event, canonical.chain(self.chain_at(last), event.digest),
        )  # fmt: skip

    def last(self) -> int:
        """Return the newest seq of a row."""
        return int(self.run("SELECT max(seq) FROM events")[0][0])

    def add(self, entry: str, count: int) -> None:
        """Add to an entry of the account."""
        self.run(
            "INSERT INTO account (entry, events) VALUES (?, ?) "
            "ON CONFLICT (entry) DO UPDATE SET events = events + excluded.events",
            entry, count,
        )  # fmt: skip

    def remove(self, first: int, last: int, proof: str | None = None) -> None:
        """Delete events and record it, as a tracker without a key does."""
        chain = self.chain_at(last)
        self.run("DELETE FROM events WHERE seq BETWEEN ? AND ?", first, last)
        self.run("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?)", first, last, chain, proof)


class NotPossible(Exception):  # noqa: N818 - not an error: the row is gone
    """A forgery has nothing left to be done to, after another one."""


@dataclass(frozen=True)
class Forgery:
    """One thing that can be done: the name of its row in the table, and how."""

    name: str
    apply: Callable[[Attacker], object]


FORGERIES: dict[str, Forgery] = {}


def forgery(name: str) -> Callable[[Callable[[Attacker], object]], Callable[[Attacker], object]]:
    """Register a forgery under the name of its row."""

    def register(apply: Callable[[Attacker], object]) -> Callable[[Attacker], object]:
        assert name not in FORGERIES
        FORGERIES[name] = Forgery(name, apply)
        return apply

    return register


DELIVERED = "delivered_at_ms IS NOT NULL AND type = 'test.noted' AND sealed IS NULL"
PENDING = (
    "delivered_at_ms IS NULL AND dead_at_ms IS NULL AND type = 'test.noted' AND sealed IS NULL"
)
LIVING = "sealed IS NULL"
COLUMNS = ("event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id", "data",
           "context", "trace", "salt")  # fmt: skip


def change(attacker: Attacker, seq: int, columns: tuple[str, ...] = COLUMNS) -> None:
    """Change a column of an event to something else that it may hold."""
    column = attacker.chance.choice(columns)
    (value,) = attacker.run(f"SELECT {column} FROM events WHERE seq = ?", seq)[0]
    changed: object = f"{value}x"
    if column == "salt":
        changed = bytes(attacker.chance.randrange(256) for _ in range(16))
    elif column == "timestamp_ms":
        changed = value - attacker.chance.randrange(1, 5)
    elif column in ("data", "context", "trace"):
        changed = canonical.encode({"n": attacker.chance.randrange(10**9)})
    attacker.run(f"UPDATE events SET {column} = ? WHERE seq = ?", changed, seq)


# --- events ---------------------------------------------------------------------------------------


@forgery("an event's content, time, type, user or id changed")
def _(attacker: Attacker) -> None:
    change(attacker, attacker.choose(LIVING))


@forgery("the same of a delivered event, digest and chain computed again")
def _(attacker: Attacker) -> None:
    seq = attacker.choose(DELIVERED)
    change(attacker, seq, ("type", "agent_id", "session_id", "user_id", "data"))
    attacker.chain_again(seq)


@forgery("the same of a pending event, digest and chain computed again")
def _(attacker: Attacker) -> None:
    seq = attacker.choose(PENDING)
    change(attacker, seq, ("type", "agent_id", "session_id", "user_id", "data"))
    attacker.chain_again(seq)


@forgery("an event's digest or chain value changed")
def _(attacker: Attacker) -> None:
    column = attacker.chance.choice(("digest", "chain"))
    value = f"{attacker.chance.getrandbits(256):064x}"
    attacker.run(f"UPDATE events SET {column} = ? WHERE seq = ?", value, attacker.choose("1"))


@forgery("two events swapped")
def _(attacker: Attacker) -> None:
    one = attacker.choose("1")
    other = attacker.choose(f"seq != {one}")
    for before, after in ((one, -1), (other, one), (-1, other)):
        attacker.run("UPDATE events SET seq = ? WHERE seq = ?", after, before)


@forgery("an event slipped in")
def _(attacker: Attacker) -> None:
    attacker.append(make_event("test.noted", {"forged": True}))
    link = f"{attacker.chance.getrandbits(256):064x}"
    attacker.run("UPDATE events SET chain = ? WHERE seq = ?", link, attacker.last())


@forgery("an event added at the end, as an application logs one")
def _(attacker: Attacker) -> None:
    attacker.append(make_event("test.noted", {"forged": True}))


# --- erasure --------------------------------------------------------------------------------------


@forgery("what is left of an erased event changed")
def _(attacker: Attacker) -> None:
    seq = attacker.choose("sealed IS NOT NULL")
    column = attacker.chance.choice((*COLUMNS[:-1], "sealed"))
    if column == "sealed":
        attacker.run("UPDATE events SET sealed = zeroblob(64) WHERE seq = ?", seq)
    else:
        change(attacker, seq, (column,))


def mark_as_erased(attacker: Attacker) -> str:
    """Erase an event as the tracker does, and return its id."""
    seq = attacker.choose(f"({DELIVERED}) OR ({PENDING})")
    event = attacker.event(seq)
    if event.salt is None:
        raise NotPossible
    sealed = canonical.seal(event.user_id, event.data, event.salt)
    attacker.run(
        "UPDATE events SET data = ?, user_id = NULL, salt = NULL, sealed = ? WHERE seq = ?",
        canonical.ERASED, sealed, seq,
    )  # fmt: skip
    return event.event_id


@forgery("an event marked as erased")
def _(attacker: Attacker) -> None:
    mark_as_erased(attacker)


@forgery("the same, and an erasure event of one's own added that names it")
def _(attacker: Attacker) -> None:
    fields = {"subject": "0" * 64, "event_ids": [mark_as_erased(attacker)]}
    attacker.append(make_event("compliance.erased", fields))


@forgery("an erasure event removed, and recorded as removed")
def _(attacker: Attacker) -> None:
    seq = attacker.choose("type = 'compliance.erased' AND delivered_at_ms IS NOT NULL")
    attacker.remove(seq, seq)


# --- removal --------------------------------------------------------------------------------------


@forgery("events deleted")
def _(attacker: Attacker) -> None:
    first, last = attacker.run_of(
        "seq > (SELECT min(seq) FROM events) AND seq < (SELECT max(seq) - 3 FROM events)"
    )
    attacker.run("DELETE FROM events WHERE seq BETWEEN ? AND ?", first, last)


@forgery("delivered events deleted, and recorded as removed")
def _(attacker: Attacker) -> None:
    attacker.remove(*attacker.run_of(f"{DELIVERED} AND seq > (SELECT min(seq) FROM events)"))


@forgery("the same, with a proof that is made up or another's")
def _(attacker: Attacker) -> None:
    proofs = attacker.run("SELECT proof FROM gaps WHERE proof IS NOT NULL")
    proof = attacker.chance.choice([f"{attacker.chance.getrandbits(256):064x}",
                                    *(proof for (proof,) in proofs)])  # fmt: skip
    first, last = attacker.run_of(f"{DELIVERED} AND seq > (SELECT min(seq) FROM events)")
    attacker.remove(first, last, proof)


@forgery("pending events deleted, and recorded as removed and given up")
def _(attacker: Attacker) -> None:
    first, last = attacker.run_of(f"{PENDING} AND seq < (SELECT max(seq) FROM events)")
    attacker.remove(first, last)
    attacker.add("discarded.size_policy", last - first + 1)


@forgery("a record of removed events deleted")
def _(attacker: Attacker) -> None:
    attacker.run("DELETE FROM gaps WHERE first_seq = ?", middle_gap(attacker))


@forgery("its range changed")
def _(attacker: Attacker) -> None:
    column = attacker.chance.choice(("first_seq", "last_seq"))
    by = attacker.chance.choice((-2, -1, 1, 2))
    first = middle_gap(attacker)
    attacker.run(
        f"UPDATE OR REPLACE gaps SET {column} = {column} + ? WHERE first_seq = ?", by, first
    )


@forgery("its chain value changed")
def _(attacker: Attacker) -> None:
    value = f"{attacker.chance.getrandbits(256):064x}"
    attacker.run("UPDATE gaps SET chain = ? WHERE first_seq = ?", value, middle_gap(attacker))


@forgery("its proof taken away")
def _(attacker: Attacker) -> None:
    attacker.run("UPDATE gaps SET proof = NULL WHERE first_seq = ?", middle_gap(attacker))


@forgery("a record of removed events added for events that are here")
def _(attacker: Attacker) -> None:
    first, last = attacker.run_of("seq > (SELECT min(seq) FROM events)")
    chain = attacker.chain_at(last)
    attacker.run("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, NULL)", first, last, chain)


def middle_gap(attacker: Attacker) -> int:
    """Return the first seq of a removal between events that are still here."""
    found = attacker.run(
        "SELECT first_seq FROM gaps WHERE first_seq > (SELECT min(seq) FROM events) "
        "AND last_seq < (SELECT max(seq) FROM events)"
    )
    return int(attacker.pick(found)[0])


# --- the end --------------------------------------------------------------------------------------


def cut(attacker: Attacker, count: int) -> None:
    """Delete the newest events."""
    attacker.run("DELETE FROM events WHERE seq > ?", attacker.last() - count)


def set_back(attacker: Attacker, proof: str) -> None:
    """Set the newest seq back to what is left."""
    attacker.run(
        f"UPDATE account SET events = ?, proof = {proof} WHERE entry = 'stored'", attacker.last()
    )


@forgery("the newest events deleted")
def _(attacker: Attacker) -> None:
    cut(attacker, attacker.chance.randrange(1, 6))


@forgery("the newest events, not sent yet, deleted, and the newest seq set back")
def _(attacker: Attacker) -> None:
    cut(attacker, attacker.chance.randrange(1, 6))
    set_back(attacker, "proof")


@forgery("the same, and the account's proof taken away")
def _(attacker: Attacker) -> None:
    cut(attacker, attacker.chance.randrange(1, 6))
    set_back(attacker, "NULL")


@forgery("the newest events, sent ones too, deleted, and the account set back")
def _(attacker: Attacker) -> None:
    newest = attacker.seqs("delivered_at_ms IS NOT NULL AND type = 'test.noted'")[-3:]
    if len(newest) < 3:
        raise NotPossible
    keep = attacker.chance.choice(newest)
    (gone,) = attacker.run(
        "SELECT count(*) FROM events WHERE seq >= ? AND delivered_at_ms IS NOT NULL", keep
    )[0]
    attacker.run("DELETE FROM events WHERE seq >= ?", keep)
    attacker.add("delivered", -gone)
    set_back(attacker, "proof")
    attacker.run("UPDATE sync_state SET settled_through = ?", attacker.last())


# --- the books ------------------------------------------------------------------------------------


@forgery("a figure of the account changed")
def _(attacker: Attacker) -> None:
    entry = attacker.chance.choice(("delivered", "dead", "discarded.operator", "discarded.odd"))
    attacker.add(entry, attacker.chance.choice((-2, -1, 1, 2)))


@forgery("a number of events moved from one figure of the account to another")
def _(attacker: Attacker) -> None:
    count = attacker.chance.randrange(1, 5)
    attacker.add("delivered", -count)
    attacker.add("discarded.operator", count)


@forgery("the same, and the account's proof taken away too")
def _(attacker: Attacker) -> None:
    count = attacker.chance.randrange(1, 5)
    attacker.add("delivered", -count)
    attacker.add("discarded.operator", count)
    attacker.run("UPDATE account SET proof = NULL")


@forgery("the newest seq set back, with no event deleted")
def _(attacker: Attacker) -> None:
    attacker.run("UPDATE account SET events = events - 1 WHERE entry = 'stored'")


@forgery("the newest seq raised")
def _(attacker: Attacker) -> None:
    seq = attacker.last() + attacker.chance.randrange(1, 4)
    attacker.run("UPDATE account SET events = ? WHERE entry = 'stored'", seq)


@forgery("pending events marked as delivered, with the account")
def _(attacker: Attacker) -> None:
    mark_delivered(attacker)


@forgery("the same, and the outbox's creation set to later")
def _(attacker: Attacker) -> None:
    mark_delivered(attacker)
    attacker.run("UPDATE identity SET created_at_ms = created_at_ms + 1000000000")


def mark_delivered(attacker: Attacker) -> None:
    """Make the oldest pending events look delivered."""
    through = attacker.pick(attacker.seqs(PENDING)[:4])
    changed = attacker.db.execute(
        "UPDATE events SET delivered_at_ms = (SELECT max(delivered_at_ms) FROM events) "
        "WHERE seq <= ? AND delivered_at_ms IS NULL AND dead_at_ms IS NULL",
        (through,),
    ).rowcount
    attacker.add("delivered", changed)
    attacker.run("UPDATE sync_state SET settled_through = max(settled_through, ?)", through)


@forgery("pending events made dead letters, with the account")
def _(attacker: Attacker) -> None:
    seq = attacker.choose(PENDING)
    attacker.run("UPDATE events SET dead_at_ms = 5, dead_code = 'no' WHERE seq = ?", seq)
    attacker.add("dead", 1)


@forgery("delivered events marked as pending, with the account")
def _(attacker: Attacker) -> None:
    seq = attacker.choose("delivered_at_ms IS NOT NULL")
    attacker.run("UPDATE events SET delivered_at_ms = NULL WHERE seq = ?", seq)
    attacker.add("delivered", -1)
    attacker.run("UPDATE sync_state SET settled_through = min(settled_through, ?)", seq - 1)


@forgery("when an event was delivered or refused, and why, changed")
def _(attacker: Attacker) -> None:
    statement, condition = attacker.chance.choice(
        (
            ("delivered_at_ms = delivered_at_ms + 1", "delivered_at_ms IS NOT NULL"),
            ("dead_at_ms = dead_at_ms + 1", "dead_at_ms IS NOT NULL"),
            ("dead_code = 'x', dead_message = 'x'", "dead_at_ms IS NOT NULL"),
        )
    )
    seq = attacker.choose(condition)
    attacker.run(f"UPDATE events SET {statement} WHERE seq = ?", seq)


@forgery("the place where pending events begin moved on")
def _(attacker: Attacker) -> None:
    attacker.run("UPDATE sync_state SET settled_through = ?", attacker.choose(PENDING))


@forgery("what is noted of uploads changed")
def _(attacker: Attacker) -> None:
    note = attacker.chance.choice(
        (
            "last_success_ms = 5",
            "last_error = 'x'",
            "warning = NULL",
            "next_attempt_ms = 5",
            "paused_because = 'x'",
            "flush_requests = 7",
            "scrub_due = 0",
        )
    )
    attacker.run(f"UPDATE sync_state SET {note}")


@forgery("the outbox id changed")
def _(attacker: Attacker) -> None:
    attacker.run(
        "UPDATE identity SET outbox_id = ?", str(uuid.UUID(int=attacker.chance.getrandbits(128)))
    )


@forgery("its client, server or time of creation changed")
def _(attacker: Attacker) -> None:
    note = attacker.chance.choice(
        ("client_id = 'x'", "base_url = 'http://127.0.0.1:1'", "created_at_ms = created_at_ms - 5")
    )
    attacker.run(f"UPDATE identity SET {note}")


@forgery("what it remembers of its chain key reset")
def _(attacker: Attacker) -> None:
    attacker.run("PRAGMA user_version = 0")


@forgery("the index of times changed")
def _(attacker: Attacker) -> None:
    note = attacker.chance.choice(("earliest_ms = latest_ms + 1", "latest_ms = earliest_ms - 1",
                                   "earliest_ms = NULL"))  # fmt: skip
    attacker.run(f"UPDATE time_ranges SET {note}")


@forgery("what is kept of the tree over all events changed")
def _(attacker: Attacker) -> None:
    attacker.run(
        attacker.chance.choice(
            (
                "UPDATE tree SET frontier = zeroblob(8)",
                "UPDATE tree SET witness = NULL, head_seq = NULL",
                "DELETE FROM tree",
                "DELETE FROM removed_digests",
                "UPDATE removed_digests SET digest = zeroblob(32)",
                "INSERT OR REPLACE INTO tiles VALUES (1, 0, zeroblob(32))",
            )
        )
    )


# --- the whole ------------------------------------------------------------------------------------


@forgery("an older copy put in its place")
def _(attacker: Attacker) -> None:
    with closing(sqlite3.connect(attacker.older)) as older:
        older.backup(attacker.db)


@forgery("the whole outbox made again without the key")
def _(attacker: Attacker) -> None:
    attacker.run("PRAGMA user_version = 0")
    attacker.run("UPDATE gaps SET proof = NULL")
    attacker.run("UPDATE account SET proof = NULL")
    change(attacker, attacker.choose(DELIVERED), ("data",))
    for seq in attacker.seqs("1"):
        if not attacker.run("SELECT 1 FROM events WHERE seq = ?", seq - 1):
            attacker.chain_again(seq)
    for seq in attacker.seqs(LIVING):
        digest = canonical.digest_of(*attacker.event(seq))
        attacker.run("UPDATE events SET digest = ? WHERE seq = ?", digest, seq)
    for seq in attacker.seqs("seq - 1 NOT IN (SELECT seq FROM events)"):
        attacker.chain_again(seq)
