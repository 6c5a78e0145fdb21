"""The agent process of ``tracker-sync demo``: a fictitious help desk of an airline.

It uses only the public interface of the package. After each call has returned, it writes the result
to a plain file that is independent of the tracker: the record with which the demo compares the
collector's events.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker import AgentPerformanceTracker, APIConfig

if TYPE_CHECKING:
    from typing_extensions import Self

    from tracker import FlushResult

AGENT = "airline-help"
ROUNDS = 10
"""How often the first run plays `TALKS` before the conversation in which it is killed."""

_THINKING_SECONDS = 0.002
_FLUSH_SECONDS = 30
_NEVER_SECONDS = 60
_MODEL = "made-up-small-1"


@dataclass(frozen=True)
class Line:
    """A message; `response_time_ms` and `tokens` are given for those of the agent."""

    role: str
    content: str
    response_time_ms: float | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the agent, with its result."""

    name: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    duration_ms: float


@dataclass(frozen=True)
class Talk:
    """A conversation: topic, messages and tool calls, and quality."""

    topic: str
    steps: tuple[Line | ToolCall, ...]
    quality_score: float
    outcome: str = "resolved"


TALKS = (
    Talk(
        "A suitcase that did not arrive",
        (
            Line("user", "I landed from Lisbon an hour ago and my suitcase did not."),
            Line("agent", "I am sorry. What does the tag's number say?", 412.57, 38),
            Line("user", "LX 204 881. Grey, with a red ribbon."),
            ToolCall("find_bag", {"tag": "LX204881"}, {"at": "LIS", "next": "18:40"}, 133.2),
            Line(
                "agent", "It is still in Lisbon and flies at 18:40. Shall we bring it?", 688.1, 61
            ),
            Line("user", "Yes please, to the hotel. Thank you!"),
        ),
        4.5,
    ),
    Talk(
        "A seat by the window",
        (
            Line("user", "Can I get a window seat to Oslo on Friday? Booking K4TQ2M."),
            ToolCall("list_seats", {"booking": "K4TQ2M"}, {"free": ["14A", "21F"]}, 87.45),
            Line("agent", "14A and 21F are free, both without a charge. Which one?", 530.02, 44),
            Line("user", "14A. I like to see the fjord."),
            ToolCall("assign_seat", {"booking": "K4TQ2M", "seat": "14A"}, {"ok": True}, 95.0),
            Line("agent", "14A is yours. Sit back and look left before landing.", 377.4, 29),
        ),
        5.0,
    ),
    Talk(
        "A guitar as hand luggage",
        (
            Line("user", "May I take a guitar into the cabin?"),
            Line("agent", "If its case is no longer than 100 cm, yes. Is it?", 298.33, 33),
            Line("user", "108 cm with the case."),
            Line(
                "agent", "Then it needs a seat of its own, or travels below as fragile.", 455.9, 52
            ),
            Line("user", "Hm. I will think about it."),
        ),
        3.2,
        "undecided",
    ),
    Talk(
        "Money back for a cancelled flight",
        (
            Line("user", "You cancelled my flight to Kraków. I want my money back — all of it."),
            ToolCall("look_up", {"flight": "ZX 318"}, {"status": "cancelled"}, 61.8),
            Line("agent", "You get all of it: 148.20 €, within seven days.", 610.75, 57),
            Line("user", "Good. And where do I sleep tonight?"),
            Line(
                "agent", "We pay for a room near the airport; the voucher is on its way.", 702.6, 48
            ),
        ),
        4.0,
    ),
)

LAST_TALK = Talk(
    "A missed connection",
    (
        Line("user", "My first flight was late and I missed the one to Tokyo. What now?"),
        Line("agent", "Let me see how we get you there today. Your booking, please?", 391.2, 36),
        Line("user", "P9XW7C, two adults, one child."),
        ToolCall("look_up", {"booking": "P9XW7C"}, {"missed": "ZX 41", "seats": 3}, 72.5),
        Line(
            "agent", "There are three seats via Helsinki at 17:05. Shall I rebook you?", 645.0, 59
        ),
        Line("user", "Yes, quickly please!"),
    ),
    4.8,
)
"""The conversation in which the first run is killed. It stops there: no booking system answers."""

KILL_AFTER_STEP = 3
"""Step of `LAST_TALK` after which the demo sends SIGKILL, which arrives in one of the next ones."""

CONVERSATIONS = ROUNDS * len(TALKS) + 1
"""Number of conversations that the first run starts."""

