"""What the client sends: each request as the protocol says, and the key nowhere else."""

from __future__ import annotations

import gzip
import logging
import random
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.server import (
    Answer,
    Request,
    ScriptedServer,
    answer,
    cut,
    error,
    receipt,
)
from tests.support.uploads import fill, look, numbered, state_of, uploading, wait_until
from tracker import AgentPerformanceTracker, __version__
from tracker.outbox.store import identity

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeConfig


def test_the_request_is_as_the_protocol_says(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Path, headers, compression and body, field by field."""
    settings = config(base_url=scripted_server.url + "/prefix/", client_id="kiosk-17")
    before = time.time_ns() // 1_000_000
    with AgentPerformanceTracker(settings) as tracker:
        session = tracker.start_conversation("agent", user_id="user", metadata={"a": "é"})
        tracker.flush(10)
    [request] = scripted_server.requests
    assert (request.method, request.path) == ("POST", "/prefix/v1/events")
    assert {name: request.headers[name] for name in request.headers if name != "accept"} == {
        "host": f"127.0.0.1:{scripted_server.port}",
        "authorization": "Bearer test-key",
        "x-client-id": "kiosk-17",
        "content-type": "application/json",
        "content-encoding": "gzip",
        "content-length": str(len(request.raw)),
        "user-agent": f"tracker/{__version__}",
        "accept-encoding": "identity",
        "connection": "keep-alive",
    }
    assert gzip.decompress(request.raw) == request.body
    body = request.json
    [event] = body.pop("events")
    with look(settings) as connection:
        assert body.pop("outbox_id") == identity.read(connection).outbox_id
    assert before <= body.pop("sent_at_ms") <= time.time_ns() // 1_000_000
    assert body == {"protocol": 1, "client_id": "kiosk-17"}
    assert set(event) == {
        "event_id", "seq", "type", "timestamp_ms", "agent_id", "session_id", "user_id", "data",
        "digest", "chain", "salt",
    }  # fmt: skip
    assert (event["session_id"], event["data"]) == (session, {"metadata": {"a": "é"}})


def test_batches_keep_to_500_events_in_order_of_seq(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """1,201 events take three requests, one after the other over one connection."""
    settings = config(base_url=scripted_server.url)
    ids = fill(settings, numbered(1201))
    scripted_server.script(otherwise=receipt(before=0.05))
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(20)
    delivered = scripted_server.delivered[:1201]  # a checkpoint over so many follows
    assert [len(request.events) for request in scripted_server.requests] == [500, 500, 202]
    assert [event["event_id"] for event in delivered] == ids
    assert [event["seq"] for event in delivered] == list(range(1, 1202))
    assert scripted_server.most_in_flight == 1
    assert scripted_server.connections_made == 1


def test_batches_keep_to_4_mebibytes(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """Large events are spread over requests of at most 4 MiB, and not more than needed."""
    settings = config(base_url=scripted_server.url)
    fill(settings, [f"{index}" + "é" * 250_000 for index in range(20)])
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(20)
    assert max(len(request.body) for request in scripted_server.requests) <= 4 * 1024 * 1024
    assert len(scripted_server.requests) == 3
    assert [event["seq"] for event in scripted_server.delivered] == list(range(1, 21))


def test_configured_bounds_make_smaller_batches(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """batch_max_events and batch_max_bytes hold for the whole body."""
    settings = config(
        base_url=scripted_server.url,
        max_event_bytes=2048,
        batch_max_events=7,
        batch_max_bytes=8192,
    )
    fill(settings, numbered(10) + [f"{index}" + "x" * 1400 for index in range(10)])
    with AgentPerformanceTracker(settings) as tracker:
        tracker.flush(10)
    assert len(scripted_server.requests[0].events) == 7
    assert len(scripted_server.requests) <= 6
    assert max(len(request.events) for request in scripted_server.requests) == 7
    assert max(len(request.body) for request in scripted_server.requests) <= 8192
    assert [event["seq"] for event in scripted_server.delivered] == list(range(1, 21))


def test_the_largest_allowed_event_fits_into_a_request(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """An event at the highest max_event_bytes still makes a body of at most 4 MiB."""
    size = 4 * 1024 * 1024 - 4096
    settings = config(base_url=scripted_server.url, max_event_bytes=size, client_id="\\" * 256)
    letters = random.Random(1)  # noqa: S311 - not a secret
    content = letters.randbytes((size - 400) // 2).hex()
    fill(settings, [content])
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
    assert len(scripted_server.requests[0].body) <= 4 * 1024 * 1024


@pytest.mark.parametrize("reset", [False, True])
def test_a_lost_receipt_leads_to_the_same_ids_again(
    config: MakeConfig, scripted_server: ScriptedServer, reset: bool
) -> None:
    """The server stored the batch, but its answer never came: identity makes a resend harmless."""
    settings = config(base_url=scripted_server.url)
    ids = fill(settings, numbered(4))
    scripted_server.script(cut(receipt(), after=0, reset=reset), receipt(duplicates=4))
    with AgentPerformanceTracker(settings) as tracker:
        assert tracker.flush(10).pending == 0
    first, second = scripted_server.requests
    assert first.event_ids == second.event_ids == ids
    assert first.events == second.events


# --- the key stays where it belongs -------------------------------------------------------------

KEY = "tk_3x4mple_of_a_secret"


@pytest.mark.parametrize("status", [200, 302, 400, 401, 413, 500])
def test_the_key_is_never_stored_or_logged(
    config: MakeConfig,
    scripted_server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    status: int,
) -> None:
    """Even a server that echoes the key gets it into no file and no log line."""
    settings = config(base_url=scripted_server.url, api_key=KEY)

    def echo(request: Request) -> Answer:
        said = request.headers["authorization"]
        if status == 200:
            return receipt(rejected={"a": (said, said), "b": (KEY, KEY * 40)})(request)
        body = {"error": {"code": said, "message": f"{said} {KEY * 40}"}}
        return answer(status, body, {"Location": f"http://x/{KEY}"})

    fill(settings, ["a", "b"])
    scripted_server.script(otherwise=echo)
    with caplog.at_level(logging.DEBUG), AgentPerformanceTracker(settings) as tracker:
        scripted_server.wait_for(1)
        tracker.flush(0.3)
        assert KEY not in repr(tracker)
        # Not by opening them here: closing a file drops this process's locks on it.
        live = subprocess.run(
            ["grep", "-rlaF", KEY, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert live.stdout == ""
    assert caplog.records
    assert KEY not in caplog.text
    assert not any(KEY in repr(record.__dict__) for record in caplog.records)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_a_truncated_key_does_not_slip_through(
    config: MakeConfig, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """A key at the very edge of what is kept of a message is blotted out in whole."""
    settings = config(base_url=scripted_server.url, api_key=KEY)
    scripted_server.script(otherwise=error(500, "x", "." * 290 + KEY))
    fill(settings, ["a"])
    with uploading(settings) as tracker:
        wait_until(lambda: state_of(settings).last_error is not None, "the failure is noted")
        tracker.close(0)
    assert KEY[:10] not in str(state_of(settings).last_error)
