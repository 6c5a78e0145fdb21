r"""The filter ``shown``: text of an event, as no browser can take it for anything else.

Characters that control something or turn the direction of text are replaced by their code points,
because a name could otherwise look like another one.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# Every character of the categories Cc, Cf, Cs, Zl and Zp but tab, line feed, and the two joiners,
# without which emoji and some scripts fall apart.
_UNSEEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u180e"
    "\u200b\u200e-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f])"
)
UNKNOWN = "\N{EN DASH}"
"""What stands for None."""
_POINT = Markup('<span class="code-point">U+{:04X}</span>')
_APART = Markup("<bdi>{}</bdi>")


def shown(value: object) -> Markup:
    """Return a value of an event as markup: escaped, with code points, and its own direction."""
    pieces = _UNSEEN.split(_text(value))
    told = (
        _POINT.format(ord(piece)) if place % 2 else escape(piece)
        for place, piece in enumerate(pieces)
    )
    return _APART.format(Markup("").join(told))


def visible(value: object) -> str:
    """Return a value of an event as plain text with code points, for attributes."""
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", _text(value))


def finalized(value: object) -> object:
    """Return what a template writes for a value: a dash for None, code points in any other text.

    Markup is not changed: it was made by `shown`, by a macro or by a chart.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def clipped(value: object, most: int = 160) -> str:
    """Return the beginning of a text in one line."""
    line = " ".join(str(value)[: 4 * most].split(" ")).replace("\n", " ").strip()
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _text(value: object) -> str:
    return str(value).replace("\r\n", "\n")
