"""Keys for many clients are made while SIGKILL ends the command at random instants."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.conversations import ROOT
from tracker.collector.keys import Keys
from tracker.collector.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgresql import PostgresServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1_200)]

CLIENTS = 4_000


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_client_has_one_key_and_the_file_has_it(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """However often the command was killed before it came to its end."""
    database = str(tmp_path / "c.sqlite3")
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = server.new_database()
    Store(database).close()
    clients = [f"kiosk-{number}" for number in range(CLIENTS)]
    asked, output = tmp_path / "clients", tmp_path / "keys.csv"
    asked.write_text("\n".join(clients), "utf-8")
    options = ["--clients", str(asked), "--output", str(output), "--database", database]
    command = [sys.executable, "-m", "tracker.collector.main", "keys", "create", *options]
    chance = random.Random(16)  # noqa: S311 - repeatable
    full: bool = request.config.getoption("--full")
    trial = [sys.executable, "-m", "tracker.collector.main", "keys", "list", *options[-2:]]
    began = time.monotonic()
    run_to_its_end(trial)
    start = time.monotonic() - began
    kills = 0
    for _ in range(30 if full else 10):
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
        try:
            process.wait(start * chance.uniform(0.5, 2.5))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        if output.exists():
            check(output, database, clients)
            output.unlink()
            Store(database).close()
            clients = [f"{client}+" for client in clients]
            asked.write_text("\n".join(clients), "utf-8")
    run_to_its_end(command)
    check(output, database, clients)
    assert kills > 0
    print(f"{kind}: {kills} kills")  # noqa: T201 - the figure


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_to_its_end(command: list[str]) -> None:
    subprocess.run(command, env=environment(), check=True, capture_output=True)


def check(output: Path, database: str, clients: list[str]) -> None:
    """Every client has one key, which is valid and in the file."""
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["client_id"] for row in rows] == clients
    store = Store(database)
    try:
        wanted = set(clients)
        known = [key for key in Keys(store).list() if key.client_id in wanted]
        assert {key.id: key.client_id for key in known} == {
            int(row["key_id"]): row["client_id"] for row in rows
        }
        assert len(known) == len(clients)
        for row in rows[:: len(rows) // 20]:
            found = Keys(store).find(row["key"])
            assert found is not None
            assert found.client_id == row["client_id"]
    finally:
        store.close()
