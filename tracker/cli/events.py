"""``tracker-sync list`` and ``show``: the stored events."""

from __future__ import annotations

import contextlib
import json
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from tracker import canonical
from tracker.cli.command import Command, Place
from tracker.cli.context import Target, existing, find, opened_to_read
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import (
    check_one_format,
    csv_option,
    echo_csv,
    echo_json,
    json_option,
    moment,
    print_facts,
    print_table,
    printable,
    printable_lines,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tracker.outbox import StoredEvent

_HEADINGS = ("seq", "logged", "state", "type", "agent", "session", "event id")
_SPARE = ("event id", "agent", "state", "logged", "type")
"""What gives way on a narrow terminal; the seq is the id that is always there."""


def limit_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--limit`` to a command."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0, max=2**31),
        default=50,
        show_default=True,
        metavar="N",
        help="Only the newest N; 0 for all.",
    )(command)


_STATES = (
    click.option(
        "--state",
        type=click.Choice(["pending", "delivered", "dead", "skipped"]),
        help="Only events in this state.",
    ),
    click.option("--pending", "state", flag_value="pending", help="Only pending events."),
    click.option("--delivered", "state", flag_value="delivered", help="Only delivered events."),
    click.option("--dead", "state", flag_value="dead", help="Only dead letters."),
)


def state_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the state of events to a command, as its argument `state`."""
    for option in reversed(_STATES):
        command = option(command)
    return command


@click.command(
    "list",
    cls=Command,
    examples=[
        "tracker-sync list",
        "tracker-sync list --pending --limit 0 --json > pending.json",
        "tracker-sync list --session 0199aa10-7c6e-7b2e-9d53-3f1c5a0e2b11",
        "tracker-sync list --agent support-bot --type message.logged --since 2h",
        "tracker-sync list --delivered --since 2026-11-01T12:00",
    ],
    exits={0: "listed, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@state_options
@filter_options
@limit_option
@json_option
@csv_option
@click.pass_obj
def list_events(
    place: Place,
    state: str | None,
    limit: int,
    *,
    wanted: Given,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List stored events, the newest last; also called `events`.

    Delivered events stay in the outbox for some days; see `tracker-sync prune`.
    """
    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found = read(target, wanted, limit, state)
    if as_json:
        echo_json_array(map(as_dict, found))
    elif as_csv:
        echo_events_csv(found)
    elif not target.exists:
        click.echo(target.absence)
    else:
        _print_events(found, endless=not limit)


@click.command(
    cls=Command,
    examples=[
        "tracker-sync show 42",
        "tracker-sync show --last",
        "tracker-sync show 0199aa10-7c6e-7b2e-9d53-3f1c5a0e2b11 --json",
    ],
    exits={0: "shown", 1: "there is no such event, or the outbox cannot be read"},
)
@click.argument("event_id", required=False)
@click.option("--last", is_flag=True, help="The event that was logged last.")
@json_option
@click.pass_obj
def show(place: Place, event_id: str | None, *, last: bool, as_json: bool) -> None:
    """Show one event, its state, and whether it is unchanged.

    EVENT_ID is an event's id, a unique beginning of it, or its seq, as printed by
    `tracker-sync list`.
    """
    from tracker.outbox import browse

    if last == (event_id is not None):
        raise click.UsageError("give an EVENT_ID, or --last for the event that was logged last")
    with opened_to_read(existing(place)) as outbox, outbox.snapshot() as connection:
        if event_id is None:
            event = next(browse.select(connection, limit=1), None)
        else:
            event = browse.find(connection, event_id)
    if event is None:
        named = "event" if event_id is None else f"event {printable(event_id)}"
        raise click.ClickException(
            f"there is no {named} in {outbox.path}; if it was delivered, it may have been pruned"
        )
    described = as_dict(event)
    if as_json:
        echo_json({**described, "digest_ok": event.intact})
        return
    print_facts(_facts(event))
    data = described["data"]
    text = (
        data
        if isinstance(data, str)
        else json.dumps(data, indent=2, ensure_ascii=False, default=repr, allow_nan=False)
    )
    click.echo(printable_lines(text))


