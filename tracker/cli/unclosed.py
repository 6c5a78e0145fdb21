"""``tracker-sync unclosed``: conversations that have not ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_read
from tracker.cli.conversations import print_conversations
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import check_one_format, csv_option, json_option
from tracker.since import Since

if TYPE_CHECKING:
    from tracker.queries.conversations import Conversation


@click.command(
    cls=Command,
    examples=[
        "tracker-sync unclosed",
        "tracker-sync unclosed --idle 2h --agent support-bot",
        "tracker-sync unclosed --idle 1d --json",
    ],
    exits={0: "listed, or there are none", 1: "the outbox cannot be read"},
)
@click.option(
    "--idle",
    type=Since(),
    default="0s",
    metavar="AGE",
    help="Only those without an event for this time: 30m, 2h, 7d. Default: 0s, for all.",
)
@filter_options
@json_option
@csv_option
@click.pass_obj
def unclosed(place: Place, idle: int, *, wanted: Given, as_json: bool, as_csv: bool) -> None:
    """List conversations that have neither ended nor failed.

    Either they continue, or the application stopped without ending them. The filters are those of
    `conversations`.
    """
    from tracker.queries.conversations import OPEN, list_conversations

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found: list[Conversation] = []
    everyone: tuple[Conversation, ...] = ()
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            everyone = list_conversations(connection, wanted.whole(connection), OPEN, limit=None)
        found = [each for each in everyone if _is_idle(each.last_at_ms, idle)]
    elif not (as_json or as_csv):
        click.echo(target.absence)
        return
    if not found and not (as_json or as_csv):
        click.echo(_nothing(len(everyone)))
        return
    print_conversations(found, as_json=as_json, as_csv=as_csv)


def _nothing(open_ones: int) -> str:
    if not open_ones:
        return "all conversations are closed"
    if open_ones == 1:
        return "1 conversation is open, and not idle for so long"
    return f"{open_ones:,} conversations are open, none of them idle for so long"


def _is_idle(last_at_ms: object, before_ms: int) -> bool:
    """Return True if nothing was logged since `before_ms`, or if the last time is in the future."""
    if not isinstance(last_at_ms, int):  # a damaged row may have any type
        return True
    return last_at_ms <= before_ms or last_at_ms > time.time_ns() // 1_000_000
