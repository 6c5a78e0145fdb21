"""Canonical JSON as defined by version 1 of the protocol: the bytes that digests are made of."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from json import encoder as _json
from typing import TYPE_CHECKING, Any, Protocol

from tracker.forks import Stage, in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Cycles cannot reach this encoder: ``validation.check_json`` limits the depth first.
_encoder = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
    check_circular=False,
)
_quoted: Callable[[str], str] = _json.encode_basestring


def _make_encode() -> Callable[[Any, int], Iterable[str]]:
    """Return the encoder's C part, made once and not for each value; that saves 30 %."""
    make = getattr(_json, "c_make_encoder", None)
    if make is None:  # not CPython
        return lambda value, _: (_encoder.encode(value),)
    parts: Callable[[Any, int], Iterable[str]] = make(
        None, _encoder.default, _quoted, None, ":", ",", True, False, False
    )
    return parts


_encode = _make_encode()

try:
    from _sha2 import sha256 as _own_sha256  # type: ignore[import-not-found]  # since Python 3.12
except ImportError:
    try:
        from _sha256 import sha256 as _own_sha256  # type: ignore[import-not-found]  # before
    except ImportError:  # a Python without an implementation of its own
        _own_sha256 = hashlib.sha256


class _Hash(Protocol):
    def hexdigest(self) -> str: ...


_sha256: Callable[[bytes], _Hash] = hashlib.sha256


def _hmac_sha256(key: bytes, message: bytes) -> bytes:
    if _sha256 is hashlib.sha256:
        return hmac.digest(key, message, "sha256")
    return hmac.new(key, message, _own_sha256).digest()


def _hash_without_locks() -> None:
    """Use Python's own SHA-256 from now on, in a forked child; a call then takes 6 % longer.

    OpenSSL's takes locks. Another thread of the parent may have held one at the fork, for instance
    in a TLS handshake, and nothing in the child releases it: the next call would hang.
    """
    global _sha256
    _sha256 = _own_sha256


in_child(Stage.HASHES, _hash_without_locks)

GENESIS = "0" * 64
"""The chain value before the first event of an outbox."""


def encode(value: Any) -> str:
    """Return `value` as canonical JSON text.

    Keys are sorted by code point; there is no white space and no escape that JSON does not
    require; floats have their shortest round-trip form.

    Raises:
        ValueError: for NaN, Infinity or an integer too long for Python to print.
        TypeError: for a type that JSON does not have.
        RecursionError: for nesting that is too deep, a cycle included.
    """
    return "".join(_encode(value, 0))


def decode(text: str | bytes) -> Any:
    """Return the value of JSON text, canonical or not.

    The value can be written as JSON again: a number beyond the range of a float, which `json`
    would turn into infinity, is refused like any text that is not JSON.

    Raises:
        ValueError: if it is not JSON, not text, nested too deeply, or has integers of thousands of
            digits.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


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

    `data` must be canonical JSON text; it is inserted as it is, not decoded and encoded again.
    """
    agent = "null" if agent_id is None else _quoted(agent_id)
    session = "null" if session_id is None else _quoted(session_id)
    user = "null" if user_id is None else _quoted(user_id)
    return (
        f'{{"agent_id":{agent},"data":{data},"event_id":{_quoted(event_id)},'
        f'"session_id":{session},"timestamp_ms":{timestamp_ms},"type":{_quoted(type)},'
        f'"user_id":{user}}}'
    )


def digest(envelope: str) -> str:
    """Return the SHA-256 of an envelope as 64 hex digits."""
    return _sha256(envelope.encode()).hexdigest()


def matches(digest: object, *columns: Any) -> bool:
    """Return True if the envelope of these columns has that digest; they may be of any type."""
    try:
        return _sha256(envelope(*columns).encode()).hexdigest() == digest
    except (TypeError, ValueError):
        return False


def chain(previous: str, digest: str, key: bytes | None = None) -> str:
    """Return the chain value after `digest`: SHA-256 over ``previous ‖ digest`` as ASCII hex.

    With a `key`, HMAC-SHA256: nobody without the key can compute or check such a value.
    """
    link = (previous + digest).encode("ascii")
    return _sha256(link).hexdigest() if key is None else _hmac_sha256(key, link).hex()


def unproven_chain(previous: str, digest: str, key: bytes) -> str:
    """Return the chain value after an event that came out of a damaged outbox unproven.

    Such a value differs from that of a proven event: the key proves the event's position, not its
    content.
    """
    link = (previous + digest + "unproven").encode("ascii")
    return hmac.digest(key, link, "sha256").hex()


def proof(key: bytes, *said: str | int) -> str:
    """Return the HMAC-SHA256 of a statement: only somebody with the key can make or check it.

    It covers the canonical JSON of the list, so no two statements have the same bytes, and none has
    those of a link.

    Raises:
        TypeError, ValueError: for values that JSON or UTF-8 cannot represent.
    """
    return _hmac_sha256(key, encode(said).encode()).hex()


def key_bytes(key: str | bytes | None) -> bytes | None:
    """Return a chain key as bytes; text is encoded as UTF-8."""
    return key.encode() if isinstance(key, str) else key


def key_check(key: bytes | None) -> int:
    """Return a number of 30 bits, not 0, that distinguishes a chain key from others; 0 for None.

    It reveals no more than the chain itself does: a guess at the key can be tried on either.
    """
    if key is None:
        return 0
    return int.from_bytes(hmac.digest(key, b"tracker chain key", "sha256")[:4], "big") >> 2 or 1
