"""Which messages of a list are found to be new, whatever became of the list in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracker.trackers.alignment import Place, compare


def places(text: str, *, first: int = 0) -> list[Place]:
    """Return a message for each letter; capitals are system messages, and dots are erased."""
    return [
        Place(None if letter == "." else ord(letter), at, system=letter.isupper())
        for at, letter in enumerate(text, first)
    ]


def new(listed: str, stored: str) -> str:
    compared = compare(places(listed), places(stored))
    return "".join(listed[position] for position in sorted(compared.new))


@given(st.text("abcS", max_size=12), st.text("abcS", max_size=6))
def test_what_was_added_is_new(stored: str, added: str) -> None:
    """Equal messages included, except system messages that are there already."""
    said = new(stored + added, stored)
    assert said.replace("S", "") == added.replace("S", "")
    assert said.count("S") == added.count("S")


@given(
    st.text("abcS", min_size=3, max_size=12),
    st.integers(0, 10),
    st.sampled_from(["", "T", "x", "Tx"]),
    st.text("wz", max_size=4),
)
def test_a_second_time_nothing_is_new(stored: str, cut: int, before: str, added: str) -> None:
    """Whatever was trimmed away and put in its place, if two messages or more are left."""
    listed = before + stored[min(cut, len(stored) - 3) :] + added
    if sum(letter.islower() for letter in stored[-3:]) >= 2:
        assert new(listed, stored + new(listed, stored)) == ""


def test_a_trimmed_list_goes_on_where_it_was() -> None:
    """Only its end counts, though what comes next was said before."""
    assert new("Sefgb", "Sabcdefg") == "b"
    assert new("fgab", "abcdefg") == "ab"


def test_a_changed_system_message_is_new_and_nothing_else() -> None:
    """One that comes back is not."""
    assert new("Tabcd", "Sabc") == "Td"
    assert new("Tabcde", "SabcTd") == "e"
    assert new("Sabcdef", "SabcTde") == "f"


def test_a_summary_in_place_of_the_beginning_is_new() -> None:
    """Once; the messages after it are known."""
    assert new("xefg", "abcdefg") == "x"
    assert new("xefgh", "abcdefgx") == "h"


def test_an_answer_in_place_of_another_is_new() -> None:
    """And a list that was only cut at its end says nothing new."""
    assert new("abx", "abc") == "x"
    assert new("ab", "abcd") == ""
    assert new("abcxy", "abcdef") == "xy"


def test_what_was_erased_is_not_logged_again() -> None:
    """It may have been any message."""
    assert new("abcd", "..c") == "d"
    assert new("Sabcd", "....") == "d"
    assert new("bcd", "...") == ""
    assert new("xcd", ".bc") == "d"


def test_what_was_pruned_is_not_logged_again() -> None:
    """The oldest message that is left says how many stood before it."""
    listed, left = places("abcdefg"), places("def", first=3)
    assert compare(listed, left).new == {6}
    assert compare(listed, left).gone == {0, 1, 2}


def test_a_changed_beginning_is_not_taken_for_a_pruned_one() -> None:
    """If what it replaced is still stored."""
    assert new("xbcd", "abc") == "xd"
