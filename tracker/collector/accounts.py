"""The account of each outbox: what of it is here, what is missing, and what its chain shows.

It is kept in `heads` and `gaps` by the transaction of each batch, so that no event has to be read
to report on an outbox. What was stored by others, such as a former version of this program, is
counted when somebody asks.
"""

from __future__ import annotations

import contextlib
import functools
import json
from bisect import insort
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from tracker import canonical
from tracker.collector.cosigning import Cosigned
from tracker.collector.integrity import MOST_RANGES, Walk
from tracker.collector.tables import NOWHERE, events, gaps, heads
from tracker.queries.source import portions

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from tracker.discards import Range

COUNTED_TOGETHER = 5_000
"""Events that are counted in one transaction, which the outbox's batches wait for."""
_NEIGHBOURS = 250
_FETCH_ROWS = 1_000
_HEAD = (
    "version", "forked", "checkpoint_id", "counted", "whole", "events", "highest_seq", "missing",
    "last_received_ms", "place", "tail", "has_links", "breaks_at", "reused", "checked_at_ms",
    "pruned_through", "pruned_before_ms",
)  # fmt: skip


class Link(NamedTuple):
    """An event's place in the chain of its outbox."""

    seq: int
    digest: str
    chain: str


@dataclass
class Account:
    """The account of an outbox.

    Attributes:
        client_id: Its client.
        outbox_id: Its id.
        walk: What is here: without the gaps, and with an empty `here` if that has to be looked up.
        version: A number that each batch raises; 0 before the first.
        counted: The version that the account is of: if it is another, a batch was stored by
            somebody who keeps no accounts.
        whole: Whether it is about all events; otherwise about those up to ``walk.seq``.
        missing: How many numbers are in its gaps.
        last_received_ms: When an event was last received, Unix milliseconds, or None.
        place: The id of its first event, or `NOWHERE`.
        forked: Whether two events have one seq, or two heads contradict one another.
        cosigned: The newest head that was cosigned for this client, or None.
        checked_at_ms: When all events were last read, Unix milliseconds, or None.
        pruned_through: The highest seq that was deleted here, or 0. Numbers up to there that have
            neither an event nor a gap were deleted.
        pruned_before_ms: Those were received before this time, Unix milliseconds.
        may_await_erased: Whether an erasure may have named events before they arrived.
    """

    client_id: str
    outbox_id: str
    walk: Walk = field(default_factory=Walk)
    version: int = 0
    counted: int = 0
    whole: bool = True
    missing: int = 0
    last_received_ms: int | None = None
    place: int = NOWHERE
    forked: bool = False
    cosigned: Cosigned | None = None
    checked_at_ms: int | None = None
    pruned_through: int = 0
    pruned_before_ms: int = 0
    may_await_erased: bool = True

    @property
    def is_valid(self) -> bool:
        """Whether it is true of the events up to ``walk.seq``."""
        return self.counted == self.version

    @property
    def is_complete(self) -> bool:
        """Whether it is true of all events."""
        return self.whole and self.is_valid


# --- reading and writing --------------------------------------------------------------------------


def read(connection: Connection, client_id: str, outbox_id: str) -> Account:
    """Return the account of an outbox; a new one, which is valid, if nothing came of it."""
    row = connection.exec_driver_sql(
        _statements(connection.dialect.name).read, (client_id, client_id, outbox_id)
    ).first()
    if row is not None:
        return _account(client_id, outbox_id, row)
    return Account(client_id, outbox_id, whole=highest_seq(connection, client_id, outbox_id) == 0)


def read_some(
    connection: Connection, outboxes: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Account]:
    """Return the accounts of some outboxes, by client and id, of which batches came before.

    Those are left out that another transaction has locked: `write_some` would wait for it.

    Args:
        connection: A transaction of PostgreSQL.
        outboxes: Client and id of each.
    """
    columns = tuple(map(list, zip(*outboxes, strict=True)))
    rows = connection.exec_driver_sql(_statements("postgresql").read_some, columns)
    return {(row[0], row[1]): _account(row[0], row[1], row[2:]) for row in rows}


