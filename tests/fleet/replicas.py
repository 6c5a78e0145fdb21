"""Replicas of the collector, started as the page's unit starts them, and kept running."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import requests

import tracker
from tests.fleet.page import block, placed
from tests.fleet.programs import Program, wait_for
from tests.support.collector import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

READY_SECONDS = 120.0
_KILL_ANYWAY_SECONDS = 20.0
_PROGRAM = "/opt/tracker/bin/tracker-collector"
_ROOT = Path(tracker.__file__).parents[1]


class Replica:
    """One collector on a port of its own.

    Args:
        folder: Where its log is, and the witness's key.
        database_url: The database.
        direct_url: The same without PgBouncer between, if there is one.
        arguments: Further arguments for ``serve``.
        port: None takes a free one.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *arguments: str,
        port: int | None = None,
        direct_url: str | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        unit = block("ini", "# /etc/systemd/system/tracker-collector.service")
        (line,) = [each for each in unit.splitlines() if each.startswith("ExecStart=")]
        places = {
            "8081": str(self.port),
            "--workers 4": "--workers 1",  # two cores are for all of them
            "${CREDENTIALS_DIRECTORY}": str(folder),
        }
        words = shlex.split(placed(line.partition("=")[2], places))
        assert words[0] == _PROGRAM
        command = [sys.executable, "-m", "tracker.collector.main", *words[1:], *arguments]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
            "COLLECTOR_DATABASE_URL": database_url,
            "COLLECTOR_DIRECT_DATABASE_URL": direct_url or database_url,
        }
        self.program = Program(f"replica {self.port}", command, folder / f"{self.port}.log",
                               environment)  # fmt: skip

    def is_ready(self) -> bool:
        """Return True if it says that it would store a batch."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/readyz", timeout=3).ok
        return False

    def await_ready(self) -> None:
        try:
            wait_for(self.is_ready, f"{self.program.name} is ready", READY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.program.tail()}") from error


class Keeper:
    """Starts replicas that have ended, as systemd does, and kills some at random, if it is told to.

    Another one is killed when the former victim is ready again, or cannot be for a while: on a
    machine where a start takes longer than the time between kills, there would be none otherwise.

    Args:
        replicas: The replicas.
        seed: Which ones are killed, and when, is drawn from it.
        kill_every: Mean of the seconds until another kill; None kills none.

    Attributes:
        kills: How many were killed.
    """

    def __init__(
        self, replicas: Sequence[Replica], seed: int = 0, kill_every: float | None = None
    ) -> None:
        self.replicas = replicas
        self.kills = 0
        self._random = random.Random(seed)  # noqa: S311 - repeatable
        self._kill_every = kill_every
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper")

    def __enter__(self) -> Self:
        for replica in self.replicas:
            replica.program.start()
        try:
            for replica in self.replicas:
                replica.await_ready()
        except BaseException:
            self._end()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_killing()
        self._stopping.set()
        self._thread.join()
        self._end()

    def restart(self, replica: Replica) -> None:
        """End a replica in order, and wait until its successor is ready."""
        replica.program.end(signal.SIGTERM)
        replica.await_ready()

    def stop_killing(self) -> None:
        """Let all of them run from now on."""
        self._kill_every = None

    def _keep(self) -> None:
        victim, killed_at = self.replicas[0], time.monotonic()
        while not self._stopping.wait(0.1):
            for replica in self.replicas:
                if not replica.program.runs:
                    replica.program.start()
            every = self._kill_every
            if every is None:
                continue
            if victim.is_ready():
                self._stopping.wait(self._random.uniform(every / 2, every * 3 / 2))
            elif time.monotonic() - killed_at < _KILL_ANYWAY_SECONDS:
                continue
            victim, killed_at = self._random.choice(self.replicas), time.monotonic()
            victim.program.end()
            self.kills += 1

    def _end(self) -> None:
        for replica in self.replicas:
            replica.program.end()
