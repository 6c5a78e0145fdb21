"""The messages that every benchmark logs: real ones, or a stand-in of the same sizes."""

from __future__ import annotations

from functools import cache, partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, NamedTuple

from tests.support.conversations import DATA, all_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker import AgentPerformanceTracker

_SIZES = (42, 67, 88, 112, 131, 158, 198, 248, 349, 560)
"""Deciles of the recorded messages' lengths, in characters."""
_WORDS = "I would like to change my flight, please; the reservation is in my name. " * 12


class Message(NamedTuple):
    """One message to log."""

    session_id: str
    role: str
    content: str


def are_recorded() -> bool:
    """Return False if the recorded conversations are absent, so that texts stand in for them."""
    return DATA.exists()


@cache
def recorded() -> tuple[Message, ...]:
    """Return the recorded conversations' messages, in order."""
    if not are_recorded():
        return tuple(
            Message(f"conversation-{number // 20}", ("user", "agent")[number % 2], _WORDS[:size])
            for number, size in enumerate(_SIZES * 40)
        )
    return tuple(Message(**call.arguments) for call in all_calls() if call.type == "message.logged")


def messages(count: int, first: int = 0) -> list[Message]:
    """Return so many messages, from the recorded ones over and over."""
    start = first % len(recorded())
    return list(islice(cycle(recorded()), start, start + count))


def calls(tracker: AgentPerformanceTracker, count: int, first: int = 0) -> list[Callable[[], str]]:
    """Return so many logging calls, ready to be made."""
    return [
        partial(tracker.log_message, message.session_id, message.role, message.content)
        for message in messages(count, first)
    ]
