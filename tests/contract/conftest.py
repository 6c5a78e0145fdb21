"""A collector on SQLite, and one on PostgreSQL: what is promised of one holds for the other."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import CollectorClient, CollectorProcess, ForkedCollector
from tests.support.pgbouncer import running_pgbouncer
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.slow),
        pytest.param("pgbouncer", marks=pytest.mark.fleet),
    ],
)
def either_collector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CollectorProcess]:
    if request.param == "sqlite":
        yield request.getfixturevalue("shared_collector")
        return
    server = request.getfixturevalue("postgres_server")
    url = server.new_database()
    folder = tmp_path_factory.mktemp("collector")
    key = ["--witness-key", str(folder / "witness.pem")]
    with contextlib.ExitStack() as stack:
        if request.param == "pgbouncer":
            url = stack.enter_context(running_pgbouncer(server, url))
        yield stack.enter_context(ForkedCollector(folder, database_url=url, arguments=key))


@pytest.fixture
def client(either_collector: CollectorProcess) -> CollectorClient:
    """A client of its own for each test, so that no test sees another's events."""
    return either_collector.client(f"client-{uuid.uuid4()}")


@pytest.fixture
def destination() -> RecordingDestination:
    """What takes the place of a collector."""
    return RecordingDestination()
