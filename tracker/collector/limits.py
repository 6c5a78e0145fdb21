"""Limits of what one client can send: body, decompressed body, request rate."""

from __future__ import annotations

import asyncio
import threading
import zlib
from typing import TYPE_CHECKING

from tracker.clock import monotonic
from tracker.collector.refusal import RefusedError, invalid_request, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_GZIP = 16 + zlib.MAX_WBITS
# Output of one step of decompression: large enough to be fast, small compared to the limit.
_STEP = 256 * 1024
# A body of a million empty members would take far more time than its size suggests.
_MAX_MEMBERS = 100


def check_content_length(header: str | None, limit: int) -> None:
    """Refuse a body whose announced size exceeds `limit` bytes, before it is read.

    Raises:
        RefusedError: 413 if it is too large, 400 if the header is not a number.
    """
    if header is None:
        return
    if not (header.isascii() and header.isdigit()):
        raise invalid_request("Content-Length is not a number.")
    # Python does not parse numbers of thousands of digits, which all exceed the limit.
    if len(header) > 20 or int(header) > limit:
        raise too_large(f"The body is larger than {limit:,} bytes.")


async def read_body(
    chunks: AsyncIterator[bytes], limit: int, idle_seconds: float, seconds: float
) -> bytes:
    """Return the whole body, with at most `limit` bytes and one chunk of it in memory.

    Raises:
        RefusedError: 413 if it exceeds `limit`; 408 if nothing arrived for `idle_seconds` or it is
            not complete after `seconds`, so that no client can hold a connection forever.
    """
    body = bytearray()
    end = monotonic() + seconds
    while True:
        left = end - monotonic()
        if left <= 0:
            raise RefusedError(408, "request_timeout", f"The body took more than {seconds:g} s.")
        try:
            chunk = await asyncio.wait_for(anext(chunks), min(idle_seconds, left))
        except StopAsyncIteration:
            return bytes(body)
        except asyncio.TimeoutError:
            raise RefusedError(
                408,
                "request_timeout",
                f"No part of the body arrived for {min(idle_seconds, left):g} s.",
            ) from None
        body += chunk
        if len(body) > limit:
            raise too_large(f"The body is larger than {limit:,} bytes.")


def check_encoding(header: str | None) -> str:
    """Return ``gzip`` or ``identity`` for a Content-Encoding header.

    Raises:
        RefusedError: 415 for any other encoding.
    """
    encoding = (header or "identity").strip().lower()
    if encoding in ("gzip", "x-gzip"):
        return "gzip"
    if encoding in ("identity", ""):
        return "identity"
    raise RefusedError(415, "unsupported_encoding", "Content-Encoding must be gzip or identity.")


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Return `body` without its ``gzip`` or ``identity`` encoding, at most `limit` bytes.

    A small body that decompresses to gigabytes takes at most `limit` and one step of memory.

    Raises:
        RefusedError: 413 if it exceeds `limit`, 400 for damaged or truncated gzip.
    """
    if encoding == "identity":
        if len(body) > limit:
            raise too_large(f"The body is larger than {limit:,} bytes.")
        return body
    return _gunzip(body, limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    decoded = bytearray()
    rest = body
    for _ in range(_MAX_MEMBERS):
        rest = _unpack_member(rest, decoded, limit)
        if not rest:
            return bytes(decoded)
    # Not 400, after which a client discards events.
    raise RefusedError(
        415, "unsupported_encoding", f"The gzip body has more than {_MAX_MEMBERS:,} members."
    )


def _unpack_member(rest: bytes, decoded: bytearray, limit: int) -> bytes:
    """Append the content of the first gzip member of `rest`; return what follows it."""
    member = zlib.decompressobj(_GZIP)
    while not member.eof:
        try:
            piece = member.decompress(rest, _STEP)
        except zlib.error as error:
            raise invalid_request("The body is not valid gzip.") from error
        rest = member.unconsumed_tail
        if not (piece or rest or member.eof):
            raise invalid_request("The gzip body is truncated.")
        decoded += piece
        if len(decoded) > limit:
            raise too_large(f"The body is larger than {limit:,} bytes when decompressed.")
    return member.unused_data


class RateLimiter:
    """One token bucket per API key.

    A bucket holds the requests of one minute and refills evenly, so that a client that was offline
    can catch up in a burst. Owns its lock; thread-safe. Buckets exist only for valid keys, so
    callers cannot make their number grow.

    Args:
        per_minute: Requests per minute and key, 1 or more.
        clock: Returns seconds that never go back.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = monotonic) -> None:
        if per_minute < 1:
            raise ValueError(f"per_minute is {per_minute}; give 1 or more")
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[int, tuple[float, float]] = {}  # key id -> tokens, time counted

    def take(self, key_id: int) -> float:
        """Take one token and return 0.0, or return the seconds until there is one."""
        with self._lock:
            now = self._clock()
            tokens, counted_at = self._buckets.get(key_id, (self._capacity, now))
            tokens = min(self._capacity, tokens + (now - counted_at) * self._per_second)
            if tokens < 1:
                self._buckets[key_id] = (tokens, now)
                return (1 - tokens) / self._per_second
            self._buckets[key_id] = (tokens - 1, now)
            return 0.0
