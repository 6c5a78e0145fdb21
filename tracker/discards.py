"""What an ``events.discarded`` event says: which events were given up, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
"""The first and the last of some seqs in a row."""

_END = 2**63 - 1


class Discards(NamedTuple):
    """Events that an outbox gave up.

    Attributes:
        outbox_id: The outbox, or None if the event does not say: then the one that it is from.
        reason: Why.
        ranges: Their seqs.
    """

    outbox_id: str | None
    reason: str
    ranges: list[Range]


def read(data: str) -> Discards:
    """Return what the data of an ``events.discarded`` event says; no ranges if it is invalid."""
    try:
        fields: dict[str, Any] = canonical.decode(data)
        outbox_id, reason = fields.get("outbox_id"), fields["reason"]
        ranges = [(first, last) for first, last in fields["ranges"] if _is_range(first, last)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return Discards(None, "", [])
    return Discards(outbox_id if isinstance(outbox_id, str) else None, str(reason), ranges)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in ascending order, with those that touch or overlap joined."""
    return _joined(sorted(ranges))


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for first, last in ranges:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def runs(seqs: Iterable[int]) -> list[Range]:
    """Return the ranges of seqs that are given in ascending order."""
    return _joined((seq, seq) for seq in seqs)


def without(ranges: Iterable[Range], given: Iterable[Range]) -> list[Range]:
    """Return what of some ranges is in none of the `given` ones. Both are merged."""
    left: list[Range] = []
    taken = iter([*given, (_END, _END)])
    start, end = next(taken)
    for first, last in ranges:
        while end < first:
            start, end = next(taken)
        while start <= last:
            if first < start:
                left.append((first, start - 1))
            first = end + 1
            if end >= last:
                break
            start, end = next(taken)
        if first <= last:
            left.append((first, last))
    return left


def _is_range(first: object, last: object) -> bool:
    return type(first) is int and type(last) is int and 0 < first <= last < _END
