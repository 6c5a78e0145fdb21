"""Canonical JSON, digests and chain, held against definitions worked out here independently."""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker import canonical
from tracker.events import Event, make_event

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1, 2]}, '{"a":[1,2],"b":1}'),
        ({"é": 'ü/"\\', "a": "\n\t\x00\x7f"}, '{"a":"\\n\\t\\u0000\x7f","é":"ü/\\"\\\\"}'),
        ({"Z": 1, "a": 1, "_": 1, "10": 1, "9": 1}, '{"10":1,"9":1,"Z":1,"_":1,"a":1}'),
        # By code point U+FF5E comes before U+1F600; by UTF-16 unit it would come after.
        ({"\U0001f600": 1, "\uff5e": 2}, '{"\uff5e":2,"\U0001f600":1}'),
        (1e16, "1e+16"),
        (1e15, "1000000000000000.0"),
        (10**16, "10000000000000000"),
        (10**30, "1" + "0" * 30),
        (0.1, "0.1"),
        (1 / 3, "0.3333333333333333"),
        (5e-324, "5e-324"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (True, "true"),
        (None, "null"),
        ((1, 2), "[1,2]"),
        ("\u2028</script>", '"\u2028</script>"'),
        ({}, "{}"),
    ],
)
def test_the_form_is_the_protocols(value: Any, text: str) -> None:
    """Sorted by code point, no white space, no needless escapes, shortest floats."""
    assert canonical.encode(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_does_not_have_is_an_error(value: Any) -> None:
    """NaN and infinities never become text."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical.encode(value)


@given(JSON)
def test_every_json_value_survives(value: Any) -> None:
    """What is encoded decodes to an equal value of equal types, by any JSON parser."""
    assert repr(json.loads(canonical.encode(value))) == repr(
        json.loads(json.dumps(value, sort_keys=True))
    )


OPTIONAL = st.none() | TEXT


@given(TEXT, TEXT, st.integers(0, 2**63), OPTIONAL, OPTIONAL, OPTIONAL, st.dictionaries(TEXT, JSON))
def test_the_envelope_is_the_canonical_json_of_the_event(
    event_id: str,
    type_: str,
    timestamp_ms: int,
    agent_id: str | None,
    session_id: str | None,
    user_id: str | None,
    data: dict[str, Any],
) -> None:
    """Joined from parts, it equals what encoding the event as a whole would give."""
    text = canonical.encode(data)
    joined = canonical.envelope(event_id, type_, timestamp_ms, agent_id, session_id, user_id, text)
    event = {
        "event_id": event_id,
        "type": type_,
        "timestamp_ms": timestamp_ms,
        "agent_id": agent_id,
        "session_id": session_id,
        "user_id": user_id,
        "data": data,
    }
    assert joined == json.dumps(
        event, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def test_digests_and_chain_are_those_of_the_protocol() -> None:
    """SHA-256 over bytes written out here by hand, the first link over 64 zeros."""
    first = (
        '{"agent_id":"billing","data":{"content":"naïve 😀","role":"user"},'
        '"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","session_id":"s","timestamp_ms":1,'
        '"type":"message.logged","user_id":null}'
    )
    joined = canonical.envelope(
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "message.logged",
        1,
        "billing",
        "s",
        None,
        canonical.encode({"role": "user", "content": "naïve 😀"}),
    )
    assert joined == first
    digest = hashlib.sha256(first.encode("utf-8")).hexdigest()
    assert canonical.digest(joined) == digest
    link = hashlib.sha256(b"0" * 64 + digest.encode()).hexdigest()
    assert canonical.chain(canonical.GENESIS, digest) == link
    assert canonical.chain(link, digest) == hashlib.sha256(f"{link}{digest}".encode()).hexdigest()


def test_an_event_carries_the_digest_of_what_it_holds() -> None:
    """Recomputed from the event's own fields as a receiver would, by the words of the protocol."""
    context, trace = '{"release":"7"}', '{"span_id":"00f067aa0ba902b7"}'
    event = make_event(
        "t", {"b": 1, "a": "é"}, agent_id="a", user_id="ü", context=context, trace=trace
    )
    assert event.salt is not None
    head = {
        "event_id": event.event_id,
        "type": "t",
        "timestamp_ms": event.timestamp_ms,
        "agent_id": "a",
        "session_id": None,
        "context": json.loads(context),
        "trace": json.loads(trace),
    }
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    salts = hashed(event.salt)
    user = hashed(b"s" + salts[:16] + b"\x01" + "ü".encode())
    data = hashed(b"d" + salts[16:] + event.data.encode())
    assert hashed(b"tracker/2\x00" + hashed(text.encode()) + user + data).hex() == event.digest
    assert canonical.seal("ü", event.data, event.salt) == user + data
    erased = event._replace(user_id=None, data=canonical.ERASED, salt=None, sealed=user + data)
    assert event.is_intact
    assert erased.is_intact
    assert make_event("t", {}).digest != make_event("t", {}).digest


def test_the_digest_of_a_salted_event_is_the_published_one() -> None:
    """A vector that any other implementation can be held against."""
    event = Event(
        "01890a5d-ac96-774b-bcce-b302099a8057", "message.logged", 1, "billing", None, None,
        '{"content":"naïve 😀","role":"user"}', "", salt=bytes(range(16)),
    )  # fmt: skip
    assert canonical.digest_of(*event) == (
        "a77b088c784f26626e53e677a4dddb186520d62fc4de8f689562cec980d6a09d"
    )


def hashed(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# Python 3.12 warns of it; what a child then does is what this is about.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_makes_the_same_digests_and_links() -> None:
    """It does so without OpenSSL, whose locks another thread may have held at the fork."""

    def made() -> str:
        digest = canonical.digest("é" * 1_000)
        keyed = canonical.chain(canonical.GENESIS, digest, b"a key of 16 bytes")
        return " ".join((digest, canonical.chain(canonical.GENESIS, digest), keyed))

    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(sender, made().encode())
        os.write(sender, b" " + type(canonical._sha256(b"")).__module__.encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as pipe:
        *hashes, module = pipe.read().split(" ")
    os.waitpid(pid, 0)
    assert " ".join(hashes) == made()
    assert module in ("_sha2", "_sha256")
