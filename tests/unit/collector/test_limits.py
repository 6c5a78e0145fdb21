"""What the collector lets a client make it hold, and how often."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest

from tracker.collector.limits import (
    RateLimiter,
    check_content_length,
    check_encoding,
    decode_body,
    read_body,
)
from tracker.collector.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Chunks:
    """A request body in pieces, counting how many were taken."""

    def __init__(self, *chunks: bytes, silent: bool = False) -> None:
        self._chunks = chunks
        self._silent = silent
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += 1
            yield chunk
        if self._silent:
            await asyncio.sleep(60)


def read(chunks: Chunks, limit: int, idle_seconds: float = 5.0, seconds: float = 5.0) -> bytes:
    return asyncio.run(read_body(aiter(chunks), limit, idle_seconds, seconds))


def test_a_body_up_to_the_limit_is_read_whole() -> None:
    """The limit itself is allowed."""
    assert read(Chunks(b"ab", b"", b"cd"), 4) == b"abcd"


def test_reading_stops_at_the_limit() -> None:
    """What comes after the chunk that went too far is never taken."""
    chunks = Chunks(b"ab", b"cd", b"ef", b"gh")
    with pytest.raises(RefusedError) as caught:
        read(chunks, 3)
    assert (caught.value.status, caught.value.code) == (413, "too_large")
    assert chunks.taken == 2


def test_a_silent_client_is_not_waited_for() -> None:
    """A peer that vanished within the body does not hold memory for ever."""
    with pytest.raises(RefusedError) as caught:
        read(Chunks(b"ab", silent=True), 10, idle_seconds=0.01)
    assert caught.value.status == 408


def test_a_client_that_drips_is_not_waited_for_either() -> None:
    """A byte now and then would otherwise hold the connection for ever."""
    with pytest.raises(RefusedError) as caught:
        read(Chunks(b"ab", silent=True), 10, seconds=0.01)
    assert caught.value.status == 408


@pytest.mark.parametrize("header", [None, "0", "100"])
def test_a_content_length_within_the_limit_passes(header: str | None) -> None:
    """A missing one too: the body is counted anyway."""
    check_content_length(header, 100)


@pytest.mark.parametrize(
    ("header", "status"), [("101", 413), ("9" * 5000, 413), ("-1", 400), ("x", 400), ("²", 400)]
)
def test_a_content_length_beyond_the_limit_is_refused(header: str, status: int) -> None:
    """Without reading a byte, and whatever the header holds."""
    with pytest.raises(RefusedError) as caught:
        check_content_length(header, 100)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("Identity", "identity"),
        ("gzip", "gzip"),
        (" GZIP", "gzip"),
        ("x-gzip", "gzip"),
    ],
)
def test_gzip_and_identity_are_understood(header: str | None, encoding: str) -> None:
    """In whatever case they are written."""
    assert check_encoding(header) == encoding


@pytest.mark.parametrize("header", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encodings_are_refused_with_415(header: str) -> None:
    """Not with 400, on which clients give events up."""
    with pytest.raises(RefusedError) as caught:
        check_encoding(header)
    assert caught.value.status == 415


def test_gzip_is_undone_up_to_the_limit() -> None:
    """The limit itself is allowed; one byte more is not."""
    text = b"x" * 600_000
    assert decode_body(gzip.compress(text), "gzip", 600_000) == text
    with pytest.raises(RefusedError) as caught:
        decode_body(gzip.compress(text), "gzip", 599_999)
    assert caught.value.status == 413


def test_an_identity_body_is_bound_by_the_same_limit() -> None:
    """Compression buys no room, and neither does leaving it out."""
    assert decode_body(b"abcd", "identity", 4) == b"abcd"
    with pytest.raises(RefusedError):
        decode_body(b"abcd", "identity", 3)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte in a megabyte costs the limit and one step, not a gigabyte."""
    produced = 0
    real = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._real = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal produced
            piece = self._real.decompress(data, most)
            produced += len(piece)
            return piece

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    packer = zlib.compressobj(1, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    with pytest.raises(RefusedError) as caught:
        decode_body(bomb, "gzip", 2**20)
    assert caught.value.status == 413
    assert 2**20 < produced <= 2**20 + 2**18


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain text",
        gzip.compress(b"text")[:-1],
        gzip.compress(b"text")[:5],
        gzip.compress(b"text")[:-8] + b"\0" * 8,
        gzip.compress(b"text") + b"more",
    ],
    ids=["empty", "plain", "cut", "header-cut", "wrong-sum", "tail"],
)
def test_damaged_gzip_is_refused_with_400(body: bytes) -> None:
    """Nothing but whole gzip members is taken."""
    with pytest.raises(RefusedError) as caught:
        decode_body(body, "gzip", 1000)
    assert caught.value.status == 400


def test_several_gzip_members_are_one_body() -> None:
    """As RFC 1952 says; so many that unpacking them is the work of an attack are not taken."""
    assert decode_body(gzip.compress(b"one, ") + gzip.compress(b"two"), "gzip", 8) == b"one, two"
    with pytest.raises(RefusedError) as caught:
        decode_body(gzip.compress(b"12345") * 2, "gzip", 8)
    assert caught.value.status == 413
    with pytest.raises(RefusedError) as caught:
        decode_body(gzip.compress(b"") * 10_000, "gzip", 8)
    assert caught.value.status == 415


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_passes_and_the_next_one_waits() -> None:
    """The wait is the time until one token has come back."""
    limiter = RateLimiter(3, Clock())
    assert [limiter.take(1) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take(1) == pytest.approx(20.0)


def test_tokens_come_back_evenly_and_never_beyond_the_minute() -> None:
    """One every 60/rate seconds; a silent hour saves up a minute's worth only."""
    clock = Clock()
    limiter = RateLimiter(3, clock)
    for _ in range(3):
        limiter.take(1)
    clock.now += 20.0
    assert limiter.take(1) == 0.0
    assert limiter.take(1) > 0
    clock.now += 3600
    assert [limiter.take(1) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take(1) > 0


def test_refused_requests_cost_nothing() -> None:
    """A client that knocks all the time is let in as soon as one that waits."""
    clock = Clock()
    limiter = RateLimiter(1, clock)
    limiter.take(1)
    for _ in range(60):
        clock.now += 1.0
        waited = limiter.take(1)
    assert waited == 0.0


def test_keys_do_not_share_a_bucket() -> None:
    """One client's noise is not another's."""
    limiter = RateLimiter(1, Clock())
    assert limiter.take(1) == 0.0
    assert limiter.take(2) == 0.0
    assert limiter.take(1) > 0


def test_a_rate_below_one_is_refused() -> None:
    """It would let nobody in, for ever."""
    with pytest.raises(ValueError, match="per_minute"):
        RateLimiter(0)
