"""Ids for what arrives without an outbox: the same for the same, however often it is sent."""

from __future__ import annotations

import hashlib
import uuid

_VARIANT = 0b10 << 62
_NOT_FIXED = (1 << 128) - 1 - (0xF << 76) - (0b11 << 62)
_RANDOM_BYTES = 10


def outbox_id_of(client_id: str) -> str:
    """Return the id of the virtual outbox for all that comes from a client without an outbox."""
    return _uuid(8, int.from_bytes(_hash("outbox", client_id)[:16], "big"))


def event_id_of(time_ms: int, kind: str, *parts: str) -> str:
    """Return a UUIDv7 that is the same for the same arguments.

    Args:
        time_ms: Its time, Unix milliseconds.
        kind: What the parts are.
        parts: What all its other bits are made of.
    """
    rest = int.from_bytes(_hash(kind, *parts)[:_RANDOM_BYTES], "big")
    return _uuid(7, (time_ms << 8 * _RANDOM_BYTES) | rest)


def _hash(kind: str, *parts: str) -> bytes:
    """Return the SHA-256 of what is told apart by lengths, so no two lists have the same bytes."""
    state = hashlib.sha256(b"tracker/otel/received/1/" + kind.encode())
    for part in parts:
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "big") + encoded)
    return state.digest()


def _uuid(version: int, bits: int) -> str:
    return str(uuid.UUID(int=bits & _NOT_FIXED | version << 76 | _VARIANT))
