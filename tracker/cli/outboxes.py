"""``tracker-sync outboxes``: all outboxes in a folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tracker.cli.beside import Found, outboxes_in
from tracker.cli.command import FAILED, OK, Command, Place
from tracker.cli.context import folder_of
from tracker.cli.output import (
    check_one_format,
    csv_option,
    duration,
    echo_csv,
    echo_json,
    json_option,
    print_table,
    printable,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADINGS = ("pending", "oldest pending", "last success", "size", "server", "client", "outbox")
_SPARE = ("size", "server", "last success", "oldest pending", "client")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync outboxes",
        "tracker-sync outboxes --json | jq '.[] | select(.pending > 0)'",
        "tracker-sync --outbox /var/lib/kiosk/events.sqlite3 outboxes --csv",
    ],
    exits={0: "listed, or there are none", 1: "one of them cannot be read"},
)
@json_option
@csv_option
@click.pass_obj
def outboxes(place: Place, *, as_json: bool, as_csv: bool) -> None:
    """List all outboxes in the data folder, and what is pending.

    With --outbox, those in the folder of that file. They are the files that end in .sqlite3. Each
    belongs to one client id and one collector; backups are listed too. To send what is pending in
    all of them: tracker-sync flush --all.
    """
    check_one_format(as_json=as_json, as_csv=as_csv)
    folder = folder_of(place)
    found = outboxes_in(folder)
    if as_json:
        echo_json([_as_dict(each) for each in found])
    elif as_csv:
        names = list(_as_dict(Found(folder)))
        echo_csv(names, (_as_dict(each).values() for each in found))
    elif found:
        _print(found)
    else:
        click.echo(f"no outbox in {printable(folder)} yet: nothing was logged")
    click.get_current_context().exit(FAILED if any(each.error for each in found) else OK)


def _as_dict(found: Found) -> dict[str, object]:
    described = {name: value for name, value in vars(found).items() if name != "path"}
    return {"outbox": str(found.path), **described}


def _print(found: Sequence[Found]) -> None:
    sound = [each for each in found if each.error is None]
    if sound:
        print_table(_HEADINGS, map(_cells, sound), fixed=4, ids=("client", "outbox"), spare=_SPARE)
    for each in found:
        if each.error is not None:
            click.echo(f"{printable(each.path)}: {printable(each.error)}", err=True)


def _age(milliseconds: int | None, none: str) -> str:
    """Return how long ago a time was; a clock that was set back makes it 0."""
    if not isinstance(milliseconds, int):  # there is none, or a damaged row has another type
        return none
    return f"{duration(max(time.time() - milliseconds / 1000, 0))} ago"


def _cells(found: Found) -> tuple[object, ...]:
    return (
        f"{found.pending:,}",
        "(a backup)" if found.backup else _age(found.oldest_pending_ms, "-"),
        _age(found.last_success_ms, "never"),
        size(found.size_bytes),
        found.base_url,
        found.client_id,
        found.path,
    )
