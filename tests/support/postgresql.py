"""A private PostgreSQL server for tests, where the machine has the programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNER = "tracker"
_SETTINGS = "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c shared_buffers=16MB"


def why_not() -> str | None:
    """Return why there can be no server here, or None if there can."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'agent-tracking-sdk[postgresql]'"
    if programs() is None:
        return "PostgreSQL's initdb and pg_ctl are not on this machine"
    if os.geteuid() == 0 and unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no other user to run it as"
    return None


class PostgresServer:
    """A server in a folder of its own, on a socket there; gone when the block ends."""

    def __init__(self, folder: Path, settings: str = _SETTINGS) -> None:
        self.folder = folder
        self._settings = settings

    def new_database(self, options: str = "") -> str:
        """Make an empty database, with options of CREATE DATABASE; return its SQLAlchemy URL."""
        name = f"t{uuid.uuid4().hex}"
        self.sql(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def url(self, database: str) -> str:
        """Return a database's SQLAlchemy URL."""
        return f"postgresql+psycopg://{_OWNER}@/{database}?host={self.folder}"

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement and return its rows."""
        engine = sqlalchemy.create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.exec_driver_sql(statement)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def start(self) -> None:
        """Start the server on the data that is there."""
        options = f"-k {self.folder} {self._settings}"
        _run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log",
             "-o", options, "start")  # fmt: skip

    def stop(self) -> None:
        """End the server as a crash would."""
        _run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "immediate", "stop")

    def promote(self) -> None:
        """Make a standby the primary."""
        _run("pg_ctl", "-D", f"{self.folder}/data", "-w", "promote")

    @contextlib.contextmanager
    def standby(self, name: str) -> Iterator[PostgresServer]:
        """Lend a streaming standby of this server, which has begun to follow it."""
        with _folder() as folder:
            _run("pg_basebackup", "-D", f"{folder}/data", "-h", str(self.folder), "-U", _OWNER,
                 "-X", "stream", "-c", "fast", "-N")  # fmt: skip
            (folder / "data" / "standby.signal").touch()
            to = f"host={self.folder} user={_OWNER} application_name={name}"
            with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
                settings.write(f"primary_conninfo = '{to}'\n")
            with _started(PostgresServer(folder, self._settings)) as server:
                yield server


@contextlib.contextmanager
def running_server(settings: str = _SETTINGS, *initdb: str) -> Iterator[PostgresServer]:
    """Lend a server that has just been made. Ask `why_not` before."""
    with _folder() as folder:
        encoding = initdb or ("-E", "UTF8", "--no-locale")
        _run("initdb", "-D", f"{folder}/data", "-U", _OWNER, "-A", "trust", *encoding, "-N")
        with _started(PostgresServer(folder, settings)) as server:
            yield server


@contextlib.contextmanager
def _started(server: PostgresServer) -> Iterator[PostgresServer]:
    server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # a test has stopped it
            server.stop()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Not in pytest's folder: a server that root starts must run as somebody who can enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if os.geteuid() == 0 and (user := unprivileged()):
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: str) -> None:
    folder = programs()
    assert folder is not None
    subprocess.run(
        [folder / program, *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the server keeps it open: a pipe would never end
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=unprivileged() if os.geteuid() == 0 else None,
        timeout=60,
    )


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=_version)
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).resolve().parent if on_path else None


def _version(program: Path) -> int:
    name = program.parts[-3]
    return int(name) if name.isdigit() else 0


def unprivileged() -> str | None:
    """Return the user that PostgreSQL runs as when root starts it."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)
