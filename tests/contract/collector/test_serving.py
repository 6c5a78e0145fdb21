"""How `serve` begins, what it takes at once, and how it ends: a real process each."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests
from click.testing import CliRunner

from tests.support.collector import (
    CollectorClient,
    CollectorProcess,
    EventChain,
    ForkedCollector,
    free_port,
)
from tracker.collector.main import cli
from tracker.collector.serving.log_lines import JSONLines, TextLines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "trk_" + "aB3-_" * 8


class Sending:
    """A batch that is sent in two pieces."""

    def __init__(self, process: CollectorProcess, client: CollectorClient) -> None:
        chain = EventChain()
        self._body = json.dumps(chain.batch(chain.events(1), client.client_id)).encode()
        self._socket = socket.create_connection(("127.0.0.1", process.port), timeout=20)
        lines = [
            "POST /v1/events HTTP/1.1",
            "Host: collector",
            f"Content-Length: {len(self._body)}",
            *(f"{name}: {value}" for name, value in client.headers.items()),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def begin(self) -> None:
        self._socket.sendall(self._body[:10])

    def finish(self) -> None:
        self._socket.sendall(self._body[10:])

    def answer(self) -> str:
        """Return the head of the answer."""
        found = b""
        while b"\r\n\r\n" not in found:
            received = self._socket.recv(65536)
            assert received, "the connection ended without an answer"
            found += received
        return found.decode()

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def sending(process: CollectorProcess, client: CollectorClient) -> Iterator[Sending]:
    with contextlib.closing(Sending(process, client)) as found:
        yield found


def own_client(process: CollectorProcess) -> CollectorClient:
    return CollectorClient(process.url, process.client_id, process.api_key)


def await_bodies(process: CollectorProcess, metrics: str, count: int) -> None:
    """Wait until so many bodies are being received."""
    deadline = time.monotonic() + 10
    while f"tracker_collector_bodies {count}.0" not in requests.get(metrics, timeout=10).text:
        assert time.monotonic() < deadline, process.stderr


def ready(process: CollectorProcess) -> tuple[int, str]:
    answer = requests.get(f"{process.url}/readyz", timeout=10)
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def test_batches_are_taken_for_a_while_after_sigterm(tmp_path: Path) -> None:
    """A load balancer sees 503 first, and what it still sends is stored; then it ends with 0."""
    with ForkedCollector(tmp_path, arguments=["--drain-seconds", "2"]) as process:
        client, chain = own_client(process), EventChain()
        with ThreadPoolExecutor(1) as pool:
            code = pool.submit(process.stop)
            while ready(process) != (503, "stopping"):
                assert not code.done()
            assert client.send(chain, chain.events(2))["accepted"] == 2
            assert code.result() == 0
        with process.store() as store:
            assert len(store.events_after("test-client", 0, 10, 10**6)[0]) == 2


def test_a_terminal_that_closes_ends_it_in_order(tmp_path: Path) -> None:
    """SIGHUP does what SIGTERM does: nobody sends it to have requests cut off."""
    process = CollectorProcess(tmp_path)
    process.start()
    os.kill(process.pid, signal.SIGHUP)
    assert process.stop() == 0


def test_a_batch_that_is_being_stored_gets_its_receipt(tmp_path: Path) -> None:
    """It waits for another writer when SIGTERM comes."""
    port = free_port()
    with (
        ForkedCollector(tmp_path, arguments=["--metrics-port", str(port)]) as process,
        process.store() as store,
        ThreadPoolExecutor(2) as pool,
    ):
        client, chain = own_client(process), EventChain()
        with store.writing("another"):
            receipt = pool.submit(client.send, chain, chain.events(3))
            await_bodies(process, f"http://127.0.0.1:{port}/metrics", 1)
            code = pool.submit(process.stop)
            await_refusal(process)
        assert receipt.result()["accepted"] == 3
        assert code.result() == 0


def test_a_body_that_is_under_way_gets_its_receipt(tmp_path: Path) -> None:
    """The rest of it comes after SIGTERM."""
    port = free_port()
    with ForkedCollector(tmp_path, arguments=["--metrics-port", str(port)]) as process:
        client = own_client(process)
        with sending(process, client) as batch, ThreadPoolExecutor(1) as pool:
            batch.begin()
            await_bodies(process, f"http://127.0.0.1:{port}/metrics", 1)
            code = pool.submit(process.stop)
            await_refusal(process)
            batch.finish()
            assert batch.answer().startswith("HTTP/1.1 200")
            assert code.result() == 0


def await_refusal(process: CollectorProcess) -> None:
    """Wait until nobody can connect any more."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", process.port), 1).close()
        except OSError:
            return
    raise AssertionError("it still listens")


