"""A stamp tells whether anything that a page shows of an outbox may be another one."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from tests.support.cli import an_event, call, fill, settle
from tracker.events import make_event
from tracker.outbox import Outbox, browse, status
from tracker.outbox.queue import sync_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig
    from tracker import APIConfig


def stamp_of(settings: APIConfig) -> str:
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        return status.stamp(connection)


def failed(settings: APIConfig) -> None:
    """Note an upload that failed."""
    with closing(Outbox(settings)) as outbox:
        outbox.run(sync_state.write_state(last_error="no route", last_error_ms=5))


def test_each_change_gives_another_stamp_and_a_look_gives_none(config: MakeConfig) -> None:
    """New events, receipts, refusals, errors, retries, discards, erasures and removals."""
    settings = config()
    path = settings.outbox_path
    events = [make_event("cart.changed", {"n": n}, user_id="user-7") for n in range(6)]

    def command(*arguments: str) -> None:
        assert call("--outbox", path, *arguments).exit_code == 0

    changes: dict[str, Callable[[], object]] = {
        "new events": lambda: fill(settings, events),
        "receipts and refusals": lambda: settle(settings, 5, dead=[2, 3]),
        "an error": lambda: failed(settings),
        "a retry": lambda: command("dead", "retry", events[1].event_id),
        "a discard": lambda: command("dead", "discard", events[2].event_id, "--yes"),
        "an erasure": lambda: command("erase", "user-7", "--yes"),
        "a removal": lambda: command("prune", "--days", "0"),
    }
    seen = [stamp_of(settings)]
    for name, change in changes.items():
        change()
        seen.append(stamp_of(settings))
        assert seen[-1] not in seen[:-1], name
        command("status")
        assert stamp_of(settings) == seen[-1], f"a look after {name}"


def test_how_far_each_event_of_a_conversation_has_come(config: MakeConfig) -> None:
    """By its number, with the server's words on what was refused; others' events are not in it."""
    settings = config()
    fill(settings, [an_event(), an_event(session_id="other"), an_event(), an_event()])
    settle(settings, 3, dead=[3])
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        found = browse.deliveries(connection, "session-1")
        rows = {row.seq: row for row in browse.select(connection)}
        assert browse.deliveries(connection, "unknown") == {}
    assert {seq: each.state for seq, each in found.items()} == {
        1: "delivered", 3: "dead", 4: "pending"
    }  # fmt: skip
    assert found[3][1:3] == ("invalid_event", "event 3 is odd")
    for seq, each in found.items():
        row = rows[seq]
        assert each.state == row.state
        assert (each.delivered_at_ms, each.dead_at_ms) == (row.delivered_at_ms, row.dead_at_ms)
