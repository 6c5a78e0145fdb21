"""The ingest protocol, page by page, against a real collector process."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.support.collector import (
    CollectorClient,
    CollectorProcess,
    EventChain,
    ForkedCollector,
)
from tracker.collector.keys import Keys

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def client(shared_collector: CollectorProcess) -> CollectorClient:
    """Of a collector on SQLite alone: its protocol is the same on either database."""
    return shared_collector.client(f"client-{uuid.uuid4()}")


def check_error(answer: requests.Response, status: int, code: str) -> str:
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"code", "message"}
    assert error["message"]
    return str(error["message"])


def without_receipt(event: dict[str, Any]) -> dict[str, Any]:
    added = {"id", "client_id", "outbox_id", "received_at_ms", "sent_at_ms"}
    assert added < set(event)
    return {name: value for name, value in event.items() if name not in added}


def test_a_batch_is_stored_and_its_receipt_says_so(client: CollectorClient) -> None:
    """The receipt has exactly the protocol's fields, and the events come back as sent."""
    chain = EventChain()
    events = chain.events(3)
    assert client.send(chain, events) == {
        "protocol": 1,
        "first_event_id": events[0]["event_id"],
        "last_event_id": events[2]["event_id"],
        "accepted": 3,
        "duplicates": 0,
        "rejected": [],
        "highest_seq": 3,
    }
    stored = client.events()
    assert [without_receipt(event) for event in stored] == events
    assert {event["outbox_id"] for event in stored} == {chain.outbox_id}
    assert {event["sent_at_ms"] for event in stored} == {1_790_000_000_000}


def test_resent_events_are_duplicates(client: CollectorClient) -> None:
    """A client that never saw its receipt sends again; nothing is stored twice."""
    chain = EventChain()
    events = chain.events(3)
    client.send(chain, events[:2])
    receipt = client.send(chain, events)
    assert (receipt["accepted"], receipt["duplicates"]) == (1, 2)
    assert [event["seq"] for event in client.events()] == [1, 2, 3]


def test_an_event_twice_in_one_batch_is_stored_once(client: CollectorClient) -> None:
    """The second is a duplicate like any other."""
    chain = EventChain()
    event = chain.event()
    receipt = client.send(chain, [event, event])
    assert (receipt["accepted"], receipt["duplicates"]) == (1, 1)
    assert len(client.events()) == 1


def test_bad_events_are_rejected_one_by_one(client: CollectorClient) -> None:
    """Every event sent is accounted for in the receipt, and the good ones are stored."""
    chain = EventChain()
    events: list[Any] = chain.events(5)
    events[0]["type"] = ""
    events[2]["data"] = {"role": "user", "content": "tampered"}
    events[4] = "no event"
    receipt = client.send(chain, events)
    assert [(bad["event_id"], bad["code"]) for bad in receipt["rejected"]] == [
        (events[0]["event_id"], "invalid_event"),
        (events[2]["event_id"], "digest_mismatch"),
        ("", "invalid_event"),
    ]
    assert [bad["message"].split(":")[0] for bad in receipt["rejected"]] == [
        "type",
        "digest",
        "event",
    ]
    assert receipt["accepted"] + receipt["duplicates"] + len(receipt["rejected"]) == 5
    assert (receipt["first_event_id"], receipt["last_event_id"]) == (events[0]["event_id"], "")
    assert [event["seq"] for event in client.events()] == [2, 4]


def test_an_id_that_utf_8_cannot_hold_comes_back_in_the_receipt(client: CollectorClient) -> None:
    """The answer must not fail on what the request got wrong."""
    chain = EventChain()
    receipt = client.send(chain, [{**chain.event(), "event_id": "\ud800"}])
    assert receipt["rejected"][0]["event_id"] == "\ud800"


def test_values_come_back_exactly(client: CollectorClient) -> None:
    """Numbers keep their sign, size and last digit; text keeps every character."""
    text = '{"big":' + "9" * 4300 + ',"float":0.1,"text":"\\u0000\u2028\U0001f600","zero":-0.0}'
    chain = EventChain()
    event = chain.event(json.loads(text), session_id="s")
    assert client.send(chain, [event])["accepted"] == 1
    for path in ("/v1/events", "/v1/conversations/s"):
        answer = requests.get(client.url + path, headers=client.headers, timeout=10)
        assert f'"data":{text}}}' in answer.content.decode()


def test_gzip_is_accepted(client: CollectorClient) -> None:
    """The protocol obliges servers to take it."""
    chain = EventChain()
    body = gzip.compress(json.dumps(chain.batch(chain.events(2), client.client_id)).encode())
    answer = client.post(body, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)


def test_a_whole_batch_of_4_mib_is_accepted(client: CollectorClient) -> None:
    """500 events with the protocol's full size pass, in one request."""
    chain = EventChain()
    events = [chain.event({"content": "x" * 7_800}) for _ in range(500)]
    body = json.dumps(chain.batch(events, client.client_id)).encode()
    assert 4_000_000 < len(body) < 4 * 2**20
    assert client.post(body).json()["accepted"] == 500


