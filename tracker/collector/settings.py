"""`Settings`: the bounds of one running collector."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """What one collector allows its clients.

    Attributes:
        requests_per_minute: Batches per minute and API key; more are answered 429.
        max_body_bytes: Bytes of a request body as it travels, compressed or not.
        max_decoded_bytes: Bytes of a request body after decompression. The protocol's batches
            have at most 4 MiB; the rest is slack.
        max_page_bytes: Characters of ``data`` after which a page of events, of a history or of
            activities ends early.
        max_held_bytes: Bytes of bodies that are held at once; half of it of one client's.
        max_requests: Batches of one client that are under way at once; more are answered 503
            before their body is read.
        concurrent_batches: Batches that are stored at once, and of one client: more wait. A client
            that is alone gains nothing by more than two, since its writes exclude each other:
            eight threads in one interpreter store fewer events a second than two.
        concurrent_reads: The same for queries.
        concurrent_lookups: Keys that are looked up at once.
        batch_wait_seconds: Longest wait for a turn to store a batch before it is answered 503.
        read_wait_seconds: The same for a query.
        body_idle_seconds: Longest silence within a request body before it is answered 408.
        body_seconds: Longest time that a whole body may take before it is answered 408.
    """

    requests_per_minute: int = 5_000
    max_body_bytes: int = 8 * _MIB
    max_decoded_bytes: int = 8 * _MIB
    max_page_bytes: int = 8 * _MIB
    max_held_bytes: int = 256 * _MIB
    max_requests: int = 100
    concurrent_batches: tuple[int, int] = (8, 2)
    concurrent_reads: tuple[int, int] = (4, 2)
    concurrent_lookups: int = 4
    batch_wait_seconds: float = 10.0
    read_wait_seconds: float = 30.0
    body_idle_seconds: float = 60.0
    body_seconds: float = 600.0
