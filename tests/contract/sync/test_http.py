"""`HTTPDestination`: which way a request takes, what it carries, and what an answer becomes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import CollectorProcess, free_port
from tests.support.server import Answer, Request, ScriptedServer, answer, error, receipt, redirect
from tracker.sync.destination import Delivery, Outcome, Rejection, Upload
from tracker.sync.http import HTTPDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig

OUTBOX_ID = "0199f3a0-0000-7000-8000-000000000000"
UPLOAD = Upload(
    ["e1", "e2"],
    ['{"event_id":"e1","data":{"content":"é"}}'.encode(), b'{"event_id":"e2","data":{}}'],
)
FAR = "http://collector.invalid/in"
"""A base URL that nothing but a proxy can reach."""


@contextlib.contextmanager
def opened(settings: APIConfig, api_key: str | None = None) -> Iterator[HTTPDestination]:
    destination = HTTPDestination(settings, OUTBOX_ID, api_key)
    try:
        yield destination
    finally:
        destination.close()


def test_the_events_go_out_byte_for_byte(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """The stored JSON, over which digests were made, is joined into the body unchanged."""
    with opened(config(base_url=scripted_server.url)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
    [request] = scripted_server.requests
    assert request.body.endswith(b'"events":[' + b",".join(UPLOAD.events) + b"]}")
    assert request.json["outbox_id"] == OUTBOX_ID


def test_the_next_batch_is_made_ready_while_the_server_works(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """A server that answers only after the next batch was asked for is not waited for in vain."""
    asked = threading.Event()
    following = Upload(["e3"], [b'{"event_id":"e3","data":{}}'])

    def next_one() -> Upload:
        asked.set()
        return following

    def patient(request: Request) -> Answer:
        assert asked.wait(5), "the next batch was not asked for before the answer"
        return receipt()(request)

    scripted_server.script(patient)
    with opened(config(base_url=scripted_server.url)) as destination:
        first = dataclasses.replace(UPLOAD, following=next_one)
        outcomes = [destination.send(upload).outcome for upload in (first, following, UPLOAD)]
    assert outcomes == [Outcome.DELIVERED] * 3
    assert [request.event_ids for request in scripted_server.requests] == [
        ["e1", "e2"],
        ["e3"],
        ["e1", "e2"],
    ]


def test_a_batch_made_ready_is_not_sent_in_place_of_another(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """After a failure the first batch comes again, not what should have followed it."""
    scripted_server.script(error(503, "busy"))
    following = Upload(["e3"], [b'{"event_id":"e3","data":{}}'])
    with opened(config(base_url=scripted_server.url)) as destination:
        upload = dataclasses.replace(UPLOAD, following=lambda: following)
        assert destination.send(upload).outcome is Outcome.UNAVAILABLE
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
    assert scripted_server.requests[1].event_ids == ["e1", "e2"]


def test_rejections_carry_the_servers_words(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Each rejected event is named with code and message."""
    scripted_server.script(receipt(rejected={"é": ("invalid_event", "no")}))
    with opened(config(base_url=scripted_server.url)) as destination:
        delivery = destination.send(UPLOAD)
    assert delivery.rejected == [Rejection("e1", "invalid_event", "no")]


def test_another_key_can_be_tried(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """`doctor` may ask with a key that is not the configuration's."""
    with opened(config(base_url=scripted_server.url), "other") as destination:
        destination.ping()
    assert scripted_server.requests[0].headers["authorization"] == "Bearer other"


def test_ping_asks_for_the_ping_page(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """It is a GET with key and client id, and no body."""
    scripted_server.script(answer(200, {"protocol": 1}))
    with opened(config(base_url=scripted_server.url + "/in")) as destination:
        assert destination.ping() == Delivery(Outcome.DELIVERED)
    [request] = scripted_server.requests
    assert (request.method, request.path, request.raw) == ("GET", "/in/v1/ping", b"")
    assert request.headers["authorization"] == "Bearer test-key"
    assert request.headers["x-client-id"] == "test-client"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (answer(200, "<html>"), Outcome.UNEXPECTED),
        (answer(200, []), Outcome.UNEXPECTED),
        (answer(200, {"protocol": 2}), Outcome.UNEXPECTED),
        (error(401, "unauthorized"), Outcome.REFUSED),
        (error(503, "busy"), Outcome.UNAVAILABLE),
        (redirect(302, "/login"), Outcome.UNEXPECTED),
        (answer(404), Outcome.UNEXPECTED),
    ],
)
def test_ping_tells_a_collector_from_anything_else(
    config: MakeConfig, scripted_server: ScriptedServer, reply: object, outcome: Outcome
) -> None:
    """Only 200 with the protocol's own body counts."""
    scripted_server.script(reply)  # type: ignore[arg-type]  # an Answer; parametrize forgets it
    with opened(config(base_url=scripted_server.url)) as destination:
        delivery = destination.ping()
    assert delivery.outcome is outcome
    assert delivery.cause


