"""``tracker-sync dead``: list, retry or discard dead letters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import FAILED, OK, Command, Commands, Place
from tracker.cli.context import Target, find, opened_to_change
from tracker.cli.events import as_dict, echo_events_csv, echo_json_array, limit_option, read
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import (
    check_one_format,
    csv_option,
    echo_json,
    events,
    json_option,
    moment,
    print_table,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker.outbox import Outbox, Transaction

_HEADINGS = ("seq", "refused", "code", "type", "message", "event id")
_SPARE = ("event id", "type", "refused", "code")

_which_argument = click.argument("event_ids", nargs=-1, metavar="[EVENT_ID]...")
_all_option = click.option("--all", "every", is_flag=True, help="All dead letters.")


@click.group(cls=Commands)
def dead() -> None:
    """List, retry or discard dead letters.

    These are events that the server permanently rejected. They stay in the outbox until you retry
    or discard them. They never delay the events after them.
    """


@dead.command(
    "list",
    cls=Command,
    examples=["tracker-sync dead list", "tracker-sync dead list --limit 0 --json > dead.json"],
    exits={0: "listed, or there are none", 1: "the outbox cannot be read"},
)
@filter_options
@limit_option
@json_option
@csv_option
@click.pass_obj
def list_dead(place: Place, limit: int, *, wanted: Given, as_json: bool, as_csv: bool) -> None:
    """List dead letters and the server's reasons, the newest last."""
    from tracker.outbox import DEAD

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    letters = read(target, wanted, limit, DEAD)
    if as_json or as_csv:
        echo_json_array(map(as_dict, letters)) if as_json else echo_events_csv(letters)
        return
    found = list(letters)
    if not target.exists:
        click.echo(target.absence)
    elif not found:
        click.echo("no dead letters")
    else:
        rows = [
            (e.seq, moment(e.dead_at_ms), e.dead_code, e.type, e.dead_message, e.event_id)
            for e in found
        ]
        print_table(_HEADINGS, rows, fixed=4, ids=("event id",), spare=_SPARE)


@dead.command(
    "retry",
    cls=Command,
    examples=[
        "tracker-sync dead retry 42 43",
        "tracker-sync dead retry --all && tracker-sync flush",
    ],
    exits={0: "all of them are pending again", 1: "some are not dead letters"},
)
@_which_argument
@_all_option
@json_option
@click.pass_obj
def retry(place: Place, event_ids: Sequence[str], *, every: bool, as_json: bool) -> None:
    """Send dead letters again, once the cause is fixed.

    EVENT_ID is an event's id or its seq. The events keep their seq; they are sent by the next
    flush, or within seconds by the application that uploads.
    """
    from tracker.outbox import dead_letters

    _check_choice(event_ids, every=every)
    _change(find(place), event_ids, dead_letters.retry, "pending again", as_json=as_json)


@dead.command(
    "discard",
    cls=Command,
    examples=["tracker-sync dead discard 42", "tracker-sync dead discard --all --yes"],
    exits={0: "all of them are deleted", 1: "some are not dead letters, or you answered no"},
)
@_which_argument
@_all_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
@click.pass_obj
def discard(
    place: Place, event_ids: Sequence[str], *, every: bool, yes: bool, as_json: bool
) -> None:
    """Delete dead letters permanently.

    The loss account then counts them as discarded, and an event names them to the server. EVENT_ID
    is an event's id or its seq. Asks for confirmation; without a terminal, give --yes. Erasure
    events stay as long as any event that they name is stored.
    """
    from tracker.outbox import dead_letters

    _check_choice(event_ids, every=every)
    target = find(place)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "discarding deletes events permanently, and there is no terminal for a "
                "confirmation: give --yes if you mean it"
            )
        what = "all dead letters" if every else events(len(event_ids))
        click.confirm(f"Delete {what} of {target.path} permanently?", abort=True, err=True)
    _change(target, event_ids, dead_letters.discard, "discarded", as_json=as_json)


def _check_choice(event_ids: Sequence[str], *, every: bool) -> None:
    if bool(event_ids) == every:
        raise click.UsageError("give the ids of dead letters, or --all")


def _change(
    target: Target,
    names: Sequence[str],
    make_job: Callable[[Sequence[str] | None], Callable[[Transaction], int]],
    outcome: str,
    *,
    as_json: bool,
) -> None:
    """Run a job on the named dead letters, or on all if none is named, and print the result."""
    changed, missing = 0, list(names)
    if target.exists:
        with opened_to_change(target) as outbox:
            event_ids, missing = _resolve(outbox, names)
            if event_ids or not names:
                changed = outbox.run(make_job(event_ids or None))
    if as_json:
        result: dict[str, Any] = {outcome.replace(" ", "_"): changed, "not_found": missing}
        echo_json(result)
    elif not target.exists:
        click.echo(target.absence)
    else:
        click.echo(f"{events(changed)} {outcome}")
        for name in missing:
            click.echo(f"not a dead letter: {printable(name)}", err=True)
    click.get_current_context().exit(FAILED if missing else OK)


def _resolve(outbox: Outbox, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the ids of the dead letters named by id or seq, each once, and the other names."""
    from tracker.outbox import browse

    event_ids: dict[str, None] = {}
    missing = []
    with outbox.reading() as connection:
        for name in names:
            event = browse.find(connection, name)
            if event is None or event.state != browse.DEAD:
                missing.append(name)
            else:
                event_ids[event.event_id] = None
    return list(event_ids), missing
