"""`traceback_of`: where an exception came from, bounded, without what it must not show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.recorded import Recorded
from tracker import AgentPerformanceTracker, Tracker
from tracker.redaction.redactor import Redactor
from tracker.trackers.tracebacks import MOST_CHARACTERS, traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeConfig

HERE = str(Path(__file__))
KEY = "sk-proj-" + "a1B2" * 12


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - that is what it is for
        return error
    raise AssertionError("nothing was raised")


def fail(text: str = "no such place") -> None:
    local = "local variable"  # noqa: F841 - it must not be shown
    raise LookupError(text)


def text_of(config: MakeConfig, error: BaseException, **settings: Any) -> str:
    """Return the traceback as it is stored: masked, and cut."""
    made = config(**settings)
    text = traceback_of(error, made)
    assert text is not None
    data, _ = Redactor(made).apply("span.recorded", {"traceback": text})
    stored: str = data["traceback"]
    return stored


def test_frames_have_place_function_and_source_but_no_variables(config: MakeConfig) -> None:
    """As Python writes them."""
    text = text_of(config, raised(fail))
    heading, *_ = lines = text.splitlines()
    assert heading == "Traceback (most recent call last):"
    assert lines[-1] == "LookupError: no such place"
    assert lines[-2] == "    raise LookupError(text)"
    assert lines[-3].startswith(f'  File "{HERE}", line ')
    assert lines[-3].endswith(", in fail")
    assert "local variable" not in text.replace('local = "local variable"', "")


def test_an_exception_that_was_never_raised_has_none(config: MakeConfig) -> None:
    """Type and message say all."""
    assert traceback_of(LookupError("x"), config()) is None


def test_causes_and_contexts_are_told_in_order(config: MakeConfig) -> None:
    """The oldest first, and not those that are suppressed."""

    def wrap() -> None:
        try:
            try:
                fail("first")
            except LookupError as error:
                raise ValueError("second") from error
        except ValueError:
            raise KeyError("third")  # noqa: B904 - on purpose

    text = text_of(config, raised(wrap))
    order = [
        "LookupError: first",
        "direct cause",
        "ValueError: second",
        "During",
        "KeyError: 'third'",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)

    def hide() -> None:
        try:
            fail("first")
        except LookupError:
            raise KeyError("second") from None

    assert "first" not in text_of(config, raised(hide))


def test_circles_and_long_chains_end(config: MakeConfig) -> None:
    """Of a chain of many, the newest are told."""
    error = raised(fail)
    error.__context__ = other = raised(lambda: fail("other"))
    other.__context__ = error
    assert text_of(config, error).count("Traceback") == 2
    newest = raised(lambda: fail("0"))
    for number in range(1, 1_000):
        newest, older = raised(lambda number=number: fail(str(number))), newest  # type: ignore[misc]
        newest.__cause__ = older
    text = text_of(config, newest)
    assert text.startswith("[older exceptions left out]")
    assert text.count("LookupError: ") == 10
    assert text.endswith("LookupError: 999")


def test_a_deep_recursion_keeps_both_ends(config: MakeConfig) -> None:
    """And says how much is left out between them."""

    def deep(level: int) -> None:
        if level == 0:
            fail()
        deep(level - 1)

    text = text_of(config, raised(lambda: deep(500)))
    assert text.count("  File ") == 50
    assert "frames left out]" in text
    assert "in fail" in text
    assert "in raised" in text


def test_the_whole_is_bounded_in_whole_lines(config: MakeConfig) -> None:
    """The middle is left out after masking, so that no part of a secret remains."""
    newest = raised(lambda: fail("x" * 9_000 + f" {KEY}"))
    for _ in range(5):
        newest, older = raised(lambda: fail(f"{KEY} " * 100)), newest
        newest.__cause__ = older
    text = text_of(config, newest)
    assert len(text) <= MOST_CHARACTERS + 100
    assert "[the middle was left out]" in text
    assert "sk-proj" not in text
    assert "[secret:" in text
    assert text.startswith("Traceback")
    assert "[a longer text, left out]" in text_of(config, raised(lambda: fail("x" * 20_000)))


def test_odd_exceptions_are_told_as_far_as_they_can_be(config: MakeConfig) -> None:
    """Lone surrogates, a text that raises, attributes that raise."""

    class OddError(Exception):
        exceptions = property(lambda self: 1 / 0)

        def __str__(self) -> str:
            raise RuntimeError("never")

    def odd() -> None:
        raise OddError

    assert text_of(config, raised(lambda: fail("a \ud800 b"))).endswith("a \\ud800 b")
    found = traceback_of(raised(odd), config())
    assert found is None or found.endswith("OddError: [no text: RuntimeError in its __str__]")


def test_without_content_only_frames_and_types_are_left(config: MakeConfig) -> None:
    """Messages and source lines may hold anything."""
    text = text_of(config, raised(fail), capture_content=False)
    assert "no such place" not in text
    assert "raise LookupError" not in text
    assert text.endswith("in fail\nLookupError")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups and notes are of Python 3.11")
def test_groups_and_notes_are_told(config: MakeConfig) -> None:
    """Each exception of a group below it, within the limits."""
    group = ExceptionGroup  # type: ignore[name-defined,unused-ignore]  # noqa: F821
    inner = [raised(lambda n=n: fail(f"inner {n}")) for n in range(30)]  # type: ignore[misc]
    inner[0].add_note("a note\nof two lines")  # type: ignore[attr-defined,unused-ignore]

    def fail_together() -> None:
        raise group("several", [inner[0], group("deeper", inner[1:])])

    text = text_of(config, raised(fail_together))
    assert "ExceptionGroup: several (2 sub-exceptions)" in text
    assert "  | LookupError: inner 0\n  | a note\n  | of two lines" in text
    assert "  |   | LookupError: inner 1" in text
    assert "more exceptions left out]" in text
    assert text.count("LookupError") == text.count("LookupError: inner") + text.count(
        "raise Lookup"
    )


def test_what_fails_keeps_its_traceback(recorded: Recorded) -> None:
    """Of conversation, span, tool block and observed call, the innermost and the conversation."""
    tracker = recorded.tracker

    @tracker.observe(name="look")
    def look() -> None:
        fail()

    c = tracker.conversation("agent")
    with pytest.raises(LookupError), c, tracker.span("outer"), c.tool("find"):
        look()
    told = {event["type"]: event["data"].get("traceback") for event in recorded.events}
    assert "in fail" in told["function.observed"]
    assert "in look" in told["function.observed"]
    assert told["tool.called"] is told["span.recorded"] is None
    assert "in test_what_fails" in told["conversation.failed"]
    assert "in fail" in told["conversation.failed"]
    for text in told.values():
        assert text is None or "tracker/trackers" not in text.replace(HERE, "")


def test_another_exception_in_the_outer_span_is_told(recorded: Recorded) -> None:
    """What was raised from it is new."""
    tracker = recorded.tracker

    def wrap() -> None:
        try:
            with tracker.span("inner"):
                fail()
        except LookupError as error:
            raise KeyError("other") from error

    with pytest.raises(KeyError), tracker.span("outer"):
        wrap()
    inner, outside = [event["data"]["traceback"] for event in recorded.events]
    assert inner.endswith("LookupError: no such place")
    assert outside.endswith("KeyError: 'other'")


def test_a_small_event_has_no_room_for_it(config: MakeConfig) -> None:
    """The failure is stored all the same."""
    with Tracker(config(max_event_bytes=2_048)) as tracker:
        session = tracker.start_conversation("agent")
        assert tracker.record_failed_session(session, exception=raised(fail))


@pytest.fixture
def recorded(config: MakeConfig) -> Any:
    opened = Recorded(config())
    with opened.tracker:
        yield opened


def test_an_exception_that_is_caught_is_not_kept_alive(config: MakeConfig) -> None:
    """Nor what its frames hold, while the span around it goes on."""
    import weakref

    class Held:
        pass

    def hold() -> None:
        held = Held()
        seen.append(weakref.ref(held))
        raise LookupError

    seen: list[Any] = []
    with AgentPerformanceTracker(config()) as tracker, tracker.span("outer"):
        try:
            with tracker.span("inner"):
                hold()
        except LookupError:
            pass
        assert seen[0]() is None
