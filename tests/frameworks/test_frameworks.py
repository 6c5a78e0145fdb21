"""Each framework of the page: its program runs, and what it does is in the outbox."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.contract.otel.conftest import Row, rows
from tests.frameworks import programs
from tests.frameworks.requirements import REQUIREMENTS
from tests.support import environments
from tests.support.cli import call_json
from tests.support.model_server import ANSWER, INPUT_TOKENS, ModelServer
from tests.support.pages import IS_CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(not IS_CHECKOUT, reason="the page is not in the wheel"),
]

_PATH = environments.ROOT / "tracker" / "otel" / "README.md"
PAGE = _PATH.read_text(encoding="utf-8") if IS_CHECKOUT else ""
PROGRAMS = dict(
    re.findall(r"^### (.+?)\n.*?^~~~python\n(.*?)^~~~$", PAGE, re.MULTILINE | re.DOTALL)
)
NOBODY = "http://127.0.0.1:9"


class Expected(NamedTuple):
    """What is run of a framework, and what has to be stored of it."""

    heading: str
    more: str
    names: dict[str, int]
    calls: int = 0
    """Spans of calls of the model."""
    counted: int = 0
    """Calls of it whose tokens are known."""


OPENAI = Expected("OpenAI", programs.OPENAI, {"chat gpt-4o-mini": 6}, 6, 6)
ANTHROPIC = {"anthropic.messages.create": 4}
AGENT = Expected(
    "LangChain and LangGraph",
    programs.LANGCHAIN,
    {"invoke_agent": 2, "execute_tool find_order": 2, "chat gpt-4o-mini": 4},
    4,
    2,  # it does not ask for the usage of a stream
)
EXPECTED = {
    "openai": OPENAI,
    "openai_openinference": OPENAI._replace(names={"ChatCompletion": 3, "Response": 3}),
    "anthropic": Expected(
        "Anthropic", programs.ANTHROPIC, {**ANTHROPIC, "chat claude-haiku-4-5": 4}, 8, 4
    ),
    "anthropic_openinference": Expected(
        "Anthropic",
        programs.ANTHROPIC,
        {**ANTHROPIC, "messages.create": 3, "messages.stream": 1},
        8,
        5,  # the two spans of a stream have nothing in common
    ),
    "langchain": AGENT,
    "langchain_openinference": AGENT._replace(
        names={"LangGraph": 2, "model": 4, "ChatOpenAI": 4, "tools": 2, "find_order": 2}
    ),
    "openai_agents": Expected(
        "OpenAI Agents", programs.AGENTS, {"agent_123": 2, "response": 4, "find_order": 2}, 4, 4
    ),
    "pydantic_ai": Expected(
        "Pydantic AI",
        programs.PYDANTIC_AI,
        {"invoke_agent agent": 2, "execute_tool find_order": 2, "chat gpt-4o-mini": 4},
        4,
        4,
    ),
    "litellm": Expected("LiteLLM", programs.LITELLM, {"completion": 2}, 2, 1),
    "mcp": Expected(
        "MCP", programs.MCP, {"of the client": 1, "of the server": 1, "tools/call find_order": 1}
    ),
    "logfire": Expected("Logfire", "", {"find order {number}": 1, "found": 1}),
    "langfuse": Expected("Langfuse", "", {"find order": 1}),
    "traceloop": Expected("Traceloop", "", {"find order.workflow": 1}),
}


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def run(framework: str, folder: Path, models: ModelServer) -> list[Row]:
    """Run a framework's program, and return the spans that are stored."""
    heading, more, *_ = EXPECTED[framework]
    program = folder / "program.py"
    program.write_text("\n".join([PROGRAMS[heading], more, programs.END]))
    outbox = folder / "outbox.sqlite3"
    printed = environments.run(
        environments.python_with(*REQUIREMENTS[framework]),
        program,
        SDK_API_KEY="test-key",
        SDK_CLIENT_ID="test-client",
        SDK_BASE_URL=NOBODY,
        SDK_OUTBOX_PATH=str(outbox),
        OPENAI_API_KEY="sk-test",
        OPENAI_BASE_URL=f"{models.url}/v1",
        ANTHROPIC_API_KEY="sk-test",
        ANTHROPIC_BASE_URL=models.url,
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LANGFUSE_PUBLIC_KEY="pk-lf-1",
        LANGFUSE_SECRET_KEY="sk-lf-1",
        LANGFUSE_BASE_URL=NOBODY,
        TRACELOOP_TELEMETRY="false",
    )
    assert printed.splitlines()[-1] == "otel_dropped=0"
    return rows(outbox, "otel.span")


