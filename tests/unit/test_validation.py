"""Checks on arguments: what passes, what is refused, and in which words."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from tracker import validation
from tracker.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Colour(str, enum.Enum):
    """An Enum of the kind that passes for a string."""

    RED = "red"


class Level(enum.IntEnum):
    """An Enum of the kind that passes for an integer."""

    HIGH = 3


def refusal(check: Callable[..., object], *args: object) -> str:
    with pytest.raises(ValidationError) as caught:
        check(*args)
    return str(caught.value)


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["a", "é" * 256, "x" * 256, " ", "a\nb", Colour.RED])
def test_ids_are_non_empty_strings_of_up_to_256_characters(value: str) -> None:
    """Characters are counted, not bytes; a str comes back, whatever class it was of."""
    kept = validation.check_id("agent_id", value)
    assert kept == value
    assert type(kept) is str


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "agent_id: is empty; give a non-empty string"),
        ("x" * 300, "agent_id: has 300 characters; at most 256 are allowed"),
        ("x" * 257, "agent_id: has 257 characters; at most 256 are allowed"),
        (None, "agent_id: is None; give a str"),
        (7, "agent_id: is of type int; give a str"),
        (b"a", "agent_id: is of type bytes; give a str"),
        ("a\0b", "agent_id: has a NUL character; many databases cannot store it"),
        ("ab\udcffc", "agent_id: has a lone surrogate (U+DCFF) at index 2; UTF-8 cannot encode it"),
    ],
)
def test_other_ids_are_refused(value: object, words: str) -> None:
    """The message names argument, what was given, and what is allowed."""
    assert refusal(validation.check_id, "agent_id", value) == words


def test_an_optional_id_may_be_none_but_not_empty() -> None:
    """None means absent; an empty string is a mistake."""
    assert validation.check_optional_id("user_id", None) is None
    assert validation.check_optional_id("user_id", "u") == "u"
    assert "user_id: is empty" in refusal(validation.check_optional_id, "user_id", "")


@pytest.mark.parametrize("value", ["", "a\0b", "\U0001f600", "é" * 10_000, Colour.RED])
def test_any_text_that_utf8_can_hold_passes(value: str) -> None:
    """Content has no other bounds than the event's size."""
    kept = validation.check_text("content", value)
    assert kept == value
    assert type(kept) is str


@pytest.mark.parametrize("value", [1.0, 5.0, 1, 5, 3.7, Level.HIGH])
def test_scores_from_1_to_5_pass(value: float) -> None:
    """Both ends are included, and integers become floats."""
    kept = validation.check_quality_score("quality_score", value)
    assert kept == value
    assert type(kept) is float


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.99, "is 0.99; give a number from 1.0 to 5.0"),
        (5.01, "is 5.01; give a number from 1.0 to 5.0"),
        (math.nextafter(5.0, 6), "is 5.000000000000001; give a number from 1.0 to 5.0"),
        (math.nan, "is nan; give a number from 1.0 to 5.0"),
        (math.inf, "is inf; give a number from 1.0 to 5.0"),
        (-math.inf, "is -inf; give a number from 1.0 to 5.0"),
        ("5", "is of type str; give a number from 1.0 to 5.0"),
        (True, "is of type bool; give a number from 1.0 to 5.0"),
        (None, "is None; give a number from 1.0 to 5.0"),
        (decimal.Decimal(3), "is of type Decimal; give a number from 1.0 to 5.0"),
        (10**400, "is too large; give a number from 1.0 to 5.0"),
    ],
)
def test_other_scores_are_refused(value: object, words: str) -> None:
    """Nothing is rounded or guessed into range."""
    problem = refusal(validation.check_quality_score, "quality_score", value)
    assert problem == f"quality_score: {words}"


