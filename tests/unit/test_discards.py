"""What events say of events that were given up, and ranges of seqs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker import canonical, discards

MOST = 40
RANGES = st.lists(st.tuples(st.integers(1, MOST), st.integers(1, MOST)).map(sorted).map(tuple))


def members(ranges: Any) -> set[int]:
    return {seq for first, last in ranges for seq in range(first, last + 1)}


def is_merged(ranges: Any) -> bool:
    return all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(RANGES, RANGES)
def test_ranges_are_sets_of_seqs(one: Any, other: Any) -> None:
    """Joined, listed and taken away from one another, they are the same seqs as sets would be."""
    merged, taken = discards.merged(one), discards.merged(other)
    assert members(merged) == members(one)
    assert is_merged(merged)
    assert discards.runs(sorted(members(one))) == merged
    left = discards.without(merged, taken)
    assert members(left) == members(one) - members(other)
    assert is_merged(left)
    assert left == sorted(left)


def test_what_an_event_says() -> None:
    """The outbox, the reason, and the ranges."""
    said = {"outbox_id": "o", "reason": "operator", "ranges": [[2, 3], [7, 7]]}
    assert discards.read(canonical.encode(said)) == ("o", "operator", [(2, 3), (7, 7)])
    del said["outbox_id"]
    assert discards.read(canonical.encode(said) + "  ").outbox_id is None


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "7",
        '{"erased":true}',
        '{"reason":"x","ranges":7}',
        '{"reason":"x","ranges":[7]}',
        '{"reason":"x","ranges":[[1,2,3]]}',
        '{"reason":"x","ranges":[[3,1],[0,2],[true,2],["1",2],[1,9223372036854775807]]}',
    ],
)
def test_what_makes_no_sense_names_nothing(data: str) -> None:
    """Anybody with a key can send it."""
    assert discards.read(data).ranges == []
