"""``tracker-collector roll``: roll events up, for reads of many of them."""

from __future__ import annotations

import logging

import click

from tracker.collector.claim import ClaimedError
from tracker.collector.forwarding.stop import Stop
from tracker.collector.options import database_option, opened
from tracker.collector.rollups.roller import CLAIM, Roller

_IDLE_SECONDS = 1.0


@click.command()
@click.option(
    "--once/--follow",
    default=False,
    help="End when everything is rolled up, or go on until SIGTERM.  [default: follow]",
)
@database_option
def roll(database: str, *, once: bool) -> None:
    """Add up what has arrived, for fast reads of many events.

    A server does this by itself. Only with PostgreSQL, and one process at a time.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    with Stop() as stop, opened(database) as store:
        if store.dialect != "postgresql":
            raise click.UsageError("there are no roll-ups in SQLite: reads go through the events")
        try:
            with store.claimed(CLAIM) as check:
                roller = Roller(store)
                while not stop:
                    check()
                    pause = roller.step()
                    if pause is None and once:
                        break
                    stop.wait(_IDLE_SECONDS if pause is None else pause)
        except ClaimedError as error:
            raise click.ClickException(
                "another process rolls up the events of this database"
            ) from error
    if once:
        click.echo(f"rolled up through event {roller.done}")
