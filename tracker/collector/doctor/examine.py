"""All checks of a database, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from tracker.collector.doctor import contents, pooling, server, sqlite, upkeep
from tracker.collector.doctor.finding import Finding
from tracker.collector.engine import file_of, make_engine, parse
from tracker.collector.replication import NotReplicatedError
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import URL, Connection

    from tracker.collector.replication import Durability


def examine(
    database: str, durability: Durability | None = None, direct: str | None = None
) -> list[Finding]:
    """Return what all checks found. Nothing is changed.

    Args:
        database: A path or an SQLAlchemy URL.
        durability: What the collectors serve with; None for what they choose by themselves.
        direct: URL of the same database, by which the collectors listen; None for `database`.

    Raises:
        ConfigurationError: if `database` is not a valid path or URL, or its driver is missing.
    """
    url = parse(database)
    if url.get_backend_name() == "sqlite":
        return list(sqlite.check(file_of(url)))
    return list(_postgresql(url, durability, url if direct is None else parse(direct)))


def _postgresql(url: URL, durability: Durability | None, direct: URL) -> Iterator[Finding]:
    engine, listening = (
        make_engine(each).execution_options(isolation_level="AUTOCOMMIT") for each in (url, direct)
    )
    try:
        with engine.connect() as connection:
            checks: list[Callable[[Connection], Iterable[Finding]]] = [
                server.version,
                lambda found: server.durability(found, durability),
                server.clock,
                server.connections,
                server.disk,
                lambda found: pooling.pooler(found, listening),
                upkeep.vacuum,
                upkeep.oldest_transaction,
                upkeep.slots,
                contents.schema,
                contents.months,
                contents.rolling,
                contents.expiring_keys,
            ]
            for check in checks:
                yield from _checked(check, connection)
    except ConfigurationError as error:  # its encoding, which is seen when a connection is made
        yield Finding("encoding", "problem", str(error))
    except SQLAlchemyError as error:
        yield Finding("connection", "problem", f"there is none: {cause(error)}")
    finally:
        engine.dispose()
        listening.dispose()


def _checked(
    check: Callable[[Connection], Iterable[Finding]], connection: Connection
) -> list[Finding]:
    """Return what a check found; a warning if it may not look."""
    try:
        return list(check(connection))
    except (ConfigurationError, NotReplicatedError) as error:
        return [Finding("durability", "problem", str(error))]
    except SQLAlchemyError as error:
        if connection.invalidated:
            raise
        return [Finding("permissions", "warning", f"this cannot be checked: {cause(error)}")]


def cause(error: SQLAlchemyError) -> str:
    """Return what the driver said, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
