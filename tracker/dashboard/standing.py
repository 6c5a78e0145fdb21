"""The account of an outbox, as the first thing that a page says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tracker.outbox import sync_state
from tracker.pages import charts
from tracker.pages.account import sentence
from tracker.pages.charts import Share
from tracker.pages.words import ago, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker.outbox import OutboxStatus


def standing(found: OutboxStatus, command: Callable[[str], str], *, runs: bool) -> dict[str, Any]:
    """Return the values of the template ``account.html``.

    Args:
        found: The state of the outbox.
        command: Makes a command line for it, of a command and its arguments.
        runs: Whether a process uploads.
    """
    book = found.account
    discarded = sum(book.discarded.values())
    parts = [
        ("delivered", book.delivered, "="),
        ("pending", book.pending, "+"),
        ("dead", book.dead, "+"),
        ("discarded", discarded, "+"),
    ]
    if book.skipped:
        parts.append(("skipped", book.skipped, "+"))
    said = sentence(
        accepted=book.accepted,
        pending=book.pending,
        dead=book.dead,
        discarded=discarded,
        skipped=book.skipped,
        oldest_seconds=_age(found),
        sends=runs and found.sync.paused_because is None and found.sync.waits_because is None,
    )
    return {
        "sentence": said,
        "account": book,
        "figures": parts,
        "bar": charts.bar(
            ", ".join(f"{amount:,} {name}" for name, amount, _ in parts),
            [Share(name, name, amount) for name, amount, _ in parts],
        ),
        "why": [*_why(found, runs=runs)],
        "command": _helps(found, command, runs=runs),
        "status": found,
        "runs": runs,
    }


def _age(found: OutboxStatus) -> float | None:
    oldest: object = found.oldest_pending_ms
    if not isinstance(oldest, int):  # there is none, or a damaged row has another type
        return None
    return max(time.time() - oldest / 1000, 0)


def _why(found: OutboxStatus, *, runs: bool) -> Iterator[str]:
    book, sync = found.account, found.sync
    if book.pending:
        if found.oldest_pending_ms is not None:
            yield f"The oldest was logged {ago(found.oldest_pending_ms) or 'at an unknown time'}."
        if sync.paused_because is not None:
            yield f"Paused: {sync.paused_because.rstrip('.')}."
        if sync.waits_because is not None:
            until = moment(sync.next_attempt_ms)
            yield f"Waits by a setting: {sync.waits_because}{f', until {until}' if until else ''}."
        if not runs:
            yield "No process uploads from this outbox now."
    elif book.accepted and sync.last_success_ms is not None:
        yield f"Last receipt {ago(sync.last_success_ms) or 'at an unknown time'}."
    if sync.warning is not None:
        yield f"Warning: {sync_state.describe_warning(sync.warning)}."


def _helps(found: OutboxStatus, command: Callable[[str], str], *, runs: bool) -> str:
    """Return the command that helps; an empty text if nothing has to be done."""
    book, sync = found.account, found.sync
    if book.pending and not runs:
        return command("flush")
    if book.pending and sync.is_held:
        return command("flush --now")
    return command("dead list") if book.dead else ""
