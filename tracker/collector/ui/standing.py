"""`Standing`: of one outbox, whether all that it numbered is here and unchanged, for people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tracker.collector.integrity import gaps

if TYPE_CHECKING:
    from tracker.collector.counts import OutboxCount
    from tracker.collector.integrity import Gap, OutboxReport

COMPLETE, GAPS, CHANGED, UNCHECKED, DIRECT = (
    "complete", "gaps", "changed", "not checked", "without an outbox"
)  # fmt: skip
"""The states of an outbox. The last one is of what came without one: nothing proves it whole."""
_WORST_FIRST = (CHANGED, GAPS, UNCHECKED, DIRECT, COMPLETE)
_CLASSES = {"lost": "missing", "refused": "refused-here", "discarded": "given-up"}
_BAD_CHAINS = ("broken", "forked")
_MOST_NAMED = 12


@dataclass(frozen=True)
class Standing:
    """What is known of an outbox.

    Attributes:
        count: Its counts, as they are now.
        report: The newest report on it; None before the first.
    """

    count: OutboxCount
    report: OutboxReport | None

    @property
    def is_current(self) -> bool:
        """Whether nothing came since the report was made."""
        if self.report is None:
            return False
        found = (self.report.events, self.report.highest_seq, self.report.refused_events)
        return found == (self.count.events, self.count.highest_seq, self.count.refused)

    @property
    def lost(self) -> int:
        """How many numbers are missing that nobody has explained."""
        if self.report is None:
            return max(self.count.missing - self.count.discarded, 0)
        if self.report.reused_seqs or self.is_current:
            return self.report.missing_events - self.report.discarded_events
        return max(self.count.missing - self.report.discarded_events, 0)

    @property
    def given_up(self) -> int:
        """How many numbers the device has named as given up."""
        return 0 if self.report is None else self.report.discarded_events

    @cached_property
    def holes(self) -> list[Gap]:
        """The numbers without an event, in order, as far as a report lists them."""
        return [] if self.report is None else gaps(self.report)

    @property
    def told(self) -> list[str]:
        """The holes in words."""
        return [words(each) for each in self.holes]

    @property
    def is_known(self) -> bool:
        """Whether every hole is known: there is none, or they are listed."""
        number = sum(each.last_seq - each.first_seq + 1 for each in self.holes)
        return number == self.lost + self.given_up + self.count.refused

    @property
    def state(self) -> str:
        """Its state, one of those above."""
        chain = self.count.chain if self.report is None else self.report.chain
        if self.count.forked or chain in _BAD_CHAINS:
            return CHANGED
        if self.lost:
            return GAPS
        if self.count.received_directly:
            return DIRECT
        return UNCHECKED if self.report is None else COMPLETE

    @property
    def needs_look(self) -> bool:
        """Whether somebody should look at it."""
        return self.state in (CHANGED, GAPS)

    @property
    def rank(self) -> tuple[int, int]:
        """Where it comes in a list: the worst first, and the more is missing the sooner."""
        return _WORST_FIRST.index(self.state), -self.lost

    @property
    def chain(self) -> str:
        """What the chain shows, in a few words."""
        if self.report is None:
            return "not checked yet"
        if self.report.chain == "broken":
            return f"broken at {self.report.chain_breaks_at_seq:,}"
        if self.report.chain == "forked":
            return "two histories"
        return "cannot be checked here" if self.report.chain == "unverifiable" else "intact"

    @property
    def why(self) -> str:
        """What a chain that is not intact means; otherwise an empty text."""
        if self.report is not None and self.report.chain == "broken":
            return (
                f"The event {self.report.chain_breaks_at_seq:,} does not follow the one before it: "
                "one was changed, or put in between."
            )
        if self.state != CHANGED:
            return ""
        said = "A copy of the outbox has sent too, or it was set back and went on."
        reused = [] if self.report is None else self.report.reused_seqs
        if reused:
            said += f" Used twice: {', '.join(f'{each:,}' for each in reused[:_MOST_NAMED])}"
            more = len(reused) - _MOST_NAMED
            said += f" and {more:,} more." if more > 0 else "."
        return said

    @property
    def title(self) -> str:
        """What the tape shows, in a sentence."""
        parts = [(self.lost, "missing"), (self.count.refused, "refused"),
                 (self.given_up, "given up")]  # fmt: skip
        said = ", ".join(f"{number:,} {word}" for number, word in parts if number)
        return f"Numbers 1 to {self.count.highest_seq:,}: {said or 'all received'}"

    @property
    def drawn(self) -> list[tuple[int, int, str, str]]:
        """The holes as the tape takes them."""
        return [(*each[:2], _CLASSES[each.kind], words(each)) for each in self.holes]


def words(gap: Gap) -> str:
    """Return a gap in words."""
    numbers = f"{gap.first_seq:,}"
    if gap.last_seq != gap.first_seq:
        numbers += f" to {gap.last_seq:,}"
    if gap.kind == "refused":
        return f"{numbers}: refused here, {gap.code or 'for an unknown reason'}"
    return f"{numbers}: " + ("missing" if gap.kind == "lost" else "given up on the device")
