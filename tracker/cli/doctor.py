"""``tracker-sync doctor``: problems with logging or uploading, and what to do about them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.output import echo_json, json_option, printable

if TYPE_CHECKING:
    from tracker.cli.check import Check

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(
    cls=Command,
    examples=[
        "tracker-sync doctor",
        "tracker-sync --outbox /var/lib/kiosk/events.sqlite3 doctor --json",
    ],
    exits={0: "no problem (there may be warnings)", 1: "a problem"},
)
@json_option
@click.pass_obj
def doctor(place: Place, *, as_json: bool) -> None:
    """Check configuration, files, disk, clock, server and API key.

    Prints one line for each check, and what to do if there is a problem. Changes nothing. An OTLP
    receiver is tried with one span, tracker.connected, which it holds once.
    """
    from tracker.cli import checks
    from tracker.cli.check import PROBLEM

    found = checks.examine(place)
    sound = all(check.status != PROBLEM for check in found)
    if as_json:
        echo_json({"ok": sound, "checks": [asdict(check) for check in found]})
    else:
        _print(found)
    click.get_current_context().exit(OK if sound else FAILED)


def _print(found: list[Check]) -> None:
    width = max(len(check.name) for check in found)
    for check in found:
        status = click.style(f"{check.status:7}", fg=_COLOURS[check.status])
        click.echo(f"{check.name:{width}}  {status}  {printable(check.message)}")
        if check.action:
            click.echo(f"{'':{width}}           → {printable(check.action)}")
