"""Report on an outbox's events: whether any is missing or was changed."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tracker.discards import Range

Chain = Literal["intact", "broken", "unverifiable", "forked"]
MOST_RANGES = 1_000
"""Maximum number of gaps, of refused ranges and of reused numbers in a report."""
_NONE_REFUSED = (2**63, "")


class Refusals(NamedTuple):
    """A range of refused events, and the code of the reason."""

    first_seq: int
    last_seq: int
    code: str


@dataclass(frozen=True)
class OutboxReport:
    """Report on the events of one outbox.

    Attributes:
        events: Number of events stored.
        highest_seq: The highest `seq` of stored and refused events; 0 if there are none.
        missing: First and last `seq` of every gap from 1 to `highest_seq`, up to 1,000 gaps: events
            that were lost or have not arrived yet.
        reused_seqs: Every `seq` that several events have, up to 1,000: a copy of the outbox has
            sent events too, or the outbox lost its latest events and used their numbers again.
        chain: ``intact`` if all links that could be checked were valid and there was at least one.
            ``broken`` if only some were valid: an event was changed or inserted. ``unverifiable``
            if none was valid: there was none to check, or the whole chain has a chain key, which
            the collector does not have; also if the collector made the chain itself. ``forked`` if
            a number was reused, and it is not broken: there are two continuations, and each is what
            its outbox holds; also if a signed head contradicts one that was cosigned.
        chain_breaks_at_seq: The first `seq` whose link was not valid, or None.
        missing_events: Total number of missing events.
        refused: First and last `seq` of every range of refused events, up to 1,000. They are not
            lost but were discarded; ``/v1/rejections`` has the reasons.
        refused_events: Total number of refused events.
        discarded: First and last `seq` of every range of missing events that the outbox has named
            as given up, in an ``events.discarded`` event, up to 1,000.
        discarded_events: Total number of these.
        cosigned_size: How many events the largest head covers that was cosigned; 0 if none was.
        contradicting_heads: Number of heads that contradict one that was cosigned.
        received_directly: Whether these are a client's events that came without an outbox, over
            OTLP. The collector has numbered and chained them itself, so a gap or a broken chain is
            damage to the collector's database, and no gap proves nothing of what was sent: `chain`
            is never ``intact``.
        refusals: The ranges of `refused`, each with the code of the reason, up to 1,000: first and
            last `seq`, and code.
        checked_at_ms: When all events were last read, Unix milliseconds. Since then each was
            checked as it came; a change to one in the collector's database shows when all are read
            again: with ``whole``, with ``prove``, and once in 24 hours if they are no more than
            100,000.
    """

    events: int = 0
    highest_seq: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    reused_seqs: list[int] = field(default_factory=list)
    chain: Chain = "unverifiable"
    chain_breaks_at_seq: int | None = None
    missing_events: int = 0
    refused: list[tuple[int, int]] = field(default_factory=list)
    refused_events: int = 0
    discarded: list[tuple[int, int]] = field(default_factory=list)
    discarded_events: int = 0
    cosigned_size: int = 0
    contradicting_heads: int = 0
    received_directly: bool = False
    refusals: list[Refusals] = field(default_factory=list)
    checked_at_ms: int = field(default=0, compare=False)

    def with_heads(self, cosigned_size: int, contradicting_heads: int) -> OutboxReport:
        """Return the report with what is known of the outbox's heads."""
        forked = contradicting_heads > 0 and self.chain != "broken"
        return replace(
            self,
            chain="forked" if forked else self.chain,
            cosigned_size=cosigned_size,
            contradicting_heads=contradicting_heads,
        )

    def of_no_outbox(self) -> OutboxReport:
        """Return the report as one on what came without an outbox."""
        chain: Chain = "unverifiable" if self.chain == "intact" else self.chain
        return replace(self, chain=chain, received_directly=True)


@dataclass
class Walk:
    """What was found of an outbox's events up to some seq: all that is needed to go on from there.

    Attributes:
        events: Number of events.
        seq: The highest seq; 0 if there are none.
        reused: Every seq that several events have, up to 1,000.
        has_links: Whether any link was valid.
        breaks_at: The first seq whose link was not valid, or None.
        here: Chain values to which the next event may be linked: the genesis value before seq 1; an
            empty tuple after nothing.
        pruned_through: Numbers up to here without an event are no gaps: events were deleted.
    """

    events: int = 0
    seq: int = 0
    reused: list[int] = field(default_factory=list)
    has_links: bool = False
    breaks_at: int | None = None
    here: tuple[str, ...] = (canonical.GENESIS,)
    pruned_through: int = 0

    def differs(self, other: Walk) -> bool:
        """Return True if another one says something else, but for where to go on."""
        return vars(replace(self, here=())) != vars(replace(other, here=()))

    def gaps_with(self, rows: Iterable[Any]) -> Iterator[Range]:
        """Go on over the next events and yield the gaps before them.

        After a gap, the link to the previous event cannot be checked; checking continues with the
        next one. If a `seq` was reused, a link to any of its events is valid.

        Args:
            rows: Seq, digest and chain value of events in order of `seq`, none below `seq`.
        """
        before: tuple[str, ...] = ()
        for number, digest, chain in rows:
            self.events += 1
            if number == self.seq:
                if number not in self.reused:
                    insort(self.reused, number)
                    del self.reused[MOST_RANGES:]
                self.here = (*self.here, chain)
            else:
                before = self.here
                if number > self.seq + 1:
                    before = ()
                    first = max(self.seq, self.pruned_through) + 1
                    if first < number:
                        yield first, number - 1
                self.here, self.seq = (chain,), number
            if not before:
                continue
            if canonical.chain(before[0], digest) == chain or any(
                canonical.chain(previous, digest) == chain for previous in before[1:]
            ):
                self.has_links = True
            elif self.breaks_at is None or number < self.breaks_at:
                self.breaks_at = number


