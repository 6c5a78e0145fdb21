"""Replacing a damaged outbox by a new one made from its rows, and keeping the damaged files.

Imported only when that happens. `files.swap` describes how the new one is put in place.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tracker import log
from tracker.clock import sleep
from tracker.discards import runs
from tracker.erasure import ERASED
from tracker.events import Event
from tracker.outbox.files import paths, swap
from tracker.outbox.integrity import chain_key
from tracker.outbox.maintenance import scrub
from tracker.outbox.queue import settlement
from tracker.outbox.recovery import damage, salvage
from tracker.outbox.schema import create, tables
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store import chain_tail, discards, erasures, ledger
from tracker.outbox.store.transaction import Transaction, driver_of
from tracker.outbox.store.write_connection import SURE_SECONDS
from tracker.whole_file import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.recovery.rows import Row
    from tracker.outbox.recovery.salvage import Salvage

_CHUNK = 1_000


@dataclass
class Result:
    """How many events were carried over, and where the damaged files are.

    Attributes:
        pending: Pending events that were carried over.
        delivered: Delivered events that were carried over.
        dead: Dead letters that were carried over.
        lost: Undelivered events that are known to be lost.
        erased: Events that were carried over as markers: the damaged files may still have what was
            erased.
        unproven: Events that were carried over into an outbox with a chain key: all or none. A
            digest proves that a row is whole, not that this tracker wrote it, so their links say
            that the key does not vouch for them; the damaged files are the evidence.
        aside: The damaged set of files.
    """

    pending: int = 0
    delivered: int = 0
    dead: int = 0
    lost: int = 0
    erased: int = 0
    unproven: int = 0
    aside: Path | None = None

    def count(self, row: Row) -> None:
        """Count one event that was carried over."""
        self.pending += row.pending
        self.delivered += row.delivered_at_ms is not None
        self.dead += row.dead_at_ms is not None
        self.erased += row.event.data == ERASED


def rebuild(
    path: Path,
    owner: tuple[str, str] | None,
    fallback: tuple[str, str] | None,
    key: bytes | None,
) -> Result:
    """Make a new outbox from what `path` still contains, move the damaged files away, replace them.

    Its chain starts over with the rows that were carried over, and so does the account's entry
    `stored`: `verify` finds the new outbox whole. The account (`ledger.BY_DAMAGE`) shows that it
    had a predecessor, and what was lost with that; the damaged files are the only evidence of what
    happened before.

    Args:
        path: The outbox.
        owner: Its client id and base URL, if known.
        fallback: The ones to use if the file does not tell.
        key: The chain key; the new outbox remembers it.

    Raises:
        OutboxDamagedError: if the owner of the outbox cannot be found out.
        OSError: if a file cannot be read, created or moved. The damaged files are at their paths
            then.
    """
    # A copy that was not put in place: the outbox has continued since.
    swap.copied(path).unlink(missing_ok=True)
    with salvage.opened(path) as found:
        books = found.books
        if owner is None and books.client_id is not None and books.base_url is not None:
            owner = books.client_id, books.base_url
        owner = owner or fallback
        if owner is None:
            raise damage.ownerless(path)
        result = _make(swap.unfinished(path), path, found, *owner, key)
    swap.unfinished(path).replace(swap.ready(path))
    sync_folder(path.parent)
    result.aside = swap.free_name(path)
    path.rename(result.aside)
    swap.finish(path, result.aside)
    sleep(2 * SURE_SECONDS)
    return result


def _make(
    path: Path, old: Path, found: Salvage, client_id: str, base_url: str, key: bytes | None
) -> Result:
    """Make a complete outbox at `path`, on disk and without a log, from the rows found in `old`."""
    for leftover in ("", *paths.COMPANIONS, paths.JOURNAL):
        paths.beside(path, leftover).unlink(missing_ok=True)
    create.create_file(path, like=old)
    engine = make_engine(path, "full", writer=True)
    create.bring_up_to_date(engine, client_id, base_url)
    result = Result(lost=found.lost)
    with engine.connect() as connection:
        if key is not None:
            in_transaction(connection, key, chain_key.remember(key))
        rows = found.rows()
        while chunk := list(itertools.islice(rows, _CHUNK)):
            in_transaction(connection, key, partial(_append, rows=chunk, result=result))
        if key is not None:
            result.unproven = result.pending + result.delivered + result.dead
        if result.delivered:
            in_transaction(connection, key, _name_delivered)
        if result.erased:
            in_transaction(connection, key, _name_erased)
        in_transaction(connection, key, settlement.recount)
        in_transaction(
            connection,
            key,
            lambda job: ledger.discard(job.connection, ledger.BY_DAMAGE, result.lost),
        )
        connection.exec_driver_sql(
            "UPDATE sync_state SET last_success_ms = ?", (found.books.last_success_ms,)
        )
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return result


def _name_delivered(transaction: Transaction) -> None:
    """Log that the receiver has the delivered events under the id of the damaged outbox."""
    seqs = transaction.connection.exec_driver_sql(
        "SELECT seq FROM events WHERE delivered_at_ms IS NOT NULL ORDER BY seq"
    ).scalars()
    discards.name(transaction, discards.CARRIED_OVER, runs(seqs))


def _name_erased(transaction: Transaction) -> None:
    """Log which events are erased, as far as the erasure events that say so are lost."""
    query = f"SELECT {tables.EVENT} FROM events WHERE data = ?"  # noqa: S608 - our own names
    rows = transaction.connection.exec_driver_sql(query, (ERASED,))
    erasures.name(transaction, (Event(*row) for row in rows))


def in_transaction(
    connection: Connection, key: bytes | None, work: Callable[[Transaction], object]
) -> None:
    """Do `work` in a transaction of an outbox that nobody else uses yet, and commit it."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    driver = driver_of(connection)
    transaction = Transaction(connection, driver, chain_tail.read(driver), key)
    work(transaction)
    transaction.anchor()
    connection.exec_driver_sql("COMMIT")


