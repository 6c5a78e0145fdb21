"""The sentence that answers "is everything delivered?"."""

from __future__ import annotations

from dataclasses import dataclass

from tracker.pages.words import counted

GREY, GREEN, AMBER, RED = "grey", "green", "amber", "red"
RECENT_SECONDS = 60
"""Pending events that are younger are on the way, if anything sends them; others wait."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the colour of the lamp beside it.

    Attributes:
        text: The sentence.
        lamp: ``"grey"``, ``"green"``, ``"amber"`` or ``"red"``.
    """

    text: str
    lamp: str

    @property
    def word(self) -> str:
        """What the lamp says to those who do not see it."""
        return {GREY: "nothing yet", GREEN: "all is well", AMBER: "look", RED: "act"}[self.lamp]


UNREADABLE = Sentence("The outbox cannot be read.", RED)


def sentence(
    *,
    accepted: int,
    pending: int,
    dead: int,
    discarded: int,
    skipped: int,
    oldest_seconds: float | None,
    sends: bool,
) -> Sentence:
    """Return the sentence for an account.

    Args:
        accepted: Number of events that were ever accepted.
        pending: Number of those that wait to be sent.
        dead: Number of those refused for good.
        discarded: Number of those given up on purpose.
        skipped: Number of those that a setting keeps from being sent.
        oldest_seconds: Age of the oldest pending event; None if it is not known.
        sends: Whether a process uploads, and neither a failure nor a setting keeps it from that.
    """
    if not accepted:
        return Sentence("Nothing was logged yet.", GREY)
    waits = "waits" if pending == 1 else "wait"
    if pending and dead:
        return Sentence(
            f"{counted(pending, 'event')} {waits} to be sent, and {dead:,} "
            f"{_was(dead)} refused for good.", RED)  # fmt: skip
    if dead:
        return Sentence(f"{counted(dead, 'event')} {_was(dead)} refused for good.", RED)
    if pending and sends and oldest_seconds is not None and oldest_seconds < RECENT_SECONDS:
        return Sentence(f"Delivering. {pending:,} on the way.", GREEN)
    if pending:
        return Sentence(f"{counted(pending, 'event')} {waits} to be sent.", AMBER)
    if discarded:
        return Sentence(
            f"Everything kept is delivered; {discarded:,} {_was(discarded)} discarded.", AMBER
        )
    if skipped == accepted:
        return Sentence(f"Nothing had to be sent; {skipped:,} {_was(skipped)} skipped.", GREEN)
    if skipped:
        return Sentence(
            f"Everything to be sent is delivered; {skipped:,} {_was(skipped)} skipped.", GREEN
        )
    return Sentence("Everything is delivered.", GREEN)


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
