"""OTLP over HTTP, from OpenTelemetry's own exporters to a real collector process."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.support.collector import CollectorClient, CollectorProcess, EventChain, ForkedCollector
from tests.support.received import logs_request, span_of, traces_request
from tracker.collector import forgetting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROTOBUF = "application/x-protobuf"
WARN = SeverityNumber.WARN
RESOURCE = Resource({"service.name": "shop"})


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def collector(request: pytest.FixtureRequest) -> Iterator[CollectorProcess]:
    if request.param == "sqlite":
        yield request.getfixturevalue("shared_collector")
        return
    folder = request.getfixturevalue("tmp_path_factory").mktemp("collector")
    url = request.getfixturevalue("postgres_server").new_database()
    with ForkedCollector(folder, database_url=url) as process:
        yield process


@pytest.fixture
def client(collector: CollectorProcess) -> CollectorClient:
    return collector.client(f"client-{uuid.uuid4()}")


def post(
    client: CollectorClient,
    body: bytes,
    path: str = "/v1/traces",
    content_type: str = PROTOBUF,
    **headers: str,
) -> requests.Response:
    sent = {**client.headers, "Content-Type": content_type, **headers}
    return requests.post(client.url + path, data=body, headers=sent, timeout=60)


def check_error(answer: requests.Response, status: int) -> str:
    """Check that an answer is a ``google.rpc.Status``, and return its message."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROTOBUF)
    # This message has its text in the same field.
    message: str = Status.FromString(answer.content).message
    assert message
    return message


def names_of(client: CollectorClient) -> list[Any]:
    return [event["data"]["name"] for event in client.events()]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_program_with_opentelemetry_alone_lands_beside_the_outboxes(
    client: CollectorClient, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its environment alone: spans and log lines, with their place, resource and scope."""
    client.send(EventChain(), EventChain().events(1))
    headers = f"Authorization=Bearer%20{client.api_key},X-Client-ID={client.client_id}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", client.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    lines = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    lines.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    logger = lines.get_logger("shop.door")
    tracer = provider.get_tracer("shop", "2")
    names = {"session.id": "s-1"}
    with (
        tracer.start_as_current_span("outer", attributes=names) as outer,
        tracer.start_as_current_span("inner"),
    ):
        logger.emit(LogRecord(body="it is open", attributes={"door": 7}, severity_number=WARN))
    provider.shutdown()
    lines.shutdown()
    stored = {event["data"].get("name", "line"): event for event in client.events()[1:]}
    assert {name: event["type"] for name, event in stored.items()} == {
        "inner": "otel.span", "outer": "otel.span", "line": "otel.log",
    }  # fmt: skip
    assert stored["outer"]["session_id"] == "s-1"
    trace_id = format(outer.get_span_context().trace_id, "032x")
    assert stored["line"]["trace"] == {
        "trace_id": trace_id, "span_id": stored["inner"]["data"]["span_id"],
    }  # fmt: skip
    line = stored["line"]["data"]
    assert (line["body"], line["attributes"]["door"], line["severity"]) == ("it is open", 7, 13)
    for event in stored.values():
        assert event["data"]["resource"]["attributes"]["service.name"] == "shop"
    assert stored["inner"]["data"]["scope"] == {"name": "shop", "version": "2"}
    (tree,) = client.get(f"/v1/traces/{trace_id}")["spans"]
    inside = [each["span_id"] for each in tree["children"]]
    assert inside == [stored["inner"]["data"]["span_id"]]
    device, direct = client.outboxes()
    assert (device["received_directly"], device["chain"]) == (False, "intact")
    assert (direct["received_directly"], direct["chain"]) == (True, "unverifiable")
    assert (direct["events"], direct["highest_seq"], direct["missing"]) == (3, 3, [])


def test_what_is_sent_again_is_stored_once(client: CollectorClient) -> None:
    """An exporter that got no answer repeats its request; by many at once, too."""
    spans, records = traces_request(*map(span_of, range(1, 9))), logs_request("a", "a", "b")
    timed = logs_request("a", "a", "b", time_unix_nano=7)
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: post(client, spans), range(8))]
        answers += pool.map(lambda _: post(client, timed, "/v1/logs"), range(8))
        answers += pool.map(lambda _: post(client, records, "/v1/logs"), range(8))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    found = client.events()
    assert [event["seq"] for event in found] == list(range(1, 8 + 3 + 3 + 1))
    (report,) = client.outboxes()
    assert (report["missing"], report["chain_breaks_at_seq"]) == ([], None)


def test_clients_have_outboxes_of_their_own(
    collector: CollectorProcess, client: CollectorClient
) -> None:
    """The same span from two clients is two spans."""
    other = collector.client(f"client-{uuid.uuid4()}")
    for each in (client, other):
        assert post(each, traces_request(span_of(1))).status_code == 200
    ours, theirs = client.events(), other.events()
    assert (len(ours), len(theirs)) == (1, 1)
    assert ours[0]["outbox_id"] != theirs[0]["outbox_id"]
    assert ours[0]["event_id"] != theirs[0]["event_id"]


def test_one_bad_span_costs_only_itself(client: CollectorClient) -> None:
    """The answer says how many and why, so does the list of rejections; in protobuf and JSON."""
    body = traces_request(span_of(1), span_of(2, trace_id=b""), span_of(3))
    answer = post(client, body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 1
    assert "trace_id" in partial.error_message
    bad = {"traceId": "0" * 31 + "1", "spanId": "no hex"}
    good = {"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "4", "name": "span 4",
            "endTimeUnixNano": "1"}  # fmt: skip
    sent = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [bad, good]}]}]}).encode()
    answer = post(client, sent, content_type="application/json; charset=utf-8")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert names_of(client) == ["span 1", "span 3", "span 4"]
    assert post(client, traces_request(span_of(2, end_time_unix_nano=0))).status_code == 200
    noted = client.get("/v1/rejections")["rejections"]
    assert [each["message"].partition(":")[0] for each in noted] == [
        *("end_time_unix_nano", "spans", "trace_id"),
    ]


def test_one_bad_log_record_costs_only_itself(client: CollectorClient) -> None:
    """As with spans."""
    records = [{"timeUnixNano": "x"}, {"timeUnixNano": 1, "body": {"stringValue": "a"}}]
    sent = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()
    answer = post(client, sent, "/v1/logs", "application/json")
    assert answer.json()["partialSuccess"]["rejectedLogRecords"] == "1"
    large = logs_request("x" * 4_300_000, "b", time_unix_nano=2)
    answer = post(client, gzip.compress(large), "/v1/logs", **{"Content-Encoding": "gzip"})
    partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_log_records == 1
    assert [event["data"]["body"] for event in client.events()] == ["a", "b"]


def test_calls_of_models_are_in_the_sums(client: CollectorClient) -> None:
    """The collector's reads take a span that came directly for what it is."""
    called = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 90,
        "gen_ai.usage.output_tokens": 10,
    }
    assert post(client, traces_request(span_of(1, attributes=called))).status_code == 200
    (usage,) = client.get("/v1/usage")["usage"]
    assert (usage["key"], usage["total_tokens"]) == ("gpt-4o", 100)