@pytest.mark.parametrize(
    ("value", "kept"),
    [(0, 0.0), (12.344, 12.34), (12.346, 12.35), (0.001, 0.0), (10**12, 1e12)],
)
def test_times_are_rounded_to_2_decimals(value: float, kept: float) -> None:
    """Up to 10**12, and never below zero."""
    assert validation.check_milliseconds("response_time_ms", value) == kept


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.01, "is -0.01; give milliseconds, from 0 to 1,000,000,000,000"),
        (-(2**70), "is -1.1805916207174113e+21; give milliseconds, from 0 to 1,000,000,000,000"),
        (1e12 + 1, "is 1000000000001.0; give milliseconds, from 0 to 1,000,000,000,000"),
        (math.nan, "is nan; give a number of milliseconds, from 0 to 1,000,000,000,000"),
        ("12", "is of type str; give a number of milliseconds, from 0 to 1,000,000,000,000"),
        (False, "is of type bool; give a number of milliseconds, from 0 to 1,000,000,000,000"),
        (
            datetime.timedelta(seconds=1),
            "is of type timedelta; give a number of milliseconds, from 0 to 1,000,000,000,000",
        ),
        (10**400, "is too large; give a number of milliseconds, from 0 to 1,000,000,000,000"),
        (-(10**400), "is too large; give a number of milliseconds, from 0 to 1,000,000,000,000"),
    ],
)
def test_other_times_are_refused(value: object, words: str) -> None:
    """Negative, not finite, or not a number."""
    problem = refusal(validation.check_milliseconds, "response_time_ms", value)
    assert problem == f"response_time_ms: {words}"


@pytest.mark.parametrize("value", [-1e300, 0, 3.5, 10**18])
def test_any_finite_number_passes_as_a_number(value: float) -> None:
    """Feedback has a scale of its own."""
    assert validation.check_number("score", value) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, "3", True, 10**400])
def test_what_is_not_a_finite_number_is_refused(value: object) -> None:
    """The message says that it must be finite."""
    assert "score: is " in refusal(validation.check_number, "score", value)
    assert "give a finite number" in refusal(validation.check_number, "score", value)


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1, Level.HIGH])
def test_counts_up_to_64_bits_pass(value: int) -> None:
    """An int comes back, whatever class it was of."""
    kept = validation.check_count("tokens_used", value)
    assert kept == value
    assert type(kept) is int


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1, "is out of range; give an int from 0 to 2**63 - 1"),
        (2**63, "is out of range; give an int from 0 to 2**63 - 1"),
        (1.0, "is of type float; give an int, 0 or more"),
        (True, "is of type bool; give an int, 0 or more"),
        ("1", "is of type str; give an int, 0 or more"),
    ],
)
def test_other_counts_are_refused(value: object, words: str) -> None:
    """A float is no count, even a whole one."""
    assert refusal(validation.check_count, "tokens_used", value) == f"tokens_used: {words}"


def test_a_choice_is_one_of_the_allowed_strings() -> None:
    """An Enum of str counts as its value and comes back as plain str."""
    kept = validation.check_choice("colour", Colour.RED, ("red", "blue"))
    assert (kept, type(kept)) == ("red", str)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("RED", "'RED'"), ("", "''"), (None, "None"), (1, "of type int"), (["red"], "of type list")],
)
def test_another_choice_is_refused_with_all_that_are_allowed(value: object, shown: str) -> None:
    """The message lists the choices."""
    problem = refusal(validation.check_choice, "colour", value, ("red", "blue"))
    assert problem == f"colour: is {shown}; give one of 'red', 'blue'"


@pytest.mark.parametrize("value", [[], "{}", None, 1, {1, 2}])
def test_metadata_is_a_dict(value: object) -> None:
    """Any other container is refused at its root."""
    assert "metadata: is " in refusal(validation.check_metadata, "metadata", value)
    assert "give a dict with str keys" in refusal(validation.check_metadata, "metadata", value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"": {"": []}},
        {"a": [1, -2.5, True, None, "é\0", (1, 2)]},
        {"big": 2**200, Colour.RED: Level.HIGH},
        {"twice": [nested(3)] * 2},
    ],
)
def test_what_json_can_hold_passes(value: dict[str, Any]) -> None:
    """Tuples pass for lists, and the same object twice is no cycle."""
    assert validation.check_metadata("metadata", value) is value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"user": {"photo": b""}},
            (
                "metadata['user'].photo: bytes is not JSON-serialisable; "
                "give dict, list, str, int, float, bool or None, or a function that converts it "
                "as APIConfig(json_default=...)"
            ),
        ),
        (
            {"when": [0, datetime.datetime(2026, 1, 1)]},
            (
                "metadata['when'][1]: datetime is not JSON-serialisable; "
                "give dict, list, str, int, float, bool or None, or a function that converts it "
                "as APIConfig(json_default=...)"
            ),
        ),
        (
            {"a": {"not a name": {1, 2}}},
            (
                "metadata['a']['not a name']: set is not JSON-serialisable; "
                "give dict, list, str, int, float, bool or None, or a function that converts it "
                "as APIConfig(json_default=...)"
            ),
        ),
        (
            {"a": math.nan},
            "metadata['a']: nan is not JSON-serialisable; give a finite number",
        ),
        (
            {"a": (-math.inf,)},
            "metadata['a'][0]: -inf is not JSON-serialisable; give a finite number",
        ),
        ({1: 2}, "metadata: has the key 1 of type int; give keys as str"),
        ({"a": {None: 2}}, "metadata['a']: has the key None; give keys as str"),
        ({"a": {b"k": 2}}, "metadata['a']: has the key b'k' of type bytes; give keys as str"),
        (
            {"a": "x\ud800"},
            "metadata['a']: has a lone surrogate (U+D800) at index 1; UTF-8 cannot encode it",
        ),
        (
            {"a": {"\ud800": 1}},
            (
                "a key in metadata['a']: has a lone surrogate (U+D800) at index 0; "
                "UTF-8 cannot encode it"
            ),
        ),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_path(value: object, words: str) -> None:
    """The path is written as Python would write it."""
    assert refusal(validation.check_metadata, "metadata", value) == words


