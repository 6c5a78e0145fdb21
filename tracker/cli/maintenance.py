"""``tracker-sync prune``, ``migrate``, ``rebind`` and ``path``: maintenance of the outbox file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import (
    existing,
    find,
    named,
    opened,
    opened_to_change,
    read_owner,
    read_revision,
)
from tracker.cli.output import echo_json, events, json_option, size

if TYPE_CHECKING:
    from sqlalchemy import Connection


@click.command(
    cls=Command,
    examples=["tracker-sync prune", "tracker-sync prune --days 0", "tracker-sync prune --json"],
    exits={0: "pruned, or nothing to prune", 1: "the outbox cannot be written"},
)
@click.option(
    "--days",
    type=click.FloatRange(min=0, max=36_500),
    metavar="N",
    help="Keep events delivered in the last N days. Default: `retention_days`, 7.",
)
@json_option
@click.pass_obj
def prune(place: Place, days: float | None, *, as_json: bool) -> None:
    """Remove old delivered events and shrink the file.

    Only events that a receipt says are stored are removed, never pending events or dead letters.
    The uploader does the same every hour. Compliance events stay for ten years, and others by the
    rules of `retention`, as far as the environment or the configuration file says them.
    """
    target = find(place)
    removed = given_back = 0
    if target.exists:
        with opened_to_change(target) as outbox:
            with outbox.reading() as connection:
                before = _file_bytes(connection)
            removed = outbox.prune(target.config.retention_days if days is None else days)
            with outbox.reading() as connection:
                given_back = max(0, before - _file_bytes(connection))
    if as_json:
        echo_json({"removed": removed, "bytes_given_back": given_back})
    elif not target.exists:
        click.echo(target.absence)
    else:
        click.echo(f"{events(removed)} removed, {size(given_back)} freed")


def _file_bytes(connection: Connection) -> int:
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())


@click.command(
    cls=Command,
    examples=["tracker-sync migrate", "tracker-sync --outbox old.sqlite3 migrate"],
    exits={0: "up to date", 1: "no outbox, not an outbox, or from a newer version"},
)
@click.pass_obj
def migrate(place: Place) -> None:
    """Migrate an outbox of an older version.

    Applications do the same when they open it; this does it in advance. No event is lost.
    """
    target = existing(place)
    before = read_revision(target.path)
    with opened(target):
        after = read_revision(target.path)
    if before == after:
        click.echo(f"{target.path} is up to date (revision {after})")
    else:
        click.echo(f"{target.path} was migrated from revision {before} to {after}")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync --outbox events.sqlite3 rebind --base-url https://collector.example.com",
        "tracker-sync --outbox events.sqlite3 rebind --client-id kiosk-18",
    ],
    exits={0: "the outbox belongs to the given client", 1: "there is no such outbox"},
)
@click.pass_obj
def rebind(place: Place) -> None:
    """Give an outbox to another client id or base URL.

    They are given by --client-id and --base-url, or SDK_CLIENT_ID and SDK_BASE_URL; if one is not
    given, it stays. Pending events are then uploaded to the new base URL. First stop the
    applications that use the outbox: they keep the configuration with which they started.
    """
    from tracker.outbox import identity

    owner = named(place)
    if owner["outbox_path"] is None:
        raise click.UsageError("name the file, with --outbox or SDK_OUTBOX_PATH")
    if owner["client_id"] is None and owner["base_url"] is None:
        raise click.UsageError(
            "give the new owner, with --client-id or --base-url (SDK_CLIENT_ID, SDK_BASE_URL)"
        )
    target = existing(place)
    _check_base_url(owner["base_url"])
    before = read_owner(target.path)
    client_id, base_url = target.config.client_id, target.config.destination_url
    with opened_to_change(target) as outbox:
        outbox.run(identity.rebind(client_id, base_url))
    click.echo(f"was: client {before.client_id}, {before.base_url}")
    click.echo(f"now: client {client_id}, {base_url}")


def _check_base_url(base_url: str | None) -> None:
    """Refuse a base URL that uploads would refuse, such as plain http to another host.

    Raises:
        ConfigurationError: if it is not a valid base URL.
    """
    from tracker.config import APIConfig

    if base_url is not None:
        APIConfig(api_key="-", client_id="-", base_url=base_url, disabled=False)


@click.command(
    cls=Command,
    examples=[
        "tracker-sync path",
        'sqlite3 -readonly "$(tracker-sync path)" "SELECT * FROM pending"',
    ],
    exits={0: "printed, whether it exists or not", 1: "not known yet: see stderr"},
)
@click.pass_obj
def path(place: Place) -> None:
    """Print the path of the outbox, and nothing else."""
    target = find(place, examines=True)
    if not target.settled:
        raise click.ClickException(
            f"the outbox will be in {target.path.parent}, named after the client id, which is "
            "made when the first event is logged; set SDK_CLIENT_ID or SDK_OUTBOX_PATH to "
            "determine the path now"
        )
    click.echo(target.path)