def is_known(connection: Connection, client_id: str, outbox_id: str) -> bool:
    """Return True if any batch of this outbox came from this client."""
    query = select(heads.c.version).where(*_in(heads, client_id, outbox_id))
    return connection.execute(query).first() is not None


def write(connection: Connection, account: Account, *, is_batch: bool = False) -> None:
    """Store an account, within a write to its outbox; with a batch it gets the next version."""
    if is_batch:
        _count_batch(account)
    connection.exec_driver_sql(_write(connection.dialect.name, 1), _row(account))


def write_some(connection: Connection, some: Sequence[Account]) -> None:
    """Store accounts, with a batch of each, within a write to their outboxes."""
    for account in some:
        _count_batch(account)
    values = tuple(chain.from_iterable(map(_row, some)))
    connection.exec_driver_sql(_write(connection.dialect.name, len(some)), values)


def _count_batch(account: Account) -> None:
    if account.is_valid:
        account.counted += 1
    account.version += 1


def _row(account: Account) -> tuple[Any, ...]:
    walk, cosigned = account.walk, account.cosigned
    return (
        account.client_id,
        account.outbox_id,
        account.version,
        account.forked,
        None if cosigned is None else cosigned.id,
        account.counted,
        account.whole,
        walk.events,
        walk.seq,
        account.missing,
        account.last_received_ms,
        account.place,
        walk.here[0] if walk.seq and len(walk.here) == 1 else None,
        walk.has_links,
        walk.breaks_at,
        json.dumps(walk.reused) if walk.reused else None,
        account.checked_at_ms,
        account.pruned_through,
        account.pruned_before_ms,
    )


def gaps_of(connection: Connection, client_id: str, outbox_id: str) -> Iterator[Range]:
    """Yield the gaps of an account in order."""
    query = select(gaps.c.first_seq, gaps.c.last_seq).where(*_in(gaps, client_id, outbox_id))
    streamed = query.order_by(gaps.c.first_seq).execution_options(yield_per=_FETCH_ROWS)
    with connection.execute(streamed) as result:
        yield from map(tuple, result)


def highest_seq(connection: Connection, client_id: str, outbox_id: str) -> int:
    """Return the highest seq that is stored of an outbox; 0 if there is none."""
    query = select(func.max(events.c.seq)).where(*_in(events, client_id, outbox_id))
    return connection.execute(query).scalar() or 0


def links(
    connection: Connection, client_id: str, outbox_id: str, after: int
) -> Generator[Any, None, None]:
    """Yield the `Link` of each event of an outbox after a seq, in order."""
    query = (
        select(*(events.c[name] for name in Link._fields))
        .where(*_in(events, client_id, outbox_id), events.c.seq > after)
        .order_by(events.c.seq, events.c.id)
        .execution_options(yield_per=_FETCH_ROWS)
    )
    with connection.execute(query) as result:
        yield from result


def known(
    connection: Connection, client_id: str | None, outbox_id: str | None = None
) -> list[tuple[str, str]]:
    """Return client and id of the outboxes of which anything came.

    Args:
        connection: A transaction.
        client_id: Their client, or None for all.
        outbox_id: The only id to look for, or None for all.
    """
    return _known(connection, client_id, outbox_id, [])


def uncounted(
    connection: Connection, client_id: str | None, outbox_id: str | None = None
) -> list[tuple[str, str]]:
    """Return those of `known` whose account is not complete."""
    incomplete = or_(heads.c.counted != heads.c.version, heads.c.whole.is_(False))
    return _known(connection, client_id, outbox_id, [incomplete])


