"""Text of an event can be taken for nothing else on a page."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.pages.shown import clipped, finalized, shown, visible

KEPT = {"\t", "\n", "\u200c", "\u200d"}
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def test_each_character_that_is_not_seen_is_shown_as_its_code_point() -> None:
    """All of them, by this Python's Unicode: controls, directions, halves of pairs, line ends."""
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        if unicodedata.category(character) in UNSEEN and character not in KEPT:
            assert visible(character) == f"[U+{point:04X}]"


def test_markup_is_escaped_and_has_its_own_direction() -> None:
    """And what stands for a code point cannot be written by an event."""
    assert shown("<b>&\"'") == "<bdi>&lt;b&gt;&amp;&#34;&#39;</bdi>"
    assert shown("a\u202eb") == '<bdi>a<span class="code-point">U+202E</span>b</bdi>'
    assert "<span" not in shown('<span class="code-point">U+202E</span>')


@given(st.text())
def test_whatever_the_text_only_its_characters_are_left(text: str) -> None:
    """No markup, no unseen character, and it can be sent."""
    plain = shown(text).striptags()
    assert not [c for c in plain if unicodedata.category(c) in UNSEEN and c not in KEPT]
    assert shown(text).count("<bdi>") == 1
    shown(text).encode()


@pytest.mark.parametrize(("value", "said"), [(None, "\N{EN DASH}"), ("\x1b", "[U+001B]"), (0, 0)])
def test_a_template_that_forgets_the_filter_still_shows_code_points(
    value: object, said: object
) -> None:
    """And says of what is not known that it is not; a cost of 0 is known."""
    assert finalized(value) == said


def test_a_long_text_is_clipped_to_one_line() -> None:
    """However long it is."""
    assert clipped("a\nb" * 1_000_000, 5) == "a ba…"
    assert clipped("short") == "short"
