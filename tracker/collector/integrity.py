"""What an outbox's events prove: nothing is missing, nothing was changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker.collector.store import IntegrityRow

Chain = Literal["intact", "broken", "unverifiable"]


@dataclass(frozen=True)
class OutboxReport:
    """What was received from one outbox.

    Attributes:
        events: Events held.
        highest_seq: The greatest `seq` among them; 0 without any.
        missing: First and last `seq` of every gap from 1 to `highest_seq`: proof of loss, or
            events still on their way.
        reused_seqs: Every `seq` that several events have: the outbox lost its latest events to
            damage and counted on from before.
        chain: ``intact`` if every link that could be checked held and there was one. ``broken``
            if some held and some did not: an event was changed, or one was slipped in.
            ``unverifiable`` if none held: there was none to check, or all of the chain was made
            under a chain key, which the collector does not have.
        chain_breaks_at_seq: The first `seq` whose link did not hold, or None.
    """

    events: int = 0
    highest_seq: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    reused_seqs: list[int] = field(default_factory=list)
    chain: Chain = "unverifiable"
    chain_breaks_at_seq: int | None = None


def report(rows: Iterable[IntegrityRow]) -> OutboxReport:
    """Return the report on one outbox's events, given in order of `seq`, read once.

    After a gap the link to the event before it cannot be checked; checking goes on behind it.
    Where a `seq` was reused, a link holds if it holds to one of the events before it.
    """
    missing: list[tuple[int, int]] = []
    reused: list[int] = []
    events = seq = held = 0
    breaks_at: int | None = None
    # What the next event may be chained to. Before seq 1 stands the genesis value; an empty
    # tuple says that the predecessor is not here.
    before: tuple[str, ...] = ()
    here: tuple[str, ...] = (canonical.GENESIS,)
    for row in rows:
        events += 1
        if row.seq == seq:
            if seq not in reused[-1:]:
                reused.append(seq)
            here = (*here, row.chain)
        else:
            if row.seq > seq + 1:
                missing.append((seq + 1, row.seq - 1))
            before = here if row.seq == seq + 1 else ()
            here, seq = (row.chain,), row.seq
        if not before:
            continue
        if any(canonical.chain(previous, row.digest) == row.chain for previous in before):
            held += 1
        elif breaks_at is None:
            breaks_at = seq
    chain: Chain = "unverifiable"
    if held:
        chain = "intact" if breaks_at is None else "broken"
    return OutboxReport(events, seq, missing, reused, chain, breaks_at)
