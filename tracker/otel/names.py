"""Names of attributes that have a meaning here.

They are OpenTelemetry's semantic conventions as published up to 0.66, and those that OpenInference
and Langfuse use for the same. The package of the conventions is not needed for them.
"""

from __future__ import annotations

CONVERSATION_ID = "gen_ai.conversation.id"
SESSION_ID = "session.id"
USER_ID = "user.id"
AGENT_ID = "gen_ai.agent.id"

SESSION = (CONVERSATION_ID, SESSION_ID, "langfuse.session.id")
"""What names the conversation of a span, the first that it has before the others."""
AGENT = (AGENT_ID, "gen_ai.agent.name", "agent.name")
USER = (USER_ID, "enduser.id", "langfuse.user.id")

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
    "llm.token_count.prompt",
    "llm.token_count.completion",
    "llm.token_count.total",
    "error.type",
)
"""The attributes that are kept of a span that fits into no event."""

INTERRUPTED = "tracker.span.interrupted"
"""True on a span whose process ended before it did."""