def report(
    rows: Iterable[Any],
    refused: Iterable[tuple[int, str]] = (),
    given_up: Sequence[Range] = (),
) -> OutboxReport:
    """Return the report on one outbox's events, which are read once.

    Args:
        rows: Seq, digest and chain value of the events in order of `seq`.
        refused: As for `report_of`.
        given_up: As for `report_of`.
    """
    walk = Walk()
    return report_of(walk, walk.gaps_with(rows), refused, given_up)


def report_of(
    walk: Walk,
    gaps: Iterable[Range],
    refused: Iterable[tuple[int, str]],
    given_up: Sequence[Range],
    checked_at_ms: int = 0,
) -> OutboxReport:
    """Return the report on one outbox, of which this is known.

    Args:
        walk: What is here. It need not be right before all gaps have been taken.
        gaps: First and last number of each gap up to the highest seq, in order; read once.
        refused: The `seq` of every refused event, in ascending order, and the code of the reason.
        given_up: The ranges that the outbox has named as discarded, merged.
        checked_at_ms: When all events were last read, Unix milliseconds.
    """
    missing, refusals = _Missing(given_up), _Refused()
    numbers = iter(refused)
    number, code = next(numbers, _NONE_REFUSED)
    for first, last in gaps:
        start = first
        while number <= last:
            if number >= start:  # otherwise an event has that number
                missing.add(start, number - 1)
                refusals.refuse(number, code)
                start = number + 1
            number, code = next(numbers, _NONE_REFUSED)
        missing.add(start, last)
    highest = walk.seq
    while (number, code) != _NONE_REFUSED:
        if number > highest:
            missing.add(highest + 1, number - 1)
            refusals.refuse(number, code)
            highest = number
        number, code = next(numbers, _NONE_REFUSED)
    return OutboxReport(
        walk.events, highest, missing.listed, walk.reused, state(walk), walk.breaks_at,
        missing.total, refusals.listed, refusals.total,
        missing.discarded.listed, missing.discarded.total,
        refusals=refusals.by_code, checked_at_ms=checked_at_ms,
    )  # fmt: skip


def state(walk: Walk) -> Chain:
    """Return what the links say that were found."""
    if walk.has_links and walk.breaks_at is not None:
        return "broken"
    if walk.reused:
        return "forked"
    return "intact" if walk.has_links else "unverifiable"


class _Ranges:
    """Ranges of numbers in ascending order: the first ranges, and the total count of numbers."""

    def __init__(self) -> None:
        self.listed: list[tuple[int, int]] = []
        self.total = 0
        self._last = 0

    def add(self, first: int, last: int) -> None:
        """Add a range; one that continues the last range extends it."""
        if first > last:
            return
        self.total += last - first + 1
        if self.listed and self._last == first - 1 == self.listed[-1][1]:
            self.listed[-1] = (self.listed[-1][0], last)
        elif len(self.listed) < MOST_RANGES:
            self.listed.append((first, last))
        self._last = last


class _Missing(_Ranges):
    """Ranges of missing numbers, and which of them the outbox has named as discarded."""

    def __init__(self, given_up: Sequence[Range]) -> None:
        super().__init__()
        self._given_up = given_up
        self.discarded = _Ranges()

    def add(self, first: int, last: int) -> None:
        """Add a range."""
        super().add(first, last)
        place = bisect_left(self._given_up, first, key=_last_of)
        while place < len(self._given_up) and self._given_up[place][0] <= last:
            start, end = self._given_up[place]
            self.discarded.add(max(first, start), min(last, end))
            place += 1


class _Refused(_Ranges):
    """Ranges of refused numbers, and the same with the reasons."""

    def __init__(self) -> None:
        super().__init__()
        self.by_code: list[Refusals] = []

    def refuse(self, number: int, code: str) -> None:
        """Add a number, greater than those before."""
        super().add(number, number)
        last = self.by_code[-1] if self.by_code else None
        if last is not None and (last.last_seq, last.code) == (number - 1, code):
            self.by_code[-1] = last._replace(last_seq=number)
        elif len(self.by_code) < MOST_RANGES:
            self.by_code.append(Refusals(number, number, code))


def _last_of(range_: Range) -> int:
    return range_[1]


class Gap(NamedTuple):
    """Numbers without an event, and why.

    Attributes:
        first_seq: The first of them.
        last_seq: The last of them.
        kind: ``lost`` if nothing explains it, or they are still to come; ``refused`` here, which a
            client keeps as dead letters; ``discarded``: given up, as the outbox itself has said.
        code: Why they were refused, or None.
    """

    first_seq: int
    last_seq: int
    kind: Literal["lost", "refused", "discarded"]
    code: str | None = None


def gaps(found: OutboxReport) -> list[Gap]:
    """Return the gaps of a report in order, each with its reason."""
    listed = [Gap(first, last, "refused", code) for first, last, code in found.refusals]
    listed += [Gap(first, last, "discarded") for first, last in found.discarded]
    for first, last in found.missing:
        start = first
        for given_up, end in found.discarded:
            if first <= given_up <= last:
                listed += [Gap(start, given_up - 1, "lost")] if start < given_up else []
                start = end + 1
        listed += [Gap(start, last, "lost")] if start <= last else []
    return sorted(listed)
