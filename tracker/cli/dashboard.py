"""``tracker-sync dashboard``: pages about an outbox in a browser of this device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place, extra
from tracker.cli.context import NO_CLIENT, find, folder_of

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.cli.check import Check
    from tracker.dashboard.folder import OneOutbox
    from tracker.dashboard.health import Examination

_NICENESS = 5
"""Applications that log go first. Lower still, a read could wait for the processor for long."""


@click.command(
    cls=Command,
    examples=[
        "tracker-sync dashboard --open",
        "tracker-sync dashboard --all",
        "tracker-sync --outbox /var/lib/kiosk/events.sqlite3 dashboard --port 8765",
    ],
    exits={0: "ended by Ctrl-C or SIGTERM", 1: "the port is taken"},
)
@click.option("--open", "open_browser", is_flag=True, help="Open the link in the browser.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    help="Port on 127.0.0.1; it never listens elsewhere.",
)
@click.option("--all", "every", is_flag=True, help="Show all outboxes in the folder.")
@click.pass_obj
def dashboard(place: Place, *, open_browser: bool, port: int, every: bool) -> None:
    """Show an outbox in a browser: conversations, cost, delivery.

    Prints one link, which works on this device only, until it is ended. The pages need no network,
    and only read: the outbox is not changed by looking at it. Needs the extra [dashboard].
    """
    with extra("dashboard"):
        from tracker.dashboard.app import Dashboard
        from tracker.dashboard.server import ADDRESS, listening, serve, server_of
        from tracker.dashboard.token import Token

    outboxes = _outboxes(place, every=every)
    examination = _examination(place)
    os.nice(_NICENESS)
    with listening(port) as listener:
        number = listener.getsockname()[1]
        token = Token(number)
        made = Dashboard(outboxes, token, number, examination)
        link = f"http://{ADDRESS}:{number}/open?token={token.link}"

        def started() -> None:
            click.echo(link)
            if open_browser:
                click.launch(link)

        try:
            serve(server_of(made.app, started), listener)
        finally:
            made.close()


def _outboxes(place: Place, *, every: bool) -> OneOutbox:
    from tracker.cli.beside import paths_in
    from tracker.dashboard.folder import EveryOutbox, OneOutbox
    from tracker.dashboard.outbox_source import OutboxSource

    if every:
        folder = folder_of(place)
        return EveryOutbox(lambda known: paths_in(folder, known))
    target = find(place, examines=True)
    client_id = target.config.client_id
    return OneOutbox(OutboxSource(target.path, "", None if client_id == NO_CLIENT else client_id))


def _examination(place: Place) -> Examination:
    from tracker.cli import outbox_checks, place_checks
    from tracker.cli.chain_keys import chain_keys
    from tracker.dashboard.health import Examination

    config = find(place, examines=True).config

    def checks(path: Path, connection: Connection) -> list[Check]:
        if not path.exists():
            return [place_checks.disk(path), place_checks.sqlite_version()]
        return [
            *place_checks.privacy(path),
            place_checks.disk(path),
            place_checks.sqlite_version(),
            *outbox_checks.describe(path, config, outbox_checks.inspect(connection, quickly=True)),
        ]

    return Examination(checks, chain_keys(place, ()))