def test_integers_that_python_prints_pass_and_longer_ones_are_refused_by_path() -> None:
    """4,298 digits survive any receiver in Python; beyond 4,300 json.loads would refuse."""
    value = {"n": [10**4297, -(10**4297)]}
    validation.check_metadata("metadata", value)
    assert json.loads(json.dumps(value)) == value
    for long in (10**4300, -(10**4300), 10**100_000):
        problem = refusal(validation.check_metadata, "metadata", {"a": {"n": long}})
        assert problem == (
            "metadata['a'].n: is an integer of more than 4,298 digits; give it as a str"
        )


@pytest.mark.parametrize("depth", [63, 64])
def test_nesting_of_64_levels_passes(depth: int) -> None:
    """The dict of the metadata itself is one level."""
    validation.check_metadata("metadata", {"a": nested(depth - 1)})


@pytest.mark.parametrize("depth", [65, 100, 10_000])
def test_deeper_nesting_is_refused(depth: int) -> None:
    """Without recursing as deep as the value does."""
    problem = refusal(validation.check_metadata, "metadata", {"a": nested(depth - 1)})
    assert problem.startswith("metadata['a'][0][0]")
    assert problem.endswith(": is nested more than 64 levels deep")


def test_cycles_are_refused() -> None:
    """By the path where the value meets itself again."""
    ring: dict[str, Any] = {"list": []}
    ring["list"].append(ring)
    assert refusal(validation.check_metadata, "metadata", ring) == (
        "metadata['list'][0]: contains itself; JSON cannot represent a cycle"
    )


def test_an_error_can_be_pickled() -> None:
    """It crosses process boundaries, as in a pool, with message and argument."""
    with pytest.raises(ValidationError) as caught:
        validation.check_id("agent_id", "")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (str(copy), copy.argument) == (str(caught.value), "agent_id")


class EndlessList(list):  # type: ignore[type-arg]  # of anything
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield 1


class EndlessDict(dict):  # type: ignore[type-arg]  # of anything
    def items(self) -> Any:
        return iter(lambda: ("a", 1), None)


class Unwilling(int):
    def __int__(self) -> int:
        raise RuntimeError

    __index__ = __le__ = __lt__ = __ge__ = __gt__ = __int__  # type: ignore[assignment]  # all fail


class Masked:
    @property
    def __class__(self) -> Any:
        raise RuntimeError

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (EndlessList([1, 2]), [1, 2]),
        ({"a": [EndlessList([1])]}, {"a": [[1]]}),
        (EndlessDict(b=2), {"b": 2}),
    ],
)
def test_a_container_is_what_it_holds_whatever_its_own_methods_say(value: Any, stored: Any) -> None:
    """Without end, for example."""
    assert validation.check_json("details", value) == stored


@pytest.mark.parametrize(
    "check",
    [
        validation.check_count,
        validation.check_tokens,
        validation.check_milliseconds,
        validation.check_cost,
    ],
)
def test_a_figure_is_checked_without_its_own_code(check: Any) -> None:
    """Only `ValidationError` comes of a wrong one, and a number of a subclass is its number."""
    assert check("figure", Unwilling(5)) == 5
    with pytest.raises(ValidationError):
        check("figure", Masked())
