"""What every test gets: its own environment, quick settings, and a check on what it leaves."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest

from tests.support import opened
from tests.support.collector import CollectorClient, CollectorProcess, ForkedCollector
from tests.support.postgresql import PostgresServer, running_server, why_not
from tests.support.server import ScriptedServer
from tests.support.settings import quick

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.config import APIConfig

# A busy machine is slow now and then; that says nothing about the property. Fewer examples than
# usual, for CI runs the suite on every Python.
hypothesis.settings.register_profile("tests", deadline=None, max_examples=50)
hypothesis.settings.load_profile("tests")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_NETWORK = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)

_MEMORY = "/dev/shm"  # noqa: S108 - pytest makes a folder of the user's own in it
_ENOUGH_BYTES = 2 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the fault suite be run in full."""
    parser.addoption("--full", action="store_true", help="run the fault suite in full")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of the fast tests in memory, where Linux has room for them.

    They would wait for the disk a good part of the time. What a disk does is for the other tests.
    """
    has_memory = os.access(_MEMORY, os.W_OK)
    if _is_fast(config) and has_memory and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)


def _is_fast(config: pytest.Config) -> bool:
    return bool(
        config.option.markexpr
        == "not slow and not faults and not backends and not frameworks and not browser"
        " and not fleet"
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run the fast tests in half as many more workers as there are cores: most wait now and then.

    Not the others, many of which measure time or load the machine by themselves.
    """
    if not _is_fast(config):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) * 3 // 2


class MakeConfig(Protocol):
    """Type of the `config` fixture."""

    def __call__(self, **changes: Any) -> APIConfig: ...


@pytest.fixture(scope="session", autouse=True)
def _no_settings() -> None:
    """Hide the developer's own settings, from what all tests share as well."""
    for name in list(os.environ):
        if name.startswith(("SDK_", "COLLECTOR_", "OTEL_")) or name.upper() in _NETWORK:
            del os.environ[name]


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the developer's own files, and see that the test closes what it opened."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shared = opened.paths()  # by fixtures of a wider scope
    yield
    left = opened.close_all(but=shared)
    threads = [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    assert not left, f"trackers were left open on {', '.join(map(str, left))}"
    assert not threads, f"threads were left running: {', '.join(threads)}"


@pytest.fixture
def config(tmp_path: Path) -> MakeConfig:
    """Make configurations with an outbox in `tmp_path` and pauses too short to notice."""
    return partial(quick, tmp_path)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    """A collector of the test's own, to stop, kill or damage; `api_key` is for ``test-client``."""
    with ForkedCollector(tmp_path) as process:
        yield process


@pytest.fixture(scope="session")
def shared_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """A collector that runs for all tests; starting one takes longer than most of them."""
    with ForkedCollector(tmp_path_factory.mktemp("collector")) as process:
        yield process
    assert process.stderr.count("\n") == 1, "it logged more than its one line: " + process.stderr


@pytest.fixture
def client(shared_collector: CollectorProcess) -> CollectorClient:
    """A client of its own for each test, so that no test sees another's events."""
    return shared_collector.client(f"client-{uuid.uuid4()}")


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """A running server that answers as it is told; valid receipts, unless told otherwise."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the tests' own."""
    if reason := why_not():
        pytest.skip(reason)
    with running_server() as server:
        yield server
