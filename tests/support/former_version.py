"""The version before, as it was: its files from the history, and its own processes."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import CollectorClient, free_port
from tests.support.conversations import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "6eb23a0a04b93242eb7b89d992d4953a3efbfa54"
"""The last commit before collectors served fleets: no heads, no months, no expiry of keys."""
_READY_SECONDS = 30


class FormerVersion:
    """The version before in a folder; skips the test where there is no history.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        archive = subprocess.run(
            ["git", "archive", "--format=tar", COMMIT, "tracker", "migrations"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        if archive.returncode:
            pytest.skip(f"the commit {COMMIT[:12]} is not in this checkout")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data") if hasattr(
                tarfile, "data_filter"
            ) else files.extractall(folder)  # noqa: S202 - our own files
        self._folder = folder

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self._folder)}

    def run(self, *command: str, **environment: str) -> str:
        """Run a program with that version, as in ``-m tracker.cli.main``; return its output."""
        done = subprocess.run(
            [sys.executable, *command],
            env={**self._environment(), **environment},
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create_key(self, database: str, client_id: str) -> str:
        """Make a key with that version's command."""
        return self.run(
            *("-m", "tracker.collector.main", "keys", "create"),
            *("--client", client_id, "--database", database),
        ).strip()

    @contextlib.contextmanager
    def collector(self, database: str) -> Iterator[str]:
        """Lend the address of a running collector of that version."""
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = ["-m", "tracker.collector.main", "serve", "--port", str(port)]
        process = subprocess.Popen(
            [sys.executable, *command, "--database", database],
            env=self._environment(),
            cwd=self._folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + _READY_SECONDS
            while not _is_ready(url):
                assert process.poll() is None, "it ended"
                assert time.monotonic() < deadline, "it is not ready"
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def at(url: str, client: CollectorClient) -> CollectorClient:
    """Return the same client at another collector."""
    return CollectorClient(url, client.client_id, client.api_key)