def carry_over(transaction: Transaction, rows: Iterable[Row]) -> int:
    """Append rows of another outbox that this one does not have; return how many.

    They get new seqs, in their old order, and keep event id, digest, data and state.
    """
    result = Result()
    new = [row for row in rows if not transaction.holds(row.event.event_id)]
    _append(transaction, new, result)
    erasures.name(transaction, (row.event for row in new if row.event.data == ERASED))
    settlement.recount(transaction)
    return result.pending + result.delivered + result.dead


def _append(transaction: Transaction, rows: Iterable[Row], result: Result) -> None:
    """Append rows in their old state, and count them."""
    settled: list[tuple[int, Row]] = []
    for row in rows:
        result.count(row)
        seq = transaction.append_unproven(row.event)
        if not row.pending:
            settled.append((seq, row))
    connection = transaction.connection
    _settle(connection, settled)
    if result.erased:
        connection.exec_driver_sql("UPDATE sync_state SET scrub_due = ?", (scrub.FILE,))


def _settle(connection: Connection, settled: list[tuple[int, Row]]) -> None:
    """Give rows, at their new seqs, their old state."""
    for seq, row in settled:
        connection.exec_driver_sql(
            "UPDATE events SET delivered_at_ms = ?, dead_at_ms = ?, dead_code = ?, "
            "dead_message = ? WHERE seq = ?",
            (row.delivered_at_ms, row.dead_at_ms, row.dead_code, row.dead_message, seq),
        )
    skipped = sum(row.skipped for _, row in settled)
    delivered = sum(row.delivered_at_ms is not None for _, row in settled) - skipped
    ledger.add(connection, ledger.DELIVERED, delivered)
    ledger.add(connection, ledger.SKIPPED, skipped)
    ledger.add(connection, ledger.DEAD, len(settled) - delivered - skipped)


def log_result(path: Path, result: Result, reason: object) -> None:
    """Log what was salvaged and what was lost."""
    log.error(
        "the outbox %s is damaged (%s). A new one was made from what could be read: %d pending, "
        "%d delivered and %d dead events; %d undelivered events are known to be lost. "
        "The damaged files were kept: %s",
        path,
        reason,
        result.pending,
        result.delivered,
        result.dead,
        result.lost,
        result.aside,
    )
    if result.unproven:
        log.warning(
            "the chain key does not vouch for these %d events; `tracker-sync verify` lists them, "
            "and the damaged files are the evidence of what they were",
            result.unproven,
        )
    if result.erased:
        log.warning(
            "%d of these events were erased, and the damaged files %s may still have their data: "
            "delete them when nobody needs them any more",
            result.erased,
            result.aside,
        )
