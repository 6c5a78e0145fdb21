"""`one_line`: a server's words, as they may be stored, logged and shown."""

from __future__ import annotations

from tracker.redaction.lines import clean
from tracker.redaction.uncut import ROOM, cut

_MOST_TEXT = 300
"""Maximum number of characters kept of a server's message."""


def one_line(words: object) -> str:
    """Return a server's message as one printable line of limited length.

    SQLite cannot store lone surrogates, and a log should not contain escape sequences. The API key,
    passwords and other secrets are masked before the line is truncated.
    """
    text = "".join(
        letter if letter.isprintable() else " " for letter in str(words)[: _MOST_TEXT + ROOM]
    )
    return clean(cut(text, _MOST_TEXT, mark="…"))
