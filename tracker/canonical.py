"""Canonical JSON as PROTOCOL version 1 defines it: the bytes that digests are made over."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from json import encoder as _json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Cycles cannot reach this encoder: ``validation.check_json`` bounds the depth first.
_encoder = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
    check_circular=False,
)
_quoted: Callable[[str], str] = _json.encode_basestring


def _make_encode() -> Callable[[Any], str]:
    """Return what encodes a value: the encoder's C part made once, not for each value (x 0.7)."""
    make = getattr(_json, "c_make_encoder", None)
    if make is None:  # another Python than CPython
        return _encoder.encode
    parts = make(None, _encoder.default, _quoted, None, ":", ",", True, False, False)
    return lambda value: "".join(parts(value, 0))


_encode = _make_encode()

_sha256 = sha256()
"""Copied for each digest: OpenSSL looks its algorithms up anew for each one made (x 0.4)."""

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
    return _encode(value)


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
        f'{{"agent_id":{_text(agent_id)},"data":{data},"event_id":{_quoted(event_id)},'
        f'"session_id":{_text(session_id)},"timestamp_ms":{timestamp_ms},"type":{_quoted(type)},'
        f'"user_id":{_text(user_id)}}}'
    )


def digest(envelope: str) -> str:
    """Return the SHA-256 of an envelope as 64 hex digits."""
    return _hex_digest(envelope.encode())


def matches(digest: object, *columns: Any) -> bool:
    """Tell whether `envelope` of these columns has that digest; a damaged row may hold any type."""
    try:
        return _hex_digest(envelope(*columns).encode()) == digest
    except (TypeError, ValueError):
        return False


def chain(previous: str, digest: str, key: bytes | None = None) -> str:
    """Return the chain value after `digest`: SHA-256 over ``previous ‖ digest`` as ASCII hex.

    With a `key`, HMAC-SHA256 under it: nobody without the key can make, or check, such a value.
    """
    link = (previous + digest).encode("ascii")
    return _hex_digest(link) if key is None else hmac.digest(key, link, "sha256").hex()


def key_bytes(key: str | bytes | None) -> bytes | None:
    """Return a chain key as the bytes that it is used as: a text's are UTF-8."""
    return key.encode() if isinstance(key, str) else key


def key_check(key: bytes | None) -> int:
    """Return a number of 30 bits, not 0, that tells a chain key from others; 0 for none.

    It gives nothing away that the chain itself does not: a guess at the key can be tried on either.
    """
    if key is None:
        return 0
    return int.from_bytes(hmac.digest(key, b"tracker chain key", "sha256")[:4], "big") >> 2 or 1


def _hex_digest(text: bytes) -> str:
    hash_ = _sha256.copy()
    hash_.update(text)
    return hash_.hexdigest()


def _text(value: str | None) -> str:
    return "null" if value is None else _quoted(value)