def test_too_many_bodies_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """503 with a pause; a client that has its part is refused alone."""
    port = free_port()
    metrics = f"http://127.0.0.1:{port}/metrics"
    arguments = ["--in-flight", "4", "--metrics-port", str(port)]
    with ForkedCollector(tmp_path, arguments=arguments) as process:
        slow, other, third = (process.client(name) for name in ("slow", "other", "third"))
        chain = EventChain()
        with contextlib.ExitStack() as stack:
            for client, count in ((slow, 1), (slow, 2)):
                stack.enter_context(sending(process, client)).begin()
                await_bodies(process, metrics, count)
            refused = stack.enter_context(sending(process, slow)).answer()
            assert refused.startswith("HTTP/1.1 503")
            assert "retry-after: " in refused.lower()
            assert other.send(chain, chain.events(1))["accepted"] == 1
            for count in (3, 4):
                stack.enter_context(sending(process, other)).begin()
                await_bodies(process, metrics, count)
            assert stack.enter_context(sending(process, third)).answer().startswith("HTTP/1.1 503")
        await_bodies(process, metrics, 0)
        assert third.send(EventChain(), EventChain().events(1))["accepted"] == 1


def test_metrics_count_what_happened_and_name_nobody(tmp_path: Path) -> None:
    """Requests by route and status, events by what became of them."""
    port = free_port()
    with ForkedCollector(tmp_path, arguments=["--metrics-port", str(port)]) as process:
        client, chain = process.client("kiosk-17"), EventChain()
        events = chain.events(3)
        client.send(chain, events)
        client.send(chain, [*events, {"event_id": "no"}])
        client.get("/v1/outboxes")
        with pytest.raises(requests.HTTPError, match="404"):
            client.get("/v1/conversations/of-ada")
        found = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    for line in (
        'requests_total{route="/v1/conversations/{session_id}",status="404"} 1.0',
        'tracker_collector_events_total{outcome="accepted"} 3.0',
        'tracker_collector_events_total{outcome="duplicate"} 3.0',
        'tracker_collector_events_total{outcome="rejected"} 1.0',
        'tracker_collector_requests_total{route="/v1/events",status="200"} 2.0',
        "tracker_collector_batch_seconds_count 2.0",
        "tracker_collector_database_connections 0.0",
    ):
        assert line in found
    assert not [name for name in ("kiosk", "ada", chain.outbox_id, "session-1") if name in found]


def test_each_line_of_the_log_is_an_object(tmp_path: Path) -> None:
    """How it starts, what fails, and what libraries say; the key of a client is in none."""
    arguments = ["--log-format", "json", "--no-ui"]
    process = CollectorProcess(tmp_path, arguments=arguments)
    command = [sys.executable, "-m", "tracker.collector.main", "serve", "--port", str(process.port),
               "--database", str(process.database), *arguments]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            first = json.loads(running.stderr.readline())
            assert first["message"] == f"listening on {process.url}"
            assert first["level"] == "INFO"
            process.database.unlink()
            answer = own_client(process).post(EventChain().batch(EventChain().events(1)))
            assert answer.status_code == 503
            with socket.create_connection(("127.0.0.1", process.port)) as odd:
                odd.sendall(b"\0\r\n\r\n")
                assert odd.recv(100)
        finally:
            running.terminate()
        lines = [json.loads(line) for line in running.stderr]
    assert {"time", "level", "logger", "message", "process"} <= {*lines[0]}
    said = [line["logger"] for line in lines]
    assert said[:2] == ["tracker.collector.answers", "uvicorn.error"]
    assert process.api_key not in json.dumps(lines)


@pytest.mark.parametrize("formatter", [JSONLines(), TextLines()])
def test_no_line_shows_a_key(formatter: logging.Formatter) -> None:
    """Whatever puts it into a message, a field or an exception."""
    try:
        raise ValueError(SECRET)
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "p", 1, "of %s", (SECRET,), sys.exc_info())
    record.field = SECRET
    shown = formatter.format(record)
    assert SECRET not in shown
    assert shown.count("trk_[masked]") >= 2


def test_why_it_does_not_start_is_an_object_too(tmp_path: Path) -> None:
    """Whoever reads the log by a program reads this first."""
    command = [sys.executable, "-m", "tracker.collector.main", "serve", "--log-format", "json"]
    wrong = ["--database", str(tmp_path / "collector.sqlite3"), "--durability", "replicated"]
    ended = subprocess.run([*command, *wrong], stderr=subprocess.PIPE, text=True, check=False)
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert "an SQLite file has no replicas" in line["message"]
    assert (ended.returncode, line["level"]) == (2, "ERROR")


def test_json_lines_have_the_fields_that_were_given() -> None:
    """As `extra`, also where JSON does not have their kind."""
    record = logging.makeLogRecord({"msg": "done", "worker": 3, "where": {1}})
    shown = json.loads(JSONLines().format(record))
    assert (shown["message"], shown["worker"], shown["where"]) == ("done", 3, "{1}")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--workers", "2"], "one writer: --workers needs PostgreSQL"),
        (["--direct-database", "postgresql://a/b"], "only for PostgreSQL"),
        (["--rate", "2", "--replicas", "3"], "cannot be shared by 3"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, arguments: list[str], why: str
) -> None:
    """Before anything is made."""
    database = tmp_path / "new.sqlite3"
    run = CliRunner().invoke(cli, ["serve", "--port", "0", "--database", str(database), *arguments])
    assert (run.exit_code, why in run.stderr) == (2, True), run.stderr
    assert not database.exists()
