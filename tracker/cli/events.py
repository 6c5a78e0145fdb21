"""``tracker-sync list`` and ``show``: the stored events."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from tracker import canonical
from tracker.cli.command import Command, Place
from tracker.cli.context import Target, existing, find, opened_to_read
from tracker.cli.output import (
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

    from sqlalchemy import Connection

    from tracker.outbox import Filter, StoredEvent

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_HEADINGS = ("seq", "logged", "state", "type", "agent", "session", "event id")


class Since(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A time as Unix milliseconds, given as a date and time or as an age."""

    name = "since"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Parse ``2026-11-01``, ``2026-11-01T12:00``, ``…+01:00``, ``…Z``, ``2h`` or ``7d``."""
        text = str(value).strip()
        age = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text, re.ASCII)
        try:
            if age:
                back = timedelta(seconds=float(age[1]) * _UNITS[age[2]])
                then = datetime.now(timezone.utc) - back
            else:
                # Without an offset it is local time; Python 3.10 does not accept the Z.
                then = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
            return int(then.timestamp() * 1000)
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{text!r} is not a time; give a date such as 2026-11-01 or 2026-11-01T12:00, or "
                "an age such as 30m, 2h, 7d",
                param,
                ctx,
            )


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


_FILTERS = (
    click.option(
        "--state",
        type=click.Choice(["pending", "delivered", "dead"]),
        help="Only events in this state.",
    ),
    click.option("--pending", "state", flag_value="pending", help="Only pending events."),
    click.option("--delivered", "state", flag_value="delivered", help="Only delivered events."),
    click.option("--dead", "state", flag_value="dead", help="Only dead letters."),
    click.option(
        "--session",
        metavar="ID",
        help="Only this conversation; a unique beginning of its id is enough.",
    ),
    click.option("--agent", metavar="ID", help="Only this agent."),
    click.option(
        "--type", "event_type", metavar="TYPE", help="Only this type, e.g. message.logged."
    ),
    click.option(
        "--since",
        type=Since(),
        metavar="WHEN",
        help="Only events logged since: 2026-11-01, 2026-11-01T12:00 (local time), "
        "2026-11-01T12:00+01:00, or 30m, 2h, 7d ago.",
    ),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that filter events to a command, as its argument `wanted`."""

    @functools.wraps(command)
    def with_filter(
        *args: Any,
        state: str | None,
        session: str | None,
        agent: str | None,
        event_type: str | None,
        since: int | None,
        **kwargs: Any,
    ) -> Any:
        from tracker.outbox import Filter

        wanted = Filter(state, session, agent, event_type, since)
        return command(*args, wanted=wanted, **kwargs)

    for option in reversed(_FILTERS):
        option(with_filter)
    return with_filter


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
@filter_options
@limit_option
@json_option
@click.pass_obj
def list_events(place: Place, limit: int, *, wanted: Filter, as_json: bool) -> None:
    """List stored events, the newest last.

    Delivered events stay in the outbox for some days; see `tracker-sync prune`.
    """
    target = find(place)
    if as_json:
        echo_json_array(map(as_dict, read(target, wanted, limit)))
    elif not target.exists:
        click.echo(target.absence)
    else:
        _print_events(read(target, wanted, limit), endless=not limit)


@click.command(
    cls=Command,
    examples=[
        "tracker-sync show 42",
        "tracker-sync show 0199aa10-7c6e-7b2e-9d53-3f1c5a0e2b11 --json",
    ],
    exits={0: "shown", 1: "there is no such event, or the outbox cannot be read"},
)
@click.argument("event_id")
@json_option
@click.pass_obj
def show(place: Place, event_id: str, *, as_json: bool) -> None:
    """Show one event, its state, and whether it is unchanged.

    EVENT_ID is an event's id, a unique beginning of it, or its seq, as printed by
    `tracker-sync list`.
    """
    from tracker.outbox import find as find_event

    with opened_to_read(existing(place)) as outbox, outbox.reading() as connection:
        event = find_event(connection, event_id)
    if event is None:
        raise click.ClickException(
            f"there is no event {printable(event_id)} in {outbox.path}; if it was delivered, it "
            "may have been pruned"
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


def read(target: Target, wanted: Filter, limit: int) -> Iterator[StoredEvent]:
    """Yield the matching events; none if there is no outbox.

    The outbox is open while the events are consumed. An error of the consumer, such as a closed
    pipe, is not reported as an error of the outbox.
    """
    from tracker.outbox import browse

    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            yield from browse.select(connection, whole(connection, wanted), limit)


def whole(connection: Connection, wanted: Filter) -> Filter:
    """Return a filter with a complete session id, if the beginning of one was given.

    Raises:
        AmbiguousError: if several ids have this beginning.
    """
    from tracker.outbox import browse

    if wanted.session_id is None:
        return wanted
    return replace(wanted, session_id=browse.complete(connection, "session_id", wanted.session_id))


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
        print_table(_HEADINGS, map(_cells, chain([first], islice(events, page - 1))), fixed=4)
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
