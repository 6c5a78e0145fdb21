"""`Body`: encodes events as the body of a request."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tracker.delivery.compression import compress
from tracker.sync.receipts import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Sequence


class Body:
    """Encodes the batches of one outbox."""

    def __init__(self, client_id: str, outbox_id: str) -> None:
        self._head = (
            f'{{"protocol":{PROTOCOL},"client_id":{json.dumps(client_id)},'
            f'"outbox_id":{json.dumps(outbox_id)},"sent_at_ms":'
        )

    def of(self, events: Sequence[bytes]) -> bytes:
        """Return the body for now: the stored JSON of the events, joined and compressed."""
        head = f'{self._head}{time.time_ns() // 1_000_000},"events":['.encode()
        return compress(b"".join((head, b",".join(events), b"]}")))
