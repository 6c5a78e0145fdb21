"""What commands of `tracker-collector` have in common: the database, and its errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from tracker.collector.database import StorageError
from tracker.collector.store import Store
from tracker.errors import ConfigurationError
from tracker.folders import default_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker.collector.replication import Durability


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--database`` to a command."""
    return click.option(
        "--database",
        envvar="COLLECTOR_DATABASE_URL",
        default=_default_database,
        show_default="collector.sqlite3 in the user's data folder",
        show_envvar=True,
        help="Path of an SQLite file, or an SQLAlchemy URL (sqlite, postgresql).",
    )(command)


def _default_database() -> str:
    try:
        return str(default_folder() / "collector.sqlite3")
    except ConfigurationError as error:
        raise click.UsageError(
            "this user has no data folder for the database; give --database "
            "(COLLECTOR_DATABASE_URL), or set HOME"
        ) from error


@contextlib.contextmanager
def opened(database: str, durability: Durability | None = None) -> Iterator[Store]:
    """Yield the store; convert its errors to one-line messages with exit code 2 or 1."""
    try:
        store = Store(database, durability)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--database") from error
    except StorageError as error:
        raise click.ClickException(str(error)) from error
    try:
        yield store
    except StorageError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
