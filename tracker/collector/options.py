"""What commands of `tracker-collector` have in common: the database, and its errors."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker.collector.database import StorageError
from tracker.collector.engine import BATCHES, files_of
from tracker.collector.store import Store
from tracker.collector.witness import DEFAULT_NAME, Witness, witness_of
from tracker.errors import ConfigurationError, readable
from tracker.evidence.keys import can_sign
from tracker.folders import default_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracker.collector.replication import Durability
    from tracker.collector.schema import Schema


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


def witness_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the key that cosigns heads to a command."""
    key = click.option(
        "--witness-key",
        "key_file",
        envvar="COLLECTOR_WITNESS_KEY",
        type=click.Path(dir_okay=False, path_type=Path),
        show_default="beside an SQLite file, ending in .witness-key",
        show_envvar=True,
        help="File of the key that cosigns heads; it is made if it is missing.",
    )
    name = click.option(
        "--witness-name",
        envvar="COLLECTOR_WITNESS_NAME",
        default=DEFAULT_NAME,
        show_default=True,
        show_envvar=True,
        help="Name of that key.",
    )
    return key(name(command))


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def witness_given(
    database: str, key_file: Path | None, name: str, warn: Callable[[str], None] = _warn
) -> Witness | None:
    """Return the witness of those options; None, with a warning, if there can be none."""
    if not can_sign():
        why = "the library cryptography is missing: pip install 'agent-tracking-sdk[evidence]'"
    else:
        try:
            witness = witness_of(database, key_file, name)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error
        if witness is not None:
            return witness
        why = "give --witness-key, a file for its key"
    warn(f"no head will be cosigned ({why})")
    return None


@contextlib.contextmanager
def opened(
    database: str,
    durability: Durability | None = None,
    batches: int = BATCHES,
    *,
    schema: Schema = "update",
    must_exist: bool = False,
) -> Iterator[Store]:
    """Yield the store; convert its errors to one-line messages with exit code 2 or 1.

    Where it `must_exist`, a missing SQLite file is an error, and is not made.
    """
    try:
        files = files_of(database)
        if must_exist and files and not files[0].exists():
            raise click.ClickException(f"there is no database {readable(str(files[0]))}")
        store = Store(database, durability, batches=batches, schema=schema)
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