def read(
    target: Target, wanted: Given, limit: int, state: str | None = None
) -> Iterator[StoredEvent]:
    """Yield the matching events; none if there is no outbox.

    The outbox is open while the events are consumed. An error of the consumer, such as a closed
    pipe, is not reported as an error of the outbox.
    """
    from tracker.outbox import browse

    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            sql = wanted.whole(connection).sql(connection)
            condition = browse.Condition(*sql).in_state(state)
            yield from browse.select(connection, condition, limit)


def as_dict(event: StoredEvent) -> dict[str, Any]:
    """Return an event with the protocol's field names, and its state."""
    described: dict[str, Any] = event._asdict()
    # For a damaged row, the text as it is says more than nothing.
    with contextlib.suppress(ValueError):
        described["data"] = canonical.decode(event.data)
    for name in ("context", "trace"):
        with contextlib.suppress(ValueError):
            described[name] = described[name] and canonical.decode(described[name])
    return {**described, **_hex(event), "state": event.state}


def _hex(event: StoredEvent) -> dict[str, str | None]:
    """Return salt and commitments of an event as text."""
    named = {"salt": event.salt, "sealed": event.sealed}
    return {
        name: value.hex() if isinstance(value, bytes) else None for name, value in named.items()
    }


def as_row(event: StoredEvent) -> dict[str, Any]:
    """Return the values of an event for a table: JSON as text, bytes as hex, and its state."""
    return {**event._asdict(), **_hex(event), "state": event.state}


def echo_events_csv(events: Iterable[StoredEvent]) -> None:
    """Print events as CSV, in which JSON is text."""
    from tracker.outbox import StoredEvent

    echo_csv([*StoredEvent._fields, "state"], (as_row(event).values() for event in events))


def echo_json_array(items: Iterable[dict[str, Any]]) -> None:
    """Print one JSON array, item by item: there may be more than fits into memory."""
    separator = "["
    for item in items:
        click.echo(f"{separator}\n{to_json(item)}", nl=False)
        separator = ","
    click.echo("[]" if separator == "[" else "\n]")


def _print_events(events: Iterator[StoredEvent], *, endless: bool) -> None:
    """Print a table; without a limit, one table per page, since a table is kept in memory."""
    page = 1_000 if endless else 2**31
    shown = False
    for first in events:
        rows = map(_cells, chain([first], islice(events, page - 1)))
        print_table(_HEADINGS, rows, fixed=4, ids=("session", "event id"), spare=_SPARE)
        shown = True
    if not shown:
        click.echo("no such events")


def _cells(event: StoredEvent) -> tuple[object, ...]:
    return (
        event.seq,
        moment(event.timestamp_ms),
        event.state,
        event.type,
        event.agent_id,
        event.session_id,
        event.event_id,
    )


def _facts(event: StoredEvent) -> list[tuple[str, str]]:
    state = event.state
    if event.dead_at_ms is not None:
        state += f" since {moment(event.dead_at_ms)}, {event.dead_code}: {event.dead_message}"
    elif event.delivered_at_ms is not None:
        state += f" {moment(event.delivered_at_ms)}"
    whole = (
        "that of the erased data"
        if event.erased
        else "matches"
        if event.intact
        else "DOES NOT MATCH: the event was changed after it was stored"
    )
    return [
        ("event_id", event.event_id),
        ("seq", str(event.seq)),
        ("type", event.type),
        ("timestamp", f"{moment(event.timestamp_ms)} ({event.timestamp_ms} ms)"),
        ("agent_id", event.agent_id or ""),
        ("session_id", event.session_id or ""),
        ("user_id", event.user_id or ""),
        ("state", state),
        ("digest", f"{event.digest} ({whole})"),
        ("chain", event.chain),
        ("data", ""),
    ]
