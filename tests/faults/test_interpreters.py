"""Forks, pools, exits, signals, stops, other schedulers: nothing acknowledged is lost."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import requests

from tests.faults import oracle
from tests.migration.test_schema import FIXTURES, restore
from tests.support import agent
from tests.support.collector import free_port
from tests.support.conversations import ROOT
from tests.support.opened import client_of
from tracker import AgentPerformanceTracker, APIConfig, SchemaVersionError
from tracker.outbox.integrity import verify
from tracker.outbox.outbox import Outbox
from tracker.outbox.schema import create, tables
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def settings(config: Callable[..., APIConfig]) -> APIConfig:
    return config(base_url=NOWHERE)


def environment(settings: APIConfig) -> dict[str, str]:
    return {
        **os.environ,
        "SDK_API_KEY": settings.api_key,
        "SDK_CLIENT_ID": settings.client_id,
        "SDK_BASE_URL": settings.base_url,
        "SDK_OUTBOX_PATH": str(settings.outbox_path),
        # That a process with threads forks is what is tested.
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }


def start(settings: APIConfig, role: str, *arguments: object) -> subprocess.Popen[str]:
    notes = settings.outbox_path.with_name("notes")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.programs", role, str(notes), *map(str, arguments)],
        env=environment(settings),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(settings: APIConfig, role: str, *arguments: object, code: int = 0) -> str:
    """Run a program to its end and return what it wrote to stderr."""
    process = start(settings, role, *arguments)
    _, said = process.communicate(timeout=500)
    assert process.returncode == code, said
    return said


def acknowledged(settings: APIConfig) -> list[str]:
    notes = settings.outbox_path.with_name("notes")
    return [note["id"] for note in agent.read_notes(notes)]


def check(settings: APIConfig, *, unnoted: int = 0) -> int:
    """Deliver the outbox and compare with what was acknowledged; return how many that were.

    Args:
        unnoted: How many calls may have been cut off between their commit and their note.
    """
    expected = acknowledged(settings)
    destination = RecordingDestination()
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        fresh = tracker.log_user_message("fresh", "after all that")
        assert tracker.flush(timeout=60).pending == 0
    arrived = Counter(event["event_id"] for event in oracle.logged(destination.events))
    assert set(arrived.values()) == {1}
    assert set(expected) - set(arrived) == set(), "acknowledged, and lost"
    assert len(arrived) - len(expected) - 1 <= unnoted, "nothing was invented"
    assert oracle.logged(destination.events)[-1]["event_id"] == fresh
    seqs = [event["seq"] for event in destination.events]
    assert seqs == list(range(1, len(seqs) + 1))
    outbox = Outbox(settings)
    with outbox.snapshot() as connection:
        assert verify.verify(connection).problems == ()
    outbox.close()
    return len(expected)


@pytest.fixture
def report(tell: Callable[[str], None], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a test's figures in the full run."""
    return lambda figures: tell(f"{request.node.name} | {figures}")


def test_forks_while_others_log(
    settings: APIConfig, full: bool, report: Callable[[str], None]
) -> None:
    """A thread forks child after child while others log: every child can log at once."""
    children = 300 if full else 12
    run(settings, "forks", children)
    report(f"{children} children, {check(settings)} events acknowledged, 0 lost")


def test_children_that_log_at_once(
    settings: APIConfig, full: bool, report: Callable[[str], None]
) -> None:
    """Fifty forked children, all at once, ten events each: nobody fails, nothing is lost."""
    rounds = 5 if full else 1
    for _ in range(rounds):
        run(settings, "bomb", 50)
    count = check(settings)
    assert count == rounds * 501
    report(f"{rounds} x 50 children, {count} events, 0 lost")


def test_fork_while_a_lock_is_held(settings: APIConfig) -> None:
    """Each lock is held by another thread at the fork: child and parent go on logging."""
    run(settings, "held_locks")
    assert check(settings) == 6 * 6


def test_fork_in_the_midst_of_an_import(settings: APIConfig) -> None:
    """A fork right after the start, as with gunicorn's --preload: the child uploads too."""
    run(settings, "importing")
    assert check(settings) == 2


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_that_replace_their_workers(settings: APIConfig, method: str, full: bool) -> None:
    """`multiprocessing` pools of each kind: workers come and go, all tasks' events are there."""
    tasks = 300 if full else 6
    run(settings, "pool", method, tasks)
    assert check(settings) == tasks + 2


def test_commands_started_meanwhile(settings: APIConfig) -> None:
    """`subprocess` children inherit no lock, with ``close_fds=False`` too."""
    run(settings, "command")
    check(settings)


def test_what_returned_before_os_exit_is_stored(settings: APIConfig, full: bool) -> None:
    """`os._exit` under other threads' calls loses nothing that returned."""
    rounds = 30 if full else 2
    for _ in range(rounds):
        run(settings, "os_exit")
    check(settings, unnoted=3 * rounds)


def test_threads_that_exit(settings: APIConfig) -> None:
    """`sys.exit` and unhandled errors in threads concern these threads alone."""
    run(settings, "thread_exit")
    assert check(settings) == 11


def test_a_program_that_ends_by_an_error_can_still_log_it(settings: APIConfig) -> None:
    """A program that ends by an error can still log that, and ends with that error's code."""
    run(settings, "unhandled", code=1)
    assert check(settings) == 2


def test_interpreter_shutdown(
    settings: APIConfig, full: bool, report: Callable[[str], None]
) -> None:
    """Daemon threads log until the interpreter is gone: no error, nothing acknowledged is lost.

    What they and others log after the tracker's own exit handler is stored too.
    """
    rounds = 30 if full else 2
    for _ in range(rounds):
        assert run(settings, "shutdown") == ""
    noted = check(settings, unnoted=4 * rounds)
    assert noted > 2 * rounds
    report(f"{rounds} interpreters ended under 4 daemon threads, {noted:,} events, 0 lost")


