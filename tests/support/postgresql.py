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
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNER = "tracker"
_SETTINGS = "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c shared_buffers=16MB"


def why_not() -> str | None:
    """Return why there can be no server here, or None if there can."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'agent-tracking-sdk[postgresql]'"
    if _programs() is None:
        return "PostgreSQL's initdb and pg_ctl are not on this machine"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no other user to run it as"
    return None


class PostgresServer:
    """A server on a socket in a folder of its own; both are gone when the block ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_database(self) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = f"t{uuid.uuid4().hex}"
        engine = sqlalchemy.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{_OWNER}@/{database}?host={self._folder}"


@contextlib.contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Lend a server that has just been made. Ask `why_not` before."""
    # Not in pytest's folder: a server that root starts must run as somebody who can enter.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if os.geteuid() == 0 and (user := _unprivileged()):
            shutil.chown(folder, user)
        data = str(folder / "data")
        _run("initdb", "-D", data, "-U", _OWNER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        options, log = f"-k {folder} {_SETTINGS}", str(folder / "log")
        _run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
        try:
            yield PostgresServer(folder)
        finally:
            _run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: str) -> None:
    programs = _programs()
    assert programs is not None
    subprocess.run(
        [programs / program, *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the server keeps it open: a pipe would never end
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=_unprivileged() if os.geteuid() == 0 else None,
        timeout=60,
    )


def _programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=_version)
    if found:
        return found[-1].parent
    on_path = shutil.which("pg_ctl")
    return Path(on_path).resolve().parent if on_path else None


def _version(program: Path) -> int:
    name = program.parts[-3]
    return int(name) if name.isdigit() else 0


def _unprivileged() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)
