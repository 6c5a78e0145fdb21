"""One configuration file for the application and for what cron and services run beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT, process, start
from tests.support.uploads import account_of, state_of, wait_until
from tracker import APIConfig
from tracker.collector.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.collector import CollectorProcess

APPLICATION = """
from tracker import Tracker
with Tracker() as tracker:
    tracker.track("door.opened", {"door_code": "green-window-4711"})
    tracker.close(timeout=0)
"""


@pytest.fixture
def file(tmp_path: Path, collector: CollectorProcess) -> Path:
    """The file, the key beside it, and the outbox in a folder beside that."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "api-key").write_text(f"{collector.api_key}\n")
    path = etc / "tracker.toml"
    path.write_text(
        f"""
        api_key_file = "api-key"
        client_id = "test-client"
        base_url = "{collector.url}"
        outbox_path = "../state/events.sqlite3"
        flush_interval = 0
        retention_days = 0
        secret_names = ["door_code"]
        retention = {{door.opened = 30}}
        """
    )
    return path


def log_once(file: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SDK_CONFIG_FILE": str(file)}
    subprocess.run([sys.executable, "-c", APPLICATION], env=environment, check=True, timeout=60)


@pytest.fixture
def uploader(file: Path) -> Iterator[subprocess.Popen[str]]:
    """`tracker-sync run` with the same file, in another folder."""
    running = start("--config", file, "run", cwd="/")
    yield running
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said


def test_flush_and_prune_keep_to_the_applications_settings(
    file: Path, collector: CollectorProcess
) -> None:
    """Where the events are and go, with which key, what is masked, and what stays."""
    log_once(file)
    environment = {"SDK_CONFIG_FILE": str(file)}
    assert process("flush", environment=environment)[0] == 0
    [event] = collector.events()
    assert "green-window-4711" not in str(event["data"])
    code, said, _ = process("prune", "--json", environment=environment)
    assert (code, '"removed": 0' in said) == (0, True)
    assert process("doctor", environment=environment)[0] == 0


def test_a_rotated_key_is_used_without_a_restart(
    file: Path, collector: CollectorProcess, uploader: subprocess.Popen[str]
) -> None:
    """Where a sidecar uploads; it waits for minutes after a refusal, but not for a new key."""
    config = APIConfig(config_file=file)
    log_once(file)
    wait_until(lambda: len(collector.events()) == 1, "delivery with the first key", timeout=30)
    revoke_all(collector)
    log_once(file)
    wait_until(lambda: state_of(config).paused_because is not None, "the refusal", timeout=30)
    renewed = file.with_name("new")
    renewed.write_text(collector.create_key("test-client"))
    renewed.replace(file.with_name("api-key"))
    wait_until(lambda: account_of(config).pending == 0, "delivery with the new key", timeout=30)
    assert uploader.poll() is None


def revoke_all(collector: CollectorProcess) -> None:
    """Revoke the client's keys, but not those with which the test reads."""
    with collector.store() as store:
        keys = Keys(store)
        for key in keys.list():
            if key.client_id is not None:
                keys.revoke(key.id)
