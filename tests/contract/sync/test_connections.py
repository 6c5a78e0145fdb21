"""Kept connections that servers close, informational answers, and what may be trusted."""

from __future__ import annotations

import contextlib
import gzip
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from click.testing import CliRunner

from tests.support.proxy import Proxy
from tests.support.server import Answer, ScriptedServer, answer, cut, receipt
from tracker import AgentPerformanceTracker
from tracker.cli.main import cli
from tracker.sync.destination import Delivery, Outcome, Upload
from tracker.sync.http import HTTPDestination
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig

    Serve = Callable[[str], tuple[ScriptedServer, dict[str, Any]]]

UPLOAD = Upload(["e1"], [b'{"event_id":"e1","data":{}}'])
NEVER = 3600.0
"""Seconds of pause after a failure: an event that needs a second attempt does not arrive."""

CLOSED = Answer(raw=b"")
RESET = cut(receipt(), after=0, reset=True)
HINTS = (
    b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 7\r\n\r\n"
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 Odd\r\nX: y\r\n\r\n"
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA, tmp_path: Path) -> Iterator[Serve]:
    """Start a server of a scheme; return it and the settings that lead to it."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with contextlib.ExitStack() as stack:

        def start(scheme: str) -> tuple[ScriptedServer, dict[str, Any]]:
            context = None
            if scheme == "https":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                authority.issue_cert("127.0.0.1", "collector.invalid").configure_cert(context)
            server = stack.enter_context(ScriptedServer(context))
            settings = {"base_url": server.url, "ca_bundle": bundle if context else None}
            return server, settings

        yield start


@contextlib.contextmanager
def opened(settings: APIConfig) -> Iterator[HTTPDestination]:
    destination = HTTPDestination(settings, "o")
    try:
        yield destination
    finally:
        destination.close()


# --- informational answers ----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_informational_answer_is_skipped(
    config: MakeConfig, serve: Serve, scheme: str
) -> None:
    """Any number of them, with headers too; the connection goes on to serve."""
    server, where = serve(scheme)
    server.otherwise = receipt(hints=HINTS)
    with opened(config(**where)) as destination:
        for _ in range(3):
            assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
        assert destination.ping().outcome is Outcome.DELIVERED
    assert server.connections_made == 1


def test_an_informational_answer_is_no_receipt(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """What ends after one is an answer that did not come."""
    scripted_server.script(receipt(), Answer(raw=HINTS))
    with opened(config(base_url=scripted_server.url)) as destination:
        destination.send(UPLOAD)
        assert destination.send(UPLOAD).outcome is Outcome.UNAVAILABLE


def test_a_proxys_informational_answers_are_skipped_too(config: MakeConfig, serve: Serve) -> None:
    """Those that come before the tunnel stands, and those of the server behind it."""
    server, where = serve("https")
    server.otherwise = receipt(hints=HINTS)

    def tunnel(connection: socket.socket, proxy: Proxy) -> None:
        assert proxy.read_request(connection).startswith(b"CONNECT collector.invalid:443")
        connection.sendall(HINTS + b"HTTP/1.1 200 Connection established\r\n\r\n")
        with proxy.connect() as upstream:
            back = threading.Thread(target=pump, args=(upstream, connection), daemon=True)
            back.start()
            pump(connection, upstream)
            back.join()

    with Proxy(server.port) as proxy:
        proxy.behaviour = tunnel
        proxies = {"https": f"http://127.0.0.1:{proxy.port}"}
        where |= {"base_url": "https://collector.invalid", "proxies": proxies}
        with opened(config(**where)) as destination:
            assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
            assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
        assert proxy.connections == 1


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on all that comes, and its end."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(1)


# --- kept connections ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("end", [CLOSED, RESET], ids=["closed", "reset"])
def test_a_kept_connection_that_ends_costs_no_pause(
    config: MakeConfig, serve: Serve, scheme: str, end: Answer
) -> None:
    """A server may close connections after some requests: that is no failure."""
    server, where = serve(scheme)
    for _ in range(5):
        server.script(receipt(), end)
    with AgentPerformanceTracker(config(**where, backoff_base=NEVER, backoff_cap=NEVER)) as tracker:
        for _ in range(5):
            tracker.start_conversation("agent-1")
            assert tracker.flush(10).pending == 0
        assert tracker.health().last_error is None
    ids = [event["event_id"] for event in server.delivered]
    assert len(ids) == len(set(ids)) == 5


@pytest.mark.parametrize("end", [CLOSED, RESET], ids=["closed", "reset"])
def test_the_last_event_goes_out_over_an_idle_connection_that_was_closed(
    config: MakeConfig, scripted_server: ScriptedServer, end: Answer
) -> None:
    """Closing, and so the interpreter's exit, gives up at the first failure; this is none."""
    scripted_server.script(receipt(), end)
    settings = config(base_url=scripted_server.url, backoff_base=NEVER, backoff_cap=NEVER)
    tracker = AgentPerformanceTracker(settings)
    session_id = tracker.start_conversation("agent-1")
    tracker.flush(10)
    tracker.end_conversation(session_id)
    assert tracker.close(timeout=10).pending == 0
    assert [event["type"] for event in scripted_server.delivered][-1] == "conversation.ended"


