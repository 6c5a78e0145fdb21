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
    def digest(self) -> bytes: ...
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

ERASED = '{"erased":true}'
"""The `data` of an erased event, as canonical JSON text."""

SALT_BYTES = 16
_SEALED_BYTES = 64


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
    """Return the canonical JSON that the digest of an event without a salt is made over.

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


def head(
    event_id: str,
    type: str,
    timestamp_ms: int,
    agent_id: str | None,
    session_id: str | None,
    context: str | None = None,
    trace: str | None = None,
) -> str:
    """Return the canonical JSON of what stays of an event after an erasure.

    `context` and `trace` must be canonical JSON text.
    """
    agent = "null" if agent_id is None else _quoted(agent_id)
    session = "null" if session_id is None else _quoted(session_id)
    around = "" if context is None else f'"context":{context},'
    traced = "" if trace is None else f'"trace":{trace},'
    return (
        f'{{"agent_id":{agent},{around}"event_id":{_quoted(event_id)},"session_id":{session},'
        f'"timestamp_ms":{timestamp_ms},{traced}"type":{_quoted(type)}}}'
    )


def whole(head: str, user_id: str | None, data: str) -> str:
    """Return the JSON of an event from its `head`, without ``seq``, ``digest``, ``chain`` and salt.

    It has as many bytes as its canonical JSON.
    """
    user = "null" if user_id is None else _quoted(user_id)
    return f'{head[:-1]},"data":{data},"user_id":{user}}}'


def seal(user_id: str | None, data: str, salt: bytes) -> bytes:
    """Return the commitments to an event's user and data, 32 bytes each, which hide both.

    With the `salt` of 16 random bytes they can be checked; without it, not even a guess at the
    content can be tried.
    """
    halves = _sha256(salt).digest()
    user = b"\0" if user_id is None else b"\1" + user_id.encode()
    return (
        _sha256(b"s" + halves[:16] + user).digest()
        + _sha256(b"d" + halves[16:] + data.encode()).digest()
    )


def salted_digest(head: str, sealed: bytes) -> str:
    """Return the digest of an event, 64 hex digits, from its `head` and what `seal` returns."""
    return _sha256(b"tracker/2\0" + _sha256(head.encode()).digest() + sealed).hexdigest()


def digest(envelope: str) -> str:
    """Return the SHA-256 of an envelope: the digest of an event without a salt."""
    return _sha256(envelope.encode()).hexdigest()


def digest_of(
    event_id: str,
    type: str,
    timestamp_ms: int,
    agent_id: str | None,
    session_id: str | None,
    user_id: str | None,
    data: str,
    _digest: object = None,
    context: str | None = None,
    trace: str | None = None,
    salt: bytes | None = None,
    sealed: bytes | None = None,
) -> str:
    """Return the digest of an event, from its fields in the order of `Event`.

    What is left of an erased event has its digest too, if it was stored with a salt: its `sealed`
    then stands for user and data.

    Raises:
        ValueError, TypeError, AttributeError: if no event can have these fields.
    """
    if salt is None and sealed is None:
        if not (context is trace is None):
            raise ValueError("a digest without a salt covers neither context nor trace")
        return digest(envelope(event_id, type, timestamp_ms, agent_id, session_id, user_id, data))
    if salt is None:
        assert sealed is not None  # noqa: S101 - for mypy
        if user_id is not None or data != ERASED or len(sealed) != _SEALED_BYTES:
            raise ValueError("an erased event has no user and no data, and two commitments")
    else:
        if sealed is not None or len(salt) != SALT_BYTES:
            raise ValueError("an event with a salt of another length, or one erased and not erased")
        sealed = seal(user_id, data, salt)
    of_all = head(event_id, type, timestamp_ms, agent_id, session_id, context, trace)
    return salted_digest(of_all, sealed)


def matches(*fields: Any) -> bool:
    """Return True if an event's fields, in the order of `Event` and of any type, have its digest.

    The digest is the eighth of them.
    """
    try:
        return bool(digest_of(*fields) == fields[7])
    except (TypeError, ValueError, AttributeError):
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
