"""``tracker-collector partitions`` and ``migrate``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tracker import clock
from tracker.collector.claim import ClaimedError
from tracker.collector.options import database_option, opened
from tracker.collector.partitioning import catalog, layout, migration
from tracker.collector.partitioning.ahead import Made, make_ahead

if TYPE_CHECKING:
    from tracker.collector.partitioning.catalog import Partition
    from tracker.collector.store import Store

_MIB = 2**20
_MOST_AHEAD = 120


@click.command("partitions")
@click.option(
    "--ahead",
    type=click.IntRange(0, _MOST_AHEAD),
    default=layout.AHEAD,
    show_default=True,
    help="Number of months after the present one that shall have a partition.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def show_partitions(ahead: int, database: str, *, as_json: bool) -> None:
    """Make partitions of `events` for the coming months, and list all.

    For PostgreSQL. `serve` makes them at its start and once a day; `serve --no-migrate` does not.
    """
    with opened(database, schema="ignore") as store:
        _check_partitioned(store)
        try:
            made = make_ahead(store, int(clock.wall() * 1000), ahead)
        except layout.TooManyError as error:
            raise click.ClickException(str(error)) from error
        with store.reading() as connection:
            found = catalog.partitions(connection)
    if as_json:
        listed = [each._asdict() for each in found]
        click.echo(json.dumps({"made": [each._asdict() for each in made], "partitions": listed}))
        return
    for each in found:
        click.echo(_line(each, made))


def _check_partitioned(store: Store) -> None:
    if store.dialect != "postgresql":
        raise click.UsageError("SQLite has no partitions: this is for a PostgreSQL database")
    with store.reading() as connection:
        if not catalog.is_partitioned(connection):
            raise click.ClickException(
                "the table of events is not divided yet: run `tracker-collector migrate`"
            )


def _line(partition: Partition, made: list[Made]) -> str:
    bounds = "all others" if partition.is_other else f"until {partition.upper}"
    if partition.lower is not None:
        bounds = f"from {partition.lower} {bounds}"
    new = "".join(f"  new, {each.moved:,} moved" for each in made if each.name == partition.name)
    size = partition.bytes / _MIB
    return f"{partition.name}  {partition.rows:,} events, {size:,.1f} MiB  {bounds}{new}"


@click.command("migrate")
@click.option(
    "--check", is_flag=True, help="Only say what would be done; exit with 1 if anything would be."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_option
def migrate(database: str, *, check: bool, as_json: bool) -> None:
    """Bring the database to what this version works best with, beside running servers.

    Locks are taken for moments; a batch that meets one is answered 503 at worst, and sent again. It
    can be interrupted, or killed, at any time: run it again, and it goes on.
    """
    steps: list[str] = []

    def say(step: str) -> None:
        steps.append(step)
        if not as_json:
            click.echo(step)

    with opened(database, schema="ignore", must_exist=True) as store:
        if check:
            for step in migration.plan(store):
                say(step)
        else:
            _migrate(store, say)
    if as_json:
        answer: dict[str, Any] = {"check": check, "steps": steps}
        click.echo(json.dumps(answer))
    elif not steps:
        click.echo("nothing to do")
    sys.exit(1 if check and steps else 0)


def _migrate(store: Store, say: migration.Say) -> None:
    try:
        with store.claimed("migration"):
            migration.run(store, say)
    except ClaimedError as error:
        raise click.ClickException("another `tracker-collector migrate` is at work") from error
