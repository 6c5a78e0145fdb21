"""``tracker-collector retain``: delete what is older than it has to be kept."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracker import clock, validation
from tracker.collector.claim import ClaimedError
from tracker.collector.keys import check_client_id
from tracker.collector.options import database_option, opened
from tracker.collector.retention.retaining import Retained, plan, retain, selected
from tracker.collector.retention.selection import Selection, is_kept
from tracker.errors import readable

if TYPE_CHECKING:
    from tracker.collector.store import Store

_DAY_MS = 86_400_000
_PARQUET_MISSING = "--archive needs the extra: pip install 'agent-tracking-sdk[collector,parquet]'"


@click.command("retain")
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    required=True,
    help="Delete what was received longer ago than this.",
)
@click.option("--client", "client_id", help="Only the events of this client.")
@click.option(
    "--type", "type_", metavar="TYPE", help="Only events of this type, or of all as in llm.*."
)
@click.option(
    "--archive",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="First write them to this folder, as Parquet with a manifest.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def retain_events(
    days: int,
    client_id: str | None,
    type_: str | None,
    folder: Path | None,
    database: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete events by age, counted from when they were received, permanently.

    What says why other events are not there stays: compliance.*, events.discarded, and changes of
    signing keys; so do checkpoints and keys. No gap is reported for what was deleted. This works
    beside a running server.

    Asks for confirmation; without a terminal, give --yes.
    """
    _check(client_id, type_)
    if folder is not None:
        _check_parquet()
    if not dry_run and not yes and not sys.stdin.isatty():
        raise click.UsageError("deleting is permanent: give --yes if you mean it, or --dry-run")
    before_ms = int(clock.wall() * 1000) - days * _DAY_MS
    with opened(database) as store:
        selection = selected(store, before_ms, client_id, type_)
        if dry_run:
            _print(plan(store, selection), as_json=as_json, dry_run=True)
            return
        if not yes:
            count = plan(store, selection).events
            click.confirm(f"Delete {count:,} events permanently?", abort=True, err=True)
        done = _retain(store, selection, folder)
    _print(done, as_json=as_json, dry_run=False)


def _check(client_id: str | None, type_: str | None) -> None:
    try:
        if client_id is not None:
            check_client_id(client_id)
        if type_ is not None:
            validation.check_id("--type", type_)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if type_ is not None and is_kept(type_):
        raise click.UsageError(f"events of the type {type_} say why others are gone, and are kept")


def _check_parquet() -> None:
    try:
        import pyarrow  # noqa: F401 - an optional extra; a message says if it is missing
    except ImportError as error:
        click.echo(_PARQUET_MISSING, err=True)
        raise SystemExit(2) from error


def _retain(store: Store, selection: Selection, folder: Path | None) -> Retained:
    try:
        with store.claimed("retention"):
            return retain(store, selection, folder)
    except ClaimedError as error:
        raise click.ClickException("another process deletes events by age already") from error
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        why = readable(f"{named}{error.strerror or error}")
        raise click.ClickException(f"nothing was deleted, for the archive failed: {why}") from error


def _print(done: Retained, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, **asdict(done)}))
        return
    if dry_run:
        click.echo(f"{done.events:,} events are old enough to be deleted")
    else:
        click.echo(f"{done.deleted:,} events deleted")
    for name in done.partitions:
        click.echo(f"the partition {name} {'would be' if dry_run else 'was'} dropped")
    if done.manifest is not None:
        click.echo(f"archived: {done.manifest}")