def test_signal_handlers_that_log(
    settings: APIConfig, full: bool, report: Callable[[str], None]
) -> None:
    """A handler that interrupts the same thread's calls anywhere logs too, without deadlock."""
    run(settings, "signals", 60 if full else 2)
    report(f"{check(settings)} events, 0 lost")


def test_awaits_that_ended_are_stored_and_cancelled_ones_at_most_once(
    settings: APIConfig, full: bool, report: Callable[[str], None]
) -> None:
    """Awaits cancelled at random moments: those that ended are stored, the others at most once."""
    calls = 10_000 if full else 400
    run(settings, "cancelled", calls)
    ended = len(acknowledged(settings))
    assert calls // 2 <= ended
    check(settings, unnoted=calls - ended)
    report(f"{calls} awaits, {calls - ended} cancelled, 0 lost")


def test_greenlets_log_as_threads_do(settings: APIConfig, full: bool) -> None:
    """Everything patched by gevent: greenlets log as threads do, and the process ends."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    greenlets = 500 if full else 50
    run(settings, "greenlets", greenlets)
    assert check(settings) == 10 * greenlets


def test_web_server_that_loads_before_it_forks(
    settings: APIConfig, full: bool, report: Callable[[str], None]
) -> None:
    """gunicorn with --preload: workers log with the tracker that was made before the fork.

    One of them is killed and replaced in between.
    """
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed")
    requests_made = 2_000 if full else 60
    notes = agent.Notes(settings.outbox_path.with_name("notes"))
    with web_server(settings) as (url, workers):
        for number in range(requests_made):
            if number == requests_made // 2:
                os.kill(workers()[0], signal.SIGKILL)
            try:
                answer = requests.get(f"{url}/{number}", timeout=30)
            except requests.ConnectionError:
                continue  # the killed worker had it
            assert answer.status_code == 200
            notes.add(id=answer.text)
    count = check(settings, unnoted=6)
    assert count >= requests_made - 5
    report(f"{count} requests, a worker killed, 0 lost")


@contextmanager
def web_server(settings: APIConfig) -> Iterator[tuple[str, Callable[[], list[int]]]]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind"]
    command += [f"127.0.0.1:{port}", "--log-level", "error", "tests.faults.wsgi:application"]
    server = subprocess.Popen(command, env=environment(settings), cwd=ROOT)
    url = f"http://127.0.0.1:{port}"

    def workers() -> list[int]:
        listed = subprocess.run(
            ["pgrep", "-P", str(server.pid)], check=True, capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    try:
        await_(lambda: answers(url))
        yield url, workers
    finally:
        server.terminate()
        server.wait(30)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=30).ok
    except requests.ConnectionError:
        return False


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_a_process_stopped_inside_a_write(settings: APIConfig) -> None:
    """It holds the write lock: others wait for a bounded time, then log into memory.

    When it goes on, everything of both is written.
    """
    other = start(settings, "stopped")
    assert other.stdout is not None
    assert other.stdout.readline() == "stopping\n"
    await_(lambda: is_stopped(other.pid))
    notes = agent.Notes(settings.outbox_path.with_name("notes"))
    tracker = AgentPerformanceTracker(settings, destination=RecordingDestination)
    outbox = client_of(settings.outbox_path).outbox
    outbox.connections.write_connection._lock.patience = 0.5
    began = time.monotonic()
    for number in range(20):
        notes.add(id=tracker.log_user_message("waits", str(number)))
    assert time.monotonic() - began < 5
    assert outbox.buffered == 20
    other.send_signal(signal.SIGCONT)
    assert other.wait(30) == 0
    other.communicate()
    await_(lambda: outbox.buffered == 0)
    with outbox.snapshot() as connection:
        rows = connection.exec_driver_sql("SELECT event_id FROM events").all()
    tracker.close()
    assert sorted(event_id for (event_id,) in rows) == sorted(acknowledged(settings))


def is_stopped(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], check=True, capture_output=True, text=True
    )
    return state.stdout.startswith("T")


def test_a_newer_version_migrates_under_an_older_one(settings: APIConfig) -> None:
    """The older process's writes go on, gap-free; started anew, it is refused, and says why."""
    settings = replace(settings, client_id="fixture")
    restore(FIXTURES / "outbox_0002.sql", settings.outbox_path)
    older = start(settings, "older")
    assert older.stdin is not None
    assert older.stdout is not None

    def older_logs(count: int) -> None:
        print(count, file=older.stdin, flush=True)

    assert older.stdout.readline() == "opened\n", older.communicate()
    older_logs(100)  # the migration falls somewhere into these
    destination = RecordingDestination()
    notes = agent.Notes(settings.outbox_path.with_name("notes"))
    with AgentPerformanceTracker(settings, destination=lambda: destination) as tracker:
        for number in range(100):
            notes.add(id=tracker.log_user_message("newer", str(number)))
        assert older.stdout.readline() == "logged\n"
        older_logs(20)
        assert older.stdout.readline() == "logged\n"
        older.communicate()
        assert older.returncode == 0
        with client_of(settings.outbox_path).outbox.snapshot() as connection:
            rows = connection.exec_driver_sql("SELECT event_id FROM events").all()
            assert verify.verify(connection).problems == ()
            assert create.is_current(connection)
    assert len(acknowledged(settings)) == 221
    assert set(acknowledged(settings)) <= {event_id for (event_id,) in rows}
    again = run(settings, "older", code=1)
    assert f"{SchemaVersionError.__name__}: " in again
    assert f"has the schema revision {tables.HEAD!r}" in again
