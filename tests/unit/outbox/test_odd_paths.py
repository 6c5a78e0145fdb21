"""A path is never a URL: whatever bytes it is made of, it names the one file that it says."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import fill, process
from tests.support.conversations import ROOT
from tracker import APIConfig, ConfigurationError
from tracker.collector.store import Store
from tracker.errors import readable
from tracker.outbox.schema import create, tables
from tracker.outbox.sqlite.engine import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = [
    *["c#1", "c#2", "e?x=1", "a%20b", "a b", "%", "%zz", "%2F", "?", "#", "&=", "mode=memory"],
    *["new\nline", "  spaces ", "é\U0001f600", "\udce9t\udcff", "file:x", ":memory:", "'\"\\"],
    *["feature%2Ffoo/o", "//doubled//o", "x" * 215],
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_an_outbox_is_the_file_at_its_path(
    config: Callable[..., APIConfig], tmp_path: Path, name: str
) -> None:
    """Beside it lie its companions, and no other file; it opens again, and a migration finds it."""
    settings = config(outbox_path=Path(f"{tmp_path}/{name}"))
    path = settings.outbox_path
    fill(settings, 2)
    fill(settings, 1)
    assert path.read_bytes().startswith(b"SQLite format 3")
    assert {file.name.removesuffix(".lock") for file in path.parent.iterdir()} <= {
        path.name,
        f"{path.name}-wal",
        f"{path.name}-shm",
        f"{path.name}.ballast",
    }
    with make_engine(path, "full", writer=True).connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 3
        create.migrate(connection)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_collectors_database_is_the_file_at_its_path(tmp_path: Path, name: str) -> None:
    """As text, too, even where it has ``://`` in it."""
    for database in (tmp_path / name, f"{tmp_path}/{name}.2", f"{tmp_path}/s://x/{name}"):
        Store(database).close()
        assert Path(database).read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize(
    "path", ["x" * 216, "é" * 108, "y/" * 250 + "o"], ids=["name", "bytes", "path"]
)
def test_a_path_without_room_for_its_companions_is_refused(tmp_path: Path, path: str) -> None:
    """At once, by name, with what is allowed."""
    with pytest.raises(
        ConfigurationError, match=r"outbox_path is too long.*at most 472 bytes, 215"
    ):
        APIConfig(api_key="k", client_id="c", outbox_path=tmp_path / path)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Connecting creates nothing, whatever the path looks like."""
    for name in ("absent", "absent?mode=rwc", "absent#"):
        with pytest.raises(Exception, match="unable to open"):
            make_engine(tmp_path / name, "full", writer=True).connect()
    assert list(tmp_path.iterdir()) == []


def test_developers_migrations_take_a_path(tmp_path: Path) -> None:
    """``alembic -x outbox=FILE`` as well."""
    if not (ROOT / "migrations").is_dir():
        pytest.skip("only in a checkout")
    path = tmp_path / "50%20#1?.sqlite3"
    command = [sys.executable, "-m", "alembic", "-x", f"outbox={path}", "upgrade", "head"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = sqlite3.connect(path)
    assert found.execute("SELECT version_num FROM alembic_version").fetchone() == (tables.HEAD,)
    found.close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_messages_can_be_encoded_whatever_the_path(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are shown by their escapes."""
    folder = tmp_path / "\udce9t"
    folder.mkdir()
    code, stdout, stderr = process("--outbox", os.fsencode(folder / "none").decode("latin-1"))
    assert (code, "Traceback" in stderr) == (2, False)
    with pytest.raises(ConfigurationError) as caught:
        APIConfig(
            api_key="k",
            client_id="c",
            outbox_path=folder / ("x" * 250) / "\udce9" / "",
            base_url="\udce9",
        )
    assert str(caught.value).encode()
    assert readable(folder).endswith("\\udce9t")
    assert stdout == ""
