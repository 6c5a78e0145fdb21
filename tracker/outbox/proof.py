"""What a chain key proves of the rows of a damaged outbox, before they are chained anew.

A digest proves that a row is whole, not that the tracker wrote it: whoever can change the file can
make a digest that fits. Were all such rows chained under the key, somebody without it could change
a row, damage the file, and have the tracker vouch for the change. So each row's old link is held
against the key first. A link is HMAC(key, chain value of the row before ‖ digest of the row), and
a chain value is known where the row before, whole or not, or the gap before still has it.

- `PROVEN`: the link holds; or it does not, but the next row's does when this one's is computed: so
  the stored value was damaged, not the row. Nobody without the key can bring this about for a row
  that was not logged, nor for one in another place of the chain. The row is chained under the key.
- `DISPROVEN`: the links before and after hold and this one does not, so another digest stood
  between them when they were made. The row does not come over. It counts as broken, and stays in
  the damaged set.
- `UNPROVEN`: anything else: the row before is missing, the newest row's link does not hold, two
  neighbours' links do not, or the chain was made without this key; and a row whose link says that
  it came unproven out of an earlier salvage, or was made without any key: the next row's link
  proves that it stood there, and no more. Such rows may be whole, so they come over; but their new
  links say that they were not proven (`canonical.unproven_chain`), and so does `verify`. The key
  vouches for nothing more of them than that they came over.

What nothing here proves: that no row is missing at the end; the state of a row (pending, delivered,
dead), which is in no digest; and which of two processes with different keys wrote a row: one made
under another key, between two of this key, counts as disproven. Without a key nothing is proven,
before a salvage or after one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tracker.outbox.salvage import Row

PROVEN = "proven"
DISPROVEN = "disproven"
UNPROVEN = "unproven"


class _Held(NamedTuple):
    """A row whose link does not hold, until the next row is seen.

    Attributes:
        row: The row.
        expected: What its chain value should be, from each that may stand before it.
        unproven: What it would be instead if it came out of a damaged outbox, or had no key.
        after_proof: Whether the one before it is proven.
    """

    row: Row
    expected: list[str]
    unproven: list[str]
    after_proof: bool


def judge(
    rows: Iterable[Row], before: Callable[[int], Iterable[object]], key: bytes | None
) -> Iterator[tuple[Row, str]]:
    """Yield each row, and what is proven of it, in the same order.

    Args:
        rows: Rows that match their digests, in order of seq.
        before: Returns what may be the chain value just before a seq, as far as it can be read.
        key: The chain key; without one every row counts as proven.
    """
    if key is None:
        yield from ((row, PROVEN) for row in rows)
        return
    held: _Held | None = None
    known: list[str] = []
    proven, last = False, None
    for row in rows:
        if last is None or row.seq != last + 1:
            if held is not None:
                yield held.row, UNPROVEN
            held, proven = None, row.seq == 1
            known = [canonical.GENESIS] if proven else _usable(before(row.seq))
        expected = [canonical.chain(value, row.event.digest, key) for value in known]
        if row.chain in expected:
            if held is not None:
                yield held.row, _outcome(held, known[expected.index(row.chain)])
            yield row, PROVEN
            held, known, proven = None, [row.chain], True
        else:
            if held is not None:
                yield held.row, UNPROVEN
                expected = expected[:1]  # what follows from a guess is no guess of any use
            held = _Held(row, expected, _without_proof(known, row, key), proven)
            known, proven = [*_usable([row.chain]), *expected], False
        last = row.seq
    if held is not None:
        yield held.row, UNPROVEN


def _outcome(held: _Held, true_value: str) -> str:
    """Decide on a row, now that the next one proves what the chain value at it was."""
    if true_value in held.expected:
        return PROVEN
    return DISPROVEN if held.after_proof and true_value not in held.unproven else UNPROVEN


def _without_proof(known: Iterable[str], row: Row, key: bytes) -> list[str]:
    """Return the links to a row that are its own, but prove nothing of what it says."""
    digest = row.event.digest
    return [
        link
        for value in known
        for link in (canonical.unproven_chain(value, digest, key), canonical.chain(value, digest))
    ]


def _usable(values: Iterable[object]) -> list[str]:
    """Return those that can be chain values; a damaged row may hold any type."""
    return [value for value in values if isinstance(value, str) and value.isascii()]
