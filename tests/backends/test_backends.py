"""Real conversations in MLflow and Phoenix: each span once, whoever was killed on the way."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from tests.acceptance.test_no_event_lost import kill, run_until
from tests.acceptance.test_replay import kill_after
from tests.support import agent, cli
from tests.support.backends import Backend, MLflow, Phoenix, StoredSpan
from tests.support.conversations import all_calls, needs_data
from tests.support.uploads import account_of, dead_letters, wait_until
from tracker import APIConfig, Tracker, canonical
from tracker.otel import OutboxSpanProcessor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.backends, pytest.mark.timeout(1_800), needs_data]

CONVERSATIONS, KILLS = 20, 3
_YEAR_2500 = "16725225600000000000"


@pytest.fixture
def client(tmp_path: Path) -> dict[str, str]:
    """The settings of a client, without those of a receiver."""
    return {
        "SDK_CLIENT_ID": "kiosk-17",
        "SDK_OUTBOX_PATH": str(tmp_path / "outbox.sqlite3"),
        "SDK_BATCH_MAX_EVENTS": "100",
    }


def configured(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> APIConfig:
    """Return the configuration of these settings, in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return APIConfig()


def replay(environment: dict[str, str], notes: Path) -> None:
    """Log the conversations, in processes that are killed."""
    chance = random.Random(5)  # noqa: S311 - repeatable, not secret
    for _ in range(KILLS):
        process = agent.start(environment, "replay", notes, CONVERSATIONS)
        kill_after(process, notes, chance.randint(50, 200))
    process = agent.start(environment, "replay", notes, CONVERSATIONS)
    run_until("finished", process)
    process.wait()
    kill(process)


def upload(environment: dict[str, str], *, again: bool = False) -> None:
    """Upload what is pending; `again`, what was delivered too."""
    if again:
        assert cli.process("resend", "--since", "1d", environment=environment)[0] == 0
    code, said, trouble = cli.process("flush", "--timeout", "50", environment=environment)
    assert code == 0, said + trouble


def logged(environment: dict[str, str]) -> set[str]:
    """Return the ids of all events in the outbox."""
    _, said, _ = cli.process("list", "--limit", "0", "--json", environment=environment)
    return {event["event_id"] for event in json.loads(said)}


def about(span: StoredSpan, name: str) -> Any:
    """Return an attribute, whether the receiver keeps its name or nests it."""
    if name in span.attributes:
        return span.attributes[name]
    found: Any = span.attributes
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