def _known(
    connection: Connection,
    client_id: str | None,
    outbox_id: str | None,
    wanted: list[ColumnElement[bool]],
) -> list[tuple[str, str]]:
    outbox = (heads.c.client_id, heads.c.outbox_id)
    query = select(*outbox).where(heads.c.client_id != "", *wanted).order_by(*outbox)
    if client_id is not None:
        query = query.where(heads.c.client_id == client_id)
    if outbox_id is not None:
        query = query.where(heads.c.outbox_id == outbox_id)
    return [(row[0], row[1]) for row in connection.execute(query)]


class _Statements(NamedTuple):
    read: str
    read_some: str


@functools.cache
def _statements(dialect: str) -> _Statements:
    """Return text for the driver: by SQLAlchemy's `execute`, each takes several times as long."""
    sign = "?" if dialect == "sqlite" else "%s"
    own = ", ".join(f"heads.{name}" for name in _HEAD)
    head = "checkpoints.size, checkpoints.root, checkpoints.note"
    joined = "LEFT JOIN checkpoints ON checkpoints.id = heads.checkpoint_id"
    return _Statements(
        read=f"SELECT {own}, {head}, "  # noqa: S608 - our own names
        f"EXISTS (SELECT 1 FROM erased_events WHERE erased_events.client_id = {sign}) "
        f"FROM heads {joined} WHERE heads.client_id = {sign} AND heads.outbox_id = {sign}",
        read_some=f"SELECT heads.client_id, heads.outbox_id, {own}, {head}, "  # noqa: S608 - as above
        "EXISTS (SELECT 1 FROM erased_events WHERE erased_events.client_id = heads.client_id) "
        "FROM unnest(%s::text[], %s::text[]) AS wanted (client_id, outbox_id) "
        "JOIN heads ON heads.client_id = wanted.client_id AND heads.outbox_id = wanted.outbox_id "
        f"{joined} FOR NO KEY UPDATE OF heads SKIP LOCKED",
    )


@functools.cache
def _write(dialect: str, rows: int) -> str:
    sign = "?" if dialect == "sqlite" else "%s"
    columns = ("client_id", "outbox_id", *_HEAD)
    row = f"({', '.join([sign] * len(columns))})"
    changed = ", ".join(f"{name} = excluded.{name}" for name in _HEAD)
    return (
        f"INSERT INTO heads ({', '.join(columns)}) VALUES {', '.join([row] * rows)} "  # noqa: S608 - our own names
        f"ON CONFLICT (client_id, outbox_id) DO UPDATE SET {changed}"
    )


def _account(client_id: str, outbox_id: str, row: Any) -> Account:
    found = dict(zip(_HEAD, row, strict=False))
    seq, tail, reused = found["highest_seq"], found["tail"], found["reused"]
    here = () if tail is None else (tail,)
    walk = Walk(
        events=found["events"],
        seq=seq,
        reused=json.loads(reused) if reused else [],
        has_links=bool(found["has_links"]),
        breaks_at=found["breaks_at"],
        here=here if seq else (canonical.GENESIS,),
        pruned_through=found["pruned_through"],
    )
    size, root, note, may_await_erased = row[-4:]
    checkpoint_id = found["checkpoint_id"]
    return Account(
        client_id,
        outbox_id,
        walk,
        found["version"],
        found["counted"],
        bool(found["whole"]),
        found["missing"],
        found["last_received_ms"],
        found["place"],
        bool(found["forked"]),
        None if size is None else Cosigned(checkpoint_id, size, root, note),
        found["checked_at_ms"],
        found["pruned_through"],
        found["pruned_before_ms"],
        bool(may_await_erased),
    )


# --- taking events --------------------------------------------------------------------------------


