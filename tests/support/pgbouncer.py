"""PgBouncer in front of a PostgreSQL server, where the machine has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from tests.support.collector import free_port
from tests.support.postgresql import unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgresql import PostgresServer


@contextlib.contextmanager
def running_pgbouncer(
    server: PostgresServer, url: str, mode: str = "transaction", size: int = 3
) -> Iterator[str]:
    """Lend the URL of a database by way of PgBouncer; skip the test if there is none."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not on this machine")
    name, port = make_url(url).database, free_port()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    user = unprivileged() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    (folder / "settings.ini").write_text(
        f"[databases]\n{name} = host={server.folder} user=tracker\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    process = subprocess.Popen(
        [program, folder / "settings.ini"], user=user, cwd="/",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await_port(port)
        yield f"postgresql+psycopg://tracker@127.0.0.1:{port}/{name}"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("PgBouncer does not listen")
