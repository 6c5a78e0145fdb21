"""A conversation's list of messages, given again and again, in the shapes of the model APIs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.conversations import needs_data, read_conversations
from tests.support.recorded import Recorded
from tracker import (
    AgentPerformanceTracker,
    APIConfig,
    AsyncAgentPerformanceTracker,
    Tracker,
    ValidationError,
)
from tracker.outbox.sqlite.engine import OutboxConnection
from tracker.outbox.store.memory_buffer import MemoryBuffer
from tracker.testing import RecordingDestination

if TYPE_CHECKING:
    from tests.conftest import MakeConfig


SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Where is order 7?"}
ANSWERED = {"role": "assistant", "content": "On its way."}
THANKED = {"role": "user", "content": "Thank you."}

FUNCTION = {"name": "find_order", "arguments": '{"id": 7}'}
CHAT = [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": FUNCTION}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sent"},
]
LEGACY = [
    {"role": "assistant", "content": None, "function_call": FUNCTION},
    {"role": "function", "name": "find_order", "content": "sent"},
]
RESPONSES = [
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "status": "completed", **FUNCTION},
    {"type": "function_call_output", "call_id": "c1", "output": "sent"},
]
BUILT_IN = [
    {"type": "mcp_call", "id": "c1", "server_label": "shop", "output": "sent", **FUNCTION},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"},
]
ANTHROPIC = [
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "c1", "name": "find_order", "input": {"id": 7}}],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": [{"type": "text", "text": "sent"}],
            }
        ],
    },
]


class Model:
    """An object of an SDK, as pydantic makes them."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said

    def model_dump(self, *, exclude_none: bool) -> dict[str, Any]:
        nothing = {} if exclude_none else {"refusal": None, "audio": None}
        return {**nothing, **self._said}


def said(recorded: Recorded) -> list[Any]:
    """Return what was logged: role and content of messages, name and result of calls."""
    shown = []
    for event in recorded.events:
        data = event["data"]
        if event["type"] == "message.logged":
            shown.append((data["role"], data["content"]))
        elif event["type"] == "tool.called":
            shown.append((data["name"], data.get("result", data.get("error"))))
    return shown


def test_a_growing_list_is_logged_once(recorded: Recorded) -> None:
    """Each call returns the ids of what it logged, and the second of two logs nothing."""
    with recorded.tracker.conversation("a", user_id="u") as c:
        grown: list[Any] = []
        ids = []
        for message in (SYSTEM, ASKED, ANSWERED, THANKED):
            grown.append(message)
            ids += recorded.tracker.log_messages(c.session_id, grown)
            assert c.messages(grown) == []
    events = [event for event in recorded.events if event["type"] == "message.logged"]
    assert [event["event_id"] for event in events] == ids
    assert {(e["session_id"], e["agent_id"], e["user_id"]) for e in events} == {
        (c.session_id, "a", "u")
    }
    assert [(e["data"]["role"], e["data"]["content"]) for e in events] == [
        ("system", "Be brief."),
        ("user", "Where is order 7?"),
        ("agent", "On its way."),
        ("user", "Thank you."),
    ]


@pytest.mark.parametrize("called", [CHAT, LEGACY, RESPONSES, BUILT_IN, ANTHROPIC])
@pytest.mark.parametrize("objects", [False, True], ids=["dicts", "objects"])
def test_a_call_and_its_result_are_one_event(
    recorded: Recorded, called: list[Any], objects: bool
) -> None:
    """In each API's shape; arguments are parsed, and nothing is logged beside it."""
    listed = [ASKED, *called, ANSWERED]
    ids = recorded.tracker.log_messages("s", [*map(Model, listed)] if objects else listed)
    assert len(ids) == 3
    data = recorded.events[1]["data"]
    assert (data["name"], data["arguments"], data["result"]) == ("find_order", {"id": 7}, "sent")
    assert data.get("call_id") == (None if called is LEGACY else "c1")
    assert recorded.tracker.log_messages("s", listed) == []


