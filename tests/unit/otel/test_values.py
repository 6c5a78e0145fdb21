"""Values of OpenTelemetry as JSON, and JSON as OTLP."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tracker import canonical
from tracker.otel.plain import MAX_DEPTH, Plain
from tracker.otel.values import any_value, json_attributes, json_value, key_values

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.binary(max_size=20)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["@", "@bytes", "@double", "nan"])
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.sampled_from(
    ["@", "@@", "@bytes", "@double", "@@bytes"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8
)


def stored(value: object) -> Any:
    """Return what is read from the outbox where `value` was stored."""
    return canonical.decode(canonical.encode(Plain(1_000).value(value)))


@given(VALUES)
def test_every_value_of_otlp_comes_back(value: object) -> None:
    """From Python to JSON, to OTLP, to JSON: nothing changes on the way, no type either."""
    once = stored(value)
    sent = any_value(once).SerializeToString()
    again = json_value(AnyValue.FromString(sent))
    assert canonical.encode(again) == canonical.encode(once)
    assert any_value(again).SerializeToString() == sent


@given(st.dictionaries(KEYS, VALUES))
def test_attributes_come_back(attributes: dict[str, Any]) -> None:
    """Their keys too, those that begin like a tag of ours included."""
    once = stored(attributes)
    pairs = key_values(once)
    assert sorted(pair.key for pair in pairs) == sorted(attributes)
    assert canonical.encode(json_attributes(pairs)) == canonical.encode(once)


def test_values_keep_their_type_in_otlp() -> None:
    """A whole float is no integer, and bytes are no text."""
    said = {"a": 1, "b": 1.0, "c": math.inf, "d": b"\xff", "e": None, "f": "x", "@g": [True]}
    pairs = {pair.key: pair.value for pair in key_values(stored(said))}
    assert list(pairs) == ["@g", "a", "b", "c", "d", "e", "f"]
    assert pairs["a"] == AnyValue(int_value=1)
    assert pairs["b"] == AnyValue(double_value=1.0)
    assert pairs["c"] == AnyValue(double_value=math.inf)
    assert pairs["d"] == AnyValue(bytes_value=b"\xff")
    assert pairs["e"].WhichOneof("value") is None
    assert pairs["f"] == AnyValue(string_value="x")
    assert pairs["@g"].array_value.values == [AnyValue(bool_value=True)]


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**70, str(2**70)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        ("a\ud800b", "a\\ud800b"),
        (Odd(), "[not text: Odd]"),
        (1j, "1j"),
        ({1: 2}, {"1": 2}),
    ],
)
def test_what_otlp_does_not_have_becomes_text(value: object, expected: object) -> None:
    """Nothing raises, and nothing is lost but its type."""
    assert stored(value) == expected


def test_an_integer_of_thousands_of_digits_is_stored() -> None:
    """Python prints no more than 4,300 of them in decimal."""
    assert int(stored(1 << 20_000), 16) == 1 << 20_000


def test_nesting_has_an_end() -> None:
    """Receivers read 100 nested messages, and a value may contain itself."""
    endless: list[Any] = []
    endless.append(endless)
    plain = stored(endless)
    assert json.dumps(plain).count("[") == MAX_DEPTH + 1  # the marker has one
    wide: list[Any] = []
    wide += [wide, wide]
    assert len(canonical.encode(stored(wide))) < 2_000_000


def test_what_the_tracker_nests_deeper_is_sent_as_json() -> None:
    """Metadata may have 64 levels: more than OTLP's receivers read."""
    deep: Any = 1
    for _ in range(64):
        deep = {"x": deep}
    sent = any_value(deep).SerializeToString()
    read = json_value(AnyValue.FromString(sent))
    for _ in range(MAX_DEPTH):
        read = read["x"]
    assert isinstance(read, str)
    assert canonical.encode(json.loads(read)) in canonical.encode(deep)


@pytest.mark.parametrize("text", ["[secret:openai_key:long]", "a", "ä", "=" * 3])
def test_bytes_that_a_mask_has_changed_are_text(text: str) -> None:
    """They are sent as what they are now."""
    assert any_value({"@bytes": text}) == AnyValue(string_value=text)


@pytest.mark.parametrize("value", [{"@double": "1"}, {"@bytes": 1}, {"@other": "x"}])
def test_what_only_looks_like_a_tag_is_an_object(value: dict[str, Any]) -> None:
    """Metadata may have such keys, as JSON-LD has, and nobody escaped them."""
    (pair,) = any_value(value).kvlist_value.values
    ((key, said),) = value.items()
    assert pair == KeyValue(key=key, value=any_value(said))


def test_long_texts_are_marked_with_what_is_missing() -> None:
    """They are cut once masks are in place."""
    plain = Plain(5)
    found = plain.attributes({"a": "x" * 12, "b": "y" * 5})
    assert plain.cut == 1
    assert found["a"].kept(str(found["a"])) == "xxxxx[cut: 7 characters]"
    assert found["b"] == "yyyyy"
