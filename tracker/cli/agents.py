"""``tracker-sync agents``: the agents and what they are doing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from tracker.cli.command import Command, Place
from tracker.cli.context import find, opened_to_read
from tracker.cli.filters import Given, filter_options
from tracker.cli.output import (
    check_one_format,
    csv_option,
    duration,
    echo_csv,
    echo_json,
    json_option,
    print_table,
)

if TYPE_CHECKING:
    from tracker.queries.agents import AgentActivity, AgentState

_HEADINGS = ("agent", "status", "for", "last seen", "last activity", "name", "version")
_SPARE = ("version", "name", "last activity", "for", "last seen")
_COLUMNS = (
    *("agent_id", "name", "version", "status", "previous_status", "status_at_ms", "last_seen_ms"),
    *("activity", "activity_at_ms", "activity_session_id"),
)


@click.command(
    cls=Command,
    examples=[
        "tracker-sync agents",
        "tracker-sync agents --status error --since 1d",
        "tracker-sync agents --json",
    ],
    exits={0: "listed, or nothing was logged yet", 1: "the outbox cannot be read"},
)
@click.option(
    "--status",
    type=click.Choice(["active", "idle", "busy", "error"]),
    help="Only agents whose last status is this.",
)
@filter_options
@json_option
@csv_option
@click.pass_obj
def agents(
    place: Place,
    status: str | None,
    *,
    wanted: Given,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List agents: status, last activity, and when last seen.

    The filters find the agents that have an event that matches.

    An agent was last seen when an event with its id was last logged: a registration, status,
    activity, heartbeat, or event of a conversation. The table shows how long it has had its status
    and how long ago it was last seen, since an agent that crashes logs nothing. Only events that
    are still in the outbox count; see `tracker-sync prune`.
    """
    from tracker.queries.agents import last_activities, states

    check_one_format(as_json=as_json, as_csv=as_csv)
    target = find(place)
    found: list[dict[str, Any]] = []
    if target.exists:
        with opened_to_read(target) as outbox, outbox.snapshot() as connection:
            known = states(connection, wanted.whole(connection))
            did = last_activities(connection)
        found = [
            _described(one, did.get(one.agent_id))
            for one in known
            if status is None or one.status == status
        ]
    elif not (as_json or as_csv):
        click.echo(target.absence)
        return
    if as_json:
        echo_json(found)
    elif as_csv:
        echo_csv(_COLUMNS, ([one[name] for name in _COLUMNS] for one in found))
    elif found:
        print_table(_HEADINGS, map(_cells, found), fixed=4, ids=("agent",), spare=_SPARE)
    else:
        click.echo("no such agents")


def _described(state: AgentState, did: AgentActivity | None) -> dict[str, Any]:
    return {
        **vars(state),
        "status": state.status and state.status.value,
        "previous_status": state.previous_status and state.previous_status.value,
        "activity": did and did.activity,
        "activity_at_ms": did and did.timestamp_ms,
        "activity_session_id": did and did.session_id,
    }


def _age(milliseconds: object) -> str:
    if not isinstance(milliseconds, int):  # a damaged row may have any type
        return "-"
    return duration(max(time.time() - milliseconds / 1000, 0))


def _cells(agent: dict[str, Any]) -> tuple[object, ...]:
    return (
        agent["agent_id"],
        agent["status"] or "-",
        _age(agent["status_at_ms"]),
        _age(agent["last_seen_ms"]),
        agent["activity"],
        agent["name"],
        agent["version"],
    )
