"""Ids on the command line: shown so far that they differ, and taken as far as they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cli import an_event, call, call_json, fill
from tracker.cli.output import fit, layout, telling

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig

SESSIONS = ("0199aa10-7c6e-7b2e", "0199aa10-7c6e-7c00", "0299aa10-7c6e-7c00")


@pytest.fixture
def path(config: MakeConfig) -> Path:
    events = [an_event(session_id=session, agent_id=session[-4:]) for session in SESSIONS]
    fill(config(), [*events, an_event(session_id=SESSIONS[0])])
    return config().outbox_path


@pytest.mark.parametrize("given", ["02", "0299aa10-7c6e", SESSIONS[2]])
def test_the_beginning_of_a_session_id_will_do(path: Path, given: str) -> None:
    """Wherever a conversation is named, as long as no other begins so."""
    assert call_json("--outbox", path, "conversation", given)["session_id"] == SESSIONS[2]
    for command in (["list", "--json"], ["export"], ["tail", "--no-follow", "--json"]):
        shown = call("--outbox", path, *command, "--session", given)
        assert shown.exit_code == 0, shown.output
        assert SESSIONS[2] in shown.stdout
        assert SESSIONS[0] not in shown.stdout


def test_a_beginning_of_several_ids_is_refused_by_name(path: Path) -> None:
    """Both are named, and nothing is guessed."""
    for command in (["conversation", "0199"], ["list", "--session", "0199"]):
        refused = call("--outbox", path, *command)
        assert refused.exit_code == 1
        assert "several ids begin with '0199'" in refused.stderr
        assert f"such as {SESSIONS[0]}, {SESSIONS[1]}" in refused.stderr


def test_the_beginning_of_an_event_id_will_do(path: Path) -> None:
    """For `show`; digits alone are a seq as before."""
    events = call_json("--outbox", path, "list")
    whole = events[1]["event_id"]
    assert call_json("--outbox", path, "show", whole[:-2])["seq"] == 2
    assert call_json("--outbox", path, "show", "3")["seq"] == 3
    assert "several ids begin with" in call("--outbox", path, "show", whole[:9]).stderr


def test_the_last_conversation_needs_no_id(path: Path) -> None:
    """`--last` is the one that began last; with an id or with neither it is wrong use."""
    assert call_json("--outbox", path, "conversation", "--last")["session_id"] == SESSIONS[2]
    assert call("--outbox", path, "conversation").exit_code == 2
    assert call("--outbox", path, "conversation", "02", "--last").exit_code == 2


def test_the_last_event_needs_no_id(path: Path) -> None:
    """`show --last` is the one that was logged last; with an id or with neither it is wrong use."""
    assert call_json("--outbox", path, "show", "--last")["seq"] == 4
    assert call("--outbox", path, "show").exit_code == 2
    assert call("--outbox", path, "show", "4", "--last").exit_code == 2


WIDTHS = {"seq": 7, "logged": 19, "type": 20, "agent": 12, "event": 36, "session": 36}
SPARE = ("event", "agent", "logged", "type")


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (200, WIDTHS),
        (130, {"seq": 7, "logged": 19, "type": 20, "agent": 12, "session": 36}),
        (97, {"seq": 7, "logged": 19, "type": 20, "agent": 7, "session": 36}),
        (80, {"seq": 7, "type": 20, "session": 36}),
        (47, {"seq": 7, "session": 36}),
        (40, {"seq": 7, "type": 20, "session": 9}),
    ],
)
def test_other_columns_give_way_before_an_id(room: int, expected: dict[str, int]) -> None:
    """Whole ids as long as they fit by themselves; then as much of them as tells them apart."""
    columns = [[name, "x" * WIDTHS[name]] for name in WIDTHS]
    columns[-1] = ["session", "abcdef-1".ljust(36, "x"), "abcdef-2".ljust(36, "x")]
    shown = layout(columns, [*WIDTHS.values()], 3, ("event", "session"), SPARE, room)
    names = [*WIDTHS]
    assert {names[place]: width for place, width in shown.items()} == expected


def test_one_long_id_leaves_the_others_room() -> None:
    """It is cut itself, and no column is left out for it."""
    columns = [["agent", "a" * 256, "b"], ["status", "busy", "idle"], ["seen", "1 s", "2 s"]]
    shown = layout(columns, [256, 6, 4], 3, ("agent",), ("seen",), 40)
    assert shown == {0: 26, 1: 6, 2: 4}


def test_ids_are_cut_no_further_than_tells_them_apart() -> None:
    """What differs stays; a single id may be cut."""
    assert telling(["id", "abcdef-1x", "abcdef-2x"]) == 9
    assert telling(["id", "a-long-one"]) == 2
    assert telling(["id", "\N{HIRAGANA LETTER A}1x", "\N{HIRAGANA LETTER A}2x"]) == 4
    assert fit([5, 20, 36], [5, 4, 20], 40) == [5, 11, 20]
