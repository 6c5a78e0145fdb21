"""``tracker-sync flush``: upload pending events, and wait for it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import SQLAlchemyError

from tracker.cli.beside import paths_in, to_upload
from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import Target, check_uploads, find, folder_of, opened
from tracker.cli.output import echo_json, events, json_option, moment, printable
from tracker.clock import monotonic, sleep
from tracker.errors import TrackerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
    held: bool = False


@click.command(
    cls=Command,
    examples=[
        "tracker-sync flush",
        "tracker-sync flush --timeout 300 && sudo poweroff",
        "tracker-sync flush --now",
        "tracker-sync flush --all --json",
        "tracker-sync flush --outbox /var/lib/kiosk/events.sqlite3 --json",
    ],
    exits={
        0: "nothing is left pending (there may be dead letters)",
        1: "events are pending, or an outbox cannot be opened",
    },
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
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Upload from all outboxes in the folder, each for its own client id and collector.",
)
@json_option
@click.pass_obj
def flush(place: Place, timeout: float, *, now: bool, every: bool, as_json: bool) -> None:
    """Upload pending events and wait until they are delivered.

    If an application already uploads from the same outbox, this asks it to continue at once, and
    waits. Events that are not delivered stay in the outbox: a failed flush loses nothing.

    Outside the upload window nothing is sent, unless --now is given: then the application that
    uploads sends what is pending as well. The limit on bytes holds in any case.

    With --all, the outboxes are those of `tracker-sync outboxes`. The API key is the same for all,
    and each collector gets it. An outbox that cannot be opened is named, and the others go on.
    """
    if every:
        _flush_all(place, timeout, now=now, as_json=as_json)
        return
    target = find(place, uploads=True)
    outcome = _flush(target, timeout, now=now) if target.exists else _Outcome()
    if as_json:
        echo_json({"outbox": str(target.path) if target.settled else None, **vars(outcome)})
    elif not target.exists:
        click.echo(target.absence)
    else:
        _print(outcome)
    click.get_current_context().exit(FAILED if outcome.pending else OK)


def _flush_all(place: Place, timeout: float, *, now: bool, as_json: bool) -> None:
    """Flush all outboxes of the folder at the same time, and print what became of each."""
    check_uploads(place)
    folder = folder_of(place)
    paths = list(paths_in(folder))
    outcomes: dict[Path, _Outcome | str | None] = dict.fromkeys(paths, "failed: see above")

    def work(path: Path) -> None:
        try:
            target = to_upload(path, place)
            if target is None:  # a backup
                outcomes[path] = None
            else:
                outcomes[path] = _flush(target, timeout, now=now, quiet=True)
        except (TrackerError, SQLAlchemyError, OSError) as error:
            outcomes[path] = str(error)

    # Daemons, so that Ctrl-C does not wait for them.
    threads = [threading.Thread(target=work, args=(path,), daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = {path: outcome for path, outcome in outcomes.items() if outcome is not None}
    if as_json:
        echo_json([_described(path, outcome) for path, outcome in done.items()])
    elif not done:
        click.echo(f"no outbox in {printable(folder)} yet: nothing was logged")
    else:
        for path, outcome in done.items():
            _print_named(path, outcome)
    failed = any(isinstance(each, str) or each.pending for each in done.values())
    click.get_current_context().exit(FAILED if failed else OK)


def _described(path: Path, outcome: _Outcome | str) -> dict[str, object]:
    if isinstance(outcome, str):
        return {"outbox": str(path), **dict.fromkeys(vars(_Outcome())), "error": outcome}
    return {"outbox": str(path), **vars(outcome), "error": None}


def _print_named(path: Path, outcome: _Outcome | str) -> None:
    if isinstance(outcome, str):
        click.echo(f"{printable(path)}: {printable(outcome)}", err=True)
    else:
        click.secho(printable(path), bold=True)
        _print(outcome)


def _flush(target: Target, timeout: float, *, now: bool, quiet: bool = False) -> _Outcome:
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
            with nullcontext() if quiet else _progress(before.pending) as progress:
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
        after.pending > 0 and sync.is_held,
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
        if outcome.held:
            click.echo("to upload all the same: tracker-sync flush --now")
        return
    if outcome.last_error is not None:
        click.echo(f"last error, {moment(outcome.last_error_ms)}: {printable(outcome.last_error)}")
    click.echo(
        "pending events are safe in the outbox. To find the problem, run tracker-sync doctor; "
        "then flush again"
    )
