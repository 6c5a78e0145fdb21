"""The sentences that answer "is everything here?", for one client and for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.collector.ui.standing import CHANGED, COMPLETE, GAPS, UNCHECKED
from tracker.pages.account import AMBER, GREEN, GREY, RED, Sentence
from tracker.pages.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker.collector.ui.standing import Standing

COUNTING = Sentence("Counting what was received.", GREY)


def sentence_of(standings: Sequence[Standing]) -> Sentence:
    """Return the sentence for the outboxes of one client."""
    states = [each.state for each in standings]
    if not states:
        return Sentence("Nothing was received yet.", GREY)
    lost = sum(each.lost for each in standings)
    if CHANGED in states:
        return Sentence(_changed(states.count(CHANGED), lost), RED)
    if GAPS in states:
        return Sentence(f"{counted(lost, 'event')} {_is(lost)} missing.", RED)
    if UNCHECKED in states:
        return Sentence("No number is missing. The chain is not checked yet.", AMBER)
    if COMPLETE not in states:
        return Sentence("What came without an outbox is here; nothing proves it whole.", GREY)
    gone = [
        (sum(each.count.refused for each in standings), "refused"),
        (sum(each.given_up for each in standings), "given up"),
    ]
    if any(number for number, _ in gone):
        said = " and ".join(f"{number:,} {word}" for number, word in gone if number)
        return Sentence(f"Nothing is missing; {said}.", AMBER)
    return Sentence("Every event is here, up to the newest number.", GREEN)


def sentence_of_all(clients: Mapping[str, Sequence[Standing]]) -> Sentence:
    """Return the sentence for all clients, by what is known of the outboxes of each."""
    if not any(clients.values()):
        return Sentence("No client has sent anything yet.", GREY)
    bad = sum(any(each.needs_look for each in found) for found in clients.values())
    if bad:
        of_all = "The one client" if len(clients) == 1 else f"{bad:,} of {len(clients):,} clients"
        return Sentence(f"{of_all} {'needs' if bad == 1 else 'need'} a look.", RED)
    unchecked = sum(each.state == UNCHECKED for found in clients.values() for each in found)
    if unchecked:
        outboxes = "1 outbox is" if unchecked == 1 else f"{unchecked:,} outboxes are"
        return Sentence(f"No number is missing. {outboxes} not checked yet.", AMBER)
    return Sentence("Every client is complete.", GREEN)


def _changed(number: int, lost: int) -> str:
    said = "An outbox was changed" if number == 1 else f"{number:,} outboxes were changed"
    return f"{said}, and {counted(lost, 'event')} {_is(lost)} missing." if lost else f"{said}."


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
