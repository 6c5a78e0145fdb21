"""What each framework is tested with: their requirements exclude one another."""

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "openai": ("openai", "opentelemetry-instrumentation-genai-openai"),
    "openai_openinference": ("openai", "openinference-instrumentation-openai"),
    "anthropic": ("anthropic", "opentelemetry-instrumentation-genai-anthropic"),
    "anthropic_openinference": ("anthropic", "openinference-instrumentation-anthropic"),
    "langchain": (
        *("langchain", "langchain-openai", "langgraph"),
        "opentelemetry-instrumentation-genai-langchain",
    ),
    "langchain_openinference": (
        *("langchain", "langchain-openai", "langgraph"),
        "openinference-instrumentation-langchain",
    ),
    "openai_agents": ("openai-agents", "openinference-instrumentation-openai-agents"),
    "pydantic_ai": ("pydantic-ai-slim[openai]",),
    "litellm": ("litellm", "openinference-instrumentation-litellm"),
    "mcp": ("mcp", "openinference-instrumentation-mcp"),
    "logfire": ("logfire",),
    "langfuse": ("langfuse",),
    "traceloop": ("traceloop-sdk", "httpx"),  # which it does not ask for itself
}
