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
        concurrent_reads: Queries for histories and figures that run at once; more wait.
        body_idle_seconds: Longest silence within a request body before it is answered 408.
        body_seconds: Longest time that a whole body may take before it is answered 408.
    """

    requests_per_minute: int = 5_000
    max_body_bytes: int = 8 * _MIB
    max_decoded_bytes: int = 8 * _MIB
    max_page_bytes: int = 8 * _MIB
    concurrent_reads: int = 4
    body_idle_seconds: float = 60.0
    body_seconds: float = 600.0
