"""From a request body to what is stored, and to the receipt: over HTTP and by hand alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tracker.collector.batch import PROTOCOL, Batch, parse_batch
from tracker.collector.limits import decode_body

if TYPE_CHECKING:
    from tracker.collector.settings import Settings
    from tracker.collector.store import Store, Stored


def receive(
    store: Store, body: bytes, encoding: str, client_id: str, settings: Settings
) -> tuple[Batch, Stored]:
    """Check a body and store its events.

    Args:
        store: Where to.
        body: The body as it was sent.
        encoding: ``gzip`` or ``identity``.
        client_id: The client whose key came with it.
        settings: The limits.

    Raises:
        RefusedError: if it is not a batch of this client within the limits.
        StorageError: if nothing of it was stored, or that is `in_doubt`.
    """
    decoded = decode_body(body, encoding, settings.max_decoded_bytes)
    batch = parse_batch(decoded, client_id)
    return batch, store.store_batch(batch, time.time_ns() // 1_000_000)


def receipt_of(batch: Batch, stored: Stored) -> dict[str, Any]:
    """Return the receipt for a batch, as the protocol has it."""
    receipt: dict[str, Any] = {
        "protocol": PROTOCOL,
        "first_event_id": batch.event_ids[0],
        "last_event_id": batch.event_ids[-1],
        "accepted": stored.accepted,
        "duplicates": stored.duplicates,
        "rejected": [
            {name: getattr(rejection, name) for name in ("event_id", "code", "message")}
            for rejection in batch.rejected
        ],
        "highest_seq": stored.highest_seq,
    }
    if stored.forked:
        receipt["warning"] = "forked"
    if stored.cosigned is not None:
        _, size, root, note = stored.cosigned
        receipt["witness"] = {"size": size, "root": root, "note": note}
    return receipt
