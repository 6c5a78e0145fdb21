"""`tracker-collector forward` for tests: run to its end, or as a process that goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from tracker.collector.batch import parse_batch
from tracker.collector.main import cli

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from tests.support.collector import EventChain
    from tracker.collector.store import Store

ROOT = Path(__file__).parents[2]


def store_events(
    store: Store,
    chain: EventChain,
    events: list[dict[str, Any]],
    client_id: str = "kiosk-17",
    at_ms: int = 1_790_000_000_000,
) -> None:
    """Store events as a batch that arrives."""
    body = json.dumps(chain.batch(events, client_id)).encode()
    batch = parse_batch(body, client_id)
    assert not batch.rejected
    store.store_batch(batch, at_ms)


def forward(database: str, url: str, *arguments: str) -> Result:
    """Run ``forward --once`` in this process."""
    given = ["forward", "--to", "otlp", "--endpoint", url, "--database", database, *arguments]
    return CliRunner().invoke(cli, [*given, "--once"], prog_name="tracker-collector")


def status(database: str) -> list[dict[str, Any]]:
    """Return what ``forward --status --json`` prints."""
    done = CliRunner().invoke(cli, ["forward", "--status", "--json", "--database", database])
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


class ForwardProcess:
    """``forward`` as a process of its own, which goes on until it is stopped or killed."""

    def __init__(
        self, database: str, url: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tracker.collector.main", "forward", "--to", "otlp"),
                *("--endpoint", url, "--database", database, *arguments),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.end()

    def line(self) -> str:
        """Return the next line that it writes to stderr; empty once it has ended."""
        assert self._process.stderr is not None
        return self._process.stderr.readline()

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit code, and what it wrote to stderr since."""
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return self._process.returncode, ""
        _, said = self._process.communicate(timeout=60)
        return self._process.returncode, said