def extend(
    connection: Connection, account: Account, added: Iterable[tuple[int, str, str]], now_ms: int
) -> None:
    """Take events into account that were just stored, within the same transaction.

    Args:
        connection: The transaction, which excludes others that write to the outbox.
        account: The account, which is changed; `write` stores it.
        added: Seq, digest and chain value of the events.
        now_ms: When they were received, Unix milliseconds.
    """
    new = sorted(added)
    if not new:
        return
    account.last_received_ms = now_ms
    if account.place == NOWHERE:
        account.place = _place(connection, account)
        account.checked_at_ms = now_ms if account.is_complete else None
    if not account.is_valid:
        return
    walk = account.walk
    if not account.whole:
        new = [link for link in new if link[0] <= walk.seq]
    elif _follow(walk, new):
        opened = list(walk.gaps_with(new))
        _open(connection, account, opened)
        return
    if new:
        _take_late(connection, account, [Link(*link) for link in new])


def _follow(walk: Walk, new: Sequence[tuple[int, str, str]]) -> bool:
    """Return True if events come after all that are here, one a number, and can be linked."""
    before = walk.seq
    if new[0][0] == before + 1 and not walk.here:
        return False
    for seq, _, _ in new:
        if seq <= before:
            return False
        before = seq
    return True


def _take_late(connection: Connection, account: Account, new: Sequence[Link]) -> None:
    """Take events whose numbers were passed already, and others, in ascending order."""
    walk = account.walk
    numbers = sorted({link.seq for link in new})
    late = [seq for seq in numbers if seq <= walk.seq]
    _close(connection, account, late)
    highest = walk.seq
    opened = []
    for seq in numbers[len(late) :]:
        first = max(highest, account.pruned_through) + 1
        if first < seq:
            opened.append((first, seq - 1))
        highest = seq
    _open(connection, account, opened)
    walk.seq = highest
    walk.events += len(new)
    beside = {place for seq in numbers for place in (seq - 1, seq, seq + 1) if place <= highest}
    here = _links_at(connection, account, beside | {highest})
    for seq in numbers:
        if len(here[seq]) > 1 and seq not in walk.reused:
            insort(walk.reused, seq)
            del walk.reused[MOST_RANGES:]
    healed = _check(walk, here, {place for seq in numbers for place in (seq, seq + 1)})
    walk.here = tuple(link.chain for link in here.get(highest, ()))
    if healed:
        # The next break may be anywhere behind it: all has to be read to tell.
        reset(connection, account)


def _check(walk: Walk, here: dict[int, list[Link]], numbers: Collection[int]) -> bool:
    """Check the links of the events with these numbers; return True if the first break is gone."""
    was_broken, broken = walk.breaks_at, set()
    for seq in numbers:
        before = [canonical.GENESIS] if seq == 1 else [each.chain for each in here.get(seq - 1, ())]
        for link in here.get(seq, ()) if before else ():
            if any(canonical.chain(each, link.digest) == link.chain for each in before):
                walk.has_links = True
            else:
                broken.add(seq)
    if was_broken in numbers and was_broken not in broken:
        return True
    walk.breaks_at = min((each for each in (was_broken, *broken) if each is not None), default=None)
    return False


def _links_at(
    connection: Connection, account: Account, numbers: Collection[int]
) -> dict[int, list[Link]]:
    """Return the events with these numbers, in the order of receipt."""
    found: dict[int, list[Link]] = {}
    columns = [events.c[name] for name in Link._fields]
    mine = _in(events, account.client_id, account.outbox_id)
    for some in portions([str(number) for number in numbers], _NEIGHBOURS):
        query = select(*columns).where(*mine, events.c.seq.in_([int(each) for each in some]))
        for row in connection.execute(query.order_by(events.c.id)):
            found.setdefault(row.seq, []).append(Link(*row))
    return found


def _open(connection: Connection, account: Account, opened: Sequence[Range]) -> None:
    if opened:
        mine = {"client_id": account.client_id, "outbox_id": account.outbox_id}
        rows = [{**mine, "first_seq": first, "last_seq": last} for first, last in opened]
        connection.execute(insert(gaps), rows)
        account.missing += _size(opened)