def test_what_a_provider_ran_leaves_no_bytes(recorded: Recorded) -> None:
    """A picture that was made or shown is a result, by its size and hash."""
    made = {"type": "image_generation_call", "id": "ig_1", "result": "cGljdHVyZQ=="}
    asked = {
        "type": "computer_call",
        "id": "x",
        "call_id": "cu_1",
        "action": {"type": "screenshot"},
    }
    screen = {"type": "computer_screenshot", "image_url": "data:image/png;base64,cGljdHVyZQ=="}
    shown = {"type": "computer_call_output", "call_id": "cu_1", "output": screen}
    recorded.tracker.log_messages("s", [made, asked, shown])
    calls = [event["data"] for event in recorded.events]
    assert [(call["name"], call["result"][0]["bytes"]) for call in calls] == [
        ("image_generation", 7),
        ("computer", 7),
    ]
    assert "cGljdHVyZQ" not in str(recorded.events)


def test_spoken_answers_keep_their_words(recorded: Recorded) -> None:
    """And a refusal is what the agent said."""
    audio = {"id": "audio_1", "data": "cGljdHVyZQ==", "transcript": "Hello!"}
    recorded.tracker.log_messages(
        "s",
        [{"role": "assistant", "audio": audio}, {"role": "assistant", "refusal": "No."}],
    )
    spoken, refused = recorded.tracker.get_conversation_history("s")
    assert spoken.content is not None
    assert spoken.content.endswith("] Hello!")
    assert refused.content == "No."


def test_calls_at_once_have_their_own_results(recorded: Recorded) -> None:
    """In whatever order the results come; one that failed is an error."""
    calls = [{"type": "tool_use", "id": i, "name": f"f{i}", "input": {}} for i in "123"]
    results = [
        {"type": "tool_result", "tool_use_id": "3", "content": "three"},
        {"type": "tool_result", "tool_use_id": "1", "content": "no such", "is_error": True},
        {"type": "tool_result", "tool_use_id": "2"},
        {"type": "text", "text": "and quickly"},
    ]
    recorded.tracker.log_messages(
        "s",
        [
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, *calls]},
            {"role": "user", "content": results},
        ],
    )
    assert said(recorded) == [
        ("agent", "I look."),
        ("f1", "no such"),
        ("f2", ""),
        ("f3", "three"),
        ("user", "and quickly"),
    ]
    assert recorded.events[1]["data"]["error"] == "no such"


def test_a_result_that_comes_later_is_a_message(recorded: Recorded) -> None:
    """Its call is on disk before the tool runs, and stays one call."""
    tracker = recorded.tracker
    assert len(tracker.log_messages("s", CHAT[:1])) == 1
    assert len(tracker.log_messages("s", CHAT)) == 1
    assert tracker.log_messages("s", CHAT) == []
    assert said(recorded) == [("find_order", None), ("tool", "sent")]
    call, result = recorded.events
    assert (call["data"]["call_id"], result["data"]["call_id"]) == ("c1", "c1")
    assert result["data"]["name"] == "find_order"


def test_a_result_whose_call_was_cut_off_is_logged_once(recorded: Recorded) -> None:
    """Also if its call is in the list again."""
    tracker = recorded.tracker
    tracker.log_messages("s", [ASKED, CHAT[0]])
    assert len(tracker.log_messages("s", [CHAT[1]])) == 1
    assert tracker.log_messages("s", [ASKED, *CHAT]) == []


def test_what_other_calls_logged_is_known(recorded: Recorded) -> None:
    """Blocks and single messages may be mixed with lists."""
    with recorded.tracker.conversation("a") as c:
        c.user("Where is order 7?")
        c.tool("find_order", {"id": 7}, result="sent", call_id="c1")
        assert len(c.messages([ASKED, *CHAT, ANSWERED])) == 1
        c.user("Thank you.")
        assert c.messages([ASKED, *CHAT, ANSWERED, THANKED]) == []


