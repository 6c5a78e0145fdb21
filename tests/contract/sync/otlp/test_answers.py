"""Every answer of an OTLP receiver, and what becomes of the events: over real HTTP."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.otlp import (
    PROBE,
    PROTOBUF,
    attributes,
    event_ids,
    named,
    records_in,
    spans_in,
    success,
)
from tests.support.otlp import unless as stores_unless
from tests.support.server import (
    SILENCE,
    Answer,
    Reply,
    Request,
    ScriptedServer,
    answer,
    cut,
    redirect,
)
from tests.support.traced import traced
from tests.support.uploads import (
    account_of,
    dead_letters,
    fill,
    numbered,
    state_of,
    uploading,
    wait_until,
)
from tracker import Tracker
from tracker.outbox.store.ledger import Account

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.conftest import MakeConfig
    from tracker.config import APIConfig


EVENT_ID = "tracker.event.id"


@pytest.fixture
def settings(config: MakeConfig, scripted_server: ScriptedServer) -> APIConfig:
    """Uploads to a receiver that stores everything, until it is told otherwise."""
    scripted_server.otherwise = success()
    return config(base_url=scripted_server.url, protocol="otlp", api_key=None)


def is_bad(span: Span) -> bool:
    """Return True for the span of a message that says so."""
    return str(attributes(span.attributes).get("input.value", "")).startswith("bad")


def refused(status: int) -> Any:
    """Return a function from a number of bad spans to the reply with this status."""
    return lambda _: lambda _: answer(status, b"\x12\x0bspan refused", PROTOBUF)


def probes(server: ScriptedServer) -> int:
    """Return how many requests sent the probe."""
    return sum(span.name == PROBE for span in spans_in(*server.requests))


# --- stored ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        success(),
        success(headers={"Content-Type": "application/x-protobuf; charset=utf-8"}),
        success(message="a field is deprecated"),
        answer(200),
        answer(200, {}),
        answer(200, {"partialSuccess": {"errorMessage": "a field is deprecated"}}),
        answer(200, {"message": "OK"}),
        answer(201),
        answer(202, {}),
        Answer(raw=b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
    ids=[
        *("protobuf", "with a parameter", "with a message", "empty"),
        *("JSON", "JSON with a message", "Langfuse's", "201", "202", "204"),
    ],
)
def test_a_valid_answer_delivers_the_batch(
    settings: APIConfig, scripted_server: ScriptedServer, reply: Reply
) -> None:
    """Nothing is refused: all events are delivered, by one request."""
    ids = fill(settings, numbered(5))
    scripted_server.script(reply)
    with Tracker(settings) as tracker:
        assert tracker.flush(10).delivered == 5
    [request] = scripted_server.requests
    assert event_ids(spans_in(request)) == set(ids)
    assert account_of(settings) == Account(accepted=5, delivered=5)


def test_a_request_is_what_receivers_take(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """The content type has no parameter, the compression is gzip, and the headers are all there."""
    scripted_server.otherwise = success()
    settings = config(
        base_url=f"{scripted_server.url}/v1/traces",
        protocol="otlp",
        api_key="key-of-the-receiver",
        otlp_headers={"x-project-name": "kiosk 17"},
    )
    fill(settings, ["m"])
    with Tracker(settings) as tracker:
        tracker.flush(10)
    [request] = scripted_server.requests
    assert (request.method, request.path) == ("POST", "/v1/traces")
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["authorization"] == "Bearer key-of-the-receiver"
    assert request.headers["x-project-name"] == "kiosk 17"


def test_a_header_of_ones_own_takes_the_place_of_the_key(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """As with Langfuse, which takes HTTP's basic authentication."""
    scripted_server.otherwise = success()
    headers = {"authorization": "Basic cGs6c2s="}
    settings = config(base_url=scripted_server.url, protocol="otlp", otlp_headers=headers)
    fill(settings, ["m"])
    with Tracker(settings) as tracker:
        tracker.flush(10)
    assert scripted_server.requests[0].headers["authorization"] == "Basic cGs6c2s="


