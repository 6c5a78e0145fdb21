"""Opening outboxes of every age: new, current, older, newer, somebody else's."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.support.next_version import NextVersion
from tracker import AgentPerformanceTracker, APIConfig, SchemaVersionError, canonical
from tracker.events import make_event
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.schema import create, tables
from tracker.outbox.sqlite.engine import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.collector import CollectorClient

FIXTURES = Path(__file__).parent / "fixtures"
_DATA = "SELECT data FROM events ORDER BY seq"


def restore(fixture: Path, path: Path) -> None:
    """Make the outbox that a fixture is the dump of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(fixture.read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode=WAL")


def objects(path: Path) -> set[tuple[str, str]]:
    """Return what a file's schema holds."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            (kind, name)
            for kind, name in connection.execute("SELECT type, name FROM sqlite_master")
        }


def test_head_is_the_scripts_head() -> None:
    """The revision that new outboxes are stamped with is the newest script's."""
    with create.scripts_folder() as folder:
        assert ScriptDirectory(str(folder)).get_heads() == [tables.HEAD]


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # it is compared as text
def test_scripts_make_what_the_tables_say(config: Callable[..., APIConfig], tmp_path: Path) -> None:
    """All scripts from nothing give the very schema that a new outbox gets."""
    made = tmp_path / "made.sqlite3"
    Outbox(config(outbox_path=made)).close()
    migrated = tmp_path / "migrated.sqlite3"
    migrated.touch()
    engine = make_engine(migrated, "full", writer=True)
    with engine.connect() as connection:
        create.migrate(connection)
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
    assert objects(migrated) == objects(made)
    with closing(sqlite3.connect(made)) as a, closing(sqlite3.connect(migrated)) as b:
        for name in (*tables.VIEWS, "ix_events_trace"):
            query = f"SELECT sql FROM sqlite_master WHERE name = '{name}'"  # noqa: S608 - our own
            assert a.execute(query).fetchone() == b.execute(query).fetchone()


@pytest.mark.parametrize(
    "fixture", sorted(FIXTURES.glob("outbox_*.sql")), ids=lambda path: path.stem
)
def test_released_schemas_are_carried_on(
    fixture: Path, client: CollectorClient, config: Callable[..., APIConfig], tmp_path: Path
) -> None:
    """An outbox of each released schema opens, verifies, and delivers what was pending."""
    path = tmp_path / "old.sqlite3"
    restore(fixture, path)
    with closing(sqlite3.connect(path)) as connection:
        pending = connection.execute("SELECT event_id FROM pending ORDER BY seq").fetchall()
        connection.execute(
            "UPDATE identity SET client_id = ?, base_url = ?", (client.client_id, client.url)
        )
        connection.commit()
    assert pending
    settings = config(
        outbox_path=path,
        base_url=client.url,
        client_id=client.client_id,
        api_key=client.api_key,
    )
    tracker = AgentPerformanceTracker(settings)
    tracker.log_user_message("new", "logged after the upgrade")
    result = tracker.flush(timeout=30)
    tracker.close()
    assert result.pending == 0
    # The outbox is old, so a checkpoint is due.
    arrived = [
        event["event_id"] for event in client.events() if event["type"] != "integrity.checkpoint"
    ]
    assert len(arrived) == len(pending) + 1
    assert arrived[:-1] == [event_id for (event_id,) in pending]
    outbox = Outbox(settings)
    with outbox.snapshot() as connection:
        assert create.is_current(connection)
        assert verify.verify(connection).problems == ()
    outbox.close()


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NextVersion:
    return NextVersion(tmp_path, monkeypatch)


def test_older_file_is_migrated_by_one_of_many(
    config: Callable[..., APIConfig], next_version: NextVersion
) -> None:
    """Eight threads open an older outbox at once: it is migrated once, rows and all."""
    settings = config(on_error="raise", base_url="http://127.0.0.1:9")
    tracker = AgentPerformanceTracker(settings)
    tracker.log_user_message("old", "pending")
    tracker.close()
    next_version.install()
    opened: list[int] = []

    def open_it() -> None:
        outbox = Outbox(settings)
        with outbox.reading() as connection:
            opened.append(connection.exec_driver_sql("SELECT count(*) FROM pending").scalar_one())
        outbox.close()

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1] * 8
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            ("9999",)
        ]
        assert connection.execute("SELECT * FROM account WHERE note != 'carried'").fetchall() == []


def test_failed_migration_leaves_the_file_as_it_was(
    config: Callable[..., APIConfig], next_version: NextVersion
) -> None:
    """When a script fails half-way, nothing of it stays and the older tracker still opens it."""
    settings = config(base_url="http://127.0.0.1:9")
    Outbox(settings).close()
    before = objects(settings.outbox_path)
    next_version.install()
    script = next_version.script
    script.write_text(script.read_text() + "    op.execute('SELECT no_such_function()')\n")
    with pytest.raises(Exception, match="no such function"):
        Outbox(settings)
    assert objects(settings.outbox_path) == before
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() != ("9999",)


def test_an_analysts_view_gives_way_to_ours(
    config: Callable[..., APIConfig], tmp_path: Path
) -> None:
    """A view of one's own that has the name of a later one of ours does not lock anybody out."""
    settings = config(client_id="fixture", base_url="http://127.0.0.1:9")
    restore(FIXTURES / "outbox_0008.sql", settings.outbox_path)
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        connection.execute("CREATE VIEW Scores AS SELECT seq FROM events")
        connection.execute("CREATE VIEW mine AS SELECT seq FROM Scores")
    Outbox(settings).close()
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        assert connection.execute("SELECT name, value FROM scores").fetchall() == []
        assert connection.execute("SELECT * FROM mine").fetchall() == []


def test_newer_schema_is_refused_untouched(config: Callable[..., APIConfig]) -> None:
    """A file from a newer tracker is left byte for byte as it was; the error says what to do."""
    settings = config()
    Outbox(settings).close()
    with closing(sqlite3.connect(settings.outbox_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0042'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = settings.outbox_path.read_bytes()
    with pytest.raises(SchemaVersionError, match=r"'0042'.*Install the newer agent-tracking-sdk"):
        AgentPerformanceTracker(settings)
    assert settings.outbox_path.read_bytes() == before


def test_an_empty_outbox_is_closed_whatever_happens() -> None:
    """The outbox in memory that stands in for none leaves no connection open, errors or not."""
    lent = ExitStack()
    driver = lent.enter_context(create.empty_outbox()).connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    assert not lent.__exit__(LookupError, LookupError(), None), "the error passes through"
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        driver.execute("SELECT 1")


def test_rows_of_before_and_erased_ones_are_carried_over(
    config: Callable[..., APIConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of an older schema are shorter; what an erasure left is proven by its digest."""
    settings = config(client_id="fixture", base_url="http://127.0.0.1:9")
    restore(FIXTURES / "outbox_0006.sql", settings.outbox_path)
    with closing(Outbox(settings)) as outbox:
        with outbox.reading() as connection:
            before = connection.exec_driver_sql(_DATA).scalars().all()
        for user in ("u", "v"):
            outbox.append(make_event("test.noted", {"text": f"<{user}>"}, user_id=user))
        assert outbox.erase("u", {}).erased == 1
    with settings.outbox_path.open("r+b") as file:
        file.write(bytes(90))
    with closing(Outbox(settings)) as outbox, outbox.snapshot() as connection:
        data = connection.exec_driver_sql(_DATA).scalars().all()
        assert verify.verify(connection).problems == ()
    assert data[:-2] == [*before, canonical.ERASED, '{"text":"<v>"}']
    assert "is damaged" in caplog.text
