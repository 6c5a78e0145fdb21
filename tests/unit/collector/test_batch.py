"""What the collector takes for a batch, and which events it rejects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.collector import EventChain
from tracker import canonical
from tracker.collector.batch import InvalidEventError, check_event, parse_batch
from tracker.collector.refusal import RefusedError

CLIENT = "test-client"


def encode(body: object) -> bytes:
    return json.dumps(body).encode()


def refusal(body: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse_batch(body, CLIENT)
    return caught.value


def test_a_valid_batch_is_read_as_sent() -> None:
    """Ids, order, outbox and clock come out as they went in."""
    chain = EventChain()
    events = chain.events(3)
    batch = parse_batch(encode(chain.batch(events)), CLIENT)
    assert (batch.client_id, batch.outbox_id) == (CLIENT, chain.outbox_id)
    assert batch.sent_at_ms == 1_790_000_000_000
    assert [event.event_id for event in batch.events] == [event["event_id"] for event in events]
    assert [event.seq for event in batch.events] == [1, 2, 3]
    assert batch.event_ids[0] == events[0]["event_id"]
    assert batch.event_ids[-1] == events[-1]["event_id"]
    assert batch.rejected == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff{}",
        b'{"protocol": NaN}',
        b'{"protocol": 1, "x": Infinity}',
        b"[" * 200_000,
        b'{"protocol": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "list", "text", "not-utf-8", "nan", "infinity", "deep", "long-integer"],
)
def test_a_body_that_is_no_json_object_is_refused_with_400(body: bytes) -> None:
    """Whatever is no JSON object is the request's fault, never a crash."""
    assert (refusal(body).status, refusal(body).code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_id", None),
        ("outbox_id", "not-a-uuid"),
        ("outbox_id", None),
        ("sent_at_ms", "1"),
        ("sent_at_ms", True),
        ("sent_at_ms", 1.5),
        ("sent_at_ms", 2**63),
        ("events", []),
        ("events", {}),
        ("events", None),
    ],
)
def test_a_wrong_field_of_the_body_is_refused_with_400(field: str, value: object) -> None:
    """The message names the field at fault."""
    chain = EventChain()
    error = refusal(encode({**chain.batch(chain.events(1)), field: value}))
    assert (error.status, error.code) == (400, "invalid_request")
    assert field in error.message


def test_the_protocols_500_events_are_taken_and_one_more_is_not() -> None:
    """The bound lies exactly where the protocol puts it."""
    chain = EventChain()
    events = chain.events(501)
    assert len(parse_batch(encode(chain.batch(events[:500])), CLIENT).events) == 500
    assert refusal(encode(chain.batch(events))).status == 400


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None])
def test_another_protocol_is_refused_with_409(version: object) -> None:
    """Not with 400, on which clients give events up; and whatever else the body has."""
    error = refusal(encode({"protocol": version, "shape": "of the future"}))
    assert (error.status, error.code) == (409, "unsupported_protocol")


def test_a_body_without_protocol_is_refused_with_400() -> None:
    """It is no message of any version."""
    assert refusal(b"{}").status == 400


def test_another_clients_body_is_refused_with_403() -> None:
    """A key speaks for one client only."""
    chain = EventChain()
    error = refusal(encode(chain.batch(chain.events(1), "somebody-else")))
    assert (error.status, error.code) == (403, "client_mismatch")


def test_an_invalid_event_does_not_take_the_others_with_it() -> None:
    """Only the bad one is rejected, under its id, and the message names the field."""
    chain = EventChain()
    events = chain.events(3)
    events[1]["seq"] = 0
    batch = parse_batch(encode(chain.batch(events)), CLIENT)
    assert [event.seq for event in batch.events] == [1, 3]
    ((event_id, code, message, seq),) = batch.rejected
    assert seq == 0
    assert (event_id, code) == (events[1]["event_id"], "invalid_event")
    assert message.startswith("seq: ")


