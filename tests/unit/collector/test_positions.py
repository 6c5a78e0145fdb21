"""The position of a target, without a receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker.collector.forwarding import positions
from tracker.collector.forwarding.positions import Move, OvertakenError, Refused, Target
from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

TARGET = Target("phoenix")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    store = Store(tmp_path / "c.sqlite3")
    with store.writing("test") as connection:
        positions.begin(connection, TARGET, "http://127.0.0.1:6006", 1)
        yield connection
    store.close()


def test_a_position_that_somebody_else_has_moved_is_left_alone(connection: Connection) -> None:
    """Should two processes forward after all, neither goes back nor skips what the other did."""
    positions.move(connection, TARGET, Move(0, 7, 7, 0, []), 2)
    refused = Refused(5, "kiosk-17", "e", "message.logged", "http_500")
    with pytest.raises(OvertakenError, match="phoenix"):
        positions.move(connection, TARGET, Move(0, 5, 4, 0, [refused]), 3)
    [status] = positions.statuses(connection)
    assert (status.position, status.sent, status.set_aside, status.moved_at_ms) == (7, 7, 0, 2)


def test_a_target_that_was_used_before_goes_on_at_another_address(connection: Connection) -> None:
    """The position, and the time that the probe has, are those of the name."""
    positions.move(connection, TARGET, Move(0, 7, 7, 0, []), 2)
    positions.note_problem(connection, TARGET, "503")
    assert positions.begin(connection, TARGET, "http://127.0.0.1:7007", 9) == 1
    [status] = positions.statuses(connection)
    assert (status.endpoint, status.position) == ("http://127.0.0.1:7007", 7)
    assert status.problem is None
