"""A program as people write them for langfuse: nothing of what it says is lost on the way here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import CollectorClient
from tests.support.conversations import ROOT
from tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.collector import CollectorProcess
    from tracker import Trace, TraceSpan

PROGRAM = Path(__file__).with_name("help_desk.py")
AROUND = {"environment": "staging", "release": "2.1.0", "tags": {"team": "support"}}
INSIDE = {**AROUND, "tags": {"team": "support", "experiment": "b"}, "tenant": "north"}


@pytest.fixture(scope="module")
def settings(
    shared_collector: CollectorProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment that the program has."""
    client = shared_collector.client("help-desk")
    return {
        "SDK_API_KEY": client.api_key,
        "SDK_CLIENT_ID": client.client_id,
        "SDK_BASE_URL": client.url,
        "SDK_OUTBOX_PATH": str(tmp_path_factory.mktemp("desk") / "desk.sqlite3"),
    }


@pytest.fixture(scope="module")
def served(settings: dict[str, str]) -> list[tuple[str, str]]:
    """What the program returned: a conversation and its trace for each question."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [(session_id, trace_id) for session_id, trace_id in json.loads(done.stdout)]


@pytest.fixture
def desk(
    settings: dict[str, str], served: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tracker]:
    """A tracker on the outbox that the program left."""
    assert len(served) == 3
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with Tracker() as tracker:
        assert tracker.flush(timeout=60).pending == 0
        yield tracker


def nested(span: TraceSpan) -> object:
    """Return the name of a span and those of the spans inside it."""
    return [span.name, *map(nested, span.children)] if span.children else span.name


def the_only_tree(trace: Trace | None) -> TraceSpan:
    assert trace is not None
    [root] = trace.spans
    return root


def test_each_question_is_one_trace(desk: Tracker, served: list[tuple[str, str]]) -> None:
    """Decorated functions, spans, tasks, threads and generators nest as they were called."""
    for _, trace_id in served:
        found = the_only_tree(desk.get_trace(trace_id))
        [request] = found.children
        names = [span.name for span in request.children]
        assert (found.name, request.name, names) == ("help-desk", "request", ["answer", "judge"])
        inside = sorted(map(str, map(nested, request.children[0].children)))
        assert inside == ["['retrieve', 'embed']", "generate", "moderate", "stream"]
        assert nested(request.children[1]) == ["judge", "embed", "embed"]


def test_spans_carry_what_they_were_given(desk: Tracker, served: list[tuple[str, str]]) -> None:
    """Input, output, attributes; the call of the model inside of its span; and what failed."""
    steps = []
    for _, trace_id in served:
        [request] = the_only_tree(desk.get_trace(trace_id)).children
        steps.append({span.name: span for span in request.children[0].children})
    retrieve = steps[0]["retrieve"]
    assert retrieve.input == "When is my delivery due?"
    assert retrieve.output == ["Orders are delivered within three days."]
    assert retrieve.attributes == {"index": "handbook", "hits": 1}
    assert [event.type for event in steps[1]["generate"].events] == ["llm.used"]
    assert steps[1]["stream"].output == [
        "Goods",
        "can",
        "be",
        "returned",
        "within",
        "thirty",
        "days.",
    ]
    failed = steps[2]["generate"]
    assert (failed.error_type, failed.output, failed.events) == ("LookupError", None, ())


def test_sessions_users_and_usage_are_found(desk: Tracker, served: list[tuple[str, str]]) -> None:
    """Each conversation with its user, its messages and what it cost."""
    for number, (session_id, _) in enumerate(served):
        [found] = desk.list_conversations(user_id=f"user-{number}")
        assert (found.session_id, found.agent_id) == (session_id, "help-desk")
        messages = desk.get_conversation_history(session_id)
        assert [entry.role for entry in messages if entry.role] == ["user", "agent"]
    [usage] = desk.llm.get_usage(by="model")
    assert (usage.key, usage.calls) == ("gpt-4o", 2)
    assert usage.cost_usd == pytest.approx(0.004)


def test_scores_of_answers_sessions_and_traces_are_summed_up(
    desk: Tracker, served: list[tuple[str, str]]
) -> None:
    """By name; and those of a conversation stand with it."""
    found = {score.name: score for score in desk.get_scores()}
    assert {name: score.count for name, score in found.items()} == {
        "complete": 3,
        "helpful": 2,
        "overlap": 3,
    }
    assert (found["complete"].true_share, found["helpful"].mean) == (1.0, 1.0)
    names = [score.name for score in desk.list_scores(served[0][0])]
    assert names == ["overlap", "helpful"]


def test_tags_and_metadata_are_on_every_event_at_the_collector(
    desk: Tracker,
    served: list[tuple[str, str]],
    settings: dict[str, str],
) -> None:
    """Those of the program on all, those of a request on what happened in it."""
    url, name, key = (settings[f"SDK_{each}"] for each in ("BASE_URL", "CLIENT_ID", "API_KEY"))
    arrived = CollectorClient(url, name, key).events()
    assert len(arrived) == desk.health().accepted
    own = [event for event in arrived if not event["type"].startswith("checkpoint.")]
    later = [event for event in own if event["data"].get("name") in ("complete", "helpful")]
    assert {event["type"] for event in later} == {"score.recorded"}
    assert all(event["context"] == AROUND for event in later)
    assert all(event["context"] == INSIDE for event in own if event not in later)
    assert len(desk.list_conversations(tags={"experiment": "b"})) == len(served)
    assert desk.list_conversations(tags={"experiment": "a"}) == ()