def test_the_body_is_not_read_before_the_key_is_checked(client: CollectorClient) -> None:
    """A stranger's answer comes while his body is still outstanding."""
    port = int(client.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Authorization: Bearer trk_wrong\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer trk_wrong", "Basic {key}", "{key}", "Bearer {key}x"],
)
@pytest.mark.parametrize("path", ["/v1/ping", "/v1/events", "/v1/outboxes", "/v1/conversations/s"])
def test_without_the_right_key_nothing_opens(
    client: CollectorClient, path: str, authorization: str | None
) -> None:
    """Missing, malformed and unknown keys get the same 401."""
    key = client.headers["Authorization"].removeprefix("Bearer ")
    headers = {"X-Client-ID": client.client_id}
    if authorization is not None:
        headers["Authorization"] = authorization.format(key=key)
    answer = requests.get(client.url + path, headers=headers, timeout=10)
    check_error(answer, 401, "invalid_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert key not in answer.text


def test_a_large_body_with_a_wrong_key_still_gets_its_answer(client: CollectorClient) -> None:
    """A client in the middle of sending sees the 401, not a broken connection."""
    answer = client.post(bytes(30 * 2**20), Authorization="Bearer trk_wrong")
    check_error(answer, 401, "invalid_key")


def test_a_revoked_key_is_refused_from_the_next_request_on(
    shared_collector: CollectorProcess, client: CollectorClient
) -> None:
    """No restart, no cache."""
    assert client.get("/v1/ping") == {"protocol": 1}
    with shared_collector.store() as store:
        keys = Keys(store)
        (key_id,) = [key.id for key in keys.list() if key.client_id == client.client_id]
        keys.revoke(key_id)
    answer = requests.get(f"{client.url}/v1/ping", headers=client.headers, timeout=10)
    check_error(answer, 401, "invalid_key")


@pytest.mark.parametrize("named", [None, "", "somebody-else"])
def test_a_key_speaks_for_its_own_client_only(client: CollectorClient, named: str | None) -> None:
    """The header must name the key's client, for ping as for events."""
    headers: dict[str, str | bytes | None] = {**client.headers, "X-Client-ID": named}
    for answer in (
        requests.get(f"{client.url}/v1/ping", headers=headers, timeout=10),
        requests.post(f"{client.url}/v1/events", headers=headers, data=b"{}", timeout=10),
    ):
        check_error(answer, 403, "client_mismatch")


def test_the_body_must_name_the_headers_client(client: CollectorClient) -> None:
    """Otherwise 403, and nothing is stored."""
    chain = EventChain()
    answer = client.post(chain.batch(chain.events(1), "somebody-else"))
    check_error(answer, 403, "client_mismatch")
    assert client.events() == []


def test_a_client_id_beyond_ascii_is_understood(shared_collector: CollectorProcess) -> None:
    """Header bytes are read as UTF-8."""
    client = shared_collector.client("café-日本")
    headers: dict[str, str | bytes | None] = {
        **client.headers,
        "X-Client-ID": client.client_id.encode(),
    }
    answer = requests.get(f"{client.url}/v1/ping", headers=headers, timeout=10)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"not json", 400, "invalid_request"),
        (b'{"protocol": NaN}', 400, "invalid_request"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"protocol": 2}', 409, "unsupported_protocol"),
        (b" " * (8 * 2**20 + 1), 413, "too_large"),
    ],
    ids=["empty", "text", "nan", "deep", "list", "protocol-2", "large"],
)
def test_a_wrong_body_is_refused(
    client: CollectorClient, body: bytes, status: int, code: str
) -> None:
    """With the status that makes the client do the right thing."""
    check_error(client.post(body), status, code)


def test_501_events_are_refused(client: CollectorClient) -> None:
    """With 400, and none of them is stored."""
    chain = EventChain()
    answer = client.post(chain.batch(chain.events(501), client.client_id))
    check_error(answer, 400, "invalid_request")
    assert client.events() == []


def test_an_event_nested_too_deeply_does_not_bring_the_server_down(
    client: CollectorClient,
) -> None:
    """Whether the parser or the encoder gives up first, the answer is an orderly one."""
    for depth in (900, 980, 990, 995, 1000, 5000, 50_000):
        chain = EventChain()
        body = json.dumps(chain.batch([chain.event({"x": 12345})], client.client_id)).encode()
        answer = client.post(body.replace(b"12345", b"[" * depth + b"]" * depth))
        assert answer.status_code in (200, 400)
        if answer.status_code == 400:
            check_error(answer, 400, "invalid_request")
    assert client.get("/v1/ping") == {"protocol": 1}


def test_a_body_of_unknown_length_is_bound_too(client: CollectorClient) -> None:
    """Chunked transfer announces nothing; the bytes are counted as they come."""
    answer = requests.post(
        f"{client.url}/v1/events",
        headers=client.headers,
        data=(bytes(2**20) for _ in range(9)),
        timeout=10,
    )
    check_error(answer, 413, "too_large")


