"""``tracker-sync receipts``: what a collector answered to events that were carried to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import existing, opened_to_change
from tracker.cli.output import counted, echo_json, events, json_option, printable

if TYPE_CHECKING:
    from tracker.sync.returned import Returned


@click.command(
    cls=Command,
    examples=[
        "tracker-sync receipts events.receipts",
        "tracker-sync receipts /media/usb/kiosk-17.receipts --json",
    ],
    exits={0: "recorded", 1: "the file was not accepted, or the collector refused part of it"},
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@json_option
@click.pass_obj
def receipts(place: Place, /, file: Path, *, as_json: bool) -> None:
    """Mark events as delivered by a file of receipts.

    `tracker-collector unpack` writes it for a bundle of `tracker-sync pack`. What the collector
    rejected becomes a dead letter. Nothing is marked unless the file has the seal of the API key
    that is set here: it has those of all keys that were valid for this client when it was written.
    It can be given again at any time, in any order with others.
    """
    target = existing(place, keyed=True)
    from tracker.outbox import ledger
    from tracker.sealed import reader
    from tracker.sealed.form import SealError
    from tracker.sync.returned import settle_returned

    try:
        with reader.opened(file) as content, opened_to_change(target) as outbox:
            result = settle_returned(outbox, target.config, content)
            with outbox.reading() as connection:
                pending = ledger.read(connection).pending
    except SealError as error:
        raise click.ClickException(f"{file} is not accepted: {error}") from error
    if as_json:
        echo_json({**vars(result), "pending": pending})
    else:
        _print(result, pending)
    click.get_current_context().exit(FAILED if result.refused else OK)


def _print(result: Returned, pending: int) -> None:
    click.echo(
        f"{events(result.delivered)} delivered, {result.dead:,} dead, {pending:,} pending; "
        f"the collector has {result.stored:,} by these receipts"
    )
    if result.refused:
        click.echo(
            f"{counted(len(result.refused), 'body')} not accepted by the collector, and pending: "
            f"{printable(result.refused[0])}",
            err=True,
        )