def test_two_equal_messages_are_two(recorded: Recorded) -> None:
    """In a row, or later again."""
    ok = {"role": "user", "content": "ok"}
    for listed in ([ok], [ok, ok], [ok, ok, ANSWERED, ok]):
        recorded.tracker.log_messages("s", listed)
    assert [content for _, content in said(recorded)] == ["ok", "ok", "On its way.", "ok"]


def test_a_history_that_was_cut_goes_on(recorded: Recorded) -> None:
    """A prompt that changed and a summary are logged once; what follows, when it comes."""
    tracker = recorded.tracker
    tracker.log_messages("s", [SYSTEM, ASKED, *CHAT, ANSWERED])
    prompt = {"role": "system", "content": "Be very brief."}
    summary = {"role": "user", "content": "Summary: order 7 was sent."}
    assert len(tracker.log_messages("s", [prompt, summary, ANSWERED])) == 2
    assert tracker.log_messages("s", [prompt, summary, ANSWERED]) == []
    assert len(tracker.log_messages("s", [prompt, summary, ANSWERED, THANKED])) == 1
    assert tracker.log_messages("s", [CHAT[1], ANSWERED]) == [], "the call itself was cut off"
    assert [content for _, content in said(recorded)][-3:] == [
        "Be very brief.",
        "Summary: order 7 was sent.",
        "Thank you.",
    ]


PROGRAM = """
import json, sys
from pathlib import Path
from tracker import AgentPerformanceTracker, APIConfig

settings, listed = json.loads(sys.argv[1]), json.loads(sys.argv[2])
with AgentPerformanceTracker(APIConfig(**settings)) as tracker:
    print(len(tracker.log_messages("s", listed)))
    sys.stdout.flush()
    if len(sys.argv) > 3:
        import os
        os._exit(9)
"""


def test_another_process_goes_on(config: MakeConfig) -> None:
    """Also with masks, with the first process killed, and with nothing stored but sizes."""
    secret = {"role": "user", "content": "My key is sk-live-abcdefghijklmnop1234, call me."}
    listed = [SYSTEM, secret, *CHAT, ANSWERED]
    for capture in (True, False):
        name = f"processes-{capture}.sqlite3"
        settings = {
            "api_key": "k",
            "client_id": "c",
            "base_url": "http://127.0.0.1:9",
            "outbox_path": str(config().outbox_path.with_name(name)),
            "capture_content": capture,
        }
        for shown, expected, *killed in (
            (listed[:2], 2, "killed"),
            (listed[:4], 1, "killed"),
            (listed, 1),
            (listed, 0),
        ):
            arguments = [json.dumps(settings), json.dumps(shown), *killed]
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True
            )
            assert done.stdout == f"{expected}\n", done.stderr


