"""``tracker-sync tail``: events as they are logged."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import existing, opened_to_read
from tracker.cli.events import as_dict
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import moment, printable, to_json
from tracker.clock import sleep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tracker.outbox import Outbox, ReadOnlyOutbox, StoredEvent
    from tracker.queries.filters import Filters

_PAUSE_SECONDS = 0.25
_CHUNK = 500
_WIDTH = 100
"""Number of characters of an event's data on a line, if the output is not a terminal."""
_NARROWEST = 20
"""Minimum number of them on a terminal."""


@click.command(
    cls=Command,
    examples=[
        "tracker-sync tail",
        "tracker-sync tail --lines 100 --type message.logged",
        "tracker-sync tail --agent support-bot --json >> events.jsonl",
    ],
    exits={0: "ended by Ctrl-C", 1: "there is no outbox, or it cannot be read"},
)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0, max=2**31),
    default=10,
    show_default=True,
    metavar="N",
    help="Start with the newest N events.",
)
@filter_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per event.")
@click.option("--no-follow", is_flag=True, help="End after the existing events.")
@click.pass_obj
def tail(place: Place, lines: int, *, wanted: Given, as_json: bool, no_follow: bool) -> None:
    """Follow events as they are logged, until Ctrl-C.

    Events of all processes are shown, and none is left out. Nothing is locked meanwhile.
    """
    try:
        with opened_to_read(existing(place)) as outbox:
            for event in follow(outbox, wanted, lines, endless=not no_follow):
                click.echo(to_json(as_dict(event), indent=None) if as_json else _line(event))
    except KeyboardInterrupt:
        return


def follow(
    outbox: Outbox | ReadOnlyOutbox, wanted: Given, lines: int, *, endless: bool
) -> Iterator[StoredEvent]:
    """Yield the newest `lines` matching events, then each new one. Seqs are in commit order."""
    from tracker.outbox import Condition, browse

    with outbox.snapshot() as connection:
        filters = wanted.whole(connection)
        (seen,) = connection.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM events").one()
        if lines:
            condition = Condition(*filters.sql(connection))
            # Events logged between the two reads are the first to be followed.
            for event in browse.select(connection, condition, lines):
                seen = max(seen, event.seq)
                yield event
    while endless:
        with outbox.reading() as connection:
            (newest,) = connection.exec_driver_sql("SELECT max(seq) FROM events").one()
            seqs = _after(connection, seen, filters) if (newest or 0) > seen else []
            found = [browse.find(connection, str(seq)) for seq in seqs]
        yield from (event for event in found if event is not None)  # or pruned meanwhile
        if len(seqs) == _CHUNK:
            seen = seqs[-1]
            continue
        seen = max(seen, newest or 0, *seqs)
        sleep(_PAUSE_SECONDS)


def _after(connection: Connection, seen: int, filters: Filters) -> Sequence[int]:
    sql, bound = filters.sql(connection)  # each time: a run may have another conversation by now
    query = f"SELECT seq FROM events WHERE seq > ? AND {sql} ORDER BY seq LIMIT {_CHUNK}"  # noqa: S608 - constant text
    return connection.exec_driver_sql(query, (seen, *bound)).scalars().all()


def _line(event: StoredEvent) -> str:
    who = printable(event.session_id or event.agent_id or "-")
    head = f"{event.seq}  {moment(event.timestamp_ms)}  {printable(event.type)}  {who}  "
    room = _WIDTH
    if sys.stdout.isatty():  # one line for each event
        room = max(shutil.get_terminal_size().columns - len(head), _NARROWEST)
    data = printable(event.data)
    return head + (data if len(data) <= room else f"{data[: room - 1]}…")
