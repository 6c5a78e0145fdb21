"""Names of attributes that have a meaning here.

They are OpenTelemetry's semantic conventions as published up to 0.66, and those that OpenInference
and Langfuse use for the same. The package of the conventions is not needed for them.
"""

from __future__ import annotations

from typing import NamedTuple

CONVERSATION_ID = "gen_ai.conversation.id"
SESSION_ID = "session.id"
USER_ID = "user.id"
AGENT_ID = "gen_ai.agent.id"

SESSION = (CONVERSATION_ID, SESSION_ID, "langfuse.session.id")
"""What names the conversation of a span, the first that it has before the others."""
AGENT = (AGENT_ID, "gen_ai.agent.name", "agent.name")
USER = (USER_ID, "enduser.id", "langfuse.user.id")

ENVIRONMENT = ("deployment.environment.name", "deployment.environment")
"""The attributes of a resource that are the ``environment`` of an event's context."""
RELEASE = ("service.version",)
"""Those that are its ``release``."""

SKELETON = (
    *SESSION,
    *AGENT,
    *USER,
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "openinference.span.kind",
    "llm.model_name",
    "embedding.model_name",
    "llm.token_count.prompt",
    "llm.token_count.completion",
    "llm.token_count.total",
    "error.type",
)
"""The attributes that are kept of a span that fits into no event."""

OPERATION = "gen_ai.operation.name"
KIND = "openinference.span.kind"
WORK = (OPERATION, KIND, "llm.request.type", "traceloop.span.kind")
"""What says which kind of work a span is; the first that it has counts."""
MODEL_WORK = frozenset(
    {
        *("chat", "text_completion", "generate_content", "embeddings"),
        *("LLM", "EMBEDDING"),
        *("completion", "embedding"),
    }
)
"""The work of a model, by each of `WORK`. That of an agent repeats the usage of its models."""

TOOL_WORK = frozenset(("execute_tool", "TOOL", "tool"))
"""The work of a tool, likewise."""

MODEL = (
    *("gen_ai.response.model", "gen_ai.request.model"),
    *("llm.model_name", "embedding.model_name"),
)
"""The model of a span, as the provider named it before what was asked for."""

USAGE = {
    "prompt_tokens": (
        *("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        *("llm.token_count.prompt", "llm.usage.prompt_tokens"),
    ),
    "completion_tokens": (
        *("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        *("llm.token_count.completion", "llm.usage.completion_tokens"),
    ),
    "total_tokens": (
        *("gen_ai.usage.total_tokens", "llm.token_count.total", "llm.usage.total_tokens"),
    ),
    "cached_tokens": (
        *("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
        *("gen_ai.usage.details.cache_read_tokens", "llm.token_count.prompt_details.cache_read"),
    ),
    "cache_write_tokens": (
        *("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens"),
        *("gen_ai.usage.cache_creation_input_tokens", "gen_ai.usage.details.cache_write_tokens"),
        "llm.token_count.prompt_details.cache_write",
    ),
    "cost_usd": ("llm.cost.total", "gen_ai.usage.cost", "operation.cost"),
}
"""The figures of a model's work, by their names in ``llm.used``; newer names before older ones."""


class Messages(NamedTuple):
    """Where the messages of a model's work are.

    Attributes:
        listed: All of them, as JSON text or as values.
        numbered: The beginnings of the names of one's ``role`` and ``content``, with its number.
        whole: A text in place of them.
        kind: The media type of that text.
    """

    listed: str
    numbered: tuple[str, ...]
    whole: str
    kind: str


INPUT = Messages(
    "gen_ai.input.messages",
    ("llm.input_messages.{}.message.", "gen_ai.prompt.{}."),
    "input.value",
    "input.mime_type",
)
OUTPUT = Messages(
    "gen_ai.output.messages",
    ("llm.output_messages.{}.message.", "gen_ai.completion.{}."),
    "output.value",
    "output.mime_type",
)
ANSWERED = (
    *(OUTPUT.listed, OUTPUT.whole, OUTPUT.kind),
    *(f"{beginning.format(0)}content" for beginning in OUTPUT.numbered),
    "llm.output_messages.0.message.contents.0.message_content.text",
)
"""What tells a model's answer, of which there is one as a rule."""

TOOL_NAME = ("gen_ai.tool.name", "tool.name", "traceloop.entity.name")
TOOL_CALL_ID = ("gen_ai.tool.call.id", "tool_call.id", "tool.id")
TOOL_ARGUMENTS = ("gen_ai.tool.call.arguments", INPUT.whole, "traceloop.entity.input")
TOOL_RESULT = ("gen_ai.tool.call.result", OUTPUT.whole, "traceloop.entity.output")
"""The parts of a tool's call, the first that it has before the others."""

INTERRUPTED = "tracker.span.interrupted"
"""True on a span whose process ended before it did."""
