"""Telling the batches that only have to be stored, which most are, from those that take more."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from tracker.collector import accounts, cosigning
from tracker.collector.tables import NOWHERE
from tracker.events import COMPLIANCE_ERASED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from tracker.collector.accounts import Account
    from tracker.collector.batch import Batch

_CONCERN_THE_CLIENT = frozenset((COMPLIANCE_ERASED, *cosigning.TELLING))


def concerns_the_client(batch: Batch) -> bool:
    """Return True if a batch has events that say something of others, or of the whole outbox."""
    return any(event.type in _CONCERN_THE_CLIENT for event in batch.events)


def is_plain(batch: Batch) -> bool:
    """Return True if nothing in a batch itself takes more than to be stored."""
    return (
        bool(batch.events)
        and not (batch.direct or batch.rejected or concerns_the_client(batch))
        and all(one.seq < other.seq for one, other in pairwise(batch.events))
    )


def continued(connection: Connection, batches: Sequence[Batch]) -> list[tuple[Batch, Account]]:
    """Return those of some plain batches that go on where their outbox ended, and its account.

    Nothing needs to be looked up for these: no number of theirs was used, or deleted by age, none
    of their events was named by an erasure, and the account is up to date.

    Args:
        connection: The transaction, which excludes others that write to their outboxes.
        batches: The batches, each of another outbox.
    """
    outboxes = [(batch.client_id, batch.outbox_id) for batch in batches]
    known = accounts.read_some(connection, outboxes) if outboxes else {}
    found = [(batch, known.get(outbox)) for batch, outbox in zip(batches, outboxes, strict=True)]
    return [
        (batch, account)
        for batch, account in found
        if account is not None and _goes_on(account, batch)
    ]


def _goes_on(account: Account, batch: Batch) -> bool:
    return (
        account.is_complete
        and account.place != NOWHERE
        and not account.may_await_erased
        and batch.events[0].seq > account.walk.seq
    )
