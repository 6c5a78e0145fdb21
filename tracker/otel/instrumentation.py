"""`instrument`: stores what the instrumentors of model and agent libraries record."""

from __future__ import annotations

import os
import weakref
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from tracker import log
from tracker.otel.processor import OutboxLogRecordProcessor, OutboxSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker.trackers.base import BaseTracker

GROUPS = ("opentelemetry_instrumentor", "openinference_instrumentor")
INSTRUMENTORS = frozenset({
    "agno", "anthropic", "autogen", "autogen_agentchat", "bedrock", "beeai", "claude_agent_sdk",
    "cohere", "crewai", "dspy", "google_adk", "google_genai", "google_generativeai", "groq",
    "guardrails", "haystack", "instructor", "langchain", "langgraph", "litellm", "llama_index",
    "mcp", "mistralai", "ollama", "openai", "openai_agents", "openai_v2", "portkey", "pydantic_ai",
    "replicate", "smolagents", "together", "transformers", "vertexai", "watsonx", "weaviate",
})  # fmt: skip
"""What is instrumented if an instrumentor of it is installed; web frameworks and databases are the
application's to choose."""
_SWITCHES = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
}
"""Without these, OpenTelemetry's own instrumentors record no messages."""

_served: weakref.WeakKeyDictionary[object, weakref.WeakSet[BaseTracker]] = (
    weakref.WeakKeyDictionary()
)


def instrument(
    tracker: BaseTracker, *, started: bool = False, nest: bool = False
) -> tuple[TracerProvider, LoggerProvider]:
    """Store the spans and log records of the global providers, and instrument model libraries.

    ::

        tracker = Tracker()
        instrument(tracker)

    A provider is made, with ``Resource.create()``, if there is none yet. Then every installed
    instrumentor of a model or agent library is turned on, those of OpenTelemetry and of
    OpenInference; of two for one library, only OpenTelemetry's. Unless `APIConfig.capture_content`
    is False or the environment says otherwise, they record messages. A failure of one is logged.
    Calling this again with the same tracker changes nothing.

    Args:
        tracker: The tracker whose outbox stores the events.
        started: Whether to store the start of each span too; see `OutboxSpanProcessor`.
        nest: Whether spans become children of the tracker's own; see `OutboxSpanProcessor`.

    Returns:
        The providers, to shut them down or to add processors.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio, or another argument is invalid.
    """
    spans = OutboxSpanProcessor(tracker, started=started, nest=nest)
    logs = OutboxLogRecordProcessor(tracker)
    provider, logger_provider = _tracer_provider(), _logger_provider()
    if _is_new(provider, tracker):
        provider.add_span_processor(spans)
    if _is_new(logger_provider, tracker):
        logger_provider.add_log_record_processor(logs)
    if tracker.config.capture_content:
        for name, value in _SWITCHES.items():
            os.environ.setdefault(name, value)
    for entry_point in chosen(found for group in GROUPS for found in entry_points(group=group)):
        _turn_on(entry_point, provider, logger_provider)
    return provider, logger_provider


def chosen(found: Iterable[EntryPoint]) -> list[EntryPoint]:
    """Return the instrumentors to turn on: one for each library that is on the list."""
    by_name: dict[str, EntryPoint] = {}
    for entry_point in sorted(found, key=lambda each: not each.value.startswith("opentelemetry.")):
        name = entry_point.name.replace("-", "_").lower()
        library = "openai" if name == "openai_v2" else name
        if name in INSTRUMENTORS:
            by_name.setdefault(library, entry_point)
    return list(by_name.values())


def _turn_on(
    entry_point: EntryPoint, provider: TracerProvider, logger_provider: LoggerProvider
) -> None:
    try:
        instrumentor: Any = entry_point.load()()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(tracer_provider=provider, logger_provider=logger_provider)
    except Exception as error:  # noqa: BLE001 - it may lack its library, or be of another version
        log.warning("the instrumentor %s cannot be turned on: %s", entry_point.value, error)


def _is_new(provider: object, tracker: BaseTracker) -> bool:
    served = _served.setdefault(provider, weakref.WeakSet())
    new = tracker not in served
    served.add(tracker)
    return new


def _tracer_provider() -> TracerProvider:
    found = trace.get_tracer_provider()
    if isinstance(found, TracerProvider):
        return found
    made = TracerProvider(resource=Resource.create())
    trace.set_tracer_provider(made)
    return made


def _logger_provider() -> LoggerProvider:
    found = _logs.get_logger_provider()
    if isinstance(found, LoggerProvider):
        return found
    made = LoggerProvider(resource=Resource.create())
    _logs.set_logger_provider(made)
    return made
