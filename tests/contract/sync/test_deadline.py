"""One deadline for a whole request, whatever the other side does with its bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.server import SILENCE, Answer, ScriptedServer, answer, receipt
from tracker.delivery.deadline import deadline, expired
from tracker.delivery.transport import Adapter
from tracker.sync.destination import Outcome, Upload
from tracker.sync.http import HTTPDestination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig

TOTAL = 0.3
SLACK = 10.0  # for a slow machine; without the deadline these would take longer or for ever


@contextlib.contextmanager
def mute_listener() -> Iterator[int]:
    """Accept connections into the backlog, never read, never answer; yield the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def timed_send(settings: APIConfig, size: int = 10) -> tuple[Outcome, float]:
    event = b'{"event_id":"e","data":{"content":"%s"}}' % os.urandom(size // 2).hex().encode()
    destination = HTTPDestination(settings, "o")
    start = time.monotonic()
    try:
        outcome = destination.send(Upload(["e"], [event])).outcome
    finally:
        destination.close()
    return outcome, time.monotonic() - start


@pytest.mark.parametrize(
    "reply",
    [
        receipt(head_pause=0.05),
        receipt(body_pause=0.05),
        SILENCE,
        Answer(raw=b"", endless=b"HTTP/1.1 100 Continue\r\n\r\n"),
        receipt(before=5),
    ],
    ids=["head drips", "body drips", "silence", "only hints", "late"],
)
def test_no_answer_holds_the_worker_past_the_total_timeout(
    config: MakeConfig, scripted_server: ScriptedServer, reply: Answer
) -> None:
    """read_timeout alone would wait for ever for a server that sends a byte now and then."""
    scripted_server.script(reply)
    settings = config(base_url=scripted_server.url, read_timeout=30, total_timeout=TOTAL)
    outcome, took = timed_send(settings)
    assert outcome is Outcome.TIMED_OUT
    assert took < TOTAL + SLACK


def test_a_server_that_does_not_read_is_given_up(config: MakeConfig) -> None:
    """A large body that nobody takes ends at the deadline too."""
    with mute_listener() as port:
        settings = config(base_url=f"http://127.0.0.1:{port}", read_timeout=30, total_timeout=TOTAL)
        outcome, took = timed_send(settings, size=16_000_000)
    assert outcome is Outcome.TIMED_OUT
    assert took < TOTAL + SLACK + 2  # making and packing the body comes on top


def test_a_tls_handshake_that_hangs_is_given_up(config: MakeConfig) -> None:
    """The handshake is bounded by the total timeout, were connect_timeout longer."""
    with mute_listener() as port:
        settings = config(
            base_url=f"https://127.0.0.1:{port}", connect_timeout=30, total_timeout=TOTAL
        )
        outcome, took = timed_send(settings)
    assert outcome in (Outcome.TIMED_OUT, Outcome.UNAVAILABLE)
    assert took < TOTAL + SLACK


def test_a_proxy_that_drips_is_given_up(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """The answer to CONNECT is read under the same deadline."""
    scripted_server.script(answer(200, headers={"X": "x" * 200}, head_pause=0.05))
    settings = config(
        base_url="https://collector.invalid",
        proxies={"https": scripted_server.url},
        read_timeout=30,
        total_timeout=TOTAL,
    )
    _, took = timed_send(settings)
    assert took < TOTAL + SLACK


def test_a_request_within_its_deadline_is_left_alone(scripted_server: ScriptedServer) -> None:
    """Slow but in time is fine, and the connection serves the next request as well."""
    scripted_server.script(otherwise=answer(200, b"x" * 20, body_pause=0.01))
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", Adapter())
        for _ in range(2):
            with deadline(5):
                assert session.get(scripted_server.url, timeout=5).content == b"x" * 20
                assert not expired()
    assert scripted_server.connections_made == 1


def test_a_deadline_ends_with_its_block_and_is_its_threads_own() -> None:
    """Neither another thread nor a later request sees it."""
    seen = []
    with deadline(0):
        assert expired()
        thread = threading.Thread(target=lambda: seen.append(expired()))
        thread.start()
        thread.join()
    assert seen == [False]
    assert not expired()


def test_a_short_deadline_does_not_stay_on_a_kept_connection(
    scripted_server: ScriptedServer,
) -> None:
    """After one request was given little time, the next on that connection has its own."""
    scripted_server.script(answer(200), answer(200, before=0.6))
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", Adapter())
        with deadline(0.4):
            session.get(scripted_server.url, timeout=5)
        with deadline(5):
            assert session.get(scripted_server.url, timeout=5).status_code == 200
    assert scripted_server.connections_made == 1
