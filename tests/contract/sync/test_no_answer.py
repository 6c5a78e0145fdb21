"""Servers that cannot be reached, do not answer to the end, or are not who they should be."""

from __future__ import annotations

import dataclasses
import gzip
import ssl
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import free_port
from tests.support.server import (
    SILENCE,
    Answer,
    Reply,
    ScriptedServer,
    answer,
    cut,
    receipt,
    redirect,
)
from tests.support.uploads import account_of, fill, state_of, wait_until
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig


# --- no answer at all ---------------------------------------------------------------------------


def expect_failure(settings: APIConfig, words: str) -> None:
    """Log while nothing can be delivered; see that it is kept, retried and explained."""
    with AgentPerformanceTracker(settings) as tracker:
        tracker.start_conversation("agent")
        tracker.flush(0)
        wait_until(lambda: state_of(settings).paused_because is not None, "a cause in the state")
        assert words.lower() in str(state_of(settings).paused_because).lower()
        tracker.close(0)
    assert account_of(settings).pending == account_of(settings).accepted >= 1


def test_a_refused_connection_is_survived(config: MakeConfig) -> None:
    """Nobody listens; when the server comes up on that port, the events arrive."""
    port = free_port()
    settings = config(base_url=f"http://127.0.0.1:{port}")
    expect_failure(settings, "Connection refused")
    with ScriptedServer(port=port) as server, AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
        assert len(server.delivered) == 1


def test_an_unknown_host_is_survived(config: MakeConfig) -> None:
    """A name that does not resolve keeps the events."""
    expect_failure(config(base_url="https://nonexistent.invalid"), "no answer from the server")


def test_a_server_that_never_answers_is_given_up(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """read_timeout ends the wait, and the batch is sent again."""
    settings = config(base_url=scripted_server.url, read_timeout=0.2)
    fill(settings, ["a"])
    scripted_server.script(SILENCE, SILENCE)
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
    first, second, third = scripted_server.requests
    assert 0.15 <= second.at - first.at < 5
    assert first.event_ids == second.event_ids == third.event_ids
    assert "no complete answer within" in str(state_of(settings).last_error)


@pytest.mark.parametrize("reply", [receipt(head_pause=0.05), receipt(body_pause=0.05)])
def test_a_dripping_answer_ends_at_the_total_timeout(
    config: MakeConfig, scripted_server: ScriptedServer, reply: Reply
) -> None:
    """A byte now and then satisfies read_timeout, but never holds the worker for long."""
    settings = config(base_url=scripted_server.url, read_timeout=2, total_timeout=0.6)
    fill(settings, ["a"])
    scripted_server.script(reply)
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
    first, second = scripted_server.requests
    assert 0.4 <= second.at - first.at < 5


SPACE = b" " * 65_536
ENDLESS = {
    "200": answer(200, claimed_length=10**12, endless=SPACE),
    "500": answer(500, claimed_length=10**12, endless=SPACE),
    "redirect": dataclasses.replace(redirect(302, "/"), claimed_length=10**12, endless=SPACE),
    "no length": Answer(raw=b"HTTP/1.1 200 OK\r\n\r\n", endless=SPACE),
    "header line": Answer(raw=b"HTTP/1.1 200 OK\r\nX: ", endless=b"x" * 65_536),
    "headers": Answer(raw=b"HTTP/1.1 200 OK\r\n", endless=b"X: y\r\n" * 10_000),
    "hints": Answer(raw=b"", endless=b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_an_endless_answer_is_not_read_for_long(
    config: MakeConfig, scripted_server: ScriptedServer, case: str
) -> None:
    """What a server sends without end takes neither memory nor time, and settles nothing."""
    settings = config(base_url=scripted_server.url, total_timeout=1)
    fill(settings, ["a"])
    scripted_server.script(ENDLESS[case])
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
    assert len(scripted_server.requests) == 2
    if case != "hints":  # nothing of these is kept; only their time is bounded
        # What was read, and what the system's socket buffers swallowed.
        assert scripted_server.endless_bytes < 16_000_000


def test_an_answer_that_unpacks_to_gigabytes_is_not_unpacked(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """A small compressed body cannot fill the memory."""
    settings = config(base_url=scripted_server.url)
    fill(settings, ["a"])
    bomb = gzip.compress(b" " * 100_000_000, compresslevel=1)
    scripted_server.script(answer(200, bomb, {"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        with AgentPerformanceTracker(settings) as tracker:
            assert tracker.flush(10).pending == 0
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert len(scripted_server.requests) == 2


# --- TLS ----------------------------------------------------------------------------------------


def authority() -> Any:
    return pytest.importorskip("trustme").CA()


def tls_server(ca: Any, *names: str) -> ScriptedServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return ScriptedServer(context)


def test_a_certificate_of_an_unknown_authority_is_refused(config: MakeConfig) -> None:
    """Without trust nothing is sent, the key included."""
    with tls_server(authority(), "127.0.0.1") as server:
        expect_failure(config(base_url=server.url), "certificate verify failed")
        assert server.requests == []


def test_a_ca_bundle_makes_its_authority_trusted(config: MakeConfig, tmp_path: Path) -> None:
    """ca_bundle names the file, and events arrive over TLS, deadline included."""
    ca = authority()
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    with tls_server(ca, "127.0.0.1") as server:
        settings = config(base_url=server.url, ca_bundle=bundle, read_timeout=2, total_timeout=0.6)
        fill(settings, ["a"])
        server.script(receipt(body_pause=0.05), SILENCE, cut(receipt(), after=30))
        with AgentPerformanceTracker(settings) as tracker:
            assert tracker.flush(10).pending == 0
        assert 0.4 <= server.requests[1].at - server.requests[0].at < 5


def test_a_certificate_for_another_host_is_refused(config: MakeConfig, tmp_path: Path) -> None:
    """A trusted authority is not enough: the name must fit."""
    ca = authority()
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    with tls_server(ca, "collector.example") as server:
        expect_failure(config(base_url=server.url, ca_bundle=bundle), "certificate verify failed")
        assert server.requests == []


def test_plain_http_where_tls_is_expected_is_survived(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """A server that does not speak TLS on an https URL keeps the events."""
    expect_failure(config(base_url=f"https://127.0.0.1:{scripted_server.port}"), "ssl")