def _close(connection: Connection, account: Account, numbers: Sequence[int]) -> None:
    """Take numbers, which are in ascending order, out of the gaps that they are in."""
    if not numbers or not account.missing:
        return
    mine = _in(gaps, account.client_id, account.outbox_id)
    first = select(func.max(gaps.c.first_seq)).where(*mine, gaps.c.first_seq <= numbers[0])
    lowest = connection.execute(first).scalar() or 0
    query = select(gaps.c.first_seq, gaps.c.last_seq).where(
        *mine, gaps.c.first_seq.between(lowest, numbers[-1])
    )
    changed, left = [], []
    place = 0
    for start, end in connection.execute(query.order_by(gaps.c.first_seq)).all():
        rest = start
        while place < len(numbers) and numbers[place] <= end:
            seq = numbers[place]
            place += 1
            if seq < start:
                continue
            if rest < seq:
                left.append((rest, seq - 1))
            rest = seq + 1
        if rest > start:
            changed.append((start, end))
            if rest <= end:
                left.append((rest, end))
    if changed:
        one = delete(gaps).where(*mine, gaps.c.first_seq == bindparam("start"))
        connection.execute(one, [{"start": start} for start, _ in changed])
        account.missing -= _size(changed)
        _open(connection, account, left)


def _size(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _in(table: Any, client_id: str, outbox_id: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.client_id == client_id, table.c.outbox_id == outbox_id


# --- counting -------------------------------------------------------------------------------------


def reset(connection: Connection, account: Account) -> None:
    """Begin an account again before its first event; `write` stores it.

    Gaps among numbers of which events were deleted stay: that nothing came is known by them alone.
    """
    through = account.pruned_through
    mine = _in(gaps, account.client_id, account.outbox_id)
    connection.execute(delete(gaps).where(*mine, gaps.c.first_seq > through))
    over = (*mine, gaps.c.last_seq > through)
    connection.execute(update(gaps).where(*over).values(last_seq=through))
    kept = select(func.sum(gaps.c.last_seq - gaps.c.first_seq + 1)).where(*mine)
    account.missing = int(connection.execute(kept).scalar() or 0)
    account.walk = _beginning(account)
    account.whole = False
    account.counted = account.version


def count_on(
    connection: Connection, account: Account, now_ms: int, most: int = COUNTED_TOGETHER
) -> None:
    """Take the next events into account that are not; `write` stores it.

    Args:
        connection: The transaction, which excludes others that write to the outbox.
        account: The account, which is changed.
        now_ms: The present time, Unix milliseconds.
        most: How many events, exceeded only by events that share the last seq.
    """
    if not account.is_valid:
        # If as many events are there as before, up to where it went, the others all came after.
        mine = (
            *_in(events, account.client_id, account.outbox_id),
            events.c.seq <= account.walk.seq,
        )
        known = connection.execute(select(func.count()).where(*mine)).scalar_one()
        if known == account.walk.events:
            account.counted, account.whole = account.version, False
        else:
            reset(connection, account)
    walk = account.walk
    if walk.seq == 0:
        account.checked_at_ms = now_ms
    elif not walk.here:
        at_end = _links_at(connection, account, [walk.seq]).get(walk.seq, ())
        walk.here = tuple(link.chain for link in at_end)
    some = _next(connection, account, most)
    # Above what was deleted, there are no gaps yet.
    _close(
        connection, account, sorted({link.seq for link in some if link.seq <= walk.pruned_through})
    )
    _open(connection, account, list(walk.gaps_with(some)))
    if len(some) < most:
        _end(connection, account)


def _next(connection: Connection, account: Account, most: int) -> list[Any]:
    """Return the next links that are to be counted, with all that have the last one's number."""
    found: list[Any] = []
    following = links(connection, account.client_id, account.outbox_id, account.walk.seq)
    with contextlib.closing(following):
        for link in following:
            if len(found) >= most and link.seq != found[-1].seq:
                break
            found.append(link)
    return found


def _end(connection: Connection, account: Account) -> None:
    walk = account.walk
    account.whole = True
    walk.seq = max(walk.seq, account.pruned_through)
    event, mine = events.c, _in(events, account.client_id, account.outbox_id)
    account.place = min(account.place, _place(connection, account))
    newest = select(func.max(event.received_at_ms)).where(*mine, event.seq == walk.seq)
    received = connection.execute(newest).scalar()
    account.last_received_ms = max(
        (each for each in (received, account.last_received_ms) if each is not None), default=None
    )


def _place(connection: Connection, account: Account) -> int:
    """Return the id of an outbox's event with the lowest seq, or `NOWHERE`."""
    mine = _in(events, account.client_id, account.outbox_id)
    lowest = select(func.min(events.c.seq)).where(*mine).scalar_subquery()
    first = select(func.min(events.c.id)).where(*mine, events.c.seq == lowest)
    found = connection.execute(first).scalar()
    return NOWHERE if found is None else found


def begin(connection: Connection) -> None:
    """Give each outbox that has none a row in `heads`, as in a database from before they were."""
    event, head = events.c, heads.c
    place = (event.client_id, event.outbox_id)
    query = select(*place).order_by(*place).limit(1)
    # From one to the next in the index: there are few, and many events of each.
    last = connection.execute(query).first()
    while last is not None:
        client_id, outbox_id = last
        if not is_known(connection, client_id, outbox_id):
            row = {head.client_id: client_id, head.outbox_id: outbox_id, head.version: 1}
            connection.execute(insert(heads).values(row))
        same = (event.client_id == client_id, event.outbox_id > outbox_id)
        last = connection.execute(query.where(*same)).first()
        if last is None:
            last = connection.execute(query.where(event.client_id > client_id)).first()


def prune(
    connection: Connection,
    client_id: str,
    outbox_id: str,
    through: int,
    deleted: int,
    before_ms: int,
) -> None:
    """Note that events of an outbox were deleted, within the transaction that does it.

    Args:
        connection: The transaction, which excludes others that write to the client.
        client_id: The client.
        outbox_id: The outbox.
        through: The highest seq of them.
        deleted: How many they are.
        before_ms: They were received before this time, Unix milliseconds.

    Raises:
        ValueError: if the account is not complete, so that nobody could tell what was deleted from
            what never came: `Store.count_on` completes it.
    """
    account = read(connection, client_id, outbox_id)
    if not account.is_complete:
        raise ValueError(f"not all events of outbox {outbox_id} are counted")
    account.pruned_through = max(account.pruned_through, through)
    account.pruned_before_ms = max(account.pruned_before_ms, before_ms)
    account.walk.pruned_through = account.pruned_through
    account.walk.events -= deleted
    if through >= account.walk.seq:
        account.walk.here = ()
    write(connection, account)


def _beginning(account: Account) -> Walk:
    """Return what is known before the first event is read: what deleted ones have shown."""
    through, walk = account.pruned_through, account.walk
    if not through:
        return Walk()
    return Walk(
        reused=[seq for seq in walk.reused if seq <= through],
        has_links=walk.has_links,
        # The link of the number after them was one to a deleted event, too.
        breaks_at=walk.breaks_at if (walk.breaks_at or 0) <= through + 1 else None,
        pruned_through=through,
    )


def recounted(connection: Connection, account: Account) -> tuple[Walk, Iterator[Range]]:
    """Return what all events say; the first is right when all gaps have been taken of the second.

    Nothing of the account is used but for what it says of numbers of which events were deleted.
    """
    through = account.pruned_through
    walk = _beginning(account)

    def found() -> Iterator[Range]:
        for first, last in gaps_of(connection, account.client_id, account.outbox_id):
            if first > through:
                break
            yield first, min(last, through)
        yield from walk.gaps_with(links(connection, account.client_id, account.outbox_id, 0))
        walk.seq = max(walk.seq, through)

    return walk, found()
