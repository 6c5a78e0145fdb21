"""What of a value is kept: all of it where JSON can hold it and it is short, and never an error."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stored import stored
from tracker import canonical, validation
from tracker.trackers.capture import Capture, capture, share

if TYPE_CHECKING:
    from collections.abc import Callable


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


class BrokenDict(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


class Colour(enum.IntEnum):
    RED = 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=20,
)


@given(_JSON)
def test_a_captured_value_that_is_json_is_kept_whole(value: Any) -> None:
    """What JSON can hold, and is short, is kept whole."""
    assert capture(value, 100_000) == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({1, 2}, [1, 2]),
        (b"\x00x", "b'\\x00x'"),
        (math.nan, "nan"),
        ((1, (2,)), [1, [2]]),
        ({1: OrderedDict(a=None)}, {"1": {"a": None}}),
        (Colour.RED, 1),
        ("x\ud800", "x\\ud800"),
        (Broken(), "[not JSON: Broken]"),
        ([BrokenDict(a=1)], [{"a": 1}]),
    ],
)
def test_what_json_cannot_hold_becomes_its_repr(value: Any, kept: Any) -> None:
    """Whatever it is, and whatever its own code does."""
    found = capture(value, 1000)
    assert found == kept
    assert type(found) is type(kept)


def test_what_is_long_is_cut_off_and_says_so() -> None:
    """Texts, lists, dicts, integers and bytes; nothing is left out in silence."""
    assert stored(capture("x" * 1000, 104)) == "x" * 100 + "… (1,000 characters)"
    short = capture(list(range(1000)), 100)
    assert short[:3] == [0, 1, 2]
    assert short[-1] == f"… {1000 - len(short) + 1:,} more"
    short = capture({f"k{n}": n for n in range(1000)}, 100)
    assert short["…"] == f"{1000 - len(short) + 1:,} more"
    assert len(stored(capture(b"x" * 10_000_000, 1000))) < 300
    assert isinstance(capture(10**5000, 1000), str)


def test_many_values_share_one_bound() -> None:
    """What one took, the next cannot have."""
    kept = Capture(30)
    assert kept.take("x" * 20) == "x" * 20
    assert stored(kept.take("y" * 20)) == "yy… (20 characters)"
    assert kept.full


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: "\0" * 2_000_000, id="text"),
        pytest.param(lambda: ["\0" * 10] * 200_000, id="texts"),
        pytest.param(lambda: {f"{n}\0": None for n in range(200_000)}, id="keys"),
        pytest.param(lambda: [[[]]] * 200_000, id="lists"),
        pytest.param(lambda: [-1.2345678901234567e-300] * 200_000, id="floats"),
        pytest.param(lambda: [2**60] * 200_000, id="integers"),
        pytest.param(lambda: [10**4000] * 1000, id="long integers"),
        pytest.param(lambda: ["\U0001f600" * 3] * 200_000, id="emoji"),
        pytest.param(lambda: ["\ud800" * 3] * 200_000, id="surrogates"),
        pytest.param(lambda: [object()] * 100_000, id="objects"),
        pytest.param(lambda: CYCLE, id="cycle"),
    ],
)
def test_a_captured_value_takes_its_share_of_an_event_at_most(make: Callable[[], Any]) -> None:
    """Four of them always fit into an event, and validation has nothing against them."""
    kept = stored(capture(make(), share(1_048_576)))
    validation.check_json("kept", kept)
    size = len(canonical.encode({"kept": kept}).encode())
    assert size <= 1_048_576 // 4 + 200
    assert json.loads(canonical.encode({"kept": kept})) == {"kept": kept}
