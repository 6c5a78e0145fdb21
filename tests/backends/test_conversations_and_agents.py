"""Conversations and agents in MLflow and Phoenix: what they show is what the tracker reads.

Twenty recorded conversations are logged, and agents of several frameworks have twenty more, under
instrumentors of two conventions. Every process that logs, uploads or receives is killed, and all is
sent twice.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends import killed, local
from tests.backends.conftest import configured
from tests.backends.programs import PROGRAMS
from tests.faults import figures
from tests.support.backends import Backend, MLflow, Phoenix, StoredSpan
from tests.support.conversations import needs_data
from tests.support.model_server import ModelServer
from tests.support.uploads import wait_until
from tracker import Tracker
from tracker.events import CONVERSATION_ENDED, MESSAGE_LOGGED, OTEL_SPAN, OTEL_SPAN_STARTED
from tracker.otel import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.backends.local import Local

pytestmark = [pytest.mark.backends, pytest.mark.timeout(1_800), needs_data]

CONVERSATIONS, KILLS = 20, 6
_MICROSECOND = 1_000
_OF_A_MESSAGE = re.compile(r"(?P<list>llm\.(?:in|out)put_messages\.)(?P<number>\d+)")


class Shown:
    """What a receiver shows, and what it has to be compared with.

    Args:
        backend: The receiver.
        events: All events of the outbox.
        reads: What the tracker reads of them.
        unended: The conversations that have not ended, which the roots of some spans wait for.
    """

    def __init__(
        self, backend: Backend, events: Sequence[dict[str, Any]], reads: Local, unended: set[str]
    ) -> None:
        self.events = [event for event in events if event["type"] != OTEL_SPAN_STARTED]
        self.reads = reads
        self.unended = unended
        self.sessions = backend.sessions()
        self.spans = backend.spans()
        self.by_id = {(span.trace_id, span.span_id): span for span in self.spans}
        self.by_event = {span.about("tracker.event.id"): span for span in self.spans}
        self.otel = [event for event in self.events if event["type"] == OTEL_SPAN]
        self.by_event |= {event["event_id"]: self.by_id[_ids(event)] for event in self.otel}

    def each_span_once(self) -> None:
        """None twice, none missing, none else, and each below its parent."""
        assert len(self.by_id) == len(self.spans)
        parents = {key: span.parent_id for key, span in self.by_id.items()}
        assert parents == local.sent_spans(self.events)
        known = {span_id for _, span_id in parents}
        waiting = [span for span in self.spans if span.parent_id and span.parent_id not in known]
        assert {span.about("session.id") for span in waiting} == self.unended

    def traces(self) -> None:
        """`get_trace` has the spans of OpenTelemetry, with the same parents."""
        assert self.reads.parents.keys() == {_ids(event) for event in self.otel}
        assert self.reads.parents == {key: self.by_id[key].parent_id for key in self.reads.parents}

    def tokens(self) -> None:
        """`get_usage` has the same conversations with the same sums."""
        assert self.sessions.keys() == {e["session_id"] for e in self.events if e["session_id"]}
        assert self.reads.tokens == {
            session_id: (session.prompt_tokens, session.completion_tokens)
            for session_id, session in self.sessions.items()
            if session.prompt_tokens or session.completion_tokens
        }

    def first_inputs(self) -> None:
        """Each conversation that has ended shows what its user said first."""
        ended = {e["session_id"] for e in self.events if e["type"] == CONVERSATION_ENDED}
        read = {each: asked for each, asked in self.reads.asked.items() if each in ended}
        assert len(read) >= CONVERSATIONS + 4 * killed.RUNS
        assert read == {session_id: self.sessions[session_id].first_input for session_id in read}

    def messages(self) -> None:
        """`get_conversation_history` has the same messages of the same roles."""
        assert {_message(span) for span in self.spans if _is_message(span)} == {
            (entry.event_id, entry.role, _plain(entry.content))
            for entry in self.reads.entries.values()
            if entry.type == MESSAGE_LOGGED
        }
        for entry in self.reads.entries.values():
            if entry.type == OTEL_SPAN and entry.role == "agent":
                said = str(self.by_event[entry.event_id].attributes)
                assert entry.content is not None
                assert entry.content in said
                assert entry.prompt is None or entry.prompt in said

    def tool_calls(self) -> None:
        """`get_conversation_history` has the same calls with the same arguments and results."""
        read = {e.event_id: e.tool_call for e in self.reads.entries.values() if e.tool_call}
        assert len([span for span in self.spans if span.kind == "TOOL"]) == len(read)
        for event_id, call in read.items():
            span = self.by_event[event_id]
            assert span.kind == "TOOL"
            assert (call.name, _plain(call.arguments), _plain(call.result), call.call_id) == (
                _first(span, names.TOOL_NAME) or span.name,
                _plain(_first(span, names.TOOL_ARGUMENTS)),
                _plain(_first(span, names.TOOL_RESULT)),
                _first(span, names.TOOL_CALL_ID),
            )

    def attributes(self) -> None:
        """What instrumentors recorded has arrived as it was, its times to the microsecond."""
        for event in self.otel:
            span = self.by_event[event["event_id"]]
            given = event["data"]["attributes"]
            assert span.name == event["data"]["name"]
            assert abs(span.start_ns - int(event["data"]["start"])) <= _MICROSECOND
            assert abs(span.end_ns - int(event["data"]["end"])) <= _MICROSECOND
            found = {
                key: span.attributes.get(key, span.about(_from_zero(key, given))) for key in given
            }
            assert {key: _plain(value) for key, value in found.items()} == {
                key: _plain(value) for key, value in given.items()
            }


@pytest.mark.parametrize("kind", [MLflow, Phoenix])
def test_a_receiver_shows_what_the_tracker_reads(
    kind: type[Backend],
    tmp_path: Path,
    client: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After kills of all that log, upload and receive, and a second sending."""
    with kind(tmp_path / "store") as backend, ModelServer() as models:
        environment = {**client, **backend.environment}
        killed.replay(environment, tmp_path / "notes", CONVERSATIONS)
        model = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{models.url}/v1"}
        hits = killed.run_agents({**environment, **model}, tmp_path)
        with Tracker(configured(environment, monkeypatch)) as tracker:
            for number in range(CONVERSATIONS):
                session = f"conversation-{number}"
                tracker.llm.record_usage(
                    "p", "m", 100 + number, number, session_id=session, cost_usd=0.01
                )
            left = [each.session_id for each in tracker.list_conversations(status="open")]
            for session_id in left[::2]:
                tracker.end_conversation(session_id)
            assert tracker.flush(killed.FLUSH_SECONDS).pending == 0
            reads = local.read(tracker, killed.stored_events(environment))
        backend.kill()
        backend.start()
        hits += killed.upload_again(environment, KILLS)
        events = killed.stored_events(environment)
        _wait_for(backend, events)
        shown = Shown(backend, events, reads, set(left[1::2]))
        shown.each_span_once()
        shown.traces()
        shown.tokens()
        shown.first_inputs()
        shown.messages()
        shown.tool_calls()
        shown.attributes()
        interrupted = _interrupted(events)
        if isinstance(backend, MLflow):
            _check_states(backend, events, interrupted)
        sums = [sum(each) for each in zip(*reads.tokens.values(), strict=True)]
        calls = sum(entry.tool_call is not None for entry in reads.entries.values())
        figures.say(
            capsys,
            f"{kind.__name__}: {len(events)} events after {killed.KILLS + hits + 1} kills, "
            f"{len(interrupted)} spans interrupted; sent twice: {len(shown.spans)} spans each "
            f"once, {len(shown.sessions)} sessions, {len(reads.entries)} entries of transcripts, "
            f"{calls} of them tool calls, {sums[0]} and {sums[1]} tokens: equal to the reads",
        )