@pytest.mark.parametrize("field", sorted(EventChain().event(salted=False)))
def test_every_field_of_an_event_is_required(field: str) -> None:
    """An event without one of the protocol's fields is rejected by that field's name."""
    event = EventChain().event(salted=False)
    del event[field]
    with pytest.raises(InvalidEventError, match=f"^{field}: is missing"):
        check_event(event)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_id", "0"),
        ("event_id", 7),
        ("event_id", "{00000000-0000-7000-8000-000000000000}"),
        ("event_id", "00000000-0000-7000-8000-000000000000\n"),
        ("seq", 0),
        ("seq", -1),
        ("seq", True),
        ("seq", 1.0),
        ("seq", "1"),
        ("seq", 2**63),
        ("type", ""),
        ("type", None),
        ("type", "x" * 257),
        ("timestamp_ms", None),
        ("timestamp_ms", 1e12),
        ("timestamp_ms", 2**63),
        ("agent_id", ""),
        ("agent_id", 5),
        ("session_id", "x" * 257),
        ("session_id", "a\0b"),
        ("user_id", "\ud800"),
        ("data", []),
        ("data", None),
        ("data", {"text": "\udfff"}),
        ("data", {"\ud800": 1}),
        ("data", {"number": float("inf")}),
        ("digest", "F" * 64),
        ("digest", "f" * 63),
        ("digest", None),
        ("chain", "g" * 64),
        ("chain", 0),
    ],
)
def test_a_wrong_field_of_an_event_is_named(field: str, value: object) -> None:
    """Nothing of a wrong type, size or content gets as far as the database."""
    with pytest.raises(InvalidEventError, match=f"^{field}: ") as caught:
        check_event({**EventChain().event(), field: value})
    assert caught.value.code == "invalid_event"


@pytest.mark.parametrize("entry", [None, 1, "text", [], True])
def test_an_entry_that_is_no_object_is_rejected_without_an_id(entry: object) -> None:
    """The receipt still counts it."""
    chain = EventChain()
    batch = parse_batch(encode(chain.batch([entry, chain.event()])), CLIENT)
    assert [(rejection.event_id, rejection.code) for rejection in batch.rejected] == [
        ("", "invalid_event")
    ]
    assert batch.event_ids[0] == ""
    assert len(batch.events) == 1


@pytest.mark.parametrize(("sent", "reported"), [("no uuid", "no uuid"), (17, ""), (None, "")])
def test_an_unusable_id_is_reported_as_sent_if_it_is_text(sent: object, reported: str) -> None:
    """The client finds the rejected event by what it sent itself."""
    chain = EventChain()
    batch = parse_batch(encode(chain.batch([{**chain.event(), "event_id": sent}])), CLIENT)
    assert batch.rejected[0].event_id == reported
    assert batch.event_ids[-1] == reported


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "message.other"),
        ("timestamp_ms", 1),
        ("agent_id", None),
        ("session_id", "session-2"),
        ("user_id", "mallory"),
        ("event_id", "00000000-0000-7000-8000-000000000000"),
        ("data", {"role": "user", "content": "changed"}),
    ],
)
def test_a_changed_event_no_longer_matches_its_digest(field: str, value: object) -> None:
    """Every field under the digest is covered by the check."""
    with pytest.raises(InvalidEventError, match=r"^digest: ") as caught:
        check_event({**EventChain().event(), field: value})
    assert caught.value.code == "digest_mismatch"


def test_an_erased_event_keeps_the_digest_of_what_it_said() -> None:
    """Erasure is the one change that the digest may not show."""
    event = {**EventChain().event(salted=False), "data": {"erased": True}}
    assert check_event(event).data == '{"erased":true}'


def test_what_is_left_of_a_salted_event_has_its_digest() -> None:
    """Commitments stand for user and data; with anything else beside them it is a mismatch."""
    event = EventChain().event(user_id="u")
    sealed = canonical.seal("u", canonical.encode(event["data"]), bytes.fromhex(event.pop("salt")))
    left = {**event, "user_id": None, "data": {"erased": True}, "sealed": sealed.hex()}
    assert check_event(left).seal == sealed.hex()
    for changed in (
        {"user_id": "u"},
        {"data": event["data"]},
        {"timestamp_ms": 1},
        {"agent_id": "another"},
        {"sealed": "0" * 128},
        {"context": {"release": "1"}},
    ):
        with pytest.raises(InvalidEventError, match=r"^digest: "):
            check_event({**left, **changed})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"salt": "0" * 31}, "salt: is not 32 lower-case hex digits"),
        ({"salt": None}, "salt: is not 32 lower-case hex digits"),
        ({"sealed": "0" * 128}, "sealed: is there beside salt"),
        ({"context": None}, "context: is not an object"),
        ({"trace": "0" * 32}, "trace: is not an object"),
        ({"salt": "0" * 32}, "digest: is not that of the event"),
        ({"context": {}}, "digest: is not that of the event"),
    ],
)
def test_optional_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    """Context and trace too are covered by the digest."""
    with pytest.raises(InvalidEventError, match=f"^{message}"):
        check_event({**EventChain().event(), **fields})
    event = EventChain().event(context={"release": "é"}, trace={"trace_id": "0" * 31 + "1"})
    assert check_event(event).context == '{"release":"é"}'


