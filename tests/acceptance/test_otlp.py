"""Real conversations into an OTLP receiver that fails at times, by processes that are killed."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.acceptance.test_no_event_lost import kill, run_until
from tests.acceptance.test_replay import kill_after
from tests.support import agent, cli
from tests.support.conversations import all_calls, needs_data
from tests.support.otlp import attributes, spans_in, success
from tests.support.server import Answer, Request, ScriptedServer, answer, cut

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

CONVERSATIONS = 8
KILLS = 4


class Moody:
    """A receiver that stores a request before its answer is lost, now and then, or refuses it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.stored: list[Span] = []

    def __call__(self, request: Request) -> Answer:
        mood = self._chance.random()
        if mood < 0.2:
            return answer(503)
        self.stored += spans_in(request)
        return cut(success(), reset=True)(request) if mood < 0.4 else success()(request)


@needs_data
def test_every_event_becomes_the_same_spans_however_often_its_process_is_killed(
    tmp_path: Path,
) -> None:
    """None is missing, and what was sent twice, by whichever process, is the same to the byte."""
    receiver = Moody(random.Random(11))  # noqa: S311 - repeatable, not secret
    chance = random.Random(12)  # noqa: S311 - repeatable, not secret
    notes = tmp_path / "notes"
    calls = all_calls(CONVERSATIONS)
    with ScriptedServer() as server:
        server.otherwise = receiver
        environment = {
            "SDK_PROTOCOL": "otlp",
            "SDK_BASE_URL": server.url,
            "SDK_CLIENT_ID": "kiosk-17",
            "SDK_OUTBOX_PATH": str(tmp_path / "outbox.sqlite3"),
            "SDK_BATCH_MAX_EVENTS": "15",
        }
        for _ in range(KILLS):
            process = agent.start(environment, "replay", notes, CONVERSATIONS)
            kill_after(process, notes, chance.randint(1, 2 * len(calls) // KILLS))
        process = agent.start(environment, "replay", notes, CONVERSATIONS)
        run_until("finished", process)
        assert process.wait() == 0
        kill(process)
        for resend in (False, True):
            if resend:
                assert cli.process("resend", "--since", "1d", environment=environment)[0] == 0
            flusher = agent.start(environment, "burst", tmp_path / "last notes", 1, "flush")
            assert run_until("pending", flusher).split() == ["pending", "0"]
            kill(flusher)
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite3")) as outbox:
        logged = {event_id for (event_id,) in outbox.execute("SELECT event_id FROM delivered")}
    assert {_about(span)["tracker.event.id"] for span in receiver.stored} == logged
    assert len(logged) >= len(calls)
    sent: dict[bytes, set[bytes]] = {}
    for span in receiver.stored:
        sent.setdefault(span.span_id, set()).add(span.SerializeToString())
    assert len(receiver.stored) > 2 * len(calls), "all were sent again, some of them twice"
    assert max(map(len, sent.values())) == 1, "and they were the same"
    known = {(span.trace_id, span.span_id) for span in receiver.stored}
    ended = [span for span in receiver.stored if _about(span)["session.id"] != "burst"]
    assert all((s.trace_id, s.parent_span_id) in known for s in ended if s.parent_span_id)
    sessions = {_about(span)["session.id"] for span in ended}
    assert sessions == {f"conversation-{number}" for number in range(CONVERSATIONS)}


def _about(span: Span) -> dict[str, Any]:
    return attributes(span.attributes)
