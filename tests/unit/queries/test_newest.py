"""The newest conversations of an outbox."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.support.cli import an_event
from tracker.outbox.outbox import Outbox
from tracker.queries.conversations import list_conversations

if TYPE_CHECKING:
    from tests.conftest import MakeConfig

_NEWER = [f"visit-{number}" for number in range(20)]


def test_a_conversation_of_a_year_makes_the_newest_no_slower_to_find(config: MakeConfig) -> None:
    """A robot logs in one conversation for ever, others come and go: its old events cost nothing.

    A read that goes through them all keeps the write-ahead log of who logs from being begun again.
    """

    def steps(logged: int) -> int:
        outbox = Outbox(config(outbox_path=config().outbox_path.with_name(f"{logged}")))
        visits = [an_event(session_id=name) for name in [*_NEWER, "robot"]]
        events = [*(an_event(session_id="robot") for _ in range(logged)), *visits]
        outbox.run(lambda transaction: [transaction.append(event) for event in events])
        taken = 0

        def count() -> None:
            nonlocal taken
            taken += 1

        with outbox.snapshot() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(count, 10)
            found = list_conversations(connection, limit=10)
        outbox.close()
        assert [each.session_id for each in found] == _NEWER[-10:]
        return taken

    assert steps(12_000) < 1.1 * steps(3_000)


def test_a_conversation_is_told_whole_however_long_it_is(config: MakeConfig) -> None:
    """Its events are read some at a time, between those of the ones before and after it."""
    outbox = Outbox(config())
    lengths = {"a": 3, "robot": 2_500, "round": 1_000, "z": 2}
    names = [name for name, length in lengths.items() for _ in range(length)]
    random.Random(1).shuffle(names)  # noqa: S311 - repeatable
    outbox.run(lambda each: [each.append(an_event(session_id=name)) for name in names])
    with outbox.snapshot() as connection:
        found = list_conversations(connection)
    outbox.close()
    assert {each.session_id: each.messages for each in found} == lengths
