"""Canonical JSON as PROTOCOL version 1 defines it: the bytes that digests are made over."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# Cycles cannot reach this encoder: ``validation.check_json`` bounds the depth first.
_encoder = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
    check_circular=False,
)

GENESIS = "0" * 64
"""The chain value that stands before an outbox's first event."""


def encode(value: Any) -> str:
    """Return `value` as canonical JSON text.

    Keys sorted by code point, no white space, no escapes beyond those JSON requires, floats in
    their shortest round-trip form.

    Raises:
        ValueError: for NaN, Infinity or an integer too long for Python to print.
        TypeError: for a type that JSON does not have.
        RecursionError: for nesting that is too deep, a cycle included.
    """
    return _encoder.encode(value)


def envelope(
    event_id: str,
    type: str,
    timestamp_ms: int,
    agent_id: str | None,
    session_id: str | None,
    user_id: str | None,
    data: str,
) -> str:
    """Return an event's canonical JSON without ``seq``, ``digest`` and ``chain``.

    `data` is canonical JSON text already; it is joined in, not decoded and encoded again.
    """
    return (
        f'{{"agent_id":{_text(agent_id)},"data":{data},"event_id":{_text(event_id)},'
        f'"session_id":{_text(session_id)},"timestamp_ms":{timestamp_ms},"type":{_text(type)},'
        f'"user_id":{_text(user_id)}}}'
    )


def digest(envelope: str) -> str:
    """Return the SHA-256 of an envelope as 64 hex digits."""
    return hashlib.sha256(envelope.encode()).hexdigest()


def matches(digest: object, *columns: Any) -> bool:
    """Tell whether `envelope` of these columns has that digest; a damaged row may hold any type."""
    try:
        found = hashlib.sha256(envelope(*columns).encode()).hexdigest()
        return found == digest
    except (TypeError, ValueError):
        return False


def chain(previous: str, digest: str) -> str:
    """Return the chain value after `digest`: SHA-256 over ``previous ‖ digest`` as ASCII hex."""
    return hashlib.sha256((previous + digest).encode("ascii")).hexdigest()


def _text(value: str | None) -> str:
    return "null" if value is None else _encoder.encode(value)