def test_what_a_resource_says_can_be_filtered_by(client: CollectorClient) -> None:
    """Environment and release, as of events that come from an outbox."""
    resource = {"deployment.environment.name": "live", "service.version": "2.1"}
    body = traces_request(span_of(1), resource=resource)
    assert post(client, body).status_code == 200
    assert post(client, traces_request(span_of(2))).status_code == 200
    found = client.get("/v1/events", environment="live", release="2.1")["events"]
    assert [each["data"]["name"] for each in found] == ["span 1"]
    assert client.get("/v1/events", environment="test")["events"] == []
    assert post(client, body).status_code == 200
    assert len(client.events()) == 2


def test_no_evidence_is_made_of_what_came_directly(client: CollectorClient) -> None:
    """Nobody but the collector has signed for it, and it says so."""
    span = span_of(1, attributes={"session.id": "s-1"})
    assert post(client, traces_request(span)).status_code == 200
    (report,) = client.outboxes()
    asked = {"outbox_id": report["outbox_id"], "session_id": "s-1"}
    url = client.url + "/v1/evidence"
    answer = requests.get(url, params=asked, headers=client.headers, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert report["cosigned_size"] == 0


def test_what_came_directly_can_be_erased(
    collector: CollectorProcess, client: CollectorClient
) -> None:
    """With all that belongs to the user, once and for all, and nothing of anybody else."""
    user = {"user.id": "u%_/1"}
    outer: Any = {"trace_id": (1).to_bytes(16, "big"), "parent_span_id": (1).to_bytes(8, "big")}
    told = [
        span_of(1, name="agent", attributes=user),
        span_of(2, name="inside", **outer),
        span_of(3, name="by another name", attributes={"user.id": "u2", "enduser.id": "u%_/1"}),
        span_of(4, name="stranger", attributes={"user.id": "u/%_1"}),
    ]
    other = collector.client(f"client-{uuid.uuid4()}")
    for each in (client, other):
        assert post(each, traces_request(*told)).status_code == 200
    with collector.store() as store:
        done = forgetting.erase_subject(store, client.client_id, "u%_/1", "asked for")
        nothing = forgetting.erase_subject(store, client.client_id, "u%_/1")
    assert (done.erased, nothing.erased) == (3, 0)
    assert post(client, traces_request(*told)).status_code == 200
    *spans, erasure, _ = client.events()
    assert [each["data"].get("name") for each in spans] == [None, None, None, "stranger"]
    assert sorted(erasure["data"]["event_ids"]) == sorted(each["event_id"] for each in spans[:3])
    assert [each["user_id"] for each in spans] == [None, None, None, "u/%_1"]
    assert client.get("/v1/erasures")["erasures"][1]["reason"] == "asked for"
    assert len(names_of(other)) == 4


def test_any_text_is_stored(client: CollectorClient) -> None:
    """A database may refuse a NUL, and an id of a conversation may be none."""
    text = "\0 \x01 \u2028 \U0001f600"
    ids = {"session.id": "\0", "gen_ai.agent.id": "a" * 257, "user.id": text[2:]}
    body = traces_request(span_of(1, name=text, attributes=ids), span_of(2, span_id=b"\0"))
    assert post(client, body).status_code == 200
    assert post(client, logs_request(text, time_unix_nano=1), "/v1/logs").status_code == 200
    span, record = client.events()
    assert (span["data"]["name"], record["data"]["body"]) == (text, text)
    assert [span[name] for name in ("session_id", "agent_id", "user_id")] == [None, None, text[2:]]


def test_an_empty_request_is_a_success(client: CollectorClient) -> None:
    """OTLP says so; exporters send one to see whether somebody is there."""
    assert (post(client, b"").status_code, post(client, b"").content) == (200, b"")
    answer = post(client, b"{}", "/v1/logs", "application/json")
    assert (answer.status_code, answer.json()) == (200, {})
    assert client.outboxes() == []


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
def test_refusals_have_the_form_that_exporters_read(client: CollectorClient, path: str) -> None:
    """A Status in protobuf or JSON, whatever refuses: the key, the limits, the parser."""
    bomb = gzip.compress(bytes(9 * 2**20))
    stranger = {"Authorization": "Bearer trk_wrong"}
    check_error(post(client, b"\xff", path), 400)
    check_error(post(client, b"no gzip", path, **{"Content-Encoding": "gzip"}), 400)
    check_error(post(client, bytes(9 * 2**20), path), 413)
    check_error(post(client, bomb, path, **{"Content-Encoding": "gzip"}), 413)
    check_error(post(client, b"", path, **{"Content-Encoding": "br"}), 415)
    check_error(post(client, b"", path, **stranger), 401)
    check_error(post(client, b"", path, **{"X-Client-ID": "another"}), 403)
    for body in (b"{", b"[]", b'{"resourceSpans":1,"resourceLogs":1}', b"\xff"):
        answer = post(client, body, path, "application/json")
        assert (answer.status_code, set(answer.json())) == (400, {"message"})
    answer = post(client, b"", path, "text/plain")
    assert (answer.status_code, set(answer.json())) == (415, {"message"})
    assert client.events() == []


def test_a_key_has_one_rate_for_all(tmp_path: Path) -> None:
    """Batches and OTLP together; an exporter is told to wait."""
    with ForkedCollector(tmp_path, arguments=["--rate", "2"]) as collector:
        client = collector.client("kiosk-17")
        chain = EventChain()
        client.send(chain, chain.events(1))
        assert post(client, traces_request(span_of(1))).status_code == 200
        answer = post(client, traces_request(span_of(2)))
        check_error(answer, 429)
        assert int(answer.headers["Retry-After"]) > 0
        operator = CollectorClient(client.url, "kiosk-17", collector.create_key(None))
        check_error(post(operator, b""), 403)


def test_an_answer_means_stored(tmp_path: Path) -> None:
    """Whatever was answered 200 before the process was killed is there afterwards, in order."""
    collector = CollectorProcess(tmp_path)
    collector.start()
    client = collector.client("kiosk-17")
    answered: list[str] = []
    enough = threading.Event()

    def send() -> None:
        for number in range(1, 100_000):
            try:
                answer = post(client, traces_request(span_of(number)))
            except requests.RequestException:
                return
            assert answer.status_code == 200
            answered.append(f"span {number}")
            if number == 20:
                enough.set()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert enough.wait(60)
    finally:
        collector.kill()
        sender.join(60)
    with collector:
        stored = names_of(client)
        assert stored[: len(answered)] == answered
        assert len(stored) <= len(answered) + 1
        (report,) = client.outboxes()
    assert (report["missing"], report["chain_breaks_at_seq"]) == ([], None)


def test_without_the_messages_of_opentelemetry_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In OTLP's form, and everything else works."""
    package = tmp_path / "stub" / "opentelemetry" / "proto"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()  # hides what is installed
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    with CollectorProcess(tmp_path) as collector:
        client = collector.client("kiosk-17")
        for path in ("/v1/traces", "/v1/logs"):
            assert "[collector,otel]" in check_error(post(client, b"", path), 501)
        chain = EventChain()
        assert client.send(chain, chain.events(1))["accepted"] == 1
