"""The sources that queries read: an outbox, and a collector on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import sources
from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.sources import Source


@pytest.fixture(
    scope="module",
    params=["outbox", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)],
)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store | None]:
    """A collector's database; None for an outbox."""
    if request.param == "outbox":
        yield None
        return
    database = tmp_path_factory.mktemp("collector") / "collector.sqlite3"
    if request.param == "postgresql":
        database = request.getfixturevalue("postgres_server").new_database()
    found = Store(database)
    yield found
    found.close()


@pytest.fixture
def source(store: Store | None) -> Iterator[Source]:
    """A source without events."""
    with sources.outbox() if store is None else sources.client_of(store) as found:
        yield found