def test_ping_knows_a_real_collector_and_a_wrong_key(
    config: MakeConfig, shared_collector: CollectorProcess
) -> None:
    """The reference collector's page is what ping expects."""
    with opened(
        config(base_url=shared_collector.url, api_key=shared_collector.api_key)
    ) as destination:
        assert destination.ping().outcome is Outcome.DELIVERED
    with opened(config(base_url=shared_collector.url, api_key="wrong")) as destination:
        assert destination.ping().outcome is Outcome.REFUSED


def test_a_refused_key_is_read_again_though_its_file_seems_the_same(
    config: MakeConfig,
    scripted_server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file system may keep times of seconds, and a key is as long as the one before."""
    file = tmp_path / "key"
    file.write_text("key-1")
    settings = config(base_url=scripted_server.url, api_key=None, api_key_file=file)
    scripted_server.script(receipt(), error(401, "unauthorized"), receipt())
    with opened(settings) as destination, monkeypatch.context() as patch:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
        status = file.stat()
        patch.setattr(os, "stat", lambda *_, **__: status)
        file.write_text("key-2")
        outcomes = [destination.send(UPLOAD).outcome for _ in range(2)]
    assert outcomes == [Outcome.REFUSED, Outcome.DELIVERED]
    keys = [request.headers["authorization"] for request in scripted_server.requests]
    assert keys == ["Bearer key-1", "Bearer key-1", "Bearer key-2"]


def test_ping_survives_a_server_that_is_down(config: MakeConfig) -> None:
    """Trouble is an outcome, not an exception."""
    with opened(config(base_url=f"http://127.0.0.1:{free_port()}")) as destination:
        delivery = destination.ping()
    assert delivery.outcome is Outcome.UNAVAILABLE
    assert "ConnectionRefusedError" in delivery.cause, "the cause itself, not what libraries wrap"


@pytest.mark.parametrize(
    "url", ["https://a..b", "https://" + "x" * 64 + ".example", "https://*.example"]
)
def test_impossible_host_names_are_an_outcome_too(config: MakeConfig, url: str) -> None:
    """What only the resolver finds wrong does not escape as an exception."""
    with opened(config(base_url=url)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.UNAVAILABLE


# --- proxies ------------------------------------------------------------------------------------


def test_the_environments_proxy_is_used(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `proxies`, HTTP_PROXY shows the way out."""
    monkeypatch.setenv("http_proxy", scripted_server.url)
    with opened(config(base_url=FAR, allow_insecure_http=True)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
    assert scripted_server.requests[0].path == FAR + "/v1/events"


def test_a_loopback_url_goes_through_no_proxy_of_the_environment(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in plain http must not leave the machine by way of HTTP_PROXY."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{free_port()}")
    with opened(config(base_url=scripted_server.url)) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "HTTP_PROXY"])
def test_configured_proxies_beat_the_environment(
    config: MakeConfig,
    scripted_server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """An argument beats the environment here as everywhere."""
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    settings = config(base_url=FAR, allow_insecure_http=True, proxies={"http": scripted_server.url})
    with opened(settings) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
    assert scripted_server.requests[0].path == FAR + "/v1/events"


def test_empty_proxies_mean_none(
    config: MakeConfig, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`proxies={}` keeps the environment's proxy out."""
    monkeypatch.setenv("http_proxy", scripted_server.url)
    settings = config(base_url=FAR, allow_insecure_http=True, proxies={})
    with opened(settings) as destination:
        assert destination.send(UPLOAD).outcome is Outcome.UNAVAILABLE
    assert scripted_server.requests == []


def test_requests_through_a_proxy_share_a_connection(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """One after the other, as those that go straight to the collector."""
    settings = config(base_url=FAR, allow_insecure_http=True, proxies={"http": scripted_server.url})
    with opened(settings) as destination:
        for _ in range(3):
            assert destination.send(UPLOAD).outcome is Outcome.DELIVERED
    assert scripted_server.connections_made == 1


def test_a_proxy_does_not_see_the_key_of_https_requests(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """The tunnel is asked for without the API key, and a refused tunnel keeps the events."""
    scripted_server.script(answer(407))
    settings = config(base_url="https://collector.invalid", proxies={"https": scripted_server.url})
    with opened(settings) as destination:
        delivery = destination.send(UPLOAD)
    assert delivery.outcome is Outcome.UNAVAILABLE
    assert "407" in delivery.cause
    [request] = scripted_server.requests
    assert (request.method, request.path) == ("CONNECT", "collector.invalid:443")
    assert "test-key" not in repr(request.headers)


def test_netrc_is_not_asked_for_another_key(
    config: MakeConfig,
    scripted_server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A login kept for the same host must not replace the API key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine collector.invalid login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    settings = config(base_url=FAR, allow_insecure_http=True, proxies={"http": scripted_server.url})
    with opened(settings) as destination:
        destination.send(UPLOAD)
    assert scripted_server.requests[0].headers["authorization"] == "Bearer test-key"
