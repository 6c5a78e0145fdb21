"""A collector's database of each kind, and its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The path of an SQLite file, or the URL of an empty PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "collector.sqlite3")
    url: str = request.getfixturevalue("postgres_server").new_database()
    return url


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """The store of that database."""
    found = Store(database)
    yield found
    found.close()
