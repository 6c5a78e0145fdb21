"""``tracker-sync flush``: upload pending events, and wait for it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import Target, find, opened
from tracker.cli.output import echo_json, events, json_option, moment, printable
from tracker.clock import monotonic, sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker.client import Client
    from tracker.outbox import Account, Outbox, SyncState
    from tracker.sync.flush import FlushResult

_BETWEEN_ROUNDS_SECONDS = 0.05


@dataclass(frozen=True)
class _Outcome:
    """Result of a flush: events `delivered` during it, and the other figures at its end."""

    delivered: int = 0
    pending: int = 0
    dead: int = 0
    last_error: str | None = None
    last_error_ms: int | None = None
    waits_because: str | None = None


@click.command(
    cls=Command,
    examples=[
        "tracker-sync flush",
        "tracker-sync flush --timeout 300 && sudo poweroff",
        "tracker-sync flush --now",
        "tracker-sync flush --outbox /var/lib/kiosk/events.sqlite3 --json",
    ],
    exits={0: "nothing is left pending (there may be dead letters)", 1: "events are pending"},
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Maximum time to upload.",
)
@click.option(
    "--now",
    is_flag=True,
    help="Upload outside the upload window too, and though the application's may_upload says no.",
)
@json_option
@click.pass_obj
def flush(place: Place, timeout: float, *, now: bool, as_json: bool) -> None:
    """Upload pending events and wait until they are delivered.

    If an application already uploads from the same outbox, this asks it to continue at once, and
    waits. Events that are not delivered stay in the outbox: a failed flush loses nothing.

    Outside the upload window nothing is sent, unless --now is given: then the application that
    uploads sends what is pending as well. The limit on bytes holds in any case.
    """
    target = find(place, uploads=True)
    outcome = _flush(target, timeout, now=now) if target.exists else _Outcome()
    if as_json:
        echo_json({"outbox": str(target.path) if target.settled else None, **vars(outcome)})
    elif not target.exists:
        click.echo(target.absence)
    else:
        _print(outcome)
    click.get_current_context().exit(FAILED if outcome.pending else OK)


def _flush(target: Target, timeout: float, *, now: bool) -> _Outcome:
    from tracker.client import Client, connect
    from tracker.outbox import backup

    # Before connecting: from then on the worker delivers.
    with opened(target) as outbox:
        with outbox.reading() as connection:
            backup.refuse(connection, target.path)
        before, sync = _look(outbox)
    after, trouble = before, None
    if before.pending:
        client = connect(target.config, target)
        assert isinstance(client, Client)  # noqa: S101 - `find` refuses a disabled configuration
        try:
            with _progress(before.pending) as progress:
                after, sync = _upload(client, timeout, progress, ordered=now)
            trouble = client.health().storage_error
        finally:
            client.release(target, timeout=0)
    at = time.time_ns() // 1_000_000 if trouble else sync.last_error_ms
    return _Outcome(
        after.delivered - before.delivered,
        after.pending,
        after.dead,
        (trouble or sync.paused_because or sync.last_error) if after.pending else None,
        at if after.pending else None,
        sync.waits_because if after.pending else None,
    )


def _look(outbox: Outbox) -> tuple[Account, SyncState]:
    from tracker.outbox import ledger, sync_state

    with outbox.reading() as connection:
        return ledger.read(connection), sync_state.read_state(connection)


def _upload(
    client: Client,
    timeout: float,
    progress: Callable[[FlushResult], None] | None,
    *,
    ordered: bool,
) -> tuple[Account, SyncState]:
    """Wait until nothing is pending, including events logged meanwhile, or until the timeout.

    It ends earlier if a setting keeps the events back, unless they were `ordered`. Return the
    figures at that moment: an application may log another event right after.
    """
    from tracker.sync.flush import Flush

    end = monotonic() + timeout
    while True:
        left = max(0.0, end - monotonic())
        flush = Flush(client.outbox, client.worker, checkpoint=True, ordered=ordered)
        flush.wait(left, progress=progress)
        book, sync = _look(client.outbox)
        if not book.pending or monotonic() >= end or flush.held:
            return book, sync
        sleep(_BETWEEN_ROUNDS_SECONDS)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[FlushResult], None] | None]:
    """Show a progress bar on stderr if it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("uploading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("uploading", total=total)
        yield lambda result: bar.update(task, completed=max(0, total - result.pending))


def _print(outcome: _Outcome) -> None:
    click.echo(
        f"{events(outcome.delivered)} delivered, {outcome.pending:,} pending, {outcome.dead:,} dead"
    )
    if outcome.dead:
        click.echo("to see the dead letters: tracker-sync dead list")
    if not outcome.pending:
        return
    if outcome.waits_because is not None:
        click.echo(f"uploads wait: {printable(outcome.waits_because)}")
        click.echo("to upload all the same: tracker-sync flush --now")
        return
    if outcome.last_error is not None:
        click.echo(f"last error, {moment(outcome.last_error_ms)}: {printable(outcome.last_error)}")
    click.echo(
        "pending events are safe in the outbox. To find the problem, run tracker-sync doctor; "
        "then flush again"
    )
