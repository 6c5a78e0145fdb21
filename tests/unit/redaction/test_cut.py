"""What may hold a secret is masked before it is cut, so that no part of the secret stays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stored import stored
from tracker.delivery.words import one_line
from tracker.redaction.uncut import ROOM, Uncut, cut
from tracker.trackers.capture import capture
from tracker.trackers.reporting import error_text

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "sk-proj-" + "aB3dE5gH" * 6
OWN = "trk-own+key/4711=xyz"


class Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


CUTS: dict[str, tuple[int, Callable[[str], Any]]] = {
    "a text": (1_000, lambda text: capture(text, 1_004)),
    "a text in a list": (1_000, lambda text: capture([text], 1_008)),
    "a repr": (1_000, lambda text: capture(Shown(text), 100_000)),
    "a set": (1_000, lambda text: capture({text}, 1_008)),
    "bytes": (200, lambda text: capture(text.encode(), 100_000)),
    "a key": (1_000, lambda text: capture({text: 1}, 1_008)),
    "an error": (10_000, lambda text: error_text(ValueError(text))),
    "an error with its type": (10_000, lambda text: error_text(ValueError(text), with_type=True)),
}


@pytest.mark.parametrize("secret", [KEY, OWN], ids=["a provider's", "our own"])
@pytest.mark.parametrize("what", CUTS)
def test_a_secret_across_the_cut_leaves_no_part(what: str, secret: str) -> None:
    """Wherever in it the cut is."""
    most, take = CUTS[what]
    for before in range(most - len(secret) - 20, most + 1):
        text = f"{'.' * (before - 1)} {secret} and more {'.' * 300}"
        kept = str(stored(take(text), redaction="secrets", api_key=OWN))
        assert secret[:6] not in kept, before
        assert len(kept) < most + 100


def test_a_servers_words_leave_no_part() -> None:
    """They become the reasons of dead letters, the status, and lines in the log."""
    for before in range(230, 301):
        text = f"{'.' * before} {KEY} and more"
        assert KEY[:6] not in one_line(text), before


def test_a_long_secret_across_the_cut_leaves_no_part() -> None:
    """A private key of some thousand characters."""
    block = "-----BEGIN PRIVATE KEY-----\n" + "aB3d/E5+" * 400 + "\n-----END PRIVATE KEY-----"
    kept = stored(capture(f"key: {block}" + "." * 9_000, 1_000), redaction="secrets")
    assert kept == "key: [secret:private_key:long]" + kept[30:]
    assert "aB3d" not in kept


def test_masks_are_counted_once_and_what_is_behind_the_cut_is_not_copied() -> None:
    """The own functions see the whole text once, not what a mask left of it."""
    seen: list[int] = []

    def count(text: str) -> str:
        seen.append(len(text))
        return text.replace("Anna", "[name]")

    kept = stored(capture("x" * 98 + "Anna" + "x" * 10**6, 104), redactors=[count])
    assert kept.startswith("x" * 98 + "[n… (1,000,102 characters)")
    assert seen[-1] < 100 + ROOM + 10


def test_a_text_that_fits_is_no_other() -> None:
    """Only what is too long waits for its cut."""
    assert type(cut("short", 5)) is str
    assert type(cut("longer", 5)) is Uncut
    assert stored(cut("longer", 5)) == "longe… (6 characters)"
    assert stored(cut("\ud800", 5)) == "\\ud800"


@pytest.mark.parametrize("piece", ["a", "%41", "sk-", "\\u0041", "trk-own", "&#65;", "://a:", "@"])
def test_a_text_of_ten_megabytes_is_cut_in_bounded_time(piece: str) -> None:
    """What is masked in front of a cut has a bound."""
    text = piece * (10_000_000 // len(piece))
    began = time.thread_time()
    stored(capture(text, 40_000), redaction="secrets", api_key=OWN)
    assert time.thread_time() - began < 2
