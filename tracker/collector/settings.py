"""`Settings`: the limits of a collector."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """Limits that a collector sets its clients.

    Attributes:
        requests_per_minute: Batches per minute and API key; more are answered 429.
        processes: How many processes share a client's requests: each allows its part of the rate.
        max_body_bytes: Maximum size of a request body as sent, compressed or not.
        max_decoded_bytes: Maximum size of a request body after decompression. The protocol allows
            batches of 4 MiB; the rest is tolerance.
        max_page_bytes: Characters of ``data`` after which a page of events, of a history or of
            activities ends early.
        max_evidence_events: Maximum number of events of a bundle, shown or as digests; their
            ``data`` is bounded as that of a page.
        max_held_bytes: Maximum number of bytes of all bodies in memory; half of it per client.
        max_requests: Concurrent batches, in total and of one client; more are answered 503 before
            their body is read.
        concurrent_batches: Batches that are stored at the same time, in total and per client; more
            wait. Each takes a thread and a connection to the database.
        concurrent_otlp: The same for OTLP requests. One of 8 MiB can take 800 MB of memory, if it
            was made for that.
        concurrent_reads: The same for queries.
        concurrent_lookups: Concurrent key lookups.
        batches_together: Small batches that are stored in one transaction, at most; 1 stores each
            alone.
        batch_wait_seconds: Longest wait of a batch before it is answered 503.
        read_wait_seconds: The same for a query.
        body_idle_seconds: Longest pause within a request body before it is answered 408.
        body_seconds: Maximum duration of a whole body before it is answered 408.
    """

    requests_per_minute: int = 5_000
    processes: int = 1
    max_body_bytes: int = 8 * _MIB
    max_decoded_bytes: int = 8 * _MIB
    max_page_bytes: int = 8 * _MIB
    max_evidence_events: int = 10_000
    max_held_bytes: int = 256 * _MIB
    max_requests: tuple[int, int] = (1_000, 100)
    concurrent_batches: tuple[int, int] = (8, 2)
    concurrent_otlp: tuple[int, int] = (2, 1)
    concurrent_reads: tuple[int, int] = (4, 2)
    concurrent_lookups: int = 4
    batches_together: int = 32
    batch_wait_seconds: float = 10.0
    read_wait_seconds: float = 30.0
    body_idle_seconds: float = 60.0
    body_seconds: float = 600.0
