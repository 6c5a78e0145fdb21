"""``tracker-sync resend``: sends delivered events again."""

from __future__ import annotations

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_change
from tracker.cli.output import echo_json, events, json_option
from tracker.since import Since


@click.command(
    cls=Command,
    examples=[
        "tracker-sync resend --since 2h && tracker-sync flush",
        "tracker-sync resend --since 2026-11-01T12:00 --type 'otel.*'",
    ],
    exits={0: "they are pending again, or there are none", 1: "the outbox cannot be written"},
)
@click.option(
    "--since",
    "since_ms",
    type=Since(),
    required=True,
    metavar="WHEN",
    help="What was delivered from then on: 2026-11-01, 2026-11-01T12:00 (local time), or 30m, 2h, "
    "7d ago.",
)
@click.option(
    "--type",
    "pattern",
    metavar="TYPE",
    default="*",
    help="Only events of this type, such as message.logged or otel.*",
)
@json_option
@click.pass_obj
def resend(place: Place, since_ms: int, pattern: str, *, as_json: bool) -> None:
    """Send delivered events again, to a receiver that lost them.

    The events that were delivered or skipped since then and are still in the outbox become pending
    again: they are sent by the next flush, or within seconds by the application that uploads, and
    skipped again if the settings still say so. Their ids stay, so a receiver that has some of them
    stores each once. Until they are delivered, they make no
    room in an outbox of limited size.
    """
    from tracker.outbox import resend as again

    target = find(place)
    changed = 0
    if target.exists:
        with opened_to_change(target) as outbox:
            changed = outbox.run(again.resend(since_ms, pattern))
    if as_json:
        echo_json({"pending_again": changed})
    elif not target.exists:
        click.echo(target.absence)
    else:
        click.echo(f"{events(changed)} pending again")