# --- answers that settle nothing ------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
PORTAL = answer(200, "<html>Welcome to Hotel Wi-Fi</html>", {"Content-Type": "text/html"})
KEPT: dict[str, tuple[Reply, str]] = {
    "captive portal": (PORTAL, "its content type is text/html"),
    "empty page": (answer(200, b"", {"Content-Type": "text/html"}), "text/html"),
    "JSON of something else": (answer(200, {"error": "no such key"}), "none of OTLP's"),
    "a message of something else": (answer(200, {"message": "no such route"}), "none of OTLP's"),
    "JSON that is no object": (answer(200, b"[]", JSON), "none of OTLP's"),
    "JSON that is cut": (answer(200, b'{"partialSuccess": {', JSON), "none of OTLP's"),
    "JSON that is deep": (answer(200, b"[" * 50_000, JSON), "none of OTLP's"),
    "no protobuf": (answer(200, b"\xff\xff\xff", PROTOBUF), "its body is none of OTLP's"),
    "201 of something else": (answer(201, {"id": 7}), "the server answered 201, but not"),
    "203": (answer(203), "203"),
    "207": (answer(207, {}), "207"),
    "302": (redirect(302, "http://elsewhere/"), "not followed"),
    "404": (answer(404, {"detail": "no such experiment"}), "no such experiment"),
    "405": (answer(405), "405"),
    "407": (answer(407), "407"),
    "415": (answer(415), "415"),
    "401": (answer(401, "no such key"), "the server refuses the key or headers"),
    "403": (answer(403), "the server refuses the key or headers"),
    "408": (answer(408), "408"),
    "429": (answer(429), "429"),
    "502": (answer(502), "502"),
    "503": (answer(503, "queue is full"), "queue is full"),
    "504": (answer(504), "504"),
    "507": (answer(507), "507"),
    "cut off in its first line": (cut(success(), after=7), "no answer from the server"),
    "cut off in its head": (cut(success(), after=20), "it was cut off"),
    "cut off before its length": (cut(success(), after=60), "it was cut off"),
    "reset": (cut(success(), reset=True), "no answer from the server"),
    "silence": (SILENCE, "no complete answer"),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_no_verdict_keeps_everything(
    config: MakeConfig, scripted_server: ScriptedServer, kind: str
) -> None:
    """The events stay pending, the cause is shown, and they are delivered once the answer is."""
    reply, cause = KEPT[kind]
    scripted_server.otherwise = reply
    patience = 0.3 if reply is SILENCE else 30.0
    settings = config(
        base_url=scripted_server.url, protocol="otlp", api_key=None, read_timeout=patience
    )
    ids = fill(settings, numbered(3))
    with uploading(settings) as tracker:
        wait_until(lambda: state_of(settings).paused_because is not None, "an attempt has failed")
        assert cause in str(state_of(settings).paused_because)
        assert account_of(settings) == Account(accepted=3, pending=3)
        assert probes(scripted_server) == 0, "nobody asked whether it is a span's fault"
        scripted_server.otherwise = success()
        tracker.flush(30)
    assert event_ids(spans_in(*scripted_server.requests)) == set(ids)
    assert account_of(settings) == Account(accepted=3, delivered=3)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_receiver_that_asks_for_a_pause_gets_it(
    config: MakeConfig, scripted_server: ScriptedServer, form: str
) -> None:
    """`Retry-After` is kept, in seconds or as a date."""
    settings = config(base_url=scripted_server.url, protocol="otlp", api_key=None)
    fill(settings, ["m"])
    value = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    scripted_server.script(answer(503, b"", {"Retry-After": value}), otherwise=success())
    with Tracker(settings) as tracker:
        tracker.flush(10)
    first, second = scripted_server.requests
    assert second.at - first.at > 0.9


# --- a span that can never be stored --------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422, 500, 501])
def test_poison_becomes_a_dead_letter_and_nothing_else_does(
    settings: APIConfig, scripted_server: ScriptedServer, status: int
) -> None:
    """Two bad events next to each other, among 60: they are found, and the rest is delivered."""
    scripted_server.otherwise = stores_unless(is_bad, refused(status))
    said = numbered(60)
    said[31:33] = ["bad one", "bad two"]
    ids = fill(settings, said)
    with Tracker(settings) as tracker:
        tracker.flush(20)
    assert [letter[:2] for letter in dead_letters(settings)] == [
        ("bad one", f"http_{status}"),
        ("bad two", f"http_{status}"),
    ]
    assert account_of(settings) == Account(accepted=60, delivered=58, dead=2)
    stored = [
        span
        for request in scripted_server.requests
        if not any(map(is_bad, spans_in(request)))
        for span in spans_in(request)
    ]
    first_seen = list(
        dict.fromkeys(
            found for span in stored if (found := attributes(span.attributes).get(EVENT_ID))
        )
    )
    assert first_seen == [each for each, text in zip(ids, said, strict=True) if text[:3] != "bad"]


def test_poison_at_the_head_of_the_queue_does_not_block_it(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """Though nothing was ever accepted before it."""
    scripted_server.otherwise = stores_unless(is_bad, refused(500))
    fill(settings, ["bad", "m"])
    with Tracker(settings) as tracker:
        tracker.flush(10)
    assert account_of(settings) == Account(accepted=2, delivered=1, dead=1)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_receiver_that_refuses_everything_makes_no_dead_letter(
    settings: APIConfig, scripted_server: ScriptedServer, status: int
) -> None:
    """As for a missing header: all is kept, with one request a pause, until it accepts again."""
    scripted_server.otherwise = answer(status, {"detail": "x-experiment is missing"})
    ids = fill(settings, numbered(300))
    with uploading(settings) as tracker:
        wait_until(lambda: tracker.health().paused_because is not None, "an attempt has failed")
        failures = len(scripted_server.requests)
        assert failures <= 3, "it does not halve what is refused for no fault of its own"
        scripted_server.wait_for(failures + 10)
        assert account_of(settings) == Account(accepted=300, pending=300)
        cause = str(tracker.health().paused_because)
        assert "refuses everything" in cause
        assert "x-experiment is missing" in cause
        scripted_server.otherwise = success()
        tracker.flush(10)
    assert account_of(settings) == Account(accepted=300, delivered=300)
    assert event_ids(spans_in(*scripted_server.requests)) == set(ids)


def test_poison_is_found_after_a_time_in_which_everything_was_refused(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """The poison is the first in the queue, so only a probe can tell that the time is over."""
    scripted_server.otherwise = answer(422)
    fill(settings, ["bad", *numbered(20)])
    with uploading(settings) as tracker:
        scripted_server.wait_for(6)
        scripted_server.otherwise = stores_unless(is_bad, refused(500))
        tracker.flush(20)
    assert account_of(settings) == Account(accepted=21, delivered=20, dead=1)


def test_a_good_event_survives_a_receiver_that_fails_now_and_then(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """It is refused alone, then a probe is accepted: it is tried once more before it is buried."""
    fill(settings, ["m"])
    scripted_server.script(answer(500), success())
    with Tracker(settings) as tracker:
        tracker.flush(10)
    assert account_of(settings) == Account(accepted=1, delivered=1)


def test_the_probe_is_always_the_same(settings: APIConfig, scripted_server: ScriptedServer) -> None:
    """So a receiver that knows spans by their ids holds it once."""
    scripted_server.otherwise = stores_unless(is_bad, refused(500))
    fill(settings, ["bad", "m", "bad"])
    with Tracker(settings) as tracker:
        tracker.flush(10)
    sent = [r.body for r in scripted_server.requests if named(PROBE)(spans_in(r)[0])]
    assert len(sent) >= 2
    assert len(set(sent)) == 1


# --- partial success ------------------------------------------------------------------------------


def partial_success(bad: int) -> Any:
    """Return the reply that stores all but so many spans, and does not say which."""
    return success(rejected=bad, message="attribute too long")


def test_a_partial_success_leads_to_the_spans_that_were_refused(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """The answer names none, so the batch is sent again in parts: ids make that harmless."""
    scripted_server.otherwise = stores_unless(is_bad, partial_success)
    said = [*numbered(20), "bad", *numbered(20)]
    fill(settings, said)
    with Tracker(settings) as tracker:
        tracker.flush(10)
    [letter] = dead_letters(settings)
    assert letter[:2] == ("bad", "otlp_rejected")
    assert "attribute too long" in letter[2]
    assert account_of(settings) == Account(accepted=41, delivered=40, dead=1)


def test_a_partial_success_in_json_is_read_as_well(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """There its number is a text, as the mapping of protobuf to JSON has it."""
    said = {"rejectedSpans": "1", "errorMessage": "attribute too long"}
    in_json = answer(200, {"partialSuccess": said})
    scripted_server.otherwise = stores_unless(is_bad, lambda _: lambda _: in_json)
    fill(settings, [*numbered(3), "bad", *numbered(3)])
    with Tracker(settings) as tracker:
        tracker.flush(10)
    [letter] = dead_letters(settings)
    assert letter[:2] == ("bad", "otlp_rejected")
    assert "attribute too long" in letter[2]
    assert account_of(settings) == Account(accepted=7, delivered=6, dead=1)


def test_a_receiver_that_rejects_all_of_a_batch_buries_it_only_if_it_takes_a_probe(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """All of them at once, without halving."""
    scripted_server.otherwise = stores_unless(is_bad, partial_success)
    fill(settings, [f"bad {index}" for index in range(50)])
    with Tracker(settings) as tracker:
        tracker.flush(10)
    assert account_of(settings) == Account(accepted=50, dead=50)
    assert len(scripted_server.requests) == 3, "batch, probe, batch"


def test_a_receiver_that_rejects_whatever_comes_makes_no_dead_letter(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """As one whose quota is used up may do, with a 200."""
    scripted_server.otherwise = lambda request: success(len(spans_in(request)), "quota")(request)
    fill(settings, numbered(10))
    with uploading(settings) as tracker:
        scripted_server.wait_for(5)
        assert account_of(settings) == Account(accepted=10, pending=10)
        scripted_server.otherwise = success()
        tracker.flush(10)
    assert account_of(settings) == Account(accepted=10, delivered=10)


# --- what is sent ---------------------------------------------------------------------------------


def test_types_that_are_not_to_be_sent_are_counted_as_skipped(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """They are settled, the account adds up with them, and they are not among the delivered."""
    with Tracker(settings) as tracker, traced(tracker, started=True) as otel:
        otel.start_span("a")
        tracker.track("cart.abandoned", {"items": 3})
        otel.start_span("b")
        result = tracker.flush(10)
        assert (result.delivered, result.pending) == (1, 0)
        assert tracker.health().skipped == 2
        assert tracker.security.verify_integrity().ok
    assert {span.name for span in spans_in(*scripted_server.requests)} == {"cart.abandoned"}
    assert account_of(settings) == Account(accepted=3, delivered=1, skipped=2)


def test_a_prefix_stands_for_all_types_that_begin_so(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """As in `retention`; what only begins alike is sent."""
    scripted_server.otherwise = success()
    settings = config(
        base_url=scripted_server.url, protocol="otlp", api_key=None, otlp_skip=["cart.*"]
    )
    with Tracker(settings) as tracker:
        tracker.track("cart.abandoned")
        tracker.track("cartoon.watched")
        tracker.flush(10)
    assert {span.name for span in spans_in(*scripted_server.requests)} == {"cartoon.watched"}
    assert account_of(settings) == Account(accepted=2, delivered=1, skipped=1)


def test_only_skipped_events_make_no_request(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """An empty request is an error to some receivers."""
    with Tracker(settings) as tracker, traced(tracker, started=True) as otel:
        otel.start_span("a")
        tracker.flush(10)
    assert scripted_server.requests == []
    assert account_of(settings) == Account(accepted=1, skipped=1)


def test_log_records_go_their_own_way(config: MakeConfig, scripted_server: ScriptedServer) -> None:
    """One request holds one kind, in the order of seq; what is part of the course stays a span."""
    scripted_server.otherwise = success()
    settings = config(base_url=scripted_server.url, protocol="otlp", api_key=None, otlp_logs=True)
    with Tracker(settings) as tracker:
        tracker.flush(0)
    with Tracker(settings) as tracker:
        session = tracker.start_conversation("agent")
        tracker.security.report_event("access_denied", "high", session_id=session)
        tracker.track("cart.abandoned", {"items": [1, 2]}, session_id=session)
        tracker.log_user_message(session, "Hello!")
        tracker.flush(10)
    paths = [request.path for request in scripted_server.requests]
    assert set(paths) == {"/v1/traces", "/v1/logs"}
    records = records_in(*scripted_server.requests)
    assert [record.event_name for record in records] == ["security.reported", "cart.abandoned"]
    assert [record.severity_number for record in records] == [17, 9]
    assert attributes(records[1].attributes)["tracker.items"] == [1, 2]
    assert records[0].trace_id == spans_in(*scripted_server.requests)[0].trace_id
    assert account_of(settings) == Account(accepted=4, delivered=4)


@pytest.fixture
def mixed(config: MakeConfig, scripted_server: ScriptedServer) -> APIConfig:
    """Settings of an outbox in which spans and log records take turns, ten of each."""
    chosen: dict[str, Any] = {"protocol": "otlp", "api_key": None, "otlp_logs": True}
    settings = config(base_url=scripted_server.url, **chosen)
    with Tracker(replace(settings, may_upload=lambda: False)) as tracker:
        session = tracker.start_conversation("agent")
        for number in range(10):
            tracker.log_user_message(session, f"Question {number}")
            tracker.track("cart.abandoned", {"number": number}, session_id=session)
    return settings


def test_spans_and_log_records_that_take_turns_are_two_requests(
    mixed: APIConfig, scripted_server: ScriptedServer
) -> None:
    """Not one for each change; what is part of the course is in the order of seq."""
    scripted_server.otherwise = success()
    with uploading(mixed) as tracker:
        tracker.flush(10)
    assert [request.path for request in scripted_server.requests] == ["/v1/traces", "/v1/logs"]
    records = records_in(*scripted_server.requests)
    numbers = [attributes(record.attributes)["tracker.number"] for record in records]
    assert numbers == list(range(10))
    assert account_of(mixed) == Account(accepted=21, delivered=21)


def test_events_are_delivered_when_both_requests_are(
    mixed: APIConfig, scripted_server: ScriptedServer
) -> None:
    """Spans that were accepted are not sent again because of log records that were not."""

    def reply(request: Request) -> Answer:
        return answer(503) if request.path == "/v1/logs" else success()(request)

    scripted_server.otherwise = reply
    with uploading(mixed) as tracker:
        wait_until(lambda: state_of(mixed).paused_because is not None, "an attempt has failed")
        assert account_of(mixed).delivered == 0
        scripted_server.otherwise = success()
        tracker.flush(10)
    paths = [request.path for request in scripted_server.requests]
    assert paths.count("/v1/traces") == 1
    assert account_of(mixed) == Account(accepted=21, delivered=21)


def test_one_bad_log_record_among_spans_costs_only_itself(
    mixed: APIConfig, scripted_server: ScriptedServer
) -> None:
    """It is found by halves, as a span is."""

    def reply(request: Request) -> Answer:
        records = records_in(request) if request.path == "/v1/logs" else []
        numbers = [attributes(record.attributes).get("tracker.number") for record in records]
        return answer(500) if 3 in numbers else success()(request)

    scripted_server.otherwise = reply
    with uploading(mixed) as tracker:
        tracker.flush(20)
    assert account_of(mixed) == Account(accepted=21, delivered=20, dead=1)


def test_no_request_is_larger_than_receivers_take(
    settings: APIConfig, scripted_server: ScriptedServer
) -> None:
    """At most 500 spans and 4 MiB; a longer batch is sent in several."""
    fill(settings, ["x" * 20_000 for _ in range(400)])
    with Tracker(settings) as tracker:
        tracker.flush(20)
    assert max(len(request.body) for request in scripted_server.requests) <= 4 * 1024 * 1024
    assert account_of(settings) == Account(accepted=400, delivered=400)


def test_a_key_that_a_receiver_repeats_is_masked(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Neither a header's key nor the API key gets into the outbox."""
    headers = {"x-api-key": "kzR7-header-secret-9Q"}
    settings = config(base_url=scripted_server.url, protocol="otlp", otlp_headers=headers)
    fill(settings, ["m"])
    scripted_server.otherwise = lambda request: Answer(
        404, {}, f"no {request.headers['x-api-key']}".encode()
    )
    with uploading(settings):
        wait_until(lambda: state_of(settings).paused_because is not None, "an attempt has failed")
    assert "kzR7" not in str(state_of(settings).paused_because)
    assert b"kzR7-header" not in settings.outbox_path.read_bytes()
