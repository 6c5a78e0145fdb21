"""What the collector concludes from the events it holds of one outbox."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tests.support.collector import EventChain
from tracker.collector.integrity import Gap, OutboxReport, Walk, gaps, report, report_of


class Row(NamedTuple):
    seq: int
    digest: str
    chain: str


def rows(chain: EventChain, count: int) -> list[Row]:
    return [Row(event["seq"], event["digest"], event["chain"]) for event in chain.events(count)]


def without(held: list[Row], *seqs: int) -> list[Row]:
    return [row for row in held if row.seq not in seqs]


def test_a_whole_outbox_is_intact() -> None:
    """Nothing missing, every link held."""
    assert report(rows(EventChain(), 5)) == OutboxReport(5, 5, [], [], "intact", None)


def test_nothing_held_proves_nothing() -> None:
    """An empty outbox is not called intact."""
    assert report([]) == OutboxReport(0, 0, [], [], "unverifiable", None)


def test_every_gap_is_named_and_checking_goes_on_behind_it() -> None:
    """Loss is no tampering: the links on both sides of a gap still hold."""
    held = without(rows(EventChain(), 10), 1, 2, 5, 8, 9)
    assert report(held) == OutboxReport(
        5, 10, [(1, 2), (5, 5), (8, 9)], [], "intact", None, missing_events=5
    )


def test_a_changed_event_breaks_the_chain_at_its_seq() -> None:
    """Its chain value no longer follows from its digest."""
    held = rows(EventChain(), 5)
    held[2] = held[2]._replace(digest="0" * 64)
    found = report(held)
    assert (found.chain, found.chain_breaks_at_seq) == ("broken", 3)


def test_a_break_behind_a_gap_is_found() -> None:
    """Verification resumes after the event whose predecessor is missing."""
    held = without(rows(EventChain(), 6), 3)
    held[-1] = held[-1]._replace(chain="0" * 64)
    found = report(held)
    assert (found.chain, found.chain_breaks_at_seq) == ("broken", 6)


def test_the_first_event_must_follow_from_genesis() -> None:
    """A chain that begins with seq 1 but another predecessor had its beginning cut off."""
    chain = EventChain()
    chain.chain = "a" * 64
    found = report(rows(chain, 3))
    assert (found.chain, found.chain_breaks_at_seq) == ("broken", 1)


def test_a_lone_event_behind_a_gap_cannot_be_verified() -> None:
    """There was no link to check."""
    held = rows(EventChain(), 3)[2:]
    assert report(held) == OutboxReport(1, 3, [(1, 2)], [], "unverifiable", None, missing_events=2)


def test_a_chain_under_a_key_cannot_be_verified() -> None:
    """Without the key no link holds; that is not called broken, but where it shows is said."""
    held = [row._replace(chain=f"{row.seq:064x}") for row in rows(EventChain(), 4)]
    found = report(held)
    assert (found.chain, found.chain_breaks_at_seq) == ("unverifiable", 1)


def test_reused_seqs_are_named_and_links_may_follow_either() -> None:
    """A copy of an outbox, or one that was set back, counts on from an earlier seq: a fork."""
    lost = EventChain()
    held = rows(lost, 3)
    again = EventChain()
    again.seq, again.chain = held[0].seq, held[0].chain
    held += rows(again, 3)
    held.sort(key=lambda row: row.seq)
    found = report(held)
    assert found == OutboxReport(6, 4, [], [2, 3], "forked", None)


def test_a_fork_shows_under_a_key_too() -> None:
    """The collector cannot check its links, but two events with one number are two all the same."""
    held = [row._replace(chain="0" * 64) for row in rows(EventChain(), 3)]
    assert report(held).chain == "unverifiable"
    held.append(held[2])
    assert (report(held).reused_seqs, report(held).chain) == ([3], "forked")


def test_a_reused_seq_does_not_hide_a_break() -> None:
    """An event slipped in under a seq that exists follows from nothing."""
    held = rows(EventChain(), 3)
    held.insert(2, Row(2, "b" * 64, "c" * 64))
    found = report(held)
    assert (found.reused_seqs, found.chain, found.chain_breaks_at_seq) == ([2], "broken", 2)


def test_rows_are_read_once() -> None:
    """An outbox need not fit into memory."""
    assert report(iter(rows(EventChain(), 3))).events == 3


def test_what_was_refused_is_not_missing() -> None:
    """Numbers that a client gave up are named apart; an event under such a number settles it."""
    held = rows(EventChain(), 9)
    kept = [held[0], held[3], held[7]]
    found = report(kept, [(3, "a"), (4, "a"), (5, "a"), (6, "b"), (10, "b"), (12, "b")])
    assert (found.missing, found.missing_events) == ([(2, 2), (7, 7), (9, 9), (11, 11)], 4)
    assert (found.refused, found.refused_events) == ([(3, 3), (5, 6), (10, 10), (12, 12)], 5)
    assert (found.events, found.highest_seq, found.chain) == (3, 12, "intact")
    assert found.refusals == [
        (3, 3, "a"), (5, 5, "a"), (6, 6, "b"), (10, 10, "b"), (12, 12, "b")
    ]  # fmt: skip


def test_what_the_outbox_gave_up_stays_missing_and_is_named() -> None:
    """A gap that it explains is told from one that it does not; what arrived is in neither."""
    held = without(rows(EventChain(), 12), 2, 3, 4, 7, 8, 11)
    found = report(held, (), [(3, 7), (11, 40)])
    assert found.missing == [(2, 4), (7, 8), (11, 11)]
    assert (found.discarded, found.discarded_events) == ([(3, 4), (7, 7), (11, 11)], 4)


def test_a_report_has_a_bound_however_many_gaps_there_are() -> None:
    """It tells the first thousand and how many are missing in all."""
    held = rows(EventChain(), 4_000)[1::2]
    found = report(held)
    assert (len(found.missing), found.missing_events) == (1_000, 2_000)


def test_gaps_are_told_with_their_reasons() -> None:
    """What was refused or given up is told from what was lost."""
    held = without(rows(EventChain(), 12), 2, 3, 4, 5, 8, 9)
    found = report(held, [(3, "event_too_large"), (14, "invalid")], [(4, 4), (9, 20)])
    assert gaps(found) == [
        Gap(2, 2, "lost"),
        Gap(3, 3, "refused", "event_too_large"),
        Gap(4, 4, "discarded"),
        Gap(5, 5, "lost"),
        Gap(8, 8, "lost"),
        Gap(9, 9, "discarded"),
        Gap(13, 13, "discarded"),
        Gap(14, 14, "refused", "invalid"),
    ]


@given(
    drawn=st.lists(st.tuples(st.integers(1, 15), st.booleans(), st.booleans()), max_size=20),
    refused=st.lists(st.integers(1, 18), max_size=6),
    split=st.integers(0, 20),
)
def test_a_walk_that_goes_on_finds_what_one_walk_finds(
    drawn: list[tuple[int, bool, bool]], refused: list[int], split: int
) -> None:
    """Wherever it stopped, with gaps, reused numbers, changed events and refusals."""
    chain, held = EventChain(), []
    for seq, is_linked, is_changed in sorted(drawn):
        if not is_linked:
            chain.chain = "e" * 64
        chain.seq = seq - 1
        (row,) = rows(chain, 1)
        held.append(row._replace(digest="d" * 64) if is_changed else row)
    why = [(seq, "too_large" if seq % 2 else "invalid") for seq in sorted(set(refused))]
    while 0 < split < len(held) and held[split].seq == held[split - 1].seq:
        split += 1  # an event with the number of one that was seen is no later one
    walk = Walk()
    found = [*walk.gaps_with(held[:split]), *walk.gaps_with(held[split:])]
    assert report_of(walk, found, why, [(2, 4)]) == report(held, why, [(2, 4)])
    assert walk.events == len(held)
