"""Beginning an outbox anew where its file is damaged, and keeping the damaged one.

Everything here happens under the outbox's write lock, so in one process at a time; the others find
another file at the path when the lock is theirs, and open that one.

The new outbox is made whole under another name first. Only then the damaged file leaves the path,
which tells every writer that its own is no longer the one; then go its log and its index, then the
new one comes. A crash in between leaves the path empty and the new outbox ready: whoever comes
next finishes the move. SQLite itself is at ease with it: a connection that closes leaves log and
index alone if its file is no longer the one at the path (``databaseIsUnmoved`` in its pager).
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from tracker import log
from tracker.erasure import ERASED
from tracker.errors import NotAnOutboxError, OutboxDamagedError
from tracker.outbox import (
    account,
    chain_key,
    clock,
    pages,
    planted,
    proof,
    salvage,
    schema,
    scrub,
    tables,
    uploads,
)
from tracker.outbox import head as heads
from tracker.outbox.engine import make_engine
from tracker.outbox.owner import Owner
from tracker.outbox.transaction import Transaction, driver_of
from tracker.outbox.writer import SURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.salvage import Row, Salvage

LOCK_MARK = b"The write lock of the tracker outbox beside it. Do not delete it while in use.\n"
"""Content of the lock file: it says that what lies beside it is an outbox, however damaged."""

Judged: TypeAlias = "tuple[Row, str]"
"""A row, and what is proven of it; see `proof`."""

_COMPANIONS = ("-wal", "-shm")
_SET = ".damaged-"
_CHUNK = 1_000


@dataclass
class Result:
    """What came over, in numbers of events, and where the old set is.

    Attributes:
        pending: Events that came over and wait to be sent.
        delivered: Events that came over and are delivered.
        dead: Dead letters that came over.
        lost: Undelivered events that are known to be lost.
        erased: Those that came over as markers: the old set may hold what was erased.
        unproven: Those that came over though the chain key does not prove them.
        disproven: Those that were whole and did not come over: the chain key speaks against them.
        aside: The damaged set.
    """

    pending: int = 0
    delivered: int = 0
    dead: int = 0
    lost: int = 0
    erased: int = 0
    unproven: int = 0
    disproven: int = 0
    aside: Path | None = None

    def count(self, row: Row, outcome: str) -> None:
        """Count one that came over."""
        self.pending += row.pending
        self.delivered += row.delivered_at_ms is not None
        self.dead += row.dead_at_ms is not None
        self.erased += row.event.data == ERASED
        self.unproven += outcome == proof.UNPROVEN


def damaged_sets(path: Path) -> list[Path]:
    """Return the damaged outbox files that were moved aside from `path`, oldest first."""
    return beside(path, f"{_SET}*")


def beside(path: Path, pattern: str) -> list[Path]:
    """Return the files whose names go on from the outbox's as `pattern`, but for logs and such."""
    found = path.parent.glob(f"{_escaped(path.name)}{pattern}")
    return sorted(file for file in found if not file.name.endswith(_COMPANIONS))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def identity(path: Path) -> tuple[int, int] | None:
    """Return which file is at `path`, by device and inode, or None if none is."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def was_salvaged(path: Path, file: tuple[int, int] | None) -> bool:
    """Tell whether `file` is one of the damaged ones aside, so that nothing need be rescued."""
    return file is not None and file in [identity(aside) for aside in damaged_sets(path)]


def is_ours(path: Path) -> bool:
    """Tell whether a file whose header is damaged was an outbox.

    It was if the lock file beside it carries our mark, if page 1 in the file or its log still has
    our application id, or if an event that matches its digest is found in it: no other program's
    file has any of them. Changes nothing.
    """
    lock = path.with_name(f"{path.name}.lock")
    if not lock.is_symlink() and lock.is_file():
        with lock.open("rb") as file:
            if file.read(len(LOCK_MARK)) == LOCK_MARK:
                return True
    with path.open("rb") as file:
        if int.from_bytes(file.read(72)[68:], "big") == tables.APPLICATION_ID:
            return True
    with salvage.opened(path) as found:
        return found.count > 0


def owner_of_damaged(path: Path) -> Owner:
    """Return whose outbox a damaged file was; its id and age are unknown.

    Raises:
        NotAnOutboxError: if it was none.
        OutboxDamagedError: if that cannot be read.
    """
    with salvage.opened(path) as found:
        books = found.books
    if books.client_id is not None and books.base_url is not None:
        return Owner("", books.client_id, books.base_url, 0)
    if is_ours(path):
        raise _ownerless(path)
    raise NotAnOutboxError(f"{path} is not a SQLite file or no outbox; it was left as it is")


def _ownerless(path: Path) -> OutboxDamagedError:
    return OutboxDamagedError(
        f"the outbox {path} is damaged, and whose it was cannot be read; it was left as it is. "
        "The next application that opens it salvages what can be read"
    )


def check(path: Path) -> None:
    """See, before SQLite does, that `path` is an outbox in working order, or empty.

    As `schema.recognise`, not to be called for a file that this process has open.

    Raises:
        OutboxDamagedError: if it is an outbox whose header or log is damaged.
        NotAnOutboxError: if it is anything else.
    """
    try:
        schema.recognise(path)
    except NotAnOutboxError as error:
        if is_ours(path):
            raise OutboxDamagedError(f"the header of the outbox {path} is damaged") from error
        raise
    log_size = pages.log_bytes(path)
    if not path.stat().st_size and log_size and is_ours(path):  # SQLite would delete the log
        raise OutboxDamagedError(f"the outbox {path} is gone, and its write-ahead log is not")
    if path.stat().st_size and log_size and pages.log_is_cut(path):
        raise OutboxDamagedError(f"the write-ahead log of the outbox {path} is damaged")


def check_in_use(path: Path) -> Callable[[Transaction], None]:
    """Return the job that sees that bookkeeping, file and log are as they can be.

    File and log must have room for all the pages there should be.
    """

    def job(transaction: Transaction) -> None:
        connection = transaction.connection
        planted.check_values(connection)
        count = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        if count * size > path.stat().st_size + pages.log_bytes(path):
            raise OutboxDamagedError(f"the outbox {path} was cut off")

    return job


def begin_anew(
    path: Path,
    owner: tuple[str, str] | None,
    fallback: tuple[str, str] | None,
    key: bytes | None,
) -> Result:
    """Make a new outbox of what `path` still holds, move the damaged set aside, put it there.

    Its chain begins anew, over the rows that came over, and so does the account's entry `stored`:
    `verify` finds the new outbox whole. That it had a predecessor, and what was lost of that, is
    told by the account (`account.BY_DAMAGE`) and the damaged set, which is the only evidence of
    what happened before.

    Args:
        path: The outbox.
        owner: Its client id and base URL, where known.
        fallback: Those to take if the file does not tell.
        key: The chain key; the new outbox remembers it.

    Raises:
        OutboxDamagedError: if nobody can tell whose outbox it was.
        OSError: if a file cannot be read, made or moved. The damaged set is at its path then.
    """
    copied(path).unlink(missing_ok=True)  # it was not put there, and the outbox has gone on since
    with salvage.opened(path) as found:
        books = found.books
        if owner is None and books.client_id is not None and books.base_url is not None:
            owner = books.client_id, books.base_url
        owner = owner or fallback
        if owner is None:
            raise _ownerless(path)
        result = _make(_being_made(path), found, *owner, key)
    _being_made(path).replace(_ready(path))
    sync_folder(path)
    result.aside = _free_name(path)
    path.rename(result.aside)
    _finish(path, result.aside)
    time.sleep(2 * SURE_SECONDS)
    return result


def finish_interrupted(path: Path) -> None:
    """Put a new outbox, or a copy (see `copying`), in its place that is ready and not there yet.

    Where the old one is still at the path, it may have been written since, so nothing is taken
    over: the next salvage makes another.
    """
    if not is_interrupted(path):
        return
    if copied(path).exists():
        put_copy_in_place(path)
    else:
        sets = damaged_sets(path)
        _finish(path, sets[-1] if sets else _free_name(path))


def is_interrupted(path: Path) -> bool:
    """Tell whether a process died between taking the old file away and putting the new one in.

    Another one may have made an empty file there, which it was about to open.
    """
    try:
        if path.stat().st_size:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return copied(path).exists() or _ready(path).exists()
    return copied(path).exists()


def put_copy_in_place(path: Path) -> None:
    """Put the copy where the outbox was, over an empty file that some process may have made."""
    for companion in _COMPANIONS:
        path.with_name(path.name + companion).unlink(missing_ok=True)
    copied(path).rename(path)
    sync_folder(path)


def leave_companions(path: Path) -> None:
    """Move log and index of a file that is gone aside, lest SQLite take them for the new one's."""
    if identity(path) is None:
        _move_companions(path, _free_name(path))