_REST_OF_LAST_TALK = (
    Line("system", "The agent was restarted in mid-conversation and goes on."),
    ToolCall("rebook", {"booking": "P9XW7C", "via": "HEL"}, {"ok": True, "seat": "30D"}, 911.3),
    Line("agent", "Sorry for the wait. You fly at 17:05 from gate B22.", 520.9, 41),
    Line("user", "You are my hero."),
)


class Agent:
    """Plays conversations; owns the tracker and the descriptor of the record inside its block.

    Args:
        config: The tracker's settings.
        record: The file to which a line is written for each call that returned.
    """

    def __init__(self, config: APIConfig, record: Path) -> None:
        self._tracker = AgentPerformanceTracker(config)
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.close()
        os.close(self._record)

    def play(self, number: int, talk: Talk) -> None:
        """Log a whole conversation."""
        session = self.begin(number, talk)
        self.end(session, talk)

    def begin(self, number: int, talk: Talk) -> str:
        """Log a conversation up to its last step and return its session id."""
        session = self._tracker.start_conversation(
            AGENT, user_id=f"traveller-{number:03}", metadata={"topic": talk.topic}
        )
        self._acknowledged("start_conversation", session)
        for step, said in enumerate(talk.steps, 1):
            self._log(session, said)
            _tell({"conversation": number, "step": step})
            time.sleep(_THINKING_SECONDS)
        return session

    def go_on(self, session: str) -> None:
        """Log the rest of the conversation in which the first run was killed."""
        self._acknowledged("resume_conversation", self._tracker.resume_conversation(session))
        for said in _REST_OF_LAST_TALK:
            self._log(session, said)
        self.end(session, LAST_TALK)

    def end(self, session: str, talk: Talk) -> None:
        """Log that a conversation is over."""
        ended = self._tracker.end_conversation(session, talk.quality_score, outcome=talk.outcome)
        self._acknowledged("end_conversation", ended)

    def flush(self) -> FlushResult:
        """Wait until all events are delivered."""
        return self._tracker.flush(timeout=_FLUSH_SECONDS)

    def _log(self, session: str, said: Line | ToolCall) -> None:
        if isinstance(said, ToolCall):
            event = self._tracker.log_tool_call(
                session,
                said.name,
                said.arguments,
                result=said.result,
                duration_ms=said.duration_ms,
            )
            self._acknowledged("log_tool_call", event)
            return
        event = self._tracker.log_message(
            session,
            said.role,
            said.content,
            response_time_ms=said.response_time_ms,
            tokens_used=said.tokens,
            model=_MODEL if said.role == "agent" else None,
        )
        self._acknowledged("log_message", event)

    def _acknowledged(self, call: str, returned: str) -> None:
        # One unbuffered write: the line has left this process when the next call begins.
        line = json.dumps({"call": call, "returned": returned}) + "\n"
        os.write(self._record, line.encode())


def _tell(what: dict[str, Any]) -> None:
    """Report the progress of this process to the demo."""
    click.echo(json.dumps(what))


@click.command()
@click.option("--outbox", type=click.Path(path_type=Path), required=True)
@click.option("--base-url", required=True)
@click.option("--client", required=True)
@click.option("--record", type=click.Path(path_type=Path), required=True)
@click.option("--resume", help="Session id of the conversation to continue.")
def main(outbox: Path, base_url: str, client: str, record: Path, resume: str | None) -> None:
    """Run the agent of ``tracker-sync demo``. The API key is read from SDK_API_KEY."""
    config = APIConfig(
        client_id=client,
        base_url=base_url,
        outbox_path=outbox,
        disabled=False,
        allow_insecure_http=False,
        on_error="raise",  # a call that returns has its event on disk, without exception
        batch_max_events=20,  # small, so that the progress bar has something to show
    )
    with Agent(config, record) as agent:
        if resume is None:
            for number in range(1, CONVERSATIONS):
                agent.play(number, TALKS[number % len(TALKS)])
            agent.begin(CONVERSATIONS, LAST_TALK)
            # The booking system does not answer: SIGKILL arrives here at the latest.
            time.sleep(_NEVER_SECONDS)
            sys.exit(f"this process was not killed within {_NEVER_SECONDS} s")
        agent.go_on(resume)
        agent.play(CONVERSATIONS + 1, TALKS[0])
        _tell({"flushed": asdict(agent.flush())})


if __name__ == "__main__":
    main()
