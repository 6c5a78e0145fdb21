"""`Store`: the collector's writes to and reads from its database."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select, tuple_, union

from tracker import clock
from tracker.collector import (
    accounts,
    cosigning,
    counts,
    derived,
    direct,
    discarded,
    erasure,
    forks,
    insertion,
    outbox_keys,
    plain,
    pruned,
    rejections,
    stamps,
)
from tracker.collector.conversation import SUMMARY_FIELDS, Conversation, summarise
from tracker.collector.database import READ_SECONDS, Database, StorageError
from tracker.collector.engine import BATCHES
from tracker.collector.horizon import Horizon
from tracker.collector.integrity import OutboxReport, Walk, report_of
from tracker.collector.tables import api_keys, events, events_of
from tracker.queries.filters import EVERYTHING, Filters
from tracker.queries.source import extent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, RowMapping, Select

    from tracker.collector.accounts import Account
    from tracker.collector.batch import Batch
    from tracker.collector.cosigning import Cosigned
    from tracker.collector.counts import Place
    from tracker.collector.outbox_keys import BoundKey
    from tracker.collector.replication import Durability
    from tracker.collector.schema import Schema
    from tracker.collector.stored_tree import Tiles
    from tracker.collector.witness import Witness

logger = logging.getLogger(__name__)

_FETCH_SMALL_ROWS = 1_000
_LINK = attrgetter("seq", "digest", "chain")
_WHOLE_SECONDS = 600.0
"""How long all events of an outbox may be read."""
_CHECKED_AGAIN_MS = 86_400_000
FEW_EVENTS = 100_000
"""Up to so many events, a report reads all of an outbox's once in 24 hours: somebody may have
changed one in the database."""
_SOON_SECONDS = 3.0
"""After a failure within so long, each of several batches is tried alone; later, its sender may
have given up by then."""

EVENT_FIELDS = tuple(column.key for column in events.c if column.key != "trace_id")


class Stored(NamedTuple):
    """What a batch has become.

    Attributes:
        accepted: How many of its valid events are new.
        duplicates: How many were stored already.
        highest_seq: The highest seq that is stored of its outbox; 0 if nothing is.
        forked: Whether any batch so far has used the seq of another event of its outbox, or had a
            head that contradicts another.
        cosigned: The newest head of its outbox that was cosigned for this client, or None.
    """

    accepted: int
    duplicates: int
    highest_seq: int
    forked: bool
    cosigned: Cosigned | None


class _Taken:
    """What becomes of a batch, as far as it is stored."""

    def __init__(self, batch: Batch, received_at_ms: int) -> None:
        self.batch = batch
        self.received_at_ms = received_at_ms
        self.accepted = 0
        self.erased = 0
        self.highest_seq = 0
        self.cosigned: Cosigned | None = None


class ConversationPlace(NamedTuple):
    """Position of an event in its session, at the end of a page."""

    first_id: int
    seq: int
    id: int


class Store(Database):
    """Events, rejections and heads in a `Database`.

    `head_cosigned` is set whenever a batch had a head that was cosigned. `horizon` says how far
    events may be read in the order of their ids.

    Args:
        database: As for `Database`.
        durability: As for `Database`.
        witness: Who cosigns the heads that devices send; None cosigns nothing.
        batches: As for `Database`.
        schema: As for `Database`.

    Raises:
        ConfigurationError: as for `Database`.
        StorageError: as for `Database`.
    """

    def __init__(
        self,
        database: str | Path,
        durability: Durability | None = None,
        witness: Witness | None = None,
        *,
        batches: int = BATCHES,
        schema: Schema = "update",
    ) -> None:
        super().__init__(database, durability, batches=batches, schema=schema)
        self.witness = witness
        self.tiles: Tiles = {}
        self.head_cosigned = threading.Event()
        self.horizon = Horizon(self)
        self._stored_at: float | None = None

    def store_batch(self, batch: Batch, received_at_ms: int) -> Stored:
        """Store a batch's valid events; those already stored by `event_id` do not change.

        Events that a ``compliance.erased`` event of the batch names are erased, and those that an
        earlier one named are stored as erased.

        Its rejections are noted. Every batch writes something: see `tables.heads`. What came
        without an outbox is numbered here, within the transaction.

        Raises:
            StorageError: if nothing of the batch was stored, or that is `in_doubt`.
        """
        self._stored_at = None
        taken = _Taken(batch, received_at_ms)
        with self._storing(batch) as connection:
            account = accounts.read(connection, batch.client_id, batch.outbox_id)
            self._take(connection, account, taken)
            accounts.write(connection, account, is_batch=True)
        self._log_holds_erased = self._log_holds_erased or taken.erased > 0
        if self._log_holds_erased:
            self.empty_log()
        self._stored_at = clock.monotonic()
        if taken.cosigned is not None:
            self.head_cosigned.set()
        return Stored(
            taken.accepted,
            len(batch.events) - taken.accepted,
            taken.highest_seq,
            account.forked,
            account.cosigned,
        )

    def store_together(self, batches: Sequence[Batch], received_at_ms: int) -> list[Stored | None]:
        """Store batches of several outboxes in one transaction of PostgreSQL, if they are plain.

        A batch is if it goes on where its outbox ended, and neither asks for more than to be
        stored nor has to wait for anybody. For each other one None is returned: nothing of it was
        stored, and `store_batch` does what it takes. So it is with all of them if one is not as
        plain as it looked.

        Args:
            batches: The batches.
            received_at_ms: The collector's clock, Unix milliseconds.

        Raises:
            StorageError: as for `store_batch`, about all of them.
        """
        self._stored_at = None
        first = {batch.outbox_id: batch for batch in reversed(batches) if plain.is_plain(batch)}
        begun = clock.monotonic()
        try:
            stored = self._store_together(list(first.values()), received_at_ms)
        except insertion.KnownError:
            stored = {}
        except StorageError as error:
            if error.in_doubt or error.not_replicated or clock.monotonic() - begun > _SOON_SECONDS:
                raise
            stored = {}
        if stored:
            self._stored_at = clock.monotonic()
        return [
            stored.get(batch.outbox_id) if first.get(batch.outbox_id) is batch else None
            for batch in batches
        ]

    def _store_together(self, batches: list[Batch], now_ms: int) -> dict[str, Stored]:
        if not batches:
            return {}
        scopes = [(batch.client_id, f"outbox {batch.outbox_id}") for batch in batches]
        with self.writing_some(scopes) as (connection, alone):
            mine = [batch for batch, is_alone in zip(batches, alone, strict=True) if is_alone]
            found = plain.continued(connection, mine)
            if not found:
                return {}
            insertion.insert_all(connection, [batch for batch, _ in found], now_ms)
            for batch, account in found:
                accounts.extend(connection, account, map(_LINK, batch.events), now_ms)
            accounts.write_some(connection, [account for _, account in found])
        return {
            batch.outbox_id: Stored(
                len(batch.events), 0, account.walk.seq, account.forked, account.cosigned
            )
            for batch, account in found
        }

    def _take(self, connection: Connection, account: Account, taken: _Taken) -> None:
        """Store what came with a batch, and take it into account."""
        batch, now_ms = taken.batch, taken.received_at_ms
        client_id, outbox_id = batch.client_id, batch.outbox_id
        highest_seq = account.walk.seq
        if not account.is_complete:
            highest_seq = accounts.highest_seq(connection, client_id, outbox_id)
        if batch.direct:
            batch = direct.numbered(connection, batch, highest_seq)
        batch = pruned.without_known(connection, account, batch)
        if batch.rejected:
            rejections.note(connection, client_id, outbox_id, batch.rejected, now_ms)
        named = erasure.named_in(connection, client_id, batch.events)
        taken.erased = erasure.erase(connection, client_id, named)
        stored = erasure.as_stored(
            connection, client_id, batch.events, named, may_be_noted=account.may_await_erased
        )
        telling = cosigning.new_among(connection, client_id, stored)
        added = insertion.insert(connection, batch, stored, highest_seq, now_ms)
        accounts.extend(connection, account, map(_LINK, added), now_ms)
        seqs = {event.seq for event in added}
        taken.accepted = len(added)
        taken.highest_seq = max(highest_seq, *seqs, 0)
        if seqs and not account.forked and (min(seqs) <= highest_seq or len(seqs) < len(added)):
            account.forked = forks.is_reused(connection, client_id, outbox_id, seqs)
        if telling and self.witness is not None:
            judged = cosigning.judge(connection, self.witness, batch, telling, now_ms)
            account.forked |= judged.contradicts
            account.cosigned = judged.cosigned or account.cosigned
            taken.cosigned = judged.cosigned

    @contextlib.contextmanager
    def _storing(self, batch: Batch) -> Iterator[Connection]:
        """Yield the transaction for a batch, which excludes what must not happen meanwhile.

        Always that is everything of the same outbox, whichever client's; and for some batches
        everything else of their client: an erasure must not miss the event that it names, nor may
        what is numbered or judged here arrive by another outbox before it is stored.
        """
        if batch.direct or plain.concerns_the_client(batch):
            with self.writing(batch.client_id) as connection:
                self.exclude(connection, f"outbox {batch.outbox_id}")
                yield connection
        else:
            with self.writing(f"outbox {batch.outbox_id}", within=batch.client_id) as connection:
                yield connection

    def has_just_stored(self) -> bool:
        """Return True if the last batch was stored, within the last second."""
        stored_at = self._stored_at
        return stored_at is not None and clock.monotonic() - stored_at < 1.0

    def check(self, seconds: float = READ_SECONDS) -> None:
        """Check with a trial write that the database would store a batch.

        Args:
            seconds: Time limit in PostgreSQL.

        Raises:
            StorageError: if it would not.
        """
        with self.writing("readiness", seconds) as connection:
            connection.execute(select(api_keys.c.id).limit(1)).first()
            nested = connection.begin_nested()
            insertion.try_insert(connection)
            nested.rollback()
            if self.dialect == "postgresql":
                # So that the commit waits for the standbys, like that of a batch.
                accounts.write(connection, accounts.read(connection, "", ""), is_batch=True)

    def events_after(
        self,
        client_id: str,
        after: int,
        limit: int,
        max_page_bytes: int,
        wanted: Filters = EVERYTHING,
    ) -> tuple[list[RowMapping], int | None]:
        """Return a page of a client's events in stored order, and the start of the next page.

        No event appears later before one that was returned: of events whose neighbours are just
        being stored, none is returned yet.

        Args:
            client_id: The client.
            after: Return only events with a greater `id`.
            limit: Maximum number of events, 1 or more.
            max_page_bytes: End the page early once its ``data`` has so many characters.
            wanted: Which events.

        Returns:
            The rows, and the last row's id if more follow, otherwise None.

        Raises:
            StorageError: if the database could not be read.
        """
        query = (
            select(*(events.c[name] for name in EVENT_FIELDS))
            .where(
                events.c.client_id == client_id,
                events.c.id > after,
                *wanted.conditions(events, among=events_of(client_id)),
            )
            .order_by(events.c.id)
        )
        page: list[RowMapping] = []
        more = False
        known = self.horizon.settled
        if after < known:
            with self.reading() as connection:
                below = query.where(events.c.id <= known)
                page, more = _page(connection, below, limit, max_page_bytes)
        if not more:
            # Only one that comes to the end of what it knows looks further.
            settled = self.horizon.wait()
            with self.reading() as connection:
                below = query.where(events.c.id <= settled)
                page, more = _page(connection, below, limit, max_page_bytes)
        return page, page[-1]["id"] if more else None

    def conversation(
        self,
        client_id: str,
        session_id: str,
        limit: int,
        max_page_bytes: int,
        after: ConversationPlace | None = None,
    ) -> tuple[Conversation | None, list[dict[str, Any]], ConversationPlace | None]:
        """Return the summary of a session, a page of its events, and the `after` of the next page.

        Events are ordered by outbox, in order of first receipt, and `seq`. Return None if there
        are none.

        Raises:
            StorageError: if the database could not be read.
        """
        mine = (events.c.client_id == client_id, events.c.session_id == session_id)
        first_receipt = func.min(events.c.id).over(partition_by=events.c.outbox_id)
        ordered = select(events, first_receipt.label("first_id")).where(*mine).subquery()
        place = (ordered.c.first_id, ordered.c.seq, ordered.c.id)
        summary_rows = select(*(ordered.c[name] for name in SUMMARY_FIELDS)).order_by(*place)
        query = select(*(ordered.c[name] for name in EVENT_FIELDS), ordered.c.first_id)
        if after is not None:
            query = query.where(tuple_(*place) > after)
        with self.reading() as connection:
            streamed = summary_rows.execution_options(yield_per=_FETCH_SMALL_ROWS)
            with connection.execute(streamed) as result:
                whole = summarise(session_id, result)
            found, more = _page(connection, query.order_by(*place), limit, max_page_bytes)
        last = None
        if more:
            last = ConversationPlace(*(found[-1][name] for name in ConversationPlace._fields))
        return whole, [{name: row[name] for name in EVENT_FIELDS} for row in found], last

    def outbox_ids(self, client_id: str, after: Place, limit: int) -> list[Place]:
        """Return the places of outboxes of a client, in the order of first receipt.

        Last come those of which everything was refused.

        Args:
            client_id: The client.
            after: Only outboxes with a later place.
            limit: Maximum number of outboxes.

        Raises:
            StorageError: if the database failed.
        """
        self.count_on(client_id)
        with self.reading() as connection:
            return counts.places(connection, client_id, after, limit)

    def outbox_report(self, client_id: str, outbox_id: str, *, whole: bool = False) -> OutboxReport:
        """Return the report on an outbox's events, as its account has it.

        All events are read for `whole`, and once in 24 hours if they are few.

        Raises:
            StorageError: if the database failed.
        """
        now_ms = _now_ms()
        self.count_on(client_id, outbox_id)
        with self.reading(_WHOLE_SECONDS if whole else READ_SECONDS) as connection:
            account = accounts.read(connection, client_id, outbox_id)
            age = now_ms - (account.checked_at_ms or 0)
            is_due = not 0 <= age < _CHECKED_AGAIN_MS and account.walk.events <= FEW_EVENTS
            whole = whole or is_due
            if whole:
                walk, gaps = accounts.recounted(connection, account)
            else:
                walk, gaps = account.walk, accounts.gaps_of(connection, client_id, outbox_id)
            refused = rejections.refused(connection, client_id, outbox_id)
            given_up = discarded.ranges(connection, client_id, outbox_id)
            checked_at_ms = now_ms if whole else account.checked_at_ms or 0
            found = report_of(walk, gaps, refused, given_up, checked_at_ms)
            found = found.with_heads(*cosigning.known(connection, client_id, outbox_id))
        if whole:
            self._note_checked(account, walk, now_ms)
        return found.of_no_outbox() if outbox_id == derived.outbox_id_of(client_id) else found

    def outbox_counts(self, client_id: str | None = None) -> list[counts.OutboxCount]:
        """Return what is here of each outbox of a client, or of all clients.

        Raises:
            StorageError: if the database failed.
        """
        self.count_on(client_id)
        with self.reading() as connection:
            return counts.counts(connection, client_id)

    def count_on(self, client_id: str | None, outbox_id: str | None = None) -> None:
        """Take into account what was stored by somebody who keeps no accounts.

        Each transaction counts some events, so that no batch waits for long, and what was counted
        stays so if this is interrupted.

        Args:
            client_id: The client, or None for all.
            outbox_id: One of the client's outboxes, or None for all.

        Raises:
            StorageError: if the database failed.
        """
        with self.reading() as connection:
            found = accounts.uncounted(connection, client_id, outbox_id)
        for each in found:
            while not self._count_some(*each):
                pass

    def _count_some(self, client_id: str, outbox_id: str) -> bool:
        """Count some events of an outbox; return True if all are counted."""
        with self.writing(f"outbox {outbox_id}", within=client_id) as connection:
            account = accounts.read(connection, client_id, outbox_id)
            if not account.is_complete:
                accounts.count_on(connection, account, _now_ms())
                accounts.write(connection, account)
            return account.is_complete

    def _note_checked(self, account: Account, walk: Walk, now_ms: int) -> None:
        """Note that all events were read, and count them again if that says otherwise."""
        client_id, outbox_id = account.client_id, account.outbox_id
        is_other = account.is_complete and account.walk.differs(walk)
        if is_other:
            logger.warning("outbox %s of client %s is not as it was counted", outbox_id, client_id)
        try:
            with self.writing(f"outbox {outbox_id}", within=client_id) as connection:
                now = accounts.read(connection, client_id, outbox_id)
                if is_other and now.version == account.version:
                    accounts.reset(connection, now)
                now.checked_at_ms = now_ms
                accounts.write(connection, now)
        except StorageError as error:  # the next report reads more; that is all
            logger.warning("that an outbox was checked is not stored: %s", error)

    def stamp(self, client_id: str | None) -> str:
        """Return a short text that is another one whenever reads may answer otherwise.

        Args:
            client_id: Reads of what this client has sent; None: all reads, those of keys included.

        Raises:
            StorageError: if the database could not be read.
        """
        with self.reading() as connection:
            return stamps.stamp(connection, client_id)

    def outbox_keys(self, client_id: str, outbox_id: str) -> list[BoundKey]:
        """Return the keys that are or were bound to an outbox for a client; the last one counts.

        Raises:
            StorageError: if the database could not be read.
        """
        with self.reading() as connection:
            found = outbox_keys.history(connection, outbox_id)
        return [each for each in found if each.client_id == client_id]

    def replace_outbox_key(self, client_id: str, outbox_id: str, key: str) -> None:
        """Bind another key to an outbox, because its device has lost the one before.

        Args:
            client_id: The client.
            outbox_id: The outbox, of which something must be stored.
            key: The public key: a verifier key of the outbox, or 64 hex digits.

        Raises:
            ValueError: if it is not such a key, or nothing of such an outbox is stored.
            StorageError: if the database failed.
        """
        new = outbox_keys.parse(outbox_id, key)
        with self.writing(client_id) as connection:
            if not accounts.is_known(connection, client_id, outbox_id):
                raise ValueError("nothing of such an outbox of this client is stored")
            self.exclude(connection, f"outbox {outbox_id}")
            outbox_keys.bind(connection, client_id, outbox_id, new, "operator")

    def heads_to_stamp(self, now_ms: int) -> list[tuple[int, str]]:
        """Return id and note of the cosigned heads that are due for a time stamp, up to 100.

        Of each outbox it is the newest one, once in an hour.

        Raises:
            StorageError: if the database could not be read.
        """
        with self.reading() as connection:
            return cosigning.to_stamp(connection, now_ms)

    def add_timestamp(self, head_id: int, reply: bytes, now_ms: int) -> None:
        """Keep the reply of a time stamp authority over a head's cosigned note.

        Raises:
            StorageError: if it was not stored.
        """
        with self.writing("timestamps") as connection:
            cosigning.add_timestamp(connection, head_id, reply, now_ms)

    def rejection_page(
        self, client_id: str, limit: int, before: int | None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return a page of rejections; see `rejections.newest`.

        Raises:
            StorageError: if the database could not be read.
        """
        with self.reading() as connection:
            return rejections.newest(connection, client_id, limit, before)

    def client_ids(self, after: str, limit: int) -> list[str]:
        """Return clients that have a key or have sent events, in the database's order of ids.

        Args:
            after: Only ids that are later in that order.
            limit: Maximum number of clients.

        Raises:
            StorageError: if the database could not be read.
        """
        sent, keyed = (
            select(table.c.client_id).where(table.c.client_id > after)
            for table in (events, api_keys)
        )
        with self.reading() as connection:
            return list(
                connection.execute(union(sent, keyed).order_by("client_id").limit(limit)).scalars()
            )

    def chain_page(
        self, client_id: str, outbox_id: str, after: int, limit: int
    ) -> list[RowMapping]:
        """Return an outbox's next events after a seq, without their content, in order of `seq`.

        Args:
            client_id: The client.
            outbox_id: The outbox.
            after: Return only events with a greater `seq`.
            limit: Maximum number of events, exceeded only by events that share the last seq.

        Raises:
            StorageError: if the database could not be read.
        """
        query = (
            select(events.c.seq, events.c.event_id, events.c.digest, events.c.chain)
            .where(
                events.c.client_id == client_id,
                events.c.outbox_id == outbox_id,
                events.c.seq > after,
            )
            .order_by(events.c.seq, events.c.id)
            .limit(limit + 1)
        )
        with self.reading() as connection:
            rows = list(connection.execute(query).mappings())
        if len(rows) <= limit:
            return rows
        cut_off = rows[-1]["seq"]
        return [row for row in rows if row["seq"] != cut_off] or rows


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _page(
    connection: Connection, query: Select[Any], limit: int, max_bytes: int
) -> tuple[list[RowMapping], bool]:
    """Return the first rows of a query with a column `data`, and whether more follow.

    There are at most `limit` rows, and no more than are needed for `max_bytes` characters of data.
    Sizes are read first, so that only rows on the page are fetched.
    """
    sizes = query.with_only_columns(func.length(_data_of(query)), maintain_column_froms=True)
    count, more = extent(connection, sizes, limit, max_bytes)
    return list(connection.execute(query.limit(count)).mappings()), more


def _data_of(query: Select[Any]) -> Any:
    return next(column for column in query.selected_columns if column.key == "data")