def _finish(path: Path, aside: Path) -> None:
    _move_companions(path, aside)
    _ready(path).rename(path)
    sync_folder(path)


def _move_companions(path: Path, aside: Path) -> None:
    for companion in _COMPANIONS:
        left = path.with_name(path.name + companion)
        if left.exists():
            left.rename(aside.with_name(aside.name + companion))


def _being_made(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvage")


def _ready(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvaged")


def copied(path: Path) -> Path:
    """Return where a copy is when it is whole."""
    return path.with_name(f"{path.name}.copied")


def _free_name(path: Path) -> Path:
    """Return a name for the damaged set that no file has, with the time in UTC."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        number += 1
        name = f"{path.name}{_SET}{moment}" + (f"-{number}" if number > 1 else "")
        if not any(path.with_name(name + end).exists() for end in ("", *_COMPANIONS)):
            return path.with_name(name)


def sync_folder(path: Path) -> None:
    """Have the names of the outbox's files outlast a power cut.

    Raises:
        OSError: if that cannot be.
    """
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path, found: Salvage, client_id: str, base_url: str, key: bytes | None) -> Result:
    """Make a whole outbox at `path`, on disk and without a log, of the rows found."""
    for leftover in ("", *_COMPANIONS, "-journal"):
        path.with_name(path.name + leftover).unlink(missing_ok=True)
    schema.create_file(path)
    engine = make_engine(path, "full", writer=True)
    schema.bring_up_to_date(engine, client_id, base_url)
    result = Result(lost=found.lost)
    with engine.connect() as connection:
        if key is not None:
            _in_transaction(connection, key, chain_key.remember(key))
        judged = proof.judge(found.rows(), found.before, key)
        while chunk := list(itertools.islice(judged, _CHUNK)):
            _in_transaction(connection, key, partial(_append, judged=chunk, result=result))
        _in_transaction(connection, key, uploads.recount)
        account.discard(connection, account.BY_DAMAGE, result.lost)
        clock.keep_floor(connection, found.books.account)
        connection.exec_driver_sql(
            "UPDATE sync_state SET last_success_ms = ?", (found.books.last_success_ms,)
        )
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return result


def _in_transaction(
    connection: Connection, key: bytes | None, work: Callable[[Transaction], object]
) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    driver = driver_of(connection)
    transaction = Transaction(connection, driver, heads.read(driver), key)
    work(transaction)
    account.note_stored(transaction.connection, transaction.head[0])
    connection.exec_driver_sql("COMMIT")


def carry_over(transaction: Transaction, judged: Iterable[Judged]) -> int:
    """Append rows of another outbox that this one does not hold; return how many.

    They get new places, in their old order, and keep event id, digest, data and state.
    """
    result = Result()
    connection = transaction.connection
    new = [
        (row, outcome)
        for row, outcome in judged
        if not uploads.is_stored(connection, row.event.event_id)
    ]
    _append(transaction, new, result)
    uploads.recount(transaction)
    return result.pending + result.delivered + result.dead


def _append(transaction: Transaction, judged: Iterable[Judged], result: Result) -> None:
    """Append rows, but for those that are disproven, in the state that they had; count them."""
    settled: list[tuple[int, Row]] = []
    for row, outcome in judged:
        if outcome == proof.DISPROVEN:
            result.disproven += 1
            result.lost += row.delivered_at_ms is None
        else:
            result.count(row, outcome)
            append = transaction.append if outcome == proof.PROVEN else transaction.append_unproven
            seq = append(row.event)
            if not row.pending:
                settled.append((seq, row))
    connection = transaction.connection
    _settle(connection, settled)
    if result.erased:
        connection.exec_driver_sql("UPDATE sync_state SET scrub_due = ?", (scrub.FILE,))


def _settle(connection: Connection, settled: list[tuple[int, Row]]) -> None:
    """Give rows at their new seqs the state that they had."""
    for seq, row in settled:
        connection.exec_driver_sql(
            "UPDATE events SET delivered_at_ms = ?, dead_at_ms = ?, dead_code = ?, "
            "dead_message = ? WHERE seq = ?",
            (row.delivered_at_ms, row.dead_at_ms, row.dead_code, row.dead_message, seq),
        )
    delivered = sum(row.delivered_at_ms is not None for _, row in settled)
    account.add(connection, account.DELIVERED, delivered)
    account.add(connection, account.DEAD, len(settled) - delivered)


DISPROVEN_EVENTS = (
    "%d events match their digests, but not the chain key: they were changed by somebody who does "
    "not have it. They are not carried over, but %s"
)
"""What the log says of disproven events: how many, and where they stay."""


def say(path: Path, result: Result, reason: object) -> None:
    """Log what was salvaged and what was not."""
    log.error(
        "the outbox %s is damaged (%s). A new one was begun with what could be read: %d pending, "
        "%d delivered and %d dead events; %d undelivered ones are known to be lost. "
        "The damaged files were kept: %s",
        path,
        reason,
        result.pending,
        result.delivered,
        result.dead,
        result.lost,
        result.aside,
    )
    if result.disproven:
        log.error(DISPROVEN_EVENTS, result.disproven, "kept in the damaged files")
    if result.unproven:
        log.warning(
            "%d of these events could not be proven under the chain key; `tracker-sync verify` "
            "names them",
            result.unproven,
        )
    if result.erased:
        log.warning(
            "%d of these events were erased, and the damaged files %s may hold what they said: "
            "delete them when nobody needs them any more",
            result.erased,
            result.aside,
        )
