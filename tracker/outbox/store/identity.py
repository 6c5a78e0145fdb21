"""The owner of an outbox: the client id and base URL that its events belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction


class Owner(NamedTuple):
    """The identity that is written into an outbox when it is created.

    Attributes:
        outbox_id: A UUID, generated once for each file.
        client_id: The client whose events it contains.
        base_url: The collector that they are sent to.
        created_at_ms: When it was created, Unix milliseconds.
    """

    outbox_id: str
    client_id: str
    base_url: str
    created_at_ms: int


def read(connection: Connection) -> Owner:
    """Return the identity of the outbox."""
    row = connection.exec_driver_sql(
        "SELECT outbox_id, client_id, base_url, created_at_ms FROM identity"
    ).one()
    return Owner(*row)


def rebind(client_id: str, base_url: str) -> Callable[[Transaction], None]:
    """Return the job that gives the outbox, with everything pending in it, another owner."""

    def job(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(
            "UPDATE identity SET client_id = ?, base_url = ?", (client_id, base_url)
        )

    return job
