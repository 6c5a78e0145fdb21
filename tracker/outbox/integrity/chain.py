"""Which links of a hash chain hold, and which cannot be checked because their key is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from tracker import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HOLDS = "holds"
_FAILS = "fails"
_WITHOUT_KEY = "without the key in use"
_BEFORE_KEY = "without a key"
_OTHER_KEY = "under another key"
_SALVAGED = "out of a damaged outbox"

_PROBLEMS = {
    _FAILS: ("does not follow from the one before", "do not follow from those before"),
    _WITHOUT_KEY: ("was chained without the key in use", "were chained without the key in use"),
}
"""The wording for one event, and for several."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        seq: The event, or None if the problem concerns the outbox as a whole.
        kind: ``"digest"``, ``"erasure"``, ``"chain"``, ``"gap"``, ``"times"``, ``"account"`` or
            ``"file"``; ``"collector"`` or ``"copy"`` from a comparison with the collector;
            ``"manifest"`` in an exported file.
        message: A description for people.
    """

    seq: int | None
    kind: str
    message: str


@dataclass(frozen=True)
class Unproven:
    """Events without a problem whose place in the chain was not proven.

    Attributes:
        first_seq: The first of them.
        last_seq: The last of them.
        reason: Why not, for people.
    """

    first_seq: int
    last_seq: int
    reason: str


def is_seq(value: object) -> TypeGuard[int]:
    """Return True if a value from outside is a valid seq: SQLite's integers have 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


class KeyMemory(NamedTuple):
    """What an outbox remembers about chain keys.

    Attributes:
        check: `canonical.key_check` of the key that was last in use; 0 for none.
        from_start: Whether there was a key from the first event on.
    """

    check: int = 0
    from_start: bool = False


class Links:
    """Checks links in seq order and groups consecutive events with the same outcome.

    A chain may have begun without a key, so each link is tried with the keys, and then without one.
    A link without a key after links with one is a problem: a process that has the key makes no such
    link.

    Args:
        keys: The known chain keys: the current one, and perhaps former ones.
        memory: What the outbox remembers. If its key is not among the `keys`, a link that does not
            hold may have been made with that key; if there was a key from the start, no link may be
            without one.

    Attributes:
        unproven: The events whose links could not be checked, in order.
    """

    def __init__(self, keys: Sequence[bytes], memory: KeyMemory) -> None:
        self._keys = tuple(keys)
        self._other_key = memory.check not in (0, *map(canonical.key_check, self._keys))
        self._keyed = memory.from_start
        self._outcome = _HOLDS
        self._run: list[tuple[int, str]] = []  # its first event and, if there are more, its last
        self.unproven: list[Unproven] = []

    def check(
        self, seq: int, event_id: str, previous: Any, digest: Any, chain: Any
    ) -> Iterator[Problem]:
        """Check an event's link to the chain value before it. Values may be of any type."""
        outcome = self._judge(previous, digest, chain)
        if outcome != self._outcome or (self._run and self._run[-1][0] + 1 != seq):
            yield from self.end()
            self._outcome = outcome
        self._run = [*self._run[:1], (seq, event_id)]

    def end(self) -> Iterator[Problem]:
        """Report the last group of events with the same outcome."""
        run, self._run = self._run, []
        if not run:
            return
        (first, event_id), (last, _) = run[0], run[-1]
        if self._outcome in _PROBLEMS:
            of_one, of_several = _PROBLEMS[self._outcome]
            said = f"event {event_id} {of_one}"
            if last > first:
                said = f"events {first} to {last} {of_several}"
            yield Problem(first, "chain", said)
        elif self._outcome == _BEFORE_KEY:
            self.unproven.append(Unproven(first, last, "chained without a key"))
        elif self._outcome == _SALVAGED:
            reason = "carried over from a damaged outbox, whose chain did not prove them"
            self.unproven.append(Unproven(first, last, reason))
        elif self._outcome == _OTHER_KEY:
            given = "another key than the one given" if self._keys else "a key, and none is given"
            self.unproven.append(Unproven(first, last, f"chained under {given}"))

    def _judge(self, previous: Any, digest: Any, chain: Any) -> str:
        if not all(isinstance(value, str) for value in (previous, digest, chain)):
            return _FAILS
        try:
            if any(canonical.chain(previous, digest, key) == chain for key in self._keys):
                self._keyed = True
                return _HOLDS
            if any(canonical.unproven_chain(previous, digest, k) == chain for k in self._keys):
                self._keyed = True
                return _SALVAGED
            if canonical.chain(previous, digest) == chain:
                if self._keyed:
                    return _WITHOUT_KEY
                return _BEFORE_KEY if self._keys else _HOLDS
        except ValueError:  # not ASCII
            return _FAILS
        return _OTHER_KEY if self._other_key else _FAILS
