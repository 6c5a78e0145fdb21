"""What goes into a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker.evidence.verifier import Key

USER, DATA = "user", "data"
"""The parts of an event that can be withheld."""


@dataclass(frozen=True)
class Head:
    """A signed head of the tree.

    Attributes:
        note: The checkpoint, with all signatures and cosignatures.
        timestamp: An RFC 3161 reply over the note's bytes, if there is one.
    """

    note: str
    timestamp: bytes | None = None


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        head: The head under which everything is proved.
        selection: What the events have in common: of `session`, `seqs` or `period`.
        events: The events selected, as the protocol sends them, in order of seq.
        removals: Further events that explain others: those of erasures, of discarded ranges and of
            key changes, in order of seq.
        complete: Whether every number between the first and the last event is to be there, if only
            as a digest.
        withhold: Parts of the events that are not shown: `USER`, `DATA`.
        older: Earlier heads, which show that events existed earlier.
        keys: Public keys, for information; who checks gets them elsewhere.
    """

    head: Head
    selection: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    removals: Sequence[Mapping[str, Any]] = ()
    complete: bool = False
    withhold: frozenset[str] = frozenset()
    older: Sequence[Head] = ()
    keys: Sequence[Key] = ()


def session(session_id: str) -> dict[str, Any]:
    """Return the selection of a session's events."""
    return {"session_id": session_id}


def seqs(first: int, last: int) -> dict[str, Any]:
    """Return the selection of the events from one seq to another, both included."""
    return {"first_seq": first, "last_seq": last}


def period(since_ms: int | None, until_ms: int | None) -> dict[str, Any]:
    """Return the selection of a period in Unix milliseconds; its end is not included."""
    return {"since_ms": since_ms, "until_ms": until_ms}
