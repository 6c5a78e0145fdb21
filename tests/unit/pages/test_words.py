"""Figures as people read them, in the room that a page has for them."""

from __future__ import annotations

import time

import pytest

from tracker.pages import words

DAY_MS = 86_400_000
ROOM = 7
"""Characters that an axis has room for."""
ROUND = [1, 2.5, 40, 500, 2_500, 10_000, 400_000, 5e6, 2.5e9, 8e12]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (999_949, "999.9k"),
        (999_950, "1.0M"),
        (56e9, "56.0B"),
        (3e12, "3.0T"),
        (1e300, "1.0e+300"),
    ],
)
def test_a_large_number_is_short(value: float | None, text: str | None) -> None:
    """Thousands to trillions; above, its power of ten, never three hundred digits."""
    assert words.short(value) == text


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (None, None),
        (0.0, "$0.00"),
        (9_999.99, "$9,999.99"),
        (123_456.78, "$123,457"),
        (999_999.99, "$1.0M"),
        (4_444_444.08, "$4.4M"),
    ],
)
def test_a_price_fits_into_a_tile(dollars: float | None, text: str | None) -> None:
    """To the cent while it is small; tables have the whole sum."""
    assert words.price(dollars) == text


@pytest.mark.parametrize("value", ROUND)
def test_what_an_axis_says_fits_beside_it(value: float) -> None:
    """Whatever the unit."""
    for told in (words.axis_number, words.axis_price, words.axis_took):
        assert len(told(min(value, 3e10))) <= ROOM + (told is words.axis_took)


def test_an_axis_names_no_half_of_a_conversation() -> None:
    """The line is there without its figure."""
    assert [words.axis_number(each) for each in (0, 2.5, 5)] == ["0", "", "5"]


@pytest.mark.parametrize(
    ("value", "text"), [(4.25, "4.25"), (4.0, "4"), (-1e9, "-1,000,000,000"), (1e300, "1e+300")]
)
def test_a_score_may_be_any_number(value: float, text: str) -> None:
    """Scores are not only from 1 to 5."""
    assert words.score(value) == text


def test_another_year_is_told() -> None:
    """Near times go without it."""
    now = time.time_ns() // 1_000_000
    assert "2001" in (words.day(1_000_000_000_000) or "")
    assert len(words.day(now - DAY_MS) or "") == len("30 Nov 15:21")
