"""Fault 10, intrusion: the API key, and a collector that strangers can reach."""

# ruff: noqa: E501 - lists of hostile input

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.cli import ROOT
from tests.support.collector import CollectorClient, CollectorProcess, EventChain, free_port
from tests.support.server import Request, ScriptedServer, answer, redirect
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tests.support.server import Answer

pytestmark = pytest.mark.faults

KEY = "sk-live-0123456789-do-not-show"


def echoing(status: int) -> object:
    """Return a reply that says the key in every place that an answer has."""

    def reply(request: Request) -> Answer:
        said = request.headers.get("authorization", "")
        body = {"error": {"code": said, "message": f"the key {said} is odd"}}
        return answer(status, body, {"Location": f"/{said}", "Retry-After": "0", "Date": said})

    return reply


def test_the_key_is_shown_nowhere(
    config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the outbox's files, the log at DEBUG, the process list, nor at another host."""
    with ScriptedServer() as server, ScriptedServer() as elsewhere:
        replies = [echoing(status) for status in (200, 400, 401, 403, 404, 413, 429, 500)]
        replies += [redirect(code, elsewhere.url) for code in (301, 302, 303, 307, 308)]
        shown, folder = "", tmp_path / "outboxes"
        for number, reply in enumerate(replies):
            server.script(reply)  # type: ignore[arg-type]  # replies, whatever made them
            path = folder / str(number)
            settings = config(base_url=server.url, api_key=KEY, outbox_path=path, read_timeout=1)
            with caplog.at_level(logging.DEBUG), AgentPerformanceTracker(settings) as tracker:
                tracker.log_user_message("s", "x")
                server.wait_for(number + 1)
                tracker.close(0)
                shown += repr(tracker) + repr(settings)
        files = b"".join(path.read_bytes() for path in folder.iterdir())
        assert elsewhere.requests == []
    assert KEY not in shown + caplog.text
    assert KEY.encode() not in files


def test_the_key_is_not_in_the_process_list(tmp_path: Path) -> None:
    """Commands take it from the environment only: arguments are everybody's to read."""
    for command in ("flush", "run", "doctor"):
        shown = subprocess.run(
            [sys.executable, "-m", "tracker.cli.main", command, "--help"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        assert "--api-key" not in shown


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with CollectorProcess(tmp_path_factory.mktemp("collector")) as process:
        yield process


INJECTED = ["' OR '1'='1", "'; DROP TABLE events; --", '" OR 1=1 --', "%00", "../../etc/passwd",
            "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/", "\\..\\..", "%", "_", "*"]  # fmt: skip


def test_no_client_reaches_another(collector: CollectorProcess) -> None:
    """Whatever is asked for, and in whosever name: neither read, nor written, nor erased."""
    mine, theirs = collector.client("mine"), collector.client("theirs")
    chain = EventChain()
    secret = chain.event({"content": "private"}, session_id="private", user_id="u")
    theirs.send(chain, [secret])
    questions = [{"client_id": "theirs"}, *({name: text} for text in INJECTED for name in
                 ("session_id", "agent_id", "user_id", "status", "after", "client_id", "by"))]  # fmt: skip
    for path in ("events", "outboxes", "conversations", "history", "metrics", "usage", "agents",
                 "activities", "conversations/private"):  # fmt: skip
        for question in questions:
            got = requests.get(
                f"{collector.url}/v1/{path}", headers=mine.headers, params=question, timeout=10
            )
            assert got.status_code < 500
            assert "private" not in got.text or got.status_code in (403, 404)
    forged = {**mine.headers, "X-Client-ID": "theirs"}
    assert requests.get(f"{collector.url}/v1/events", headers=forged, timeout=10).status_code == 403
    assert mine.post(chain.batch([chain.event()], "theirs")).status_code == 403
    # Their event's id, sent in my name, must neither replace theirs nor pass for a duplicate.
    other = EventChain()
    other.outbox_id = chain.outbox_id
    stolen = other.event({"content": "forged"}, event_id=secret["event_id"])
    mine.send(other, [stolen])
    named = {"subject": "u", "event_ids": [secret["event_id"]]}
    mine.send(other, [other.event(named, type="compliance.erased")])
    assert [event["data"] for event in theirs.events()] == [{"content": "private"}]


def raw(collector: CollectorProcess, head: bytes, body: bytes = b"") -> bytes:
    """Send bytes as they are; return what comes back until the end, or nothing on a reset."""
    with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as connection:
        try:
            connection.sendall(head + body)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN:
                return b""
            raise


def test_hostile_requests_leave_the_collector_well(collector: CollectorProcess) -> None:
    """Floods of headers, odd paths, bombs and deep nesting: refused, quickly, never a 500."""
    client = collector.client("hostile")
    hosts = b"Host: x\r\n"
    paths = [b"/../../etc/passwd", b"/v1/..%2f..%2fetc/passwd", b"//etc/passwd", b"/%00", b"/v1/" + b"a" * 60_000,
             b"http://evil.example/v1/events", b"*"]  # fmt: skip
    floods = [b"X: " + b"a" * 1_000_000 + b"\r\n", b"X: a\r\n" * 50_000, b"X" * 200_000,
              b"Content-Length: 1\r\nContent-Length: 2\r\n", b"Content-Length: -1\r\n",
              b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]  # fmt: skip
    begun = time.monotonic()
    for head in [b"GET %s HTTP/1.1\r\n%s\r\n" % (path, hosts) for path in paths] + [
        b"POST /v1/events HTTP/1.1\r\n%s%s\r\n" % (hosts, flood) for flood in floods
    ]:
        status = raw(collector, head)[:12]
        assert status == b"" or b" 4" in status, (head[:60], status)
        assert b"root:" not in raw(collector, head)
    bodies = [
        b"[" * 4_000_000,
        b'{"a":' * 500_000,
        gzip.compress(bytes(300_000_000), 9),
        b"9" * 5_000_000,
    ]
    for body in bodies:
        headers = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
        assert client.post(body, **headers).status_code in (400, 413)
    assert time.monotonic() - begun < 60
    assert client.send(chain := EventChain(), [chain.event()])["accepted"] == 1
    assert "Traceback" not in collector.stderr


def test_clients_that_never_finish_are_shown_the_door(tmp_path: Path) -> None:
    """Those that say nothing, drip a head, or drip a body that is not read; others are served."""
    database, port = tmp_path / "collector.sqlite3", free_port()
    program = (
        "import tracker.collector.connection as c; c.HEAD_SECONDS = 2.0\n"
        "from tracker.collector.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--port", str(port), "--database", str(database)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        beginnings = [b"", b"POST /v1/events HTTP/1.1\r\nX: ",
                      b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"]  # fmt: skip
        slow = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(90)]
        for number, connection in enumerate(slow):
            connection.sendall(beginnings[number % 3])
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=(slow, stop))
        dripping.start()
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).ok
        begun = time.monotonic()
        for connection in slow:
            until_closed(connection)
        took = time.monotonic() - begun
        stop.set()
        dripping.join()
        assert took < 20
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).ok
    finally:
        process.kill()
        process.communicate()


def drip(connections: list[socket.socket], stop: threading.Event) -> None:
    """Send a byte now and then over every connection but the silent ones."""
    while not stop.wait(0.3):
        for number, connection in enumerate(connections):
            if number % 3:
                try:
                    connection.send(b"a")
                except OSError:
                    continue


def until_closed(connection: socket.socket) -> None:
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    finally:
        connection.close()


def test_a_key_is_stored_as_its_hash_only(collector: CollectorProcess) -> None:
    """Whoever reads the collector's database, its log or its answers learns no key."""
    client = CollectorClient(collector.url, collector.client_id, collector.api_key)
    client.get("/v1/ping")
    wrong = requests.get(
        f"{collector.url}/v1/ping", headers={"Authorization": f"Bearer {KEY}"}, timeout=10
    )
    assert wrong.status_code == 401
    files = b"".join(path.read_bytes() for path in collector.database.parent.iterdir())
    for key in (collector.api_key, KEY):
        assert key.encode() not in files
        assert key not in collector.stderr + wrong.text + json.dumps(client.outboxes())