def is_call_of_a_model(row: Row) -> bool:
    attributes: dict[str, object] = row.data.get("attributes", {})
    return (
        attributes.get("gen_ai.operation.name") == "chat"
        or attributes.get("openinference.span.kind") == "LLM"
    )


@pytest.mark.parametrize("framework", EXPECTED)
def test_what_a_framework_does_is_stored(
    tmp_path: Path, models: ModelServer, framework: str
) -> None:
    """Each span once, with the ids of the conversation, messages, tools and tokens."""
    expected = EXPECTED[framework]
    found = run(framework, tmp_path, models)
    names = [row.data["name"] for row in found]
    assert {name: names.count(name) for name in expected.names} == expected.names
    assert len({row.data["span_id"] for row in found}) == len(found)
    calls = [row for row in found if is_call_of_a_model(row)]
    assert len(calls) == expected.calls
    if framework != "mcp":
        sessions = {(row.agent_id, row.user_id) for row in found if row.session_id}
        assert sessions == {("agent_123", "user_7")}
        assert all(row.session_id for row in found)
    if calls:
        texts = [repr(row.data["attributes"]) for row in calls]
        assert any(ANSWER in text for text in texts)
        assert any("Where is order 7?" in text for text in texts)
        assert any(
            INPUT_TOKENS
            in (each.get("gen_ai.usage.input_tokens"), each.get("llm.token_count.prompt"))
            for each in (row.data["attributes"] for row in calls)
        )


@pytest.mark.parametrize(
    "framework", [name for name, expected in EXPECTED.items() if expected.calls]
)
def test_what_a_framework_does_is_read(tmp_path: Path, models: ModelServer, framework: str) -> None:
    """Each call of the model once, and question, tool and answer of a conversation."""
    found = run(framework, tmp_path, models)
    outbox = tmp_path / "outbox.sqlite3"
    (used,) = call_json("--outbox", outbox, "usage")
    assert used["calls"] == EXPECTED[framework].counted
    assert used["prompt_tokens"] == INPUT_TOKENS * used["calls"]
    sessions = sorted({row.session_id or "" for row in found})
    told = [
        entry
        for session_id in sessions
        for entry in call_json("--outbox", outbox, "conversation", session_id)["history"]
    ]
    answers = [(entry["prompt"], entry["content"]) for entry in told if entry["role"] == "agent"]
    assert ("Where is order 7?", ANSWER) in answers
    assert {content for _, content in answers} == {ANSWER}
    assert {entry["tool_call"]["name"] for entry in told if entry["tool_call"]} <= {"find_order"}


def test_a_trace_goes_on_in_an_mcp_server(tmp_path: Path, models: ModelServer) -> None:
    """Two processes on one outbox, one trace."""
    found = {row.data["name"]: row.data for row in run("mcp", tmp_path, models)}
    assert found["of the server"]["trace_id"] == found["of the client"]["trace_id"]


def test_every_program_of_the_page_is_run() -> None:
    """What is not is below a heading that says so."""
    assert PROGRAMS.keys() == {expected.heading for expected in EXPECTED.values()}
    assert REQUIREMENTS.keys() == EXPECTED.keys()