def test_calls_at_the_same_time_log_once(config: MakeConfig) -> None:
    """Whichever thread comes first, the others find it stored."""
    listed = [{"role": "user", "content": f"message {number}"} for number in range(30)]
    ids: list[str] = []
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker:

        def log() -> None:
            for end in range(1, 31):
                ids.extend(tracker.log_messages("s", listed[:end]))

        threads = [threading.Thread(target=log) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        history = tracker.get_conversation_history("s")
    assert [entry.content for entry in history] == [each["content"] for each in listed]
    assert len(ids) == len(set(ids)) == 30


def test_processes_at_the_same_time_log_once(config: MakeConfig) -> None:
    """Between two of them, too, a message is stored once."""
    settings = {
        "api_key": "k",
        "client_id": "c",
        "base_url": "http://127.0.0.1:9",
        "outbox_path": str(config().outbox_path),
    }
    listed = [{"role": "user", "content": f"message {number}"} for number in range(30)]
    command = [sys.executable, "-c", PROGRAM, json.dumps(settings), json.dumps(listed)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(process.communicate()[0] for process in started) == ["0\n", "0\n", "30\n"]


def test_what_was_erased_stays_erased(config: MakeConfig) -> None:
    """The list still has it, and is given again."""
    with Tracker(config(), destination=RecordingDestination) as tracker:
        with tracker.conversation("a", user_id="u") as c:
            c.messages([SYSTEM, ASKED, *CHAT, ANSWERED])
        tracker.compliance.erase_subject("u")
        assert (
            len(tracker.log_messages(c.session_id, [SYSTEM, ASKED, *CHAT, ANSWERED, THANKED])) == 1
        )
        told = tracker.get_conversation_history(c.session_id)
        assert [entry.content for entry in told if not entry.erased] == ["Thank you."]


def test_it_is_awaited_too(config: MakeConfig) -> None:
    """After what was logged before it in the same loop, whether that was awaited or not."""

    async def log() -> None:
        made = AsyncAgentPerformanceTracker(config(), destination=RecordingDestination)
        async with made as tracker:
            before = tracker.log_user_message("s", "Where is order 7?")
            _, ids = await asyncio.gather(before, tracker.log_messages("s", [ASKED, ANSWERED]))
            assert len(ids) == 1
            async with tracker.conversation("a") as c:
                assert len(await c.messages([ASKED, *CHAT])) == 2
                assert await c.messages([ASKED, *CHAT]) == []

    asyncio.run(log())


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        ("hello", "messages: is of type str; give a list"),
        (ASKED, "messages: is of type dict; give a list"),
        (None, "messages: is of type NoneType; give a list"),
        ([ASKED, "hello"], "messages[1]: is of type str; give the messages of OpenAI's"),
        ([{"content": "x"}], "messages[0]: has neither a role nor a type"),
        ([{"role": "bot", "content": "x"}], "messages[0].role: is 'bot'; give one of"),
        ([{"role": "user", "content": 7}], "messages[0].content: is of type int"),
        ([{"role": "user", "content": None}], "messages[0].content: is None"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].content[0]: has the"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c1", "function": {}}]}],
            "messages[0].tool_calls[0].name: is None",
        ),
        (
            [{"object": "chat.completion.chunk", "choices": []}],
            "messages[0]: is a part of a stream",
        ),
        ([{"type": "response.output_text.delta", "delta": "x"}], "messages[0]: is a part of a"),
        ([{"type": "content_block_delta", "index": 0}], "messages[0]: is a part of a stream"),
        ([{"object": "chat.completion", "choices": []}], "messages[0]: is a whole answer"),
        ([{"type": "text", "text": "Hi"}], "messages[0]: is a text block without its message"),
        ([{"type": "human", "content": "Hi"}], "messages[0]: has no role; give the messages"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content: has a lone surrogate"),
    ],
)
def test_what_is_no_message_is_refused(recorded: Recorded, listed: Any, problem: str) -> None:
    """The error names its place; of the messages beside it none is stored."""
    with pytest.raises(ValidationError) as raised:
        recorded.tracker.log_messages("s", listed)
    assert str(raised.value).startswith(problem)
    assert recorded.events == []


