"""`unpack`: stores what a bundle has brought by hand, and writes the receipts for it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from tracker.collector.dates import date_text
from tracker.collector.key_uses import KeyUses
from tracker.collector.keys import Keys, check_client_id
from tracker.collector.limits import check_encoding
from tracker.collector.receiving import receipt_of, receive
from tracker.collector.refusal import RefusedError, too_large
from tracker.sealed.form import BUNDLE, RECEIPTS, SealError
from tracker.sealed.reader import Reader
from tracker.sealed.writer import Writer

if TYPE_CHECKING:
    from tracker.collector.keys import ApiKey
    from tracker.collector.settings import Settings
    from tracker.collector.store import Store
    from tracker.sealed.reader import Entry
    from tracker.sealed.seal import Seal


@dataclass
class Unpacked:
    """What became of the events of a bundle.

    Attributes:
        client_id: Their client.
        outbox_id: Their outbox.
        accepted: Number of events that are stored now.
        duplicates: Number of events that had been stored before.
        rejected: Number of events that were refused one by one.
        refused: Why whole bodies were refused, a line for each.
    """

    client_id: str
    outbox_id: str
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    refused: list[str] = field(default_factory=list)


class Bundle:
    """A bundle whose seal is valid as a whole.

    Args:
        file: The file; the caller owns it.
        store: Has the keys, and gets the events.
        settings: The limits of a body.

    Raises:
        SealError: if it is not what a client with a valid key has packed; nothing is stored.
        StorageError: if the database could not be read.
        OSError: if the file cannot be read.
    """

    def __init__(self, file: IO[bytes], store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._reader = Reader(file, BUNDLE)
        self._key_id, self._seal, self._valid = self._find_key()
        self._reader.check(self._seal)
        header = self._reader.header
        self.client_id, self.outbox_id = str(header["client_id"]), str(header.get("outbox_id"))

    def _find_key(self) -> tuple[int, Seal, list[Seal]]:
        """Return the key that sealed the file, and the valid keys of its client that send."""
        client_id, names = str(self._reader.header.get("client_id")), self._reader.keys
        try:
            check_client_id(client_id)
        except ValueError as error:
            raise SealError(f"it is damaged: {error}") from error
        if len(names) != 1:
            raise SealError("it is damaged: it names several keys, or none")
        known = Keys(self._store).seals(client_id)
        for key, seal in known:
            if seal.name == names[0]:
                if (why := _why_not(key)) is not None:
                    raise SealError(
                        f"it is sealed with key {key.id}, which {why}: pack again with a valid key"
                    )
                return key.id, seal, [valid for each, valid in known if _why_not(each) is None]
        raise SealError("it is sealed with a key that is unknown here, or not its client's")

    def store(self, receipts: IO[bytes]) -> Unpacked:
        """Store every body as if it had been sent, and write the answers to an empty file.

        If this is interrupted, it can be repeated: nothing is stored twice.

        Raises:
            SealError: if the bundle was changed meanwhile; what was read before is stored.
            StorageError: if something could not be stored.
            OSError: if a file cannot be read or written.
        """
        result = Unpacked(self.client_id, self.outbox_id)
        header = {
            "client_id": self.client_id,
            "outbox_id": self.outbox_id,
            "base_url": self._reader.header.get("base_url"),  # by which the device knows us
            "unpacked_at_ms": time.time_ns() // 1_000_000,
        }
        writer = Writer(receipts, RECEIPTS, self._valid, header)
        for entry in self._reader.entries(self._seal):
            status, event_ids, answer = self._answer(entry, result)
            writer.add({"status": status, "event_ids": event_ids}, json.dumps(answer).encode())
        counts = ("accepted", "duplicates", "rejected")
        writer.end({name: getattr(result, name) for name in counts})
        uses = KeyUses(self._store)
        uses.note(self._key_id)
        uses.close()
        return result

    def _answer(self, entry: Entry, result: Unpacked) -> tuple[int, list[str], dict[str, Any]]:
        """Store a body; return the status, the ids of its events, and the answer."""
        body, most = entry.content, self._settings.max_body_bytes
        try:
            if len(body) > most:
                raise too_large(f"The body is larger than {most:,} bytes.")
            encoding = check_encoding(entry.head.get("encoding"))
            batch, stored = receive(self._store, body, encoding, self.client_id, self._settings)
        except RefusedError as error:
            result.refused.append(f"{error.status} {error.code}: {error.message}")
            alone = entry.head.get("events") == 1
            event_ids = [str(entry.head.get("first_event_id"))] if alone else []
            answer = {"error": {"code": error.code, "message": error.message}}
            return error.status, event_ids, answer
        result.accepted += stored.accepted
        result.duplicates += stored.duplicates
        result.rejected += len(batch.rejected)
        return 200, list(batch.event_ids), receipt_of(batch, stored)


def _why_not(key: ApiKey) -> str | None:
    """Return why a key sends nothing, or None if it does."""
    if key.revoked_at_ms is not None:
        return "is revoked"
    if key.expires_at_ms is not None and key.has_expired():
        return f"expired at {date_text(key.expires_at_ms)}"
    return None if "send" in key.scopes else "does not have the scope send"
