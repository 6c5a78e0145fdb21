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

import os
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tracker import log
from tracker.erasure import ERASED
from tracker.errors import NotAnOutboxError, OutboxDamagedError
from tracker.outbox import account, chain_key, pages, salvage, schema, scrub, tables, uploads
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

_COMPANIONS = ("-wal", "-shm")
_SET = ".damaged-"
_CHUNK = 1_000


class Result(NamedTuple):
    """How many events came over, by state, what is known to be lost, and where the old set is.

    Of those that came over, `erased` are markers: the old set may hold what was erased.
    """

    pending: int
    delivered: int
    dead: int
    lost: int
    erased: int
    aside: Path


def damaged_sets(path: Path) -> list[Path]:
    """Return the damaged outbox files that were moved aside from `path`, oldest first."""
    found = path.parent.glob(f"{_escaped(path.name)}{_SET}*")
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
    return bool(salvage.read(path).rows)


def owner_of_damaged(path: Path) -> Owner:
    """Return whose outbox a damaged file was; its id and age are unknown.

    Raises:
        NotAnOutboxError: if it was none.
        OutboxDamagedError: if that cannot be read.
    """
    found = salvage.read(path)
    if found.client_id is not None and found.base_url is not None:
        return Owner("", found.client_id, found.base_url, 0)
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
    found = salvage.read(path)
    if owner is None and found.client_id is not None and found.base_url is not None:
        owner = found.client_id, found.base_url
    owner = owner or fallback
    if owner is None:
        raise _ownerless(path)
    _make(_being_made(path), found, *owner, key)
    _being_made(path).replace(_ready(path))
    _sync_folder(path)
    aside = _free_name(path)
    path.rename(aside)
    _finish(path, aside)
    time.sleep(2 * SURE_SECONDS)
    states = [(row.pending, row.delivered_at_ms is not None) for row in found.rows]
    pending, delivered = states.count((True, False)), states.count((False, True))
    dead = len(found.rows) - pending - delivered
    erased = sum(row.event.data == ERASED for row in found.rows)
    return Result(pending, delivered, dead, found.lost, erased, aside)


def finish_interrupted(path: Path) -> None:
    """Put a new outbox in its place that a process which died had ready.

    Where the damaged one is still at the path, it may have been written since, so nothing is
    taken over: the next salvage makes another.
    """
    if is_interrupted(path):
        sets = damaged_sets(path)
        _finish(path, sets[-1] if sets else _free_name(path))


def is_interrupted(path: Path) -> bool:
    """Tell whether a process died between moving the damaged file aside and the new one in."""
    return identity(path) is None and _ready(path).exists()


def leave_companions(path: Path) -> None:
    """Move log and index of a file that is gone aside, lest SQLite take them for the new one's."""
    if identity(path) is None:
        _move_companions(path, _free_name(path))


def _finish(path: Path, aside: Path) -> None:
    _move_companions(path, aside)
    _ready(path).rename(path)
    _sync_folder(path)


def _move_companions(path: Path, aside: Path) -> None:
    for companion in _COMPANIONS:
        left = path.with_name(path.name + companion)
        if left.exists():
            left.rename(aside.with_name(aside.name + companion))


def _being_made(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvage")


def _ready(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvaged")


def _free_name(path: Path) -> Path:
    """Return a name for the damaged set that no file has, with the time in UTC."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        number += 1
        name = f"{path.name}{_SET}{moment}" + (f"-{number}" if number > 1 else "")
        if not any(path.with_name(name + end).exists() for end in ("", *_COMPANIONS)):
            return path.with_name(name)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path, found: Salvage, client_id: str, base_url: str, key: bytes | None) -> None:
    """Make a whole outbox at `path`, on disk and without a log, of the rows found."""
    for leftover in ("", *_COMPANIONS, "-journal"):
        path.with_name(path.name + leftover).unlink(missing_ok=True)
    schema.create_file(path)
    engine = make_engine(path, "full", writer=True)
    schema.bring_up_to_date(engine, client_id, base_url)
    with engine.connect() as connection:
        if key is not None:
            _in_transaction(connection, key, chain_key.remember(key))
        for start in range(0, len(found.rows), _CHUNK):
            rows = found.rows[start : start + _CHUNK]
            _in_transaction(connection, key, partial(carry_over, rows=rows))
        account.discard(connection, account.BY_DAMAGE, found.lost)
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _in_transaction(
    connection: Connection, key: bytes | None, work: Callable[[Transaction], object]
) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    driver = driver_of(connection)
    transaction = Transaction(connection, driver, heads.read(driver), key)
    work(transaction)
    account.note_stored(transaction.connection, transaction.head[0])
    connection.exec_driver_sql("COMMIT")


def carry_over(transaction: Transaction, rows: Iterable[Row]) -> int:
    """Append rows of another outbox that this one does not hold; return how many.

    They get new places, in their old order, and keep event id, digest, data and state.
    """
    connection = transaction.connection
    new = [row for row in rows if not uploads.is_stored(connection, row.event.event_id)]
    settled: list[tuple[object, ...]] = []
    for row in new:
        seq = transaction.append(row.event)
        if not row.pending:
            settled.append((*row[2:], seq))
    for values in settled:
        transaction.connection.exec_driver_sql(
            "UPDATE events SET delivered_at_ms = ?, dead_at_ms = ?, dead_code = ?, "
            "dead_message = ? WHERE seq = ?",
            values,
        )
    account.add(connection, account.DELIVERED, sum(v[0] is not None for v in settled))
    account.add(connection, account.DEAD, sum(v[0] is None for v in settled))
    if any(row.event.data == ERASED for row in new):
        connection.exec_driver_sql("UPDATE sync_state SET scrub_due = ?", (scrub.FILE,))
    uploads.recount(transaction)
    return len(new)


def undelivered(connection: Connection) -> list[Row]:
    """Return what the outbox behind a connection holds that no receipt covers, whole rows only."""
    columns = ", ".join(tables.events.columns.keys())
    rows = [
        salvage.make_row(values[0], list(values))
        for values in connection.exec_driver_sql(
            f"SELECT {columns} FROM events WHERE delivered_at_ms IS NULL "  # noqa: S608 - our names
            "AND seq > min((SELECT settled_through FROM sync_state), "
            "coalesce((SELECT min(seq) FROM events WHERE dead_at_ms IS NOT NULL), 1 << 62) - 1)"
        )
    ]
    return salvage.choose(rows)[0]


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
    if result.erased:
        log.warning(
            "%d of these events were erased, and the damaged files %s may hold what they said: "
            "delete them when nobody needs them any more",
            result.erased,
            result.aside,
        )
