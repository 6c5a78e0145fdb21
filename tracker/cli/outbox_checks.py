"""The checks of ``tracker-sync doctor`` of the outbox itself, and of others beside it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from tracker import canonical
from tracker.cli.beside import others_beside
from tracker.cli.check import OK, PROBLEM, WARNING, Check, remedy
from tracker.cli.context import (
    opened_to_read,
    uploader_runs,
)
from tracker.cli.output import ago, moment, size
from tracker.errors import ConfigurationError, OutboxError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.cli.context import Target
    from tracker.config import APIConfig
    from tracker.outbox import OutboxStatus


def outbox(target: Target) -> list[Check]:
    """Check the outbox: its file, its keys, its queue, its owner."""
    if target.left:
        return [Check("outbox", PROBLEM, target.left)]
    if not target.exists:
        return [Check("outbox", OK, target.absence)]
    try:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = inspect(connection)
    except OutboxError as error:
        return [Check("outbox", PROBLEM, str(error), remedy(error))]
    return [*describe(target.path, target.config, found), *_owner(target, found.status)]


class Inspection(NamedTuple):
    """What the checks need to know of the inside of an outbox.

    Attributes:
        status: Its state.
        damage: What SQLite's quick check says; nothing if all is well, None if it was not asked.
        chain_key: The check value of its chain key.
        witnessed: The note of the newest head that the collector has signed; empty if there is
            none.
    """

    status: OutboxStatus
    damage: list[str] | None
    chain_key: int
    witnessed: str


def inspect(connection: Connection, *, quickly: bool = False) -> Inspection:
    """Read an outbox, and have SQLite check all pages of it unless it is to be done quickly."""
    from tracker.outbox import chain_key, checkpoint
    from tracker.outbox import status as outbox_status

    found = outbox_status.read(connection)
    said = None if quickly else _damage(connection)
    seen = checkpoint.witness(connection)
    return Inspection(
        found,
        said,
        chain_key.read(connection).check,
        "" if seen is None else seen.note,
    )


def _damage(connection: Connection) -> list[str]:
    said = [*map(str, connection.exec_driver_sql("PRAGMA quick_check(3)").scalars())]
    return [] if said == ["ok"] else said


def describe(path: Path, config: APIConfig, found: Inspection) -> list[Check]:
    """Return the checks of an outbox: its file, its keys, its queue. Opens it no more."""
    checks = []
    if found.damage == []:
        checks.append(Check("integrity", OK, "quick check passed; full check: tracker-sync verify"))
    elif found.damage:
        checks.append(
            Check(
                "integrity",
                PROBLEM,
                "; ".join(found.damage),
                "keep a copy of the file, see `tracker-sync verify`, and check the disk",
            )
        )
    owner = found.status.owner
    return [
        *checks,
        *_log(path),
        *_damaged(path),
        _chain_key(config, found.chain_key),
        *_copies(found.status),
        *(() if owner is None else _signing_key(path, owner.outbox_id, found.witnessed)),
        *_queue(found.status, path, running=uploader_runs(path)),
    ]


def beside(target: Target) -> list[Check]:
    """Report other outboxes in the folder with pending events, or that cannot be read."""
    checks = []
    for other in others_beside(target.path):
        if other.error is not None:
            said = f"it is not known what is pending in {other.path}: {other.error}"
            advice = f"see tracker-sync --outbox {shlex.quote(str(other.path))} doctor"
        elif other.pending and not other.backup:
            said = f"{other.pending:,} pending in {other.path} of client {other.client_id}"
            advice = f"if no application sends them: {other.command}"
        else:
            continue
        checks.append(Check("other outbox", WARNING, said, advice))
    return checks


def _log(path: Path) -> list[Check]:
    """Check that SQLite's write-ahead log is not larger than usual."""
    from tracker.outbox import describe_readers, excess

    log = excess(path)
    if not log:
        return []
    return [
        Check(
            "log",
            WARNING,
            f"{path.name}-wal has {size(log)}, and grows until a program that reads an old state "
            "of the outbox ends its read",
            describe_readers(path),
        )
    ]


def _damaged(path: Path) -> list[Check]:
    from tracker.outbox import damaged_sets

    sets = damaged_sets(path)
    if not sets:
        return []
    return [
        Check(
            "damaged files",
            WARNING,
            f"the outbox was damaged; what could be read was salvaged, and the damaged files were "
            f"kept: {', '.join(map(str, sets))}",
            "check the disk; delete the files when they are no longer needed: they may contain "
            "data that was erased since, and no erasure changes them",
        )
    ]


