"""`Serving`, what `serve` is asked for, and the process that does it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tracker.collector.engine import parse
from tracker.collector.key_changes import KeyChanges
from tracker.collector.options import opened, witness_given
from tracker.collector.stamping import Stamping
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tracker.collector.replication import Durability
    from tracker.collector.settings import Settings
    from tracker.collector.store import Store


@dataclass(frozen=True)
class Serving:
    """The options of ``tracker-collector serve``.

    Attributes:
        database: The database.
        direct: The same database for LISTEN; None for `database`.
        durability: What a receipt guarantees; None for what the server is configured for.
        key_file: The witness's key; None for the default.
        witness_name: Its name.
        tsa: Address of a time stamp authority, or None.
        settings: The limits.
        ui_hosts: Hosts of the pages; None leaves the pages out.
    """

    database: str
    direct: str | None
    durability: Durability | None
    key_file: Path | None
    witness_name: str
    tsa: str | None
    settings: Settings
    ui_hosts: Sequence[str] | None

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is an SQLite file.

        Raises:
            ConfigurationError: if it is not valid.
        """
        return parse(self.database).get_backend_name() == "sqlite"


def run(serving: Serving, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT.

    Args:
        serving: What is asked for.
        listener: The socket; it is closed.
        started: Called when requests are accepted.

    Raises:
        click.ClickException: if the database cannot be used as asked for.
    """
    from tracker.collector.app import create_app
    from tracker.collector.serving.server import Server

    with opened(serving.database, serving.durability) as store:
        if store.warning:
            click.echo(f"warning: {store.warning}", err=True)
        store.witness = witness_given(serving.database, serving.key_file, serving.witness_name)
        with _stamping(store, serving.tsa), _key_changes(store, serving) as changes:
            if changes is not None and (trouble := changes.trouble()):
                click.echo(f"warning: each request looks its API key up ({trouble})", err=True)
            app = create_app(store, serving.settings, serving.ui_hosts, changes)
            Server(app, started).run(sockets=[listener])


def _stamping(store: Store, url: str | None) -> contextlib.AbstractContextManager[object]:
    if url is None:
        return contextlib.nullcontext()
    if store.witness is None:
        raise click.UsageError("--tsa stamps what is cosigned, and nothing will be")
    try:
        return Stamping(store, url)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--tsa") from error


def _key_changes(
    store: Store, serving: Serving
) -> contextlib.AbstractContextManager[KeyChanges | None]:
    if store.dialect == "sqlite":
        return contextlib.nullcontext()
    try:
        return KeyChanges(store, serving.direct or serving.database)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--direct-database") from error
