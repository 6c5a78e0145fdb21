"""The process's default tracker, made on first use."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import tracker
from tests.support.settings import quick
from tracker import ConfigurationError
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def received(tmp_path: Path) -> Iterator[RecordingDestination]:
    """What the default tracker delivers, which is another tracker in each test."""
    destination = RecordingDestination()
    tracker.configure(quick(tmp_path), destination=lambda: destination)
    yield destination
    tracker.get_tracker().close()


def types(received: RecordingDestination) -> list[str]:
    tracker.get_tracker().flush()
    return [event["type"] for event in received.events]


def run(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SDK_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**kept, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_functions_of_the_module_log_to_the_default_tracker(
    received: RecordingDestination,
) -> None:
    @tracker.observe
    def find_order(number: int) -> str:
        return f"order {number}"

    with tracker.conversation("agent_123", user_id="user_7") as c:
        c.user("Where is order 7?")
        assert find_order(7) == "order 7"
    assert types(received) == [
        "conversation.started", "message.logged", "function.observed", "conversation.ended",
    ]  # fmt: skip


def test_all_threads_get_the_same_tracker(received: RecordingDestination) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: tracker.get_tracker(), range(64)))
    assert len(found) == 1


def test_it_cannot_be_configured_otherwise_once_it_is_used(
    received: RecordingDestination, tmp_path: Path
) -> None:
    tracker.get_tracker()
    with pytest.raises(ConfigurationError, match="before its first use"):
        tracker.configure(quick(tmp_path, retention_days=1))


def test_after_its_end_the_next_use_makes_another(
    received: RecordingDestination, tmp_path: Path
) -> None:
    first = tracker.get_tracker()
    first.close()
    tracker.configure(quick(tmp_path, retention_days=1))
    assert tracker.get_tracker() is not first
    assert tracker.get_tracker().config.retention_days == 1


def test_settings_are_given_by_keyword_too(tmp_path: Path) -> None:
    tracker.configure(api_key="k", outbox_path=tmp_path / "o.sqlite3", disabled=True)
    assert tracker.get_tracker().config.disabled
    tracker.get_tracker().close()


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no setting enviroment"):
        tracker.configure(enviroment="production")


def test_a_configuration_and_settings_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="disabled"):
        tracker.configure(quick(tmp_path), disabled=True)


BROKEN: list[tuple[dict[str, str], str]] = [
    ({}, "SDK_API_KEY"),
    ({"SDK_RETENTION_DAYS": "many"}, "SDK_RETENTION_DAYS"),
    ({"SDK_CONFIG_FILE": "missing.toml"}, "missing.toml"),
    ({"SDK_TAGS": "email=a@example.com"}, "SDK_TAGS"),
    ({"SDK_DISABLED": "perhaps"}, "SDK_DISABLED"),
    ({"SDK_API_KEY": "k", "SDK_OUTBOX_PATH": "gone/o.sqlite3"}, "SDK_OUTBOX_PATH"),
]


@pytest.mark.parametrize(("environment", "named"), BROKEN, ids=[named for _, named in BROKEN])
def test_a_library_works_where_no_tracker_can_be_made(
    tmp_path: Path, environment: dict[str, str], named: str
) -> None:
    """Its functions run as if they were not observed, and the log says why nothing is recorded."""
    program = """
import logging, os
logging.basicConfig(format="%(message)s")
import tracker

@tracker.observe
def double(number):
    with tracker.span("double", input=number):
        return number * 2

os.mkdir("cwd")
os.chdir("cwd")
os.rmdir("../cwd")
print(double(2), double(3))
"""
    done = run(program, tmp_path, **environment)
    assert (done.returncode, done.stdout) == (0, "4 6\n")
    assert done.stderr.count("nothing is recorded") == 1
    assert named in done.stderr


def test_what_it_logged_is_on_disk_when_the_program_ends_without_a_word(tmp_path: Path) -> None:
    program = """
import os, tracker
with tracker.conversation("agent_123") as c:
    c.user("Hello!")
child = os.fork()
if child == 0:
    tracker.get_tracker().track("child.spoke")
    os._exit(0)
os.waitpid(child, 0)
"""
    nowhere, outbox = "http://127.0.0.1:9", tmp_path / "o.sqlite3"
    environment = {"SDK_API_KEY": "k", "SDK_CLIENT_ID": "c", "SDK_OUTBOX_PATH": str(outbox)}
    # Python 3.12 warns of any fork beside threads; that of the sync thread is prepared for.
    environment["PYTHONWARNINGS"] = "ignore::DeprecationWarning"
    done = run(program, tmp_path, SDK_BASE_URL=nowhere, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    tracker.configure(quick(tmp_path, outbox_path=outbox, client_id="c", base_url=nowhere))
    whole = tracker.get_tracker().list_conversations()
    assert [each.agent_id for each in whole] == ["agent_123"]
    assert tracker.get_tracker().health().pending == 4
    tracker.get_tracker().close(timeout=0)
