"""``tracker-sync spans``: spans that were recorded, or that have begun and have no end."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_read
from tracker.cli.events import as_dict, echo_events_csv, echo_json_array, limit_option
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import check_one_format, csv_option, json_option, moment, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker.cli.context import Target
    from tracker.outbox import StoredEvent

_RECORDED = "type IN ('otel.span', 'span.recorded', 'function.observed')"
_KEY = "json_extract(data, '$.trace_id') || json_extract(data, '$.span_id')"
_OPEN = (
    "type = 'otel.span_started' AND json_valid(data) AND "
    f"{_KEY} NOT IN (SELECT {_KEY} FROM events WHERE type = 'otel.span' AND json_valid(data) "
    f"AND {_KEY} IS NOT NULL)"
)
_HEADINGS = ("seq", "logged", "name", "trace", "span", "session")


@click.command(
    cls=Command,
    examples=[
        "tracker-sync spans",
        "tracker-sync spans --open",
        "tracker-sync spans --since 2h --json",
    ],
    exits={0: "listed, or there are none", 1: "the outbox cannot be read"},
)
@click.option(
    "--open",
    "unfinished",
    is_flag=True,
    help="Only spans of OpenTelemetry that have begun and have no end: what runs now, or what a "
    "process was doing when it was killed. Needs OutboxSpanProcessor(started=True).",
)
@filter_options
@limit_option
@json_option
@csv_option
@click.pass_obj
def spans(
    place: Place, limit: int, *, unfinished: bool, wanted: Given, as_json: bool, as_csv: bool
) -> None:
    """List spans, the newest last.

    `tracker-sync trace` shows one trace as a tree.
    """
    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found = _read(target, wanted, limit, _OPEN if unfinished else _RECORDED)
    if as_json:
        echo_json_array(map(as_dict, found))
    elif as_csv:
        echo_events_csv(found)
    elif not target.exists:
        click.echo(target.absence)
    else:
        rows = [_cells(event) for event in found]
        if rows:
            print_table(_HEADINGS, rows, fixed=2)
        else:
            click.echo("no span is open" if unfinished else "no spans")


def _read(target: Target, wanted: Given, limit: int, which: str) -> Iterator[StoredEvent]:
    from tracker.outbox import browse

    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            sql, values = wanted.whole(connection).sql(connection)
            yield from browse.select(
                connection, browse.Condition(f"{sql} AND {which}", values), limit
            )


def _cells(event: StoredEvent) -> tuple[Any, ...]:
    described = as_dict(event)
    data, trace = described["data"], described["trace"]
    data = data if isinstance(data, dict) else {}
    ids = trace if isinstance(trace, dict) else data
    return (
        event.seq,
        moment(event.timestamp_ms),
        data.get("name"),
        ids.get("trace_id"),
        ids.get("span_id"),
        event.session_id,
    )