@pytest.mark.parametrize("data", [{"erased": 1}, {"erased": True, "more": 1}, {"erased": False}])
def test_what_only_looks_like_an_erasure_is_a_mismatch(data: dict[str, Any]) -> None:
    """Nobody may change an event under the name of erasure."""
    with pytest.raises(InvalidEventError, match=r"^digest: "):
        check_event({**EventChain().event(), "data": data})


def test_unknown_types_and_fields_are_no_fault() -> None:
    """Newer clients may send more than this collector knows."""
    event = EventChain().event(type="shop.basket_left")
    assert check_event({**event, "novelty": [1]}).type == "shop.basket_left"


@pytest.mark.parametrize(
    "text",
    [
        '{"x":-0.0}',
        '{"x":1e+16}',
        '{"x":0.1}',
        '{"x":5e-324}',
        '{"x":' + "9" * 4300 + "}",
        '{"x":"\\u0000\u2028\U0001f600"}',
        '{"a":1,"a\u00e9":2,"b":[true,null,{}]}',
    ],
)
def test_data_comes_out_exactly_as_its_digest_was_made(text: str) -> None:
    """Numbers and characters survive decoding and encoding without the least change."""
    event = EventChain().event(json.loads(text))
    assert check_event(json.loads(json.dumps(event))).data == text


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "9" * 5_000])
@pytest.mark.parametrize("deep", [False, True])
def test_what_is_no_number_rejects_its_event_only(number: str, deep: bool) -> None:
    """So it is noted which event was refused; of a whole body, nothing could be."""
    chain = EventChain()
    sent = [chain.event({"x": [12345]} if deep else {"x": 12345}), chain.event()]
    body = encode(chain.batch(sent)).replace(b"12345", number.encode())
    batch = parse_batch(body, CLIENT)
    assert [event.event_id for event in batch.events] == [sent[1]["event_id"]]
    (rejection,) = batch.rejected
    assert (rejection.event_id, rejection.seq) == (sent[0]["event_id"], 1)
    assert rejection.message == "event: has NaN, Infinity or an integer of too many digits"


def test_a_number_beyond_every_float_rejects_its_event_only() -> None:
    """Python reads 1e999 as infinity; that must not become a stored value."""
    chain = EventChain()
    body = encode(chain.batch([chain.event({"x": 12345}), chain.event()]))
    batch = parse_batch(body.replace(b"12345", b"1e999"), CLIENT)
    assert batch.rejected[0].message == "data: has a number that is too large"
    assert len(batch.events) == 1


@pytest.mark.parametrize("name", ["data", "context", "trace"])
def test_an_event_nested_more_deeply_than_every_database_reads_is_rejected(name: str) -> None:
    """Whatever the version of Python could parse; text and what is wide are no matter."""
    levels: Any = {}
    for _ in range(895):
        levels = {"x": levels}
    chain = EventChain()
    sent = {**chain.event(), name: {"x": [{"x": levels}], "wide": [{}] * 1_000}}
    with pytest.raises(InvalidEventError, match="digest"):  # all but that is as it should be
        check_event(sent)
    deeper = {**chain.event(), name: {"x": [{"x": [[[[levels]]]]}]}}
    with pytest.raises(InvalidEventError, match="nested too deeply"):
        check_event(deeper)
    wide = chain.event({"said": "[{" * 1_000, "items": [[]] * 1_000})
    assert check_event(wide).event_id == wide["event_id"]