def test_a_server_that_closes_without_saying_so_is_no_failure(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """It answers, and ends the connection, whether that is seen before the next request or not."""

    def once(request: Any) -> Answer:
        given = receipt()(request)
        return Answer(raw=given.head() + given.body, accepts=given.accepts)

    scripted_server.otherwise = once
    settings = config(base_url=scripted_server.url, backoff_base=NEVER, backoff_cap=NEVER)
    with AgentPerformanceTracker(settings) as tracker:
        for _ in range(10):
            tracker.start_conversation("agent-1")
            assert tracker.flush(10).pending == 0
    assert len(scripted_server.delivered) == 10


@pytest.mark.parametrize("end", [CLOSED, RESET], ids=["closed", "reset"])
def test_a_fresh_connection_that_ends_is_a_failure(
    config: MakeConfig, scripted_server: ScriptedServer, end: Answer
) -> None:
    """Otherwise a server that is breaking down would be asked twice each time."""
    scripted_server.script(receipt(), end, end)
    with opened(config(base_url=scripted_server.url)) as destination:
        outcomes = [destination.send(UPLOAD).outcome for _ in range(4)]
    assert outcomes == [
        Outcome.DELIVERED,
        Outcome.STALE,
        Outcome.UNAVAILABLE,
        Outcome.DELIVERED,
    ]


@pytest.mark.parametrize("bad", [cut(receipt(), after=5), cut(receipt(), after=100, reset=True)])
def test_an_answer_that_began_is_not_asked_for_twice(
    config: MakeConfig, scripted_server: ScriptedServer, bad: Answer
) -> None:
    """The server has worked on it, so that the pause after a failure holds."""
    scripted_server.script(receipt(), bad)
    with opened(config(base_url=scripted_server.url)) as destination:
        destination.send(UPLOAD)
        assert destination.send(UPLOAD).outcome is Outcome.UNAVAILABLE


def test_a_server_that_is_silent_is_not_asked_twice(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """It may be at work on the request: a timeout is a failure, over a kept connection too."""
    scripted_server.script(receipt(), Answer(silent=True))
    with opened(config(base_url=scripted_server.url, read_timeout=0.2)) as destination:
        destination.send(UPLOAD)
        assert destination.send(UPLOAD).outcome is Outcome.TIMED_OUT


def test_reads_are_repeated_too(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """What `verify --against-collector` asks for takes many requests over one connection."""
    scripted_server.script(receipt(), CLOSED)
    with opened(config(base_url=scripted_server.url)) as destination:
        assert destination.ping().outcome is Outcome.DELIVERED
        assert destination.ping().outcome is Outcome.DELIVERED


# --- answers that are packed --------------------------------------------------------------------


def test_packed_receipts_count(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """A proxy may compress what it passes on, in several members even."""

    def packed(request: Any) -> Answer:
        body = receipt()(request).body
        half = len(body) // 2
        members = gzip.compress(body[:half]) + gzip.compress(body[half:])
        return answer(200, members, {"Content-Encoding": "gzip"})

    scripted_server.script(packed)
    with opened(config(base_url=scripted_server.url)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED


# --- what is trusted ----------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environments_authority_holds_for_loopback_too(
    config: MakeConfig, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A machine that names its own authority need not name it again."""
    server, where = serve("https")
    monkeypatch.setenv(variable, str(where["ca_bundle"]))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with opened(config(base_url=server.url)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED


def test_a_bundle_is_trusted_besides_the_environments(
    config: MakeConfig, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`ca_bundle` adds authorities, whatever others hold."""
    server, where = serve("https")
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(where["ca_bundle"]))
    with opened(config(base_url=server.url, ca_bundle=other)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    with opened(config(**where)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED


def test_a_relative_bundle_is_found_after_the_host_has_changed_folders(
    config: MakeConfig, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A daemon goes to ``/`` at its start."""
    server, where = serve("https")
    monkeypatch.chdir(tmp_path)
    settings = config(base_url=server.url, ca_bundle="ca.pem")
    monkeypatch.chdir("/")
    assert settings.ca_bundle == where["ca_bundle"]
    with AgentPerformanceTracker(settings) as tracker:
        tracker.start_conversation("agent-1")
        assert tracker.flush(10).pending == 0


@pytest.mark.parametrize("option", [True, False], ids=["option", "variable"])
def test_commands_take_a_bundle(
    config: MakeConfig, serve: Serve, monkeypatch: pytest.MonkeyPatch, option: bool
) -> None:
    """By `--ca-bundle` or SDK_CA_BUNDLE; without, the certificate is not trusted."""
    server, where = serve("https")
    with AgentPerformanceTracker(config(**where), destination=offline) as tracker:
        tracker.start_conversation("agent-1")
    monkeypatch.setenv("SDK_API_KEY", "test-key")
    place = ["--outbox", str(config().outbox_path)]
    without = run([*place, "flush", "--timeout", "1"])
    assert without.exit_code == 1
    assert "certificate" in without.output.lower()
    bundle = str(where["ca_bundle"])
    if option:
        place += ["--ca-bundle", bundle]
    else:
        monkeypatch.setenv("SDK_CA_BUNDLE", bundle)
    server.script(answer(200, {"protocol": 1}), answer(200, {"protocol": 1}))
    assert run([*place, "doctor"]).exit_code == 0
    server.script()
    flushed = run([*place, "flush"])
    assert flushed.exit_code == 0, flushed.output
    assert len(server.delivered) == 1


def offline() -> RecordingDestination:
    return RecordingDestination(lambda _: Delivery(Outcome.UNAVAILABLE, "offline"))


def run(arguments: list[str]) -> Result:
    return CliRunner().invoke(cli, arguments)


# --- destinations that cannot be made -----------------------------------------------------------


def test_a_destination_that_cannot_be_made_is_tried_again_and_named(
    config: MakeConfig, serve: Serve, tmp_path: Path
) -> None:
    """The file of certificates is gone, say, and comes back."""
    server, where = serve("https")
    bundle, aside = where["ca_bundle"], tmp_path / "aside.pem"
    settings = config(**where)
    bundle.rename(aside)
    with AgentPerformanceTracker(settings) as tracker:
        tracker.start_conversation("agent-1")
        assert tracker.flush(0.5).pending == 1
        said = tracker.health().paused_because or ""
        assert "the destination cannot be made: FileNotFoundError" in said
        aside.rename(bundle)
        assert tracker.flush(10).pending == 0
    assert len(server.delivered) == 1


def test_a_destination_that_raises_is_tried_again_and_named(config: MakeConfig) -> None:
    """One of the host's own may do so; closing does not wait for it."""
    errors: list[Exception] = [RuntimeError("not yet, test-key"), ValueError("nor now")]
    settings = config(backoff_base=NEVER, backoff_cap=NEVER)

    def decide(_: Upload) -> Delivery:
        if errors:
            raise errors.pop(0)
        return Delivery(Outcome.DELIVERED)

    def refuse(_: Upload) -> Delivery:
        raise RuntimeError("test-key is wrong")

    received = RecordingDestination(decide)
    with AgentPerformanceTracker(config(), destination=lambda: received) as tracker:
        tracker.start_conversation("agent-1")
        assert tracker.flush(10).pending == 0
    broken = RecordingDestination(refuse)
    tracker = AgentPerformanceTracker(settings, destination=lambda: broken)
    tracker.start_conversation("agent-1")
    assert tracker.close(timeout=10).pending == 1
    with AgentPerformanceTracker(settings, destination=lambda: broken) as tracker:
        said = tracker.health().last_error
    assert said == "the destination failed: RuntimeError: [secret:tracker_key:short] is wrong"
