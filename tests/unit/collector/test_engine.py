"""Connections of the pool: what a restart of the database costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.postgresql import running_server, why_not
from tracker.collector.keys import Keys
from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server to restart."""
    if reason := why_not():
        pytest.skip(reason)
    with running_server() as found:
        yield found


def test_a_restart_of_postgresql_fails_no_later_query(server: PostgresServer) -> None:
    """Connections that ended meanwhile are replaced before they are used."""
    store = Store(server.new_database())
    keys = Keys(store)
    try:
        key, _ = keys.create("kiosk-17")
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(keys.find, [key] * 100))
            server.stop()
            server.start()
            assert all(pool.map(keys.find, [key] * 100))
    finally:
        store.close()
