"""Forwarding to an OTLP receiver: all that arrives, in order, at least once; over real HTTP."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
from click.testing import CliRunner
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import insert, select

from tests.support import mapped
from tests.support.collector import CollectorProcess, EventChain, ForkedCollector
from tests.support.forwarding import ForwardProcess, forward, status, store_events
from tests.support.otlp import (
    PROBE,
    PROTOBUF,
    attributes,
    records_in,
    resources_in,
    spans_in,
    success,
    unless,
)
from tests.support.postgresql import running_server, why_not
from tests.support.received import span_of, traces_request
from tests.support.server import Answer, Request, ScriptedServer, answer
from tests.support.traced import traced
from tracker import canonical
from tracker.collector.main import cli
from tracker.collector.store import Store
from tracker.collector.tables import events as event_table
from tracker.collector.tables import set_aside

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = "kiosk-17"
EVENT_ID = "tracker.event.id"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture
def receiver(scripted_server: ScriptedServer) -> ScriptedServer:
    """An OTLP receiver that stores everything, until it is told otherwise."""
    scripted_server.otherwise = success()
    return scripted_server


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def messages(chain: EventChain, *texts: str) -> list[dict[str, Any]]:
    """Return one event for each text, each in a session of its own."""
    return [chain.event(said(text), session_id=f"s-{text}") for text in texts]


def texts(spans: list[Span]) -> list[Any]:
    """Return what spans of messages say, without probes."""
    return [attributes(span.attributes)["input.value"] for span in spans if span.name != PROBE]


def is_bad(span: Span) -> bool:
    return str(attributes(span.attributes).get("input.value", "")).startswith("bad")


def refused(status: int) -> Any:
    return lambda _: lambda _: answer(status, b"\x12\x0bspan refused", PROTOBUF)


# --- what arrives ---------------------------------------------------------------------------------


def test_a_forwarded_event_is_the_spans_that_its_device_would_send(
    database: str, store: Store, receiver: ScriptedServer, tmp_path: Path
) -> None:
    """To the byte, though each request has only a part of the conversation: turns, roots, ids."""

    def log(tracker: Any) -> None:
        with tracker.conversation("agent-1", session_id="s-1", user_id="user-7") as c:
            for number in range(3):
                c.user(f"question {number}")
                c.tool("find", {"id": number}, result={"ok": True})
                tracker.llm.record_usage("openai", "gpt-4o", 9, 4, session_id="s-1")
                c.agent(f"answer {number}", tokens_used=4)
            c.end(quality_score=4.5)
        with traced(tracker) as otel, tracker.conversation("agent-2"):
            asked = {"openinference.span.kind": "LLM", "input.value": "?", "output.value": "!"}
            otel.start_span("model", attributes=asked).end()
        tracker.track("cart.abandoned", {"items": 3})
        tracker.security.report_event("access_denied", "high", details={"path": "/admin"})

    events = mapped.logged(tmp_path / "device", log)
    chain = EventChain()
    for event in events:  # each in a batch, and each forwarded by a process of its own, as it were
        store_events(store, chain, [event], mapped.CLIENT)
        assert forward(database, receiver.url).exit_code == 0
    sent = [span.SerializeToString() for span in spans_in(*receiver.requests)]
    assert sent == [span.SerializeToString() for span in mapped.spans(events)]
    assert len(sent) > len(events), "roots of turns and of the conversation are among them"
    names = {"service.name": mapped.CLIENT, "service.instance.id": chain.outbox_id}
    resources = resources_in(*receiver.requests)
    own = [each for each in resources if "telemetry.sdk.name" not in each]
    assert all(resource.items() >= names.items() for resource in own)


def test_outboxes_and_plain_programs_arrive_in_the_order_of_arrival(
    tmp_path: Path, receiver: ScriptedServer
) -> None:
    """Two outboxes and an OpenTelemetry program; what came over OTLP leaves as it came."""
    span = span_of(7, name="by an SDK", trace_state="k=v", attributes={"b": 1.0, "a": [True]})
    with ForkedCollector(tmp_path) as collector:
        one, two = EventChain(), EventChain()
        first, second = collector.client("kiosk-17"), collector.client("kiosk-18")
        first.send(one, messages(one, "a", "b"))
        second.send(two, messages(two, "c"))
        post_spans(collector, span)
        first.send(one, messages(one, "d"))
        assert forward(str(collector.database), receiver.url).exit_code == 0
    found = spans_in(*receiver.requests)
    assert sorted(texts([each for each in found if each.name != "by an SDK"])) == list("abcd")
    [direct] = [each for each in found if each.name == "by an SDK"]
    assert direct.SerializeToString() == with_known_parent(span).SerializeToString()
    [state] = status(str(collector.database))
    assert (state["sent"], state["behind"], state["set_aside"]) == (5, 0, 0)


def post_spans(collector: CollectorProcess, *spans: Span) -> None:
    headers = {**collector.headers, **PROTOBUF}
    url = f"{collector.url}/v1/traces"
    requests.post(url, traces_request(*spans), headers=headers, timeout=10).raise_for_status()


def with_known_parent(span: Span) -> Span:
    """Return a span as it is stored: its kind and the kind of its parent known, names in order."""
    found = Span()
    found.CopyFrom(span)
    found.flags |= 0x100
    found.kind = Span.SPAN_KIND_INTERNAL
    del found.attributes[:]
    found.attributes.extend(sorted(span.attributes, key=lambda pair: pair.key))
    found.status.SetInParent()
    return found


def test_each_request_goes_on_where_the_last_ended(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """1,200 events in requests of at most 500 spans, each event once and in order."""
    chain = EventChain()
    numbers = [str(number) for number in range(1_200)]
    for start in range(0, 1_200, 400):
        store_events(store, chain, messages(chain, *numbers[start : start + 400]))
    assert forward(database, receiver.url).exit_code == 0
    assert len(receiver.requests) == 3
    assert texts(spans_in(*receiver.requests)) == numbers
    store_events(store, chain, messages(chain, "one more"))
    assert forward(database, receiver.url).exit_code == 0
    assert texts(spans_in(receiver.requests[-1])) == ["one more"]


def test_only_the_events_of_one_client_if_so_wished(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """Its position is one of its own, and all the others can still be forwarded."""
    one, two = EventChain(), EventChain()
    store_events(store, one, messages(one, "a"), "kiosk-17")
    store_events(store, two, messages(two, "b"), "kiosk-18")
    assert forward(database, receiver.url, "--client", "kiosk-18").exit_code == 0
    assert texts(spans_in(*receiver.requests)) == ["b"]
    assert forward(database, receiver.url).exit_code == 0
    assert texts(spans_in(*receiver.requests)) == ["b", "a", "b"]
    assert [(each["client_id"], each["sent"]) for each in status(database)] == [
        (None, 2),
        ("kiosk-18", 1),
    ]


def test_a_client_with_few_events_among_many_is_found(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """However far apart they are in the order of arrival."""
    many, few = EventChain(), EventChain()
    store_events(store, many, messages(many, "a"), "kiosk-17")
    with store.writing("kiosk-18") as connection:
        for place in (200_001, 400_001):
            row = row_of(messages(few, str(place))[0], few, "kiosk-18")
            connection.execute(insert(event_table).values({**row, "id": place}))
    assert forward(database, receiver.url, "--client", "kiosk-18").exit_code == 0
    assert texts(spans_in(*receiver.requests)) == ["200001", "400001"]
    assert forward(database, receiver.url).exit_code == 0
    assert texts(spans_in(*receiver.requests)) == ["200001", "400001", "a", "200001", "400001"]


def test_types_can_be_left_out_and_log_records_sent_as_such(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """As on a device: what is skipped is counted, and records go to a path of their own."""
    chain = EventChain()
    kinds = ("integrity.checkpoint", "agent.heartbeat", "otel.span_started", "message.logged")
    store_events(store, chain, [chain.event(said(kind), type=kind) for kind in kinds])
    options = ("--logs", "--skip", "integrity.*", "--skip", "otel.span_started")
    assert forward(database, receiver.url, *options).exit_code == 0
    assert [record.event_name for record in records_in(*receiver.requests)] == ["agent.heartbeat"]
    assert [span.name for span in spans_in(*receiver.requests)] == ["message user"]
    [state] = status(database)
    assert (state["sent"], state["skipped"], state["position"]) == (2, 2, 4)


def test_an_erased_event_leaves_as_a_marker(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """What was erased before it was forwarded is never sent, nor shown by a later root."""
    chain = EventChain()
    asked = chain.event(said("my secret"), user_id="user-7")
    store_events(store, chain, [asked])
    named = {"event_ids": [asked["event_id"]], "reason": "request"}
    erasure = chain.event(named, type="compliance.erased", session_id=None)
    answered = chain.event({"role": "agent", "content": "done"})
    store_events(store, chain, [erasure, answered])
    assert forward(database, receiver.url).exit_code == 0
    marker = spans_in(*receiver.requests)[0]
    assert attributes(marker.attributes)["tracker.erased"] is True
    assert attributes(marker.attributes)[EVENT_ID] == asked["event_id"]
    assert b"my secret" not in b"".join(request.body for request in receiver.requests)
    assert len(spans_in(*receiver.requests)) == 3


def test_an_event_nested_as_deeply_as_the_collector_takes_stops_nothing(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """It is sent as a span that says so, and those after it follow."""
    chain = EventChain()
    deep: Any = "deep"
    for _ in range(600):
        deep = [deep]
    cart = chain.event({"items": deep}, type="cart.abandoned")
    wide = chain.event(said("[{" * 900))  # as a text, and so not nested
    store_events(store, chain, [cart, wide, *messages(chain, "next")])
    assert forward(database, receiver.url).exit_code == 0
    spans = spans_in(*receiver.requests)
    assert "levels deep" in str(attributes(spans[0].attributes))
    assert texts(spans[1:]) == ["[{" * 900, "next"]


# --- at least once --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_every_event_arrives_however_often_the_process_is_killed(
    database: str, store: Store, receiver: ScriptedServer, answered: bool
) -> None:
    """Killed in three of its requests, before or after the receiver stores: all come, in order."""
    chain = EventChain()
    numbers = [str(number) for number in range(1_700)]
    for start in range(0, len(numbers), 425):
        store_events(store, chain, messages(chain, *numbers[start : start + 425]))
    running: list[ForwardProcess] = []
    stored: list[Span] = []
    deadly = {1, 3, 4}

    def reply(request: Request) -> Answer:
        kills = len(receiver.requests) in deadly
        if kills:
            os.kill(running[-1].pid, signal.SIGKILL)
        if not kills or answered:
            stored.extend(spans_in(request))
        return success()(request)

    receiver.otherwise = reply
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        with ForwardProcess(database, receiver.url, "--once") as process:
            running.append(process)
            codes.append(process.end()[0])
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert list(dict.fromkeys(texts(stored))) == numbers
    assert len({span.span_id for span in stored}) == len(numbers), "sent again as the same spans"
    assert len(stored) == len(numbers) + (3 * 500 if answered else 0)
    [state] = status(database)
    assert (state["behind"], state["sent"]) == (0, len(numbers))


def test_nothing_is_lost_if_the_answer_is(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """A connection that breaks after the receiver has stored: it gets the same once more."""
    chain = EventChain()
    store_events(store, chain, messages(chain, "a", "b"))
    receiver.script(Answer(cut_after=0, reset=True))
    assert forward(database, receiver.url).exit_code == 1
    assert status(database)[0]["position"] == 0
    assert forward(database, receiver.url).exit_code == 0
    first, second = receiver.requests
    assert first.body == second.body


PORTAL = answer(200, "<html>Welcome to Hotel Wi-Fi</html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (PORTAL, "not as an OTLP receiver does"),
        (answer(200, b"\xff\xff", PROTOBUF), "not as an OTLP receiver does"),
        (answer(404, {"detail": "no such experiment"}), "no such experiment"),
        (answer(401), "refuses the key or headers"),
        (answer(503), "503"),
        (answer(422, b"header missing", PROTOBUF), "refuses everything, a probe as well"),
    ],
    ids=["portal", "no protobuf", "404", "401", "503", "422 for everything"],
)
def test_an_answer_that_is_no_success_moves_nothing(
    database: str, store: Store, receiver: ScriptedServer, reply: Answer, words: str
) -> None:
    """Nothing is set aside, the cause is shown, and later everything arrives."""
    chain = EventChain()
    store_events(store, chain, messages(chain, "a", "b", "c"))
    receiver.otherwise = reply
    done = forward(database, receiver.url)
    assert done.exit_code == 1
    assert words in done.stderr
    [state] = status(database)
    assert (state["position"], state["behind"], state["set_aside"]) == (0, 3, 0)
    assert words in state["problem"]
    receiver.otherwise = success()
    before = len(receiver.requests)
    assert forward(database, receiver.url).exit_code == 0
    assert texts(spans_in(*receiver.requests[before:])) == ["a", "b", "c"]
    assert status(database)[0]["problem"] is None


@pytest.mark.parametrize(
    "refusal",
    [refused(500), refused(400), lambda found: success(found, "no such date")],
    ids=["500", "400", "partial success"],
)
def test_a_poisoned_event_is_set_aside_and_the_rest_goes_on(
    database: str, store: Store, receiver: ScriptedServer, refusal: Any
) -> None:
    """The others arrive in order; which events were set aside is kept, without their content."""
    chain = EventChain()
    numbers = [f"{'bad ' if number in (5, 6, 33) else ''}{number}" for number in range(40)]
    store_events(store, chain, messages(chain, *numbers))
    receiver.otherwise = taking(unless(is_bad, refusal))
    assert forward(database, receiver.url).exit_code == 0
    good = [number for number in numbers if not number.startswith("bad")]
    assert list(dict.fromkeys(TAKEN)) == good
    [state] = status(database)
    assert (state["behind"], state["sent"], state["set_aside"]) == (0, 37, 3)
    newest = state["newest_set_aside"]
    assert {each["client_id"] for each in newest} == {CLIENT}
    with store.reading() as connection:
        rows = connection.execute(select(set_aside)).all()
        ids = {row.event_id for row in rows}
        stored = select(event_table.c.data).where(event_table.c.event_id.in_(ids))
        assert all('"bad ' in data for data in connection.execute(stored).scalars())
    assert "bad 33" not in str(rows)


TAKEN: list[Any] = []


def taking(reply: Any) -> Any:
    """Return a reply that notes what its success has taken."""
    TAKEN.clear()

    def noted(request: Request) -> Answer:
        found: Answer = reply(request)
        if found == success()(request):
            TAKEN.extend(texts(spans_in(request)))
        return found

    return noted


def test_a_receiver_that_is_busy_is_left_in_peace(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """429 with Retry-After: everything is kept, and sent when that time has passed."""
    chain = EventChain()
    store_events(store, chain, messages(chain, "a"))
    receiver.script(answer(429, b"", {"Retry-After": "1"}))
    with ForwardProcess(database, receiver.url) as process:
        receiver.wait_for(2, timeout=30)
        first, second = receiver.requests
        assert second.at - first.at >= 1
        assert texts(spans_in(second)) == ["a"]
        process.terminate()
        assert process.end()[0] == 0


def test_what_the_receiver_lost_can_be_sent_again(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """All that was received since some time, what was set aside included, as the same spans."""
    chain = EventChain()
    for second, number in enumerate(("a", "bad b", "c", "d")):
        store_events(store, chain, messages(chain, number), at_ms=second * 1_000)
    receiver.otherwise = unless(is_bad, refused(500))
    assert forward(database, receiver.url).exit_code == 0
    assert status(database)[0]["set_aside"] == 1
    receiver.otherwise = success()
    before = len(receiver.requests)
    since = "1970-01-01T00:00:01Z"
    assert forward(database, receiver.url, "--resend-since", since).exit_code == 0
    assert texts(spans_in(*receiver.requests[before:])) == ["bad b", "c", "d"]
    [state] = status(database)
    assert (state["position"], state["behind"], state["set_aside"]) == (4, 0, 0)
    assert forward(database, receiver.url, "--resend-since", "1s").exit_code == 0
    assert texts(spans_in(*receiver.requests[before:])) == ["bad b", "c", "d"]


def test_an_event_from_a_replica_whose_clock_was_wrong_is_sent_again_too(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """Its time is later than those of the events after it, which are sent along."""
    chain = EventChain()
    for second, text in ((3, "a"), (0, "b"), (1, "c"), (2, "d")):
        store_events(store, chain, messages(chain, text), at_ms=second * 1_000)
    assert forward(database, receiver.url).exit_code == 0
    before = len(receiver.requests)
    since = "1970-01-01T00:00:03Z"
    assert forward(database, receiver.url, "--resend-since", since).exit_code == 0
    assert texts(spans_in(*receiver.requests[before:])) == ["a", "b", "c", "d"]


# --- a process that goes on -----------------------------------------------------------------------


def test_it_follows_until_it_is_stopped(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """What arrives later is forwarded too; SIGTERM ends it in order, with a line."""
    chain = EventChain()
    store_events(store, chain, messages(chain, "a"))
    with ForwardProcess(database, receiver.url) as process:
        assert process.line() == f"forwarding to {receiver.url}, from position 0\n"
        receiver.wait_for(1)
        store_events(store, chain, messages(chain, "b"))
        receiver.wait_for(2)
        store_events(store, chain, messages(chain, "c"))
        receiver.wait_for(3)
        process.terminate()
        code, words = process.end()
    assert (code, words) == (0, "stopped\n")
    assert texts(spans_in(*receiver.requests)) == ["a", "b", "c"]


def test_only_one_process_forwards_to_a_target(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """The second one says so and ends; another target has nothing to do with it."""
    chain = EventChain()
    store_events(store, chain, messages(chain, "a"))
    with ForwardProcess(database, receiver.url) as process:
        receiver.wait_for(1)
        second = forward(database, receiver.url)
        assert second.exit_code == 1
        assert "another process forwards events to" in second.stderr
        assert forward(database, receiver.url, "--name", "other").exit_code == 0
        os.kill(process.pid, signal.SIGKILL)
        process.end()
        assert forward(database, receiver.url).exit_code == 0
    assert texts(spans_in(*receiver.requests)) == ["a", "a"]


@pytest.mark.slow
def test_it_goes_on_when_the_database_is_back(receiver: ScriptedServer) -> None:
    """The server of the database ends and starts again, and with it the lock of the process."""
    if reason := why_not():
        pytest.skip(reason)
    chain = EventChain()
    with running_server() as server:
        database = server.new_database()
        store = Store(database)
        store_events(store, chain, messages(chain, "a"))
        with ForwardProcess(database, receiver.url) as process:
            assert process.line().startswith("forwarding to")
            receiver.wait_for(1, timeout=30)
            store.close()
            server.stop()
            assert "nothing can be forwarded, will retry" in process.line()
            server.start()
            store_events(store, chain, messages(chain, "b"))
            receiver.wait_for(2, timeout=60)
            assert forward(database, receiver.url).exit_code == 1, "it has the lock again"
            process.terminate()
            assert process.end()[0] == 0
        store.close()
    assert list(dict.fromkeys(texts(spans_in(*receiver.requests)))) == ["a", "b"]


# --- transactions that commit late ----------------------------------------------------------------


@pytest.mark.slow
def test_an_event_that_is_committed_late_is_not_skipped(
    postgres_server: Any, receiver: ScriptedServer
) -> None:
    """Its id was given out before that of an event which was committed before it."""
    database = postgres_server.new_database()
    store, other = Store(database), Store(database)
    late, early = EventChain(), EventChain()
    [event] = messages(late, "late")
    with store.writing("kiosk-18") as connection:
        connection.execute(insert(event_table).values(row_of(event, late, "kiosk-18")))
        store_events(other, early, messages(early, "early"))
        outcome: list[Any] = []
        forwarding = threading.Thread(
            target=lambda: outcome.append(ForwardProcess(database, receiver.url, "--once").end())
        )
        forwarding.start()
        forwarding.join(4)
        assert forwarding.is_alive(), "it waits for the transaction"
        assert receiver.requests == []
    forwarding.join(30)
    assert outcome[0][0] == 0
    assert texts(spans_in(*receiver.requests)) == ["late", "early"]
    store.close()
    other.close()


def row_of(event: dict[str, Any], chain: EventChain, client_id: str) -> dict[str, Any]:
    row = {name: value for name, value in event.items() if name in event_table.c}
    row |= {"client_id": client_id, "outbox_id": chain.outbox_id}
    return {**row, "data": canonical.encode(event["data"]), "received_at_ms": 1, "sent_at_ms": 1}


# --- the command line -----------------------------------------------------------------------------


def test_headers_come_from_the_environment_or_a_file(
    database: str,
    store: Store,
    receiver: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key is never on the command line, and masked where a server repeats it."""
    chain = EventChain()
    store_events(store, chain, messages(chain, "a", "b"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api_key=top%20secret-1,x-project-name=p")
    receiver.script(answer(503, "no top secret-1 today"))
    done = forward(database, f"{receiver.url}/v1/traces/")
    assert receiver.requests[0].path == "/v1/traces"
    assert receiver.requests[0].headers["api_key"] == "top secret-1"
    assert receiver.requests[0].headers["x-project-name"] == "p"
    assert "secret-1" not in done.output + str(status(database))
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer top-secret-2\n\nx-project-name: other\n")
    assert forward(database, receiver.url, "--headers", str(file)).exit_code == 0
    assert receiver.requests[-1].headers["authorization"] == "Bearer top-secret-2"
    assert receiver.requests[-1].headers["x-project-name"] == "other"
    assert "api_key" not in receiver.requests[-1].headers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", UNREACHABLE], "--to otlp"),
        (["--to", "otlp"], "--endpoint URL"),
        (["--to", "tracker", "--endpoint", UNREACHABLE], "'tracker' is not 'otlp'"),
        (["--to", "otlp", "--endpoint", "http://collector.example:4318"], "--allow-insecure-http"),
        (["--to", "otlp", "--endpoint", "ftp://127.0.0.1"], "scheme"),
        (["--to", "otlp", "--endpoint", "http://u:p@127.0.0.1"], "credentials"),
        (["--to", "otlp", "--endpoint", UNREACHABLE, "--client", ""], "--client"),
        (["--to", "otlp", "--endpoint", UNREACHABLE, "--name", "n" * 257], "256 printable"),
        (["--to", "otlp", "--endpoint", UNREACHABLE, "--name", "\udce9"], "256 printable"),
        (["--to", "otlp", "--endpoint", UNREACHABLE, "--headers", __file__], "Name: value"),
    ],
)
def test_wrong_use_is_said_in_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    """Before anything is opened or sent; exit code 2."""
    database = tmp_path / "c.sqlite3"
    done = CliRunner().invoke(cli, ["forward", *arguments, "--database", str(database)])
    assert done.exit_code == 2
    assert words in done.stderr
    assert not database.exists()


def test_the_status_is_for_people_too(
    database: str, store: Store, receiver: ScriptedServer
) -> None:
    """How far it is, how far behind, and what was set aside."""
    chain = EventChain()
    sent = messages(chain, "a", "bad")
    store_events(store, chain, sent)
    receiver.otherwise = unless(is_bad, refused(500))
    assert forward(database, receiver.url, "--name", "phoenix").exit_code == 0
    store_events(store, chain, messages(chain, "c"))
    done = CliRunner().invoke(cli, ["forward", "--status", "--database", database])
    assert done.stdout.splitlines() == [
        f"phoenix at {receiver.url}: 1 event behind",
        "  position 2: 1 sent, 0 skipped, 1 set aside",
        f"  http_500: {sent[1]['event_id']} of {CLIENT} (message.logged)",
    ]
