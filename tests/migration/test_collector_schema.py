"""A collector's database from before operators' keys, opened by this version."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner

from tracker.collector.keys import Keys
from tracker.collector.main import cli
from tracker.collector.store import Store
from tracker.collector.tables import events_of, metadata
from tracker.queries.metrics import get_metrics

if TYPE_CHECKING:
    from tests.support.postgresql import PostgresServer

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that the version before made: a key, and three events."""
    script = (FIXTURES / f"collector_1_{request.param}.sql").read_text(encoding="utf-8")
    if request.param == "sqlite":
        path = tmp_path / "collector.sqlite3"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        return f"sqlite:///{path}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.new_database()
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection_:
        connection_.exec_driver_sql(script)
    engine.dispose()
    return url


def test_an_upgraded_database_keeps_its_keys_and_events(older: str) -> None:
    """The old key opens what it opened and is no operator's; figures are read by new indexes."""
    store = Store(older)
    key = Keys(store).find("trk_made_up")
    assert key is not None
    assert (key.id, key.client_id, key.label, key.operator) == (1, "kiosk-17", "door", False)
    rows, _ = store.events_after("kiosk-17", 0, 10, 10**6)
    assert [row["seq"] for row in rows] == [1, 2, 3]
    with store.reading() as connection:
        figures = get_metrics(connection, events=events_of("kiosk-17"))
    assert (figures.ended, figures.tokens_used, figures.quality_mean) == (1, 3, 4.5)
    operator, _ = Keys(store).create(None)
    found = Keys(store).find(operator)
    assert found is not None
    assert found.operator
    store.close()


def test_an_upgraded_database_is_like_a_new_one(older: str) -> None:
    """Every column and index is there, however often and by how many at once it is opened."""
    with ThreadPoolExecutor(4) as pool:
        for store in pool.map(Store, [older] * 4):
            store.close()
    engine = sqlalchemy.create_engine(older)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_version_before_can_still_write_to_an_upgraded_database(older: str) -> None:
    """It makes keys without the new column: a rollback of the program needs none of the data."""
    store = Store(older)
    with store.writing("keys") as connection:
        connection.exec_driver_sql(
            "INSERT INTO api_keys (client_id, key_hash, created_at_ms) VALUES ('a', 'h', 1)"
        )
    assert [(key.client_id, key.operator) for key in Keys(store).list()] == [
        ("kiosk-17", False),
        ("a", False),
    ]
    store.close()


def test_a_file_is_not_changed_by_looking_at_it(tmp_path: Path) -> None:
    """`migrate --check` and `serve --no-migrate` change nothing; `migrate` does."""
    path = tmp_path / "collector.sqlite3"
    script = (FIXTURES / "collector_1_sqlite.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)

    def tables() -> set[str]:
        with closing(sqlite3.connect(path)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}

    before = tables()
    asked = CliRunner().invoke(cli, ["migrate", "--check", "--database", str(path)])
    assert (asked.exit_code, "add the table heads" in asked.output) == (1, True)
    refused = CliRunner().invoke(cli, ["serve", "--no-migrate", "--database", str(path)])
    assert (refused.exit_code, "the database's schema is older" in refused.output) == (2, True)
    assert tables() == before
    done = CliRunner().invoke(cli, ["migrate", "--database", str(path)])
    assert (done.exit_code, "added heads" in done.output) == (0, True)
    again = CliRunner().invoke(cli, ["migrate", "--check", "--database", str(path)])
    assert (again.exit_code, again.output) == (0, "nothing to do\n")
