"""Report on an outbox's events: whether any is missing or was changed."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tracker.discards import Range

Chain = Literal["intact", "broken", "unverifiable", "forked"]
MOST_RANGES = 1_000
"""Maximum number of gaps, of refused ranges and of reused numbers in a report."""


class IntegrityRow(NamedTuple):
    """The columns of an event that a report needs."""

    seq: int
    event_id: str
    digest: str
    chain: str


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


def report(
    rows: Iterable[IntegrityRow],
    refused_seqs: Iterable[int] = (),
    given_up: Sequence[Range] = (),
) -> OutboxReport:
    """Return the report on one outbox's events, which are read once.

    After a gap, the link to the previous event cannot be checked; checking continues with the next
    one. If a `seq` was reused, a link to any of its events is valid.

    Args:
        rows: The events in order of `seq`.
        refused_seqs: The `seq` of every refused event, in ascending order.
        given_up: The ranges that the outbox has named as discarded, merged.
    """
    missing, refused = _Missing(given_up), _Ranges()
    reused: list[int] = []
    events = seq = held = 0
    breaks_at: int | None = None
    # Chain values to which the next event may be linked: the genesis value before seq 1; an empty
    # tuple if the predecessor is missing.
    before: tuple[str, ...] = ()
    here: tuple[str, ...] = (canonical.GENESIS,)
    for number, row in _merge(rows, refused_seqs):
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
    return OutboxReport(
        events, seq, missing.listed, reused, _state(held, breaks_at, reused), breaks_at,
        missing.total, refused.listed, refused.total,
        missing.discarded.listed, missing.discarded.total,
    )  # fmt: skip


def _state(held: int, breaks_at: int | None, reused: list[int]) -> Chain:
    if held and breaks_at is not None:
        return "broken"
    if reused:
        return "forked"
    return "intact" if held else "unverifiable"


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


def _last_of(range_: Range) -> int:
    return range_[1]


def _merge(
    rows: Iterable[IntegrityRow], refused_seqs: Iterable[int]
) -> Iterator[tuple[int, IntegrityRow | None]]:
    """Yield events and refused numbers in ascending order; events first for the same number."""
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
