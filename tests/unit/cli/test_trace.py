"""`tracker-sync trace`: a trace as a tree with bars, or as JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import call, call_json, process
from tests.support.settings import quick
from tracker import AgentPerformanceTracker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The outbox and the newest trace: a turn with a span that failed."""
    settings = quick(tmp_path_factory.mktemp("trace"))
    with AgentPerformanceTracker(settings) as tracker:
        with tracker.span("earlier"):
            pass
        with tracker.conversation("agent-1") as c:
            c.user("Where\nis it?")
            span = tracker.span("retrieve")
            with pytest.raises(LookupError), span:
                fail(tracker)
            c.agent("I do not know \u2603")
        tracker.track("out.side")
    return settings.outbox_path, span.trace_id


def fail(tracker: AgentPerformanceTracker) -> None:
    tracker.track("index.asked")
    raise LookupError("no such place")


def test_the_tree_has_a_line_for_each_span_and_event(logged: tuple[Path, str]) -> None:
    """With names, durations, a bar each, and why a span failed."""
    path, trace_id = logged
    shown = call("--outbox", path, "trace", "--last")
    assert shown.exit_code == 0
    head, facts, _, *lines = shown.stdout.splitlines()
    assert head == f"trace {trace_id}"
    assert re.fullmatch(r"\S+ \S+  [\d.]+ m?s, 2 spans, 5 other events", facts)
    labels = [re.split(r" {2,}(?=[\d·█])", line)[0] for line in lines[:7]]
    assert labels == [
        "turn agent-1",
        "├─ conversation.started",
        "├─ user Where is it?",
        "├─ retrieve",
        "│  └─ index.asked",
        "├─ agent I do not know \u2603",
        "└─ conversation.ended",
    ]
    assert "█" in lines[0]
    assert "LookupError: no such place" in shown.stdout


def test_the_beginning_of_an_id_is_enough(logged: tuple[Path, str]) -> None:
    """In upper case too, if only one trace begins so."""
    path, trace_id = logged
    for given in (trace_id, trace_id[:12].upper(), trace_id[:5]):
        assert call_json("--outbox", path, "trace", given)["trace_id"] == trace_id
    ambiguous = call("--outbox", path, "trace", "")
    assert ambiguous.exit_code == 1
    assert "several traces begin with" in ambiguous.stderr


@pytest.mark.parametrize("given", ["0" * 32, "xyz", "%", "é"])
def test_an_unknown_trace_is_an_error(logged: tuple[Path, str], given: str) -> None:
    """In one line, with exit code 1."""
    shown = call("--outbox", logged[0], "trace", given)
    assert shown.exit_code == 1
    assert f"there is no trace {given} in" in shown.stderr


def test_an_outbox_without_traces_says_so(tmp_path: Path) -> None:
    """`--last` finds none."""
    settings = quick(tmp_path)
    with AgentPerformanceTracker(settings) as tracker:
        tracker.track("out.side")
    shown = call("--outbox", settings.outbox_path, "trace", "--last")
    assert shown.exit_code == 1
    assert "there is no trace in" in shown.stderr


@pytest.mark.parametrize("arguments", [[], ["--last", "4bf9"]])
def test_one_trace_is_asked_for(logged: tuple[Path, str], arguments: list[str]) -> None:
    """By its id, or as the newest."""
    assert call("--outbox", logged[0], "trace", *arguments).exit_code == 2


def test_content_is_left_out_on_request(logged: tuple[Path, str]) -> None:
    """In the tree and in JSON; names and times stay."""
    for options in ([], ["--json"]):
        shown = call("--outbox", logged[0], "trace", "--last", "--no-content", *options)
        assert shown.exit_code == 0
        assert "retrieve" in shown.stdout
        assert "Where" not in shown.stdout
        assert "no such place" not in shown.stdout


def test_json_has_the_tree(logged: tuple[Path, str]) -> None:
    """As `get_trace` returns it."""
    (turn,) = call_json("--outbox", logged[0], "trace", "--last")["spans"]
    (retrieve,) = turn["children"]
    assert retrieve["error_type"] == "LookupError"
    assert [event["type"] for event in retrieve["events"]] == ["index.asked"]


def test_a_stream_that_cannot_encode_lines_gets_ascii(logged: tuple[Path, str]) -> None:
    """And on a narrow terminal names give way to bars."""
    narrow = {"PYTHONIOENCODING": "ascii:backslashreplace", "COLUMNS": "40"}
    code, shown, complaint = process(
        "--outbox", logged[0], "trace", "--last", "--no-content", environment=narrow
    )
    assert (code, complaint) == (0, "")
    assert shown.isascii()
    assert "|- retrieve" in shown
    assert "#" in shown
    assert max(map(len, shown.splitlines()[2:])) < 40
