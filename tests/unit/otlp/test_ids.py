"""Ids of traces and spans: the vectors that another implementation has to reproduce."""

from __future__ import annotations

from tracker.otlp import ids

CLIENT, SESSION = "kiosk-17", "s-1"
EVENT = "01a227f0-9796-7000-b3e3-4d719ab4df00"


def test_the_ids_are_those_of_the_page() -> None:
    """They are in tracker/sync/otlp/README.md, and never change: a span sent again is the same."""
    assert ids.trace_of_turn(CLIENT, EVENT) == "a9e2c539c1c7c86ed42dc46e228ef7a1"
    assert ids.root_of_turn(CLIENT, EVENT) == "3552004ad5964eca"
    assert ids.span_of_event(CLIENT, EVENT) == "11294bdd667e9485"
    assert ids.trace_of_event(CLIENT, EVENT) == "a9e2c539c1c7c86ed42dc46e228ef7a1"
    assert ids.trace_of_conversation(CLIENT, SESSION) == "b0c4bc15a068232fe45d05c24a92cf89"
    assert ids.root_of_conversation(CLIENT, SESSION) == "9cd2c98a2f229e11"


def test_no_two_clients_share_an_id() -> None:
    """Some receivers keep the spans of all clients in one place."""
    assert ids.span_of_event("kiosk-17", EVENT) != ids.span_of_event("kiosk-18", EVENT)


def test_where_one_part_ends_and_the_next_begins_counts() -> None:
    """Otherwise client `a` with id `bc` would be client `ab` with id `c`."""
    assert ids.span_of_event("a", "bc") != ids.span_of_event("ab", "c")
