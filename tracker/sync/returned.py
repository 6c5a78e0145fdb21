"""`settle_returned`: marks events as delivered by a file of receipts that came back by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from tracker.outbox import (
    Batch,
    DeadLetter,
    Remarks,
    batches,
    checkpoint,
    identity,
    ledger,
    settlement,
)
from tracker.redaction.own_keys import know
from tracker.sealed.form import RECEIPTS, SealError
from tracker.sealed.reader import Reader
from tracker.sealed.seal import Seal
from tracker.sync.copies import Copies
from tracker.sync.destination import Outcome
from tracker.sync.letters import letters_of
from tracker.sync.receipts import read_answer

if TYPE_CHECKING:
    from tracker.config import APIConfig
    from tracker.outbox import Outbox
    from tracker.sealed.reader import Entry
    from tracker.sync.destination import Delivery, SignedHead


@dataclass
class Returned:
    """What a file of receipts has settled.

    Attributes:
        stored: Number of events that the collector has by these receipts.
        delivered: Number of pending events that are marked as delivered now.
        dead: Number of pending events that became dead letters.
        refused: Why bodies were not accepted, a line for each; their events stay pending.
    """

    stored: int = 0
    delivered: int = 0
    dead: int = 0
    refused: list[str] = field(default_factory=list)


def settle_returned(outbox: Outbox, config: APIConfig, file: IO[bytes]) -> Returned:
    """Record what the receipts in a file prove, each as if it had just come over the network.

    Nothing is marked before the whole file is checked. If this is interrupted, it can be repeated.

    Raises:
        SealError: if the file is not what a collector that knows the API key has made for this
            client; nothing is marked.
        ConfigurationError: if it is the outbox of another client, or for another collector.
        OutboxError: if the outbox cannot be read or written.
        OSError: if the file cannot be read.
    """
    identity.check(outbox.owner, config)
    know(config.api_key, config.chain_key)  # messages must not show them
    reader = Reader(file, RECEIPTS)
    seal = Seal.of(config.api_key)
    if seal.name not in reader.keys:
        raise SealError(
            f"it is sealed for the API key named {_or(reader.keys)}, and the one given is "
            f"{seal.name}. Give the key that was packed with, or pack again with this one"
        )
    reader.check(seal)
    owner = outbox.owner
    if reader.header.get("client_id") != owner.client_id:
        raise SealError(f"it is for another client than {owner.client_id}")
    if reader.header.get("base_url") != owner.base_url:
        # Another collector need not have the events that this one has.
        raise SealError(
            f"its bundle was not packed for {owner.base_url}, where this outbox sends now: pack "
            "again. What the collector has already counts once"
        )
    return _Settling(outbox, str(reader.header.get("outbox_id"))).run(reader, seal)


class _Settling:
    """Records one answer after the other."""

    def __init__(self, outbox: Outbox, outbox_id: str) -> None:
        self._outbox = outbox
        self._outbox_id = outbox_id
        self._copies = Copies(outbox)
        self._newest: SignedHead | None = None
        with outbox.reading() as connection:
            self._last_seq = ledger.last_seq(connection)

    def run(self, reader: Reader, seal: Seal) -> Returned:
        result = Returned()
        for entry in reader.entries(seal):
            self._settle(entry, result)
        self._keep_newest_witness()
        return result

    def _settle(self, entry: Entry, result: Returned) -> None:
        status, event_ids = _named(entry)
        # Negative, for they are no seqs: those are found by the ids.
        rows = [batches.Row(~place, event_id, b"") for place, event_id in enumerate(event_ids)]
        batch = Batch(self._last_seq, rows, 0, outbox_id=self._outbox_id)
        delivery = read_answer(status, {}, entry.content, event_ids)
        letters = _letters(batch, delivery)
        if letters is None:
            result.refused.append(delivery.cause)
            return
        remarks = Remarks(delivery.warning, delivery.highest_seq)
        delivered, dead = self._outbox.run(settlement.settle_late(batch, letters, remarks))
        result.stored += len(rows) - len(letters)
        result.delivered += delivered
        result.dead += dead
        self._copies.look_at(batch, remarks, None)
        if self._newest is None or (delivery.witness and delivery.witness.size > self._newest.size):
            self._newest = delivery.witness

    def _keep_newest_witness(self) -> None:
        """Note the newest head that the collector has signed, unless the outbox has a newer one."""
        with self._outbox.reading() as connection:
            known = checkpoint.witness(connection)
        if self._newest is not None and (known is None or self._newest.size > known.size):
            batch = Batch(self._last_seq, [], 0, outbox_id=self._outbox_id)
            self._copies.look_at(batch, None, self._newest)


def _named(entry: Entry) -> tuple[int, list[str]]:
    """Return the status of an answer, and the events that it is about.

    None is named if several were refused together: nothing follows for any of them.
    """
    status, event_ids = entry.head.get("status"), entry.head.get("event_ids")
    named = isinstance(event_ids, list) and all(isinstance(each, str) for each in event_ids)
    if type(status) is not int or not named or (status == 200 and not event_ids):
        raise SealError("an answer in it has no status, or names no events")
    return status, list(event_ids or ())


def _letters(batch: Batch, delivery: Delivery) -> list[DeadLetter] | None:
    """Return the dead letters of a batch; None if its answer settles nothing."""
    if delivery.outcome is Outcome.DELIVERED:
        return letters_of(batch, delivery)
    if delivery.outcome in (Outcome.INVALID, Outcome.TOO_LARGE) and len(batch.rows) == 1:
        return [DeadLetter(batch.rows[0].seq, delivery.code, delivery.cause)]
    return None


def _or(names: list[str]) -> str:
    return " or ".join(names) or "of nobody"