def _wait_for(backend: Backend, events: Sequence[dict[str, Any]]) -> None:
    """Wait until all is stored: Phoenix answers before it is."""
    expected = local.sent_spans(events).keys()
    wait_until(
        lambda: {(span.trace_id, span.span_id) for span in backend.spans()} >= expected,
        "all spans are stored",
        120,
    )


def _interrupted(events: Sequence[dict[str, Any]]) -> set[str]:
    """Return the traces with spans that a kill has ended; see that every span has ended."""
    began = {_ids(event) for event in events if event["type"] == OTEL_SPAN_STARTED}
    ended = [event for event in events if event["type"] == OTEL_SPAN]
    assert sorted(began) == sorted(_ids(event) for event in ended)
    found = [e for e in ended if e["data"].get("attributes", {}).get(names.INTERRUPTED)]
    assert found, "a kill hit an agent at work"
    return {event["data"]["trace_id"] for event in found}


def _check_states(mlflow: MLflow, events: Sequence[dict[str, Any]], interrupted: set[str]) -> None:
    """A trace is in progress if it has no root, and failed only if a kill has ended its spans."""
    rows = mlflow.query("SELECT request_id, status FROM trace_info")
    states = {trace.removeprefix("tr-"): status for trace, status in rows}
    rooted = {key[0] for key, parent in local.sent_spans(events).items() if parent is None}
    assert {trace for trace, state in states.items() if state in ("OK", "ERROR")} == rooted
    assert {state for trace, state in states.items() if trace not in rooted} == {"IN_PROGRESS"}
    assert {trace for trace, state in states.items() if state == "ERROR"} <= interrupted


def _ids(event: dict[str, Any]) -> tuple[str, str]:
    return event["data"]["trace_id"], event["data"]["span_id"]


def _is_message(span: StoredSpan) -> bool:
    """Return True if a span is that of a message, and not the root of a turn that it ended."""
    about = span.about
    return about("tracker.event.type") == MESSAGE_LOGGED and about("tracker.turn.answered") is None


def _message(span: StoredSpan) -> tuple[str, str, Any]:
    role = span.about("tracker.message.role") or "agent"
    side = "output.value" if role == "agent" else "input.value"
    return span.about("tracker.event.id"), role, _plain(span.about(side))


def _first(span: StoredSpan, keys: Sequence[str]) -> Any:
    found = (span.about(key) for key in keys)
    return next((value for value in found if value is not None), None)


def _from_zero(key: str, given: Iterable[str]) -> str:
    """Return a name as Phoenix nests it, which gives the first message the number 0."""
    place = _OF_A_MESSAGE.match(key)
    if place is None:
        return key
    found = [other for name in given if (other := _OF_A_MESSAGE.match(name))]
    first = min(int(other["number"]) for other in found if other["list"] == place["list"])
    return f"{place['list']}{int(place['number']) - first}{key[place.end() :]}"


def _plain(value: Any) -> Any:
    """Return a value in one form: a receiver may parse the JSON text that it is given."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value


def test_there_are_twenty_conversations_of_agents() -> None:
    """Four of each program."""
    assert len(PROGRAMS) * killed.RUNS == 20
