"""Ids of traces and spans that are made of the ids of events: what is sent again is the same span.

The client id is part of each, since some receivers keep the ids of all senders in one place.
"""

from __future__ import annotations

import hashlib

_TRACE, _SPAN = 16, 8
_NOBODYS = (bytes(_TRACE), bytes(_SPAN))


def _hashed(size: int, kind: str, *parts: str) -> str:
    """Return `size` bytes in hex of a SHA-256 over a kind and texts, each after its length."""
    state = hashlib.sha256(b"tracker/otel/1/" + kind.encode())
    for part in parts:
        text = part.encode()
        state.update(len(text).to_bytes(8, "big") + text)
    found = state.digest()[:size]
    return (bytes([1]) + found[1:] if found in _NOBODYS else found).hex()


def trace_of_turn(client_id: str, opener: str) -> str:
    """Return the trace of the turn that a message of the user opened, given the message's id."""
    return _hashed(_TRACE, "trace", client_id, opener)


def root_of_turn(client_id: str, opener: str) -> str:
    """Return the root span of that trace."""
    return _hashed(_SPAN, "turn", client_id, opener)


def trace_of_conversation(client_id: str, session_id: str) -> str:
    """Return the trace of what belongs to a conversation but to none of its turns."""
    return trace_of_turn(client_id, f"conversation:{session_id}")


def root_of_conversation(client_id: str, session_id: str) -> str:
    """Return the root span of that trace."""
    return root_of_turn(client_id, f"conversation:{session_id}")


def trace_of_event(client_id: str, event_id: str) -> str:
    """Return the trace of an event that belongs to no conversation."""
    return _hashed(_TRACE, "trace", client_id, event_id)


def span_of_event(client_id: str, event_id: str) -> str:
    """Return the span of an event."""
    return _hashed(_SPAN, "span", client_id, event_id)
