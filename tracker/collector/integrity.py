"""What an outbox's events prove: nothing is missing, nothing was changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Chain = Literal["intact", "broken", "unverifiable"]
MOST_RANGES = 1_000
"""How many gaps, refused ranges and reused numbers a report lists, of each."""


class IntegrityRow(NamedTuple):
    """What a proof of completeness needs of one event."""

    seq: int
    event_id: str
    digest: str
    chain: str


@dataclass(frozen=True)
class OutboxReport:
    """What was received from one outbox.

    Attributes:
        events: Events held.
        highest_seq: The greatest `seq` among them and what was refused; 0 without any.
        missing: First and last `seq` of every gap from 1 to `highest_seq`: proof of loss, or
            events still on their way. The first 1,000 gaps.
        reused_seqs: Every `seq` that several events have: the outbox lost its latest events to
            damage and counted on from before. The first 1,000.
        chain: ``intact`` if every link that could be checked held and there was one. ``broken``
            if some held and some did not: an event was changed, or one was slipped in.
            ``unverifiable`` if none held: there was none to check, or all of the chain was made
            under a chain key, which the collector does not have.
        chain_breaks_at_seq: The first `seq` whose link did not hold, or None.
        missing_events: How many are missing, in all gaps.
        refused: First and last `seq` of every stretch that was refused, with the reasons that
            ``/v1/rejections`` tells: not lost, but given up. The first 1,000.
        refused_events: How many were refused, in all.
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


def report(rows: Iterable[IntegrityRow], refused_seqs: Iterable[int] = ()) -> OutboxReport:
    """Return the report on one outbox's events, given in order of `seq`, read once.

    After a gap the link to the event before it cannot be checked; checking goes on behind it.
    Where a `seq` was reused, a link holds if it holds to one of the events before it.

    Args:
        rows: The events.
        refused_seqs: Every `seq` that was refused, in ascending order.
    """
    missing, refused = _Ranges(), _Ranges()
    reused: list[int] = []
    events = seq = held = 0
    breaks_at: int | None = None
    # What the next event may be chained to. Before seq 1 stands the genesis value; an empty
    # tuple says that the predecessor is not here.
    before: tuple[str, ...] = ()
    here: tuple[str, ...] = (canonical.GENESIS,)
    for number, row in _together(rows, refused_seqs):
        if row is None:
            if number != seq:
                missing.add(seq + 1, number - 1)
                refused.add(number, number)
                here, seq = (), number
            continue
        events += 1
        if number == seq and here:
            if number not in reused[-1:]:
                reused.append(number)
                del reused[MOST_RANGES:]
            here = (*here, row.chain)
        else:
            missing.add(seq + 1, number - 1)
            before = here if number == seq + 1 else ()
            here, seq = (row.chain,), number
        if not before:
            continue
        if any(canonical.chain(previous, row.digest) == row.chain for previous in before):
            held += 1
        elif breaks_at is None:
            breaks_at = seq
    chain: Chain = "unverifiable"
    if held:
        chain = "intact" if breaks_at is None else "broken"
    return OutboxReport(
        events, seq, missing.listed, reused, chain, breaks_at,
        missing.total, refused.listed, refused.total,
    )  # fmt: skip


class _Ranges:
    """Stretches of numbers in ascending order: the first ones, and how many numbers in all."""

    def __init__(self) -> None:
        self.listed: list[tuple[int, int]] = []
        self.total = 0
        self._last = 0

    def add(self, first: int, last: int) -> None:
        """Add a stretch; one that continues the last one becomes part of it."""
        if first > last:
            return
        self.total += last - first + 1
        if self.listed and self._last == first - 1 == self.listed[-1][1]:
            self.listed[-1] = (self.listed[-1][0], last)
        elif len(self.listed) < MOST_RANGES:
            self.listed.append((first, last))
        self._last = last


def _together(
    rows: Iterable[IntegrityRow], refused_seqs: Iterable[int]
) -> Iterator[tuple[int, IntegrityRow | None]]:
    """Yield events and refused numbers by number; events first where both have one."""
    refused = iter(refused_seqs)
    number = next(refused, None)
    for row in rows:
        while number is not None and number < row.seq:
            yield number, None
            number = next(refused, None)
        yield row.seq, row
    while number is not None:
        yield number, None
        number = next(refused, None)