def test_an_announced_size_is_refused_before_the_body_comes(client: CollectorClient) -> None:
    """Content-Length is enough to say no."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 9000000\r\n\r\n"
    port = int(client.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_gzip_bomb_is_refused(client: CollectorClient) -> None:
    """200 MiB of nothing in 200 KiB: 413, and the server goes on."""
    bomb = gzip.compress(bytes(200 * 2**20), 1)
    assert len(bomb) < 2**20
    check_error(client.post(bomb, **{"Content-Encoding": "gzip"}), 413, "too_large")
    assert client.get("/v1/ping") == {"protocol": 1}


def test_damaged_gzip_and_other_encodings_are_refused(client: CollectorClient) -> None:
    """400 for what claims to be gzip and is not, 415 for what the server cannot undo."""
    answer = client.post(b"not gzip", **{"Content-Encoding": "gzip"})
    check_error(answer, 400, "invalid_request")
    answer = client.post(b"{}", **{"Content-Encoding": "br"})
    check_error(answer, 415, "unsupported_encoding")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/events/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("DELETE", "/v1/events", 405, "method_not_allowed"),
        ("GET", "/v1/conversations/unknown", 404, "not_found"),
        ("GET", "/v1/events?limit=1001", 422, "invalid_query"),
        ("GET", "/v1/events?limit=0", 422, "invalid_query"),
        ("GET", "/v1/events?after=x", 422, "invalid_query"),
        ("GET", "/v1/events?after=9223372036854775808", 422, "invalid_query"),
    ],
)
def test_the_frameworks_own_errors_have_the_protocols_form(
    client: CollectorClient, method: str, path: str, status: int, code: str
) -> None:
    """A client can tell the collector's 404 from a captive portal's."""
    answer = requests.request(method, client.url + path, headers=client.headers, timeout=10)
    check_error(answer, status, code)


def test_the_server_does_not_say_what_it_is_made_of(client: CollectorClient) -> None:
    """No Server header."""
    answer = requests.get(f"{client.url}/healthz", timeout=10)
    assert answer.status_code == 200
    assert "Server" not in answer.headers


def test_above_the_rate_the_answer_is_429_with_a_time(tmp_path: Path) -> None:
    """Per key: another client's requests go on, and reading is not counted."""
    with ForkedCollector(tmp_path, arguments=["--rate", "2"]) as collector:
        chain = EventChain()
        client = collector.client("busy")
        for _ in range(2):
            assert client.send(chain, chain.events(1))["accepted"] == 1
        late = chain.events(1)
        answer = client.post(chain.batch(late, client.client_id))
        check_error(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["Retry-After"]) <= 30
        assert len(client.events()) == 2
        assert collector.client("calm").send(EventChain(), [EventChain().event()])["accepted"] == 1


def test_what_a_receipt_confirmed_survives_sigkill(tmp_path: Path) -> None:
    """The same port, the same key, every event, and their duplicates still known."""
    collector = ForkedCollector(tmp_path)
    chain = EventChain()
    events = chain.events(50)
    client = CollectorClient(collector.url, collector.client_id, collector.api_key)
    with collector:
        client.send(chain, events)
        assert collector.kill() == -signal.SIGKILL
        with pytest.raises(requests.ConnectionError):
            client.get("/v1/ping")
        collector.start()
        assert [without_receipt(event) for event in collector.events()] == events
        assert client.send(chain, events)["duplicates"] == 50
        assert collector.stop() == 0
        collector.start()
        assert len(collector.events()) == 50


def test_storage_trouble_is_answered_503_and_nothing_is_lost(tmp_path: Path) -> None:
    """A database that fails means "later", never "wrong"; when it is back, so is the service."""
    with ForkedCollector(tmp_path) as collector, collector.store() as store:
        client = collector.client("a")
        chain = EventChain()
        with store.writing("x") as connection:
            connection.exec_driver_sql("ALTER TABLE events RENAME TO events_away")
        events = [chain.event({"content": "what the user said"})]
        answer = client.post(chain.batch(events, "a"))
        check_error(answer, 503, "storage_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        with store.writing("x") as connection:
            connection.exec_driver_sql("ALTER TABLE events_away RENAME TO events")
        assert client.send(chain, events)["accepted"] == 1
        collector.stop()
        assert "no such table" in collector.stderr
        assert "what the user said" not in collector.stderr
        assert client.headers["Authorization"].split()[1] not in collector.stderr


def test_readiness_follows_the_database_and_health_does_not(tmp_path: Path) -> None:
    """One tells a load balancer to wait, the other a supervisor not to kill."""
    with ForkedCollector(tmp_path) as collector:
        with collector.store() as store, store.writing("x") as connection:
            connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO away")
        ready = requests.get(f"{collector.url}/readyz", timeout=10)
        check_error(ready, 503, "storage_unavailable")
        assert requests.get(f"{collector.url}/healthz", timeout=10).status_code == 200
