"""`Rule`: one kind of text to mask, with cheap tests that it is absent.

A mask is ``[label:kind:length]``, such as ``[secret:openai_key:medium]``. The length tells a whole
key from a few characters of one: fewer than 16 characters are ``short``, 64 or more are ``long``,
and others are ``medium``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Rule(NamedTuple):
    """One kind of secret or of personal data.

    Attributes:
        kind: Its name, such as ``openai_key``.
        pattern: Finds it; the group ``secret`` is masked, the rest of the match is kept. It is
            bounded and has no two ways to match the same text, so it takes linear time.
        check: An additional test of the text to mask.
        anchors: Texts of which one occurs in every match; an empty one always does.
        context: Words of which one, in upper or lower case, must occur in the event.
        keyed: Whether it also applies to a value under a key, as in ``{"secret_key": "…"}``.
    """

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    anchors: tuple[str, ...] = ("",)
    context: tuple[str, ...] = ()
    keyed: bool = False


class Gate(NamedTuple):
    """Rules that can match only if `trigger` is among the text's capitals, digits and signs."""

    trigger: str
    rules: tuple[Rule, ...]
    pattern: re.Pattern[str] | None = None
    """Another text that must occur, if the trigger alone is common."""


MASK = re.compile(
    r"\[(?:(?P<label>secret|pii):(?P<kind>[a-z0-9_]+):(?:short|medium|long)|secret:\w{1,80})\]"
)
"""A mask, as `mask_of` makes it, or `tracker.redaction.names.mask_named`."""
_MEDIUM, _LONG = 16, 64
"""Lengths from which a mask says ``medium`` and ``long``."""

# The characters of prose. The rest of a text is short, and quickly searched for many triggers.
_PROSE = b"abcdefghijklmnopqrstuvwxyz \t\r\n.,;!?'\"()" + bytes(range(128, 256))


def rest_of(text: str) -> str:
    """Return the capitals, digits and signs of a text: those ASCII characters that prose lacks."""
    return text.encode(errors="replace").translate(None, _PROSE).decode("ascii")


class Gates:
    """The rules for one label, in their order of precedence.

    Args:
        gates: The rules, with the triggers that quickly exclude most texts.
    """

    def __init__(self, *gates: Gate) -> None:
        self._gates = gates
        self._firsts = frozenset(gate.trigger[0] for gate in gates if gate.trigger)
        self._by_firsts: dict[frozenset[str], tuple[Gate, ...]] = {}
        self.kinds = frozenset(rule.kind for gate in gates for rule in gate.rules)

    def candidates(self, text: str, lowered: str, rest: str) -> list[Rule]:
        """Return the rules that may match in `text`; usually none.

        The text is given in lower case and as its `rest_of`, too.
        """
        # Loops, not generators: this runs for every event.
        found: list[Rule] = []
        tried: list[Rule] = []  # some stand behind several gates
        firsts = self._firsts.intersection(rest)
        for trigger, rules, pattern in self._by_firsts.get(firsts) or self._select(firsts):
            if trigger in rest and (pattern is None or pattern.search(text)):
                for rule in rules:
                    for anchor in rule.anchors:
                        if anchor in text:
                            if rule not in tried and _holds(rule, text, lowered):
                                found.append(rule)
                            tried.append(rule)
                            break
        return found

    def _select(self, firsts: frozenset[str]) -> tuple[Gate, ...]:
        """Return the gates whose triggers begin with one of `firsts`, or are empty."""
        gates = tuple(gate for gate in self._gates if gate.trigger[:1] in firsts | {""})
        self._by_firsts[firsts] = gates
        return gates


def _holds(rule: Rule, text: str, lowered: str) -> bool:
    # The words first: looking for them takes less time than most patterns. A loop, as above.
    for word in rule.context:
        if word in lowered:
            break
    else:
        if rule.context:
            return False
    return rule.pattern.search(text) is not None


def mask_of(label: str, kind: str, text: str) -> str:
    """Return the mask of `text`."""
    length = "short" if len(text) < _MEDIUM else "medium" if len(text) < _LONG else "long"
    return f"[{label}:{kind}:{length}]"


def mask(rules: Collection[Rule], label: str, text: str, counts: dict[str, int]) -> str:
    """Return `text` with masks for the matches of the rules, and count them by kind."""
    for rule in rules:
        text = _mask_one(rule, label, text, counts)
    return text


def _mask_one(rule: Rule, label: str, text: str, counts: dict[str, int]) -> str:
    pieces, end = [], 0
    for match in rule.pattern.finditer(text):
        secret = match["secret"]
        if "[secret:" not in secret and rule.check(secret):
            counts[rule.kind] = counts.get(rule.kind, 0) + 1
            pieces += [text[end : match.start("secret")], mask_of(label, rule.kind, secret)]
            end = match.end("secret")
    return "".join([*pieces, text[end:]]) if pieces else text