def test_arguments_that_are_no_json_are_kept_as_text(recorded: Recorded) -> None:
    """What a model wrote is shown as it is."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"id": 7'}
    recorded.tracker.log_messages("s", [call])
    assert recorded.events[0]["data"]["arguments"] == '{"id": 7'


@needs_data
def test_recorded_conversations_are_logged_whole(recorded: Recorded) -> None:
    """Each turn by turn, with the last twelve messages as its window: nothing lost or twice."""
    conversations = read_conversations()[:20]
    for number, conversation in enumerate(conversations):
        messages = conversation["messages"]
        for end in range(1, len(messages) + 1):
            listed = messages[:1] + messages[max(1, end - 12) : end]
            recorded.tracker.log_messages(f"s{number}", listed)
    by_session = groupby(said_in_order(recorded), key=lambda pair: pair[0])
    logged = {session: [text for _, text in group] for session, group in by_session}
    for number, conversation in enumerate(conversations):
        texts = [m["content"] for m in conversation["messages"] if m["content"] is not None]
        assert logged[f"s{number}"] == texts


def said_in_order(recorded: Recorded) -> list[tuple[str, str]]:
    events = (e for e in recorded.events if e["type"] == "message.logged")
    return [(event["session_id"], event["data"]["content"]) for event in events]


def test_a_hook_may_change_and_drop_messages(config: MakeConfig) -> None:
    """What it changed is known by what was given; what it dropped is counted as discarded."""

    def hook(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["data"].get("role") == "system":
            return None
        event["data"]["content"] = "gone"
        return event

    listed = [SYSTEM, ASKED, ANSWERED]
    recorded = Recorded(config(before_record=hook))
    with recorded.tracker as tracker:
        assert len(tracker.log_messages("s", listed)) == 2
        assert tracker.log_messages("s", listed) == []
        assert len(tracker.log_messages("s", [*listed, THANKED])) == 1
        assert len(tracker.log_messages("s", [ANSWERED, THANKED, ANSWERED])) == 1
        assert tracker.health().discarded["hook"] == 1
        assert said(recorded) == [*[("user", "gone"), ("agent", "gone")] * 2]


def test_each_turn_of_a_list_is_a_trace(recorded: Recorded) -> None:
    """As if its messages had been logged one by one."""
    with recorded.tracker.conversation("a") as c:
        c.messages([SYSTEM, ASKED, *CHAT, ANSWERED, THANKED])
    events = [e for e in recorded.events if e["type"] in ("message.logged", "tool.called")]
    traces = [event["trace"]["trace_id"] for event in events]
    assert len(set(traces[:4])) == 1
    assert traces[4] != traces[0]


def test_values_that_json_does_not_have_are_converted(config: MakeConfig) -> None:
    """By the application's own function, if it gave one; otherwise the error names its place."""
    day = date(2026, 11, 1)
    content = [{"type": "tool_use", "id": "c1", "name": "find", "input": {"day": day}}]
    recorded = Recorded(config(json_default=str))
    with recorded.tracker as tracker:
        tracker.log_messages("s", [{"role": "assistant", "content": content}])
        tracker.log_message("s", "agent", content)
        call, message = recorded.events
    assert call["data"]["arguments"] == {"day": "2026-11-01"}
    assert message["data"]["content"][0]["input"] == {"day": "2026-11-01"}
    other = Recorded(config(outbox_path=config().outbox_path.with_name("strict.sqlite3")))
    with other.tracker as tracker, pytest.raises(ValidationError, match=r"content\[0\]"):
        tracker.log_messages("s", [{"role": "assistant", "content": content}])


def test_a_message_that_is_too_large_is_named(config: MakeConfig) -> None:
    """With its place in the list; what stands before it is not stored either."""
    recorded = Recorded(config(max_event_bytes=4_096))
    with recorded.tracker as tracker:
        with pytest.raises(ValidationError, match=r"messages\[1\]\.content: makes an event of"):
            tracker.log_messages("s", [ASKED, {"role": "assistant", "content": "x" * 5_000}])
        assert recorded.events == []


def test_a_disabled_tracker_only_checks() -> None:
    """It returns an id for each message, and knows none of them later."""
    with AgentPerformanceTracker(APIConfig(disabled=True)) as tracker:
        assert len(tracker.log_messages("s", [ASKED, ANSWERED])) == 2
        with pytest.raises(ValidationError):
            tracker.log_messages("s", [{"role": "bot"}])


def test_a_list_is_logged_once_while_the_disk_fails(
    config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in memory is known too, and is written before what comes next."""
    monkeypatch.setattr(OutboxConnection, "busy_seconds", 0.02)
    with AgentPerformanceTracker(config(), destination=RecordingDestination) as tracker:
        tracker.log_messages("s", [ASKED])
        other = sqlite3.connect(config().outbox_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(MemoryBuffer, "retry_seconds", 0.0)
        assert len(tracker.log_messages("s", [ASKED, ANSWERED])) == 1
        assert tracker.log_messages("s", [ASKED, ANSWERED]) == []
        other.close()
        assert len(tracker.log_messages("s", [ASKED, ANSWERED, THANKED])) == 1
        told = tracker.get_conversation_history("s")
    assert [entry.content for entry in told] == ["Where is order 7?", "On its way.", "Thank you."]
