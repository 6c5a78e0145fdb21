"""The sentence that answers "is everything delivered?"."""

from __future__ import annotations

from typing import Any

import pytest

from tracker.pages.account import AMBER, GREEN, GREY, RED, sentence


@pytest.mark.parametrize(
    ("given", "text", "lamp"),
    [
        ({"accepted": 0}, "Nothing was logged yet.", GREY),
        ({}, "Everything is delivered.", GREEN),
        ({"discarded": 3}, "Everything kept is delivered; 3 were discarded.", AMBER),
        ({"discarded": 1}, "Everything kept is delivered; 1 was discarded.", AMBER),
        (
            {"pending": 9, "dead": 2, "oldest_seconds": 5},
            "9 events wait to be sent, and 2 were refused for good.",
            RED,
        ),
        ({"pending": 9, "oldest_seconds": 59.9}, "Delivering. 9 on the way.", GREEN),
        (
            {"pending": 9, "oldest_seconds": 5, "sends": False},
            "9 events wait to be sent.",
            AMBER,
        ),
        ({"pending": 9, "oldest_seconds": 60}, "9 events wait to be sent.", AMBER),
        ({"pending": 1, "oldest_seconds": 60}, "1 event waits to be sent.", AMBER),
        ({"pending": 9, "oldest_seconds": None}, "9 events wait to be sent.", AMBER),
        ({"skipped": 1}, "Everything to be sent is delivered; 1 was skipped.", GREEN),
        ({"skipped": 1_000}, "Nothing had to be sent; 1,000 were skipped.", GREEN),
        ({"skipped": 2, "discarded": 1}, "Everything kept is delivered; 1 was discarded.", AMBER),
        ({"skipped": 2, "dead": 1}, "1 event was refused for good.", RED),
        ({"dead": 1}, "1 event was refused for good.", RED),
        ({"dead": 2, "discarded": 5}, "2 events were refused for good.", RED),
    ],
)
def test_the_account_is_a_sentence(given: dict[str, Any], text: str, lamp: str) -> None:
    """Each state has its own; the worst that is the case decides the lamp."""
    usual = {"accepted": 1_000, "pending": 0, "dead": 0, "discarded": 0, "skipped": 0,
             "oldest_seconds": None, "sends": True}  # fmt: skip
    found = sentence(**{**usual, **given})
    assert (found.text, found.lamp) == (text, lamp)
