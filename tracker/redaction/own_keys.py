"""The package's own keys, which are masked in every form in which they may appear.

These are: plain, hexadecimal, percent-encoded, escaped as in JSON, Python or HTML, and in base64 of
any text that contains them, as in HTTP's basic authentication with ``user:key``. A key of fewer
than 8 characters could be any word and is not searched for.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from functools import cached_property

from tracker.redaction.rules import mask_of, rest_of

SHORTEST_KEY = 8
"""Length in bytes of the shortest key that is searched for."""
_NEWEST = 4
"""Maximum number of keys of other trackers in the process that are also searched for."""
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")
_ESCAPES = ("%", "\\", "&")
_RARE = "_+/=9876543210-"
"""Signs and digits of keys, the rarest in prose first."""


class OwnKey:
    """A key, and the texts that reveal it. Thread-safe."""

    def __init__(self, kind: str, key: bytes) -> None:
        self.kind = kind
        self.key = key
        texts = [key.hex(), key.hex().upper()]
        with suppress(UnicodeDecodeError):  # a chain key may be any bytes
            texts.insert(0, key.decode())
        self._plain = tuple(dict.fromkeys(texts))
        self._base64 = tuple(dict.fromkeys(_cores(key)))
        self.texts = self._plain + self._base64
        self._lowered = tuple(dict.fromkeys(each.lower() for each in self.texts))
        self._signs = _signs_of(self._lowered)

    @cached_property
    def _escaped(self) -> tuple[tuple[re.Pattern[str], bool], ...]:
        return tuple(
            (re.compile("".join(map(_any_form, text))), text in self._base64)
            for text in self.texts[:1] + self._base64
        )

    def found(self, text: str, lowered: str, rest: str) -> bool:
        """Return True if `text` may contain the key; given in lower case and as `rest_of`, too."""
        if self._signs is not None and self._signs.isdisjoint(rest):
            return False
        for each in self._lowered:
            if each in lowered:
                return True
        for escape in _ESCAPES:
            if escape in text:
                return any(pattern.search(text) for pattern, _ in self._escaped)
        return False

    def hide(self, text: str, counts: dict[str, int]) -> str:
        """Return `text` with masks for the key, and count them."""
        spans = [
            (match.start(), match.end(), False)
            for each in self._plain
            for match in re.finditer(re.escape(each), text)
        ]
        spans += [
            (match.start(), match.end(), True)
            for each in self._base64
            for match in re.finditer(re.escape(each), text)
        ]
        if any(escape in text for escape in _ESCAPES):
            spans += [
                (match.start(), match.end(), encoded)
                for pattern, encoded in self._escaped
                for match in pattern.finditer(text)
            ]
        pieces, end = [], 0
        for start, stop, encoded in sorted(spans):
            if encoded:  # the letters next to it contain the key's first and last bits
                while start > end and text[start - 1] in _BASE64:
                    start -= 1
                while stop < len(text) and text[stop] in _BASE64:
                    stop += 1
            if start >= end:
                counts[self.kind] = counts.get(self.kind, 0) + 1
                pieces += [text[end:start], mask_of("secret", self.kind, text[start:stop])]
            end = max(end, stop)
        return "".join([*pieces, text[end:]]) if pieces else text


def _signs_of(texts: tuple[str, ...]) -> frozenset[str] | None:
    """Return signs and digits of which a text has one if it contains any of `texts`, or escapes.

    None if there is one of `texts` without any: then only a search can tell.
    """
    signs = set(_ESCAPES)
    for text in texts:
        own = rest_of(text)
        if not own:
            return None
        if signs.isdisjoint(own):
            signs.add(min(own, key=lambda sign: (_RARE.find(sign) % len(_RARE), sign)))
    return frozenset(signs)


def _cores(key: bytes) -> list[str]:
    """Return the base64 forms of the key inside any text: three offsets, two alphabets."""
    cores = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + key + bytes(3))
        core = encoded[-(-before * 8 // 6) : (before + len(key)) * 8 // 6].decode()
        cores += [core, core.replace("+", "-").replace("/", "_")]
    return cores


def _any_form(letter: str) -> str:
    """Return a pattern for a character, escaped in any usual way or not."""
    code = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(letter):02x}")
    # The backslash first, since a key may contain backslashes.
    forms = [
        rf"\\{{1,4}}(?:u00{code}|x{code}|{re.escape(letter)})",
        f"%(?:25){{0,2}}{code}",
        f"&#(?:0{{0,4}}{ord(letter)}|[xX]0{{0,4}}{code});",
        *(f"&{name};" for name in _HTML.get(letter, ())),
        re.escape(letter),
    ]
    return f"(?:{'|'.join(forms)})" if ord(letter) < 128 else re.escape(letter)


_HTML = {"&": ("amp",), "<": ("lt",), ">": ("gt",), '"': ("quot",), "'": ("apos",)}

_newest: tuple[OwnKey, ...] = ()


def know(api_key: str, chain_key: str | bytes | None = None) -> tuple[OwnKey, ...]:
    """Return the keys to search for; from now on they are also searched for in log lines."""
    global _newest
    chain = chain_key.encode() if isinstance(chain_key, str) else chain_key
    given = (("tracker_key", api_key.encode()), ("chain_key", chain or b""))
    known = {each.key: each for each in _newest}
    mine = tuple(
        known.get(key) or OwnKey(kind, key) for kind, key in given if len(key) >= SHORTEST_KEY
    )
    _newest = (*mine, *(each for each in _newest if each not in mine))[:_NEWEST]
    return mine


def found(mine: tuple[OwnKey, ...], text: str, lowered: str, rest: str) -> list[OwnKey]:
    """Return which keys may stand in `text`; see `OwnKey.found` and `all_known`."""
    keys = _newest if _newest[: len(mine)] == mine else all_known(mine)
    return [each for each in keys if each.found(text, lowered, rest)]


def all_known(mine: tuple[OwnKey, ...] = ()) -> tuple[OwnKey, ...]:
    """Return `mine` and the newest others of the process, each once."""
    newest = _newest
    if newest[: len(mine)] == mine:  # the usual case: this is the newest tracker
        return newest
    return (*(each for each in mine if each not in newest), *newest)
