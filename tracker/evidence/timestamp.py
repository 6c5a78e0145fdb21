"""Time stamps of RFC 3161: the request for one, and a first look at the reply.

The reply of the authority is kept as it is; `verifier.stamped_at` checks it
by openssl against the authority's certificate.
"""

from __future__ import annotations

import hashlib
import secrets

REQUEST_TYPE, REPLY_TYPE = "application/timestamp-query", "application/timestamp-reply"
"""Media types of request and reply when they are sent over HTTP."""
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_SHA256 = bytes.fromhex("300d06096086480165030402010500")  # AlgorithmIdentifier, no parameters
_CERTIFICATE_WANTED = bytes.fromhex("0101ff")
_VERSION_1 = bytes.fromhex("020101")


class TimestampError(Exception):
    """The reply is not a time stamp over the data; the message says why."""


def request(data: bytes) -> bytes:
    """Return a request for a time stamp over data, of which only the SHA-256 is sent."""
    imprint = _der(_SEQUENCE, _SHA256 + _der(_OCTETS, hashlib.sha256(data).digest()))
    nonce = _der(_INTEGER, b"\1" + secrets.token_bytes(8))  # the first byte keeps it positive
    return _der(_SEQUENCE, _VERSION_1 + imprint + nonce + _CERTIFICATE_WANTED)


def look_at(reply: bytes, data: bytes) -> None:
    """Refuse a reply that is an error, was cut off, or is about other data.

    Its signature is not checked here.

    Raises:
        TimestampError: if it is such a reply.
    """
    content, rest = _open(reply, _SEQUENCE)
    status, _ = _open(content, _SEQUENCE)
    granted, _ = _open(status, _INTEGER)
    if rest:
        raise TimestampError("something follows the reply of the time stamp authority")
    if granted not in (b"\0", b"\1"):
        number = int.from_bytes(granted, "big")
        raise TimestampError(f"the time stamp authority refused the request (status {number})")
    if _der(_OCTETS, hashlib.sha256(data).digest()) not in content:
        raise TimestampError("the reply of the time stamp authority is about other data")


def _der(tag: int, content: bytes) -> bytes:
    """Return an element of DER with fewer than 128 bytes of content."""
    return bytes([tag, len(content)]) + content


def _open(raw: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the first element of DER, and what follows it."""
    start, length = 2, raw[1] if len(raw) > 1 else 0
    if length > 0x80:
        start += length - 0x80
        length = int.from_bytes(raw[2:start], "big")
    if raw[:1] != bytes([tag]) or len(raw) < start + length:
        raise TimestampError("this is not the reply of a time stamp authority")
    return raw[start : start + length], raw[start + length :]
