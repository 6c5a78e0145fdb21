"""Which keys are known without a look at the database."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.event_loop import run
from tracker.collector.gate import Gate
from tracker.collector.keys import ApiKey
from tracker.collector.known_keys import KnownKeys


class Table:
    """Keys as the database has them, and which of them it was asked for."""

    def __init__(self, *keys: str) -> None:
        self.rows = {
            key: ApiKey(number, f"client-{number}", None, 1, None, None, ("send",))
            for number, key in enumerate(keys, 1)
        }
        self.asked: list[str] = []

    def find(self, key: str) -> ApiKey | None:
        self.asked.append(key)
        return self.rows.get(key)


class Listener:
    """Hears of each change while `hears` is True."""

    def __init__(self) -> None:
        self.changes = 0
        self.hears = True

    def era(self) -> int | None:
        return self.changes if self.hears else None


@pytest.fixture
def table() -> Table:
    return Table("a", "b", "c")


@pytest.fixture
def listener() -> Listener:
    return Listener()


def found(known: KnownKeys, *keys: str) -> list[Any]:
    async def find() -> list[Any]:
        return [await known.find(key) for key in keys]

    return run(find())


def known_keys(table: Any, listener: Any, most: int = 2) -> KnownKeys:
    return KnownKeys(table, Gate(1, 1, 5.0), listener, most=most)


def test_of_too_many_keys_the_one_that_was_looked_up_first_is_forgotten(
    table: Table, listener: Listener
) -> None:
    """And no other: a fleet of one key too many would otherwise look up all of them again."""
    known = known_keys(table, listener)
    found(known, "a", "b", "c", "b", "c")
    assert table.asked == ["a", "b", "c"]
    found(known, "a", "c", "b")
    assert table.asked == ["a", "b", "c", "a", "b"]


def test_a_change_is_seen_in_the_next_request(table: Table, listener: Listener) -> None:
    """Whichever key was changed; a revoked one is found no more."""
    known = known_keys(table, listener)
    assert found(known, "a", "a") == [table.rows["a"]] * 2
    del table.rows["a"]
    listener.changes += 1
    assert found(known, "a", "b", "a") == [None, table.rows["b"], None]
    assert table.asked == ["a", "a", "b", "a"]


def test_nothing_is_relied_on_while_no_change_is_heard(table: Table, listener: Listener) -> None:
    """Each request asks then."""
    known = known_keys(table, listener)
    found(known, "a")
    listener.hears = False
    found(known, "a", "a")
    assert table.asked == ["a"] * 3
