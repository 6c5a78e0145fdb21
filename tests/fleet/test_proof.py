"""The proof finds what it is there to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import make_url

from tests.fleet.devices import Receipt
from tests.fleet.proof import NOTHING_WRONG, Proof, prove
from tests.support.collector import CollectorProcess, EventChain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.fleet


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("SELECT 1", NOTHING_WRONG),
        ("DELETE FROM events WHERE seq = 3", Proof(1, 0, 1, 1, 1)),
        ("UPDATE events SET chain = repeat('a', 64) WHERE seq = 5", Proof(0, 0, 0, 1, 0)),
        ("UPDATE events SET seq = 4 WHERE seq = 5", Proof(0, 0, 1, 0, 1)),
        ("UPDATE heads SET events = 4", Proof(0, 0, 0, 0, 1)),
        ("DELETE FROM heads", Proof(0, 0, 0, 0, 1)),
    ],
)
def test_what_is_wrong_is_counted(
    damage: str, found: Proof, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """An event that is gone, a chain or a number that was changed, a head that does not fit."""
    url = postgres_server.new_database()
    with CollectorProcess(tmp_path, database_url=url) as collector:
        chain = EventChain()
        events = chain.events(5)
        collector.client("c").send(chain, events)
    name = str(make_url(url).database)
    with psycopg.connect(
        host=str(postgres_server.folder), user="tracker", dbname=name, autocommit=True
    ) as connection:
        connection.execute(damage.encode())
        assert prove(connection, [Receipt("c", event["event_id"]) for event in events]) == found