@pytest.mark.parametrize("kind", [MLflow, Phoenix])
def test_every_span_is_there_once_after_kills_and_a_second_sending(
    kind: type[Backend], tmp_path: Path, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions, traces, tool calls and sums of tokens are those of the outbox."""
    with kind(tmp_path / "store") as backend:
        environment = {**client, **backend.environment}
        replay(environment, tmp_path / "notes")
        with Tracker(configured(environment, monkeypatch)) as tracker:
            for number in range(CONVERSATIONS):
                session = f"conversation-{number}"
                tracker.llm.record_usage("p", "m", 100 + number, number, session_id=session)
            used = tracker.llm.get_usage()
        upload(environment)
        upload(environment, again=True)
        ids = logged(environment)
        wait_until(
            lambda: {about(span, "tracker.event.id") for span in backend.spans()} >= ids,
            "all events are stored",
            60,
        )
        spans = backend.spans()
        assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
        known = {span.span_id for span in spans}
        assert [span.name for span in spans if span.parent_id and span.parent_id not in known] == []
        sessions = {about(span, "session.id") for span in spans}
        assert sessions == {f"conversation-{number}" for number in range(CONVERSATIONS)}
        chats = [span for span in spans if span.name == "chat m"]
        for side, other, sum_of in (
            ("input", "prompt", [each.prompt_tokens for each in used]),
            ("output", "completion", [each.completion_tokens for each in used]),
        ):
            assert sum(_tokens(span, side, other) for span in chats) == sum(sum_of)
        assert _tool_calls(spans) == {
            (call.arguments["name"], _text(call.arguments["arguments"]))
            for call in all_calls(CONVERSATIONS)
            if call.type == "tool.called"
        }
        roots = [span for span in spans if not span.parent_id and "conversation" in span.name]
        assert len(roots) == CONVERSATIONS
        assert all(about(span, "input.value") for span in roots)
        if isinstance(backend, MLflow):
            assert {status for (status,) in backend.query("SELECT status FROM trace_info")} <= {
                "OK"
            }


def _tool_calls(spans: list[StoredSpan]) -> set[tuple[str, str]]:
    return {
        (about(span, "gen_ai.tool.name"), _text(about(span, "gen_ai.tool.call.arguments")))
        for span in spans
        if span.name.startswith("execute_tool ")
    }


def _text(arguments: Any) -> str:
    """Return arguments in one form: a receiver may parse the JSON text."""
    return canonical.encode(json.loads(arguments) if isinstance(arguments, str) else arguments)


def _tokens(span: StoredSpan, side: str, openinference: str) -> int:
    """Return tokens by the name that was sent, or the one that Phoenix makes of it."""
    found = about(span, f"gen_ai.usage.{side}_tokens")
    return int(found if found is not None else about(span, f"llm.token_count.{openinference}"))


def test_what_phoenix_lost_after_it_had_acknowledged_it_can_be_sent_again(
    tmp_path: Path, client: dict[str, str]
) -> None:
    """It answers before it stores; `resend` brings back what a kill has cost."""
    with Phoenix(tmp_path / "store") as phoenix:
        environment = {**client, **phoenix.environment}
        replay(environment, tmp_path / "notes")
        upload(environment)
        phoenix.kill()
        phoenix.start()
        upload(environment, again=True)
        ids = logged(environment)
        wait_until(
            lambda: {about(span, "tracker.event.id") for span in phoenix.spans()} >= ids,
            "all events are stored",
            60,
        )
        spans = phoenix.spans()
        assert len({span.span_id for span in spans}) == len(spans)


def test_spans_that_mlflow_cannot_store_hold_up_no_other(
    tmp_path: Path, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 500 to a time in the year 2500, for ever; the others are stored as they were."""
    with MLflow(tmp_path / "store") as mlflow:
        settings = configured({**client, **mlflow.environment}, monkeypatch)
        with Tracker(settings) as tracker:
            for number in range(1, 31):
                end = (
                    16_725_225_600_000_000_000 if number in (15, 16) else 1_796_027_844_079_099_110
                )
                tracker.track(
                    "otel.span",
                    {
                        "trace_id": f"{number:032x}",
                        "span_id": f"{number:016x}",
                        "name": "step",
                        "kind": "client",
                        "start": "1796027844079099110",
                        "end": end,
                        "attributes": {"number": number, "text": "ü", "real": 0.5},
                        "resource": {"attributes": {"service.name": "kiosk"}},
                    },
                )
            tracker.flush(50)
        account = account_of(settings)
        assert (account.delivered, account.dead, account.pending) == (28, 2, 0)
        assert [code for _, code, _ in dead_letters(settings)] == ["http_500", "http_500"]
        spans = mlflow.spans()
        assert sorted(about(span, "number") for span in spans) == [
            number for number in range(1, 31) if number not in (15, 16)
        ]
        assert {(about(span, "text"), about(span, "real")) for span in spans} == {("ü", 0.5)}


def test_a_span_of_opentelemetry_is_in_mlflow_as_it_was(
    tmp_path: Path, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In by the SDK's processor, out over OTLP: the same ids, times and attributes."""
    given: dict[str, Any] = {"text": "ü", "number": 7, "real": 0.5, "flag": True, "list": [1, 2]}
    provider = TracerProvider(shutdown_on_exit=False)
    with MLflow(tmp_path / "store") as mlflow:
        settings = configured({**client, **mlflow.environment}, monkeypatch)
        with Tracker(settings) as tracker:
            provider.add_span_processor(OutboxSpanProcessor(tracker, conversation=False))
            with provider.get_tracer("t").start_as_current_span("step", attributes=given) as span:
                pass
            assert tracker.flush(50).delivered == 1
        assert isinstance(span, ReadableSpan)
        [stored] = mlflow.spans()
        assert {name: about(stored, name) for name in given} == given
        [times] = mlflow.query(
            "SELECT start_time_unix_nano, end_time_unix_nano FROM spans WHERE name = 'step'"
        )
        assert times == (span.start_time, span.end_time)
        context = span.get_span_context()
        assert context is not None
        assert f"{context.span_id:016x}" in stored.span_id
