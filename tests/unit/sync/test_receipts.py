"""`read_answer`: no bytes that a server could send raise, and only a valid receipt delivers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from tracker.delivery.words import one_line
from tracker.redaction.own_keys import know
from tracker.sync.destination import Delivery, Outcome, Rejection
from tracker.sync.receipts import read_answer

IDS = ["e1", "e2", "e3"]
VALID: dict[str, Any] = {
    "protocol": 1,
    "first_event_id": "e1",
    "last_event_id": "e3",
    "accepted": 2,
    "duplicates": 1,
    "rejected": [],
}

LEAF = (
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.text(max_size=5)
    | st.sampled_from([*IDS, 1, 2, 3])
)  # fmt: skip
VALUE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["event_id", "code", "message", "error"]), inner)
    ),
    max_leaves=6,
)
RECEIPTLIKE = st.fixed_dictionaries(
    {}, optional={name: st.just(value) | VALUE for name, value in VALID.items()}
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Location"]),
    st.text(max_size=40)
    | st.sampled_from(["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "²"]),
)


def read(status: int, body: object, headers: dict[str, str] | None = None) -> Delivery:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(status, CaseInsensitiveDict(headers or {}), data, IDS)


def valid(body: object) -> bool:
    """Whether PROTOCOL.md calls `body` a receipt for `IDS`; written from that page alone."""
    if not isinstance(body, dict) or set(VALID) - set(body):
        return False
    rejected = body["rejected"]
    counts = [body["accepted"], body["duplicates"]]
    if not isinstance(rejected, list) or any(type(item) is not int for item in counts):
        return False
    names = [item.get("event_id") if isinstance(item, dict) else None for item in rejected]
    return (
        type(body["protocol"]) is int
        and body["protocol"] == 1
        and body["first_event_id"] == "e1"
        and body["last_event_id"] == "e3"
        and min(counts) >= 0
        and sum(counts) + len(rejected) == 3
        and all(isinstance(name, str) and name in IDS for name in names)
        and len(set(names)) == len(names)
    )


def test_a_valid_receipt_delivers() -> None:
    """And so does one with fields that this version does not know."""
    assert read(200, VALID).outcome is Outcome.DELIVERED
    assert read(200, {**VALID, "server": "x"}).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({}, ("", None)),
        ({"warning": "forked", "highest_seq": 7}, ("forked", 7)),
        ({"warning": None, "highest_seq": "7"}, ("", None)),
        ({"warning": ["forked"], "highest_seq": True}, ("", None)),
        ({"warning": "\x1b[31mfork\n", "highest_seq": -1}, (" [31mfork ", -1)),
        ({"warning": False, "highest_seq": 1.5}, ("", None)),
    ],
)
def test_whatever_a_receipt_says_besides_it_delivers(said: Any, heard: Any) -> None:
    """A warning and the highest seq are heard if they make sense."""
    delivery = read(200, {**VALID, **said})
    assert delivery.outcome is Outcome.DELIVERED
    assert (delivery.warning, delivery.highest_seq) == heard


def test_rejections_come_in_the_servers_order_and_words() -> None:
    """A rejection without words still gets a code."""
    rejected = [{"event_id": "e3", "code": "c", "message": "m"}, {"event_id": "e1"}]
    delivery = read(200, {**VALID, "accepted": 1, "duplicates": 0, "rejected": rejected})
    assert delivery.rejected == [Rejection("e3", "c", "m"), Rejection("e1", "rejected", "")]


def test_a_collector_that_does_not_know_the_digest_rejects_nothing() -> None:
    """What was checked before it was sent stays pending until the collector is updated."""
    rejected = [{"event_id": "e2", "code": "digest_mismatch", "message": "m"}]
    delivery = read(200, {**VALID, "accepted": 2, "duplicates": 0, "rejected": rejected})
    assert (delivery.outcome, delivery.rejected) == (Outcome.UNEXPECTED, ())
    assert "Update the collector" in delivery.cause


@given(RECEIPTLIKE | VALUE)
@example(VALID)
@example({**VALID, "accepted": 2, "duplicates": True})
@example({**VALID, "protocol": True})
@example({**VALID, "protocol": 1.0})
@example({**VALID, "rejected": {}})
@example({**VALID, "accepted": 1, "rejected": [{"event_id": ["e1"]}]})
@example({**VALID, "accepted": 0, "rejected": [{"event_id": "e1"}, {"event_id": "e1"}]})
def test_only_what_the_protocol_calls_a_receipt_delivers(body: object) -> None:
    """Of all JSON answers with status 200; the others are unexpected, and say why."""
    delivery = read(200, body)
    assert (delivery.outcome is Outcome.DELIVERED) == valid(body)
    if not valid(body):
        assert delivery.outcome is Outcome.UNEXPECTED
        assert delivery.rejected == ()
        assert delivery.cause


@given(st.integers(100, 999), st.binary(max_size=60) | RECEIPTLIKE, HEADERS)
@example(200, b"[" * 100_000, {})
@example(400, b'{"error":' * 50_000, {})
@example(200, b"\xff\xfe{\x00}\x00", {})
@example(200, b'{"accepted":' + b"9" * 5000 + b"}", {})
@example(503, b"", {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"})
def test_no_answer_raises_or_delivers_by_accident(
    status: int, body: object, headers: dict[str, str]
) -> None:
    """Any status, headers and bytes give a delivery that can be stored and shown."""
    delivery = read(status, body, headers)
    if delivery.outcome is Outcome.DELIVERED:
        assert status == 200
    for text in (delivery.cause, delivery.code):
        assert text.isprintable()
        text.encode()
    assert delivery.retry_after is None or delivery.retry_after >= 0


@given(VALUE | st.binary(max_size=20), st.sampled_from([400, 422]))
@example({"error": {"code": "invalid_event", "message": "m"}}, 400)
@example({"error": {"code": "c"}}, 422)
@example({"error": {"code": ""}}, 400)
@example({"error": {"code": 7, "message": "m"}}, 400)
@example({"error": {"message": "m"}}, 400)
def test_only_the_protocols_error_body_calls_a_batch_invalid(body: object, status: int) -> None:
    """A proxy's 400 must not make dead letters."""
    error = body.get("error") if isinstance(body, dict) else None
    ours = isinstance(error, dict) and isinstance(error.get("code"), str) and error["code"] != ""
    expected = Outcome.INVALID if ours else Outcome.UNEXPECTED
    assert read(status, body).outcome is expected


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (201, Outcome.UNEXPECTED),
        (204, Outcome.UNEXPECTED),
        (301, Outcome.UNEXPECTED),
        (304, Outcome.UNEXPECTED),
        (400, Outcome.INVALID),
        (401, Outcome.REFUSED),
        (403, Outcome.REFUSED),
        (404, Outcome.UNEXPECTED),
        (407, Outcome.UNEXPECTED),
        (408, Outcome.UNAVAILABLE),
        (409, Outcome.UNEXPECTED),
        (413, Outcome.TOO_LARGE),
        (422, Outcome.INVALID),
        (425, Outcome.UNAVAILABLE),
        (429, Outcome.UNAVAILABLE),
        (500, Outcome.UNAVAILABLE),
        (511, Outcome.UNAVAILABLE),
    ],
)
def test_each_status_means_what_the_table_says(status: int, outcome: Outcome) -> None:
    """With the protocol's error body; its code and message are kept."""
    delivery = read(status, {"error": {"code": "some_code", "message": "some words"}})
    assert delivery.outcome is outcome
    assert delivery.code == "some_code"
    assert f"{status} some_code: some words" in delivery.cause


def test_a_servers_words_become_one_printable_line() -> None:
    """No control character, no lone surrogate, no novel, and never the key, whole or in part."""
    assert one_line("a\nb\x1b[31m\0\ud800é😀") == "a b [31m  é😀"
    assert one_line("x" * 10_000) == "x" * 300 + "…"
    know("secret-key")
    assert one_line("." * 290 + "secret-key and more") == "." * 290 + "…"
    assert one_line(None) == "None"
