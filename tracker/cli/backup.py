"""``tracker-sync backup`` and ``restore``: copy an outbox, and make an outbox of a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracker import canonical
from tracker.cli.command import Command, Place
from tracker.cli.context import connected, existing, find, opened_to_read, read_owner
from tracker.cli.output import events
from tracker.errors import OutboxDamagedError, OutboxError

if TYPE_CHECKING:
    from sqlalchemy import Connection


@click.command(
    cls=Command,
    examples=["tracker-sync backup /mnt/backup/events.sqlite3"],
    exits={0: "the backup is complete", 1: "no backup: no outbox, no space, or the file exists"},
)
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def backup(place: Place, file: Path) -> None:
    """Copy the outbox to FILE while applications use it.

    The copy is a single file that is marked as a backup: commands that read work on it, but
    nothing is uploaded from it and no application logs to it. `restore` makes an outbox of it.
    """
    from tracker.outbox import backup as backups
    from tracker.outbox import driver_of, errors

    target = existing(place)
    with opened_to_read(target) as outbox, outbox.snapshot() as connection:
        try:
            backups.make(driver_of(connection), file, target.path)
        except OutboxError as error:
            if errors.is_damage(str(error.__cause__)):
                raise OutboxDamagedError(str(error)) from error
            raise
        click.echo(f"{file}: {_contents(connection)}")


def _contents(connection: Connection) -> str:
    from tracker.outbox import ledger

    book = ledger.read(connection)
    return f"{events(book.accepted)}, {book.pending:,} of them pending"


@click.command(
    cls=Command,
    examples=["tracker-sync --outbox events.sqlite3 restore /mnt/backup/events.sqlite3"],
    exits={0: "the outbox is complete", 1: "no outbox: FILE is not an outbox, or one exists"},
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def restore(place: Place, file: Path) -> None:
    """Make an outbox of the backup FILE, with a new outbox id.

    Its pending events are uploaded by the next application or by `tracker-sync flush`. The
    collector drops those that it already has, by event id. An existing outbox is never replaced.
    """
    from tracker.outbox import backup as backups
    from tracker.outbox import driver_of

    read_owner(file)  # refuses a file that is not an outbox
    target = find(place)
    if not target.settled:
        raise click.UsageError("name the outbox to make, with --outbox or SDK_OUTBOX_PATH")
    target.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with connected(file) as connection:
        key = canonical.key_bytes(target.config.chain_key)
        backups.restore(driver_of(connection), target.path, key)
        click.echo(f"{target.path}: {_contents(connection)}")
