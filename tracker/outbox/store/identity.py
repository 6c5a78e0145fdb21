"""The owner of an outbox: the client id and base URL that its events belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.config import APIConfig
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


def check(owner: Owner, config: APIConfig) -> None:
    """Check that an outbox is of the client and for the collector that the settings name.

    Raises:
        ConfigurationError: if it is not.
    """
    if (owner.client_id, owner.base_url) != (config.client_id, config.destination_url):
        raise ConfigurationError(
            f"the outbox {config.outbox_path} belongs to client {owner.client_id!r} and sends to "
            f"{owner.base_url}; the configuration says client {config.client_id!r} and "
            f"{config.destination_url}. Give each its own outbox_path (SDK_OUTBOX_PATH), or move "
            "this outbox with `tracker-sync rebind`"
        )


def rebind(client_id: str, base_url: str) -> Callable[[Transaction], None]:
    """Return the job that gives the outbox, with everything pending in it, another owner."""

    def job(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(
            "UPDATE identity SET client_id = ?, base_url = ?", (client_id, base_url)
        )

    return job
