"""`Tally`: what it says of seqs and values, whatever their number."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tracker.audit.tally import RANGES, VALUES, Record, Tally


@given(st.sets(st.integers(1, 120)))
def test_the_ranges_are_the_seqs(seqs: set[int]) -> None:
    """None is missing up to the last range shown; further ranges are counted."""
    tally = Tally()
    for seq in sorted(seqs):
        tally.add(seq)
    record = tally.record()
    assert record.count == len(seqs)
    assert (record.first_seq, record.last_seq) == (min(seqs, default=None), max(seqs, default=None))
    shown = {seq for first, last in record.ranges for seq in range(first, last + 1)}
    end = record.ranges[-1][1] if record.ranges else 0
    assert shown == {seq for seq in seqs if seq <= end}
    assert all(one[1] + 1 < other[0] for one, other in pairwise(record.ranges))
    assert len(record.ranges) <= RANGES
    assert len(record.ranges) + record.more_ranges == sum(seq - 1 not in seqs for seq in seqs)


def test_ranges_that_meet_are_one() -> None:
    """Removed events come as ranges."""
    tally = Tally()
    for first, last in ((1, 200), (201, 400), (402, 402)):
        tally.add(first, last)
    record = tally.record()
    assert (record.count, record.ranges) == (401, ((1, 400), (402, 402)))


def test_the_most_frequent_values_are_named_and_the_others_counted() -> None:
    """Also when there are more values than are kept; an event without a value has none."""
    tally = Tally()
    for seq in range(1, 3_001):
        tally.add(seq, value="often" if seq % 3 else f"once {seq}", erased=seq == 1)
    tally.add(3_001)
    record = tally.record()
    assert record.values["often"] == 2_000
    assert len(record.values) == VALUES
    assert sum(record.values.values()) + record.other_values == 3_000
    assert (record.count, record.erased) == (3_001, 1)


def test_nothing_is_an_empty_record() -> None:
    """Not recorded."""
    assert Tally().record() == Record()
