"""PgBouncer between the collector and PostgreSQL, giving out a connection a transaction."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from sqlalchemy import make_url

from tests.support.collector import CollectorClient, CollectorProcess, EventChain, free_port
from tests.support.forwarding import ForwardProcess, forward, store_events
from tests.support.otlp import spans_in, success
from tests.support.postgresql import unprivileged
from tests.support.server import ScriptedServer
from tracker.collector.keys import Keys
from tracker.collector.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgresql import PostgresServer

pytestmark = pytest.mark.faults


@pytest.fixture
def pooled(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new database by way of PgBouncer, which has three connections for all."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not on this machine")
    name = make_url(postgres_server.new_database()).database
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    user = unprivileged() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    (folder / "settings.ini").write_text(
        f"[databases]\n{name} = host={postgres_server.folder} user=tracker\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
    )
    process = subprocess.Popen(
        [program, folder / "settings.ini"], user=user, cwd="/",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await_port(port)
        yield f"postgresql+psycopg://tracker@127.0.0.1:{port}/{name}"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


def await_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("PgBouncer does not listen")


@pytest.mark.timeout(300)
def test_no_batch_and_no_read_fails_behind_a_transaction_pool(
    pooled: str, tmp_path: Path, full: bool
) -> None:
    """Eight clients' batches, resends and reads share three server connections."""
    rounds = 75 if full else 15
    with CollectorProcess(tmp_path, database_url=pooled) as collector:
        clients = [collector.client(f"c{number}") for number in range(8)]

        def work(number: int) -> int:
            client, chain = clients[number], EventChain()
            for _ in range(rounds):
                events = chain.events(5)
                assert client.send(chain, events)["accepted"] == 5
                assert client.send(chain, events)["duplicates"] == 5
                assert len(client.get("/v1/conversations")["conversations"]) == 1
            (outbox,) = client.outboxes()
            assert (outbox["missing"], outbox["chain"]) == ([], "intact")
            return int(outbox["events"])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [5 * rounds] * 8
        assert "storage" not in collector.stderr


def test_a_revoked_key_is_out_at_once_behind_a_transaction_pool(
    pooled: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A LISTEN is deaf there, so each request looks its key up; a way around the pool is heard."""
    direct = postgres_server.url(str(make_url(pooled).database))
    (tmp_path / "other").mkdir()
    around = CollectorProcess(
        tmp_path / "other", database_url=pooled, arguments=["--direct-database", direct]
    )
    with CollectorProcess(tmp_path, database_url=pooled) as through, around:
        deaf = "each request looks its API key up (no NOTIFY comes back"
        assert (deaf in through.stderr, deaf in around.stderr) == (True, False)
        clients = [CollectorClient(each.url, "test-client", through.api_key)
                   for each in (through, around)]  # fmt: skip
        for client in clients * 2:
            assert client.get("/v1/ping") == {"protocol": 1}
        with through.store() as store:
            assert Keys(store).revoke(Keys(store).list()[-1].id)
        time.sleep(0.2)  # what is told needs milliseconds; nothing here shows when it has come
        for client in clients:
            with pytest.raises(requests.HTTPError, match="401"):
                client.get("/v1/ping")


def test_one_process_forwards_and_another_after_its_death(pooled: str) -> None:
    """Its lock is that of a transaction: it holds while others use the pool, and ends with it."""
    store, chain = Store(pooled), EventChain()
    with ScriptedServer() as receiver:
        receiver.otherwise = success()
        store_events(store, chain, chain.events(3))
        with ForwardProcess(pooled, receiver.url):
            receiver.wait_for(1, timeout=30)
            for _ in range(3):
                store_events(store, chain, chain.events(3))
                assert forward(pooled, receiver.url).exit_code == 1
            receiver.wait_for(2, timeout=30)
        store_events(store, chain, chain.events(3))
        assert forward(pooled, receiver.url).exit_code == 0
        assert len({span.span_id for span in spans_in(*receiver.requests)}) == 15
    store.close()