def _chain_key(config: APIConfig, remembered: int) -> Check:
    configured = canonical.key_check(canonical.key_bytes(config.chain_key))
    if configured == remembered:
        return Check("chain key", OK, "the configured one" if configured else "none")
    if not configured:
        return Check(
            "chain key",
            WARNING,
            "the chain has a key, and none is configured here",
            "set SDK_CHAIN_KEY to that of the application; `tracker-sync verify` needs it too",
        )
    if not remembered:
        return Check("chain key", OK, "the configured one, from the next start of a tracker")
    return Check(
        "chain key",
        WARNING,
        "the configured key is not that of the chain",
        "set SDK_CHAIN_KEY to that of the application; if it was changed, keep the former one",
    )


def _copies(found: OutboxStatus) -> list[Check]:
    """Report what the newest receipt warned of."""
    from tracker.outbox import sync_state

    if found.sync.warning is None:
        return []
    return [
        Check(
            "copies",
            WARNING,
            sync_state.describe_warning(found.sync.warning),
            "`tracker-sync verify --against-collector` names the events. Use only one of the "
            "copies; "
            "make copies with `tracker-sync backup` and `restore`",
        )
    ]


def _signing_key(path: Path, outbox_id: str, seen: str) -> list[Check]:
    """Report the public key that signs checkpoints, if the outbox has one beside it.

    Args:
        path: The outbox.
        outbox_id: Its id.
        seen: The note of the newest head that the collector has signed; empty if there is none.
    """
    from tracker.evidence import keys, note
    from tracker.evidence.verifier import NotProvenError, parse_note
    from tracker.outbox import paths

    file = paths.signing_key(path)
    if not (file.exists() and keys.can_sign()):
        return []
    try:
        public_key = keys.load(file).public_key
    except ConfigurationError as error:
        remedy = "put the key back from a copy, or move the file away for a new one"
        return [Check("signing key", WARNING, str(error), remedy)]
    key = note.device_key(outbox_id, public_key)
    try:
        signatures = parse_note(seen.encode()).signatures
    except NotProvenError:
        signatures = ()
    if {each.key_id for each in signatures if each.name == key.name} - {key.id}:
        return [
            Check(
                "signing key",
                WARNING,
                f"{key}; the collector signed the newest head of another key, and signs none of "
                "this one until it is told to",
                "put the key back from a copy, or see `tracker-collector outbox-key --help`",
            )
        ]
    return [Check("signing key", OK, f"{key}; note it elsewhere, to check evidence with")]


def _queue(found: OutboxStatus, path: Path, *, running: bool) -> list[Check]:
    book, sync = found.account, found.sync
    waiting = f"{book.pending:,}"
    if found.oldest_pending_ms is not None:
        waiting += f", the oldest logged {ago(found.oldest_pending_ms)}"
    if book.pending and sync.paused_because:
        pending = Check("pending", WARNING, f"{waiting}; paused: {sync.paused_because}")
    elif book.pending and sync.waits_because:
        until = "" if sync.next_attempt_ms is None else f", until {moment(sync.next_attempt_ms)}"
        pending = Check(
            "pending",
            OK,
            f"{waiting}; waits by a setting: {sync.waits_because}{until}",
            "to send them all the same: tracker-sync flush --now" if sync.is_held else "",
        )
    else:
        pending = Check("pending", OK, waiting)
    dead = Check("dead letters", OK, "0")
    if book.dead:
        dead = Check("dead letters", WARNING, f"{book.dead:,}", "tracker-sync dead list")
    uploader = _uploader(path) if running else Check("uploader", OK, "none; nothing is pending")
    if book.pending and not running:
        uploader = Check(
            "uploader",
            WARNING,
            "not running, though events are pending",
            "start the application, or `tracker-sync run`, or `tracker-sync flush`",
        )
    return [pending, dead, uploader]


def _uploader(path: Path) -> Check:
    """Report the process that holds the upload lock, and warn if it is stopped."""
    from tracker.outbox import is_stopped, paths, upload_lock_holders

    holders = upload_lock_holders(paths.upload_lock(path))
    said = "running" + (f", process {', '.join(map(str, holders))}" if holders else "")
    if any(map(is_stopped, holders)):
        return Check(
            "uploader",
            WARNING,
            f"{said}, which is stopped: nothing is uploaded until it continues or ends",
            "continue it (`kill -CONT PID`), or end it: another process then takes over",
        )
    return Check("uploader", OK, said)


def _owner(target: Target, found: OutboxStatus) -> list[Check]:
    config, owner = target.config, found.owner
    configured = (config.client_id, config.destination_url)
    if owner is None or (owner.client_id, owner.base_url) == configured:
        return []
    return [
        Check(
            "owner",
            PROBLEM,
            f"the outbox belongs to client {owner.client_id} and {owner.base_url}; the "
            f"configuration has client {config.client_id} and {config.destination_url}",
            "correct the configuration, or use `tracker-sync rebind`",
        )
    ]
