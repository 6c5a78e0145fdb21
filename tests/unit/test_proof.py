"""What a chain key proves of rows that are found in a damaged outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker import canonical
from tracker.events import make_event
from tracker.outbox import proof
from tracker.outbox.proof import DISPROVEN, PROVEN, UNPROVEN
from tracker.outbox.salvage import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEY = b"a chain key of the tests, long enough"


def chained(count: int, key: bytes | None = KEY) -> list[Row]:
    rows, chain = [], canonical.GENESIS
    for seq in range(1, count + 1):
        event = make_event("test.noted", {"n": seq})
        chain = canonical.chain(chain, event.digest, key)
        rows.append(Row(seq, event, None, None, None, None, chain))
    return rows


def changed(row: Row) -> Row:
    """Return a row as somebody without the key can change it: its digest fits."""
    return row._replace(event=make_event("test.noted", {"forged": row.seq}))


def outcomes(rows: Sequence[Row], known: dict[int, object] | None = None) -> list[str]:
    """Judge rows; `known` has chain values by seq that stand beside them, as in broken rows."""
    known = known or {}

    def before(seq: int) -> list[object]:
        return [known[seq - 1]] if seq - 1 in known else []

    judged = list(proof.judge(rows, before, KEY))
    assert [row for row, _ in judged] == list(rows), "each once, in order"
    return [outcome for _, outcome in judged]


def test_an_intact_chain_is_proven() -> None:
    """From its first row on."""
    assert outcomes(chained(5)) == [PROVEN] * 5


def test_a_changed_row_between_others_is_disproven() -> None:
    """Both neighbours' links hold, so another row stood there."""
    rows = chained(5)
    rows[2] = changed(rows[2])
    assert outcomes(rows) == [PROVEN, PROVEN, DISPROVEN, PROVEN, PROVEN]


def test_a_damaged_link_does_not_cost_its_row() -> None:
    """The next row's link holds when the damaged value is computed anew."""
    rows = chained(5)
    for value in ("f" * 64, None, b"\xff", "é" * 64):
        rows[2] = rows[2]._replace(chain=value)
        assert outcomes(rows) == [PROVEN] * 5


@pytest.mark.parametrize(
    "link",
    [
        lambda value, digest: canonical.unproven_chain(value, digest, KEY),
        canonical.chain,
    ],
    ids=["out of a damaged outbox", "without a key"],
)
@pytest.mark.parametrize("before", [0, 2], ids=["first", "between others"])
def test_a_row_that_was_not_proven_before_is_not_disproven_now(
    link: Callable[[str, str], str], before: int
) -> None:
    """The next row's link holds, so this one stood there when that was made, as it is."""
    rows = chained(before)
    event = make_event("test.noted", {"n": "unproven"})
    chain = link(rows[-1].chain if rows else canonical.GENESIS, event.digest)  # type: ignore[arg-type]  # a text here
    rows.append(Row(before + 1, event, None, None, None, None, chain))
    for seq in (before + 2, before + 3):
        event = make_event("test.noted", {"n": seq})
        chain = canonical.chain(chain, event.digest, KEY)
        rows.append(Row(seq, event, None, None, None, None, chain))
    assert outcomes(rows) == [*[PROVEN] * before, UNPROVEN, PROVEN, PROVEN]
    rows[before] = changed(rows[before])
    assert outcomes(rows)[before] == DISPROVEN


def test_the_newest_row_has_no_witness() -> None:
    """Whether it was changed or its link was damaged, nothing tells."""
    rows = chained(3)
    assert outcomes([*rows[:2], changed(rows[2])])[-1] == UNPROVEN
    assert outcomes([*rows[:2], rows[2]._replace(chain="f" * 64)])[-1] == UNPROVEN


def test_behind_a_missing_row_one_is_unproven_and_the_rest_is_proven() -> None:
    """Unless the missing row's chain value can still be read, or a gap has it."""
    rows = chained(6)
    rest = [rows[0], *rows[3:]]
    assert outcomes(rest) == [PROVEN, UNPROVEN, PROVEN, PROVEN]
    assert outcomes(rest, {3: rows[2].chain}) == [PROVEN] * 4
    assert outcomes(rest, {3: "f" * 64}) == [PROVEN, UNPROVEN, PROVEN, PROVEN]


def test_a_changed_row_behind_a_missing_one_is_not_proven() -> None:
    """Removing its neighbour does not make a changed row true."""
    rows = chained(6)
    assert outcomes([*rows[:2], changed(rows[3]), *rows[4:]])[2] == UNPROVEN


def test_a_chain_made_without_the_key_is_unproven() -> None:
    """As is one under another key: nothing speaks against its rows."""
    for key in (None, b"another key of 16 bytes"):
        assert outcomes(chained(4, key)) == [UNPROVEN] * 4


def test_without_a_key_nothing_is_asked() -> None:
    """Each row counts as proven, for nothing is vouched for."""
    rows = [changed(row) for row in chained(3)]
    assert [outcome for _, outcome in proof.judge(rows, lambda _: [], None)] == [PROVEN] * 3


@given(
    st.lists(st.sampled_from(["keep", "change", "forge link", "drop", "swap"]), max_size=12),
)
def test_no_change_is_ever_proven(acts: list[str]) -> None:
    """Whatever somebody without the key does to rows, and those left alone are not disproven."""
    original = chained(len(acts))
    rows: list[Row] = []
    for row, act in zip(original, acts, strict=True):
        if act == "change":
            rows.append(changed(row))
        elif act == "forge link":
            before = rows[-1].chain if rows else canonical.GENESIS
            forged = changed(row)
            link = canonical.chain(str(before), forged.event.digest)
            rows.append(forged._replace(chain=link))
        elif act == "swap" and rows and rows[-1].seq == row.seq - 1:
            rows[-1], last = rows[-1]._replace(event=row.event), rows[-1]
            rows.append(row._replace(event=last.event))
        elif act != "drop":
            rows.append(row)
    true = {(row.seq, row.event.event_id) for row in original}
    for row, outcome in proof.judge(rows, lambda _: [], KEY):
        if (row.seq, row.event.event_id) not in true:
            assert outcome != PROVEN
        else:
            assert outcome != DISPROVEN


@pytest.mark.parametrize("count", [2_000])
def test_a_long_run_of_broken_links_takes_no_longer_each(count: int) -> None:
    """What is guessed at for one row is not guessed on for all that follow."""
    rows = [row._replace(chain="f" * 64) for row in chained(count)]
    calls = 0
    real = canonical.chain

    def counted(*arguments: object) -> str:
        nonlocal calls
        calls += 1
        return real(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "chain", counted)
        outcomes(rows)
    assert calls < 4 * count
