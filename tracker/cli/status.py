"""``tracker-sync status``: the state of an outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracker.cli.beside import waiting_beside
from tracker.cli.command import Command, Place
from tracker.cli.context import Target, find, opened_to_read, uploader_runs
from tracker.cli.output import (
    ago,
    echo_json,
    events,
    json_option,
    moment,
    print_facts,
    printable,
    size,
)

if TYPE_CHECKING:
    from tracker.outbox import OutboxStatus, SyncState


@click.command(
    cls=Command,
    examples=[
        "tracker-sync status",
        "tracker-sync status --json | jq .pending",
        "watch -n 5 tracker-sync --outbox /var/lib/kiosk/events.sqlite3 status",
    ],
    exits={0: "shown, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@json_option
@click.pass_obj
def status(place: Place, *, as_json: bool) -> None:
    """Show the loss account and the state of uploading.

    The figures of the loss account always add up: accepted = delivered + pending + dead + skipped +
    discarded. This needs neither an API key nor a server.
    """
    from tracker.outbox import status as outbox_status

    target = find(place)
    if not target.exists:
        found, files, running = outbox_status.OutboxStatus(), {}, False
    else:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            found = outbox_status.read(connection)
        files, running = outbox_status.file_sizes(target.path), uploader_runs(target.path)
    if as_json:
        echo_json(_as_dict(target, found, files, running=running))
    elif not target.exists:
        click.echo(target.absence)
    else:
        print_facts(_facts(target, found, files, running=running))
    if not as_json:
        for other in waiting_beside(target.path):
            click.echo(
                f"\n{events(other.pending)} of client {printable(other.client_id)} pending in "
                f"another outbox; to send them: {other.command}"
            )


def _as_dict(
    target: Target, found: OutboxStatus, files: dict[str, int], *, running: bool
) -> dict[str, Any]:
    owner, book, sync = found.owner, found.account, found.sync
    return {
        "outbox": str(target.path) if target.settled else None,
        "exists": target.exists,
        "outbox_id": owner and owner.outbox_id,
        "client_id": owner and owner.client_id,
        "base_url": owner and owner.base_url,
        "created_at_ms": owner and owner.created_at_ms,
        "revision": found.revision,
        "accepted": book.accepted,
        "delivered": book.delivered,
        "pending": book.pending,
        "dead": book.dead,
        "discarded": dict(book.discarded),
        "skipped": book.skipped,
        "last_seq": found.last_seq,
        "oldest_pending_seq": found.oldest_pending_seq,
        "oldest_pending_ms": found.oldest_pending_ms,
        "uploader_running": running,
        "last_success_ms": sync.last_success_ms,
        "last_error": sync.last_error,
        "last_error_ms": sync.last_error_ms,
        "next_attempt_ms": sync.next_attempt_ms,
        "paused_because": sync.paused_because,
        "waits_because": sync.waits_because,
        "warning": sync.warning,
        "used_bytes": found.used_bytes,
        "files": files,
        "damaged_sets": _damaged(target),
        "waiting_beside": [
            {"outbox": str(each.path), "client_id": each.client_id, "pending": each.pending}
            for each in waiting_beside(target.path)
        ],
    }


def _facts(
    target: Target, found: OutboxStatus, files: dict[str, int], *, running: bool
) -> list[tuple[str, str]]:
    from tracker.outbox import sync_state

    owner, book, sync = found.owner, found.account, found.sync
    facts = [("outbox", str(target.path))]
    if owner is not None:
        facts += [("client", owner.client_id), ("server", owner.base_url)]
    facts += [
        ("accepted", f"{book.accepted:,}"),
        ("delivered", f"{book.delivered:,}"),
        ("pending", f"{book.pending:,}{_oldest(found)}"),
        ("dead", f"{book.dead:,}" + (" (see: tracker-sync dead list)" if book.dead else "")),
    ]
    facts += [(f"discarded, {reason}", f"{n:,}") for reason, n in book.discarded.items()]
    if book.skipped:
        facts.append(("skipped", f"{book.skipped:,} of types that are not sent"))
    facts += [("damaged, kept", path) for path in _damaged(target)]
    facts += [
        ("on disk", f"{size(sum(files.values()))}, {size(found.used_bytes)} of it in use"),
        ("uploader", _uploader(found, running=running)),
        ("last success", ago(sync.last_success_ms)),
    ]
    if sync.last_error is not None:
        facts.append(("last error", f"{ago(sync.last_error_ms)}: {sync.last_error}"))
    if book.pending:
        facts += _pause(sync, running=running)
    if sync.warning is not None:
        facts.append(("warning", sync_state.describe_warning(sync.warning)))
    return facts


def _pause(sync: SyncState, *, running: bool) -> list[tuple[str, str]]:
    """Return why nothing is uploaded at present, and until when."""
    facts = []
    if sync.paused_because is not None:
        facts.append(("paused because", sync.paused_because))
    if sync.waits_because is not None:
        facts.append(("waits because", sync.waits_because))
    if facts and sync.next_attempt_ms is not None and running:
        facts.append(("next attempt", moment(sync.next_attempt_ms)))
    return facts


def _damaged(target: Target) -> list[str]:
    """Return the damaged files that were moved aside and still exist."""
    from tracker.outbox import damaged_sets

    return [str(path) for path in damaged_sets(target.path)] if target.exists else []


def _oldest(found: OutboxStatus) -> str:
    if found.oldest_pending_ms is None:
        return ""
    return f", the oldest logged {ago(found.oldest_pending_ms)}"


def _uploader(found: OutboxStatus, *, running: bool) -> str:
    if running:
        return "running"
    if found.account.pending:
        return "not running (start the application, or: tracker-sync run, or: tracker-sync flush)"
    return "not running"
